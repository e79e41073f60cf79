"""Real series: collapsed and given back, or single-frame with a reason."""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from scp.config.schema import Htj2kSection
from scp.convert.enhanced.collapsed import Collapsed
from scp.convert.enhanced.eligible import MODALITIES
from scp.convert.enhanced.restore import restore, verify_collapsed
from scp.convert.enhanced.slices import SourceSlice
from scp.convert.refusals import NotConvertibleError
from scp.convert.transcode import transcode
from tests.convert.enhanced.library import errors_of, highdicom_alone
from tests.convert.enhanced.series import ENCODER, collapsed_series, group

FRAMES: dict[str, list[int]] = {
    "dcm_qa_ct": [28],
    "dcm_qa_nih": [90],  # over 6 times
    "dicom-test-files": [3, 20],
    "highdicom": [],
    "ohif-dicomweb": [135],
    "pydicom-data": [],
    "pydicom-pkg": [2, 3, 4],
    "suyashkumar": [],
}
"""The objects that each folder's series become, by their number of frames."""


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """Real files are full of values that pydicom warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _series_in(folder: Path) -> list[list[Path]]:
    """The files of each CT, MR and PET series."""
    found: dict[tuple[str, str], list[Path]] = {}
    tags = ["SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=tags)
        except InvalidDicomError:
            continue
        if dataset.get("SOPClassUID") in MODALITIES:
            key = (str(dataset.get("StudyInstanceUID")), str(dataset.get("SeriesInstanceUID")))
            found.setdefault(key, []).append(path)
    return list(found.values())


def _encoded(paths: list[Path], folder: Path) -> list[SourceSlice]:
    """Those that can be encoded at all."""
    folder.mkdir()
    made: list[SourceSlice] = []
    for number, path in enumerate(paths):
        target = folder / f"{number}.htj2k"
        try:
            result = transcode(path, target, Htj2kSection(), ENCODER, None)
        except NotConvertibleError:
            continue
        made.append(
            SourceSlice(
                name=str(path),
                path=path,
                encoded=target,
                dataset_sha256=result.source.dataset,
                pixel_sha256=result.pixel_sha256,
            )
        )
    return made


@pytest.mark.parametrize("folder", FRAMES)
def test_every_real_series_is_collapsed_and_comes_back_or_has_a_reason(
    corpus: Path, tmp_path: Path, folder: str, environment_program: Callable[[str], str]
) -> None:
    sizes: list[int] = []
    for number, paths in enumerate(_series_in(corpus / folder)):
        place = tmp_path / str(number)
        sources = _encoded(paths, place)
        objects, refused = collapsed_series(sources, place)
        names = [name for _, one in objects for name, _ in one.frames]
        names += [each.name for each in refused]
        assert Counter(names) == Counter(source.name for source in sources)
        for path, one in objects:
            sizes.append(len(one.frames))
            _check_frames(path, one)
            _check_restored(path, one, place / f"out-{one.sop_instance_uid}")
            _check_header(environment_program("dciodvfy"), path, one)
            assert one.record_bytes <= 1024 * len(one.frames)

    assert sorted(sizes) == FRAMES[folder]


def _check_frames(path: Path, made: Collapsed) -> None:
    image = dcmread(path)
    for number, ((name, _), frame) in enumerate(zip(made.frames, image.pixel_array, strict=True)):
        source = dcmread(name)
        assert np.array_equal(source.pixel_array, frame), name
        # What a reader of the standard functional groups makes of the stored values.
        read = group(image, number, "PixelValueTransformationSequence")
        assert float(read.RescaleSlope) == float(source.get("RescaleSlope", 1)), name
        assert float(read.RescaleIntercept) == float(source.get("RescaleIntercept", 0)), name
        place = group(image, number, "PlanePositionSequence").ImagePositionPatient
        assert place == source.ImagePositionPatient, name
        units = {"CT": "HU", "PT": source.get("Units")}.get(source.Modality)
        assert units in (None, read.RescaleType), name
    assert [checked.fault for checked in verify_collapsed(path)] == [""] * len(made.frames)


def _check_restored(path: Path, made: Collapsed, out: Path) -> None:
    for (name, _), restored in zip(made.frames, restore(path, out), strict=True):
        assert (restored.fault, restored.warning) == ("", "")
        assert restored.path is not None
        before, after = dcmread(name), dcmread(restored.path)
        assert restored.is_byte_identical != before.file_meta.TransferSyntaxUID.is_compressed
        if restored.is_byte_identical:
            assert Path(name).read_bytes() == restored.path.read_bytes()
            continue
        assert np.array_equal(before.pixel_array, after.pixel_array)
        del before.PixelData, after.PixelData
        assert before == after


def _check_header(dciodvfy: str, path: Path, made: Collapsed) -> None:
    theirs = path.with_suffix(".theirs")
    highdicom_alone([dcmread(name) for name, _ in made.frames]).save_as(theirs)

    assert errors_of(dciodvfy, path) <= errors_of(dciodvfy, theirs)
