"""dcmpress transcode over files that are there already, and dcmpress verify over what it made."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.cli.conftest import Dcmpress
from tests.conftest import REPOSITORY
from tests.e2e.judges import assert_converted, dataset_bytes
from tests.e2e.node import COMMAND, is_alive, until
from tests.material import colour_image, ct_series, write_all

pytestmark = pytest.mark.xdist_group("cli transcode")

CONFIG = """\
codec: {workers: 1}
node: {data: %s}
destinations: {archive: {kind: folder, path: %s}}
default: {send_to: [archive]}
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series in folders of their own, one image that is passed, a text."""
    folder = tmp_path_factory.mktemp("sources")
    write_all(ct_series(4, 64, 64, seed=901), folder / "study" / "ct")
    write_all([colour_image(40, 60, seed=902)], folder / "study" / "us")
    shutil.copy(str(get_testdata_file("JPEG-lossy.dcm", download=False)), folder / "lossy.dcm")
    (folder / "notes.txt").write_text("no DICOM")
    (folder / "empty").touch()
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "dcmpress.yaml"
    file.write_text(CONFIG % (tmp_path / "data", tmp_path / "archive"))
    return file


def transcode(dcmpress: Dcmpress, sources: Path, out: Path, config: Path, code: int = 0) -> Any:
    said = dcmpress("transcode", sources, out, "-c", config, "--json", code=code)
    return json.loads(said[: said.rindex("}") + 1])


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file that is not hidden, its size and time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_tree_is_converted_into_one_of_the_same_shape(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"

    summary = transcode(dcmpress, sources, out, config)

    dicom = sorted(sources.rglob("*.dcm"))
    assert list(tree(out)) == sorted(str(path.relative_to(sources)) for path in dicom)
    for path in dicom:
        made = out / path.relative_to(sources)
        if path.name == "lossy.dcm":
            assert dataset_bytes(made) == dataset_bytes(path)
        else:
            assert_converted(path, made)
    groups = {(g["modality"], g["form"], g["reason"]): g["instances"] for g in summary["groups"]}
    modality = str(pydicom.dcmread(sources / "lossy.dcm").get("Modality", ""))
    assert groups == {
        ("", "not_dicom", ""): 2,
        ("CT", "htj2k", ""): 4,
        (modality, "original", "lossy_source"): 1,
        ("US", "htj2k", ""): 1,
    }
    assert summary["failed"] == []
    assert summary["already_done"] == 0


def test_what_is_done_is_not_done_again(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(sources, mine)
    out = tmp_path / "out"
    transcode(dcmpress, mine, out, config)
    first = tree(out)
    changed = next(mine.rglob("ct/*.dcm"))
    os.utime(changed)

    again = transcode(dcmpress, mine, out, config)
    said = dcmpress("transcode", mine, out, "-c", config, "--csv")

    in_csv = list(csv.DictReader(io.StringIO(said)))
    assert in_csv == [{k: str(v) for k, v in group.items()} for group in again["groups"]]
    second = tree(out)
    assert again["already_done"] == 7
    assert {name for name in second if second[name] != first[name]} == {
        str(changed.relative_to(mine))
    }
    assert sum(group["instances"] for group in again["groups"]) == 8


@pytest.mark.timeout(240)
def test_after_kill_9_it_goes_on_where_it_was(
    dcmpress: Dcmpress, tmp_path: Path, config: Path
) -> None:
    sources = tmp_path / "sources"
    write_all(ct_series(24, 384, 384, seed=903), sources)
    out = tmp_path / "out"
    running = subprocess.Popen(
        [*COMMAND, "transcode", str(sources), str(out), "-c", str(config)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    until(lambda: len(tree(out)) >= 5 if out.exists() else False, "nothing is converted")
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()

    running.send_signal(signal.SIGKILL)

    running.wait()
    until(lambda: not any(is_alive(int(child)) for child in children), "workers outlive it", 10)
    done = tree(out)
    summary = transcode(dcmpress, sources, out, config)
    # The last one may have got its name and not its line in the record: it is done again.
    assert len(done) - 1 <= summary["already_done"] < 24
    assert tree(out).items() >= done.items()
    for path in sorted(sources.iterdir()):
        assert_converted(path, out / path.name)
    assert not list(out.glob(".*.part"))
    dcmpress("verify", out, "-c", config)


def test_results_may_not_mix_with_sources(dcmpress: Dcmpress, sources: Path, config: Path) -> None:
    for target in (sources, sources / "study" / "out"):
        assert "may not mix" in dcmpress("transcode", sources, target, "-c", config, code=2)


def test_a_file_that_is_there_already_is_not_replaced(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "lossy.dcm").write_text("somebody else's")

    summary = transcode(dcmpress, sources, out, config, code=1)

    assert (out / "lossy.dcm").read_text() == "somebody else's"
    (failure,) = summary["failed"]
    assert "was not made from" in failure
    assert sum(group["instances"] for group in summary["groups"]) == 7


def test_one_file_can_be_converted(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    source = next(sources.rglob("us/*.dcm"))

    said = dcmpress("transcode", source, tmp_path / "out", "-c", config)

    assert_converted(source, tmp_path / "out" / source.name)
    assert "US" in said


def test_verify_tells_good_from_different_and_unknown(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)

    assert dcmpress("verify", out, "-c", config).count(": good: ") == 6
    spoiled = next(out.rglob("ct/*.dcm"))
    content = bytearray(spoiled.read_bytes())
    content[-100] ^= 1
    spoiled.write_bytes(content)
    shutil.copy(sources / "lossy.dcm", out / "added.dcm")

    said = dcmpress("verify", out, "-c", config, "--json", code=1)

    verdicts = {
        Path(entry["path"]).relative_to(out): entry["verdict"]
        for entry in json.loads(said[: said.rindex("]") + 1])
    }
    assert verdicts.pop(spoiled.relative_to(out)) == "different"
    assert verdicts.pop(Path("added.dcm")) == "unknown"
    assert set(verdicts.values()) == {"good"}
    assert "2 of 7 files are not what was recorded" in said


def test_one_file_can_be_converted_into_a_folder_beside_it(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    source = tmp_path / "us.dcm"
    shutil.copy(next(sources.rglob("us/*.dcm")), source)

    dcmpress("transcode", source, tmp_path / "out", "-c", config)
    said = dcmpress("transcode", source, tmp_path, "-c", config, code=2)

    assert_converted(source, tmp_path / "out" / "us.dcm")
    assert "may not mix" in said


@pytest.mark.parametrize("size", [-1, 1], ids=["cut short", "grown"])
def test_a_result_of_another_size_than_recorded_is_made_again(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path, size: int
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    first = {path: path.read_bytes() for path in out.rglob("*.dcm")}
    damaged, other = sorted(first)[:2]
    os.truncate(damaged, len(first[damaged]) + size)
    other.unlink()
    os.mkfifo(other)

    summary = transcode(dcmpress, sources, out, config)

    assert summary["already_done"] == 6
    assert {path: path.read_bytes() for path in out.rglob("*.dcm")} == first
    assert dcmpress("verify", out, "-c", config).count(": good: ") == 6


def test_what_was_no_dicom_file_replaces_nothing_when_it_has_become_one(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.mkdir()
    (mine / "a").write_text("no DICOM")
    transcode(dcmpress, mine, out, config)
    (out / "a").write_text("somebody else's")
    shutil.copy(next(sources.rglob("us/*.dcm")), mine / "a")

    summary = transcode(dcmpress, mine, out, config, code=1)

    assert "was not made from" in summary["failed"][0]
    assert (out / "a").read_text() == "somebody else's"


def verdicts(said: str) -> dict[str, str]:
    found = json.loads(said[: said.rindex("]") + 1])
    return {entry["path"]: entry["verdict"] for entry in found}


def test_verify_misses_what_transcode_has_recorded_and_is_gone(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "in" / "out"
    transcode(dcmpress, sources, out, config)
    gone, *others = sorted((out / "study" / "ct").iterdir())
    (other,) = (out / "study" / "us").iterdir()
    gone.unlink()

    for asked in (tmp_path / "in", out, out / "study", out / "study" / "ct", gone):
        said = dcmpress("verify", asked, "-c", config, "--json", code=1)

        missing = [path for path, verdict in verdicts(said).items() if verdict == "missing"]
        assert missing == [str(gone)]
        assert "1 of " in said
    for asked in (out / "study" / "us", out / "lossy.dcm", other, *others):
        assert "missing" not in dcmpress("verify", asked, "-c", config)
    said = dcmpress("verify", out, "-c", config, code=1)
    assert f"{gone}: missing: transcode has written it, and it is gone\n" in said


def test_verify_misses_what_lay_in_a_folder_that_is_gone(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    shutil.rmtree(out / "study")

    said = dcmpress("verify", out / "study", "-c", config, "--json", code=1)

    assert list(verdicts(said).values()) == ["missing"] * 5
    assert "no such file or folder" in dcmpress("verify", out / "none", "-c", config, code=2)


def test_a_record_that_is_none_names_nothing(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    with (out / ".dcmpress.jsonl").open("a") as record:
        for source in ("5", "[]", "null", '"../elsewhere.dcm"', f'"{tmp_path / "elsewhere.dcm"}"'):
            record.write(
                f'{{"source": {source}, "source_bytes": 1, "source_mtime_ns": 1, '
                '"modality": "", "form": "htj2k"}\n'
            )
        record.write("[" * 100_000 + "\n")

    assert dcmpress("verify", out, "-c", config).count(": good: ") == 6
