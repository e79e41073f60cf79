"""Series converted from Python: everything is proved or left out with its reason, and nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from scp.config.schema import CodecSection
from scp.convert.enhanced.restore import restore
from scp.errors import UsageError
from scp.pipeline.series import SeriesConverter
from tests.material import ct_series, write
from tests.pipeline.software_gpus import SoftwareGpus

COUNT = 4


@pytest.fixture(scope="module")
def converter() -> Iterator[SeriesConverter]:
    with SeriesConverter(codec=CodecSection(workers=2)) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "in").mkdir()
    return [write(one, tmp_path / "in") for one in ct_series(COUNT, 48, 64)]


def test_each_file_has_its_result_in_order(
    converter: SeriesConverter, files: list[Path], tmp_path: Path
) -> None:
    before = [file.read_bytes() for file in files]

    converted = converter.transcode(files, tmp_path / "out")

    assert [each.source for each in converted] == files
    for each in converted:
        assert each.target == tmp_path / "out" / each.source.name
        assert (each.reason, each.outcome.verified_by != "") == ("", True)
        assert np.array_equal(dcmread(each.target).pixel_array, dcmread(each.source).pixel_array)
    assert [file.read_bytes() for file in files] == before


def test_what_cannot_be_converted_is_said_and_leaves_nothing(
    converter: SeriesConverter, files: list[Path], tmp_path: Path
) -> None:
    odd = tmp_path / "in" / "odd.dcm"
    odd.write_bytes(b"no DICOM at all")

    converted = converter.transcode([odd, *files, tmp_path / "missing"], tmp_path / "out")

    assert [each.target is not None for each in converted] == [False, *[True] * COUNT, False]
    assert converted[0].reason == converted[-1].reason == "unreadable"
    assert len(list((tmp_path / "out").iterdir())) == COUNT


def test_a_series_becomes_one_object_that_gives_its_sources_back(
    converter: SeriesConverter, files: list[Path], tmp_path: Path
) -> None:
    odd = tmp_path / "in" / "odd.dcm"
    odd.write_bytes(b"no DICOM at all")

    made = converter.collapse([*files, odd], tmp_path / "out")

    ((path, _),) = made.volumes
    assert list((tmp_path / "out").iterdir()) == [path]
    assert made.left_out == {odd: "unreadable"}
    assert all(each.is_byte_identical for each in restore(path, tmp_path / "again"))
    again = sorted(file.read_bytes() for file in (tmp_path / "again").rglob("*") if file.is_file())
    assert again == sorted(file.read_bytes() for file in files)


def test_what_this_product_has_transcoded_becomes_an_object_of_the_same_codestreams(
    converter: SeriesConverter, files: list[Path], tmp_path: Path
) -> None:
    transcoded = [
        each.target for each in converter.transcode(files[1:], tmp_path / "htj2k") if each.target
    ]

    made = converter.collapse([files[0], *transcoded], tmp_path / "out")

    ((path, volume),) = made.volumes
    assert (len(volume.frames), made.left_out) == (COUNT, {})
    assert all(each.is_byte_identical for each in restore(path, tmp_path / "again"))
    again = sorted(file.read_bytes() for file in (tmp_path / "again").iterdir())
    assert again == sorted(file.read_bytes() for file in (files[0], *transcoded))


def test_what_cannot_be_collapsed_is_left_out_with_its_reason(
    converter: SeriesConverter, files: list[Path], tmp_path: Path
) -> None:
    made = converter.collapse(files[:1], tmp_path / "out")

    assert (made.volumes, made.left_out) == ((), {files[0]: "single_slice"})
    assert converter.collapse([], tmp_path / "out").left_out == {}


def test_no_result_may_take_the_place_of_another_or_of_its_source(
    converter: SeriesConverter, files: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="two files are called"):
        converter.transcode([files[0], tmp_path / "other" / files[0].name], tmp_path / "out")
    with pytest.raises(UsageError, match="may not mix"):
        converter.transcode(files, tmp_path / "in")
    with pytest.raises(UsageError, match="may not mix"):
        converter.collapse(files, tmp_path / "in")


def test_a_gpu_takes_part_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    software = SoftwareGpus(tmp_path / "software", monkeypatch)
    (tmp_path / "in").mkdir()
    files = [write(one, tmp_path / "in") for one in ct_series(2, 2048, 1024)]

    with SeriesConverter(codec=CodecSection(workers=1)) as converter:
        converter.wait_until_ready()
        converted = converter.transcode(files, tmp_path / "out")

    assert {each.outcome.verified_by for each in converted} == {software.library}
