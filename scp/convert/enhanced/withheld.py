"""What highdicom is not shown, because a value that it does not expect would cost the whole series."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset
from pydicom.valuerep import DT

from scp.convert.enhanced.eligible import ACQUISITION_DATE_TIME
from scp.convert.enhanced.placeholders import data_element
from scp.convert.enhanced.slices import SliceHeader, texts_of

_TRIGGER_TIME: Final = 0x00181060
_ASPECT_RATIO: Final = 0x00280034
_EVENT: Final = 0x00083010
_SIGN: Final = 0x00280103
_PADDING: Final = (0x00280120, 0x00280121)
_PIXEL_VALUES: Final = (0x00280106, 0x00280107, *_PADDING)
_ACQUISITION_NUMBER: Final = 0x00200012
_BODY_PART: Final = 0x00180015
PATIENT_SEX: Final = 0x00100040

type Items = Sequence[Dataset]


def withheld(headers: Sequence[SliceHeader]) -> frozenset[int]:
    """Tags of optional attributes that it would misread, or raise at; they are kept as unassigned ones.

    Trigger Time would move the acquisition by days (see ``repairs.correct_trigger_times``). Pixel Aspect
    Ratio may not stand beside Pixel Spacing (PS3.3 C.7.6.3.1.7), which is always there; an Irradiation
    Event may not be without its UID in a group of its own. The others it puts into places where their
    values do not fit, or looks into without finding what it expects. Patient's Sex alone stands at the top
    level all the same (see ``repairs.keep_sex``).

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    tags = {_TRIGGER_TIME, _ASPECT_RATIO, *_no_numbers(headers)}
    if has_other_sex(headers[0]):
        tags.add(PATIENT_SEX)
    if any(_EVENT in header.elements and not header.text(_EVENT) for header in headers):
        tags.add(_EVENT)
    if not all(map(_has_fitting_number, headers)):
        tags.add(_ACQUISITION_NUMBER)
    if any(len(header.texts(_BODY_PART)) > 1 for header in headers):
        tags.add(_BODY_PART)
    if len(set(map(_has_zone, headers))) > 1:
        tags.add(ACQUISITION_DATE_TIME)  # It would compare times with and without a zone.
    tags |= {tag for tag in _PIXEL_VALUES if not all(_has_fitting(tag, h) for h in headers)}
    if tags & set(_PADDING):
        tags |= set(_PADDING)  # A limit says nothing without the value.
    for tag, is_usable in _SEQUENCES.items():
        written = {header.elements[tag] for header in headers if tag in header.elements}
        if not all(
            element[4:6] == b"SQ" and is_usable(_items(tag, element)) for element in written
        ):
            tags.add(tag)
    return frozenset(tags)


def has_other_sex(header: SliceHeader) -> bool:
    """Whether there is another than male, female and other (PS3.3 C.7.1.1), as for an unknown one."""
    return header.text(PATIENT_SEX) not in ("", "M", "F", "O")


def _no_numbers(headers: Sequence[SliceHeader]) -> list[int]:
    """Tags of texts that should be numbers and are none, like a weight with a comma.

    Where slices differ in one, it asks none of them for it.
    """
    return [
        tag
        for tag, element in headers[0].elements.items()
        if element[4:6] in (b"DS", b"IS")
        and not holds_numbers(element)
        and all(header.elements.get(tag) == element for header in headers)
    ]


def holds_numbers(element: bytes) -> bool:
    """Whether the values of a DS or IS element, those that are not empty, are such numbers to pydicom."""
    try:
        numbers = [float(text) for text in texts_of(element) if text]
    except ValueError:
        return False
    return element[4:6] == b"DS" or all(map(math.isfinite, numbers))


def _has_zone(header: SliceHeader) -> bool:
    text = header.text(ACQUISITION_DATE_TIME)
    return bool(text) and DT(text).tzinfo is not None


def _has_fitting_number(header: SliceHeader) -> bool:
    """Whether the number of the acquisition, a text, fits into the two bytes of a frame's."""
    numbers = header.numbers(_ACQUISITION_NUMBER)
    if not header.text(_ACQUISITION_NUMBER):
        return True
    return len(numbers) == 1 and numbers[0] in range(2**16)


def _has_fitting(tag: int, header: SliceHeader) -> bool:
    """Whether a pixel value is one that pixels can have, as far as the VR is concerned."""
    element = header.elements.get(tag)
    if element is None:
        return True
    numbers = header.numbers(tag)
    is_one = element[4:6] in (b"US", b"SS") and len(numbers) == 1
    return is_one and (bool(header.short(_SIGN)) or numbers[0] >= 0)


def _items(tag: int, element: bytes) -> Items:
    # Only UIDs and codes are looked at, which every character set writes alike.
    found: Items = data_element(tag, element, convert_encodings("iso8859")).value
    return found


def _name_series(items: Items) -> bool:
    """Whether every item names its series, and every instance in it (PS3.3 C.12.2)."""
    return all(
        series.get("SeriesInstanceUID") or not series.get("ReferencedInstanceSequence")
        for series in items
    ) and all(
        instance.get("ReferencedSOPClassUID") and instance.get("ReferencedSOPInstanceUID")
        for series in items
        for instance in series.get("ReferencedInstanceSequence") or ()
    )


def _name_studies(items: Items) -> bool:
    return all(
        study.get("StudyInstanceUID") and _name_series(study.get("ReferencedSeriesSequence") or ())
        for study in items
    )


def _are_coded(modifiers: str) -> Callable[[Items], bool]:
    """Whether there is a part of the body, and what modifies it, if anything, has a code."""

    def are_coded(items: Items) -> bool:
        return len(items) > 0 and all(
            item.get("CodeMeaning")
            and (
                modifiers not in item
                or any(code.get("CodeValue") for code in item[modifiers].value[:1])
            )
            for item in items
        )

    return are_coded


_SEQUENCES: Final[dict[int, Callable[[Items], bool]]] = {
    0x00081115: _name_series,
    0x00081200: _name_studies,
    0x00082218: _are_coded("AnatomicRegionModifierSequence"),
    0x00082228: _are_coded("PrimaryAnatomicStructureModifierSequence"),
}
