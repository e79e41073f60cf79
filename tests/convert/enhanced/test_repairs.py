"""Each mistake of highdicom: seen in the library itself, and put right here.

Every test looks at the library first. When one fails there, a newer highdicom has put its mistake right,
and the repair can go.
"""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from scp.convert.enhanced import build, eligible, placeholders, repairs, withheld, writer
from scp.convert.enhanced.placeholders import WHOLE_RANGE
from scp.convert.enhanced.restore import restore
from scp.convert.enhanced.unassigned import unassigned as keep_unassigned
from scp.convert.refusals import NotConvertibleError
from scp.model import CollapseReason
from tests.convert.enhanced.library import errors_of, highdicom_alone
from tests.convert.enhanced.series import (
    Series,
    collapsed,
    collapsed_series,
    ct,
    eight_bits,
    group,
    mr,
    opened,
    pet,
    repeated,
    slices,
    source_uids,
    split,
    unassigned,
)

OURS = (repairs.repair, repairs.add_converter)
REPAIRS: list[Callable[..., Any]] = [
    *(
        function
        for name, function in inspect.getmembers(repairs, inspect.isfunction)
        if inspect.getmodule(function) is repairs and name[0] != "_" and function not in OURS
    ),
    build.build, placeholders._whole_range, eligible.refuse_ineligible, keep_unassigned, writer.write,
    withheld.withheld,
]  # fmt: skip


@pytest.mark.parametrize("repair", REPAIRS, ids=lambda repair: repair.__qualname__)
def test_every_repair_says_which_highdicom_needs_it(repair: Callable[..., Any]) -> None:
    """Another version is installed: do its tests still pass? Then the line is to be carried on."""
    said = re.search(
        r"^ *Needed with highdicom (\S+) to (\S+): no release mends it\.$",
        repair.__doc__ or "",
        re.MULTILINE,
    )

    assert said is not None
    first, last, installed = (
        tuple(map(int, each.split("."))) for each in (*said.groups(), version("highdicom"))
    )
    assert first <= installed <= last


def test_frames_of_odd_length_are_not_joined_with_their_padding(tmp_path: Path) -> None:
    series = eight_bits(3, 3, 3)

    assert len(highdicom_alone(series).PixelData) == 30  # 27 are right
    assert opened(eight_bits(4, 33, 35), tmp_path).pixel_array.shape == (4, 33, 35)


@pytest.mark.parametrize("lossy", ["00", "01"])
def test_the_lossy_history_stays_at_the_top(tmp_path: Path, lossy: str) -> None:
    series = ct(
        LossyImageCompression=lossy,
        LossyImageCompressionRatio=lambda i: ["4", f"{10 + i}"],
        LossyImageCompressionMethod=["ISO_10918_1", "ISO_15444_1"],
    )

    assert "LossyImageCompression" not in highdicom_alone(series)
    image = opened(series, tmp_path)
    assert image.LossyImageCompression == lossy
    assert image.LossyImageCompressionRatio == [4, 12]
    assert image.LossyImageCompressionMethod == ["ISO_10918_1", "ISO_15444_1"]
    assert {str(unassigned(image, frame).LossyImageCompressionRatio[1]) for frame in range(5)} == {
        "10", "11", "12", "13", "14",
    }  # fmt: skip


def test_trigger_times_count_in_milliseconds(tmp_path: Path) -> None:
    series = repeated(
        lambda: mr(3),
        2,
        TriggerTime=lambda t, _: 20 + 40.5 * t,
        AcquisitionTime=lambda *_: "101010",
    )

    theirs = highdicom_alone(series).PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0]
    assert theirs.FrameAcquisitionDateTime.day == 25  # 20 days later
    image = opened(series, tmp_path)
    times = [
        group(image, frame, "FrameContentSequence").FrameAcquisitionDateTime for frame in (0, 3)
    ]
    assert times == ["20260105101010.020000", "20260105101010.060500"]
    assert [float(unassigned(image, frame).TriggerTime) for frame in (0, 3)] == [20.0, 60.5]


