"""Has highdicom build the header of one Legacy Converted Enhanced object from placeholder frames.

highdicom sees only the attributes that it has a place for; what it would move to the Unassigned
sequences is copied there by us, byte for byte and in a fraction of the time.
"""

import traceback
import warnings
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from highdicom.legacy import (
    LegacyConvertedEnhancedCTImage,
    LegacyConvertedEnhancedMRImage,
    LegacyConvertedEnhancedPETImage,
)
from pydicom import uid
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from scp.convert.enhanced.groups import Volume
from scp.convert.enhanced.placeholders import Placeholders, shortened
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.withheld import PATIENT_SEX, withheld
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
_SOP_CLASS, _SERIES_NUMBER = 0x00080016, 0x00200011
_REGION: Final = 0x00082218
_LATERALITY: Final = "FrameLaterality"


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
    return _draft(volume, image, frozenset(tags - known - {PATIENT_SEX}))


def _converted(
    volume: Volume, sop_instance_uid: str, series_instance_uid: str, hidden: frozenset[int]
) -> tuple[Dataset, frozenset[int]]:
    """What highdicom makes of the volume, and the tags that it has a place for."""
    first = volume.headers[0]
    converter = _CLASSES[first.text(_SOP_CLASS)]
    numbers = first.numbers(_SERIES_NUMBER)
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            placeholders = Placeholders(volume.headers, hidden | withheld(volume.headers))
            with shortened() as runs:
                image = converter(
                    placeholders.datasets,
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
    return image, placeholders.shown - runs[0].unused - placeholders.replaced


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
    return Draft(volume=volume, image=top, shared=shared, frames=frames, unassigned=unassigned)


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
