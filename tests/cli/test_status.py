"""dcmpress status --running: what a container's health check asks."""

from pathlib import Path

import pytest

from scp.buffer.layout import Layout
from scp.cli.gpus import show_gpus
from scp.durable import Disk
from scp.pipeline.control import ControlServer
from tests.cli.conftest import Dcmpress


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "dcmpress.yaml"
    file.write_text(
        f"node: {{data: {tmp_path / 'data'}}}\n"
        f"destinations: {{archive: {{kind: folder, path: {tmp_path / 'archive'}}}}}\n"
        "default: {send_to: [archive]}\n"
    )
    return file


def test_without_a_node_it_fails_with_one_sentence(
    dcmpress: Dcmpress, config: Path, tmp_path: Path
) -> None:
    said = dcmpress("status", "--running", "-c", config, code=1)

    assert said == f"dcmpress: no node answers on {tmp_path / 'data'}\n"


def test_the_folders_of_a_node_that_is_down_do_not_count(
    dcmpress: Dcmpress, config: Path, tmp_path: Path
) -> None:
    Layout(tmp_path / "data").make(Disk())
    assert '"running": false' in dcmpress("status", "--json", "-c", config)

    said = dcmpress("status", "--running", "--json", "-c", config, code=1)

    assert said == f"dcmpress: no node answers on {tmp_path / 'data'}\n"


def test_a_folder_that_cannot_be_reached_is_said_in_one_sentence(
    dcmpress: Dcmpress, config: Path, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 300)
    config.write_text(config.read_text().replace(str(tmp_path / "data"), str(long)))

    said = dcmpress("status", "--running", "-c", config, code=1)

    assert said.startswith("dcmpress: ")
    assert "File name too long" in said
    assert said.count("\n") == 1


def test_a_node_that_answers_is_healthy(dcmpress: Dcmpress, config: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.make(Disk())
    node = ControlServer(layout.control, lambda request: {"running": True, **request})

    try:
        said = dcmpress("status", "--running", "--json", "-c", config)
    finally:
        node.stop()

    assert '"running": true' in said


def test_what_each_gpu_did_and_when_it_is_tried_again_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    gpu = {
        "number": 0, "device": "NVIDIA H100", "state": "in use", "frames": 1200, "refused": 1,
        "failures": 2, "deaths": 3, "sent_away": 40, "last_error": "", "retry_seconds": 0.0,
    }  # fmt: skip
    lost = {"state": "out of use", "last_error": "CUDA error 2", "retry_seconds": 59.8}

    show_gpus({"gpus": [gpu, {**gpu, **lost, "number": 1}]})

    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert ["0", "NVIDIA H100", "in use", "1200", "1", "5", "40"] in cells
    assert [
        "1", "NVIDIA H100", "out of use, tried again in 60 s", "1200", "1", "5", "40", "CUDA error 2",
    ] in cells  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "said"), [("gpu", "no GPU is used: no driver\n"), ("auto", "")]
)
def test_that_there_is_no_gpu_is_said_where_one_is_wanted(
    capsys: pytest.CaptureFixture[str], backend: str, said: str
) -> None:
    show_gpus({"gpus": [], "no_gpu": "no driver", "backend": backend})

    assert capsys.readouterr().out == said
