"""dcmpress transcode when a file, a worker or the disk fails: the file's fault, not the run's."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scp.cli import transcode
from scp.cli.manifest import MANIFEST, read_manifest
from scp.durable import Disk, DurableFile, StrPath
from scp.errors import StorageFullError
from scp.model import PassReason
from scp.pipeline.batch import Batch
from scp.pipeline.tasks import Answer, ConvertTask, Lost, Outcome, Task
from tests.cli.conftest import Dcmpress
from tests.e2e.judges import assert_converted
from tests.material import ct_series, write_all

CHANGED = "it changed or vanished while it was converted; run the command again"
LOST = Lost(PassReason.WORKER_LOST, "the worker died")

type Workers = Callable[[Callable[[ConvertTask], Answer | Lost]], None]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "dcmpress.yaml"
    file.write_text(
        f"node: {{data: {tmp_path / 'data'}}}\n"
        f"destinations: {{archive: {{kind: folder, path: {tmp_path / 'archive'}}}}}\n"
        "default: {send_to: [archive]}\n"
    )
    return file


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Has each task answered by a function of the test."""

    def answer_by(answer: Callable[[ConvertTask], Answer | Lost]) -> None:
        def run[Key](
            self: Batch,
            tasks: Iterable[tuple[Key, Task]],
            done: Callable[[Key, Answer | Lost], None],
        ) -> None:
            for key, task in tasks:
                assert isinstance(task, ConvertTask)
                done(key, answer(task))

        monkeypatch.setattr(Batch, "run", run)

    return answer_by


def summary(said: str) -> Any:
    return json.loads(said[: said.rindex("}") + 1])


def test_what_lost_its_worker_is_copied_and_found_good(
    dcmpress: Dcmpress, tmp_path: Path, config: Path, workers: Workers
) -> None:
    (source,) = write_all(ct_series(1, 16, 16, seed=971), tmp_path / "in")
    out = tmp_path / "out"
    workers(lambda task: LOST)

    dcmpress("transcode", tmp_path / "in", out, "-c", config)

    assert (out / source.name).read_bytes() == source.read_bytes()
    assert dcmpress("verify", out, "-c", config).endswith(": good: original worker_lost\n")


# -- a disk that is full ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StorageFullError("full"), OSError(errno.ENOSPC, "full")])
def test_a_file_without_room_fails_alone(
    dcmpress: Dcmpress,
    tmp_path: Path,
    config: Path,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    first, second = write_all(ct_series(2, 16, 16, seed=972), tmp_path / "in")
    out = tmp_path / "out"
    workers(lambda task: LOST)

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
    assert list(read_manifest(out).entries) == [second.name]
    assert sum(group["instances"] for group in said["groups"]) == 1


def test_what_a_worker_had_no_room_for_is_no_original_but_a_failure(
    dcmpress: Dcmpress, tmp_path: Path, config: Path, workers: Workers
) -> None:
    (source,) = write_all(ct_series(1, 16, 16, seed=973), tmp_path / "in")
    out = tmp_path / "out"
    workers(lambda task: Outcome(reason=PassReason.NO_ROOM, detail="No space left on device"))

    said = dcmpress("transcode", tmp_path / "in", out, "-c", config, code=1)

    failure = f"{source}: no room on the disk of {out}: No space left on device"
    assert failure in said.splitlines()
    assert said.endswith("dcmpress: 1 files failed\n")
    assert os.listdir(out) == [MANIFEST]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for some results only."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", folder],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_up_is_said_and_leaves_nothing_half_written(
    dcmpress: Dcmpress, tmp_path: Path, config: Path, small_disk: Path
) -> None:
    sources = write_all(ct_series(6, 512, 512, seed=974), tmp_path / "in")
    out = small_disk / "out"

    said = summary(dcmpress("transcode", tmp_path / "in", out, "-c", config, "--json", code=1))

    made = [out / source.name for source in sources if (out / source.name).exists()]
    assert 0 < len(made) < len(sources)
    assert len(said["failed"]) == len(sources) - len(made)
    assert all("No space left on device" in failure for failure in said["failed"])
    assert sorted(os.listdir(out)) == sorted([MANIFEST, *(path.name for path in made)])
    assert dcmpress("verify", out, "-c", config).count(": good: htj2k") == len(made)

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    again = summary(dcmpress("transcode", tmp_path / "in", out, "-c", config, "--json"))

    assert again["already_done"] == len(made)
    for source in sources:
        assert_converted(source, out / source.name)


