"""Has highdicom build the header of one Legacy Converted Enhanced object from placeholder frames.

highdicom sees only the attributes that it has a place for; what it would move to the Unassigned
sequences is copied there by us, byte for byte and in a fraction of the time.
"""

import traceback
import warnings
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from highdicom.legacy import (
    LegacyConvertedEnhancedCTImage,
    LegacyConvertedEnhancedMRImage,
    LegacyConvertedEnhancedPETImage,
)
from pydicom import uid
from pydicom.charset import convert_encodings
from pydicom.config import disable_value_validation
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag, TagType
from pydicom.valuerep import format_number_as_ds

from scp.convert.enhanced.eligible import INTERCEPT, SLOPE
from scp.convert.enhanced.groups import Volume
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.slices import SliceHeader, value_of
from scp.model import CollapseReason


class _NoTables:
    """highdicom would go through all frames again, for tables to look them up in."""

    def _build_luts(self) -> None: ...


class _CT(_NoTables, LegacyConvertedEnhancedCTImage): ...


class _MR(_NoTables, LegacyConvertedEnhancedMRImage): ...


class _PET(_NoTables, LegacyConvertedEnhancedPETImage): ...


_CLASSES: Final = {
    str(uid.CTImageStorage): _CT,
    str(uid.MRImageStorage): _MR,
    str(uid.PositronEmissionTomographyImageStorage): _PET,
}
_SOP_CLASS, _CHARACTER_SET, _SERIES_NUMBER = 0x00080016, 0x00080005, 0x00200011
_PIXEL_DATA: Final = BaseTag(0x7FE00010)
_CENTER, _WIDTH, _EXPLANATION = 0x00281050, 0x00281051, 0x00281055
_WINDOW: Final = frozenset((_CENTER, _WIDTH, _EXPLANATION))
_STORED, _SIGN = 0x00280101, 0x00280103
_TRIGGER_TIME: Final = 0x00181060
_REGION: Final = 0x00082218
_LATERALITY: Final = "FrameLaterality"
_SHARED: Final = "UnassignedSharedConvertedAttributesSequence"
_PER_FRAME: Final = "UnassignedPerFrameConvertedAttributesSequence"

WHOLE_RANGE: Final = "Whole range"
"""Explains a window that no source gives; Frame VOI LUT is mandatory (PS3.3 A.70.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The parts of an object on its way; repairs change them in place."""

    volume: Volume
    image: Dataset
    """The top level, without functional groups, file meta and pixel data."""
    shared: Dataset
    """The item of the Shared Functional Groups, without unassigned attributes."""
    frames: tuple[Dataset, ...]
    """The items of the Per-Frame Functional Groups, without unassigned attributes."""
    unassigned: frozenset[int]
    """Tags of the sources for which highdicom has no place."""


def build(volume: Volume, sop_instance_uid: str, series_instance_uid: str) -> Draft:
    """Have highdicom convert the volume; its own mistakes are still in the result.

    Where it cannot tell the side of a body part for which there is but one, it is asked again without the
    region that keeps it from looking.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.

    Raises
    ------
    NotCollapsedError
        highdicom refuses, or a Type 1 attribute is missing.
    """
    try:
        image, known = _converted(volume, sop_instance_uid, series_instance_uid, frozenset())
    except NotCollapsedError as error:
        # Beside an Anatomic Region highdicom does not look at Body Part Examined, which may say that
        # there is but one of it, like the brain.
        if error.detail != _LATERALITY:
            raise
        image, known = _converted(
            volume, sop_instance_uid, series_instance_uid, frozenset((_REGION,))
        )
    tags = {tag for header in volume.headers for tag in header.elements}
    # Where no window can be made of it, what a source says of windows stays beside the one that is made up.
    replaced = frozenset[int]() if all(map(_has_window, volume.headers)) else _WINDOW
    return _draft(volume, image, frozenset(tags - known | _unassigned_in(image) | replaced))


def _converted(
    volume: Volume, sop_instance_uid: str, series_instance_uid: str, withheld: frozenset[int]
) -> tuple[Dataset, Set[BaseTag]]:
    """What highdicom makes of the volume, and the tags that it was shown."""
    first = volume.headers[0]
    converter = _CLASSES[first.text(_SOP_CLASS)]
    numbers = first.numbers(_SERIES_NUMBER)
    placeholders = _Placeholders(first, withheld)
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            everything = placeholders.everything(volume.headers)
            sample = converter([everything], "2.25.1", 1, "2.25.2", 1, strict=True)
            known = everything.keys() - _unassigned_in(sample)
            image = converter(
                [placeholders.of(header, known) for header in volume.headers],
                series_instance_uid,
                max(1, int(numbers[0])) if numbers else 1,
                sop_instance_uid,
                1,  # Each volume is a series of its own.
                transfer_syntax_uid=uid.ExplicitVRLittleEndian,
                include_dimension_index=False,
                strict=True,
            )
        except Exception as error:  # highdicom raises whatever a value provokes
            raise _refusal(error) from error
    return image, known


def _draft(volume: Volume, image: Dataset, unassigned: frozenset[int]) -> Draft:
    shared = image.SharedFunctionalGroupsSequence[0]
    frames = tuple(image.PerFrameFunctionalGroupsSequence)
    top = Dataset({element.tag: element for element in image})
    for keyword in (
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "PixelData",
    ):
        delattr(top, keyword)
    for item, keyword in ((shared, _SHARED), *((frame, _PER_FRAME) for frame in frames)):
        if keyword in item:
            delattr(item, keyword)
    return Draft(volume=volume, image=top, shared=shared, frames=frames, unassigned=unassigned)


