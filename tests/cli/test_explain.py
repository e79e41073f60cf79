"""dcmpress explain: which rule, which plan, and why."""

import json
import os
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from tests.cli.conftest import Dcmpress
from tests.material import ct_series, mr_series, write_all

CONFIG = """\
destinations:
  archive: {kind: folder, path: %s}
  pacs: {kind: dicom, host: 10.0.0.9, port: 104, ae_title: PACS}
rules:
  - {name: volumes, match: {Modality: CT, SliceThickness: {le: 3}}, send_to: [archive, pacs]}
  - {name: nothing of MR, match: {Modality: MR}, send_to: []}
default: {send_to: [archive]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "dcmpress.yaml"
    file.write_text(CONFIG % (tmp_path / "archive"))
    return file


def test_the_deciding_rule_and_the_plan_are_said(
    dcmpress: Dcmpress, tmp_path: Path, config: Path
) -> None:
    (ct,) = write_all(ct_series(1, 32, 32), tmp_path / "ct")

    said = dcmpress("explain", ct, "-c", config)

    assert "decided by 'volumes': convert htj2k" in said
    assert "to archive" in said
    assert "to pacs" in said
    assert "as htj2k" in said
    assert not (tmp_path / "archive").exists()


def test_why_not_is_said_in_json(dcmpress: Dcmpress, tmp_path: Path, config: Path) -> None:
    (mr,) = write_all(mr_series(1, 32, 32), tmp_path / "mr")
    lossy = str(get_testdata_file("JPEG-lossy.dcm", download=False))

    skipped, passed = json.loads(dcmpress("explain", mr, lossy, "-c", config, "--json"))

    assert "nothing of MR" in json.dumps(skipped)
    assert "lossy_source" in json.dumps(passed)


def test_what_is_no_dicom_file_is_said(dcmpress: Dcmpress, tmp_path: Path, config: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("text")

    said = dcmpress("explain", text, "-c", config, code=0)

    assert "a.txt" in said


@pytest.mark.timeout(20)
def test_a_pipe_in_a_folder_is_left_out(dcmpress: Dcmpress, tmp_path: Path, config: Path) -> None:
    (ct,) = write_all(ct_series(1, 32, 32), tmp_path / "in")
    pipe = tmp_path / "in" / "pipe"
    os.mkfifo(pipe)

    said = dcmpress("explain", tmp_path / "in", "-c", config)

    assert str(ct) in said
    assert str(pipe) not in said


@pytest.mark.parametrize(("options", "shown"), [([], ""), (["--json"], "[]\n")], ids=str)
def test_a_folder_without_a_file_has_nothing_to_explain(
    dcmpress: Dcmpress, tmp_path: Path, config: Path, options: list[str], shown: str
) -> None:
    empty, hidden = tmp_path / "empty", tmp_path / "hidden"
    empty.mkdir()
    hidden.mkdir()
    (hidden / ".file").touch()

    said = dcmpress("explain", empty, hidden, *options, "-c", config, code=1)

    assert said == f"{shown}dcmpress: there is no file in {empty}, {hidden}\n"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
def test_what_is_no_frame_is_not_promised_to_become_one(
    dcmpress: Dcmpress, tmp_path: Path, syntax: str
) -> None:
    config = tmp_path / "dcmpress.yaml"
    config.write_text(
        f"destinations: {{archive: {{kind: folder, path: {tmp_path / 'archive'}}}}}\n"
        "default: {convert: enhanced, send_to: [archive]}\n"
    )
    frame, localizer = ct_series(2, 32, 32)
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    paths = write_all([frame, localizer], tmp_path / "ct")
    for path in paths:
        written = dcmread(path)
        written.file_meta.TransferSyntaxUID = UID(syntax)
        written.save_as(path, implicit_vr=syntax == "1.2.840.10008.1.2", little_endian=True)

    said = [dcmpress("explain", path, "-c", config) for path in paths]
    hoped, refused = json.loads(dcmpress("explain", *paths, "-c", config, "--json"))

    assert "as enhanced" in said[0]
    assert "enhanced if its series, once closed, allows; else htj2k" in said[0]
    assert "as htj2k" in said[1]
    assert "not enhanced, because localizer: Image Type" in said[1]
    assert (hoped["not_collapsed"], refused["not_collapsed"]) == (None, "localizer: Image Type")
    assert hoped["plan"]["forms"] == [{"form": "enhanced", "send_to": ["archive"]}]
    assert hoped["plan"]["otherwise"] == "htj2k"
    assert refused["plan"]["forms"] == [{"form": "htj2k", "send_to": ["archive"]}]
    assert refused["plan"]["otherwise"] is None
    assert refused["destinations"][0]["form"] == "htj2k"


def test_what_becomes_of_the_file_that_was_received_is_said(
    dcmpress: Dcmpress, tmp_path: Path
) -> None:
    config = tmp_path / "dcmpress.yaml"
    config.write_text(
        f"destinations: {{archive: {{kind: folder, path: {tmp_path / 'archive'}}}}}\n"
        "delete_originals: {after: delivered, plus: 30d}\n"
        "rules: [{name: mr, match: {Modality: MR}, delete_originals: {after: never}, send_to: [archive]}]\n"
    )
    (ct,) = write_all(ct_series(1, 32, 32), tmp_path / "ct")
    (mr,) = write_all(mr_series(1, 32, 32), tmp_path / "mr")

    said = dcmpress("explain", ct, mr, "-c", config)
    first, second = json.loads(dcmpress("explain", ct, mr, "-c", config, "--json"))

    line = (
        "the file that was received: kept for 30 days more once every destination is done with it"
    )
    assert line in said
    assert "the file that was received: kept for good" in said
    assert first["delete_originals"]["plus_seconds"] == 30 * 86400
    assert second["delete_originals"]["after"] == "never"
