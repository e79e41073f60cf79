"""Walks the top-level elements of an encoded dataset (PS3.5 section 7) without decoding values.

One walker serves everything that must find an element without trusting the sender: the routing header,
the attributes that rules ask for, the place of the pixel data. It knows depth: an element inside a
sequence is never taken for one outside, and never looked at.
"""

import mmap
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from scp.errors import MalformedError, TruncatedError

UNDEFINED: Final = 0xFFFFFFFF
PIXEL_DATA: Final = 0x7FE00010
MAX_DEPTH: Final = 64
"""Sequences in sequences; deeper is taken for an attack. Real objects stay below 10."""

LONG_VRS: Final = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
"""Whose length field has 32 bits (PS3.5 7.1.2)."""
_SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_FRAGMENTS_A_RELEASE: Final = 512
"""The kernel maps 64 kB around each header that is looked at, so these are 32 MB."""
_INFLATE_INPUT: Final = 2**16
_INFLATE_OUTPUT: Final = 2**20
_INFLATE_RELEASE: Final = 2**24
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD

type Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a dataset is written down."""

    implicit: bool
    little: bool

    @property
    def order(self) -> str:
        """The struct module's sign for the byte order."""
        return "<" if self.little else ">"


IMPLICIT_LITTLE: Final = Encoding(implicit=True, little=True)
EXPLICIT_LITTLE: Final = Encoding(implicit=False, little=True)
EXPLICIT_BIG: Final = Encoding(implicit=False, little=False)


_SHORT_HEADER: Final[dict[Encoding, Callable[[Buffer, int], tuple[int, int, bytes, int]]]] = {
    encoding: Struct(encoding.order + "HH2sH").unpack_from
    for encoding in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
}


def encoding_of(transfer_syntax: str) -> Encoding:
    """The encoding of the dataset's elements; private and unknown syntaxes are explicit (PS3.5 A.4)."""
    if transfer_syntax == ImplicitVRLittleEndian:
        return IMPLICIT_LITTLE
    if transfer_syntax == ExplicitVRBigEndian:
        return EXPLICIT_BIG
    return EXPLICIT_LITTLE


@dataclass(slots=True)
class Element:
    """Where one element lies; offsets count from the start of the buffer that was walked."""

    tag: int
    """(gggg,eeee) as 0xggggeeee."""
    vr: bytes
    """Two letters; empty where the encoding is implicit."""
    start: int
    """Of the tag."""
    value: int
    """Of the first byte after the length field."""
    length: int
    """As written; ``UNDEFINED`` where a delimiter ends the value."""
    end: int
    """Of the first byte after the element, delimiter included."""

    @property
    def is_undefined_length(self) -> bool:
        return self.length == UNDEFINED

    @property
    def value_end(self) -> int:
        """Of the first byte after the value, the sequence delimiter not included."""
        return self.end - 8 if self.length == UNDEFINED else self.end


def walk(
    data: Buffer,
    encoding: Encoding,
    *,
    start: int = 0,
    stop_before: int = 0x1_0000_0000,
    only: Collection[int] | None = None,
    pixel_data_may_be_cut: bool = False,
) -> Iterator[Element]:
    """Yield the top-level elements of ``data[start:]`` in the order they are written.

    Stops before the first tag not below ``stop_before``. With ``only``, elements of other tags are
    passed over without being yielded, which takes a third less time. With ``pixel_data_may_be_cut``
    a pixel data element of defined length is yielded although the bytes end inside it; ``end`` is
    then where it would have ended.

    Raises
    ------
    TruncatedError
        The bytes end inside an element.
    MalformedError
        They cannot be elements.
    """
    walker: _Walker | None = None
    position, size = start, len(data)
    short_header = _SHORT_HEADER[encoding]
    last_header = -1 if encoding.implicit else size - 8
    while position < size:
        # Most elements are explicit and short: their way costs a third of the general one.
        if position <= last_header:
            group, number, vr, length = short_header(data, position)
            end = position + 8 + length
            if vr in _SHORT_VRS and end <= size:
                tag = group << 16 | number
                if tag >= stop_before:
                    return
                if only is None or tag in only:
                    yield Element(tag, vr, position, position + 8, length, end)
                position = end
                continue
        walker = walker or _Walker(data, encoding)
        tag = walker.tag_at(position)
        if tag >= stop_before:
            return
        element = walker.header_at(position, tag)
        if pixel_data_may_be_cut and tag == PIXEL_DATA and element.length != UNDEFINED:
            element.end = element.value + element.length
        else:
            walker.find_end(element, 0)
        if only is None or tag in only:
            yield element
        position = element.end


