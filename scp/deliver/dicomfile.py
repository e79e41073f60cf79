"""Reads what delivering needs from a DICOM file (PS3.10 section 7)."""

import os
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pydicom.datadict import dictionary_VR

from scp.elements import (
    EXPLICIT_LITTLE,
    Element,
    bounded_inflate,
    encoding_of,
    is_deflated,
    walk,
)
from scp.errors import MalformedError, TruncatedError

_PREAMBLE: Final = 132
_META_READ: Final = 4096
_META_LIMIT: Final = 1 << 20
_HEADER_READ: Final = 1 << 16
_HEADER_LIMIT: Final = 1 << 26
"""What may lie before the attributes that are asked for."""

_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """The file meta group, as far as it matters here. Padding stripped."""

    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    dataset_start: int
    """Offset of the first byte of the dataset."""


def read_meta(descriptor: int) -> FileMeta:
    """Read the meta group of an open file.

    Raises
    ------
    MalformedError
        It is no DICOM file, or names no transfer syntax.
    """
    size = _META_READ
    while True:
        head = os.pread(descriptor, size, 0)
        if head[128:_PREAMBLE] != b"DICM":
            raise MalformedError("no DICOM file: DICM is missing at byte 128")
        try:
            return _parse_meta(head)
        except TruncatedError as error:
            if len(head) < size or size >= _META_LIMIT:
                raise MalformedError(f"file meta group: {error}") from error
            size = _META_LIMIT


def _parse_meta(head: bytes) -> FileMeta:
    values: dict[int, str] = {}
    end = announced = _PREAMBLE
    for element in walk(head, EXPLICIT_LITTLE, start=_PREAMBLE, stop_before=0x00030000):
        raw = head[element.value : element.end]
        if element.tag == 0x00020000 and len(raw) == 4:
            announced = element.end + int.from_bytes(raw, "little")
        elif element.tag in (0x00020002, 0x00020003, 0x00020010):
            values[element.tag] = _text(raw)
        end = element.end
        # Group lengths of foreign files lie, so one is believed only where it fits; without it the
        # first bytes of a deflated dataset could pass for one more element.
        if end == announced and head[end : end + 2] != b"\2\0":
            break
    if not values.get(0x00020010):
        raise MalformedError("the file meta group names no transfer syntax")
    return FileMeta(
        transfer_syntax=values[0x00020010],
        sop_class_uid=values.get(0x00020002, ""),
        sop_instance_uid=values.get(0x00020003, ""),
        dataset_start=end,
    )


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