def test_trigger_times_are_not_added_to_acquisition_times_of_their_own(tmp_path: Path) -> None:
    image = opened(mr(TriggerTime=lambda i: 20 + i), tmp_path)

    times = {
        group(image, frame, "FrameContentSequence").FrameAcquisitionDateTime for frame in range(5)
    }
    assert times == {f"20260105101215.0{i}0000" for i in range(1, 5)} | {"20260105101215"}


def test_what_the_library_drops_is_kept(tmp_path: Path) -> None:
    series = ct(SeriesDescription=lambda i: f"part {i}", ImagesInAcquisition=5)
    for dataset in series:
        dataset.add_new(0x00080009, "LO", "a public element that no dictionary knows")
        dataset.add_new(0x00510010, "LO", "A BLOCK THAT IS RESERVED")

    theirs = unassigned(highdicom_alone(series), 0)
    for tag in (0x00080008, 0x00080009, 0x0008103E, 0x00080032, 0x00201002, 0x00510010):
        assert tag not in theirs
        assert tag in unassigned(opened(series, tmp_path / hex(tag)), 0)


def test_image_type_keeps_all_its_values(tmp_path: Path) -> None:
    series = ct(ImageType=["DERIVED", "SECONDARY", "AXIAL", "FILTERED", "MORE"])

    theirs = highdicom_alone(series)
    assert theirs.ImageType == ["DERIVED", "PRIMARY", "AXIAL", "NONE"]
    assert "ImageType" not in unassigned(theirs, 0)
    assert unassigned(opened(series, tmp_path), 0).ImageType == series[0].ImageType


def test_nothing_is_taken_from_the_clock(tmp_path: Path) -> None:
    series = ct(InstanceCreationTime=lambda i: f"10153{i}")

    assert highdicom_alone(series).InstanceCreationDate != "20260105"
    image = opened(series, tmp_path)
    assert image.InstanceCreationDate + image.InstanceCreationTime == "20260105101534"
    for equipment in image.ContributingEquipmentSequence:
        assert "ContributionDateTime" not in equipment


def test_a_creation_that_no_source_tells_is_not_told(tmp_path: Path) -> None:
    image = opened(ct(InstanceCreationDate=None), tmp_path)

    assert "InstanceCreationDate" not in image


def test_references_are_sorted(tmp_path: Path) -> None:
    program = (
        "from tests.convert.enhanced.library import errors_of, highdicom_alone;"
        "from tests.convert.enhanced.series import ct;"
        "print([i.ReferencedSOPInstanceUID[-4:] for i in"
        " highdicom_alone(ct(9)).ReferencedSeriesSequence[0].ReferencedInstanceSequence])"
    )
    orders = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(orders) == 2
    (references,) = opened(ct(9), tmp_path).ReferencedSeriesSequence
    uids = [item.ReferencedSOPInstanceUID for item in references.ReferencedInstanceSequence]
    assert uids == sorted(uids)
    assert len(uids) == 9


@pytest.mark.parametrize(
    ("absent", "expected"),
    [
        ([], "20260104 101211"),
        (["Content"], "20260103 101221"),
        (["Content", "Acquisition"], "20260102 101231"),
        (["Content", "Acquisition", "Series"], "20260101 101241"),
    ],
)
def test_content_date_is_the_earliest_of_the_best_kind(
    tmp_path: Path, absent: list[str], expected: str
) -> None:
    kinds = {"Content": 4, "Acquisition": 3, "Series": 2, "Study": 1}
    series = ct()
    for index, dataset in enumerate(series):
        for number, (kind, day) in enumerate(kinds.items()):
            seconds = 11 + 10 * number + (4 - index if kind in ("Content", "Acquisition") else 0)
            setattr(dataset, f"{kind}Date", "" if kind in absent else f"2026010{day}")
            setattr(dataset, f"{kind}Time", "" if kind in absent else f"1012{seconds}")

    if not absent:
        assert highdicom_alone(series).ContentDate != "20260104"
    image = opened(series, tmp_path)
    assert f"{image.ContentDate} {image.ContentTime}" == expected