def element_at(data: Buffer, encoding: Encoding, position: int) -> Element:
    """The element whose header begins at ``position``; its value need not be there.

    ``end`` is where a value of defined length would end, 0 for one of undefined length.

    Raises
    ------
    TruncatedError
        The bytes end inside the header.
    MalformedError
        It cannot be one.
    """
    walker = _Walker(data, encoding)
    element = walker.header_at(position, walker.tag_at(position))
    if element.length != UNDEFINED:
        element.end = element.value + element.length
    return element


def items_of(data: Buffer, encoding: Encoding, element: Element) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the content of each item of a sequence, or of each encapsulated fragment."""
    walker = _Walker(data, encoding)
    position, end = element.value, element.value_end
    number = 0
    while position < end:
        number += 1
        if number % _FRAGMENTS_A_RELEASE == 0:
            release_pages(data)
        tag, length = walker.item_at(position)
        if tag != _ITEM:
            # A sequence delimiter too: in front of the end it would hide what follows.
            raise MalformedError(f"{tag:08X} where an item should begin")
        inside = position + 8
        after = walker.end_of_item(inside, length, element.vr == b"UN", 0)
        yield inside, after - 8 if length == UNDEFINED else after
        position = after


def bounded_inflate(data: Buffer, limit: int) -> bytes:
    """Inflate the start of a deflated dataset (PS3.5 A.5), never more than ``limit`` bytes of it.

    Raises
    ------
    MalformedError
        The bytes are no deflate stream.
    """
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
    except zlib.error as error:
        raise MalformedError(f"deflated dataset: {error}") from error


def inflated(data: Buffer, limit: int) -> Iterator[bytes]:
    """Yield a deflated dataset (PS3.5 A.5) in pieces of at most 1 MiB, together at most ``limit`` bytes.

    Raises
    ------
    MalformedError
        The bytes are no deflate stream.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    view = memoryview(data)
    try:
        for start in range(0, len(view), _INFLATE_INPUT):
            rest: Buffer = view[start : start + _INFLATE_INPUT]
            while limit and not inflater.eof:
                piece = inflater.decompress(rest, min(limit, _INFLATE_OUTPUT))
                if not piece:
                    break
                yield piece
                limit -= len(piece)
                rest = inflater.unconsumed_tail
            if start % _INFLATE_RELEASE == 0:
                release_pages(data)
    except zlib.error as error:
        raise MalformedError(f"deflated dataset: {error}") from error


def release_pages(data: Buffer) -> None:
    """Give back the memory of a mapped file's pages; they are read again when they are needed.

    Without it a file counts as this process's memory as far as it was ever looked at. Nothing happens to
    bytes that are not mapped.
    """
    mapped = data.obj if isinstance(data, memoryview) else None
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def is_deflated(transfer_syntax: str) -> bool:
    return transfer_syntax == DeflatedExplicitVRLittleEndian


