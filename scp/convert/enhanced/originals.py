"""The bytes of a received file around its pixel data, and how to put the file together again."""

import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np
from pydicom import uid

from scp.convert.attributes import NATIVE
from scp.convert.fragments import Span
from scp.convert.header import Change, edited
from scp.convert.part10 import DicomFile, dicom_file, meta_with, open_dicom
from scp.convert.recode import element_header
from scp.elements import (
    EXPLICIT_LITTLE,
    PIXEL_DATA,
    Element,
    Encoding,
    element_at,
    encoding_of,
    is_deflated,
    walk,
)
from scp.errors import MalformedError, TruncatedError
from scp.part10 import file_meta_of

_FIRST_READ: Final = 2**16
_DELIMITER: Final = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
_OFFSET_TABLES: Final = (0x7FE00000, 0x7FE00001, 0x7FE00002, 0x7FE00003)


class Layout(IntEnum):
    """How the pixel words lay in the file. Written into records, so never renumbered."""

    PLAIN = 0
    """As they are, little endian."""
    SWAPPED = 1
    """The two bytes of each word of 16 bits exchanged (big endian, PS3.5 7.3)."""
    COMPRESSED = 2
    """Encapsulated: the codestream is not kept, the words come back native."""
    DEFLATED = 3
    """The dataset was deflated: it comes back inflated."""
    KEPT = 4
    """Encapsulated, and the object has the codestream that came; see :func:`without_codestream`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """A file (PS3.10) less its pixel words."""

    layout: Layout
    before: bytes
    """To the pixel data's value; where it is not native, to the pixel data element, or to the codestream
    that is kept."""
    after: bytes
    """From the end of the last word, from the end of the pixel data element, or from that of the codestream
    that is kept."""

    @property
    def is_exact(self) -> bool:
        """Whether the file as it was received can be made of this and its words."""
        return self.layout in (Layout.PLAIN, Layout.SWAPPED, Layout.KEPT)


def surroundings(path: Path, frame_bytes: int, kept: Span | None = None) -> Surroundings:
    """Read a single-frame file's bytes around its pixel words.

    Parameters
    ----------
    frame_bytes
        Of the native frame, not padded.
    kept
        Where in the file its codestream lies, not padded, that the object has too.

    Raises
    ------
    MalformedError, TruncatedError, NotConvertibleError
        It is no DICOM file with pixel data.
    """
    if kept is not None:
        start, end = kept
        whole = open_dicom(path).whole
        return Surroundings(
            layout=Layout.KEPT, before=bytes(whole[:start]), after=bytes(whole[end:])
        )
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(descriptor, _FIRST_READ, 0)
        meta = file_meta_of(head)
        if meta.transfer_syntax in NATIVE and not is_deflated(meta.transfer_syntax):
            encoding = encoding_of(meta.transfer_syntax)
            try:
                element = _pixel_data(head, encoding, meta.dataset_start)
            except TruncatedError:
                head = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                element = _pixel_data(head, encoding, meta.dataset_start)
            return _native(descriptor, head, encoding, element, frame_bytes)
    finally:
        os.close(descriptor)
    return _decoded(open_dicom(path), frame_bytes)


def _pixel_data(data: bytes, encoding: Encoding, start: int) -> Element:
    position = start
    for element in walk(data, encoding, start=start, stop_before=PIXEL_DATA):
        position = element.end
    element = element_at(data, encoding, position)
    if element.tag != PIXEL_DATA or element.is_undefined_length:
        raise MalformedError("no native pixel data where it should be")
    return element


def _native(
    descriptor: int, head: bytes, encoding: Encoding, element: Element, frame_bytes: int
) -> Surroundings:
    layout, words = Layout.PLAIN, frame_bytes
    # Two-byte words, which hold the samples of 8 bits too where the VR is OW (PS3.5 A.3).
    if not encoding.little and element.vr != b"OB":
        # A last half word is kept as it is.
        layout, words = Layout.SWAPPED, frame_bytes - frame_bytes % 2
    start = element.value + words
    return Surroundings(
        layout=layout,
        before=head[: element.value],
        after=os.pread(descriptor, os.fstat(descriptor).st_size - start, start),
    )


def _decoded(file: DicomFile, frame_bytes: int) -> Surroundings:
    element = next((e for e in file.walk() if e.tag == PIXEL_DATA), None)
    if element is None:
        raise MalformedError("no pixel data")
    meta = file.whole[: file.dataset_start]
    if is_deflated(file.transfer_syntax):
        return Surroundings(
            layout=Layout.DEFLATED,
            before=bytes(meta) + bytes(file.dataset[: element.value]),
            after=bytes(file.dataset[element.value + frame_bytes :]),
        )
    return Surroundings(
        layout=Layout.COMPRESSED,
        before=bytes(meta) + bytes(file.dataset[: element.start]),
        after=bytes(file.dataset[element.end :]),
    )


def without_codestream(kept: Surroundings) -> Surroundings:
    """What surrounds the pixel data element of a frame whose codestream the object has no more.

    Raises
    ------
    MalformedError, TruncatedError
        The surroundings are not those of such a frame.
    """
    position = start = file_meta_of(kept.before).dataset_start
    for element in walk(kept.before, EXPLICIT_LITTLE, start=start, stop_before=PIXEL_DATA):
        position = element.end
    # After the byte that makes the codestream's length even, if there is one.
    delimiter = kept.after.find(_DELIMITER, 0, len(_DELIMITER) + 1)
    if delimiter < 0:
        raise MalformedError("the restore record is damaged")
    return Surroundings(
        layout=Layout.COMPRESSED,
        before=kept.before[:position],
        after=kept.after[delimiter + len(_DELIMITER) :],
    )


def rebuilt(surroundings: Surroundings, words: bytes) -> list[bytes | memoryview]:
    """The file again, in pieces: as it was received, else as Explicit VR Little Endian.

    Parameters
    ----------
    words
        The frame's pixel words, little endian, not padded; or its codestream, where that is kept.

    Raises
    ------
    MalformedError, TruncatedError, NotConvertibleError
        The surroundings are not those of a file.
    """
    if surroundings.layout in (Layout.PLAIN, Layout.KEPT):
        return [surroundings.before, words, surroundings.after]
    if surroundings.layout == Layout.SWAPPED:
        whole = np.frombuffer(words, np.uint16, len(words) // 2)
        return [surroundings.before, whole.byteswap().tobytes(), surroundings.after]
    file = dicom_file(memoryview(surroundings.before), inflate=False)
    meta, _ = meta_with(file, uid.ExplicitVRLittleEndian)
    header = file.whole[file.dataset_start :]
    if surroundings.layout == Layout.DEFLATED:
        return [meta, header, words, surroundings.after]
    present = {element.tag for element in walk(header, EXPLICIT_LITTLE)}
    stale: dict[int, Change] = {tag: None for tag in _OFFSET_TABLES if tag in present}
    padding = b"\0" * (len(words) % 2)
    return [
        meta,
        edited(header, stale),
        element_header(PIXEL_DATA, b"OW", len(words) + len(padding)),
        words,
        padding,
        surroundings.after,
    ]
