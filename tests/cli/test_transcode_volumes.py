"""dcmpress transcode where the rules want objects of whole series, and what verify says of those."""

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pydicom
import pytest

from scp.cli.manifest import MANIFEST, read_manifest
from scp.convert.enhanced.record import SIDECAR_SUFFIX
from tests.cli.conftest import Dcmpress
from tests.conftest import REPOSITORY
from tests.e2e.node import COMMAND, until
from tests.material import colour_image, ct_series, mr_series, write_all

pytestmark = pytest.mark.xdist_group("cli transcode volumes")

CONFIG = """\
codec: {workers: 1}
node: {data: %s}
destinations: {archive: {kind: folder, path: %s}}
enhanced: {restore_record: %s}
rules:
  - {name: kept, match: {Modality: US}, convert: original, send_to: [archive]}
  - {name: short, match: {Modality: MR, instances: {le: 3}}, send_to: [archive]}
  - {name: volumes, match: {Modality: [CT, MR]}, convert: enhanced, send_to: [archive]}
default: {send_to: [archive]}
"""
CT = 5


def config_in(folder: Path, record: str = "embedded") -> Path:
    file = folder / "dcmpress.yaml"
    file.write_text(CONFIG % (folder / "data", folder / "archive", record))
    return file


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return config_in(tmp_path)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A CT series in two folders, with a localizer; an MR series that is too short; an ultrasound image."""
    folder = tmp_path / "in"
    slices = list(ct_series(CT + 1, 48, 48, seed=921))
    slices[CT].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_all(slices[:2], folder / "study" / "ct" / "first")
    write_all(slices[2:], folder / "study" / "ct" / "second")
    write_all(mr_series(3, 48, 48, seed=922), folder / "study" / "mr")
    write_all([colour_image(40, 60, seed=923)], folder / "study" / "us")
    return folder


def transcode(dcmpress: Dcmpress, sources: Path, out: Path, config: Path, code: int = 0) -> Any:
    said = dcmpress("transcode", sources, out, "-c", config, "--json", code=code)
    return json.loads(said[: said.rindex("}") + 1])


def groups(summary: Any) -> dict[tuple[str, str, str], int]:
    return {
        (each["modality"], each["form"], each["reason"] or each["not_collapsed"]): each["instances"]
        for each in summary["groups"]
    }


def files_in(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    )


def the_volume(out: Path) -> Path:
    (name,) = read_manifest(out).volumes
    return out / name


def verdicts(dcmpress: Dcmpress, out: Path, config: Path, code: int = 0) -> Counter[str]:
    said = dcmpress("verify", out, "-c", config, "--json", code=code)
    return Counter(each["verdict"] for each in json.loads(said[: said.rindex("]") + 1]))


def test_what_the_rules_want_as_one_object_becomes_one(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"

    summary = transcode(dcmpress, sources, out, config)

    assert groups(summary) == {
        ("CT", "enhanced", ""): CT,
        ("CT", "htj2k", "localizer"): 1,
        ("MR", "htj2k", ""): 3,
        ("US", "original", "rule_says_original"): 1,
    }
    volume = the_volume(out)
    assert volume.parent == out / "study" / "ct"
    assert pydicom.dcmread(volume).NumberOfFrames == CT
    assert len(files_in(out)) == 1 + 1 + 3 + 1
    assert not (out / "study" / "ct" / "first").exists()
    dcmpress("restore", volume, tmp_path / "back")
    originals = [p for p in (sources / "study" / "ct").rglob("*.dcm")]
    back = {path.read_bytes() for path in (tmp_path / "back").iterdir()}
    assert len(back & {path.read_bytes() for path in originals}) == CT
    entries = read_manifest(out).entries.values()
    assert sum(e.result_bytes for e in entries if e.volume) == volume.stat().st_size
    assert sorted(e.frame for e in entries if e.volume) == list(range(1, CT + 1))
    assert verdicts(dcmpress, out, config) == {"good": 6}


def test_a_series_that_is_done_is_not_done_again_and_what_comes_later_is_late(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    before = the_volume(out).stat().st_mtime_ns
    write_all(list(ct_series(CT + 3, 48, 48, seed=921))[CT + 1 :], sources / "study" / "late")

    again = transcode(dcmpress, sources, out, config)

    assert again["already_done"] == CT + 5
    assert groups(again)["CT", "htj2k", "late_instance"] == 2
    assert the_volume(out).stat().st_mtime_ns == before


def test_a_volume_that_is_gone_is_missed_and_made_again(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    volume = the_volume(out)
    content = volume.read_bytes()
    volume.unlink()
    assert verdicts(dcmpress, out, config, code=1) == {"good": 5, "missing": 1}

    transcode(dcmpress, sources, out, config)

    assert the_volume(out).read_bytes() == content


def test_a_record_that_was_cut_in_the_middle_of_a_series_is_made_good(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    volume = the_volume(out)
    content = volume.read_bytes()
    lines = (out / MANIFEST).read_bytes().splitlines(keepends=True)
    at = next(
        number for number, line in enumerate(lines) if b'"source_series_instance_uid"' in line
    )
    (out / MANIFEST).write_bytes(b"".join(lines[: at - 1]) + lines[at - 1][:20])

    summary = transcode(dcmpress, sources, out, config)

    assert groups(summary)["CT", "enhanced", ""] == CT
    assert the_volume(out) == volume
    assert volume.read_bytes() == content
    assert verdicts(dcmpress, out, config) == {"good": 6}


def coded_otherwise(config: Path) -> None:
    """As on a node with another encoder: what it gives has other bytes, and the same pixels."""
    config.write_text(config.read_text() + "htj2k: {code_block: [32, 32]}\n")


@pytest.mark.parametrize("record", ["embedded", "sidecar", "none"])
def test_results_whose_record_was_lost_are_known_again_by_what_they_are(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, record: str
) -> None:
    config, out = config_in(tmp_path, record), tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    before = {name: (out / name).read_bytes() for name in files_in(out)}
    (out / MANIFEST).unlink()
    coded_otherwise(config)

    summary = transcode(dcmpress, sources, out, config)

    assert groups(summary)["CT", "enhanced", ""] == CT
    assert files_in(out) == sorted(before)
    assert the_volume(out).read_bytes() != before[str(the_volume(out).relative_to(out))]
    assert set(verdicts(dcmpress, out, config)) == {"good"}


def test_a_result_without_a_record_that_has_another_header_or_pixel_is_not_replaced(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    volume = the_volume(out)
    first, second, *_ = sorted((out / "study" / "mr").iterdir())
    changed = pydicom.dcmread(first)
    changed.PatientID = "corrected"
    changed.save_as(first)
    shutil.copy(sorted((sources / "study" / "mr").iterdir())[2], second)
    content = bytearray(volume.read_bytes())
    content[-200] ^= 1  # Of the last frame's codestream.
    volume.write_bytes(content)
    there = {path: path.read_bytes() for path in (first, second, volume)}
    (out / MANIFEST).unlink()
    coded_otherwise(config)

    summary = transcode(dcmpress, sources, out, config, code=1)

    assert {path: path.read_bytes() for path in there} == there
    assert len(summary["failed"]) == CT + 2  # Every file without a result is one.
    assert all("is there and was not made from" in each for each in summary["failed"])


def test_an_object_without_a_record_whose_patient_was_corrected_is_not_replaced(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    volume = the_volume(out)
    changed = pydicom.dcmread(volume)
    changed.PatientID = "corrected"
    changed.save_as(volume)
    content = volume.read_bytes()
    (out / MANIFEST).unlink()

    summary = transcode(dcmpress, sources, out, config, code=1)

    assert volume.read_bytes() == content
    assert len(summary["failed"]) == CT
    assert all(str(volume) in each for each in summary["failed"])


def test_an_original_without_a_record_is_replaced_by_what_is_made_of_it(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    """Where the run before had lost its worker. Colour has another header in HTJ2K."""
    config.write_text(config.read_text().replace("convert: original", "convert: htj2k"))
    out = tmp_path / "out"
    shutil.copytree(sources / "study" / "us", out / "study" / "us")
    (image,) = (out / "study" / "us").iterdir()

    summary = transcode(dcmpress, sources, out, config)

    assert groups(summary)["US", "htj2k", ""] == 1
    assert pydicom.dcmread(image).PhotometricInterpretation == "YBR_RCT"
    assert set(verdicts(dcmpress, out, config)) == {"good"}


def test_the_record_reaches_the_disk_while_the_run_goes_on(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scp.cli import transcode_output
    from scp.durable import DurableFile

    lines: list[int] = []
    real = DurableFile.sync

    def sync(self: DurableFile) -> None:
        real(self)
        path = Path(self.path)
        if path.name == MANIFEST:
            lines.append(path.read_bytes().count(b"\n"))

    monkeypatch.setattr(DurableFile, "sync", sync)
    monkeypatch.setattr(transcode_output, "_SYNC_SECONDS", 0.0)

    transcode(dcmpress, sources, tmp_path / "out", config)

    assert lines[0] < lines[-1] == CT + 1 + 5
    assert len(set(lines)) == 6  # An object and its frames are one.


@pytest.mark.timeout(240)
def test_after_kill_9_in_the_middle_of_a_series_it_becomes_the_same_object(
    dcmpress: Dcmpress, tmp_path: Path, config: Path
) -> None:
    sources, out, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    write_all(ct_series(24, 256, 256, seed=924), sources)
    running = subprocess.Popen(
        [*COMMAND, "transcode", str(sources), str(out), "-c", str(config)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    until(lambda: len(list(out.glob(".*.part"))) >= 4 if out.exists() else False, "nothing is done")

    running.send_signal(signal.SIGKILL)

    running.wait()
    transcode(dcmpress, sources, out, config)
    transcode(dcmpress, sources, whole, config)
    assert files_in(out) == files_in(whole) == [the_volume(whole).name]
    assert the_volume(out).read_bytes() == the_volume(whole).read_bytes()


def test_an_archive_of_htj2k_becomes_objects_and_gives_its_files_back(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text(f"node: {{data: {tmp_path / 'other'}}}\ncodec: {{workers: 1}}\n")
    htj2k, out = tmp_path / "htj2k", tmp_path / "out"
    transcode(dcmpress, sources, htj2k, plain)

    summary = transcode(dcmpress, htj2k, out, config)

    assert groups(summary) == {
        ("CT", "enhanced", ""): CT,
        ("CT", "original", "already_htj2k"): 1,
        ("MR", "original", "already_htj2k"): 3,
        ("US", "original", "rule_says_original"): 1,
    }
    assert any(each["not_collapsed"] == "localizer" for each in summary["groups"])
    assert verdicts(dcmpress, out, config) == {"good": 6}
    dcmpress("restore", the_volume(out), tmp_path / "back")
    there = {path.read_bytes() for path in htj2k.rglob("*.dcm")}
    assert {path.read_bytes() for path in (tmp_path / "back").iterdir()} < there
    again = transcode(dcmpress, htj2k, out, config)
    assert again["already_done"] == CT + 5


def test_a_restore_record_beside_the_object_is_verified_too(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path
) -> None:
    config, out = config_in(tmp_path, "sidecar"), tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    sidecar = the_volume(out).with_name(the_volume(out).name + SIDECAR_SUFFIX)
    assert verdicts(dcmpress, out, config) == {"good": 7}

    content = bytearray(sidecar.read_bytes())
    content[-20] ^= 1
    sidecar.write_bytes(content)

    assert verdicts(dcmpress, out, config, code=1) == {"good": 6, "different": 1}


def test_a_header_that_changed_is_different_with_the_record_and_said_to_be_unchecked_without(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    transcode(dcmpress, sources, out, config)
    volume = the_volume(out)
    content = volume.read_bytes()
    assert content.count(b"Compressed without loss") == 1
    volume.write_bytes(content.replace(b"Compressed without loss", b"Compressed without Loss"))
    assert "are not those that transcode wrote" in dcmpress("verify", volume, "-c", config, code=1)

    alone = tmp_path / "alone" / volume.name
    alone.parent.mkdir()
    shutil.copy(volume, alone)
    (found,) = json.loads(dcmpress("verify", alone, "-c", config, "--json"))

    assert (found["verdict"], found["checked"]) == ("good", "sources")
    assert "no record here tells whether its own header is as it was written" in found["detail"]


def test_a_source_that_changed_meanwhile_costs_its_series_and_nothing_else(
    dcmpress: Dcmpress, sources: Path, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scp.cli.transcode_output import Output

    changing = next((sources / "study" / "ct" / "first").iterdir())
    real = Output.volume

    def changes(self: Output, *arguments: Any) -> None:
        os.utime(changing, ns=(1, 1))
        real(self, *arguments)

    monkeypatch.setattr(Output, "volume", changes)
    out = tmp_path / "out"

    summary = transcode(dcmpress, sources, out, config, code=1)

    assert len(summary["failed"]) == CT
    assert sum("it changed" in each for each in summary["failed"]) == 1
    assert read_manifest(out).volumes == {}
    assert len(files_in(out)) == 5