def test_content_qualification_is_not_guessed(tmp_path: Path) -> None:
    assert highdicom_alone(ct()).ContentQualification == "RESEARCH"
    assert "ContentQualification" not in opened(ct(), tmp_path / "none")
    assert "ContentQualification" not in opened(mr(), tmp_path / "mr")
    given = opened(ct(ContentQualification="SERVICE"), tmp_path / "given")
    assert given.ContentQualification == "SERVICE"


def test_a_warning_that_pet_must_have_is_not_more_than_the_source_says(tmp_path: Path) -> None:
    assert highdicom_alone(pet()).ContentQualification == "RESEARCH"
    assert opened(pet(), tmp_path).ContentQualification == "PRODUCT"


def test_contrast_and_trials_are_not_made_up(tmp_path: Path) -> None:
    theirs, ours = highdicom_alone(ct()), opened(ct(), tmp_path / "without")
    with_contrast = opened(ct(ContrastBolusAgent="IODINE"), tmp_path / "with")

    for keyword in ("ContrastBolusAgent", "ClinicalTrialTimePointID"):
        assert keyword in theirs
        assert keyword not in ours
    assert with_contrast.ContrastBolusAgent == "IODINE"


def test_extremes_of_some_frames_are_not_those_of_all(tmp_path: Path) -> None:
    some = ct(SmallestImagePixelValue=lambda i: 7 if i == 2 else None)
    for dataset in some:
        dataset.LargestImagePixelValue = 4000 + int(dataset.InstanceNumber)

    assert highdicom_alone(some).SmallestImagePixelValue == 7
    image = opened(some, tmp_path)
    assert "SmallestImagePixelValue" not in image
    assert image.LargestImagePixelValue == 4005
    uid = str(some[2].SOPInstanceUID)
    assert unassigned(image, source_uids(image).index(uid)).SmallestImagePixelValue == 7


def test_no_frame_is_said_to_be_of_the_other_side(tmp_path: Path) -> None:
    series = mr(6, BodyPartExamined="KNEE", ImageLaterality=lambda i: "L" if i < 3 else "R")

    theirs = highdicom_alone(series)
    objects, refused = collapsed_series(slices(series, tmp_path), tmp_path)

    assert len({group(theirs, n, "FrameAnatomySequence").FrameLaterality for n in range(6)}) == 1
    assert refused == []
    sides = {str(dataset.SOPInstanceUID): dataset.ImageLaterality for dataset in series}
    for path, _ in objects:
        image = dcmread(path)
        for frame, uid in enumerate(source_uids(image)):
            assert group(image, frame, "FrameAnatomySequence").FrameLaterality == sides[uid]
    assert len(objects) == 2


def test_units_of_pet_are_its_rescale_type(tmp_path: Path) -> None:
    theirs = group(highdicom_alone(pet()), 0, "PixelValueTransformationSequence")
    ours = group(opened(pet(), tmp_path), 0, "PixelValueTransformationSequence")

    assert theirs.RescaleType == "US"
    assert ours.RescaleType == "BQML"


def test_a_rescale_type_of_mr_is_kept(tmp_path: Path) -> None:
    series = mr(RescaleType="MS", RescaleSlope="1", RescaleIntercept="0")

    theirs = group(highdicom_alone(series), 0, "PixelValueTransformationSequence")
    ours = group(opened(series, tmp_path), 0, "PixelValueTransformationSequence")

    assert theirs.RescaleType == "US"
    assert ours.RescaleType == "MS"


def _window(image: Dataset, frame: int) -> tuple[float, float, str]:
    item = group(image, frame, "FrameVOILUTSequence")
    explanation = item.get("WindowCenterWidthExplanation", "")
    return float(item.WindowCenter), float(item.WindowWidth), str(explanation)


