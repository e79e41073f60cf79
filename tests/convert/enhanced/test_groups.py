"""Where a series is split, and what stays single-frame."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from scp.convert.enhanced.groups import CollapseLimits, partition
from scp.convert.enhanced.uids import series_instance_uid
from scp.convert.part10 import dicom_file
from scp.model import CollapseReason
from scp.part10 import file_meta_of
from tests.convert.enhanced.series import (
    Series,
    ct,
    encoded,
    mr,
    one_volume,
    pet,
    repeated,
    slices,
    split,
)
from tests.material import write_all

AXIAL, CORONAL = ["1", "0", "0", "0", "1", "0"], ["1", "0", "0", "0", "0", "-1"]
TILTED = ["1", "0", "0", "0", "0.866025", "0.5"]


@pytest.mark.parametrize("make", [ct, mr, pet])
def test_a_plain_series_is_one_volume_in_order_along_the_normal(
    tmp_path: Path, make: Callable[[], Series]
) -> None:
    series = make()
    found = one_volume(reversed(series), tmp_path)

    depths = [float(header.numbers(0x00200032)[2]) for header in found.headers]
    assert depths == sorted(depths)
    assert found.places == (1, 2, 3, 4, 5)
    assert found.dimensions == ()
    assert math.isclose(found.spacing or 0, depths[1] - depths[0])


def test_the_order_of_the_files_makes_no_difference(tmp_path: Path) -> None:
    sources = slices(ct(6, FrameOfReferenceUID=lambda i: "2.25.1" if i > 1 else ""), tmp_path)

    found = partition(sources)

    assert found == partition(sources[::-1])
    assert (len(found.volumes), len(found.refused)) == (1, 2)


def test_the_normal_is_that_of_the_image_not_of_the_table(tmp_path: Path) -> None:
    places = [30.0, -5.0, 12.5, 65.0, 47.5]
    series = ct(
        5,
        ImageOrientationPatient=CORONAL,
        ImagePositionPatient=lambda i: [-180, places[i], 180],
    )

    found = one_volume(series, tmp_path)

    depths = [header.numbers(0x00200032)[1] for header in found.headers]
    assert depths == sorted(places)
    assert found.spacing == 17.5


@pytest.mark.parametrize("digits", [2, 3, 6])
def test_directions_of_few_digits_are_directions_and_distances_stay_millimetres(
    tmp_path: Path, digits: int
) -> None:
    half = math.sqrt(0.5)
    series = mr(
        5,
        ImageOrientationPatient=[*(f"{half:.{digits}f}",) * 2, "0", "0", "0", "-1"],
        ImagePositionPatient=lambda i: [f"{-4 * half * i:.4f}", f"{4 * half * i:.4f}", "0"],
    )

    found = one_volume(series, tmp_path)

    assert found.spacing == pytest.approx(4, abs=1e-4)
    assert found.is_straight


def test_directions_that_differ_by_the_noise_of_a_calculation_are_one(tmp_path: Path) -> None:
    series = mr(5, ImageOrientationPatient=lambda i: [1, 0.001 * (i - 2), 0, 0, 1, 0.002 * (i % 2)])

    assert len(one_volume(series, tmp_path).headers) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"ImageOrientationPatient": lambda i: AXIAL if i < 3 else TILTED},
        {"ImageType": lambda i: ["ORIGINAL", "PRIMARY", "AXIAL" if i < 3 else "OTHER"]},
        {"AcquisitionNumber": lambda i: 1 if i < 3 else 2},
        {"PixelSpacing": lambda i: [0.5, 0.5] if i < 3 else [0.6, 0.6]},
        {"ConvolutionKernel": lambda i: "SOFT" if i < 3 else "BONE"},
        {"FrameOfReferenceUID": lambda i: "2.25.7" if i < 3 else "2.25.8"},
        {"LossyImageCompression": lambda i: "00" if i < 3 else "01"},
        {"PatientName": lambda i: "A^B" if i < 3 else "A^C"},
        {"ImageLaterality": lambda i: "L" if i < 3 else "R"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_series_is_split_where_a_radiologist_would(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    found = split(ct(6, **change), tmp_path)

    assert sorted(len(volume.headers) for volume in found.volumes) == [3, 3]
    assert found.refused == ()
    assert len({volume.key for volume in found.volumes}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"PatientWeight": lambda i: f"{70 + i // 3}"},
        {"PatientSize": lambda i: f"1.7{i // 3}"},
        {"SeriesTime": lambda i: f"10101{i // 3}"},
        {"SeriesDate": lambda i: f"2026010{4 + i // 3}"},
        {"DecayCorrection": lambda i: ("START", "ADMIN")[i // 3]},
        {"CorrectedImage": lambda i: ["ATTN", "DECY"] if i < 3 else ["ATTN"]},
        {"SUVType": lambda i: ("BW", "LBM")[i // 3]},
        {"Units": lambda i: ("BQML", "GML")[i // 3]},
        {"CountsSource": lambda i: ("EMISSION", "TRANSMISSION")[i // 3]},
        {
            "RadiopharmaceuticalInformationSequence": lambda i: _item(
                RadionuclideTotalDose=str(3e8 + i // 3), RadionuclideHalfLife="6586.2"
            )
        },
    ],
    ids=lambda change: next(iter(change)),
)
def test_slices_of_pet_share_what_an_uptake_value_is_computed_of(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    found = split(pet(6, **change), tmp_path)

    assert [len(volume.headers) for volume in found.volumes] == [3, 3]
    assert len({series_instance_uid(volume) for volume in found.volumes}) == 2


def test_slices_of_other_modalities_need_not(tmp_path: Path) -> None:
    assert len(one_volume(ct(6, PatientWeight=lambda i: f"{70 + i // 3}"), tmp_path).names) == 6


def test_directions_that_are_hardly_apart_are_series_of_their_own(tmp_path: Path) -> None:
    angles = [math.radians(0.3 if index < 3 else 0.85) for index in range(6)]
    series = mr(
        6,
        ImageOrientationPatient=lambda i: [
            f"{part:.6f}"
            for part in (
                math.cos(angles[i]), math.sin(angles[i]), 0, -math.sin(angles[i]),
                math.cos(angles[i]), 0,
            )
        ],
    )  # fmt: skip

    found = split(series, tmp_path)

    assert [len(volume.headers) for volume in found.volumes] == [3, 3]
    assert len({series_instance_uid(volume) for volume in found.volumes}) == 2


def test_matrices_of_different_size_are_not_mixed(tmp_path: Path) -> None:
    smaller = ct(3)
    for dataset in smaller:
        dataset.Rows, dataset.SOPInstanceUID = 20, dataset.SOPInstanceUID + ".1"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PixelData = dataset.PixelData[: 20 * 56 * 2]

    found = split([*ct(3), *smaller], tmp_path)

    assert [len(volume.headers) for volume in found.volumes] == [3, 3]


def test_echoes_are_split(tmp_path: Path) -> None:
    series = repeated(
        lambda: mr(3), 2, EchoNumbers=lambda t, _: t + 1, EchoTime=lambda t, _: 2.5 + 5 * t
    )

    assert [len(volume.headers) for volume in split(series, tmp_path).volumes] == [3, 3]


def test_the_rotations_of_a_step_and_shoot_scan_stay_together(tmp_path: Path) -> None:
    found = one_volume(ct(8, AcquisitionNumber=lambda i: i // 2 + 1), tmp_path)

    assert len(found.headers) == 8


def test_rotations_at_two_distances_stay_together(tmp_path: Path) -> None:
    """Through the skull base in thin slices, further up in thick ones."""
    depths = [0, 2.5, 5, 7.5, 10, 12.5, 17.5, 22.5, 27.5, 32.5]
    series = ct(
        10,
        AcquisitionNumber=lambda i: i // 2 + 1,
        ImagePositionPatient=lambda i: [-180, -180, depths[i]],
    )

    found = one_volume(series, tmp_path)

    assert (len(found.headers), found.spacing) == (10, None)


def test_a_slice_that_watched_for_the_contrast_is_no_part_of_the_scan(tmp_path: Path) -> None:
    scan, before = ct(6, AcquisitionNumber=2), ct(7, AcquisitionNumber=1)[6]
    x, y, z = scan[2].ImagePositionPatient
    before.ImagePositionPatient = [x, y, z + 0.4]

    found = split([*scan, before], tmp_path)

    assert [(each.name, each.reason) for each in found.refused] == [
        ("6", CollapseReason.SINGLE_SLICE)
    ]
    assert [len(volume.headers) for volume in found.volumes] == [6]
    assert found.volumes[0].spacing is not None


@pytest.mark.parametrize("make", [ct, mr])
@pytest.mark.parametrize("is_numbered", [True, False])
def test_two_hands_beside_each_other_are_no_moments_of_one(
    tmp_path: Path, make: Callable[[int], Series], is_numbered: bool
) -> None:
    series = repeated(
        lambda: make(4),
        2,
        AcquisitionNumber=lambda hand, _: hand + 1 if is_numbered else 1,
        AcquisitionTime=lambda hand, _: f"10121{hand}",
    )
    for dataset in series[4:]:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + 150, y, z]

    found = split(series, tmp_path)

    assert [len(volume.headers) for volume in found.volumes] == [4, 4]
    assert all(volume.dimensions == () for volume in found.volumes)
    for volume in found.volumes:
        assert len({header.numbers(0x00200032)[0] for header in volume.headers}) == 1


@pytest.mark.parametrize(
    ("make", "changes", "label"),
    [
        (mr, {"TemporalPositionIdentifier": lambda t, _: t + 1}, "Temporal Position Identifier"),
        (mr, {"TemporalPositionIndex": lambda t, _: 32 + 16 * t}, "Temporal Position Index"),
        (ct, {"NominalPercentageOfCardiacPhase": lambda t, _: 10.0 * t},
         "Nominal Percentage of Cardiac Phase"),
        (mr, {"TriggerTime": lambda t, i: 20.0 + 35 * t + i}, "Trigger Time"),
        (pet, {"FrameReferenceTime": lambda t, i: 1000 + 60000 * t + i}, "Frame Reference Time"),
        (mr, {"AcquisitionNumber": lambda t, _: t + 1}, "Acquisition Number"),
        (ct, {"AcquisitionTime": lambda t, i: f"1012{10 + t:02d}.{i}0"}, "Acquisition Time"),
        (mr, {"NumberOfTemporalPositions": lambda *_: 3, "AcquisitionTime": lambda *_: "101010"},
         "Instance Number"),
    ],
    ids=["time", "index", "phase", "cardiac", "dynamic PET", "repetitions", "shuttle", "numbered"],
)  # fmt: skip
def test_repetitions_in_time_stay_together_with_a_dimension(
    tmp_path: Path,
    make: Callable[[int], Series],
    changes: dict[str, Callable[[int, int], Any]],
    label: str,
) -> None:
    found = one_volume(repeated(lambda: make(4), 3, **changes), tmp_path)

    (dimension,) = found.dimensions
    assert dimension.label == label
    assert dimension.is_temporal
    assert dimension.indices == (1,) * 4 + (2,) * 4 + (3,) * 4
    assert found.places == (1, 2, 3, 4) * 3


def test_diffusion_weightings_stay_together_with_two_dimensions(tmp_path: Path) -> None:
    directions = [None, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    series = repeated(lambda: mr(3), 3, DiffusionBValue=lambda t, _: 0.0 if t == 0 else 1000.0)
    for index, dataset in enumerate(series):
        if direction := directions[index // 3]:
            dataset.DiffusionGradientOrientation = direction

    found = one_volume(series, tmp_path)

    b_value, direction_index = found.dimensions
    assert b_value.indices == (1,) * 3 + (2,) * 6
    assert direction_index.indices == (1,) * 3 + (2,) * 3 + (3,) * 3
    assert not b_value.is_temporal


@pytest.mark.parametrize(
    "changes",
    [
        {"DiffusionBValue": lambda t, _: 1000.0 * min(t, 1)},
        {"ImageType": lambda *_: ["ORIGINAL", "PRIMARY", "DIFFUSION"]},
    ],
    ids=["known", "unknown"],
)
@pytest.mark.parametrize(
    "times",
    [
        {"AcquisitionTime": lambda t, _: f"10121{t}"},
        {"NumberOfTemporalPositions": lambda *_: 3, "AcquisitionTime": lambda *_: "101010"},
    ],
    ids=["timed", "numbered"],
)
def test_weightings_that_do_not_tell_are_not_taken_for_time(
    tmp_path: Path,
    changes: dict[str, Callable[[int, int], Any]],
    times: dict[str, Callable[[int, int], Any]],
) -> None:
    found = split(repeated(lambda: mr(3), 3, **changes, **times), tmp_path)

    assert found.volumes == ()
    assert {refused.reason for refused in found.refused} == {CollapseReason.POSITIONS_REPEATED}


def test_flip_angles_at_one_place_are_split(tmp_path: Path) -> None:
    series = repeated(lambda: mr(3), 2, FlipAngle=lambda t, _: 5 + 10 * t)

    assert [len(volume.headers) for volume in split(series, tmp_path).volumes] == [3, 3]


def test_scans_of_one_place_with_numbers_of_their_own_are_split_in_ct(tmp_path: Path) -> None:
    series = repeated(lambda: ct(3), 2, AcquisitionNumber=lambda t, _: t + 1)

    assert [len(volume.headers) for volume in split(series, tmp_path).volumes] == [3, 3]


def test_what_lies_at_one_place_for_no_known_reason_stays_single(tmp_path: Path) -> None:
    series = repeated(lambda: ct(3), 2, AcquisitionTime=lambda *_: "101010")

    found = split(series, tmp_path)

    assert found.volumes == ()
    assert {refused.reason for refused in found.refused} == {CollapseReason.POSITIONS_REPEATED}
    assert len(found.refused) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"AcquisitionTime": lambda t, i: f"1012{10 + t:02d}.{i}0"},
        {"TriggerTime": lambda t, i: 20.0 + 35 * t + i},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_times_of_each_slice_do_not_tell_where_one_is_missing(
    tmp_path: Path, changes: dict[str, Callable[[int, int], Any]]
) -> None:
    series = repeated(lambda: ct(4), 3, **changes)

    found = split(series[:6] + series[7:], tmp_path)

    assert found.volumes == ()
    assert {refused.reason for refused in found.refused} == {CollapseReason.POSITIONS_REPEATED}


def test_numbered_times_tell_also_where_a_slice_is_missing(tmp_path: Path) -> None:
    series = repeated(lambda: mr(4), 3, TemporalPositionIdentifier=lambda t, _: t + 1)

    found = one_volume(series[:6] + series[7:], tmp_path)

    assert found.dimensions[0].indices == (1,) * 4 + (2,) * 3 + (3,) * 4


def test_times_with_and_without_time_zone_have_no_order(tmp_path: Path) -> None:
    times = ["20260105101010", "20260105101011+0100"]
    series = repeated(
        lambda: ct(3), 2, AcquisitionDateTime=lambda t, _: times[t], AcquisitionTime=lambda *_: ""
    )

    found = split(series, tmp_path)

    assert {refused.reason for refused in found.refused} == {CollapseReason.POSITIONS_REPEATED}


def test_an_element_that_comes_twice_costs_one_slice(tmp_path: Path) -> None:
    series = ct()
    path = write_all(series, tmp_path / "files")[2]
    whole = path.read_bytes()
    center = next(e for e in dicom_file(memoryview(whole)).walk() if e.tag == 0x00281050)
    start = file_meta_of(whole).dataset_start
    first = whole[start + center.start : start + center.end]
    assert whole.count(first) == 1
    path.write_bytes(whole.replace(first, first + first))

    found = partition(encoded(sorted((tmp_path / "files").iterdir()), tmp_path))

    assert [refused.reason for refused in found.refused] == [CollapseReason.UNREADABLE]
    assert [len(volume.headers) for volume in found.volumes] == [4]


def _item(**values: Any) -> list[Dataset]:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return [dataset]


def _overlay(dataset: Dataset) -> None:
    dataset.add_new(0x60003000, "OW", b"\0" * 280)


def _curve(dataset: Dataset) -> None:
    dataset.add_new(0x50003000, "OW", b"\0" * 4)


def _voi_lut(dataset: Dataset) -> None:
    dataset.VOILUTSequence = _item(LUTExplanation="window")


def _modality_lut(dataset: Dataset) -> None:
    dataset.ModalityLUTSequence = _item(LUTExplanation="rescale")


def _unset(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


def _put(**values: Any) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def _two_frames(sop_class_uid: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        dataset.SOPClassUID, dataset.NumberOfFrames = sop_class_uid, 2
        dataset.PixelData *= 2

    return change


def _without_dates(dataset: Dataset) -> None:
    for kind in ("Study", "Series", "Content", "Acquisition"):
        setattr(dataset, f"{kind}Date", "")
    del dataset.InstanceCreationDate


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_overlay, CollapseReason.OVERLAY_OR_CURVE),
        (_curve, CollapseReason.OVERLAY_OR_CURVE),
        (_voi_lut, CollapseReason.VOI_LUT_SEQUENCE),
        (_modality_lut, CollapseReason.MODALITY_LUT_SEQUENCE),
        (_unset("FrameOfReferenceUID"), CollapseReason.GEOMETRY_MISSING),
        (_unset("ImageOrientationPatient"), CollapseReason.GEOMETRY_MISSING),
        (_unset("ImagePositionPatient"), CollapseReason.GEOMETRY_MISSING),
        (_unset("PixelSpacing"), CollapseReason.GEOMETRY_MISSING),
        (_put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), CollapseReason.GEOMETRY_MISSING),
        (_unset("SliceThickness"), CollapseReason.TYPE1_MISSING),
        (_unset("ImageType"), CollapseReason.TYPE1_MISSING),
        (_put(ImageType="ORIGINAL"), CollapseReason.TYPE1_MISSING),
        (_put(ImageType=["", "PRIMARY"]), CollapseReason.TYPE1_MISSING),
        (_put(WindowCenter=[1, 2, 3], WindowWidth=[10]), CollapseReason.QUANTITY_AT_RISK),
        (_without_dates, CollapseReason.TYPE1_MISSING),
        (_unset("RescaleSlope"), CollapseReason.QUANTITY_AT_RISK),
        (_unset("RescaleIntercept"), CollapseReason.QUANTITY_AT_RISK),
        (_put(RescaleType="US"), CollapseReason.QUANTITY_AT_RISK),
        (_put(PhotometricInterpretation="MONOCHROME1"), CollapseReason.PHOTOMETRIC_INTERPRETATION),
        (_put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), CollapseReason.LOCALIZER),
        (_put(ImageType=["DERIVED", "SECONDARY", "PROJECTION IMAGE"]), CollapseReason.PROJECTION),
        (_put(ImageType=["DERIVED", "SECONDARY", "MOSAIC"]), CollapseReason.MOSAIC),
        (_put(SeriesInstanceUID="none"), CollapseReason.UNREADABLE),
        (_put(PixelSpacing=[1e12, 1e12]), CollapseReason.SINGLE_SLICE),
        (_put(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), CollapseReason.SOP_CLASS),
        (_two_frames("1.2.840.10008.5.1.4.1.1.2.1"), CollapseReason.SOP_CLASS),
        (_two_frames("1.2.840.10008.5.1.4.1.1.2"), CollapseReason.SEVERAL_FRAMES),
        (_put(ImageOrientationPatient=CORONAL), CollapseReason.SINGLE_SLICE),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_slice_that_cannot_be_a_frame_has_a_reason_and_stops_no_other(
    tmp_path: Path, change: Callable[[Dataset], None], reason: CollapseReason
) -> None:
    series = ct()
    change(series[4])

    found = split(series, tmp_path)

    assert [(refused.name, refused.reason) for refused in found.refused] == [("4", reason)]
    assert [len(volume.headers) for volume in found.volumes] == [4]


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("AcquisitionTime", "101261"),
        ("StudyDate", "20261340"),
        ("AcquisitionDateTime", "2026010510126199"),
        ("PatientBirthDate", "unknown"),
    ],
)
def test_a_date_that_is_none_costs_one_slice_and_not_the_series(
    tmp_path: Path, keyword: str, value: str
) -> None:
    series = ct()
    setattr(series[4], keyword, "")
    series[4][keyword]._value = value  # pydicom would not take it otherwise

    found = split(series, tmp_path)

    assert [refused.reason for refused in found.refused] == [CollapseReason.INVALID_DATE]


def test_a_rescale_of_mr_that_is_there_and_empty_is_not_taken_to_be_none(tmp_path: Path) -> None:
    found = split(mr(5, RescaleSlope=lambda i: None if i else "", RescaleIntercept=None), tmp_path)

    assert [(each.name, each.reason) for each in found.refused] == [
        ("0", CollapseReason.QUANTITY_AT_RISK)
    ]


def test_units_of_pet_must_be_known(tmp_path: Path) -> None:
    found = split(pet(5, Units=lambda i: "BQML" if i else ""), tmp_path)

    assert [refused.reason for refused in found.refused] == [CollapseReason.QUANTITY_AT_RISK]


def test_a_weight_of_pet_that_is_no_number_keeps_its_slice_single(tmp_path: Path) -> None:
    series = pet(5)
    series[2].PatientWeight = "70"
    series[2]["PatientWeight"]._value = "72,5"  # pydicom would not take it otherwise

    found = split(series, tmp_path)

    assert [(each.name, each.reason) for each in found.refused] == [
        ("2", CollapseReason.QUANTITY_AT_RISK)
    ]


def test_two_datasets_under_one_uid_stay_single(tmp_path: Path) -> None:
    series = ct()
    series[1].SOPInstanceUID = series[0].SOPInstanceUID

    found = split(series, tmp_path)

    assert [refused.reason for refused in found.refused] == [CollapseReason.DUPLICATE_UID] * 2
    assert [len(volume.headers) for volume in found.volumes] == [3]


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (CollapseLimits(max_frames=4), CollapseReason.TOO_MANY_FRAMES),
        (CollapseLimits(max_bytes=5 * 40 * 56 * 2 - 1), CollapseReason.TOO_MANY_BYTES),
    ],
)
def test_what_is_larger_than_the_limits_stays_single(
    tmp_path: Path, limits: CollapseLimits, reason: CollapseReason
) -> None:
    sources = slices(ct(), tmp_path)

    assert [refused.reason for refused in partition(sources, limits).refused] == [reason] * 5
    at_the_limit = CollapseLimits(max_frames=5, max_bytes=5 * 40 * 56 * 2)
    assert len(partition(sources, at_the_limit).volumes) == 1


def test_an_encoded_file_that_is_cut_costs_one_slice(tmp_path: Path) -> None:
    sources = slices(ct(), tmp_path)
    whole = sources[2].encoded.read_bytes()
    sources[2].encoded.write_bytes(whole[: len(whole) // 2])
    sources[3].encoded.unlink()

    found = partition(sources)

    assert [(refused.name, refused.reason) for refused in found.refused] == [
        ("2", CollapseReason.UNREADABLE),
        ("3", CollapseReason.UNREADABLE),
    ]


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
        "1.2.840.10008.5.1.4.1.1.20",  # NM
        "1.2.840.10008.5.1.4.1.1.12.1",  # XA
        "1.2.840.10008.5.1.4.1.1.6.1",  # US
        "1.2.840.10008.5.1.4.1.1.4",  # MR, which Modality contradicts
    ],
)
def test_only_classic_images_have_a_legacy_converted_form(tmp_path: Path, sop_class: str) -> None:
    found = split(ct(SOPClassUID=sop_class), tmp_path)

    assert found.volumes == ()
    assert {each.reason for each in found.refused} == {CollapseReason.SOP_CLASS}


def test_a_tilted_gantry_makes_one_stack_that_is_not_straight(tmp_path: Path) -> None:
    tilt = np.radians(20)
    series = ct(
        5, ImageOrientationPatient=[1, 0, 0, 0, round(np.cos(tilt), 6), round(np.sin(tilt), 6)]
    )

    found = one_volume(series, tmp_path)

    assert found.spacing is not None
    assert not found.is_straight
