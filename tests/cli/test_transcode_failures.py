"""dcmpress transcode when a worker is lost or the disk is full: the file's fault, not the run's."""

import errno
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from scp.cli import transcode
from scp.cli.batch import Batch
from scp.cli.manifest import MANIFEST, read_manifest
from scp.durable import Disk, StrPath
from scp.errors import StorageFullError
from scp.model import PassReason
from scp.pipeline.tasks import Answer, Lost, Task
from tests.cli.conftest import Dcmpress
from tests.material import ct_series, write_all


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "dcmpress.yaml"
    file.write_text(
        f"node: {{data: {tmp_path / 'data'}}}\n"
        f"destinations: {{archive: {{kind: folder, path: {tmp_path / 'archive'}}}}}\n"
        "default: {send_to: [archive]}\n"
    )
    return file


@pytest.fixture(autouse=True)
def lost_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task takes its worker with it."""

    def run[Key](
        self: Batch,
        tasks: Iterable[tuple[Key, Task]],
        done: Callable[[Key, Answer | Lost], None],
    ) -> None:
        for key, _ in tasks:
            done(key, Lost(PassReason.WORKER_LOST, "the worker died"))

    monkeypatch.setattr(Batch, "run", run)


def summary(said: str) -> Any:
    return json.loads(said[: said.rindex("}") + 1])


def test_what_lost_its_worker_is_copied_and_found_good(
    dcmpress: Dcmpress, tmp_path: Path, config: Path
) -> None:
    (source,) = write_all(ct_series(1, 16, 16, seed=971), tmp_path / "in")
    out = tmp_path / "out"

    dcmpress("transcode", tmp_path / "in", out, "-c", config)

    assert (out / source.name).read_bytes() == source.read_bytes()
    assert dcmpress("verify", out, "-c", config).endswith(": good: original worker_lost\n")


@pytest.mark.parametrize("error", [StorageFullError("full"), OSError(errno.ENOSPC, "full")])
def test_a_file_without_room_fails_alone(
    dcmpress: Dcmpress,
    tmp_path: Path,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    first, second = write_all(ct_series(2, 16, 16, seed=972), tmp_path / "in")
    out = tmp_path / "out"

    class Full(Disk):
        def rename(self, source: StrPath, target: StrPath) -> None:
            if Path(target).name == first.name:
                raise error
            super().rename(source, target)

    monkeypatch.setattr(transcode, "Disk", Full)

    said = summary(dcmpress("transcode", tmp_path / "in", out, "-c", config, "--json", code=1))

    (failure,) = said["failed"]
    assert failure == f"{first}: full"
    assert sorted(os.listdir(out)) == sorted([MANIFEST, second.name])
    assert list(read_manifest(out)) == [second.name]
    assert sum(group["instances"] for group in said["groups"]) == 1
