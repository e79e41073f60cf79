"""DICOM files (PS3.10 section 7) as bytes and element positions; nothing is decoded, nothing rewritten."""

import hashlib
import itertools
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from scp.convert.refusals import NotConvertibleError
from scp.elements import (
    Buffer,
    Element,
    Encoding,
    encoding_of,
    inflated,
    is_deflated,
    release_pages,
    walk,
)
from scp.errors import MalformedError, TruncatedError
from scp.model import PassReason
from scp.part10 import file_meta_of

MAX_INFLATED_BYTES: Final = 2**29
"""Of a deflated dataset, unless told otherwise: zlib packs up to 1000:1, so the size is bounded."""

_GROUP_LENGTH = 0x00020000
_TRANSFER_SYNTAX = 0x00020010
_MAPPED_ABOVE = 2**24
"""Bytes from which on a file is mapped into memory. Below, the page faults of a map cost more than the
copy (0.15 ms of 0.5 MB)."""
_WINDOW: Final = 2**24
"""Bytes of a mapped file that are in memory at once, roughly."""
_MOST_ELEMENTS: Final = 2**17
"""Real datasets have some hundred at their top level; a hostile one has one in 8 bytes."""
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFile:
    """One file in memory, or mapped into it. Writing to it changes nothing on disk."""

    whole: memoryview
    """The file."""
    dataset_start: int
    meta: tuple[Element, ...]
    """The file meta group; offsets count from the start of ``whole``."""
    transfer_syntax: str
    encoding: Encoding
    dataset: memoryview
    """The encoded dataset; inflated where the transfer syntax deflates it."""

    def release(self) -> None:
        """Give back the memory of what was read of a mapped file; call it now and then."""
        release_pages(self.whole)
        if self.dataset.obj is not self.whole.obj:
            release_pages(self.dataset)

    def walk(self) -> list[Element]:
        """The top-level elements; offsets count from the start of ``dataset``.

        Raises
        ------
        NotConvertibleError
            They cannot be read to the end (``unreadable``, ``pixel_data_short``).
        """
        try:
            found = walk(self.dataset, self.encoding, pixel_data_may_be_cut=True)
            elements = list(itertools.islice(found, _MOST_ELEMENTS + 1))
        except (MalformedError, TruncatedError) as error:
            raise NotConvertibleError(PassReason.UNREADABLE, str(error)) from error
        if len(elements) > _MOST_ELEMENTS:
            raise NotConvertibleError(
                PassReason.UNREADABLE, f"more than {_MOST_ELEMENTS} elements at the top level"
            )
        if elements and elements[-1].end > len(self.dataset):
            raise NotConvertibleError(PassReason.PIXEL_DATA_SHORT, "the pixel data is cut")
        return elements


def open_dicom(
    path: Path,
    *,
    max_inflated_bytes: int = MAX_INFLATED_BYTES,
    inflate: bool = True,
    scratch: Path | None = None,
) -> DicomFile:
    """Load a file and find its dataset.

    Parameters
    ----------
    scratch
        The folder for what a deflated dataset inflates to, in a file without a name; None: that of the
        system for temporary files.

    Raises
    ------
    NotConvertibleError
        It is no DICOM file (``unreadable``), inflates to too much (``frame_too_large``), or to what there
        is no room for (``no_room``).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        whole = load(descriptor)
    finally:
        os.close(descriptor)
    return dicom_file(
        whole, max_inflated_bytes=max_inflated_bytes, inflate=inflate, scratch=scratch
    )


def dicom_file(
    whole: memoryview,
    *,
    max_inflated_bytes: int = MAX_INFLATED_BYTES,
    inflate: bool = True,
    scratch: Path | None = None,
) -> DicomFile:
    """As :func:`open_dicom`, of a file's bytes."""
    try:
        meta = file_meta_of(whole)
    except (MalformedError, TruncatedError) as error:
        raise NotConvertibleError(PassReason.UNREADABLE, f"file meta group: {error}") from error
    dataset = whole[meta.dataset_start :]
    if inflate and is_deflated(meta.transfer_syntax):
        dataset = _inflate(dataset, max_inflated_bytes, scratch)
    return DicomFile(
        whole=whole,
        dataset_start=meta.dataset_start,
        meta=meta.elements,
        transfer_syntax=meta.transfer_syntax,
        encoding=encoding_of(meta.transfer_syntax),
        dataset=dataset,
    )


def meta_with(
    file: DicomFile, transfer_syntax: str, last: Mapping[int, bytes] = MappingProxyType({})
) -> tuple[bytes, int]:
    """Preamble and file meta group of ``file`` with another transfer syntax, every other value kept.

    Also returns where the transfer syntax lies in it.

    Parameters
    ----------
    last
        Whole elements by tag to end the group, instead of those that the file has.
    """
    uid = transfer_syntax.encode() + b"\0" * (len(transfer_syntax) % 2)
    changed = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(uid))
    others = [e for e in file.meta if e.tag not in (_GROUP_LENGTH, _TRANSFER_SYNTAX, *last)]
    lower = b"".join(file.whole[e.start : e.end] for e in others if e.tag < _TRANSFER_SYNTAX)
    upper = b"".join(file.whole[e.start : e.end] for e in others if e.tag > _TRANSFER_SYNTAX)
    upper += b"".join(last.values())
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


def windows(data: Buffer) -> Iterator[memoryview]:
    """Yield the bytes in pieces, of a mapped file never much in memory at once.

    Every piece but the last has a whole number of words of any size.
    """
    view = memoryview(data)
    for start in range(0, len(view), _WINDOW):
        yield view[start : start + _WINDOW]
        if len(view) > _WINDOW:
            release_pages(view)


def sha256_of(data: Buffer) -> "hashlib._Hash":
    """Of bytes that may be a mapped file's."""
    whole = hashlib.sha256()
    for window in windows(data):
        whole.update(window)
    return whole


def _inflate(deflated: memoryview, limit: int, scratch: Path | None) -> memoryview:
    """The dataset in a file that has no name and is gone with the last who looks at it."""
    size = 0
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            disk = os.fstatvfs(file.fileno())
            # Others need room, too, and this is known to be too little only when it is taken.
            room = disk.f_bavail * disk.f_frsize // 2
            for piece in inflated(deflated, limit + 1):
                size += len(piece)
                if size > room:
                    raise NotConvertibleError(
                        PassReason.NO_ROOM, f"inflates to more than {room} bytes"
                    )
                file.write(piece)
            if size > limit:
                raise NotConvertibleError(
                    PassReason.FRAME_TOO_LARGE, f"inflates to more than {limit} bytes"
                )
            file.flush()
            return load(file.fileno())
    except MalformedError as error:
        raise NotConvertibleError(PassReason.UNREADABLE, str(error)) from error
    except OSError as error:
        raise NotConvertibleError(
            PassReason.NO_ROOM, f"no room to inflate it: {error.strerror}"
        ) from error
