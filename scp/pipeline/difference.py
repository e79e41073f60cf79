"""What differs between two datasets under one SOP Instance UID: tags and lengths, never a value.

Files are read here and not mapped: where a disk cannot give a mapped page, the process ends.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from scp.buffer.job import Difference
from scp.elements import PIXEL_DATA, Element, is_deflated
from scp.errors import MalformedError, TruncatedError
from scp.header import FileHeader, open_header

MOST_LISTED: Final = 50
MOST_ELEMENTS: Final = 20_000
"""Of each dataset; more is left alone, and the difference says so."""
MOST_BYTES: Final = 2**28
"""Compared of each dataset; more is left alone, and the difference says so."""
CHUNK_BYTES: Final = 2**20


def difference_of(first: Path, second: Path) -> Difference | None:
    """Compare the top-level elements of two files as they are written; None: that cannot be done.

    In other transfer syntaxes equal values may be written differently, and count as different then.
    Memory is bounded, and so is what is looked at.
    """
    try:
        with open_header(first) as one, open_header(second) as other:
            return _compared(one, other)
    except (OSError, MalformedError, TruncatedError):
        return None


def _compared(first: FileHeader, second: FileHeader) -> Difference:
    listed: list[str] = []
    differ = seen = 0
    bytes_left = MOST_BYTES
    pixel_data = "equal"
    is_whole = True
    for left, right in _pairs(_elements(first), _elements(second)):
        seen += 1
        if seen > MOST_ELEMENTS or bytes_left <= 0:
            is_whole = False
            break
        is_equal = False
        if left is not None and right is not None:
            bytes_left -= right.value_end - right.value
            if bytes_left < 0:
                continue
            is_equal = _is_equal(first, left, second, right)
        if is_equal:
            continue
        differ += 1
        if PIXEL_DATA in (left and left.tag, right and right.tag):
            pixel_data = "different"
        if len(listed) < MOST_LISTED:
            listed.append(_in_words(left, right))
    is_whole = is_whole and bytes_left >= 0
    if pixel_data == "equal" and not is_whole:
        pixel_data = "not compared"
    return Difference(
        elements=differ, pixel_data=pixel_data, listed=tuple(listed), is_whole=is_whole
    )


def _elements(header: FileHeader) -> Iterator[Element]:
    if is_deflated(header.transfer_syntax):
        raise MalformedError("a deflated dataset is not looked into")
    return header.elements()


def _pairs(
    first: Iterator[Element], second: Iterator[Element]
) -> Iterator[tuple[Element | None, Element | None]]:
    """Elements of one tag together, as both datasets are in ascending order (PS3.5 7.1)."""
    one, other = next(first, None), next(second, None)
    while one is not None or other is not None:
        has_one = one is not None and (other is None or one.tag <= other.tag)
        has_other = other is not None and (one is None or other.tag <= one.tag)
        yield one if has_one else None, other if has_other else None
        if has_one:
            one = next(first, None)
        if has_other:
            other = next(second, None)


def _is_equal(first: FileHeader, left: Element, second: FileHeader, right: Element) -> bool:
    if left.vr and right.vr and left.vr != right.vr:
        return False
    count = left.value_end - left.value
    if count != right.value_end - right.value:
        return False
    return all(
        first.value(left, CHUNK_BYTES, start) == second.value(right, CHUNK_BYTES, start)
        for start in range(0, count, CHUNK_BYTES)
    )


def _in_words(left: Element | None, right: Element | None) -> str:
    either = left or right
    assert either is not None
    tag = f"({either.tag >> 16:04X},{either.tag & 0xFFFF:04X})"
    if left is None or right is None:
        return f"{tag} {_described(either)}, only in the {'second' if left is None else 'first'}"
    return f"{tag} {_described(left)}, then {_described(right)}"


def _described(element: Element) -> str:
    """Its VR, as written or as the dictionary says, and the length of its value."""
    vr = element.vr.decode("ascii")
    if not vr:
        vr = dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "UN"
    return f"{vr} {element.value_end - element.value} bytes"
