"""Writes a dataset's header in another encoding (PS3.5 7.1, Annex A), value bytes untouched.

No value is decoded: only VR and length fields appear, disappear or grow, and the words of big-endian
values are swapped. What the target cannot express is refused, not shortened.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
from pydicom.datadict import dictionary_VR, private_dictionary_VR

from scp.convert.refusals import NotConvertibleError
from scp.elements import (
    IMPLICIT_LITTLE,
    LONG_VRS,
    UNDEFINED,
    Element,
    Encoding,
    items_of,
    walk,
)
from scp.errors import MalformedError, TruncatedError
from scp.model import PassReason

WORD_SIZES: Final[Mapping[bytes, int]] = MappingProxyType(
    {
        **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
        **dict.fromkeys((b"UL", b"SL", b"FL", b"OL", b"OF"), 4),
        **dict.fromkeys((b"FD", b"OD", b"SV", b"UV", b"OV"), 8),
    }
)
"""Bytes that are swapped together between byte orders (PS3.5 7.3)."""

_PLAIN: Final = frozenset(b"AE AS CS DA DS DT IS LO LT OB PN SH SQ ST TM UC UI UN UR UT".split())
_FIXED: Final = frozenset(WORD_SIZES) - {b"OW", b"OL", b"OF", b"OD", b"OV"}
_LONGEST_SHORT: Final = 0xFFFE
_PIXEL_REPRESENTATION: Final = 0x00280103


def swapped(vr: bytes, value: memoryview) -> bytes:
    """A big-endian value in little-endian order.

    Raises
    ------
    MalformedError
        The VR's word size is not known, or the value is no whole number of words.
    """
    size = WORD_SIZES.get(vr)
    if size is None:
        if vr not in _PLAIN:
            raise MalformedError(f"VR {vr!r} has an unknown byte order")
        return bytes(value)
    if len(value) % size:
        raise MalformedError(f"a value of {len(value)} bytes of VR {vr!r}")
    return np.frombuffer(value, f">u{size}").astype(f"<u{size}").tobytes()


def recode(
    data: memoryview,
    elements: Iterable[Element],
    source: Encoding,
    target: Encoding,
    *,
    signed: bool,
) -> list[bytes | memoryview]:
    """The elements in the target encoding, in pieces.

    Parameters
    ----------
    data
        What the offsets of ``elements`` count in.
    target
        Little endian.
    signed
        Pixel Representation of the dataset: decides between US and SS (PS3.5 A.1).

    Raises
    ------
    NotConvertibleError
        A value cannot be expressed (``header_not_expressible``).
    """
    try:
        return _Recoder(target.implicit).dataset(data, elements, _Context(source, signed))
    except (MalformedError, TruncatedError) as error:
        raise NotConvertibleError(PassReason.HEADER_NOT_EXPRESSIBLE, str(error)) from error


def element_header(tag: int, vr: bytes, length: int, *, implicit: bool = False) -> bytes:
    """Tag, VR and length fields in little endian (PS3.5 7.1.2, 7.1.3).

    Raises
    ------
    MalformedError
        The length does not fit a VR whose length field has 16 bits.
    """
    if implicit:
        return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length)
    if vr in LONG_VRS or (vr not in _PLAIN and vr not in WORD_SIZES):
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, length)
    if length > _LONGEST_SHORT:
        raise MalformedError(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {vr.decode()}: {length} bytes")
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length)


@dataclass(slots=True)
class _Context:
    """What the VR of an element depends on; one for each dataset, items included."""

    encoding: Encoding
    signed: bool
    creators: dict[int, str] = field(default_factory=dict)
    """Private creators by group and block: 0xggggxx (PS3.5 7.8.1)."""


class _Recoder:
    def __init__(self, implicit: bool) -> None:
        self._implicit = implicit

    def dataset(
        self, data: memoryview, elements: Iterable[Element], context: _Context
    ) -> list[bytes | memoryview]:
        pieces: list[bytes | memoryview] = []
        group, length_at, group_start = -1, -1, 0
        for element in elements:
            if element.tag >> 16 != group:
                self._set_group_length(pieces, length_at, group_start)
                group, length_at = element.tag >> 16, -1
            if element.tag & 0xFFFF == 0 and element.length == 4:
                # Group lengths are retired but must be true where they are given (PS3.5 7.2).
                length_at = len(pieces)
                header = element_header(element.tag, b"UL", 4, implicit=self._implicit)
                pieces += (header, b"\0\0\0\0")
                group_start = len(pieces)
            else:
                pieces += self._element(data, element, context)
        self._set_group_length(pieces, length_at, group_start)
        return pieces

    def _set_group_length(
        self, pieces: list[bytes | memoryview], length_at: int, group_start: int
    ) -> None:
        if length_at >= 0:
            pieces[length_at + 1] = struct.pack("<L", sum(map(len, pieces[group_start:])))

    def _element(
        self, data: memoryview, element: Element, context: _Context
    ) -> list[bytes | memoryview]:
        value = data[element.value : element.end]
        vr = element.vr or _vr_of(element, value, context)
        if element.tag == _PIXEL_REPRESENTATION and len(value) == 2:
            context.signed = 1 in bytes(value)
        if vr == b"SQ" or (vr == b"UN" and element.is_undefined_length):
            return self._sequence(data, element, context)
        if element.is_undefined_length:
            raise MalformedError("encapsulated data inside a header")
        if not context.encoding.little:
            value = memoryview(swapped(vr, value))
        return [element_header(element.tag, vr, len(value), implicit=self._implicit), value]

    def _sequence(
        self, data: memoryview, element: Element, context: _Context
    ) -> list[bytes | memoryview]:
        # A value of VR UN and undefined length is implicit inside (PS3.5 6.2.2 note 4).
        inside = IMPLICIT_LITTLE if element.vr == b"UN" else context.encoding
        pieces: list[bytes | memoryview] = []
        for start, end in items_of(data, context.encoding, element):
            item = data[start:end]
            nested = _Context(inside, context.signed)
            content = self.dataset(item, walk(item, inside), nested)
            was_open = bytes(data[start - 4 : start]) == b"\xff\xff\xff\xff"
            length = UNDEFINED if was_open else sum(map(len, content))
            pieces += (struct.pack("<HHL", 0xFFFE, 0xE000, length), *content)
            if was_open:
                pieces.append(struct.pack("<HHL", 0xFFFE, 0xE00D, 0))
        if element.is_undefined_length:
            header = element_header(element.tag, b"SQ", UNDEFINED, implicit=self._implicit)
            return [header, *pieces, struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)]
        length = sum(map(len, pieces))
        return [element_header(element.tag, b"SQ", length, implicit=self._implicit), *pieces]


def _vr_of(element: Element, value: memoryview, context: _Context) -> bytes:
    """The VR of an element that was written without one (PS3.5 A.1, 6.2.2)."""
    tag = element.tag
    if element.is_undefined_length:
        return b"SQ"
    if tag >> 16 & 1:
        return _private_vr(tag, value, context)
    try:
        vr = dictionary_VR(tag).encode()
    except KeyError:
        return b"UN"
    if len(vr) == 2:
        return vr
    if vr == b"US or SS":
        return b"SS" if context.signed else b"US"
    if vr == b"US or OW":
        return b"US" if len(value) == 2 else b"OW"
    # OB or OW, US or SS or OW: OW, as implicit VR means it (PS3.5 A.1).
    return b"OW"


def _private_vr(tag: int, value: memoryview, context: _Context) -> bytes:
    block = tag >> 16 << 8
    if tag & 0xFFFF < 0x100:
        if tag & 0xFFFF < 0x10:
            return b"UN"
        context.creators[block | tag & 0xFF] = bytes(value).decode("latin-1").strip(" \0")
        return b"LO" if len(value) <= _LONGEST_SHORT else b"UN"
    creator = context.creators.get(block | tag >> 8 & 0xFF)
    if not creator:
        return b"UN"
    try:
        vr = private_dictionary_VR(tag, creator).encode()
    except KeyError:
        return b"UN"
    # The dictionary of somebody else's elements may be wrong; UN never is.
    if len(vr) != 2 or (vr in _FIXED and len(value) % WORD_SIZES[vr]):
        return b"UN"
    if vr == b"SQ":
        return vr if _holds_items(value) else b"UN"
    return vr if vr in LONG_VRS or len(value) <= _LONGEST_SHORT else b"UN"


def _holds_items(value: memoryview) -> bool:
    whole = Element(0, b"", 0, 0, len(value), len(value))
    try:
        for start, end in items_of(value, IMPLICIT_LITTLE, whole):
            for _ in walk(value[start:end], IMPLICIT_LITTLE):
                pass
    except (MalformedError, TruncatedError):
        return False
    return True
