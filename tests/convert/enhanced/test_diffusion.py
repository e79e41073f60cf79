"""Diffusion weighting that only the vendor's own elements tell."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from tests.convert.enhanced.series import Series, mr, one_volume, opened, repeated, unassigned

DIRECTIONS = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
B_VALUES = [0, 1000, 1000]


def siemens(dataset: Dataset, b_value: int, direction: tuple[float, ...]) -> None:
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", str(b_value))
    if b_value:
        block.add_new(0x0E, "FD", list(direction))


def ge(dataset: Dataset, b_value: int, direction: tuple[float, ...]) -> None:
    dataset.private_block(0x0019, "SOMETHING ELSE", create=True).add_new(0x0C, "IS", "77")
    dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(
        0x39, "IS", [str(10**9 + b_value if b_value else 0), "8", "0", "0"]
    )
    block = dataset.private_block(0x0019, "GEMS_ACQU_01", create=True)
    for element, part in zip((0xBB, 0xBC, 0xBD), direction, strict=True):
        block.add_new(element, "DS", str(part))


def philips(dataset: Dataset, b_value: int, direction: tuple[float, ...]) -> None:
    dataset.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(
        0x03, "FL", float(b_value)
    )
    block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
    for element, part in zip((0xB0, 0xB1, 0xB2), direction, strict=True):
        block.add_new(element, "FL", part)


def as_unknown(dataset: Dataset, b_value: int, direction: tuple[float, ...]) -> None:
    """As it comes out of Implicit VR where nobody knows the element."""
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    text = str(b_value).encode()
    block.add_new(0x0C, "UN", text + b" " * (len(text) % 2))
    block.add_new(0x0E, "UN", struct.pack("<3d", *direction))


type Vendor = Callable[[Dataset, int, tuple[float, ...]], None]
VENDORS = pytest.mark.parametrize("vendor", [siemens, ge, philips, as_unknown])
# Another block of group 0019 comes first in this material.
POINTERS: dict[Any, tuple[int, str]] = {
    siemens: (0x0019110C, "SIEMENS MR HEADER"),
    ge: (0x00431039, "GEMS_PARM_01"),
    philips: (0x20011003, "Philips Imaging DD 001"),
    as_unknown: (0x0019110C, "SIEMENS MR HEADER"),
}


def weighted(vendor: Vendor) -> Series:
    """Three slices, without weighting and with it in two directions."""
    series = repeated(lambda: mr(3), 3)
    for number, dataset in enumerate(series):
        vendor(dataset, B_VALUES[number // 3], DIRECTIONS[number // 3])
    return series


@VENDORS
def test_b_values_and_directions_of_vendors_tell_slices_at_one_place_apart(
    tmp_path: Path, vendor: Vendor
) -> None:
    found = one_volume(weighted(vendor), tmp_path)

    b_value, direction = found.dimensions
    assert b_value.indices == (1, 1, 1, 2, 2, 2, 2, 2, 2)
    assert len(set(direction.indices)) == 3
    assert (b_value.pointer, b_value.creator) == POINTERS[vendor]
    assert not b_value.is_temporal


@VENDORS
def test_the_dimension_points_to_the_vendors_element(tmp_path: Path, vendor: Vendor) -> None:
    image = opened(weighted(vendor), tmp_path)

    dimension = image.DimensionIndexSequence[0]
    tag, creator = POINTERS[vendor]
    assert dimension.DimensionIndexPointer == tag
    assert dimension.DimensionIndexPrivateCreator == creator
    assert dimension.FunctionalGroupPointer == 0x00209171
    for frame in range(9):
        assert tag in unassigned(image, frame)


def test_the_standards_own_attribute_comes_first(tmp_path: Path) -> None:
    series = weighted(siemens)
    for number, dataset in enumerate(series):
        dataset.DiffusionBValue = (700.0, 0.0, 700.0)[number // 3]

    b_value, _ = one_volume(series, tmp_path).dimensions

    assert (b_value.pointer, b_value.creator) == (0x00189087, "")
    assert b_value.indices[:3] == (1, 1, 1)


def test_images_without_weighting_may_be_taken_twice(tmp_path: Path) -> None:
    series = repeated(lambda: mr(3), 3, AcquisitionNumber=lambda time, _: time + 1)
    for number, dataset in enumerate(series):
        siemens(dataset, (0, 0, 800)[number // 3], DIRECTIONS[1])

    found = one_volume(series, tmp_path)

    assert len(found.headers) == 9
    assert max(found.dimensions[0].indices) == 2


@pytest.mark.parametrize(
    "time",
    [
        {"TemporalPositionIdentifier": lambda t, _: t + 1},
        {"TriggerTime": lambda t, i: 20.0 + 1900 * t + i},
        {"FrameReferenceTime": lambda t, _: 1000.0 * t},
    ],
    ids=lambda time: next(iter(time)),
)
@VENDORS
def test_weightings_with_times_of_their_own_are_no_times(
    tmp_path: Path, vendor: Vendor, time: dict[str, Callable[[int, int], Any]]
) -> None:
    series = repeated(lambda: mr(3), 3, **time)
    for number, dataset in enumerate(series):
        vendor(dataset, B_VALUES[number // 3], DIRECTIONS[number // 3])

    image = opened(series, tmp_path)

    assert [d.DimensionDescriptionLabel for d in image.DimensionIndexSequence] == [
        "Diffusion b-value",
        "Diffusion Gradient Orientation",
        "In-Stack Position Number",
    ]
    assert "DimensionOrganizationType" not in image


@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "TriggerTime"])
def test_weightings_without_directions_are_told_apart_by_time_and_stay_a_dimension(
    tmp_path: Path, keyword: str
) -> None:
    series = repeated(
        lambda: mr(3),
        3,
        DiffusionBValue=lambda t, _: 1000.0 * min(t, 1),
        **{keyword: lambda t, _: t + 1},
    )

    image = opened(series, tmp_path)

    labels = {d.DimensionDescriptionLabel for d in image.DimensionIndexSequence}
    assert "Diffusion b-value" in labels
    assert len(labels) == 3
    assert "DimensionOrganizationType" not in image


def test_directions_that_nobody_tells_are_not_said_to_be_times(tmp_path: Path) -> None:
    series = repeated(
        lambda: mr(3),
        3,
        ImageType=lambda *_: ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"],
        TemporalPositionIdentifier=lambda t, _: t + 1,
    )

    image = opened(series, tmp_path)

    assert len(image.DimensionIndexSequence) == 2
    assert "DimensionOrganizationType" not in image


def test_directions_of_one_b_value_are_no_times_either(tmp_path: Path) -> None:
    series = repeated(
        lambda: mr(3),
        3,
        DiffusionBValue=lambda *_: 1000.0,
        DiffusionGradientOrientation=lambda t, _: [float(t == axis) for axis in range(3)],
        TriggerTime=lambda t, _: 20.0 + 1900 * t,
    )

    (direction,) = one_volume(series, tmp_path).dimensions

    assert direction.label == "Diffusion Gradient Orientation"
