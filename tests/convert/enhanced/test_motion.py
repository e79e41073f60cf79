"""Slices that moved a little between two times or weightings, and are of one place all the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from scp.convert.enhanced.groups import partition
from scp.convert.enhanced.restore import restore
from scp.model import CollapseReason
from tests.convert.enhanced.library import errors_of
from tests.convert.enhanced.series import (
    Series,
    collapsed,
    ct,
    group,
    mr,
    one_volume,
    opened,
    pet,
    repeated,
    slices,
    split,
)


def moved(series: Series, step: float, places: int) -> Series:
    """Each time ``step`` mm further along z than the one before."""
    for index, dataset in enumerate(series):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, round(float(z) + step * (index // places), 4)]
    return series


def shaken(series: Series, places: int) -> Series:
    """To and fro, by up to 0.3 mm."""
    for index, dataset in enumerate(series):
        x, y, z = dataset.ImagePositionPatient
        offset = (0.0, 0.3, 0.0, 0.15)[index // places % 4]
        dataset.ImagePositionPatient = [x, y, round(float(z) + offset, 4)]
    return series


TIMES: dict[str, tuple[Callable[[int], Series], Callable[[int, int], Any]]] = {
    "TemporalPositionIdentifier": (mr, lambda t, _: t + 1),
    "TemporalPositionIndex": (mr, lambda t, _: 32 + 16 * t),
    "NominalPercentageOfCardiacPhase": (ct, lambda t, _: 10.0 * t),
    "TriggerTime": (mr, lambda t, _: 20.0 + 35 * t),
    "FrameReferenceTime": (pet, lambda t, _: 1000 + 60000 * t),
    "AcquisitionNumber": (mr, lambda t, _: t + 1),
}


@pytest.mark.parametrize("keyword", TIMES)
@pytest.mark.parametrize("step", [0.002, 0.01, 0.05])
def test_times_that_moved_a_little_stay_together_with_their_dimension(
    tmp_path: Path, keyword: str, step: float
) -> None:
    make, change = TIMES[keyword]
    series = moved(repeated(lambda: make(6), 3, **{keyword: change}), step, 6)

    found = one_volume(series, tmp_path)

    (dimension,) = found.dimensions
    assert dimension.is_temporal
    assert dimension.indices == (1,) * 6 + (2,) * 6 + (3,) * 6
    assert found.places == (1, 2, 3, 4, 5, 6) * 3


def test_times_that_only_the_clock_tells_may_move_a_little_too(tmp_path: Path) -> None:
    series = repeated(lambda: mr(6), 3, AcquisitionTime=lambda t, _: f"1012{10 + t}")

    found = one_volume(moved(series, 0.01, 6), tmp_path)

    assert found.dimensions[0].label == "Acquisition Time"
    assert found.places == (1, 2, 3, 4, 5, 6) * 3


def test_what_moved_for_no_known_reason_stays_single(tmp_path: Path) -> None:
    series = repeated(lambda: mr(6), 3, AcquisitionTime=lambda *_: "101010")

    found = split(moved(series, 0.01, 6), tmp_path)

    assert found.volumes == ()
    assert [each.reason for each in found.refused] == [CollapseReason.POSITIONS_REPEATED] * 18


def test_one_place_may_move_too(tmp_path: Path) -> None:
    series = repeated(lambda: mr(1), 4, TemporalPositionIdentifier=lambda t, _: t + 1)

    found = one_volume(moved(series, 0.05, 1), tmp_path)

    assert found.places == (1, 1, 1, 1)
    assert found.dimensions[0].indices == (1, 2, 3, 4)


def test_a_head_that_shakes_has_as_many_places_as_one_that_does_not(tmp_path: Path) -> None:
    series = repeated(lambda: mr(4), 4, TemporalPositionIdentifier=lambda t, _: t + 1)

    found = one_volume(shaken(series, 4), tmp_path)

    assert found.places == (1, 2, 3, 4) * 4
    assert found.spacing is None


def test_a_place_that_one_time_lacks_is_known_all_the_same(tmp_path: Path) -> None:
    series = moved(
        repeated(lambda: mr(4), 3, TemporalPositionIdentifier=lambda t, _: t + 1), 0.01, 4
    )

    found = one_volume(series[:6] + series[7:], tmp_path)

    assert found.places == (1, 2, 3, 4, 1, 3, 4, 1, 2, 3, 4)


@pytest.mark.parametrize("keyword", list(TIMES)[:3])
@pytest.mark.parametrize("step", [1.0, 1.5, 30.0])
def test_declared_times_that_moved_further_are_volumes_of_their_own(
    tmp_path: Path, keyword: str, step: float
) -> None:
    make, change = TIMES[keyword]
    series = moved(repeated(lambda: make(4), 3, **{keyword: change}), step, 4)

    found = split(series, tmp_path)

    assert [len(volume.headers) for volume in found.volumes] == [4, 4, 4]
    assert all(
        len({header.text(_tag(keyword)) for header in volume.headers}) == 1
        for volume in found.volumes
    )
    assert len({volume.key for volume in found.volumes}) == 3


@pytest.mark.parametrize("keyword", ["TriggerTime", "AcquisitionNumber", "AcquisitionTime"])
def test_uneven_mixtures_of_times_are_no_stack(tmp_path: Path, keyword: str) -> None:
    _, change = TIMES.get(keyword, (mr, lambda t, _: f"10121{t}"))
    series = moved(repeated(lambda: mr(4), 2, **{keyword: change}), 0.9, 4)

    found = split(series, tmp_path)

    assert [len(volume.headers) for volume in found.volumes] == [4, 4]


@pytest.mark.parametrize("keyword", ["TriggerTime", "AcquisitionNumber", "AcquisitionTime"])
def test_packages_between_each_other_are_one_stack(tmp_path: Path, keyword: str) -> None:
    found = one_volume(mr(8, **{keyword: lambda i: f"{101011 + i % 2}"}), tmp_path)

    assert found.dimensions == ()
    assert found.spacing is not None


def test_beds_behind_each_other_are_one_stack(tmp_path: Path) -> None:
    found = one_volume(pet(9, FrameReferenceTime=lambda i: 1000.0 * (i // 3)), tmp_path)

    assert found.dimensions == ()
    assert found.spacing is not None


def test_times_that_moved_in_part_are_not_mixed(tmp_path: Path) -> None:
    series = repeated(lambda: mr(4), 4, TemporalPositionIdentifier=lambda t, _: t + 1)
    for dataset in series[8:]:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 1.5]

    found = split(series, tmp_path)

    assert [len(volume.headers) for volume in found.volumes] == [4] * 4


def aside(series: Series, places: int, *steps: float) -> Series:
    """Each time so many mm further along x than it was made."""
    for index, dataset in enumerate(series):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [round(float(x) + steps[index // places], 4), y, z]
    return series


@pytest.mark.parametrize("keyword", list(TIMES)[:5])
def test_times_that_moved_within_their_plane_are_parted_by_where_they_lie(
    tmp_path: Path, keyword: str
) -> None:
    make, change = TIMES[keyword]
    series = repeated(lambda: make(4), 4, **{keyword: change})

    found = split(aside(series, 4, 0.0, 0.3, 5.0, 5.0), tmp_path)

    assert found.refused == ()
    assert [len(volume.headers) for volume in found.volumes] == [8, 8]
    members = sorted(sorted(map(int, volume.names)) for volume in found.volumes)
    assert members == [list(range(8)), list(range(8, 16))]
    for volume in found.volumes:
        assert volume.dimensions[0].indices == (1,) * 4 + (2,) * 4
        assert volume.spacing is not None
    assert len({volume.key for volume in found.volumes}) == 2


def test_times_that_drift_within_their_plane_are_volumes_of_their_own(tmp_path: Path) -> None:
    series = repeated(lambda: mr(4), 4, TemporalPositionIdentifier=lambda t, _: t + 1)

    found = split(aside(series, 4, 0.0, 0.6, 1.2, 1.8), tmp_path)

    assert found.refused == ()
    assert [len(volume.headers) for volume in found.volumes] == [4] * 4
    assert all(volume.dimensions == () for volume in found.volumes)


@pytest.mark.parametrize(("left_out", "sizes"), [(1, [3, 4]), (2, [])])
def test_a_time_that_moved_within_its_plane_has_most_of_the_places_or_is_none(
    tmp_path: Path, left_out: int, sizes: list[int]
) -> None:
    series = repeated(lambda: mr(4), 2, TemporalPositionIdentifier=lambda t, _: t + 1)

    found = split(aside(series, 4, 0.0, 5.0)[:-left_out], tmp_path)

    assert sorted(len(volume.headers) for volume in found.volumes) == sizes
    assert {each.reason for each in found.refused} <= {CollapseReason.POSITIONS_REPEATED}


def test_what_lies_beside_each_other_in_no_order_stays_single(tmp_path: Path) -> None:
    series = repeated(lambda: mr(4), 2, AcquisitionTime=lambda *_: "101010")
    for index, dataset in enumerate(series):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [float(x) + index * 0.7, y, z]

    found = split(series, tmp_path)

    assert found.volumes == ()


def test_weightings_move_too(tmp_path: Path) -> None:
    directions = [None, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    series = repeated(lambda: mr(3), 3, DiffusionBValue=lambda t, _: 1000.0 * min(t, 1))
    for index, dataset in enumerate(series):
        if direction := directions[index // 3]:
            dataset.DiffusionGradientOrientation = direction

    found = one_volume(moved(series, 0.01, 3), tmp_path)

    assert found.places == (1, 2, 3) * 3
    assert [dimension.is_temporal for dimension in found.dimensions] == [False, False]


@pytest.mark.parametrize("step", [0.01, 0.3])
def test_what_moved_is_said_as_it_is_and_comes_back(
    tmp_path: Path, step: float, environment_program: Callable[[str], str]
) -> None:
    series = moved(
        repeated(lambda: mr(4), 3, TemporalPositionIdentifier=lambda t, _: t + 1), step, 4
    )
    plain = repeated(lambda: mr(4), 3, TemporalPositionIdentifier=lambda t, _: t + 1)

    target, made = collapsed(series, tmp_path / "moved")
    image = opened(series, tmp_path / "again")

    assert ("DimensionOrganizationType" in image) == (step < 0.03)
    for frame in range(12):
        source = _of(series, image, frame)
        place = group(image, frame, "PlanePositionSequence").ImagePositionPatient
        assert place == source.ImagePositionPatient
    for (name, _), restored in zip(made.frames, restore(target, tmp_path / "out"), strict=True):
        assert restored.path is not None
        assert restored.path.read_bytes() == (tmp_path / "moved" / f"{name}.dcm").read_bytes()
    dciodvfy = environment_program("dciodvfy")
    unmoved, _ = collapsed(plain, tmp_path / "plain")
    assert errors_of(dciodvfy, target) <= errors_of(dciodvfy, unmoved)


def test_the_order_of_the_files_makes_no_difference_to_what_moved(tmp_path: Path) -> None:
    series = repeated(lambda: mr(4), 3, TemporalPositionIdentifier=lambda t, _: t + 1)
    sources = slices(moved(series, 0.02, 4), tmp_path)

    assert partition(sources) == partition(sources[::-1])


def _of(series: Series, image: Dataset, frame: int) -> Dataset:
    uid = group(image, frame, "ConversionSourceAttributesSequence").ReferencedSOPInstanceUID
    (found,) = (dataset for dataset in series if dataset.SOPInstanceUID == uid)
    return found


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag
