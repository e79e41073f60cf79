"""Reads a written object again and compares it with its sources, before anybody is told that it exists.

Everything here reads bytes with our own walker; nothing of highdicom or pydicom, which wrote them, is
believed.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from scp.convert.enhanced.eligible import (
    INTERCEPT,
    ORIENTATION,
    POSITION,
    SLICE_THICKNESS,
    SLOPE,
    SPACING,
    WINDOW_CENTER,
    WINDOW_WIDTH,
)
from scp.convert.enhanced.groups import Volume
from scp.convert.enhanced.originals import Surroundings
from scp.convert.enhanced.record import FrameDigests, read_own_block, read_record
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.slices import SliceHeader, value_of
from scp.convert.enhanced.writer import read_codestream, transfer_syntax_of
from scp.convert.recode import element_header
from scp.elements import EXPLICIT_LITTLE, PIXEL_DATA, UNDEFINED, Element, items_of, walk
from scp.errors import ConversionError, MalformedError, TruncatedError
from scp.model import CollapseReason
from scp.part10 import file_meta_of

_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_SOP_INSTANCE, _FRAMES, _SOURCE_INSTANCE = 0x00080018, 0x00280008, 0x00081155
_OFFSETS, _LENGTHS = 0x7FE00001, 0x7FE00002
_DEFAULTS: Final = {SLOPE: (1.0,), INTERCEPT: (0.0,)}
_QUANTITIES: Final = (
    (0x00209113, POSITION),
    (0x00209116, ORIENTATION),
    (0x00289110, SPACING),
    (0x00289110, SLICE_THICKNESS),
    (0x00289145, SLOPE),
    (0x00289145, INTERCEPT),
    (0x00289132, WINDOW_CENTER),
    (0x00289132, WINDOW_WIDTH),
)
"""Functional group and attribute: what makes values and places of a frame's pixels."""
_WINDOW: Final = 0x00289132
_IDENTITY: Final = (
    0x00100010, 0x00100020, 0x00100030, 0x00100040,  # the patient
    0x0020000D, 0x00080020, 0x00080030, 0x00080050, 0x00200052,  # the study, the frame of reference
    0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280004,
)  # fmt: skip
"""What must stand at the top exactly as in every source."""
_SOURCE: Final = 0x00209172
_ITEM: Final = struct.Struct("<4sL")
_ITEM_TAG: Final = b"\xfe\xff\x00\xe0"
_DELIMITER: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"

type Groups = dict[int, dict[int, bytes]]
"""Of one item: by tag of the functional group the elements in it."""


def fingerprint(frame: Surroundings) -> bytes:
    """What a frame's part of the restore record must come back as."""
    return hashlib.sha256(
        b"%d %d\n" % (frame.layout, len(frame.before)) + frame.before + frame.after
    ).digest()


def prove(
    file: BinaryIO,
    header_end: int,
    volume: Volume,
    fingerprints: Sequence[bytes],
    record: bytes | None,
) -> str:
    """Compare the object with its sources; the file's SHA-256 in hexadecimal.

    Parameters
    ----------
    header_end
        Where the group of the pixel data begins.
    fingerprints
        Of what the restore record must hold, in the order of the frames; none without a record.
    record
        Where it lies beside the object.

    Raises
    ------
    NotCollapsedError
        Something differs (``proof_failed``).
    """
    file.seek(0)
    header = file.read(header_end)
    whole = hashlib.sha256(header)
    try:
        elements = _prove_header(header, volume)
        _prove_record(header, elements, volume, fingerprints, record)
        _prove_frames(file, volume, whole)
    except NotCollapsedError:
        raise
    except (MalformedError, TruncatedError, ConversionError) as error:
        raise _failed(str(error)) from error
    except (struct.error, ValueError, KeyError) as error:
        # Something is missing or no number; a message might quote it.
        raise _failed(f"the object cannot be read: {type(error).__name__}") from error
    return whole.hexdigest()


def _prove_header(header: bytes, volume: Volume) -> list[Element]:
    meta = file_meta_of(header)
    elements = list(walk(header, EXPLICIT_LITTLE, start=meta.dataset_start))
    found = {element.tag: element for element in elements}
    if [e.tag for e in elements] != sorted(found):
        raise _failed("the elements are not in order")
    frames = header[found[_FRAMES].value : found[_FRAMES].end]
    uid = header[found[_SOP_INSTANCE].value : found[_SOP_INSTANCE].end].rstrip(b"\0").decode()
    if (
        meta.transfer_syntax != transfer_syntax_of(volume.headers)
        or meta.sop_instance_uid != uid
        or int(frames) != len(volume.headers)
    ):
        raise _failed("the header contradicts itself")
    for tag in _IDENTITY:
        element = found.get(tag)
        now = b"" if element is None else header[element.value : element.end]
        if any(now.strip(b" \0") != h.value(tag).strip(b" \0") for h in volume.headers):
            raise _failed(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) differs")
    (shared,) = items(header, found[_SHARED])
    per_frame = items(header, found[_PER_FRAME])
    for source, groups in zip(volume.headers, per_frame, strict=True):
        _prove_quantities(source, {**shared, **groups})
    return elements


