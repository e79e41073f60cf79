"""The header around the pixel data in Explicit VR Little Endian, and the few elements that may change."""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scp.convert.digests import normal_form
from scp.convert.part10 import DicomFile
from scp.convert.recode import element_header, recode
from scp.convert.refusals import NotConvertibleError
from scp.elements import EXPLICIT_LITTLE, PIXEL_DATA, Element, Encoding, walk
from scp.errors import MalformedError, TruncatedError
from scp.model import PassReason

_ENCAPSULATED: Final = re.compile(rb"\xe0\x7f\x10\x00(?:O[BW]\0\0)?\xff{4}")
"""The beginning of Pixel Data of undefined length, explicit or implicit: in a header an icon's."""

type Change = tuple[bytes, bytes] | None
"""VR and value of even length; None drops the element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands before and after the top-level pixel data, in Explicit VR Little Endian."""

    before: bytes | memoryview
    after: bytes | memoryview


def explicit_header(file: DicomFile, elements: list[Element], *, signed: bool) -> Header:
    """The header as it is where it is Explicit VR Little Endian, else recoded and compared.

    Raises
    ------
    NotConvertibleError
        It cannot be expressed, or reads differently afterwards (``header_not_expressible``). So is an
        icon that is compressed: its bytes mean nothing in another transfer syntax (PS3.5 A.4).
    """
    at = next(i for i, element in enumerate(elements) if element.tag == PIXEL_DATA)
    pixel_data, data = elements[at], file.dataset
    if file.encoding == EXPLICIT_LITTLE:
        header = Header(before=data[: pixel_data.start], after=data[pixel_data.end :])
        if pixel_data.is_undefined_length and any(
            map(_ENCAPSULATED.search, (header.before, header.after))
        ):
            raise NotConvertibleError(PassReason.HEADER_NOT_EXPRESSIBLE, "an icon is compressed")
        return header

    before, after = (
        recoded(data, part, file.encoding, EXPLICIT_LITTLE, signed=signed)
        for part in (elements[:at], elements[at + 1 :])
    )
    return Header(before=before, after=after)


def recoded(
    data: memoryview,
    elements: list[Element],
    source: Encoding,
    target: Encoding,
    *,
    signed: bool,
) -> bytes:
    """The elements in another encoding, read again and found to hold the same values.

    Raises
    ------
    NotConvertibleError
        As :func:`explicit_header`.
    """
    whole = b"".join(recode(data, elements, source, target, signed=signed))
    result = memoryview(whole)
    try:
        is_same = normal_form(result, walk(result, target), target) == normal_form(
            data, elements, source
        )
    except (MalformedError, TruncatedError) as error:
        raise NotConvertibleError(PassReason.HEADER_NOT_EXPRESSIBLE, str(error)) from error
    if not is_same:
        raise NotConvertibleError(
            PassReason.HEADER_NOT_EXPRESSIBLE, "a value reads differently in the other encoding"
        )
    return whole


def edited(header: bytes | memoryview, changes: Mapping[int, Change]) -> bytes | memoryview:
    """The header with elements set, added in their place or dropped; every other byte stays.

    A group length (gggg,0000) that a change makes wrong is corrected by as much.
    """
    if not changes:
        return header
    view = memoryview(header)
    elements = list(walk(view, EXPLICIT_LITTLE))
    missing = sorted(set(changes).difference(element.tag for element in elements))
    pieces: list[bytes | memoryview] = []
    lengths: dict[int, tuple[int, int]] = {}
    grown: dict[int, int] = {}

    def put(tag: int, instead_of: int) -> None:
        change = changes[tag]
        new = b"" if change is None else element_header(tag, change[0], len(change[1])) + change[1]
        pieces.append(new)
        grown[tag >> 16] = grown.get(tag >> 16, 0) + len(new) - instead_of

    for element in elements:
        while missing and missing[0] < element.tag:
            put(missing.pop(0), 0)
        if element.tag in changes:
            put(element.tag, element.end - element.start)
        elif element.tag & 0xFFFF == 0 and element.length == 4:
            old = struct.unpack_from("<L", view, element.value)[0]
            lengths[element.tag >> 16] = (len(pieces) + 1, old)
            pieces += (view[element.start : element.value], view[element.value : element.end])
        else:
            pieces.append(view[element.start : element.end])
    for tag in missing:
        put(tag, 0)
    for group, (index, old) in lengths.items():
        if grown.get(group):
            pieces[index] = struct.pack("<L", (old + grown[group]) & 0xFFFFFFFF)
    return b"".join(pieces)


def code_string(text: str) -> Change:
    """A CS element's VR and value (PS3.5 6.2)."""
    value = text.encode()
    return b"CS", value + b" " * (len(value) % 2)


def unsigned_short(number: int) -> Change:
    return b"US", struct.pack("<H", number)
