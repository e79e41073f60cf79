"""Receiving and closing at the same time, each step held up where it hurts. No sleeps, no luck."""

import fcntl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scp.buffer.jobs import JobFolders, instances_in
from scp.buffer.layout import Layout
from scp.buffer.store import Landed
from scp.durable import StrPath
from tests.buffer.recorder import HookedDisk
from tests.buffer.spool import (
    Sent,
    ToldNotices,
    acknowledged_files,
    dataset_of,
    make_spool,
    make_store,
)

SECONDS = 10.0
FIRST = Sent("1.2.3.1")
SECOND = Sent("1.2.3.2")
OTHER_BYTES = Sent("1.2.3.1", pixels=b"\3\4" * 50)


@dataclass(slots=True)
class Gate:
    """Stops the first thread that comes to an operation until it is opened."""

    operation: str
    part: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, operation: str, path: Path) -> None:
        if operation == self.operation and self.part in path.name and not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(SECONDS)


class AfterFailure(HookedDisk):
    """Calls its hook also between a move or rename that failed and what is made of that."""

    def move(self, source: StrPath, target: StrPath) -> None:
        try:
            super().move(source, target)
        except OSError:
            self.hook("move failed", Path(target))
            raise

    def rename(self, source: StrPath, target: StrPath) -> None:
        try:
            super().rename(source, target)
        except OSError:
            self.hook("rename failed", Path(target))
            raise


@dataclass(slots=True)
class Spool:
    """Two associations and a coordinator on one spool; each with a disk of its own."""

    layout: Layout
    threads: ThreadPoolExecutor
    slow_disk: HookedDisk
    slow_notices: ToldNotices = field(default_factory=ToldNotices)
    fast_notices: ToldNotices = field(default_factory=ToldNotices)

    @property
    def folders(self) -> JobFolders:
        return JobFolders(self.layout, HookedDisk())

    def send(self, *many: Sent) -> None:
        """An association that nothing holds up."""
        store = make_store(self.layout, HookedDisk(), self.fast_notices, receiver="fast")
        for sent in many:
            sent.send(store)

    @contextmanager
    def held_up(self, gate: Gate, sent: Sent) -> Iterator[Future[None]]:
        """An association that waits at the gate for as long as the block lasts."""
        store = make_store(self.layout, self.slow_disk, self.slow_notices, receiver="slow")
        with self.passing(gate, lambda: sent.send(store)) as landing:
            yield landing

    @contextmanager
    def passing(self, gate: Gate, work: Callable[[], None]) -> Iterator[Future[None]]:
        self.slow_disk.hook = gate
        future = self.threads.submit(work)
        try:
            assert gate.reached.wait(SECONDS), "the gate was never reached"
            yield future
        finally:
            gate.opened.set()
            future.result(SECONDS)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with ThreadPoolExecutor(2) as threads:
        yield Spool(make_spool(tmp_path / "data", HookedDisk()), threads, HookedDisk())


def test_a_series_is_not_closed_while_an_instance_lands_in_it(spool: Spool) -> None:
    spool.send(FIRST)

    with spool.held_up(Gate("move", SECOND.file_name), SECOND):
        assert spool.folders.close(FIRST.key.folder) is None

    job = spool.folders.close(FIRST.key.folder)
    assert job is not None
    assert len(instances_in(spool.folders.source(job))) == 2


def test_an_instance_is_not_lost_whose_series_closes_before_it_is_locked(spool: Spool) -> None:
    spool.send(FIRST)
    gate = Gate("sync_file", "0.part")

    with spool.held_up(gate, SECOND):
        job = spool.folders.close(FIRST.key.folder)

    assert job is not None
    assert [p.name for p in instances_in(spool.folders.source(job))] == [FIRST.file_name]
    assert [p.name for p in instances_in(spool.layout.growing / SECOND.key.folder)] == [
        SECOND.file_name
    ]