def test_a_record_that_the_disk_cut_off_does_not_spoil_the_next(
    dcmpress: Dcmpress,
    tmp_path: Path,
    config: Path,
    workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, third = write_all(ct_series(3, 16, 16, seed=975), tmp_path / "in")
    out = tmp_path / "out"
    workers(lambda task: LOST)

    class Full(Disk):
        def write(self, file: DurableFile, *pieces: bytes | bytearray | memoryview) -> None:
            data = b"".join(pieces)
            if second.name.encode() in data:
                super().write(file, data[:20])
                raise StorageFullError("full")
            super().write(file, *pieces)

    monkeypatch.setattr(transcode, "Disk", Full)

    dcmpress("transcode", tmp_path / "in", out, "-c", config, code=1)

    assert list(read_manifest(out).entries) == [first.name, third.name]
    monkeypatch.undo()
    workers(lambda task: LOST)
    dcmpress("transcode", tmp_path / "in", out, "-c", config)
    assert set(read_manifest(out).entries) == {first.name, second.name, third.name}


# -- sources that do not hold still ----------------------------------------------------------------


def append_to(source: Path) -> None:
    with source.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("happens", [append_to, os.utime, os.unlink], ids=lambda f: f.__name__)
@pytest.mark.parametrize("is_converted", [True, False], ids=["converted", "copied"])
def test_a_source_that_changes_while_it_is_converted_fails_and_leaves_nothing(
    dcmpress: Dcmpress,
    tmp_path: Path,
    config: Path,
    workers: Workers,
    happens: Callable[[Path], None],
    is_converted: bool,
) -> None:
    changing, steady = write_all(ct_series(2, 16, 16, seed=976), tmp_path / "in")
    out = tmp_path / "out"

    def answer(task: ConvertTask) -> Answer | Lost:
        assert task.target is not None
        if task.source == changing:
            shutil.copyfile(task.source, task.target)
            happens(task.source)
        return Outcome(result_sha256="0" * 64) if is_converted and task.source == changing else LOST

    workers(answer)

    said = summary(dcmpress("transcode", tmp_path / "in", out, "-c", config, "--json", code=1))

    (failure,) = said["failed"]
    assert failure in (f"{changing}: {CHANGED}", f"{changing}: No such file or directory")
    assert sorted(os.listdir(out)) == sorted([MANIFEST, steady.name])


def test_a_copy_that_is_not_what_the_worker_has_read_fails(
    dcmpress: Dcmpress, tmp_path: Path, config: Path, workers: Workers
) -> None:
    (source,) = write_all(ct_series(1, 16, 16, seed=977), tmp_path / "in")
    out = tmp_path / "out"
    workers(lambda task: Outcome(reason=PassReason.UNUSED_BITS_SET, result_sha256="0" * 64))

    said = summary(dcmpress("transcode", tmp_path / "in", out, "-c", config, "--json", code=1))

    assert said["failed"] == [f"{source}: {CHANGED}"]
    assert os.listdir(out) == [MANIFEST]


def test_a_source_that_vanishes_before_its_turn_fails_alone(
    dcmpress: Dcmpress, tmp_path: Path, config: Path, workers: Workers
) -> None:
    first, second, third = write_all(ct_series(3, 16, 16, seed=978), tmp_path / "in")
    out = tmp_path / "out"

    def answer(task: ConvertTask) -> Lost:
        second.unlink(missing_ok=True)
        return LOST

    workers(answer)

    said = summary(dcmpress("transcode", tmp_path / "in", out, "-c", config, "--json", code=1))

    assert said["failed"] == [f"{second}: No such file or directory"]
    assert sorted(os.listdir(out)) == sorted([MANIFEST, first.name, third.name])


# -- ends ------------------------------------------------------------------------------------------


def test_an_interrupted_run_leaves_nothing_half_written(
    dcmpress: Dcmpress, tmp_path: Path, config: Path, workers: Workers
) -> None:
    write_all(ct_series(1, 16, 16, seed=979), tmp_path / "in")
    out = tmp_path / "out"

    def answer(task: ConvertTask) -> Lost:
        assert task.target is not None
        task.target.write_bytes(b"half")
        raise KeyboardInterrupt

    workers(answer)

    dcmpress("transcode", tmp_path / "in", out, "-c", config, code=130)

    assert os.listdir(out) == [MANIFEST]


def test_a_file_where_the_results_should_go_is_a_usage_error(
    dcmpress: Dcmpress, tmp_path: Path, config: Path
) -> None:
    write_all(ct_series(1, 16, 16, seed=980), tmp_path / "in")
    (tmp_path / "out").write_text("in the way")

    said = dcmpress("transcode", tmp_path / "in", tmp_path / "out", "-c", config, code=2)

    assert said == f"{tmp_path / 'out'} is a file: OUT is a folder\n"


def test_results_that_can_go_nowhere_are_said_in_one_sentence(
    dcmpress: Dcmpress, tmp_path: Path, config: Path
) -> None:
    write_all(ct_series(1, 16, 16, seed=981), tmp_path / "in")
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"

    said = dcmpress("transcode", tmp_path / "in", out, "-c", config, code=1)

    assert said == f"dcmpress: {out}: Not a directory\n"
