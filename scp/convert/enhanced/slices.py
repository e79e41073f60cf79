"""One classic instance as collapsing needs it: its header element by element, and where its frame lies."""

import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from scp.convert.enhanced.refusals import NotCollapsedError
from scp.elements import EXPLICIT_LITTLE, LONG_VRS, UNDEFINED, element_at, walk
from scp.errors import MalformedError, TruncatedError
from scp.model import CollapseReason
from scp.part10 import file_meta_of

_FIRST_READ: Final = 2**16
_PIXEL_GROUP: Final = 0x7FE00000
_PIXEL_DATA: Final = 0x7FE00010
_TRAILING_PADDING: Final = 0xFFFCFFFC
_ROWS, _COLUMNS, _ALLOCATED, _FRAMES = 0x00280010, 0x00280011, 0x00280100, 0x00280008
_ITEM: Final = struct.pack("<HH", 0xFFFE, 0xE000)
_DELIMITER: Final = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)

_NUMBER_LETTERS: Final = {b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l", b"FL": "f", b"FD": "d"}
"""The struct module's sign for VRs whose values are binary numbers."""

type Interned = dict[bytes, bytes]
"""Equal elements of a series once; they are most of every header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSlice:
    """One classic instance of a closed series."""

    name: str
    """Its key in the job."""
    path: Path
    """The file (PS3.10) as it was received."""
    encoded: Path
    """Its single-frame HTJ2K form, verified: a result of :func:`scp.convert.transcode.transcode`, or
    ``path`` itself where :func:`scp.convert.received.prove_received` has looked at it."""
    dataset_sha256: str
    """Of the received dataset, in hexadecimal."""
    pixel_sha256: str
    """Of its pixel words: little endian, every frame in order."""
    encoded_sha256: str = ""
    """Of the file ``encoded``, checked again where it is given."""
    transfer_syntax: str = ""
    """That the codestream has earned; empty: the one that ``encoded`` is labelled with."""

    @property
    def is_received(self) -> bool:
        """Whether the codestream is the one that came."""
        return self.encoded == self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """The header of a slice in Explicit VR Little Endian, and where its codestream lies."""

    source: SourceSlice
    transfer_syntax: str
    """That the codestream has earned."""
    elements: dict[int, bytes]
    """Whole elements by tag, in order; without group lengths, pixel data and trailing padding."""
    frame: tuple[int, int]
    """Offset and length of the codestream in the encoded file, padding not counted; 0 of several frames."""

    @property
    def native_bytes(self) -> int:
        """Of the frame, not padded."""
        rows, columns, allocated = map(self.short, (_ROWS, _COLUMNS, _ALLOCATED))
        return (rows or 0) * (columns or 0) * (allocated or 0) // 8

    def value(self, tag: int) -> bytes:
        """The value's bytes; empty where the element is absent or empty."""
        element = self.elements.get(tag)
        return b"" if element is None else value_of(element)

    def text(self, tag: int) -> str:
        return _text_of(self.elements.get(tag, b""))

    def texts(self, tag: int) -> tuple[str, ...]:
        """Every value, each without padding; none where the element is absent or empty."""
        return texts_of(self.elements.get(tag, b""))

    def numbers(self, tag: int) -> tuple[float, ...]:
        """The values, in text or binary; none where one of them is not a finite number."""
        return _numbers_of(self.elements.get(tag, b""))

    def short(self, tag: int) -> int | None:
        """The value of a US element."""
        raw = self.value(tag)
        return int.from_bytes(raw, "little") if len(raw) == 2 else None


def value_of(element: bytes) -> bytes:
    """The value of a whole element; of one of undefined length without its delimiter."""
    if element[4:6] not in LONG_VRS:
        return element[8:]
    return element[12:-8] if element[8:12] == b"\xff\xff\xff\xff" else element[12:]


# Most elements of a series are equal, and each is asked for several times.
_remembered = lru_cache(maxsize=4096)


@_remembered
def _text_of(element: bytes) -> str:
    return value_of(element).decode("latin-1").strip(" \0")


@_remembered
def texts_of(element: bytes) -> tuple[str, ...]:
    """As :meth:`SliceHeader.texts`, of a whole element."""
    text = _text_of(element)
    return tuple(value.strip() for value in text.split("\\")) if text else ()


@_remembered
def _numbers_of(element: bytes) -> tuple[float, ...]:
    numbers: tuple[float, ...]
    if letter := _NUMBER_LETTERS.get(element[4:6]):
        raw = value_of(element)
        count = len(raw) // struct.calcsize(f"<{letter}")
        numbers = struct.unpack_from(f"<{count}{letter}", raw)
    else:
        try:
            numbers = tuple(map(float, texts_of(element)))
        except ValueError:
            return ()
    return numbers if all(abs(number) < float("inf") for number in numbers) else ()


def read_header(source: SourceSlice, interned: Interned) -> SliceHeader:
    """Read the encoded form of ``source``, its frame excepted.

    Raises
    ------
    NotCollapsedError
        It is not what the conversion writes (``unreadable``).
    """
    try:
        descriptor = os.open(source.encoded, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NotCollapsedError(CollapseReason.UNREADABLE, str(error.strerror)) from error
    try:
        return _read(source, descriptor, os.fstat(descriptor).st_size, interned)
    except (MalformedError, TruncatedError, struct.error) as error:
        raise NotCollapsedError(CollapseReason.UNREADABLE, str(error)) from error
    finally:
        os.close(descriptor)


def _read(source: SourceSlice, descriptor: int, size: int, interned: Interned) -> SliceHeader:
    elements: dict[int, bytes] = {}
    wanted = _FIRST_READ
    while True:
        head = os.pread(descriptor, wanted, 0)
        elements.clear()
        try:
            meta = file_meta_of(head)
            end = _collect(head, meta.dataset_start, elements, interned)
            break
        except TruncatedError:
            if wanted >= size:
                raise
            wanted *= 8
    start = length = 0
    if _text_of(elements.get(_FRAMES, b"")) in ("", "1"):
        start, length, after = _frame(descriptor, end)
        tail = os.pread(descriptor, size - after, after)
        _collect(tail, 0, elements, interned, is_tail=True)
    return SliceHeader(
        source=source,
        transfer_syntax=source.transfer_syntax or meta.transfer_syntax,
        elements=elements,
        frame=(start, length),
    )


def _collect(
    data: bytes,
    start: int,
    elements: dict[int, bytes],
    interned: Interned,
    *,
    is_tail: bool = False,
) -> int:
    """Take the elements before, or after, the group of the pixel data; where they end."""
    position, intern = start, interned.setdefault
    stop = 0x1_0000_0000 if is_tail else _PIXEL_GROUP
    for element in walk(data, EXPLICIT_LITTLE, start=start, stop_before=stop):
        position = element.end
        tag = element.tag
        if tag & 0xFFFF == 0 or tag == _TRAILING_PADDING:
            continue
        if tag in elements:
            raise MalformedError(f"{tag:08X} comes twice")
        whole = data[element.start : position]
        elements[tag] = intern(whole, whole)
    return position


def _frame(descriptor: int, position: int) -> tuple[int, int, int]:
    """Offset and length of the only frame's only fragment, and where the pixel data ends."""
    while True:
        element = element_at(os.pread(descriptor, 12, position), EXPLICIT_LITTLE, 0)
        if element.tag == _PIXEL_DATA:
            break
        if element.tag >> 16 != _PIXEL_GROUP >> 16 or element.length == UNDEFINED:
            raise MalformedError("no pixel data where it should be")
        position += element.end
    if element.length != UNDEFINED:
        raise MalformedError("the pixel data is not encapsulated")
    position += element.value
    tag, table = struct.unpack("<4sL", os.pread(descriptor, 8, position))
    position += 8 + table
    fragment, length = struct.unpack("<4sL", os.pread(descriptor, 8, position))
    start, end = position + 8, position + 8 + length
    last = os.pread(descriptor, 11, end - 3)
    if tag != _ITEM or fragment != _ITEM or last[3:] != _DELIMITER:
        raise MalformedError("the frame is not one fragment")
    # The byte that makes the length even is no part of the codestream.
    return start, length - (last[:3] == b"\xff\xd9\0"), end + 8