def items(header: bytes, sequence: Element) -> Iterator[Groups]:
    """The functional groups of each item of a sequence, as far as the proof looks at them."""
    wanted = {group for group, _ in _QUANTITIES} | {_SOURCE}
    for start, end in items_of(header, EXPLICIT_LITTLE, sequence):
        groups: Groups = {}
        item = header[start:end]
        for group in walk(item, EXPLICIT_LITTLE):
            if group.tag in wanted:
                ((first, last),) = items_of(item, EXPLICIT_LITTLE, group)
                inside = item[first:last]
                groups[group.tag] = {
                    element.tag: inside[element.start : element.end]
                    for element in walk(inside, EXPLICIT_LITTLE)
                }
        yield groups


def _prove_quantities(source: SliceHeader, groups: Groups) -> None:
    if value_of(groups[_SOURCE][_SOURCE_INSTANCE]).rstrip(b"\0 ").decode() != source.text(
        _SOP_INSTANCE
    ):
        raise _failed("a frame names another source")
    for group, tag in _QUANTITIES:
        expected = source.numbers(tag) or _DEFAULTS.get(tag, ())
        if group == _WINDOW and not (
            source.numbers(WINDOW_CENTER) and source.numbers(WINDOW_WIDTH)
        ):
            continue
        element = groups.get(group, {}).get(tag, b"")
        found = tuple(map(float, value_of(element).decode().split("\\"))) if element else ()
        if found != expected:
            raise _failed(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) of a frame differs")


def _prove_record(
    header: bytes,
    elements: list[Element],
    volume: Volume,
    fingerprints: Sequence[bytes],
    beside: bytes | None,
) -> None:
    block = read_own_block(header, elements)
    expected = tuple(
        FrameDigests(dataset=h.source.dataset_sha256, pixels=h.source.pixel_sha256)
        for h in volume.headers
    )
    if block is None or block.digests != expected:
        raise _failed("the digests are not those of the sources")
    record = beside or block.record
    if not fingerprints:
        return
    if record is None:
        raise _failed("there is no restore record")
    for frame, expected_fingerprint in zip(
        read_record(record, len(fingerprints)), fingerprints, strict=True
    ):
        if fingerprint(frame) != expected_fingerprint:
            raise _failed("the restore record gives other bytes than the source")


def _prove_frames(file: BinaryIO, volume: Volume, whole: "hashlib._Hash") -> None:
    """Compare the frames in the file with those that were verified, and the tables with the frames."""

    def read(count: int) -> bytes:
        data = file.read(count)
        whole.update(data)
        if len(data) != count:
            raise _failed("the file is cut")
        return data

    count = len(volume.headers)
    tables: dict[int, bytes] = {}
    while True:
        head = read(12)
        group, number = struct.unpack_from("<HH", head)
        tag = group << 16 | number
        if tag == PIXEL_DATA and head == element_header(PIXEL_DATA, b"OB", UNDEFINED):
            break
        if tag not in (_OFFSETS, _LENGTHS):
            raise _failed("something else stands before the pixel data")
        tables[tag] = read(struct.unpack_from("<L", head, 8)[0])
    item, length = _ITEM.unpack(read(8))
    basic = read(length)
    if item != _ITEM_TAG:
        raise _failed("there is no offset table")
    offsets: list[int] = []
    lengths: list[int] = []
    position = 0
    for header in volume.headers:
        item, length = _ITEM.unpack(read(8))
        codestream = read_codestream(header)
        padding = b"\0" * (len(codestream) % 2)
        if item != _ITEM_TAG or read(length) != codestream + padding:
            raise _failed("a frame is not the one that was verified")
        offsets.append(position)
        lengths.append(len(codestream))
        position += 8 + length
    if read(8) != _DELIMITER or file.read(1):
        raise _failed("the pixel data does not end where it should")
    expected = (
        {
            _OFFSETS: struct.pack(f"<{count}Q", *offsets),
            _LENGTHS: struct.pack(f"<{count}Q", *lengths),
        }
        if tables
        else {}
    )
    if tables != expected or (basic != (b"" if tables else struct.pack(f"<{count}L", *offsets))):
        raise _failed("the offset table does not point to the frames")


def _failed(detail: str) -> NotCollapsedError:
    return NotCollapsedError(CollapseReason.PROOF_FAILED, detail)