def test_a_window_that_no_source_gives_shows_everything_and_says_so(tmp_path: Path) -> None:
    series = ct(WindowCenter=None, WindowWidth=None)

    assert _window(highdicom_alone(series), 0) == (2048, 4096, "")  # of stored values, not of HU
    center, width, explanation = _window(opened(series, tmp_path), 0)
    lowest, highest = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    assert (lowest, highest) == (-1024, 3071)
    assert explanation == WHOLE_RANGE


def test_what_is_no_whole_window_stays_beside_the_one_that_is_made_up(tmp_path: Path) -> None:
    series = ct(WindowCenter="40", WindowWidth=None, WindowCenterWidthExplanation="ABDOMEN")

    image = opened(series, tmp_path)

    window, kept = group(image, 0, "FrameVOILUTSequence"), unassigned(image, 0)
    assert window.WindowCenterWidthExplanation == WHOLE_RANGE
    assert (kept.WindowCenter, kept.WindowCenterWidthExplanation) == (40, "ABDOMEN")
    assert "WindowCenter" not in unassigned(opened(ct(), tmp_path / "whole"), 0)


def test_windows_of_slices_with_slopes_of_their_own(tmp_path: Path) -> None:
    series = pet()
    image = opened(series, tmp_path)

    for frame, pixels in enumerate(image.pixel_array):
        slope = float(group(image, frame, "PixelValueTransformationSequence").RescaleSlope)
        center, width, _ = _window(image, frame)
        assert abs(center) < slope + 1
        assert np.isclose(width, 65535 * slope + 1)
        assert abs(pixels.max()) * slope <= center + width / 2


def test_durations_keep_their_unit(tmp_path: Path) -> None:
    series = mr(AcquisitionDuration=12.5)

    theirs = group(highdicom_alone(series), 0, "FrameContentSequence")
    assert theirs.FrameAcquisitionDuration == 12.5  # seconds, where milliseconds belong
    image = opened(series, tmp_path)
    assert "FrameAcquisitionDuration" not in group(image, 0, "FrameContentSequence")
    assert unassigned(image, 0).AcquisitionDuration == 12.5


def test_reformatted_slices_are_said_to_be(tmp_path: Path) -> None:
    series = ct(ImageType=["DERIVED", "SECONDARY", "MPR"])

    theirs = group(highdicom_alone(series), 0, "CTImageFrameTypeSequence")
    image = opened(series, tmp_path)
    ours = group(image, 0, "CTImageFrameTypeSequence")

    assert theirs.VolumeBasedCalculationTechnique == "NONE"
    assert ours.VolumeBasedCalculationTechnique == image.VolumeBasedCalculationTechnique == "MPR"


@pytest.mark.parametrize(
    ("make", "keyword"),
    [
        (ct, "CTImageFrameTypeSequence"),
        (mr, "MRImageFrameTypeSequence"),
        (pet, "PETFrameTypeSequence"),
    ],
)
def test_what_the_sources_say_of_their_volume_is_said_of_the_frames(
    tmp_path: Path, make: Callable[..., Series], keyword: str
) -> None:
    given = {
        "VolumetricProperties": "SAMPLED",
        "PixelPresentation": "COLOR",
        "VolumeBasedCalculationTechnique": "MAX_IP",
    }
    series = make(5, **given)

    def said(image: Dataset) -> dict[str, str]:
        return {name: group(image, 2, keyword)[name].value for name in given}

    theirs, ours = highdicom_alone(series), opened(series, tmp_path)
    assert {name: theirs[name].value for name in given} == given
    assert said(theirs) == dict(zip(given, ("VOLUME", "MONOCHROME", "NONE"), strict=True))
    assert {name: ours[name].value for name in given} == said(ours) == given


