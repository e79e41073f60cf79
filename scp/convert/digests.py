"""Digests that tell whether two received datasets are the same."""

import hashlib
import itertools
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scp.convert.attributes import NATIVE
from scp.convert.part10 import DicomFile, open_dicom, sha256_of, windows
from scp.convert.recode import swapped
from scp.convert.refusals import NotConvertibleError
from scp.elements import (
    IMPLICIT_LITTLE,
    MAX_DEPTH,
    PIXEL_DATA,
    UNDEFINED,
    Element,
    Encoding,
    items_of,
    walk,
)
from scp.errors import MalformedError, TruncatedError

_ITEM: Final = b"\xfe\xff\x00\xe0"
_FRAGMENTED: Final = (b"OB", b"OW")
_OFFSET_TABLES: Final = (0x7FE00001, 0x7FE00002)
"""Extended ones, which belong to the compressed form."""
_PIXELS: Final = frozenset((PIXEL_DATA, *_OFFSET_TABLES))
_LARGE: Final = 2**16
"""A longer value enters the normal form as its own digest, so that none is copied."""

_VALUE, _DIGEST, _SEQUENCE, _ITEM_BEGIN, _ITEM_END, _SEQUENCE_END = (
    bytes((code,)) for code in range(6)
)
_value_header: Final = struct.Struct("<cLQ").pack
_sequence_header: Final = struct.Struct("<cL").pack


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """SHA-256, in hexadecimal."""

    dataset: str
    """Of the dataset's bytes as received, after the file meta group."""
    normal: str
    """Of tags and values alone: equal for the same dataset in Implicit and Explicit VR, with defined
    or undefined lengths, with or without group lengths. The dataset's own where it cannot be read."""
    header: str = ""
    """As ``normal``, without the pixel data and its offset tables; empty where it cannot be read."""


def digest(path: Path, scratch: Path | None = None) -> Digests:
    """Both digests of a file's dataset.

    Parameters
    ----------
    scratch
        The folder where a deflated dataset is inflated; see :func:`scp.convert.part10.open_dicom`.

    Raises
    ------
    NotConvertibleError
        It is no DICOM file.
    """
    try:
        return digests_of(open_dicom(path, scratch=scratch), None)
    except NotConvertibleError:
        whole = dataset_sha256(path)
        return Digests(dataset=whole, normal=whole)


def dataset_sha256(path: Path) -> str:
    """Of the dataset's bytes as received, after the file meta group; raises as :func:`digest`."""
    return dataset_sha256_of(open_dicom(path, inflate=False))


def dataset_sha256_of(file: DicomFile) -> str:
    """Of the dataset's bytes as received, of a file that is open."""
    return sha256_of(file.whole[file.dataset_start :]).hexdigest()


def digests_of(
    file: DicomFile,
    elements: list[Element] | None,
    pixel_value_sha256: bytes | None = None,
    *,
    dataset_sha256: str = "",
) -> Digests:
    """As :func:`digest`, of a file that is open and perhaps walked.

    Parameters
    ----------
    pixel_value_sha256
        Of the whole value of the top-level pixel data, when the caller has it already.
    dataset_sha256
        Of the dataset, when the caller has it already.
    """
    dataset = dataset_sha256 or dataset_sha256_of(file)
    # Fragments mean nothing without their syntax, native words the same in each.
    syntax = "" if file.transfer_syntax in NATIVE else file.transfer_syntax
    normal = hashlib.sha256(syntax.encode() + b"\0")
    header = hashlib.sha256()
    try:
        for is_header, part in _parts(elements or file.walk()):
            form = normal_form(file.dataset, part, file.encoding, pixel_value_sha256)
            normal.update(form)
            if is_header:
                header.update(form)
    except (NotConvertibleError, MalformedError, TruncatedError):
        return Digests(dataset=dataset, normal=dataset)
    return Digests(dataset=dataset, normal=normal.hexdigest(), header=header.hexdigest())


def _parts(elements: list[Element]) -> Iterable[tuple[bool, list[Element]]]:
    """Runs of elements in their order, and whether they are of the header."""
    for is_pixels, run in itertools.groupby(elements, lambda each: each.tag in _PIXELS):
        yield not is_pixels, list(run)


class NativeValue:
    """The value of native pixel data in normal form, out of words that come one frame after the other."""

    def __init__(self) -> None:
        self._words = hashlib.sha256()
        self._length = 0
        self._start = bytearray()
        """All of it, as long as it is not large."""

    def add(self, words: memoryview) -> None:
        """Take the next words, little endian."""
        self._words.update(words)
        self._length += len(words)
        if self._length <= _LARGE:
            self._start += words

    @property
    def words_sha256(self) -> str:
        """Of the words, not padded; hexadecimal."""
        return self._words.hexdigest()

    def normal_form(self) -> bytes:
        """As :func:`normal_form` of the element, its value padded to even length (PS3.5 8.1.1)."""
        padding = b"\0" * (self._length % 2)
        length = self._length + len(padding)
        if length <= _LARGE:
            return _value_header(_VALUE, PIXEL_DATA, length) + self._start + padding
        padded = self._words.copy()
        padded.update(padding)
        return _value_header(_DIGEST, PIXEL_DATA, length) + padded.digest()


