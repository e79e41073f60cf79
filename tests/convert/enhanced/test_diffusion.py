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
