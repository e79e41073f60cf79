"""Originals that outlast their job: what a folder's name says, and that power loss takes nothing early.

The operations of a scenario are recorded and replayed as in ``test_power_loss.py``.
"""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from scp.buffer.jobs import JobFolders, instances_in, sweep
from scp.buffer.layout import Layout
from scp.buffer.originals import FOR_GOOD, Kept, OriginalFolders, closed_at
from scp.durable import Disk
from scp.errors import StorageFullError
from tests.buffer.power_loss import FileSystem
from tests.buffer.recorder import HookedDisk, Operation, RecordingDisk
from tests.buffer.spool import Sent, acknowledged_files, dataset_of, make_spool, make_store
from tests.buffer.test_power_loss import KilledError, UnsyncedDisk, _Killer
from tests.pipeline.parts import no_room_for

JOB = "20261125T184824123456Z-0a1b2c3d-4e5f"
NOON = 1_796_212_800.0
"""2026-12-02 12:00 UTC."""
SENT = tuple(Sent(f"1.2.3.{number}") for number in range(3))


def originals_on(layout: Layout, disk: Disk) -> OriginalFolders:
    return OriginalFolders(layout, disk)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_spool(tmp_path / "data", Disk())


def job_with(layout: Layout, *names: str, job: str = JOB) -> Path:
    """The source folder of a job that has such files."""
    source = layout.jobs / job / "source"
    source.mkdir(parents=True)
    for name in names:
        (source / name).write_bytes(b"original " + name.encode())
    return source


def all_kept(originals: OriginalFolders) -> list[Kept]:
    return [kept for bucket in originals.buckets() for kept in originals.kept_in(bucket)]


# -- names -----------------------------------------------------------------------------------------


def test_the_name_of_a_folder_says_all_that_is_known_of_it(layout: Layout) -> None:
    originals = originals_on(layout, Disk())
    source = job_with(layout, "a.dcm", "bb.dcm")

    originals.keep(JOB, source, {"a.dcm": NOON, "bb.dcm": NOON})

    (path,) = (layout.originals / "20261125T18").iterdir()
    assert path.name == f"{JOB},U=20261202T120000Z,N=2,S=29"
    (kept,) = all_kept(originals)
    assert kept == Kept(
        hour=path.parent, name=path.name, job=JOB, until=NOON, instances=2, bytes=29
    )
    assert kept.path == path
    assert closed_at(JOB) == 1_795_632_504.0
    assert closed_at("job-1") is None
    assert sorted(file.read_bytes() for file in path.iterdir()) == [
        b"original a.dcm",
        b"original bb.dcm",
    ]
    assert originals.of(JOB) == [kept]
    assert originals.of("20261125T184824123456Z-0a1b2c3d-0000") == []


def test_what_is_kept_for_different_times_lies_apart(layout: Layout) -> None:
    originals = originals_on(layout, Disk())
    source = job_with(layout, "a.dcm", "b.dcm", "c.dcm", "d.dcm")

    originals.keep(
        JOB, source, {"a.dcm": NOON, "b.dcm": FOR_GOOD, "c.dcm": NOON + 0.4, "d.dcm": 1e15}
    )

    assert {(kept.until, kept.instances) for kept in all_kept(originals)} == {
        (NOON, 1),
        (NOON + 1, 1),  # Rather longer than promised.
        (FOR_GOOD, 2),
    }


def test_folders_that_somebody_else_has_made_are_left_alone(layout: Layout) -> None:
    originals = originals_on(layout, Disk())
    bucket = layout.originals / "20261125T18"
    for name in ("notes", f"{JOB},U=20261399T120000Z,N=1,S=1", f"{JOB},U=never,N=1"):
        (bucket / name).mkdir(parents=True)

    assert all_kept(originals) == []
    originals.drop_bucket(bucket.name)
    assert bucket.exists()


# -- keeping again ---------------------------------------------------------------------------------


def test_what_is_kept_already_keeps_its_time_and_the_rest_is_added(layout: Layout) -> None:
    originals = originals_on(layout, Disk())
    source = job_with(layout, "a.dcm", "b.dcm")
    originals.keep(JOB, source, {"a.dcm": NOON})

    added = originals.keep(JOB, source, {"a.dcm": NOON + 60, "b.dcm": NOON + 60})

    assert [(kept.until, kept.instances) for kept in added] == [(NOON + 60, 1)]
    assert sorted((kept.until, kept.instances) for kept in all_kept(originals)) == [
        (NOON, 1),
        (NOON + 60, 1),
    ]


def test_an_original_that_the_disk_has_lost_does_not_keep_the_others_from_being_kept(
    layout: Layout,
) -> None:
    originals = originals_on(layout, Disk())
    source = job_with(layout, "a.dcm")

    (kept,) = originals.keep(JOB, source, {"a.dcm": NOON, "gone.dcm": NOON})

    assert kept.instances == 1
    assert originals.keep(JOB, source, {"gone.dcm": NOON}) == []
    assert [path.name for path in layout.originals.glob(".*")] == []


@pytest.mark.parametrize("operation", ["make_folder", "link"])
def test_without_room_nothing_is_kept_and_nothing_left_behind(
    layout: Layout, operation: str
) -> None:
    originals = originals_on(layout, HookedDisk(no_room_for(operation, "")))
    source = job_with(layout, "a.dcm")

    with pytest.raises(StorageFullError):
        originals.keep(JOB, source, {"a.dcm": NOON})

    assert list(layout.originals.iterdir()) == []