@pytest.mark.parametrize("make", [ct, mr, pet])
def test_a_projection_is_not_taken_for_a_volume(
    tmp_path: Path, make: Callable[..., Series]
) -> None:
    series = make(5, ImageType=["DERIVED", "SECONDARY", "PROJECTION IMAGE"])

    assert highdicom_alone(series).VolumetricProperties == "VOLUME"
    assert highdicom_alone(series).VolumeBasedCalculationTechnique == "NONE"
    found = split(series, tmp_path)
    assert found.volumes == ()
    assert {each.reason for each in found.refused} == {CollapseReason.PROJECTION}


def test_slices_that_say_different_things_of_their_volume_stay_single(tmp_path: Path) -> None:
    series = ct(VolumetricProperties=lambda i: ("VOLUME", "SAMPLED")[i % 2])

    _, refused = collapsed_series(slices(series, tmp_path), tmp_path)

    assert {(each.reason.value, each.detail) for each in refused} == {
        ("type1_missing", "VolumetricProperties")
    }


def test_what_is_not_in_hounsfield_units_is_not_said_to_be(tmp_path: Path) -> None:
    series = ct(RescaleType="US")

    theirs = group(highdicom_alone(series), 0, "PixelValueTransformationSequence")
    assert theirs.RescaleType == "HU"
    assert {each.reason for each in split(series, tmp_path).refused} == {
        CollapseReason.QUANTITY_AT_RISK
    }


@pytest.mark.parametrize("tag", [0x60003000, 0x50003000, 0x00431001])
def test_what_the_library_drops_for_good_stays_single_or_in_the_record(
    tmp_path: Path, tag: int
) -> None:
    """Overlays, curves, and private elements of nobody."""
    series = ct()
    for dataset in series:
        dataset.add_new(tag, "OW", b"\0" * 280)

    assert all(element.tag != tag for element in highdicom_alone(series).iterall())
    objects, refused = collapsed_series(slices(series, tmp_path), tmp_path)
    if tag >> 16 & 1:
        ((path, _),) = objects
        for each in restore(path, tmp_path / "out"):
            assert each.path is not None
            assert dcmread(each.path)[tag].value == b"\0" * 280
    else:
        assert {each.reason for each in refused} == {CollapseReason.OVERLAY_OR_CURVE}


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [("AcquisitionTime", "101261"), ("AcquisitionDateTime", "2026010510126199")],
)
def test_one_time_that_is_none_costs_the_library_the_series(
    tmp_path: Path, keyword: str, value: str
) -> None:
    series = ct()
    setattr(series[4], keyword, "")
    series[4][keyword]._value = value  # pydicom would not take it otherwise

    with pytest.raises(ValueError, match=r"convert non-conformant|second must be"):
        highdicom_alone(series)
    objects, refused = collapsed_series(slices(series, tmp_path), tmp_path)
    assert [len(one.frames) for _, one in objects] == [4]
    assert [(each.name, each.reason) for each in refused] == [("4", CollapseReason.INVALID_DATE)]


def test_frames_are_in_the_order_of_the_normal(tmp_path: Path) -> None:
    series = ct()

    def places(image: Dataset) -> list[float]:
        return [
            float(group(image, frame, "PlanePositionSequence").ImagePositionPatient[2])
            for frame in range(5)
        ]

    theirs, ours = places(highdicom_alone(series)), places(opened(series, tmp_path))
    assert theirs == sorted(theirs, reverse=True)
    assert ours == sorted(ours)


@pytest.mark.parametrize(("number", "expected"), [("7", 7), ("0", 0), ("", None)])
def test_the_series_number_is_the_sources(
    tmp_path: Path, number: str, expected: int | None
) -> None:
    with pytest.raises(ValueError, match="positive"):
        highdicom_alone(ct(), series_number=0)
    assert opened(ct(SeriesNumber=number), tmp_path).SeriesNumber == expected


