"""The restore record: what it takes to give the original instances back out of a collapsed object.

One stream of xz holds, frame after frame, the bytes of each received file around its pixel data. Its window
reaches back over several slices, so that each costs little more than what it does not share with the one
before. The stream lies in a private block of ours in the object, or in a file beside it.
"""

import lzma
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydicom.dataset import Dataset

from scp.convert.enhanced.originals import Layout, Surroundings
from scp.elements import Buffer, Element
from scp.errors import MalformedError

type RestoreRecord = Literal["embedded", "sidecar", "none"]

GROUP: Final = 0x0099
CREATOR: Final = "DCMPRESS COLLAPSED"
VERSION: Final = "1"
_VERSION_ELEMENT, _DIGESTS_ELEMENT, _RECORD_ELEMENT = 0x01, 0x02, 0x03
_DIGEST_BYTES: Final = 32

SIDECAR_SUFFIX: Final = ".restore"
_SIDECAR_MAGIC: Final = b"DCMPRESS RESTORE RECORD 1\n"
_FILTERS: Final = ({"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 2**20},)
"""The window of 1 MiB holds a dozen of the largest headers known; preset 1 packs 200 MB/s of them."""
_MEMORY_LIMIT: Final = 2**26
_ENTRY: Final = struct.Struct("<BLL")
_LARGEST: Final = 2**26
"""Bytes around one frame that a record may claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDigests:
    """SHA-256 of one source, in hexadecimal."""

    dataset: str
    """Of the dataset as received."""
    pixels: str
    """Of its pixel words, little endian."""


class RecordWriter:
    """Compresses the surroundings of one frame after the other."""

    def __init__(self) -> None:
        self._compressor = lzma.LZMACompressor(
            lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=list(_FILTERS)
        )
        self._pieces: list[bytes] = []

    def add(self, frame: Surroundings) -> None:
        entry = _ENTRY.pack(frame.layout, len(frame.before), len(frame.after))
        self._pieces.append(self._compressor.compress(entry + frame.before + frame.after))

    def finish(self) -> bytes:
        self._pieces.append(self._compressor.flush())
        return b"".join(self._pieces)


def read_record(record: bytes, frames: int) -> Iterator[Surroundings]:
    """Yield what surrounds each frame's words, in the order of the frames.

    Raises
    ------
    MalformedError
        The record is damaged, or is not of so many frames.
    """
    stream = _Inflated(record)
    for _ in range(frames):
        layout, before, after = _ENTRY.unpack(stream.take(_ENTRY.size))
        if layout not in tuple(Layout) or before + after > _LARGEST:
            raise MalformedError("the restore record is damaged")
        yield Surroundings(
            layout=Layout(layout), before=stream.take(before), after=stream.take(after)
        )
    stream.end()


class _Inflated:
    """Bytes out of an xz stream, never more at once than asked for."""

    def __init__(self, data: bytes) -> None:
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_LIMIT)
        self._input = data

    def take(self, count: int) -> bytes:
        pieces: list[bytes] = []
        missing = count
        while missing:
            piece = self._more(missing)
            if not piece and (self._decompressor.eof or self._decompressor.needs_input):
                raise MalformedError("the restore record is cut")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def end(self) -> None:
        """Check that nothing is left and that the check sum is right."""
        if not self._decompressor.eof and (self._more(1) or not self._decompressor.eof):
            raise MalformedError("the restore record does not end with its last frame")

    def _more(self, most: int) -> bytes:
        data, self._input = self._input, b""
        try:
            return self._decompressor.decompress(data, most)
        except (lzma.LZMAError, EOFError) as error:
            raise MalformedError(f"the restore record is damaged: {error}") from error


def private_block(digests: Sequence[FrameDigests], record: bytes | None) -> Dataset:
    """The private elements to add to the top level of the object."""
    dataset = Dataset()
    block = dataset.private_block(GROUP, CREATOR, create=True)
    block.add_new(_VERSION_ELEMENT, "LO", VERSION)
    packed = b"".join(bytes.fromhex(d.dataset) + bytes.fromhex(d.pixels) for d in digests)
    block.add_new(_DIGESTS_ELEMENT, "OB", packed)
    if record is not None:
        block.add_new(_RECORD_ELEMENT, "OB", record + b"\0" * (len(record) % 2))
    return dataset


def characteristics() -> Dataset:
    """Says to whoever de-identifies the object that our block identifies (PS3.3 C.12.1.1.7)."""
    item = Dataset()
    item.PrivateGroupReference = GROUP
    item.PrivateCreatorReference = CREATOR
    item.BlockIdentifyingInformationStatus = "UNSAFE"
    return item


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnBlock:
    """What our private block holds."""

    digests: tuple[FrameDigests, ...]
    """Of each frame's source, in the order of the frames."""
    record: bytes | None


def read_own_block(dataset: Buffer, elements: Sequence[Element]) -> OwnBlock | None:
    """Our private block of an object in Explicit VR Little Endian; None where there is none.

    Raises
    ------
    MalformedError
        It is of a version that is not known here, or damaged.
    """
    ours = {element.tag: element for element in elements if element.tag >> 16 == GROUP}

    def value(tag: int) -> bytes:
        element = ours.get(tag)
        return b"" if element is None else bytes(dataset[element.value : element.end])

    for creator in range(0x10, 0x100):
        if value(GROUP << 16 | creator).rstrip(b" \0") == CREATOR.encode():
            break
    else:
        return None
    first = GROUP << 16 | creator << 8
    version = value(first | _VERSION_ELEMENT).decode("latin-1").strip()
    if version != VERSION:
        raise MalformedError(f"a private block of version {version[:8]!r}")
    packed = value(first | _DIGESTS_ELEMENT)
    if len(packed) % (2 * _DIGEST_BYTES):
        raise MalformedError("the digests are damaged")
    pairs = range(0, len(packed), 2 * _DIGEST_BYTES)
    return OwnBlock(
        digests=tuple(
            FrameDigests(
                dataset=packed[at : at + _DIGEST_BYTES].hex(),
                pixels=packed[at + _DIGEST_BYTES : at + 2 * _DIGEST_BYTES].hex(),
            )
            for at in pairs
        ),
        record=value(first | _RECORD_ELEMENT) or None,
    )


def sidecar_of(enhanced: Path) -> Path:
    """Where the record of an object lies that is kept beside it."""
    return enhanced.with_name(enhanced.name + SIDECAR_SUFFIX)


def sidecar(sop_instance_uid: str, record: bytes) -> bytes:
    """The content of a sidecar: which object it belongs to, and the record."""
    return _SIDECAR_MAGIC + sop_instance_uid.encode() + b"\n" + record


def read_sidecar(content: bytes, sop_instance_uid: str) -> bytes:
    """The record in a sidecar.

    Raises
    ------
    MalformedError
        It is no sidecar, or one of another object.
    """
    beginning = _SIDECAR_MAGIC + sop_instance_uid.encode() + b"\n"
    if not content.startswith(_SIDECAR_MAGIC):
        raise MalformedError("no restore record")
    if not content.startswith(beginning):
        raise MalformedError("the restore record of another object")
    return content[len(beginning) :]
