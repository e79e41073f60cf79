"""What every command does with arguments that make no sense, and the small commands."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.conftest import Dcmpress
from tests.conftest import REPOSITORY

GOOD = """\
destinations:
  archive: {kind: folder, path: ./archive}
  pacs: {kind: dicom, host: 127.0.0.1, port: 104, ae_title: PACS}
rules:
  - {name: all, send_to: [pacs]}
default: {send_to: [archive]}
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["serve", "--no-such-option"],
        ["serve", "--log-format", "xml"],
        ["serve", "--log-level", "LOUD"],
        ["check"],
        ["explain"],
        ["explain", "no-such-file"],
        ["transcode"],
        ["transcode", "only-in"],
        ["transcode", "no-such-folder", "out"],
        ["verify"],
        ["verify", "no-such-file"],
        ["send", "--to", "A@127.0.0.1:104"],
        ["send", "some-file"],
        ["send", "--to", "A@127.0.0.1:104", "no-such-file"],
        ["status", "too", "many"],
        ["held", "one", "two"],
        ["retry"],
        ["retry", "job", "--all"],
        ["discard"],
        ["discard", "job"],
        ["discard", "job", "--reason", " "],
        ["doctor", "extra"],
        ["demo", "extra"],
        ["version", "extra"],
    ],
    ids=" ".join,
)
def test_a_usage_error_exits_with_2_and_says_what_is_wrong(
    arguments: list[str], dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    said = dcmpress(*arguments, code=2)

    assert said.strip()
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "arguments",
    [["explain"], ["verify"], ["transcode"], ["send", "--to", "A@127.0.0.1:104"]],
    ids=" ".join,
)
def test_a_pipe_is_a_usage_error_and_not_waited_for(
    arguments: list[str], dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    out = ["out"] if arguments == ["transcode"] else []

    said = dcmpress(*arguments, "pipe", *out, code=2)

    assert said == "pipe is a FIFO: name files or folders\n"
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_without_a_command_there_is_help(dcmpress: Dcmpress) -> None:
    said = dcmpress("--help")

    for command in ("serve", "check", "explain", "transcode", "verify", "send", "status", "doctor"):
        assert command in said


def test_version_is_that_of_the_distribution(dcmpress: Dcmpress) -> None:
    assert dcmpress("version") == f"{version('dcmpress')}\n"


def test_check_finds_a_configuration_good(dcmpress: Dcmpress, tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)

    assert dcmpress("check", file) == f"{file}: good; 2 destinations, 1 rules and the default\n"


def test_check_warns_of_what_has_no_effect_and_of_too_few_open_files(
    tmp_path: Path,
) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD + "access: {anyone: true, peers: [{ae_title: CT1}]}\n")

    done = subprocess.run(
        ["prlimit", "--nofile=300", sys.executable, "-m", "scp.cli.main", "check", file],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )

    line = len(GOOD.splitlines()) + 1
    assert done.returncode == 0
    assert done.stdout.startswith(f"{file}: good; ")
    assert [each[: each.index(" warning")] for each in done.stderr.splitlines()] == [
        f"{file}:{line}:24:",
        f"{file}:",
    ]
    assert "this system allows 300: raise that" in done.stderr


def test_check_says_every_fault_with_its_place(dcmpress: Dcmpress, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        GOOD.replace("port: 104", "port: 0").replace("kind: folder", "kind: dolder")
        + "series: {quiet: 3}\n"
    )

    lines = dcmpress("check", file, code=2).splitlines()

    assert [line.split(": ")[0] for line in lines] == [
        f"{file}:2:12",
        f"{file}:3:46",
        f"{file}:7:10",
    ]


@pytest.mark.parametrize("command", [["check"], ["serve", "-c"]], ids=" ".join)
def test_a_destination_in_the_spool_is_refused_before_anything_is_made(
    command: list[str], dcmpress: Dcmpress, tmp_path: Path
) -> None:
    file, data = tmp_path / "bad.yaml", tmp_path / "data"
    file.write_text(
        f"node: {{data: {data}}}\n"
        f"destinations:\n  archive: {{kind: folder, path: {data / 'spool' / 'out'}}}\n"
    )

    said = dcmpress(*command, file, code=2)

    assert said.startswith(f"{file}:3:33: destinations.archive.path: {data / 'spool' / 'out'} lies")
    assert not data.exists()


def test_check_of_a_file_that_is_not_there_says_so(dcmpress: Dcmpress, tmp_path: Path) -> None:
    said = dcmpress("check", tmp_path / "none.yaml", code=2)

    assert "none.yaml" in said


def test_the_configuration_in_the_current_folder_counts(
    dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dcmpress.yaml").write_text("node: {port: eleven}\n")

    assert "dcmpress.yaml:1:14" in dcmpress("status", code=2)