def test_the_hour_may_be_deleted_while_something_is_put_into_it(layout: Layout) -> None:
    disk = HookedDisk()
    originals = originals_on(layout, disk)
    source = job_with(layout, "a.dcm")
    deleted: list[Path] = []

    def delete_it(operation: str, path: Path) -> None:
        if operation == "rename" and not deleted:
            deleted.append(path.parent)
            originals.drop_bucket(path.parent.name)

    disk.hook = delete_it
    originals.keep(JOB, source, {"a.dcm": NOON})

    assert deleted == [layout.originals / "20261125T18"]
    assert len(all_kept(originals)) == 1


# -- deleting --------------------------------------------------------------------------------------


def test_a_folder_that_is_dropped_goes_and_its_hour_when_it_is_the_last(layout: Layout) -> None:
    originals = originals_on(layout, Disk())
    source = job_with(layout, "a.dcm", "b.dcm")
    originals.keep(JOB, source, {"a.dcm": NOON, "b.dcm": NOON + 1})
    first, second = sorted(all_kept(originals), key=lambda kept: kept.until)

    originals.drop(first)
    originals.drop_bucket("20261125T18")
    assert all_kept(originals) == [second]
    originals.drop(second)
    originals.drop(second)  # Somebody has deleted it by hand.
    originals.drop_bucket("20261125T18")

    assert originals.buckets() == []
    assert list(layout.trash.iterdir()) == []


# -- kill -9 and power loss ------------------------------------------------------------------------


@dataclass(slots=True)
class Scenario:
    """A series is received, done and recorded; its originals are kept, and later deleted."""

    data: Path
    disk: RecordingDisk = field(init=False)
    layout: Layout = field(init=False)
    recorded: str = ""
    """The job that the ledger has."""

    def __post_init__(self) -> None:
        self.disk = RecordingDisk(self.data)
        self.data.mkdir()

    def start(self) -> None:
        self.layout = make_spool(self.data, self.disk)
        sweep(self.layout, self.disk, receivers=os.listdir(self.layout.incoming))

    def run(self) -> None:
        self.start()
        store = make_store(self.layout, self.disk)
        for sent in SENT:
            sent.send(store, partial(self.disk.mark, "acknowledged", sent.uid, sent.dataset))
        job = JobFolders(self.layout, self.disk).close(SENT[0].key.folder)
        assert job is not None
        self.recorded = job
        self.finish()
        self.expire()

    def finish(self) -> None:
        """Two are kept until different times, the third need not be."""
        folders = JobFolders(self.layout, self.disk)
        source = folders.source(self.recorded)
        if not source.exists():
            return
        self.disk.mark("recorded", SENT[2].uid)
        until = {SENT[0].file_name: NOON, SENT[1].file_name: NOON + 60}
        originals_on(self.layout, self.disk).keep(self.recorded, source, until)
        trash = folders.finish(self.recorded)
        folders.sync_finished()
        self.disk.remove_tree(trash)

    def expire(self) -> None:
        """The first is due."""
        originals = originals_on(self.layout, self.disk)
        for bucket in originals.buckets():
            for kept in originals.kept_in(bucket):
                if kept.until <= NOON:
                    self.disk.mark("recorded", SENT[0].uid)
                    originals.drop(kept)
            originals.drop_bucket(bucket)


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    scenario = Scenario(tmp_path_factory.mktemp("recorded") / "data")
    scenario.run()
    assert sum(operation.kind == "recorded" for operation in scenario.disk.operations) == 2
    return scenario.disk.operations


def assert_every_original_is_there(data: Path, done: list[Operation]) -> None:
    """In a job, a series that grows, or among the originals; but for what was to be deleted."""
    layout = Layout(data)
    disk = UnsyncedDisk()
    layout.make(disk)
    sweep(layout, disk, receivers=os.listdir(layout.incoming))
    kept = all_kept(originals_on(layout, disk))
    deletable = {operation.path for operation in done if operation.kind == "recorded"}
    for each in kept:
        if each.until <= NOON and SENT[0].uid in deletable:
            continue  # It was being deleted, and is due again.
        files = instances_in(each.path)
        assert (len(files), sum(file.stat().st_size for file in files)) == (
            each.instances,
            each.bytes,
        )
    files = [*acknowledged_files(layout), *(f for each in kept for f in instances_in(each.path))]
    there = {dataset_of(file) for file in files}
    for operation in done:
        if operation.kind == "acknowledged" and operation.path not in deletable:
            assert operation.content in there, operation.path


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
def test_no_original_is_lost_early_after_any_operation(
    operations: list[Operation], tmp_path: Path, kept: tuple[str, ...]
) -> None:
    system = FileSystem()
    for number, operation in enumerate(operations, 1):
        system.apply(operation)
        left = tmp_path / str(number)
        left.mkdir()

        system.lose_power(left, lambda kind: kind in kept)

        assert_every_original_is_there(left, operations[:number])


def test_a_node_killed_after_any_operation_goes_on_and_then_loses_power(tmp_path: Path) -> None:
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
        scenario.start()
        if scenario.recorded:
            scenario.finish()

        left = tmp_path / f"{killed_at}-left"
        left.mkdir()
        FileSystem(scenario.disk.operations).lose_power(left)

        assert_every_original_is_there(left, scenario.disk.operations)
        if scenario.recorded:
            assert not scenario.layout.jobs.joinpath(scenario.recorded).exists()
    assert killed_at > 60