def _unassigned_in(image: Dataset) -> set[int]:
    items = [(image.SharedFunctionalGroupsSequence[0], _SHARED)]
    items += [(frame, _PER_FRAME) for frame in image.PerFrameFunctionalGroupsSequence]
    return {
        int(tag)
        for item, keyword in items
        for unassigned in item.get(keyword, ())
        for tag in unassigned.keys()  # noqa: SIM118 - a Dataset iterates over elements
    }


class _Placeholders:
    """Datasets that hold what highdicom needs of each slice; equal elements are one object."""

    def __init__(self, first: SliceHeader, withheld: frozenset[int]) -> None:
        # Its trigger time would move the acquisition by days (see repairs.correct_trigger_times).
        self._withheld = withheld | {_TRIGGER_TIME}
        self._encodings = convert_encodings(list(first.texts(_CHARACTER_SET)) or "iso8859")
        self._converted: dict[bytes, tuple[BaseTag, DataElement, str, Any]] = {}
        self._meta = FileMetaDataset()
        self._meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian

    def everything(self, headers: Iterable[SliceHeader]) -> Dataset:
        """One dataset with every standard attribute that any slice has."""
        union: dict[int, bytes] = {}
        for header in headers:
            for tag, element in header.elements.items():
                if tag not in union and not tag >> 16 & 1 and keyword_for_tag(tag):
                    union[tag] = element
        for tag in self._withheld:
            union.pop(tag, None)
        return self._dataset(union, {})

    def of(self, header: SliceHeader, known: Set[BaseTag]) -> Dataset:
        elements = {tag: element for tag, element in header.elements.items() if tag in known}
        return self._dataset(elements, {} if _has_window(header) else _whole_range(header))

    def _dataset(self, elements: dict[int, bytes], more: dict[str, str]) -> Dataset:
        converted = self._converted
        content: dict[BaseTag, DataElement | RawDataElement] = {}
        values: dict[str, Any] = {}
        for tag, element in elements.items():
            found = converted.get(element)
            if found is None:
                made = data_element(tag, element, self._encodings)
                # A sequence is told its dataset when it is asked for, so it stays with pydicom.
                keyword = "" if made.VR == "SQ" else keyword_for_tag(tag)
                found = converted[element] = (made.tag, made, keyword, made.value)
            content[found[0]] = found[1]
            if found[2]:
                values[found[2]] = found[3]
        content[_PIXEL_DATA] = DataElement(_PIXEL_DATA, "OW", b"\0\0")
        dataset = _Placeholder(content)
        for keyword, value in more.items():
            setattr(dataset, keyword, value)
            values[keyword] = getattr(dataset, keyword)
        dataset.file_meta = self._meta
        dataset.remember(values)
        return dataset


class _Placeholder(Dataset):
    """Answers by keyword at once: highdicom asks every slice for every attribute, several times."""

    def remember(self, values: dict[str, Any]) -> None:
        """Keep values of the elements by keyword, where Python looks before it asks pydicom."""
        self.__dict__.update(values)

    def __contains__(self, name: TagType) -> bool:
        return (name.__class__ is str and name in self.__dict__) or super().__contains__(name)


def data_element(tag: int, element: bytes, encodings: list[str]) -> DataElement:
    """A whole encoded element as pydicom sees it."""
    value = value_of(element)
    raw = RawDataElement(
        BaseTag(tag), element[4:6].decode(), len(value), value, 0, False, True, True
    )
    return convert_raw_data_element(raw, encoding=encodings)


def _has_window(header: SliceHeader) -> bool:
    centers, widths = header.numbers(_CENTER), header.numbers(_WIDTH)
    return len(centers) == len(widths) > 0


def _whole_range(header: SliceHeader) -> dict[str, str]:
    """A window over every value that the stored bits can express, in output units (PS3.3 C.11.2.1.2).

    highdicom makes one of stored values, which it does not mark as made up.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    stored, slope = header.short(_STORED) or 0, (header.numbers(SLOPE) or (1.0,))[0]
    intercept = (header.numbers(INTERCEPT) or (0.0,))[0]
    lowest = -(1 << stored - 1) if header.short(_SIGN) else 0
    ends = sorted((lowest * slope + intercept, (lowest + (1 << stored) - 1) * slope + intercept))
    return {
        "WindowCenter": format_number_as_ds((ends[0] + ends[1] + 1) / 2),
        "WindowWidth": format_number_as_ds(ends[1] - ends[0] + 1),
        "WindowCenterWidthExplanation": WHOLE_RANGE,
    }


def _refusal(error: Exception) -> NotCollapsedError:
    """Without the message where it may quote a value of the patient's."""
    if isinstance(error, AttributeError) and "required attribute" in str(error):
        keyword = str(error).partition("'")[2].partition("'")[0]
        return NotCollapsedError(CollapseReason.TYPE1_MISSING, keyword)
    if isinstance(error, RuntimeError) and "laterality" in str(error):
        return NotCollapsedError(CollapseReason.TYPE1_MISSING, _LATERALITY)
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{PurePath(at.filename).name}:{at.lineno}"
    return NotCollapsedError(
        CollapseReason.LIBRARY_REFUSED, f"{type(error).__name__} in {at.name} ({where})"
    )
