"""Writes encapsulated pixel data (PS3.5 A.4): one fragment a frame, and a table that finds each."""

import struct
from typing import BinaryIO, Final

from scp.convert.fragments import Span
from scp.convert.recode import element_header
from scp.elements import PIXEL_DATA, UNDEFINED

EXTENDED_ABOVE: Final = 2**32 - 2**28
"""Native bytes from which on the Extended Offset Table is used: the Basic one ends at 4 GiB, and noise
grows a few percent in HTJ2K."""

_ITEM: Final = (0xFFFE, 0xE000)
_ITEM_HEADER: Final = 8
_DELIMITER: Final = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
_EXTENDED_OFFSETS, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002


class EncapsulatedPixels:
    """Frames on their way into a file; room for the tables is left first and filled last.

    With extended tables (7FE0,0001) and (7FE0,0002) the Basic Offset Table is empty, as PS3.3 C.7.6.3.1.8
    wants it; lengths count a frame's own bytes, not the one that pads it.
    """

    def __init__(self, file: BinaryIO, frames: int, *, is_extended: bool) -> None:
        self._file = file
        self._is_extended = is_extended
        self._start = file.tell()
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        file.write(self._tables([0] * frames, [0] * frames))
        self._first = file.tell()

    def add(self, codestream: bytes) -> Span:
        """Append one frame as one fragment of even length; where the fragment lies in the file."""
        start = self._file.tell()
        self._offsets.append(start - self._first)
        self._lengths.append(len(codestream))
        even = len(codestream) + len(codestream) % 2
        self._file.write(struct.pack("<HHL", *_ITEM, even))
        self._file.write(codestream)
        if even != len(codestream):
            self._file.write(b"\0")
        return start + _ITEM_HEADER, start + _ITEM_HEADER + even

    def finish(self) -> None:
        """Write the delimiter, then the tables into their room."""
        self._file.write(_DELIMITER)
        end = self._file.tell()
        self._file.seek(self._start)
        self._file.write(self._tables(self._offsets, self._lengths))
        self._file.seek(end)

    def _tables(self, offsets: list[int], lengths: list[int]) -> bytes:
        extended = b""
        basic = struct.pack(f"<{len(offsets)}L", *offsets) if not self._is_extended else b""
        if self._is_extended:
            for tag, numbers in ((_EXTENDED_OFFSETS, offsets), (_EXTENDED_LENGTHS, lengths)):
                value = struct.pack(f"<{len(numbers)}Q", *numbers)
                extended += element_header(tag, b"OV", len(value)) + value
        table = struct.pack("<HHL", *_ITEM, len(basic)) + basic
        return extended + element_header(PIXEL_DATA, b"OB", UNDEFINED) + table
