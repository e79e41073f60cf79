"""Reads from an instance the few attributes that the rules ask for, and nothing else."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom.charset import decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR, private_dictionary_VR

from scp.config.match_keys import PrivateTag, parse_key
from scp.config.schema import Rule
from scp.elements import Buffer, Element
from scp.errors import MalformedError, TruncatedError
from scp.header import FileHeader, open_header

_CHARACTER_SET: Final = 0x00080005
_PIXEL_REPRESENTATION: Final = 0x00280103
_DELIMITERS: Final = frozenset(b"\\^=\n\r\t\f")
"""Each ends an escape sequence's effect (PS3.5 6.1.2.5.3)."""

_MOST_BYTES: Final = 2 * 2**20
_MOST_ELEMENTS: Final = 20_000
"""What is looked through for the rules, by the one thread that everything waits for."""

_ENCODED_TEXT: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
"""Which the specific character set concerns (PS3.5 6.1.2.3)."""
_PLAIN_TEXT: Final = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"))
_ONE_VALUE: Final = frozenset(("LT", "ST", "UT", "UR"))
"""In which a backslash is a character."""
_BINARY_NUMBERS: Final = {
    "US": "H",
    "SS": "h",
    "UL": "L",
    "SL": "l",
    "UV": "Q",
    "SV": "q",
    "FL": "f",
    "FD": "d",
}
_NUMBERS: Final = frozenset(("DS", "IS", *_BINARY_NUMBERS))


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute that is there."""

    values: tuple[str, ...]
    """As text, padding stripped; none where it is empty or has no text."""
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes found, by match key; comparable, so that a series can be split by them."""

    found: tuple[tuple[str, Attribute], ...] = ()
    """In the order of the keys."""
    is_readable: bool = True
    """False where the dataset could not be read; nothing is found then."""

    def get(self, key: str) -> Attribute | None:
        """None: absent."""
        for name, attribute in self.found:
            if name == key:
                return attribute
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to read of each instance."""

    public: dict[int, str] = field(default_factory=dict)
    """Match key by tag."""
    private: dict[str, PrivateTag] = field(default_factory=dict)
    stop_before: int = 0
    """Nothing from this tag on is of interest."""


def wanted(rules: Iterable[Rule]) -> Wanted:
    """Every attribute that a rule matches on; the facts that are no attributes are left out."""
    public: dict[int, str] = {}
    private: dict[str, PrivateTag] = {}
    for key in sorted({key for rule in rules for key in rule.match}):
        tag = parse_key(key)
        if isinstance(tag, PrivateTag):
            private[key] = tag
        elif tag is not None:
            public[tag.tag] = key
    last = max((*public, *(tag.group << 16 | 0xFFFF for tag in private.values())), default=-1)
    return Wanted(public=public, private=private, stop_before=last + 1)


def read_attributes(source: Path | Buffer, wanted: Wanted) -> Attributes:
    """Read what is wanted of a DICOM file, or of the bytes of one; any content has an answer.

    Sequences are not looked into. Where an element is there twice, the first counts.
    """
    if not wanted.stop_before:
        return Attributes()
    try:
        with open_header(source, _MOST_BYTES) as header:
            return _Extraction(header, wanted).run()
    except (MalformedError, TruncatedError):
        return Attributes(is_readable=False)


class _Extraction:
    def __init__(self, header: FileHeader, wanted: Wanted) -> None:
        self._header = header
        self._wanted = wanted
        self._found: dict[str, Attribute] = {}
        self._encodings: list[str] = ["iso8859"]
        self._is_signed = False
        self._private_groups = {tag.group for tag in wanted.private.values()}
        self._blocks: dict[tuple[int, int], str] = {}
        """Private creator by group and block."""

    def run(self) -> Attributes:
        public, private_groups = self._wanted.public, self._private_groups
        for number, element in enumerate(self._header.elements(self._wanted.stop_before)):
            if number == _MOST_ELEMENTS:
                raise MalformedError(f"more than {_MOST_ELEMENTS} elements before what is wanted")
            tag = element.tag
            if tag in public:
                self._keep(public[tag], element, _public_vr(element, self._is_signed))
            elif tag >> 16 in private_groups:
                self._visit_private(element)
            if tag == _CHARACTER_SET:
                self._encodings = _encodings(self._text(element, "CS"))
            elif tag == _PIXEL_REPRESENTATION:
                self._is_signed = self._header.value(element, 2) in (b"\1\0", b"\0\1")
        return Attributes(tuple(sorted(self._found.items())))

    def _visit_private(self, element: Element) -> None:
        group, number = element.tag >> 16, element.tag & 0xFFFF
        block = number >> 8
        if number < 0x0100:
            if number >= 0x0010:
                self._blocks[group, number] = self._text(element, "LO").strip(" \0")
            return
        creator = self._blocks.get((group, block))
        for key, tag in self._wanted.private.items():
            if (tag.group, tag.element, tag.creator) == (group, number & 0xFF, creator):
                self._keep(key, element, _private_vr(element, tag))

    def _keep(self, key: str, element: Element, vr: str) -> None:
        if key not in self._found:
            self._found[key] = Attribute(self._values(element, vr), vr in _NUMBERS)

    def _values(self, element: Element, vr: str) -> tuple[str, ...]:
        if element.is_undefined_length:
            return ()
        if vr in _ENCODED_TEXT or vr in _PLAIN_TEXT:
            text = self._text(element, vr)
            parts = [text] if vr in _ONE_VALUE else text.split("\\")
            values = tuple(part.strip(" \0\r\n\t") for part in parts)
            return () if values == ("",) else values
        if vr == "AT":
            pairs = self._unpack(element, "H")
            return tuple(
                f"{group:04X},{number:04X}"
                for group, number in zip(pairs[::2], pairs[1::2], strict=False)
            )
        if vr == "FL":
            # Seven digits are what a single has; more would show 0.1 as 0.10000000149011612.
            return tuple(f"{number:.7g}" for number in self._unpack(element, "f"))
        if vr in _BINARY_NUMBERS:
            return tuple(str(number) for number in self._unpack(element, _BINARY_NUMBERS[vr]))
        return ()

    def _unpack(self, element: Element, letter: str) -> tuple[float, ...]:
        order = self._header.encoding.order
        raw = self._header.value(element)
        count = len(raw) // struct.calcsize(order + letter)
        return struct.unpack_from(f"{order}{count}{letter}", raw)

    def _text(self, element: Element, vr: str) -> str:
        raw = self._header.value(element)
        if vr not in _ENCODED_TEXT:
            return raw.decode("latin-1")
        return _decode(raw, self._encodings)


def _public_vr(element: Element, is_signed: bool) -> str:
    vr = element.vr.decode("ascii")
    if not vr or vr == "UN":
        vr = dictionary_VR(element.tag)
    return ("SS" if is_signed else "US") if vr.startswith("US or") else vr


def _private_vr(element: Element, tag: PrivateTag) -> str:
    vr = element.vr.decode("ascii")
    if vr and vr != "UN":
        return vr
    try:
        vr = private_dictionary_VR(element.tag, tag.creator)
    except KeyError:
        # Most private attributes that a site can write into a rule are text.
        return "LO"
    return "US" if vr.startswith("US or") else vr


def _encodings(character_sets: str) -> list[str]:
    """Python's names; an unknown character set reads as Latin-1, which fails on nothing."""
    terms = [term.strip(" \0") for term in character_sets.split("\\")]
    return [python_encoding.get(term, "iso8859") for term in terms]


def _decode(raw: bytes, encodings: Sequence[str]) -> str:
    if 0x1B in raw:
        try:
            return decode_bytes(raw, encodings, set(_DELIMITERS))
        except (UnicodeError, LookupError, UserWarning):
            # pydicom warns of what it cannot decode, and a warning may have been made an error.
            pass
    return raw.decode(encodings[0], errors="replace")