@pytest.mark.parametrize("number", ["abc", "1,5", "nan"])
def test_a_series_number_that_is_none_is_kept_and_costs_no_series(
    tmp_path: Path, number: str
) -> None:
    series = ct(SeriesNumber="")
    for dataset in series:
        dataset["SeriesNumber"]._value = number  # pydicom would not take it otherwise

    path, _ = collapsed(series, tmp_path)

    image = dcmread(path)
    assert image.SeriesNumber is None
    assert _written(unassigned(image, 0), "SeriesNumber") == number


def test_time_is_a_dimension_beside_space(tmp_path: Path) -> None:
    series = repeated(lambda: mr(3), 2, TemporalPositionIdentifier=lambda t, _: t + 1)

    assert len(highdicom_alone(series).DimensionIndexSequence) == 1
    assert len(opened(series, tmp_path).DimensionIndexSequence) == 2


def test_a_brain_with_a_region_code_has_but_one_side(tmp_path: Path) -> None:
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "T-A0100", "SRT", "Brain"
    series = mr(BodyPartExamined="BRAIN", AnatomicRegionSequence=[region])

    theirs = group(highdicom_alone(series), 0, "FrameAnatomySequence")
    image = opened(series, tmp_path)

    assert theirs.FrameLaterality == ""  # which the standard does not allow
    assert group(image, 0, "FrameAnatomySequence").FrameLaterality == "U"
    assert unassigned(image, 0).AnatomicRegionSequence[0].CodeValue == "T-A0100"


def test_the_converter_is_named_beside_the_scanner(tmp_path: Path) -> None:
    equipment = opened(ct(), tmp_path).ContributingEquipmentSequence

    assert [item.Manufacturer for item in equipment][-1] == "dcmpress"
    assert equipment[-1].PurposeOfReferenceCodeSequence[0].CodeValue == "109106"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ImageOrientationPatient": None}, CollapseReason.GEOMETRY_MISSING),
        ({"PhotometricInterpretation": "MONOCHROME1"}, CollapseReason.PHOTOMETRIC_INTERPRETATION),
    ],
)
def test_what_makes_the_library_raise_is_refused_before(
    tmp_path: Path, change: dict[str, Any], reason: CollapseReason
) -> None:
    with pytest.raises((AttributeError, ValueError)):
        highdicom_alone(ct(**change))

    assert {each.reason for each in split(ct(**change), tmp_path).refused} == {reason}


def test_a_signature_is_not_copied_to_where_it_means_nothing(tmp_path: Path) -> None:
    signature = Dataset()
    signature.MACIDNumber = 1
    series = ct(DigitalSignaturesSequence=[signature])

    assert "DigitalSignaturesSequence" in unassigned(highdicom_alone(series), 0)
    with pytest.raises(NotConvertibleError):  # Not even a frame: its pixels are signed.
        split(series, tmp_path)


@pytest.mark.parametrize(
    ("keyword", "group", "value"),
    [
        ("SourceImageSequence", "DerivationImageSequence", [Dataset()]),
        ("IrradiationEventUID", "IrradiationEventIdentificationSequence", "2.25.7"),
    ],
)
def test_no_frame_has_a_group_that_is_empty(
    tmp_path: Path,
    keyword: str,
    group: str,
    value: Any,
    environment_program: Callable[[str], str],
) -> None:
    series = ct(3)
    if keyword == "SourceImageSequence":
        value[0].ReferencedSOPClassUID = series[0].SOPClassUID
        value[0].ReferencedSOPInstanceUID = "2.25.9"
    setattr(series[1], keyword, value)

    theirs = highdicom_alone(series).PerFrameFunctionalGroupsSequence
    assert sorted(len(frame[group].value[0]) for frame in theirs) == [0, 0, 1]
    path, _ = collapsed(series, tmp_path / "in")
    frames = dcmread(path).PerFrameFunctionalGroupsSequence
    assert [len(frame[group].value[0]) if group in frame else None for frame in frames] == [
        None, 1, None,
    ]  # fmt: skip
    assert frames[1][group].value[0][keyword].value == value
    plain, _ = collapsed(ct(3), tmp_path / "plain")
    dciodvfy = environment_program("dciodvfy")
    assert errors_of(dciodvfy, path) <= errors_of(dciodvfy, plain)
    _check_restored(path, tmp_path / "in", 3)


