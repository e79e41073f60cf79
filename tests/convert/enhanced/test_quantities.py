"""What a reader computes from the functional groups alone is what it was in the originals."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from tests.convert.enhanced.series import (
    Series,
    changed,
    ct,
    group,
    mr,
    opened,
    pet,
    source_uids,
    unassigned,
)
from tests.material import ct_series


def _rescaled(pixels: NDArray[np.integer], parameters: Dataset) -> NDArray[np.floating]:
    return pixels * float(parameters.RescaleSlope) + float(parameters.RescaleIntercept)


def _source(series: Series, uid: str) -> Dataset:
    return next(dataset for dataset in series if dataset.SOPInstanceUID == uid)


def _signed(count: int = 5) -> Series:
    return changed(ct_series(count, 40, 56, signed=True))


def _with_slopes() -> Series:
    return ct(5, RescaleSlope=lambda i: f"{1 + i / 16}", RescaleIntercept=lambda i: f"{-1024 + i}")


@pytest.mark.parametrize("make", [ct, _signed, _with_slopes])
def test_hounsfield_units(tmp_path: Path, make: Callable[[], Series]) -> None:
    series = make()
    image = opened(series, tmp_path)

    for frame, (uid, pixels) in enumerate(zip(source_uids(image), image.pixel_array, strict=True)):
        transformation = group(image, frame, "PixelValueTransformationSequence")
        source = _source(series, uid)
        assert transformation.RescaleType == "HU"
        assert np.array_equal(
            _rescaled(pixels, transformation), _rescaled(source.pixel_array, source)
        )


@pytest.mark.parametrize(
    "change",
    [
        {"RescaleSlope": lambda i: f"{1 + i / 8}", "RescaleIntercept": lambda i: f"{-i}"},
        {"RescaleSlope": "2.5", "RescaleIntercept": "-3"},
    ],
    ids=["per frame", "shared"],
)
def test_rescaled_values_of_mr(tmp_path: Path, change: dict[str, object]) -> None:
    series = mr(5, **change)
    image = opened(series, tmp_path)

    for frame, (uid, pixels) in enumerate(zip(source_uids(image), image.pixel_array, strict=True)):
        source = _source(series, uid)
        assert np.array_equal(
            _rescaled(pixels, group(image, frame, "PixelValueTransformationSequence")),
            _rescaled(source.pixel_array, source),
        )


def test_mr_without_rescale_reads_as_its_stored_values(tmp_path: Path) -> None:
    image = opened(mr(), tmp_path)

    transformation = group(image, 3, "PixelValueTransformationSequence")
    assert (transformation.RescaleSlope, transformation.RescaleIntercept) == (1, 0)
    assert transformation.RescaleType == "US"


def _suv_per_unit(
    weight: float, radiopharmaceutical: Dataset, day: str, scan_started: str, correction: str
) -> float:
    """SUVbw of one unit of activity, in g/ml, decay corrected to the start of the scan."""
    assert correction == "START"
    injected = datetime.strptime(
        day + radiopharmaceutical.RadiopharmaceuticalStartTime, "%Y%m%d%H%M%S.%f"
    )
    started = datetime.strptime(day + scan_started, "%Y%m%d%H%M%S")
    half_lives = (started - injected).total_seconds() / float(
        radiopharmaceutical.RadionuclideHalfLife
    )
    return weight * 1000 / (float(radiopharmaceutical.RadionuclideTotalDose) * 2**-half_lives)


def test_standardised_uptake_values(tmp_path: Path) -> None:
    series = pet()
    image = opened(series, tmp_path)

    for frame, (uid, pixels) in enumerate(zip(source_uids(image), image.pixel_array, strict=True)):
        source = _source(series, uid)
        transformation = group(image, frame, "PixelValueTransformationSequence")
        others = unassigned(image, frame)
        factor = _suv_per_unit(
            float(image.PatientWeight),
            others.RadiopharmaceuticalInformationSequence[0],
            image.SeriesDate,
            image.SeriesTime,
            others.DecayCorrection,
        )
        expected = _suv_per_unit(
            float(source.PatientWeight),
            source.RadiopharmaceuticalInformationSequence[0],
            source.SeriesDate,
            source.SeriesTime,
            source.DecayCorrection,
        )
        assert transformation.RescaleType == others.Units == "BQML"
        assert np.array_equal(
            _rescaled(pixels, transformation) * factor,
            _rescaled(source.pixel_array, source) * expected,
        )


@pytest.mark.parametrize("make", [ct, mr, pet])
def test_places_sizes_and_times_of_the_pixels(tmp_path: Path, make: Callable[[], Series]) -> None:
    series = make()
    image = opened(series, tmp_path)

    for frame, uid in enumerate(source_uids(image)):
        source = _source(series, uid)
        measures = group(image, frame, "PixelMeasuresSequence")
        content = group(image, frame, "FrameContentSequence")
        orientation = group(image, frame, "PlaneOrientationSequence").ImageOrientationPatient
        begun = float(source.AcquisitionDate + source.AcquisitionTime)
        position = group(image, frame, "PlanePositionSequence").ImagePositionPatient
        assert position == source.ImagePositionPatient
        assert orientation == source.ImageOrientationPatient
        assert measures.PixelSpacing == source.PixelSpacing
        assert measures.SliceThickness == source.SliceThickness
        assert float(measures.SpacingBetweenSlices) == float(source.SpacingBetweenSlices)
        assert float(content.FrameAcquisitionDateTime) == begun
