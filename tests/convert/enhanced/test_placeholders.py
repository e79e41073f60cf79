"""highdicom is asked in fewer words, and answers what it answers to the datasets themselves."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from highdicom.legacy import (
    LegacyConvertedEnhancedCTImage,
    LegacyConvertedEnhancedMRImage,
    LegacyConvertedEnhancedPETImage,
    sop,
)
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian

from scp.convert.enhanced.build import build
from scp.convert.enhanced.placeholders import shortened
from tests.convert.enhanced.series import Series, ct, mr, one_volume, pet

_CLASSES: dict[str, Any] = {
    "CT": LegacyConvertedEnhancedCTImage,
    "MR": LegacyConvertedEnhancedMRImage,
    "PT": LegacyConvertedEnhancedPETImage,
}
_UNASSIGNED = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
_OTHERWISE = frozenset(
    (
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "PixelData",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "ReferencedSeriesSequence",  # in the order of a set
    )
)


def _reference(width: int) -> list[Dataset]:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    item.ReferencedSOPInstanceUID = f"2.25.{width}"
    return [item]


VARIETIES: dict[str, Callable[[], Series]] = {
    "CT": ct,
    "MR": mr,
    "PET": lambda: pet(WindowCenter="100", WindowWidth="200"),
    "numbers that are equal but written otherwise": lambda: ct(
        RescaleSlope=lambda index: ("1", "1.0", "1.00")[index % 3],
        SliceThickness=lambda index: ("1.25", "1.250")[index % 2],
    ),
    "all that may vary": lambda: ct(
        WindowCenter=lambda index: [str(40 + index), "-600"],
        RescaleIntercept=lambda index: str(-1024 - index),
        AcquisitionNumber=lambda index: str(index + 1),
        ImageComments=lambda index: f"slice {index}",
        LargestImagePixelValue=lambda index: 2000 + index,
        ReferencedImageSequence=lambda index: _reference(index + 1),
        ImageType=lambda index: ["ORIGINAL", "PRIMARY", "AXIAL"],
    ),
    "what some slices lack": lambda: mr(
        ImageComments=lambda index: "here" if index % 2 else None,
        ReferencedImageSequence=lambda index: _reference(index + 1) if index else None,
        ContrastBolusAgent=lambda index: "gadolinium" if index > 1 else None,
    ),
    "no body part": lambda: mr(BodyPartExamined=None, AcquisitionTime=None),
    "other characters": lambda: ct(
        SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jörg", ImageComments="größer"
    ),
}


@pytest.mark.parametrize("variety", VARIETIES.values(), ids=VARIETIES)
def test_the_header_is_what_highdicom_makes_of_the_datasets(
    tmp_path: Path, variety: Callable[[], Series]
) -> None:
    series = variety()
    volume = one_volume(series, tmp_path)
    order = [header.text(0x00080018) for header in volume.headers]
    series.sort(key=lambda dataset: order.index(dataset.SOPInstanceUID))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = _CLASSES[series[0].Modality](
            series,
            "2.25.1",
            max(1, series[0].SeriesNumber),
            "2.25.2",
            1,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            include_dimension_index=False,
            strict=True,
        )

    draft = build(volume, "2.25.2", "2.25.1")

    homeless = set[int]()
    shared = theirs.SharedFunctionalGroupsSequence[0]
    frames = list(theirs.PerFrameFunctionalGroupsSequence)
    for group, keyword in ((shared, _UNASSIGNED[0]), *((each, _UNASSIGNED[1]) for each in frames)):
        for item in group.get(keyword, ()):
            homeless |= set(item.keys())
        if keyword in group:
            delattr(group, keyword)
    # Distances are worked out by the repairs.
    for measures in shared.get("PixelMeasuresSequence", ()):
        measures.pop("SpacingBetweenSlices", None)
    assert _plain(draft.shared) == _plain(shared)
    assert [_plain(each) for each in draft.frames] == [_plain(each) for each in frames]
    for equipment in (
        *draft.image.ContributingEquipmentSequence,
        *theirs.ContributingEquipmentSequence,
    ):
        equipment.pop("ContributionDateTime", None)
    assert _plain(draft.image) == _plain(theirs)
    assert homeless <= draft.unassigned
    shown = {element.tag for dataset in series for element in dataset}
    assert draft.unassigned & shown == homeless | ({0x00181060} & shown)


def test_highdicom_is_left_as_it_was() -> None:
    before = sop._LegacyConversionRunner

    with shortened():
        during = sop._LegacyConversionRunner
    with pytest.raises(ZeroDivisionError), shortened():
        raise ZeroDivisionError

    assert during is not before
    assert sop._LegacyConversionRunner is before


def _plain(dataset: Dataset) -> dict[str, Any]:
    """As JSON, without what is not taken from highdicom or differs at every run."""
    left_out = {f"{tag_for_keyword(keyword):08X}" for keyword in _OTHERWISE}
    found = {tag: value for tag, value in dataset.to_json_dict().items() if tag not in left_out}
    return found