def normal_as_native(file: DicomFile, elements: list[Element], pixels: NativeValue) -> str:
    """The normal digest that a dataset would have if its pixel data were these native words.

    Of a copy that was compressed without another change to its header it is that of its source.

    Raises
    ------
    MalformedError, TruncatedError
        A sequence cannot be read.
    """
    before = [each for each in elements if each.tag < PIXEL_DATA and each.tag not in _OFFSET_TABLES]
    after = [each for each in elements if each.tag > PIXEL_DATA]
    normal = hashlib.sha256(b"\0")
    normal.update(normal_form(file.dataset, before, file.encoding))
    normal.update(pixels.normal_form())
    normal.update(normal_form(file.dataset, after, file.encoding))
    return normal.hexdigest()


def normal_without_pixels(file: DicomFile, elements: list[Element]) -> str:
    """A digest of tags and values of all but the pixel data, and what belongs to its compressed form.

    Raises
    ------
    MalformedError, TruncatedError
        A sequence cannot be read.
    """
    header = [each for each in elements if each.tag not in _PIXELS]
    return hashlib.sha256(normal_form(file.dataset, header, file.encoding)).hexdigest()


def normal_form(
    data: memoryview,
    elements: Iterable[Element],
    encoding: Encoding,
    pixel_value_sha256: bytes | None = None,
) -> bytes:
    """Tags and values in a form that does not depend on VRs, length forms and byte order.

    Large values appear as digests. Group lengths do not appear.

    Raises
    ------
    MalformedError, TruncatedError
        A sequence cannot be read.
    """
    pieces: list[bytes | memoryview] = []
    _normal(pieces, data, elements, encoding, 0, pixel_value_sha256)
    return b"".join(pieces)


def _normal(
    pieces: list[bytes | memoryview],
    data: memoryview,
    elements: Iterable[Element],
    encoding: Encoding,
    depth: int,
    pixel_value_sha256: bytes | None = None,
) -> None:
    if depth > MAX_DEPTH:
        raise MalformedError(f"sequences more than {MAX_DEPTH} deep")
    append, little = pieces.append, encoding.little
    for element in elements:
        tag, length = element.tag, element.length
        if tag & 0xFFFF == 0 and length == 4:
            continue
        value: bytes | memoryview = data[element.value : element.end]
        if length < 8 and little and element.vr != b"SQ":
            append(_value_header(_VALUE, tag, length))
            append(value)
            continue
        if tag != PIXEL_DATA and (
            element.vr == b"SQ"
            or (length >= 8 and value[0] == _ITEM[0] and bytes(value[:4]) == _ITEM)
            or (length == UNDEFINED and element.vr not in _FRAGMENTED)
        ):
            items = _items(data, element, encoding, depth)
            if items:
                pieces.append(_sequence_header(_SEQUENCE, tag))
                pieces += items
                pieces.append(_SEQUENCE_END)
                continue
            if items is not None:
                value = b""
        elif not little and len(value) <= _LARGE:
            value = swapped(element.vr, data[element.value : element.end])
        if len(value) > _LARGE:
            known = pixel_value_sha256 if tag == PIXEL_DATA and depth == 0 else None
            append(_value_header(_DIGEST, tag, len(value)))
            append(known or _large(element, memoryview(value), little=little))
        else:
            append(_value_header(_VALUE, tag, len(value)))
            append(value)


def _large(element: Element, value: memoryview, *, little: bool) -> bytes:
    """The digest of a long value in little-endian order, a window after the other."""
    if little:
        return sha256_of(value).digest()
    whole = hashlib.sha256()
    for window in windows(value):
        whole.update(swapped(element.vr, window))
    return whole.digest()


def _items(
    data: memoryview, element: Element, encoding: Encoding, depth: int
) -> list[bytes | memoryview] | None:
    """The items' normal form, or None where the value only looks like a sequence.

    Without VRs a private sequence cannot be told from other values, and behind VR UN it is written as
    without VRs; so whatever reads as items is taken for items, in every encoding alike.
    """
    is_known = element.vr == b"SQ" or element.length == UNDEFINED
    inside = encoding if element.vr == b"SQ" else IMPLICIT_LITTLE
    pieces: list[bytes | memoryview] = []
    try:
        for start, end in items_of(data, inside, element):
            item = data[start:end]
            pieces.append(_ITEM_BEGIN)
            _normal(pieces, item, walk(item, inside), inside, depth + 1)
            pieces.append(_ITEM_END)
    except (MalformedError, TruncatedError):
        if is_known:
            raise
        return None
    return pieces
