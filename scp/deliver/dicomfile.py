"""Reads what delivering needs from a DICOM file (PS3.10 section 7)."""

import os
import struct
from collections.abc import Collection
from typing import Final

from pydicom.datadict import dictionary_VR

from scp.elements import (
    Element,
    bounded_inflate,
    encoding_of,
    is_deflated,
    walk,
)
from scp.errors import MalformedError, TruncatedError
from scp.part10 import FileMeta, read_file_meta

_HEADER_READ: Final = 1 << 16
_HEADER_LIMIT: Final = 1 << 26
"""What may lie before the attributes that are asked for."""

_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}


def read_meta(descriptor: int) -> FileMeta:
    """Read the meta group of an open file.

    Raises
    ------
    MalformedError
        It is no DICOM file, or names no transfer syntax.
    """
    try:
        return read_file_meta(lambda offset, length: os.pread(descriptor, length, offset))
    except TruncatedError as error:
        raise MalformedError(str(error)) from error


def read_values(descriptor: int, meta: FileMeta, tags: Collection[int]) -> dict[int, str]:
    """Values of top-level attributes as text; those that are absent or out of reach are left out.

    Text keeps its bytes: what is no UTF-8 is read as Latin-1.
    """
    size, last = _HEADER_READ, max(tags)
    encoding = encoding_of(meta.transfer_syntax)
    while True:
        data = os.pread(descriptor, size, meta.dataset_start)
        is_all = len(data) < size
        found: dict[int, str] = {}
        end = 0
        try:
            if is_deflated(meta.transfer_syntax):
                data = bounded_inflate(data, _HEADER_LIMIT)
            for element in walk(data, encoding, stop_before=last + 1):
                end = element.end
                if element.tag in tags:
                    raw = data[element.value : element.value_end]
                    found[element.tag] = _value(element, raw, encoding.order)
            if is_all or end < len(data):
                return found
        except TruncatedError:
            if is_all or size >= _HEADER_LIMIT:
                return found
        except MalformedError:
            return found
        size = _HEADER_LIMIT


def _value(element: Element, raw: bytes, order: str) -> str:
    vr = element.vr.decode("ascii")
    if not vr:
        try:
            vr = dictionary_VR(element.tag)
        except KeyError:
            vr = "UN"
    number = _NUMBERS.get(vr)
    if number is None:
        return _text(raw)
    width = struct.calcsize(order + number)
    count = len(raw) // width
    numbers = struct.unpack_from(f"{order}{count}{number}", raw)
    return "\\".join(f"{value:g}" if vr in ("FL", "FD") else str(value) for value in numbers)


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.strip("\0 ")
