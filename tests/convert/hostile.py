"""Files that lie: each is to be delivered byte for byte, with a reason."""

import io
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from scp.model import PassReason
from tests.convert.images import NOISE, image
from tests.convert.streams import compressed, jpeg_2000, jpeg_lossless, jpeg_ls, rle

type Hostile = tuple[Callable[[], bytes], PassReason]

_ITEM: Final = b"\xfe\xff\0\xe0"
_ITEM_END: Final = b"\xfe\xff\x0d\xe0\0\0\0\0"
_SEQUENCE_END: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
_PIXELS: Final = b"\xe0\x7f\x10\0"
_LARGEST: Final = 0xFFFF


def file_of(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def native(syntax: str = "1.2.840.10008.1.2.1", **changes: Any) -> Dataset:
    return _changed(image(NOISE, bits_stored=12, transfer_syntax=syntax), changes)


def j2k(**changes: Any) -> Dataset:
    return _changed(compressed(NOISE, jpeg_2000(NOISE), JPEG2000Lossless), changes)


def _changed(dataset: Dataset, changes: dict[str, Any]) -> Dataset:
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def _frames(text: str, dataset: Dataset) -> Dataset:
    dataset["NumberOfFrames"]._value = text  # pydicom would not take it otherwise
    return dataset


def _with_frames(text: str) -> bytes:
    return file_of(_frames(text, j2k()))


def _table(*offsets: int, more: bytes = b"") -> Dataset:
    """With another Basic Offset Table."""
    dataset = j2k()
    table = struct.pack(f"<{len(offsets)}L", *offsets) + more
    fragments = dataset.PixelData[8 + 4 * len(NOISE) :]
    dataset.PixelData = _ITEM + struct.pack("<L", len(table)) + table + fragments
    return dataset


def _extended(*offsets: int) -> Dataset:
    dataset = _table()
    dataset.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
    dataset.ExtendedOffsetTableLengths = bytes(8 * len(offsets))
    return dataset


def _before_pixels(element: bytes) -> bytes:
    """A native file with bytes put in front of its pixel data."""
    content = file_of(native())
    at = content.index(_PIXELS)
    return content[:at] + element + content[at:]


def _deep(levels: int) -> bytes:
    """Sequences of undefined length in each other, in a private element before the pixel data."""
    sequence = b"\x31\0\x01\x10SQ\0\0\xff\xff\xff\xff" + _ITEM + b"\xff\xff\xff\xff"
    return sequence * levels + (_ITEM_END + _SEQUENCE_END) * levels


def _cut(dataset: Dataset, behind: bytes, distance: int) -> bytes:
    content = file_of(dataset)
    return content[: content.index(behind) + distance]


def _replaced(dataset: Dataset, old: bytes, new: bytes) -> bytes:
    content = file_of(dataset)
    assert content.count(old) >= 1
    return content.replace(old, new, 1)


def _precision() -> Dataset:
    """A stream of 16 bits in a dataset of 8."""
    return _changed(
        compressed(NOISE, jpeg_lossless(NOISE), JPEGLosslessSV1),
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
    )


def _swapped_streams() -> Dataset:
    """JPEG-LS behind the label of JPEG 2000."""
    return compressed(NOISE, jpeg_ls(NOISE), JPEG2000Lossless)


def _rle_segments(count: int) -> Dataset:
    streams = [struct.pack("<L", count) + stream[4:] for stream in rle(NOISE)]
    return compressed(NOISE, streams, RLELossless)


def _rle_offsets() -> Dataset:
    streams = [stream[:4] + struct.pack("<LL", 64, 2**31) + stream[12:] for stream in rle(NOISE)]
    return compressed(NOISE, streams, RLELossless)


def _bomb() -> bytes:
    """A gigapixel of nothing, deflated; the header says that it is small."""
    dataset = image(
        np.zeros((1, 16_384, 8192, 1), "<u1"), transfer_syntax=DeflatedExplicitVRLittleEndian
    )
    dataset.Rows, dataset.Columns = 16, 16
    return file_of(dataset)


def _not_deflated() -> bytes:
    meta = file_of(native(str(DeflatedExplicitVRLittleEndian)))
    return meta[: 144 + int.from_bytes(meta[140:144], "little")] + bytes(range(256)) * 8


HOSTILE: Final[dict[str, Hostile]] = {
    # Encapsulation
    "cut in a fragment": (
        lambda: _cut(j2k(), b"\xff\x4f\xff\x51", 100), PassReason.UNREADABLE,
    ),
    "cut in the header of an item": (
        lambda: _cut(j2k(), b"\xff\x4f\xff\x51", -3), PassReason.UNREADABLE,
    ),
    "cut before the delimiter": (lambda: file_of(j2k())[:-8], PassReason.UNREADABLE),
    "no fragments": (
        lambda: file_of(_changed(j2k(), {"PixelData": _ITEM + bytes(4)})), PassReason.FRAME_COUNT,
    ),
    "fragments of no bytes": (
        lambda: file_of(_changed(j2k(), {"PixelData": (_ITEM + bytes(4)) * 4})),
        PassReason.DECODER_FAILED,
    ),
    "an item that is longer than the file": (
        lambda: _replaced(j2k(), _ITEM + b"\x0c\0\0\0", _ITEM + b"\xf0\xff\xff\xff"),
        PassReason.UNREADABLE,
    ),
    "an item of undefined length among the fragments": (
        lambda: _replaced(j2k(), _ITEM + b"\x0c\0\0\0", _ITEM + b"\xff\xff\xff\xff"),
        PassReason.UNREADABLE,
    ),
    "something else among the fragments": (
        lambda: _replaced(j2k(), _ITEM + b"\x0c\0\0\0", b"\x08\0\x10\0\x0c\0\0\0"),
        PassReason.UNREADABLE,
    ),
    # Offset tables
    "a table that points beyond": (
        lambda: file_of(_table(0, 1000, 2**32 - 1)), PassReason.FRAME_COUNT,
    ),
    "a table that goes back": (lambda: file_of(_table(0, 2000, 1000)), PassReason.FRAME_COUNT),
    "a table that does not move": (lambda: file_of(_table(0, 0, 0)), PassReason.FRAME_COUNT),
    "a table that begins elsewhere": (
        lambda: file_of(_table(8, 1000, 2000)), PassReason.FRAME_COUNT,
    ),
    "a table of too few": (lambda: file_of(_table(0, 1000)), PassReason.FRAME_COUNT),
    "a table of too many": (lambda: file_of(_table(*range(0, 4000, 10))), PassReason.FRAME_COUNT),
    "a table that ends in a number": (
        lambda: file_of(_table(0, more=b"\1\2")), PassReason.FRAME_COUNT,
    ),
    "an extended table that points beyond": (
        lambda: file_of(_extended(0, 2**63, 2**64 - 1)), PassReason.FRAME_COUNT,
    ),
    # Numbers of frames
    **{
        f"{text} frames": (partial(_with_frames, text), PassReason.FRAME_COUNT)
        for text in ("0", "-1", "2", "4", "three", "1e3")
    },
    "billions of frames": (
        partial(_with_frames, "99999999999"),
        PassReason.FRAME_TOO_LARGE,
    ),
    "a lack of native frames": (
        lambda: file_of(_frames("4", native())), PassReason.PIXEL_DATA_SHORT,
    ),
    "billions of native frames": (
        lambda: file_of(_frames("999999999", native())), PassReason.FRAME_TOO_LARGE,
    ),
    # Sizes and depths
    "no rows": (lambda: file_of(native(Rows=0)), PassReason.PIXEL_ATTRIBUTE_MISSING),
    "no columns": (lambda: file_of(j2k(Columns=0)), PassReason.PIXEL_ATTRIBUTE_MISSING),
    "as many native rows and columns as can be written": (
        lambda: file_of(native(Rows=_LARGEST, Columns=_LARGEST)), PassReason.FRAME_TOO_LARGE,
    ),
    "one native frame of as many rows and columns as can be written": (
        lambda: file_of(_frames("1", native(Rows=_LARGEST, Columns=_LARGEST))),
        PassReason.FRAME_TOO_LARGE,
    ),
    "as many rows and columns as can be written": (
        lambda: file_of(_frames("1", j2k(Rows=_LARGEST, Columns=_LARGEST))),
        PassReason.FRAME_TOO_LARGE,
    ),
    "rows that the stream has not": (
        lambda: file_of(j2k(Rows=22)), PassReason.CODESTREAM_MISMATCH,
    ),
    "more bits than the stream has": (lambda: file_of(_precision()), PassReason.CODESTREAM_MISMATCH),
    "fewer bits than the words have": (
        lambda: file_of(j2k(BitsStored=10, HighBit=9)), PassReason.UNUSED_BITS_SET,
    ),
    "a sign that the stream has not": (
        lambda: file_of(j2k(PixelRepresentation=1)), PassReason.CODESTREAM_MISMATCH,
    ),
    "two samples": (lambda: file_of(native(SamplesPerPixel=2)), PassReason.PIXEL_ATTRIBUTE_MISSING),
    "another codec": (lambda: file_of(_swapped_streams()), PassReason.DECODER_FAILED),
    "no RLE segments": (lambda: file_of(_rle_segments(0)), PassReason.CODESTREAM_MISMATCH),
    "billions of RLE segments": (
        lambda: file_of(_rle_segments(2**32 - 1)), PassReason.CODESTREAM_MISMATCH,
    ),
    "RLE segments beyond the frame": (lambda: file_of(_rle_offsets()), PassReason.DECODER_FAILED),
    # Elements
    "sequences deep in each other": (
        lambda: _before_pixels(_deep(10_000)), PassReason.UNREADABLE,
    ),
    "a sequence without end": (lambda: _before_pixels(_deep(3)[:-16]), PassReason.UNREADABLE),
    "rows twice": (
        lambda: _before_pixels(b"\x28\0\x10\0US\x02\0\x15\0"), PassReason.UNREADABLE,
    ),
    "pixels twice": (
        lambda: file_of(native()) + _PIXELS + b"OW\0\0\x02\0\0\0ab", PassReason.UNREADABLE,
    ),
    "no VR": (lambda: _replaced(native(), b"\x28\0\x10\0US", b"\x28\0\x10\0\0\0"), PassReason.UNREADABLE),
    "a VR of small letters": (
        lambda: _replaced(native(), b"\x28\0\x10\0US", b"\x28\0\x10\0us"), PassReason.UNREADABLE,
    ),
    "rows in words": (
        lambda: _replaced(native(), b"\x28\0\x10\0US\x02\0", b"\x28\0\x10\0LO\x02\0"),
        PassReason.PIXEL_ATTRIBUTE_MISSING,
    ),
    "a private element longer than the file": (
        lambda: _before_pixels(b"\x31\0\x01\x10OB\0\0\xf0\xff\xff\xff"), PassReason.UNREADABLE,
    ),
    "implicit behind an explicit label": (
        lambda: _replaced(
            native(str(ImplicitVRLittleEndian)),
            b"1.2.840.10008.1.2\0",
            b"1.2.840.10008.1.2.1"[:18],
        ),
        PassReason.UNREADABLE,
    ),
    "big behind a little label": (
        lambda: _replaced(
            native(str(ExplicitVRBigEndian)), b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1"
        ),
        PassReason.UNREADABLE,
    ),
    "a file meta group that is cut": (lambda: file_of(native())[:150], PassReason.UNREADABLE),
    "a file meta group without a transfer syntax": (
        lambda: _replaced(native(), b"\2\0\x10\0UI", b"\2\0\x11\0UI"), PassReason.UNREADABLE,
    ),
    "nothing but a preamble": (lambda: bytes(128) + b"DICM", PassReason.UNREADABLE),
    # Deflate
    "deflated to almost nothing": (_bomb, PassReason.FRAME_TOO_LARGE),
    "not deflated": (_not_deflated, PassReason.UNREADABLE),
    "a deflate stream that is cut": (
        lambda: file_of(native(str(DeflatedExplicitVRLittleEndian)))[:-700],
        PassReason.PIXEL_DATA_SHORT,
    ),
    "a JPEG-LS stream that is cut": (
        lambda: file_of(
            compressed(NOISE, [stream[:200] for stream in jpeg_ls(NOISE)], JPEGLSLossless)
        ),
        PassReason.DECODER_FAILED,
    ),
}  # fmt: skip


def harmless() -> dict[str, bytes]:
    """What looks as bad, and is converted."""
    return {
        "a huge private element": _before_pixels(
            b"\x31\0\x10\0LO\x08\0NOBODY  \x31\0\x01\x10OB\0\0"
            + struct.pack("<L", 2**25)
            + bytes(2**25)
        ),
        "sequences in each other": _before_pixels(_deep(30)),
        "a patient twice": _before_pixels(b"\x10\0\x20\0LO\x04\0ABCD"),
        "a VR of the future": _before_pixels(b"\x31\0\x01\x10ZZ\0\0\x04\0\0\0abcd"),
        "an unknown character set": _replaced(native(), b"ISO_IR 192", b"NO_SUCH 99"),
        "elements out of order": _before_pixels(b"\x08\0\x70\0LO\x04\0ABCD"),
    }
