"""Power is lost after every operation of the spool, and nothing acknowledged may be gone.

The operations of one long scenario are recorded; each prefix is replayed with everything dropped that
was not synced, then with some of it kept. Then the same with a node that was killed on the way,
recovered, and lost power only after that.
"""

import errno
import hashlib
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scp.buffer.job import Job, JobInstance
from scp.buffer.jobs import JobFolders, drop_empty_jobs, instances_in, sweep
from scp.buffer.layout import Layout
from scp.buffer.store import SpoolStore
from scp.durable import PROBE_SECONDS, Disk, StrPath
from scp.errors import DiskFailedError
from tests.buffer.power_loss import FileSystem
from tests.buffer.recorder import Hook, Operation, RecordingDisk
from tests.buffer.spool import (
    ORIGIN,
    Sent,
    acknowledged_files,
    dataset_of,
    make_spool,
    make_store,
)

FIRST = Sent("1.2.3.1")
SECOND = Sent("1.2.3.2")
OTHER_BYTES = Sent("1.2.3.1", pixels=b"\3\4" * 50)
AT_ONCE = Sent("1.2.4.1", series="1.2.826.0.1.1.2")
AT_ONCE_TOO = Sent("1.2.4.2", series="1.2.826.0.1.1.2")
AFTER_AT_ONCE = Sent("1.2.4.3", series="1.2.826.0.1.1.2")
LATE = Sent("1.2.3.3")
AFTER_KILL = Sent("1.2.3.4")


class KilledError(BaseException):
    """The process ends here: no handler of the code under test may catch this."""


class UnsyncedDisk(Disk):
    """For the recovery that is only looked at: nothing has to outlast it."""

    def sync_folder(self, folder: StrPath, descriptor: int | None = None) -> None:
        assert Path(folder).is_dir()


@dataclass(slots=True)
class Scenario:
    """Everything that the spool does, on a disk that records it."""

    data: Path
    disk: RecordingDisk = field(init=False)
    layout: Layout = field(init=False)
    folders: JobFolders = field(init=False)

    def __post_init__(self) -> None:
        self.disk = RecordingDisk(self.data)
        self.data.mkdir()

    def run(self) -> None:
        self.start()
        store = make_store(self.layout, self.disk)
        for sent in (FIRST, SECOND, FIRST, OTHER_BYTES, AT_ONCE, AT_ONCE_TOO):
            self.send(sent, store)
        names = [AT_ONCE.file_name, AT_ONCE_TOO.file_name]
        at_once, at_once_too = self.folders.take_each(AT_ONCE.key.folder, names).values()
        self.send(AFTER_AT_ONCE, store)
        self.commit(at_once, converted=False)
        quiet = self.folders.close(FIRST.key.folder)
        assert quiet is not None
        self.send(LATE, store)
        self.commit(quiet, converted=True)
        self.finish(at_once)
        self.commit(at_once_too, converted=True)
        self.folders.hold(quiet, {"pacs": {"refused": 1}})
        self.folders.release(quiet)
        self.finish(quiet)

    def send(self, sent: Sent, store: SpoolStore) -> None:
        sent.send(store, lambda: self.disk.mark("acknowledged", sent.uid, sent.dataset))

    def start(self) -> None:
        self.layout = make_spool(self.data, self.disk)
        self.folders = JobFolders(self.layout, self.disk)
        sweep(self.layout, self.disk, receivers=os.listdir(self.layout.incoming))

    def recover(self) -> None:
        """What the next start does: uncommitted jobs are done again, the rest goes on."""
        self.start()
        drop_empty_jobs(self.layout, self.disk)
        self.send(AFTER_KILL, make_store(self.layout, self.disk))
        for job in self.folders.jobs():
            record = self.folders.load(self.folders.folder(job))
            if record is None:
                self.folders.drop_results(job)
                self.commit(job, converted=True)
            else:
                self.disk.mark("committed", job, _job_bytes(record))
        for series in self.folders.growing():
            closed = self.folders.close(series)
            assert closed is not None
            self.commit(closed, converted=False)

    def commit(self, job: str, *, converted: bool) -> None:
        sources = instances_in(self.folders.source(job))
        results = [self._convert(job, source) if converted else source for source in sources]
        record = Job(
            name=job,
            study_instance_uid="1.2",
            series_instance_uid="1.2.3",
            created=0.0,
            rules="rules-1",
            instances=tuple(
                JobInstance(
                    name=source.name,
                    identity=FIRST.identity,
                    origin=ORIGIN,
                    received=0.0,
                    source_transfer_syntax="1.2.840.10008.1.2.1",
                    source_bytes=source.stat().st_size,
                    rule="default",
                    form="htj2k" if converted else "original",
                    send_to=("archive",),
                    dataset_sha256=hashlib.sha256(dataset_of(source)).hexdigest(),
                    result_sha256=_sha256(result),
                )
                for source, result in zip(sources, results, strict=True)
            ),
        )
        self.folders.commit(record, {s.name for s in sources if _is_synced_by_worker(s)})
        self.disk.mark("committed", job, _job_bytes(record))

    def finish(self, job: str) -> None:
        record = self.folders.load(self.folders.folder(job))
        assert record is not None
        for instance in record.instances:
            self.disk.mark("recorded", instance.dataset_sha256)
        self.disk.mark("finished", job)
        trash = self.folders.finish(job)
        self.folders.sync_finished()
        self.disk.remove_tree(trash)

    def _convert(self, job: str, source: Path) -> Path:
        made = self.layout.encoded / f"{job}.{source.name}"
        content = b"converted " + source.read_bytes()
        self.disk.written_elsewhere(made, content, synced=_is_synced_by_worker(source))
        self.folders.make_results(job, "htj2k")
        result = self.folders.result(job, "htj2k", source.name)
        self.disk.rename(made, result)
        return result


