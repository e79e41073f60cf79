"""How strongly, and in which direction, diffusion weighted an MR slice, vendors' own elements included.

The standard's attributes (0018,9087) and (0018,9089) are those of Enhanced MR (PS3.3 C.8.13.5.9); classic
instances carry them rarely. Where they are absent, what Siemens, GE and Philips write instead is read.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from scp.convert.enhanced.slices import SliceHeader

_MODALITY: Final = 0x00080060
B_VALUE, DIRECTION = 0x00189087, 0x00189089
_GE_FLAG: Final = 10**9
"""GE adds it to b-values that its scanner has chosen itself."""

type Numbers = tuple[float, ...]
type _Read = Callable[[SliceHeader, int], Numbers]


def _ge_b_value(header: SliceHeader, tag: int) -> Numbers:
    numbers = header.numbers(tag)
    return tuple(number % _GE_FLAG for number in numbers[:1] if number >= 0)


def _floats(header: SliceHeader, tag: int) -> Numbers:
    """Of FL, or of the same behind VR UN."""
    return _unpacked(header.value(tag), "f")


def _doubles(header: SliceHeader, tag: int) -> Numbers:
    """Of FD, or of the same behind VR UN."""
    return _unpacked(header.value(tag), "d")


def _unpacked(raw: bytes, letter: str) -> Numbers:
    size = struct.calcsize(letter)
    numbers = struct.unpack(f"<{len(raw) // size}{letter}", raw[: len(raw) // size * size])
    return numbers if all(abs(number) < float("inf") for number in numbers) else ()


@dataclass(frozen=True, slots=True)
class _Private:
    """Where a vendor keeps it: elements of one block, low bytes in order."""

    group: int
    creator: str
    elements: tuple[int, ...]
    read: _Read


_PRIVATE: Final = {
    B_VALUE: (
        _Private(0x0019, "SIEMENS MR HEADER", (0x0C,), SliceHeader.numbers),
        _Private(0x0043, "GEMS_PARM_01", (0x39,), _ge_b_value),
        _Private(0x2001, "PHILIPS IMAGING DD 001", (0x03,), _floats),
    ),
    DIRECTION: (
        _Private(0x0019, "SIEMENS MR HEADER", (0x0E,), _doubles),
        _Private(0x0019, "GEMS_ACQU_01", (0xBB, 0xBC, 0xBD), SliceHeader.numbers),
        _Private(0x2005, "PHILIPS MR IMAGING DD 001", (0xB0, 0xB1, 0xB2), _floats),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The element that a dimension points to (PS3.3 C.7.6.17)."""

    pointer: int
    creator: str = ""
    """Of a private element."""


def diffusion(header: SliceHeader, tag: int) -> Numbers:
    """The b-value in s/mm2, or the direction, as ``tag`` says; none where nobody says it."""
    if header.text(_MODALITY) != "MR":
        return ()
    return header.numbers(tag) or next(
        (numbers for _, numbers in _found(header, tag) if numbers), ()
    )


def place_of(headers: Sequence[SliceHeader], tag: int) -> Place:
    """Which element says it in these slices."""
    for header in headers:
        if header.numbers(tag):
            return Place(pointer=tag)
        for place, numbers in _found(header, tag):
            if numbers:
                return place
    return Place(pointer=tag)


def _found(header: SliceHeader, tag: int) -> list[tuple[Place, Numbers]]:
    found: list[tuple[Place, Numbers]] = []
    # Private creators (PS3.5 7.8.1).
    reserved = [each for each in header.elements if each & 0x1FF00 == 0x10000 and each & 0xFF > 0xF]
    for private in _PRIVATE[tag]:
        block = _block(header, private, reserved)
        if block is None:
            continue
        first = private.group << 16 | block << 8
        tags = [first | element for element in private.elements]
        numbers = tuple(number for each in tags for number in private.read(header, each))
        creator = header.text(private.group << 16 | block)
        found.append((Place(pointer=tags[0], creator=creator), numbers))
    return found


def _block(header: SliceHeader, private: _Private, reserved: Sequence[int]) -> int | None:
    """The block that the vendor has reserved in this instance."""
    for tag in reserved:
        if tag >> 16 == private.group and header.text(tag).upper() == private.creator:
            return tag & 0xFF
    return None
