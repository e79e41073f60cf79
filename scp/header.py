"""Reads the top-level elements of a DICOM file (PS3.10), of any size, without its pixel data."""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scp.elements import (
    PIXEL_DATA,
    UNDEFINED,
    Buffer,
    Element,
    Encoding,
    bounded_inflate,
    element_at,
    encoding_of,
    is_deflated,
    walk,
)
from scp.errors import MalformedError, TruncatedError
from scp.part10 import read_file_meta

MAX_VALUE_BYTES: Final = 16 * 1024
"""Of one attribute's value; the longest limited text, LT, has 10,240 characters (PS3.5 6.2)."""

_FIRST_WINDOW: Final = 32 * 1024
"""Headers of CT and MR have 3 to 17 kB, some vendors' 78 kB."""
_MAX_WINDOW: Final = 64 * 2**20
"""For a sequence that has to be walked to find its end, and for inflating."""
_MAX_FRAGMENTS: Final = 1_000_000
_DEFLATED_REFERENCES: Final = ("1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")
"""JPIP Referenced Deflate, JPIP HTJ2K Referenced Deflate."""

type _Read = Callable[[int, int], Buffer]
"""Bytes from an offset, fewer than asked for only at the end."""


@contextmanager
def open_header(source: Path | Buffer, most_bytes: int = _MAX_WINDOW) -> Iterator["FileHeader"]:
    """The header of a file, or of the bytes of one, for as long as the block lasts.

    Parameters
    ----------
    most_bytes
        That are inflated, or walked; a value that is passed over by its length counts for nothing.

    Raises
    ------
    MalformedError, TruncatedError
        It is no DICOM file, or ends before its dataset begins. Also from what the header is asked.
    """
    if not isinstance(source, Path):
        held = memoryview(source)
        yield FileHeader(
            lambda offset, length: held[offset : offset + length], len(held), most_bytes
        )
        return
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        yield FileHeader(
            lambda offset, length: os.pread(descriptor, length, offset), size, most_bytes
        )
    finally:
        os.close(descriptor)


class FileHeader:
    """The file meta information, and the elements of the dataset as they are asked for."""

    def __init__(self, read: _Read, size: int, most_bytes: int) -> None:
        self._window = _Window(read, size, most_bytes)
        self.meta = read_file_meta(self._window.read)
        self._dataset = self.meta.dataset_start
        self.transfer_syntax = self.meta.transfer_syntax
        self.encoding = encoding_of(self.transfer_syntax)
        if is_deflated(self.transfer_syntax) or self.transfer_syntax in _DEFLATED_REFERENCES:
            # What is stored without being compressed becomes a little longer by it.
            deflated = read(self._dataset, most_bytes + most_bytes // 100)
            inflated = memoryview(bounded_inflate(deflated, most_bytes))
            self._window = _Window(
                lambda at, length: inflated[at : at + length], len(inflated), most_bytes
            )
            self._dataset = 0

    def elements(self, stop_before: int = 0x1_0000_0000) -> Iterator[Element]:
        """The top-level elements in the order they are written, up to the first not below."""
        return self._window.walk(self._dataset, self.encoding, stop_before)

    def value(self, element: Element, limit: int = MAX_VALUE_BYTES, start: int = 0) -> bytes:
        """The element's value as written, from ``start`` on and up to ``limit`` bytes of it."""
        length = min(element.value_end - element.value - start, limit)
        return self._window.read(element.value + start, length)


class _Window:
    """Walks elements while holding only a part of the file."""

    def __init__(self, read: _Read, size: int, most_bytes: int) -> None:
        self._read = read
        self._most_bytes = most_bytes
        self._left_bytes = most_bytes
        """That may still be walked."""
        self._size = size
        self._base = 0
        self._held = read(0, _FIRST_WINDOW)

    def read(self, offset: int, length: int) -> bytes:
        start = offset - self._base
        if start >= 0 and start + length <= len(self._held):
            return bytes(self._held[start : start + length])
        return bytes(self._read(offset, length))

    def walk(self, position: int, encoding: Encoding, stop_before: int) -> Iterator[Element]:
        while position < self._size:
            if not self._base <= position < self._base + len(self._held):
                self._move(position, _FIRST_WINDOW)
                if not self._held:
                    raise TruncatedError("the file became shorter while it was read")
            began = position
            try:
                for found in walk(
                    self._held,
                    encoding,
                    start=position - self._base,
                    stop_before=stop_before,
                    pixel_data_may_be_cut=True,
                ):
                    element = _shifted(found, self._base) if self._base else found
                    yield element
                    position = element.end
            except TruncatedError:
                self._count(position - began)
                skipped = self._skip(position, encoding)
                if skipped is not None:
                    yield skipped
                    position = skipped.end
            else:
                held_end = self._base + len(self._held)
                if position < held_end:
                    return
                self._count(held_end - began)

    def _skip(self, position: int, encoding: Encoding) -> Element | None:
        """The element that ends beyond what is held; None when more is held now."""
        if self._base != position:
            self._move(position, max(len(self._held), _FIRST_WINDOW))
            return None
        element = _shifted(element_at(self._held, encoding, 0), position)
        if element.length != UNDEFINED:
            element.end = element.value + element.length
            if element.end <= self._size:
                return element
        elif element.tag == PIXEL_DATA:
            element.end = self._end_of_fragments(element.value, encoding)
            return element
        elif len(self._held) < min(self._size - position, self._most_bytes):
            self._count(len(self._held))
            self._move(position, len(self._held) * 8)
            return None
        raise TruncatedError(
            f"the file ends inside ({element.tag >> 16:04X},{element.tag & 0xFFFF:04X}),"
            f" or its sequence is longer than {self._most_bytes} bytes"
        )

    def _end_of_fragments(self, position: int, encoding: Encoding) -> int:
        header = struct.Struct(encoding.order + "HHL")
        for _ in range(_MAX_FRAGMENTS):
            raw = self._read(position, 8)
            if len(raw) < 8:
                raise TruncatedError("the file ends inside its encapsulated pixel data")
            group, number, length = header.unpack(raw)
            position += 8
            if (group, number) == (0xFFFE, 0xE0DD):
                return position
            if (group, number) != (0xFFFE, 0xE000) or length == UNDEFINED:
                raise MalformedError(f"{group:04X}{number:04X} where a fragment should begin")
            position += length
        raise MalformedError(f"more than {_MAX_FRAGMENTS} fragments")

    def _count(self, walked_bytes: int) -> None:
        """One by one, empty elements and items of a file could take minutes."""
        self._left_bytes -= walked_bytes
        if self._left_bytes < 0:
            raise MalformedError(f"more than {self._most_bytes} bytes of header")

    def _move(self, position: int, length: int) -> None:
        self._base = position
        self._held = self._read(position, min(length, self._most_bytes))


def _shifted(element: Element, distance: int) -> Element:
    return Element(
        tag=element.tag,
        vr=element.vr,
        start=element.start + distance,
        value=element.value + distance,
        length=element.length,
        end=element.end + distance,
    )
