"""What numbers and times of acquisitions tell where slices lie at one place and declare nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scp.convert.enhanced.groups import CollapseLimits, partition
from scp.convert.enhanced.restore import restore
from scp.model import CollapseReason
from tests.convert.enhanced.library import errors_of
from tests.convert.enhanced.series import (
    Series,
    collapsed,
    ct,
    mr,
    one_volume,
    pet,
    repeated,
    slices,
    split,
)

MAKERS = pytest.mark.parametrize("make", [ct, mr, pet])


def _with_another(make: Callable[..., Series], index: int, **changes: Any) -> Series:
    """Six slices, of which one lies there a second time, last in the list."""
    series = [*make(6), make(6)[index]]
    series[6].SOPInstanceUID += ".1"
    series[6].file_meta.MediaStorageSOPInstanceUID = series[6].SOPInstanceUID
    series[6].InstanceNumber = "7"
    for keyword, value in changes.items():
        setattr(series[6], keyword, value)
    return series


@MAKERS
@pytest.mark.parametrize("index", [0, 2, 5])
@pytest.mark.parametrize("offset", [0, 0.01])
def test_a_slice_of_another_time_is_set_apart_and_the_rest_is_a_stack(
    tmp_path: Path, make: Callable[..., Series], index: int, offset: float
) -> None:
    series = _with_another(make, index, AcquisitionTime="113000")
    x, y, z = series[6].ImagePositionPatient
    series[6].ImagePositionPatient = [x, y, float(z) + offset]

    found = split(series, tmp_path)

    assert [(each.name, each.reason) for each in found.refused] == [
        ("6", CollapseReason.POSITIONS_REPEATED)
    ]
    (volume,) = found.volumes
    assert sorted(volume.names) == ["0", "1", "2", "3", "4", "5"]
    assert volume.dimensions == ()
    assert volume.spacing is not None


def test_the_rest_is_the_stack_that_it_is_without_the_slice(tmp_path: Path) -> None:
    series = _with_another(ct, 2, AcquisitionTime="113000")

    (volume,) = split(series, tmp_path / "more").volumes

    plain = one_volume(ct(6), tmp_path / "plain")
    assert (volume.key, volume.places, volume.spacing) == (plain.key, plain.places, plain.spacing)


@MAKERS
@pytest.mark.parametrize(
    "changes",
    [{}, {"InstanceNumber": "8"}, {"AcquisitionTime": "101215.015"}, {"AcquisitionTime": ""}],
    ids=["a copy", "another number", "a time between", "no time"],
)
def test_where_nothing_tells_which_slice_is_too_many_all_stay_single(
    tmp_path: Path, make: Callable[..., Series], changes: dict[str, Any]
) -> None:
    found = split(_with_another(make, 2, **changes), tmp_path)

    assert found.volumes == ()
    assert [each.reason for each in found.refused] == [CollapseReason.POSITIONS_REPEATED] * 7


def test_number_and_time_that_contradict_each_other_tell_nothing(tmp_path: Path) -> None:
    series = _with_another(mr, 2, AcquisitionTime="113000")
    series[2].AcquisitionNumber = "9"

    found = split(series, tmp_path)

    assert all(len(volume.names) != 6 for volume in found.volumes)


def test_half_a_stack_is_no_odd_slice(tmp_path: Path) -> None:
    series = repeated(lambda: ct(6), 2, AcquisitionTime=lambda t, i: f"1{t}1215.0{i}")

    found = split(series[:9], tmp_path)

    assert found.volumes == ()
    assert [each.reason for each in found.refused] == [CollapseReason.POSITIONS_REPEATED] * 9


def perfusion(times: int, **changes: Callable[[int, int], Any]) -> Series:
    """A scan of the same places at every acquisition, which has a number."""
    return repeated(
        lambda: ct(4),
        times,
        **{
            "AcquisitionNumber": lambda t, _: t + 1,
            "AcquisitionTime": lambda t, i: f"1012{10 + 2 * t:02d}.{i}0",
            **changes,
        },
    )


def test_scans_of_the_same_places_one_after_another_are_one_object_with_time(
    tmp_path: Path, environment_program: Callable[[str], str]
) -> None:
    found = one_volume(perfusion(5), tmp_path / "volume")

    (dimension,) = found.dimensions
    assert (dimension.label, dimension.is_temporal) == ("Acquisition Number", True)
    assert dimension.indices == tuple(time for time in range(1, 6) for _ in range(4))
    assert found.places == (1, 2, 3, 4) * 5
    path, made = collapsed(perfusion(5), tmp_path / "in")
    for (name, _), back in zip(made.frames, restore(path, tmp_path / "out"), strict=True):
        assert back.path is not None
        assert back.path.read_bytes() == (tmp_path / "in" / f"{name}.dcm").read_bytes()
    plain, _ = collapsed(ct(4), tmp_path / "plain")
    dciodvfy = environment_program("dciodvfy")
    assert errors_of(dciodvfy, path) <= errors_of(dciodvfy, plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"AcquisitionTime": lambda t, i: f"1012{30 - 2 * t:02d}.{i}0"},
        {"AcquisitionTime": lambda t, i: f"1012{10 + i:02d}.{t}0"},
        {"AcquisitionTime": lambda t, i: ""},
        {"KVP": lambda t, _: 80 + 20 * t},
    ],
    ids=["backwards", "at once", "no times", "energies"],
)
def test_scans_that_are_no_course_of_time_are_volumes_of_their_own(
    tmp_path: Path, changes: dict[str, Callable[[int, int], Any]]
) -> None:
    found = split(perfusion(3, **changes), tmp_path)

    assert [len(volume.names) for volume in found.volumes] == [4, 4, 4]
    assert all(volume.dimensions == () for volume in found.volumes)


def test_scans_that_are_too_few_or_not_complete_are_volumes_of_their_own(tmp_path: Path) -> None:
    two = split(perfusion(2), tmp_path / "two")
    cut = split(perfusion(3)[:-1], tmp_path / "cut")

    assert [len(volume.names) for volume in two.volumes] == [4, 4]
    assert [len(volume.names) for volume in cut.volumes] == [4, 4, 3]


def test_scans_that_together_are_too_large_are_volumes_of_their_own(tmp_path: Path) -> None:
    found = partition(slices(perfusion(3), tmp_path), CollapseLimits(max_frames=11))

    assert [len(volume.names) for volume in found.volumes] == [4, 4, 4]
