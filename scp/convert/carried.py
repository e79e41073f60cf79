"""Digests that a converted file carries in its file meta group, where no dataset changes for them.

Private File Meta Information (PS3.10 7.1) is nobody's header: a folder and an object store keep it with the
file, a peer that takes the dataset alone does not get it.
"""

import struct
from dataclasses import dataclass
from typing import Final

from scp.convert.part10 import DicomFile
from scp.convert.recode import element_header

CREATOR: Final = "2.25.173198695512073610360605502221555314625"
"""Of our Private Information; for all versions."""
_CREATOR, _INFORMATION = 0x00020100, 0x00020102
_VERSION: Final = b"\1\0"
_PACKED: Final = struct.Struct("<2s32s32s32s")
CARRIED_BYTES: Final = _PACKED.size
_UNKNOWN: Final = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedDigests:
    """SHA-256, in hexadecimal."""

    dataset: str
    """Of the source's dataset as it was received."""
    pixels: str
    """Of its pixel words: little endian, interleaved, every frame in order."""
    header: str
    """Of the written header; see :class:`scp.convert.digests.Digests`. Empty: not known."""


def room_for_digests(file: DicomFile) -> dict[int, bytes]:
    """Elements for the end of a meta group, the digests still to come; none where another's would go."""
    theirs = [element for element in file.meta if element.tag >= _CREATOR]
    if theirs and not (_is_ours(file) and theirs[-1].tag == _INFORMATION):
        return {}
    uid = CREATOR.encode() + b"\0" * (len(CREATOR) % 2)
    return {
        _CREATOR: element_header(_CREATOR, b"UI", len(uid)) + uid,
        _INFORMATION: element_header(_INFORMATION, b"OB", _PACKED.size) + bytes(_PACKED.size),
    }


def packed(digests: CarriedDigests) -> bytes:
    """What goes into the room at the very end of the meta group."""
    header = bytes.fromhex(digests.header) or _UNKNOWN
    dataset, pixels = map(bytes.fromhex, (digests.dataset, digests.pixels))
    return _PACKED.pack(_VERSION, dataset, pixels, header)


def carried_by(file: DicomFile) -> CarriedDigests | None:
    """What a file carries; None: nothing, or nothing that is known here."""
    value = _value(file, _INFORMATION)
    if not _is_ours(file) or len(value) != _PACKED.size:
        return None
    version, dataset, pixels, header = _PACKED.unpack(value)
    if version != _VERSION:
        return None
    return CarriedDigests(
        dataset=dataset.hex(),
        pixels=pixels.hex(),
        header="" if header == _UNKNOWN else header.hex(),
    )


def _is_ours(file: DicomFile) -> bool:
    return _value(file, _CREATOR).rstrip(b"\0 ") == CREATOR.encode()


def _value(file: DicomFile, tag: int) -> bytes:
    return next((bytes(file.whole[e.value : e.end]) for e in file.meta if e.tag == tag), b"")