def test_a_derivation_of_no_image_in_particular_says_so(tmp_path: Path) -> None:
    series = ct(3, DerivationDescription="averaged")
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.1", "2.25.9"
    series[1].SourceImageSequence = [reference]

    image = opened(series, tmp_path)

    groups = [f.DerivationImageSequence[0] for f in image.PerFrameFunctionalGroupsSequence]
    assert [len(each.SourceImageSequence) for each in groups] == [0, 1, 0]
    assert {each.DerivationDescription for each in groups} == {"averaged"}


def _sequence(**values: Any) -> list[Dataset]:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


_INSTANCE = {
    "ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "ReferencedSOPInstanceUID": "2.25.9",
}


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("AcquisitionNumber", "IS", "70000"),
        ("AcquisitionNumber", "IS", "-1"),
        ("AnatomicRegionSequence", "SQ", []),
        ("AnatomicRegionSequence", "SQ", _sequence(AnatomicRegionModifierSequence=[])),
        ("PrimaryAnatomicStructureSequence", "SQ", []),
        ("SmallestImagePixelValue", "SS", -5),
        ("LargestImagePixelValue", "SS", -5),
        ("LargestImagePixelValue", "US", None),
        ("PixelPaddingValue", "SS", -2000),
        ("PixelPaddingRangeLimit", "SS", -2000),
        (
            "ReferencedSeriesSequence",
            "SQ",
            _sequence(ReferencedInstanceSequence=_sequence(**_INSTANCE)),
        ),
        (
            "ReferencedSeriesSequence",
            "SQ",
            _sequence(SeriesInstanceUID="2.25.8", ReferencedInstanceSequence=_sequence(PatientID="")),
        ),
        (
            "StudiesContainingOtherReferencedInstancesSequence",
            "SQ",
            _sequence(
                ReferencedSeriesSequence=_sequence(
                    SeriesInstanceUID="2.25.8", ReferencedInstanceSequence=_sequence(**_INSTANCE)
                )
            ),
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [ct, mr, pet])
def test_an_attribute_that_the_library_does_not_expect_is_kept_and_costs_no_series(
    tmp_path: Path,
    make: Callable[..., Series],
    keyword: str,
    vr: str,
    value: Any,
    environment_program: Callable[[str], str],
) -> None:
    series = make(3, PixelRepresentation=0)
    for dataset in series:
        if keyword in dataset:
            del dataset[keyword]
        dataset.add_new(keyword, vr, value)

    with pytest.raises((IndexError, AttributeError, TypeError, OSError, OverflowError)):
        highdicom_alone(series).save_as(tmp_path / "theirs.dcm")
    path, _ = collapsed(series, tmp_path / "in")
    image = dcmread(path)
    assert all(unassigned(image, frame)[keyword] == series[0][keyword] for frame in range(3))
    plain, _ = collapsed(make(3, PixelRepresentation=0), tmp_path / "plain")
    dciodvfy = environment_program("dciodvfy")
    assert errors_of(dciodvfy, path) <= errors_of(dciodvfy, plain)
    _check_restored(path, tmp_path / "in", 3)


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [("PixelAspectRatio", "IS", [1, 1]), ("IrradiationEventUID", "UI", "")],
)
def test_an_attribute_that_has_no_place_in_an_enhanced_object_is_an_unassigned_one(
    tmp_path: Path, keyword: str, vr: str, value: Any, environment_program: Callable[[str], str]
) -> None:
    series = ct(3)
    for dataset in series:
        dataset.add_new(keyword, vr, value)

    path, _ = collapsed(series, tmp_path / "in")

    image = dcmread(path)
    assert keyword not in image
    assert all(unassigned(image, frame)[keyword] == series[0][keyword] for frame in range(3))
    highdicom_alone(series).save_as(tmp_path / "theirs.dcm")
    dciodvfy = environment_program("dciodvfy")
    assert any(tag_name(keyword) in each for each in errors_of(dciodvfy, tmp_path / "theirs.dcm"))
    assert not any(tag_name(keyword) in each for each in errors_of(dciodvfy, path))


