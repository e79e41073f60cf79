"""What highdicom is shown of each slice, and how it is kept from asking all of them for the same again.

highdicom goes through every slice for every attribute, several times, first once more for where the slices
lie. Here it is known already what they have in common, because equal elements of a series are one object,
and what highdicom has no place for is not copied by it. Seen with highdicom 0.28.2; a test compares the
headers with those that it makes by itself.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from highdicom.legacy import sop
from pydicom import uid
from pydicom.charset import convert_encodings
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag, TagType
from pydicom.valuerep import format_number_as_ds

from scp.convert.enhanced.eligible import INTERCEPT, SLOPE
from scp.convert.enhanced.slices import SliceHeader, value_of

WHOLE_RANGE: Final = "Whole range"
"""Explains a window that no source gives; Frame VOI LUT is mandatory (PS3.3 A.70.4)."""

_CHARACTER_SET: Final = 0x00080005
_CENTER, _WIDTH, _EXPLANATION = 0x00281050, 0x00281051, 0x00281055
_WINDOW: Final = (_CENTER, _WIDTH, _EXPLANATION)
_STORED, _SIGN = 0x00280101, 0x00280103
_PIXELS: Final = DataElement(BaseTag(0x7FE00010), "OW", b"\0\0")


class _Placeholder(Dataset):
    """A slice's attributes by keyword, without what pydicom does to find one."""

    def __contains__(self, name: TagType) -> bool:
        if name.__class__ is str and (name in self.__dict__ or name in self.__dict__["varying"]):
            return True
        return super().__contains__(name)

    def __getattr__(self, name: str) -> Any:
        found = self.__dict__.get("varying", {}).get(name)
        if found is None:
            return super().__getattr__(name)
        # Where Python looks the next time, before it asks here.
        value = self.__dict__[name] = self.__dict__["element"](*found).value
        return value


class Placeholders:
    """Datasets that hold what highdicom needs of each slice; equal elements are one object.

    Parameters
    ----------
    withheld
        Tags that it is not shown.
    """

    def __init__(self, headers: Sequence[SliceHeader], withheld: frozenset[int]) -> None:
        self._encodings = convert_encodings(list(headers[0].texts(_CHARACTER_SET)) or "iso8859")
        self._made: dict[bytes, DataElement] = {}
        present = {tag for header in headers for tag in header.elements} - withheld
        self._keywords = {
            tag: keyword
            for tag in present
            if not tag >> 16 & 1 and (keyword := keyword_for_tag(tag))
        }
        self.shown = frozenset(self._keywords)
        """The tags of all of them."""
        windows: list[dict[str, str]] = [
            {} if _has_window(header) else _whole_range(header) for header in headers
        ]
        self.replaced = frozenset[int](_WINDOW if any(windows) else ())
        """Tags of what is not shown everywhere as it was: it stays beside the window that is made up."""
        first, others = headers[0].elements, [header.elements for header in headers[1:]]
        self._common = frozenset(
            tag
            for tag in self.shown
            if tag in first
            and not (tag in _WINDOW and any(windows))
            and all(other.get(tag) == first[tag] for other in others)
        )
        common = {BaseTag(tag): self._element(tag, first[tag]) for tag in self._common}
        common[_PIXELS.tag] = _PIXELS
        self._content: dict[BaseTag, DataElement | RawDataElement] = dict(common)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        # Python finds it there at once, as what follows.
        meta.__dict__["TransferSyntaxUID"] = meta.TransferSyntaxUID
        self._values: dict[str, Any] = {
            keyword_for_tag(tag): element.value
            for tag, element in common.items()
            # A sequence is told its dataset when it is asked for, so it stays with pydicom.
            if element.VR != "SQ"
        }
        self._values |= {
            "file_meta": meta,
            "element": self._element,
            "common": frozenset(map(keyword_for_tag, common)),
        }
        self.datasets = list(map(self._dataset, headers, windows))

    def _dataset(self, header: SliceHeader, window: dict[str, str]) -> Dataset:
        content, varying = self._content.copy(), dict[str, tuple[int, bytes]]()
        for tag, element in header.elements.items():
            if tag in self._common or tag not in self._keywords:
                continue
            if element[4:6] == b"SQ":
                content[BaseTag(tag)] = self._element(tag, element)
            else:
                content[BaseTag(tag)] = _raw(tag, element)
                varying[self._keywords[tag]] = (tag, element)
        dataset = _Placeholder(content)
        dataset.__dict__.update(self._values, varying=varying)
        for keyword, value in window.items():
            varying.pop(keyword, None)
            setattr(dataset, keyword, value)
            dataset.__dict__[keyword] = dataset[keyword].value
        return dataset

    def _element(self, tag: int, element: bytes) -> DataElement:
        made = self._made.get(element)
        if made is None:
            made = self._made[element] = data_element(tag, element, self._encodings)
        return made


class Run(sop._LegacyConversionRunner):
    """highdicom's conversion of :class:`Placeholders` to a header."""

    @property
    def unused(self) -> frozenset[int]:
        """Tags of what was shown to highdicom and has no place in the header."""
        return frozenset(filter(None, map(tag_for_keyword, self._unused_keywords)))

    def _find_shared_and_perframe_attributes(self) -> tuple[dict[str, bool], dict[BaseTag, bool]]:
        """By keyword whether all slices say the same, and the same for private elements: none."""
        slices: list[Any] = self._legacy_datasets
        found = dict.fromkeys(slices[0].common, True)
        for keyword in map(keyword_for_tag, set().union(*(each.keys() for each in slices))):
            if keyword not in found:
                found[keyword] = all(keyword in each for each in slices) and all(
                    getattr(each, keyword) == getattr(slices[0], keyword) for each in slices
                )
        return found, {}

    def _find_dimension_index(
        self, include_dimension_index: bool | None, require_volume: bool
    ) -> None:
        """The order of the frames and their distance are known, and written by the repairs."""
        self._volume_spacing = None

    def _add_unassigned_attributes(self) -> None:
        """They are copied as they were written; see :mod:`scp.convert.enhanced.unassigned`."""


@contextlib.contextmanager
def shortened() -> Iterator[list[Run]]:
    """Have highdicom convert by :class:`Run`, for one thread at a time; the list holds what ran."""
    runs: list[Run] = []

    def run(*args: Any, **kwargs: Any) -> None:
        runs.append(Run(*args, **kwargs))

    theirs = sop._LegacyConversionRunner
    sop._LegacyConversionRunner = run  # type: ignore[assignment,misc]
    try:
        yield runs
    finally:
        sop._LegacyConversionRunner = theirs  # type: ignore[misc]


def data_element(tag: int, element: bytes, encodings: list[str]) -> DataElement:
    """A whole encoded element as pydicom sees it."""
    return convert_raw_data_element(_raw(tag, element), encoding=encodings)


def _raw(tag: int, element: bytes) -> RawDataElement:
    value = value_of(element)
    return RawDataElement(
        BaseTag(tag), element[4:6].decode(), len(value), value, 0, False, True, True
    )


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