class _Walker:
    def __init__(self, data: Buffer, encoding: Encoding) -> None:
        self._data = data
        self._size = len(data)
        self._implicit = encoding.implicit
        order = encoding.order
        self._two_shorts: Callable[[Buffer, int], tuple[int, int]] = Struct(
            order + "HH"
        ).unpack_from
        self._tag_long: Callable[[Buffer, int], tuple[int, int, int]] = Struct(
            order + "HHL"
        ).unpack_from
        self._short: Callable[[Buffer, int], tuple[int]] = Struct(order + "H").unpack_from
        self._long: Callable[[Buffer, int], tuple[int]] = Struct(order + "L").unpack_from

    def tag_at(self, position: int) -> int:
        if position + 8 > self._size:
            raise TruncatedError(f"the bytes end at {self._size}, inside an element header")
        group, element = self._two_shorts(self._data, position)
        return group << 16 | element

    def item_at(self, position: int) -> tuple[int, int]:
        if position + 8 > self._size:
            raise TruncatedError(f"the bytes end at {self._size}, inside an item header")
        group, element, length = self._tag_long(self._data, position)
        return group << 16 | element, length

    def header_at(self, position: int, tag: int, *, implicit: bool | None = None) -> Element:
        """The element's header; ``end`` is not set yet."""
        if self._implicit if implicit is None else implicit:
            return Element(
                tag, b"", position, position + 8, self._long(self._data, position + 4)[0], 0
            )
        vr = bytes(self._data[position + 4 : position + 6])
        # Value representations that the standard adds later have long lengths (PS3.5 6.2).
        if vr in LONG_VRS or (vr not in _SHORT_VRS and vr.isalpha() and vr.isupper()):
            if position + 12 > self._size:
                raise TruncatedError(f"the bytes end at {self._size}, inside an element header")
            return Element(
                tag, vr, position, position + 12, self._long(self._data, position + 8)[0], 0
            )
        if vr not in _SHORT_VRS:
            raise MalformedError(
                f"({tag >> 16:04X},{tag & 0xFFFF:04X}) has no VR at byte {position}"
            )
        return Element(tag, vr, position, position + 8, self._short(self._data, position + 6)[0], 0)

    def find_end(self, element: Element, depth: int) -> None:
        if element.length != UNDEFINED:
            element.end = element.value + element.length
            if element.end > self._size:
                raise TruncatedError(f"the bytes end at {self._size}, inside a value")
        elif element.tag == PIXEL_DATA or element.vr in (b"OB", b"OW"):
            element.end = self._end_of_fragments(element.value)
        else:
            element.end = self._end_of_sequence(element.value, element.vr == b"UN", depth + 1)

    def end_of_item(self, inside: int, length: int, as_implicit: bool, depth: int) -> int:
        """Where the item ends, its delimiter included."""
        if length == UNDEFINED:
            return self._end_of_open_item(inside, as_implicit, depth + 1)
        if inside + length > self._size:
            raise TruncatedError(f"the bytes end at {self._size}, inside an item")
        return inside + length

    def _end_of_fragments(self, position: int) -> int:
        number = 0
        while True:
            number += 1
            if number % _FRAGMENTS_A_RELEASE == 0:
                release_pages(self._data)
            tag, length = self.item_at(position)
            position += 8
            if tag == _SEQUENCE_END:
                return position
            if tag != _ITEM or length == UNDEFINED:
                raise MalformedError(f"{tag:08X} where a fragment should begin")
            position += length

    def _end_of_sequence(self, position: int, as_implicit: bool, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise MalformedError(f"sequences more than {MAX_DEPTH} deep")
        while True:
            tag, length = self.item_at(position)
            position += 8
            if tag == _SEQUENCE_END:
                return position
            if tag != _ITEM:
                raise MalformedError(f"{tag:08X} where an item should begin")
            position = self.end_of_item(position, length, as_implicit, depth)

    def _end_of_open_item(self, position: int, as_implicit: bool, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise MalformedError(f"sequences more than {MAX_DEPTH} deep")
        while True:
            tag = self.tag_at(position)
            if tag == _ITEM_END:
                return position + 8
            # A value of VR UN and undefined length is implicit inside (PS3.5 6.2.2 note 4).
            element = self.header_at(position, tag, implicit=True if as_implicit else None)
            if as_implicit and element.length == UNDEFINED:
                element.vr = b"UN"
            self.find_end(element, depth)
            position = element.end