def test_an_instance_is_not_lost_whose_folder_closes_between_open_and_flock(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.send(FIRST)
    closed: list[str | None] = []
    flock = fcntl.flock

    def close_first(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_SH and not closed:
            closed.append(spool.folders.close(FIRST.key.folder))
        flock(descriptor, operation)

    monkeypatch.setattr("scp.durable.fcntl.flock", close_first)
    spool.send(SECOND)

    assert closed != [None]
    assert [p.name for p in instances_in(spool.layout.growing / SECOND.key.folder)] == [
        SECOND.file_name
    ]
    assert len(acknowledged_files(spool.layout)) == 2


def test_twins_become_one_file_and_neither_is_acknowledged_before_the_folder_is_synced(
    spool: Spool,
) -> None:
    spool.send(SECOND)
    synced: list[str] = []
    twin_disk = HookedDisk(lambda operation, path: synced.append(f"{operation} {path.name}"))
    twin_store = make_store(spool.layout, twin_disk, spool.fast_notices, receiver="twin")

    # The first has linked its name, and has not yet synced it.
    with spool.held_up(Gate("sync_folder", FIRST.key.folder), FIRST) as first:
        FIRST.send(twin_store)
        assert not first.done()
        assert f"sync_folder {FIRST.key.folder}" in synced

    assert sorted(p.name for p in acknowledged_files(spool.layout)) == sorted(
        [FIRST.file_name, SECOND.file_name]
    )
    assert spool.fast_notices.told[-1] == ("repeated", FIRST.key.folder)
    assert spool.slow_notices.told[-1] == ("landed", FIRST.key.folder, FIRST.file_name)


def test_another_dataset_under_the_same_uid_is_kept_beside_the_first(spool: Spool) -> None:
    with spool.held_up(Gate("move", FIRST.file_name), FIRST):
        spool.send(OTHER_BYTES)

    stem = FIRST.identity.file_stem
    kept = {p.name: dataset_of(p) for p in acknowledged_files(spool.layout)}
    assert kept == {f"{stem}.dcm": OTHER_BYTES.dataset, f"{stem}~2.dcm": FIRST.dataset}
    assert spool.slow_notices.told[-1] == ("landed", FIRST.key.folder, f"{stem}~2.dcm")


def test_of_two_associations_that_open_a_series_the_second_gives_way(spool: Spool) -> None:
    with spool.held_up(Gate("rename", FIRST.key.folder), FIRST):
        spool.send(SECOND)

    folder = spool.layout.growing / FIRST.key.folder
    assert {p.name for p in instances_in(folder)} == {FIRST.file_name, SECOND.file_name}
    assert [p.name for p in spool.layout.growing.iterdir()] == [FIRST.key.folder]


def test_a_series_that_another_opened_and_the_coordinator_closed_is_opened_again(
    spool: Spool,
) -> None:
    closed: list[str | None] = []

    def interfere(event: str, path: Path) -> None:
        if event == "create" and path.parent.parent == spool.layout.growing and not closed:
            spool.send(SECOND)
        elif event == "rename failed":
            closed.append(spool.folders.close(FIRST.key.folder))

    store = make_store(spool.layout, AfterFailure(interfere), receiver="slow")

    FIRST.send(store)

    assert len(closed) == 1
    assert closed[0] is not None
    assert [p.name for p in instances_in(spool.layout.growing / FIRST.key.folder)] == [
        FIRST.file_name
    ]
    assert len(acknowledged_files(spool.layout)) == 2


def test_who_finds_a_series_that_another_has_just_named_syncs_the_name_itself(
    spool: Spool,
) -> None:
    synced: list[Path] = []

    def note(operation: str, path: Path) -> None:
        if operation == "sync_folder":
            synced.append(path)

    store = make_store(spool.layout, HookedDisk(note), receiver="second")
    # The first has renamed the folder in, and neither it nor its parent is synced.
    with spool.held_up(Gate("move", FIRST.file_name), FIRST):
        SECOND.send(store)

        assert spool.layout.growing in synced


def test_the_name_of_a_series_is_synced_for_its_first_instance_only(spool: Spool) -> None:
    synced: list[Path] = []
    store = make_store(
        spool.layout,
        HookedDisk(lambda operation, path: synced.append(path) if "sync" in operation else None),
    )
    FIRST.send(store)
    assert synced.count(spool.layout.growing) == 1

    SECOND.send(store)

    assert synced.count(spool.layout.growing) == 1


def test_a_repeat_lands_anew_when_its_twin_is_taken_out_meanwhile(spool: Spool) -> None:
    spool.send(FIRST, SECOND)
    taken: list[str] = []

    def take_out(event: str, path: Path) -> None:
        if event == "move failed":
            taken.extend(spool.folders.take_each(FIRST.key.folder, [FIRST.file_name]))

    store = make_store(spool.layout, AfterFailure(take_out), spool.slow_notices, receiver="slow")

    FIRST.send(store)

    assert taken == [FIRST.file_name]
    assert spool.slow_notices.told[-1] == ("landed", FIRST.key.folder, FIRST.file_name)
    assert len(acknowledged_files(spool.layout)) == 3


def test_an_instance_taken_at_once_leaves_the_series_growing(spool: Spool) -> None:
    spool.send(FIRST)
    with spool.held_up(Gate("move", SECOND.file_name), SECOND):
        (job,) = spool.folders.take_each(FIRST.key.folder, [FIRST.file_name]).values()

    assert [p.name for p in instances_in(spool.folders.source(job))] == [FIRST.file_name]
    assert [p.name for p in instances_in(spool.layout.growing / FIRST.key.folder)] == [
        SECOND.file_name
    ]
    assert spool.folders.take_each(FIRST.key.folder, [FIRST.file_name]) == {}


def test_the_coordinator_is_told_before_the_series_can_be_closed(spool: Spool) -> None:
    spool.send(FIRST)
    seen: list[str | None] = []

    class Closing(ToldNotices):
        def landed(self, landed: Landed) -> None:
            seen.append(spool.folders.close(landed.series))

    SECOND.send(make_store(spool.layout, HookedDisk(), Closing(), receiver="told"))

    assert seen == [None]


def test_eight_associations_sending_the_same_series_lose_nothing(spool: Spool) -> None:
    """No gate here: whatever the scheduler makes of it, with closings in between."""
    many = [Sent(f"1.2.3.{i % 24}") for i in range(96)]
    store = make_store(spool.layout, HookedDisk(), spool.slow_notices)
    folders = spool.folders
    done = threading.Event()

    def close_again_and_again() -> None:
        while not done.is_set():
            folders.close(FIRST.key.folder)

    with ThreadPoolExecutor(9) as threads:
        closing = threads.submit(close_again_and_again)
        landings = [threads.submit(sent.send, store) for sent in many]
        for landing in landings:
            landing.result(SECONDS)
        done.set()
        closing.result(SECONDS)

    kept = {dataset_of(path) for path in acknowledged_files(spool.layout)}
    assert kept == {sent.dataset for sent in many}
    told = [kind for kind, *_ in spool.slow_notices.told]
    assert told.count("arriving") == 96
    assert told.count("landed") + told.count("repeated") == 96
