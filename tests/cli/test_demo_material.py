"""The generated images are valid, reproducible and as compressible as real ones."""

import subprocess
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from tests.material import (
    colour_image,
    ct_series,
    mr_series,
    pet_series,
    radiograph,
    write,
    write_all,
)


def _kinds() -> dict[str, FileDataset]:
    return {
        "ct": next(ct_series(1)),
        "signed ct": next(ct_series(1, signed=True)),
        "mr": next(mr_series(1)),
        "pet": next(pet_series(1)),
        "ultrasound": colour_image(),
        "planar ultrasound": colour_image(planar=True),
        "cine": colour_image(rows=120, columns=160, frames=5),
        "radiograph": radiograph(),
    }


KINDS = list(_kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_valid_dicom_and_reads_back_equal(
    kind: str, tmp_path: Path, environment_program: Callable[[str], str]
) -> None:
    dataset = _kinds()[kind]

    path = write(dataset, tmp_path)

    assert dcmread(path) == dataset
    judged = subprocess.run(
        [environment_program("dciodvfy"), str(path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    errors = [line for line in judged.stderr.splitlines() if line.startswith("Error")]
    assert errors == []


def test_a_series_shares_its_uids_and_each_slice_lies_below_the_one_before() -> None:
    slices = list(ct_series(4, rows=64, columns=64))

    assert len({dataset.SeriesInstanceUID for dataset in slices}) == 1
    assert len({dataset.FrameOfReferenceUID for dataset in slices}) == 1
    assert len({dataset.SOPInstanceUID for dataset in slices}) == 4
    heights = [float(dataset.ImagePositionPatient[2]) for dataset in slices]
    assert all(upper > lower for upper, lower in pairwise(heights))


def test_no_two_slices_have_equal_pixels() -> None:
    slices = [dataset.PixelData for dataset in mr_series(6)]

    assert len(set(slices)) == 6


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    (first,) = write_all(ct_series(1, rows=64, columns=64, seed=3), tmp_path / "a")
    (again,) = write_all(ct_series(1, rows=64, columns=64, seed=3), tmp_path / "b")
    (other,) = write_all(ct_series(1, rows=64, columns=64, seed=4), tmp_path / "c")

    assert first.name == again.name
    assert first.read_bytes() == again.read_bytes()
    assert other.name != first.name


def test_a_slice_may_be_changed_without_changing_the_next() -> None:
    series = ct_series(2, rows=64, columns=64)

    next(series).PatientName = "Changed"

    assert next(series).PatientName != "Changed"


def test_headers_are_as_full_as_a_scanner_s() -> None:
    dataset = next(ct_series(1))

    assert len(dataset) >= 60
    assert any(element.tag.is_private for element in dataset)
    assert any(element.VR == "SQ" for element in dataset)


def test_pixels_are_neither_trivial_nor_noise() -> None:
    pixels = next(ct_series(1)).PixelData

    assert 1.3 < len(pixels) / len(zlib.compress(pixels, 1)) < 3.0