class LinkingDisk(RecordingDisk):
    """On a file system that does not rename without replacing, as NFS."""

    def _rename_new(self, source: StrPath, target: StrPath) -> bool:
        return False


@pytest.fixture(scope="module", params=[RecordingDisk, LinkingDisk])
def recorded(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> list[Operation]:
    scenario = Scenario(tmp_path_factory.mktemp("recorded") / "data")
    scenario.disk = request.param(scenario.data)
    scenario.run()
    return scenario.disk.operations


def test_the_scenario_does_everything_that_the_spool_does(recorded: list[Operation]) -> None:
    assert {operation.kind for operation in recorded} >= {
        "create",
        "write",
        "sync_file",
        "sync_folder",
        "link",
        "unlink",
        "rename",
        "make_folder",
        "remove_tree",
    }
    assert sum(operation.kind == "acknowledged" for operation in recorded) == 8


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param((), id="nothing unsynced"),
        pytest.param(("name", "rename", "removal"), id="names without contents"),
        pytest.param(("rename",), id="renames alone"),
        pytest.param(("removal",), id="removals alone"),
        pytest.param(("name", "rename", "removal", "content"), id="everything, as after kill -9"),
    ],
)
def test_nothing_acknowledged_is_lost_after_any_operation(
    recorded: list[Operation], tmp_path: Path, kept: tuple[str, ...]
) -> None:
    system = FileSystem()
    for number, operation in enumerate(recorded, 1):
        system.apply(operation)
        left = tmp_path / str(number)
        left.mkdir()

        system.lose_power(left, lambda kind: kind in kept)

        assert_nothing_lost(left, recorded[:number])


@given(until=st.floats(0, 1), seed=st.integers(0, 2**32), kept=st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=150)
def test_what_was_not_synced_may_be_there_in_part(
    recorded: list[Operation],
    tmp_path_factory: pytest.TempPathFactory,
    until: float,
    seed: int,
    kept: float,
) -> None:
    done = recorded[: round(until * len(recorded))]
    left = tmp_path_factory.mktemp("left")
    chance = random.Random(seed)

    FileSystem(done).lose_power(left, lambda _: chance.random() < kept)

    assert_nothing_lost(left, done)


