"""DICOM files (PS3.10 section 7) as bytes and element positions; nothing is decoded, nothing rewritten."""

import contextlib
import mmap
import os
import struct
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

import numpy as np

from scp.convert.refusals import NotConvertibleError
from scp.elements import (
    EXPLICIT_LITTLE,
    Element,
    Encoding,
    bounded_inflate,
    encoding_of,
    is_deflated,
    walk,
)
from scp.errors import MalformedError, TruncatedError
from scp.model import PassReason

META: Final = 132
"""Where the file meta group begins: after the preamble and ``DICM``."""
MAX_INFLATED_BYTES: Final = 2**29
"""A deflated dataset lies in memory as a whole; zlib packs up to 1000:1, so the size is bounded."""

_GROUP_LENGTH = 0x00020000
_TRANSFER_SYNTAX = 0x00020010
_MAPPED_ABOVE = 2**24
"""Bytes from which on a file is mapped into memory. Below, the page faults of a map cost more than the
copy (0.15 ms of 0.5 MB)."""
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFile:
    """One file in memory, or mapped into it. Writing to it changes nothing on disk."""

    whole: memoryview
    """The file."""
    dataset_start: int
    meta: list[Element]
    """The file meta group; offsets count from the start of ``whole``."""
    transfer_syntax: str
    encoding: Encoding
    dataset: memoryview
    """The encoded dataset; inflated where the transfer syntax deflates it."""

    def walk(self) -> list[Element]:
        """The top-level elements; offsets count from the start of ``dataset``.

        Raises
        ------
        NotConvertibleError
            They cannot be read to the end (``unreadable``, ``pixel_data_short``).
        """
        try:
            elements = list(walk(self.dataset, self.encoding, pixel_data_may_be_cut=True))
        except (MalformedError, TruncatedError) as error:
            raise NotConvertibleError(PassReason.UNREADABLE, str(error)) from error
        if elements and elements[-1].end > len(self.dataset):
            raise NotConvertibleError(PassReason.PIXEL_DATA_SHORT, "the pixel data is cut")
        return elements


def open_dicom(
    path: Path, *, max_inflated_bytes: int = MAX_INFLATED_BYTES, inflate: bool = True
) -> DicomFile:
    """Load a file and find its dataset.

    Raises
    ------
    NotConvertibleError
        It is no DICOM file (``unreadable``) or inflates to too much (``frame_too_large``).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        whole = load(descriptor)
    finally:
        os.close(descriptor)
    return dicom_file(whole, max_inflated_bytes=max_inflated_bytes, inflate=inflate)


def dicom_file(
    whole: memoryview, *, max_inflated_bytes: int = MAX_INFLATED_BYTES, inflate: bool = True
) -> DicomFile:
    """As :func:`open_dicom`, of a file's bytes."""
    if bytes(whole[128:META]) != b"DICM":
        raise NotConvertibleError(PassReason.UNREADABLE, "no DICM prefix")
    try:
        start, elements = _meta(whole)
    except (MalformedError, TruncatedError) as error:
        raise NotConvertibleError(PassReason.UNREADABLE, f"file meta group: {error}") from error
    named = [e for e in elements if e.tag == _TRANSFER_SYNTAX]
    if len(named) != 1:
        raise NotConvertibleError(
            PassReason.UNREADABLE, "no transfer syntax in the file meta group"
        )
    transfer_syntax = bytes(whole[named[0].value : named[0].end]).rstrip(b"\0 ").decode("latin-1")
    dataset = whole[start:]
    if inflate and is_deflated(transfer_syntax):
        dataset = _inflate(dataset, max_inflated_bytes)
    return DicomFile(
        whole=whole,
        dataset_start=start,
        meta=elements,
        transfer_syntax=transfer_syntax,
        encoding=encoding_of(transfer_syntax),
        dataset=dataset,
    )


def meta_with(file: DicomFile, transfer_syntax: str) -> tuple[bytes, int]:
    """Preamble and file meta group of ``file`` with another transfer syntax, every other value kept.

    Also returns where the transfer syntax lies in it.
    """
    uid = transfer_syntax.encode() + b"\0" * (len(transfer_syntax) % 2)
    changed = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(uid))
    others = [e for e in file.meta if e.tag not in (_GROUP_LENGTH, _TRANSFER_SYNTAX)]
    lower = b"".join(file.whole[e.start : e.end] for e in others if e.tag < _TRANSFER_SYNTAX)
    upper = b"".join(file.whole[e.start : e.end] for e in others if e.tag > _TRANSFER_SYNTAX)
    length = len(lower) + len(changed) + len(uid) + len(upper)
    preamble = bytes(file.whole[:128])
    if preamble[:4] in _TIFF_MAGICS:
        # It would describe where the pixels lay in the source (PS3.10 7.1).
        preamble = bytes(128)
    group_length = struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, length)
    before = b"".join((preamble, b"DICM", group_length, lower, changed))
    return b"".join((before, uid, upper)), len(before)


def load(descriptor: int) -> memoryview:
    """The content of an open file, writable without effect on the file: OpenJPH takes nothing else."""
    size = os.fstat(descriptor).st_size
    if size > _MAPPED_ABOVE:
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    content = np.empty(size, np.uint8).data
    filled = os.preadv(descriptor, [content], 0)
    return content[:filled]


def _meta(whole: memoryview) -> tuple[int, list[Element]]:
    """Where the dataset starts, and the elements of the file meta group."""
    length = whole[META + 8 : META + 12]
    if bytes(whole[META : META + 8]) == b"\x02\0\0\0UL\x04\0" and len(length) == 4:
        end = META + 12 + int.from_bytes(length, "little")
        with contextlib.suppress(MalformedError, TruncatedError):
            elements = list(walk(whole[:end], EXPLICIT_LITTLE, start=META))
            if end <= len(whole) and all(element.tag >> 16 == 2 for element in elements):
                return end, elements
    # Without a group length that holds, the group ends where another begins.
    walked = walk(whole, EXPLICIT_LITTLE, start=META, stop_before=0x00030000)
    elements = list(takewhile(lambda element: element.tag >> 16 == 2, walked))
    return (elements[-1].end if elements else META), elements


def _inflate(deflated: memoryview, limit: int) -> memoryview:
    try:
        inflated = bounded_inflate(deflated, limit + 1)
    except MalformedError as error:
        raise NotConvertibleError(PassReason.UNREADABLE, str(error)) from error
    if len(inflated) > limit:
        raise NotConvertibleError(
            PassReason.FRAME_TOO_LARGE, f"inflates to more than {limit} bytes"
        )
    return memoryview(inflated)
