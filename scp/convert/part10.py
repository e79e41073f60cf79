"""DICOM files (PS3.10 section 7) as bytes and element positions; nothing is decoded, nothing rewritten."""

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomFile:
    """One file, mapped into memory. Writing to the map changes nothing on disk."""

    whole: memoryview
    """The file."""
    dataset_start: int
    transfer_syntax: str
    transfer_syntax_at: int
    """Where its value lies in ``whole``."""
    encoding: Encoding
    dataset: memoryview
    """The encoded dataset; inflated where the transfer syntax deflates it."""

    def walk(self) -> list[Element]:
        """The top-level elements; offsets count from the start of ``dataset``.

        Raises
        ------
        NotConvertibleError
            They cannot be read to the end (``unreadable``).
        """
        try:
            return list(walk(self.dataset, self.encoding))
        except (MalformedError, TruncatedError) as error:
            raise NotConvertibleError(PassReason.UNREADABLE, str(error)) from error


def open_dicom(
    path: Path, *, max_inflated_bytes: int = MAX_INFLATED_BYTES, inflate: bool = True
) -> DicomFile:
    """Map a file and find its dataset.

    Raises
    ------
    NotConvertibleError
        It is no DICOM file (``unreadable``) or inflates to too much (``frame_too_large``).
    """
    whole = _map(path)
    if bytes(whole[128:META]) != b"DICM":
        raise NotConvertibleError(PassReason.UNREADABLE, "no DICM prefix")
    try:
        start, elements = _meta(whole)
    except (MalformedError, TruncatedError, struct.error) as error:
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
        transfer_syntax=transfer_syntax,
        transfer_syntax_at=named[0].value,
        encoding=encoding_of(transfer_syntax),
        dataset=dataset,
    )


def meta_with(file: DicomFile, transfer_syntax: str) -> bytes:
    """Preamble and file meta group of ``file``, byte for byte, but for the transfer syntax and lengths."""
    _, elements = _meta(file.whole)
    uid = transfer_syntax.encode() + b"\0" * (len(transfer_syntax) % 2)
    changed = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(uid)) + uid
    group = b"".join(
        changed if e.tag == _TRANSFER_SYNTAX else bytes(file.whole[e.start : e.end])
        for e in elements
        if e.tag != _GROUP_LENGTH
    )
    length = struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(group))
    preamble = bytes(file.whole[:128])
    if preamble[:4] in _TIFF_MAGICS:
        # It would describe where the pixels lay in the source (PS3.10 7.1).
        preamble = bytes(128)
    return preamble + b"DICM" + length + group


def _map(path: Path) -> memoryview:
    # A private map: OpenJPH takes only writable buffers, and nothing is copied unless it is written.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size <= META:
            raise NotConvertibleError(PassReason.UNREADABLE, "too short for a DICOM file")
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(descriptor)


def _meta(whole: memoryview) -> tuple[int, list[Element]]:
    """Where the dataset starts, and the elements of the file meta group."""
    elements: list[Element] = []
    end, promised = META, -1
    for element in walk(whole, EXPLICIT_LITTLE, start=META, stop_before=0x00030000):
        # A deflated dataset may look like group 0002, hence the promised length where it holds.
        if element.start == promised or element.tag >> 16 != 2:
            break
        if element.tag == _GROUP_LENGTH and element.length == 4:
            promised = element.end + struct.unpack_from("<L", whole, element.value)[0]
        elements.append(element)
        end = element.end
    return end, elements


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
