"""dcmpress demo: the main job, for real, in a folder of its own."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from pydicom import FileDataset, dcmread

from scp.cli import demo_material, output
from scp.cli.send import sent
from scp.errors import NodeError
from scp.pipeline.control import ask

_QUIET_SECONDS = 1.0
_START_SECONDS = 60.0
_WORK_SECONDS = 120.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    title: str
    files: list[Path]


def run_demo() -> None:
    """Start a node, send three series, compare what was delivered with what was sent."""
    folder = Path(tempfile.mkdtemp(prefix="dcmpress-demo-"))
    sources = list(_make_sources(folder / "source"))
    config = folder / "dcmpress.yaml"
    data = folder / "data"
    config.write_text(
        yaml.safe_dump(
            {
                "node": {"bind": "127.0.0.1", "port": 0, "data": str(data)},
                "series": {"quiet_seconds": _QUIET_SECONDS},
                "destinations": {"archive": {"kind": "folder", "path": str(folder / "archive")}},
                "limits": {"reserve": "100MB"},
            }
        )
    )
    log = folder / "node.log"
    with log.open("wb") as stream:
        node = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "scp.cli.main", "serve", "-c", str(config)],
            stderr=stream,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            port = _wait_for_port(node, data / "control", log)
            rows = [_show(series, port, data / "control", folder / "archive") for series in sources]
        finally:
            node.terminate()
            node.wait(60)
    output.show_table(
        ["series", ">instances", ">before", ">after", ">ratio", ">ms an instance", "verified"],
        rows,
        title="sent by C-STORE, converted to HTJ2K, delivered",
        footer=f"the result: {folder / 'archive'}\nthe node's log: {log}",
    )
    if any(row[-1] != "every pixel equal" for row in rows):
        raise NodeError("a delivered image is not what was sent")


def _make_sources(folder: Path) -> Iterator[_Series]:
    makers: list[tuple[str, Callable[[], list[FileDataset]]]] = [
        ("CT 512x512, 12 bits", lambda: list(demo_material.ct_series(60))),
        ("MR 256x256, 12 bits", lambda: list(demo_material.mr_series(40))),
        ("US 600x800, colour", lambda: [demo_material.colour_image()]),
    ]
    for title, make in makers:
        place = folder / title.split()[0]
        place.mkdir(parents=True)
        yield _Series(title=title, files=[demo_material.write(one, place) for one in make()])


def _wait_for_port(node: subprocess.Popen[bytes], control: Path, log: Path) -> int:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if node.poll() is not None:
            raise NodeError(f"the node did not start; {log} says why")
        status = ask(control, {"command": "status"}) if control.exists() else None
        if status is not None and status["workers"]["ready"]:
            return int(status["port"])
        time.sleep(_POLL_SECONDS)
    raise NodeError(f"the node was not ready in {_START_SECONDS:.0f} s; {log} says why")


def _show(series: _Series, port: int, control: Path, archive: Path) -> list[str]:
    delivered = _delivered(control)
    started = time.monotonic()
    for receipt in sent(series.files, f"DCMPRESS@127.0.0.1:{port}", "DEMO"):
        if not receipt.verdict.is_done:
            raise NodeError(f"the node answered {receipt.status} {receipt.detail}")
    while _delivered(control) < delivered + len(series.files):
        if time.monotonic() - started > _WORK_SECONDS:
            raise NodeError("the series was not delivered in time")
        time.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - started - _QUIET_SECONDS
    before, after, equal = 0, 0, 0
    for file in series.files:
        source = dcmread(file)
        result_path = archive / source.StudyInstanceUID / source.SeriesInstanceUID / file.name
        result = dcmread(result_path)
        before += file.stat().st_size
        after += result_path.stat().st_size
        equal += np.array_equal(source.pixel_array, result.pixel_array)
    return [
        series.title,
        str(len(series.files)),
        output.megabytes(before),
        output.megabytes(after),
        f"{before / after:.2f}",
        f"{seconds * 1000 / len(series.files):.1f}",
        "every pixel equal" if equal == len(series.files) else "NOT EQUAL",
    ]


def _delivered(control: Path) -> int:
    status = ask(control, {"command": "status"})
    if status is None:
        raise NodeError("the node went away; its log says why")
    return int(status["delivered"])