def test_a_node_killed_after_any_operation_recovers_and_then_loses_power(tmp_path: Path) -> None:
    finished = False
    killed_at = 0
    while not finished:
        killed_at += 1
        scenario = Scenario(tmp_path / f"{killed_at}")
        scenario.disk.hook = _Killer(killed_at)
        try:
            scenario.run()
            finished = True
        except KilledError:
            pass
        scenario.disk.hook = lambda *_: None
        scenario.recover()

        left = tmp_path / f"{killed_at}-left"
        left.mkdir()
        FileSystem(scenario.disk.operations).lose_power(left)

        assert_nothing_lost(left, scenario.disk.operations)
    assert killed_at > 100


def test_a_repeat_is_kept_whose_name_an_earlier_fsync_has_lost(tmp_path: Path) -> None:
    clock = 0.0
    scenario = Scenario(tmp_path / "data")
    scenario.disk = disk = RecordingDisk(scenario.data, now=lambda: clock)
    scenario.start()
    store = make_store(scenario.layout, disk)
    scenario.send(FIRST, store)
    disk.hook = _failing("sync_folder", SECOND.key.folder)
    with pytest.raises(DiskFailedError):
        scenario.send(SECOND, store)
    disk.hook = lambda *_: None
    clock += PROBE_SECONDS

    scenario.send(SECOND, store)

    left = tmp_path / "left"
    left.mkdir()
    FileSystem(disk.operations).lose_power(left)
    assert_nothing_lost(left, disk.operations)
    marks = [operation for operation in disk.operations if operation.kind == "acknowledged"]
    assert [mark.path for mark in marks] == [FIRST.uid, SECOND.uid]


def _failing(operation: str, name: str) -> Hook:
    def fail(called: str, path: Path) -> None:
        if (called, path.name) == (operation, name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return fail


@dataclass(slots=True)
class _Killer:
    left: int

    def __call__(self, operation: str, path: Path) -> None:
        self.left -= 1
        if self.left < 0:
            raise KilledError


def assert_nothing_lost(data: Path, done: list[Operation]) -> None:
    """Recover like the next start does, and look for everything that was promised."""
    disk = UnsyncedDisk()
    layout = Layout(data)
    layout.make(disk)
    sweep(layout, disk, receivers=os.listdir(layout.incoming))
    drop_empty_jobs(layout, disk)
    folders = JobFolders(layout, disk)

    kept = {dataset_of(path) for path in acknowledged_files(layout)}
    recorded = {operation.path for operation in done if operation.kind == "recorded"}
    for operation in done:
        if operation.kind == "acknowledged" and operation.content not in kept:
            assert hashlib.sha256(operation.content).hexdigest() in recorded, operation.path

    committed = _assert_commits_whole(folders)
    finished = {operation.path for operation in done if operation.kind == "finished"}
    for operation in done:
        if operation.kind == "committed" and operation.path not in finished:
            assert committed.get(operation.path) == operation.content, operation.path

    for series in folders.growing():
        file = folders.series_file(layout.growing / series)
        assert file.series_instance_uid in (FIRST.series, AT_ONCE.series)
    for job in folders.held():
        assert folders.reasons(job) == {"pacs": {"refused": 1}}


def _assert_commits_whole(folders: JobFolders) -> dict[str, bytes]:
    """Every job.json can be read, and everything that it names is there as it says."""
    found = {}
    places = [folders.folder(job) for job in folders.jobs()]
    places += [folders.held_folder(job) for job in folders.held()]
    for folder in places:
        job = folders.load(folder)
        if job is None:
            continue
        found[job.name] = _job_bytes(job)
        for instance in job.instances:
            source = folder / "source" / instance.name
            result = folder / "results" / instance.form / instance.name
            assert hashlib.sha256(dataset_of(source)).hexdigest() == instance.dataset_sha256
            assert _sha256(source if instance.form == "original" else result) == (
                instance.result_sha256
            )
    return found


def _is_synced_by_worker(source: Path) -> bool:
    """Some workers sync what they make, and the commit need not; here for one instance of several."""
    return source.name == SECOND.file_name


def _job_bytes(job: Job) -> bytes:
    return repr(job).encode()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