def tag_name(keyword: str) -> str:
    """As dciodvfy names what stands at the top or in a functional group of its own."""
    return {
        "PixelAspectRatio": "</PixelAspectRatio",
        "IrradiationEventUID": "IrradiationEventIdentificationSequence(0018,9477)/Irradiation",
    }[keyword]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientWeight", "72,5"),
        ("PatientSize", "1 80"),
        ("MagneticFieldStrength", "3T"),
        ("ContrastBolusVolume", "20 ml"),
        ("BodyPartExamined", "CHEST\\ABDOMEN"),
    ],
)
def test_a_text_that_is_no_number_or_several_is_kept_and_costs_no_series(
    tmp_path: Path, keyword: str, value: str
) -> None:
    series = mr(ContrastBolusAgent="some")
    for dataset in series:
        setattr(dataset, keyword, "")
        dataset[keyword]._value = value  # pydicom would not take it otherwise
    folder = tmp_path / "in"
    files = [each.path for each in slices(series, folder)]

    with pytest.raises((ValueError, TypeError)):
        highdicom_alone([dcmread(file) for file in files])
    path, _ = collapsed(series, folder)
    image = dcmread(path)
    assert keyword not in image
    assert _written(unassigned(image, 0), keyword) == value
    _check_restored(path, folder, 5)


def _written(dataset: Dataset, keyword: str) -> str:
    """A text as it was read, whatever it means."""
    element = dataset.get_item(keyword)
    assert element is not None
    value: bytes = element.value
    return value.decode().strip()


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("sex", ["U", "male", "W\\F"])
def test_nobody_stays_single_for_a_sex(tmp_path: Path, sex: str) -> None:
    series = ct(PatientSex=sex)

    with pytest.raises(ValueError, match="is not a valid PatientSex"):
        highdicom_alone(series)
    path, _ = collapsed(series, tmp_path)
    image = dcmread(path)
    assert _written(image, "PatientSex") == sex
    # Who corrects it finds it in one place.
    assert all("PatientSex" not in unassigned(image, frame) for frame in range(5))
    _check_restored(path, tmp_path, 5)


def test_one_time_with_a_zone_costs_no_series(tmp_path: Path) -> None:
    series = ct(3)
    series[1].AcquisitionDateTime = "20260105101213.5+0100"

    with pytest.raises(TypeError):
        highdicom_alone(series)
    image = opened(series, tmp_path)
    middle = source_uids(image).index(series[1].SOPInstanceUID)
    assert unassigned(image, middle).AcquisitionDateTime == "20260105101213.5+0100"
    times = [
        str(group(image, frame, "FrameContentSequence").FrameAcquisitionDateTime)
        for frame in range(3)
    ]
    assert all("+" not in each for each in times)


def test_one_slice_with_such_an_attribute_takes_it_from_no_other(tmp_path: Path) -> None:
    series = ct(3, AcquisitionNumber=lambda i: (1, -1, 1)[i])
    numbers = {dataset.SOPInstanceUID: dataset.AcquisitionNumber for dataset in series}

    image = opened(series, tmp_path)

    found = {
        uid: unassigned(image, frame).AcquisitionNumber
        for frame, uid in enumerate(source_uids(image))
    }
    assert found == numbers


def _check_restored(path: Path, folder: Path, count: int) -> None:
    given = {file.read_bytes() for file in folder.glob("[0-9].dcm")}
    back = [each.path for each in restore(path, folder / "out")]
    assert len(back) == len(given) == count
    assert {file.read_bytes() for file in back if file is not None} == given
