"""Which series are open, what is in them and when they close, whatever receivers still could tell."""

import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest

from scp.buffer.store import SpoolStore
from scp.durable import lock_folder_shared
from scp.ledger.ports import State
from scp.pipeline.notices import Notice, read_notices
from tests.buffer.recorder import HookedDisk
from tests.buffer.spool import Sent
from tests.deliver.peers import HandPeer
from tests.material import ct_series, write, write_all
from tests.pipeline.conftest import MakeFront
from tests.pipeline.front import RECEIVER, Front
from tests.pipeline.parts import archive, no_room_for, pacs

GONE = Notice("gone", RECEIVER, "")


def slices(folder: Path, count: int = 1, seed: int = 0) -> list[Path]:
    return write_all(ct_series(count, 16, 16, seed=seed), folder)


def told(front: Front) -> list[Notice]:
    """Notices that the coordinator then never gets to see."""
    return list(read_notices(front.notices))


def only_series(front: Front) -> str:
    (series,) = front.folders.growing()
    return series


# -- what receivers tell ---------------------------------------------------------------------------


def test_a_notice_of_a_file_that_is_gone_is_ignored(make_front: MakeFront, tmp_path: Path) -> None:
    """Its series was closed before the notice was read: it is in the job already."""
    front = make_front()
    front.land(slices(tmp_path / "ct")[0])
    notices = told(front)
    job = front.folders.close(only_series(front))
    assert job is not None

    for notice in notices:
        front.intake.take(notice)

    assert (front.intake.open_instances, front.intake.open_bytes) == (0, 0)
    front.close_quiet()
    assert front.folders.jobs() == [job]
    assert front.intake.snapshot() == []


def test_the_same_notice_twice_counts_once(make_front: MakeFront, tmp_path: Path) -> None:
    front = make_front()
    front.land(slices(tmp_path / "ct")[0])

    for notice in told(front) * 2:
        front.intake.take(notice)

    assert front.intake.open_instances == 1


def test_what_a_receiver_landed_and_could_not_tell_of_is_in_the_job(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front()
    first, second = slices(tmp_path / "ct", 2)
    front.receive(first)
    front.land(second)
    for notice in told(front):
        if notice.kind != "landed":
            front.intake.take(notice)
    front.close_quiet()
    assert front.intake.open_instances == 1, "it arrives: the series has to wait"

    front.intake.take(GONE)

    assert front.intake.open_instances == 2
    front.finish()
    assert front.states() == {State.DELIVERED: 2}


def test_what_no_notice_told_of_is_in_the_job(make_front: MakeFront, tmp_path: Path) -> None:
    front = make_front()
    first, second = slices(tmp_path / "ct", 2)
    front.receive(first)
    front.land(second)
    told(front)

    front.finish()

    assert front.states() == {State.DELIVERED: 2}


def test_a_series_of_which_its_receiver_could_tell_nothing_is_found_when_that_died(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front()
    front.land(slices(tmp_path / "ct")[0], calling="MR7")
    told(front)

    front.intake.take(GONE)

    assert front.intake.open_instances == 1
    front.finish()
    (row,) = front.ledger.recent(9)
    assert (row.state, row.origin.calling_ae_title) == (State.DELIVERED, "MR7")


def test_a_series_waits_for_what_is_arriving_from_one_receiver_when_another_dies(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front()
    front.receive(slices(tmp_path / "ct")[0])
    series = only_series(front)
    front.intake.take(Notice("arriving", "r1", series))

    front.intake.take(GONE)
    front.close_quiet()
    assert front.folders.jobs() == []
    front.intake.take(Notice("given_up", "r1", series))
    front.close_quiet()

    assert len(front.folders.jobs()) == 1


def test_a_series_that_was_announced_and_never_came_leaves_nothing(make_front: MakeFront) -> None:
    front = make_front()
    front.intake.take(Notice("arriving", RECEIVER, "a" * 32))
    front.intake.take(Notice("given_up", RECEIVER, "a" * 32))

    front.close_quiet()

    assert front.intake.snapshot() == []
    assert front.folders.jobs() == []


def test_a_late_slice_is_a_job_of_its_own(make_front: MakeFront, tmp_path: Path) -> None:
    front = make_front()
    first, late = slices(tmp_path / "ct", 2)
    front.receive(first)
    front.close_quiet()

    front.receive(late)
    jobs = front.finish()

    assert front.states() == {State.DELIVERED: 2}
    assert len({row.job for row in front.ledger.recent(9)}) == 2
    assert {job.series_instance_uid for job in jobs} <= {
        str(pydicom.dcmread(late).SeriesInstanceUID)
    }


# -- the same again --------------------------------------------------------------------------------


def test_the_same_and_another_dataset_under_one_uid(make_front: MakeFront, tmp_path: Path) -> None:
    front = make_front()
    (path,) = slices(tmp_path / "ct")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(len(dataset.PixelData))
    other = write(dataset, tmp_path)

    front.receive(path, other, path, other)

    assert (front.intake.open_instances, front.intake.repeats) == (2, 2)
    front.finish()
    assert [row.is_conflict for row in front.ledger.recent(9)][::-1] == [False, True]


def test_a_repeat_is_one_only_for_destinations_that_had_it(
    make_front: MakeFront, tmp_path: Path
) -> None:
    with HandPeer() as peer:
        front = make_front(
            destinations={"archive": archive(tmp_path), "pacs": pacs(peer.port)},
            rules=[
                {"name": "a", "match": {"called_ae_title": "ARCHIVE"}, "send_to": ["archive"]},
                {"name": "p", "match": {"called_ae_title": "PACS"}, "send_to": ["pacs"]},
            ],
            default={"send_to": ["archive", "pacs"]},
        )
        (path,) = slices(tmp_path / "ct")
        for title in ("ARCHIVE", "BOTH", "PACS"):
            front.receive(path, called=title)
            front.finish()
        front.settle()

        assert front.states() == {State.DELIVERED: 2, State.REPEAT: 1}
        rows = {row.rule: row for row in front.ledger.recent(9)}
        assert rows["p"].note == f"repeat of {rows['default'].job}"
        assert not any(row.is_conflict for row in rows.values())
        assert len(peer.stored) == 1


# -- limits and a disk that is busy or full --------------------------------------------------------


def test_above_the_limit_on_open_instances_the_oldest_series_is_cut(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(limits={"max_open_instances": 3})
    front.receive(*slices(tmp_path / "old", 2, seed=1))
    front.receive(*slices(tmp_path / "new", 2, seed=2))

    front.intake.close_due(time.monotonic())

    assert (front.intake.open_instances, len(front.folders.growing())) == (2, 1)
    front.until(lambda: front.states() == {State.DELIVERED: 2})
    assert front.archived() == sorted(path.name for path in (tmp_path / "old").iterdir())


def test_a_series_in_which_something_lands_just_now_is_closed_a_moment_later(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front()
    front.receive(*slices(tmp_path / "ct"))
    lock = lock_folder_shared(front.layout.growing / only_series(front))
    assert lock is not None

    front.close_quiet(20)
    assert front.intake.open_instances == 1
    assert front.intake.next_wait(100) > 0
    os.close(lock)
    front.close_quiet(21)

    assert front.intake.open_instances == 0
    assert len(front.folders.jobs()) == 1


class Relay:
    """Has each association stay in the folder of its series until another is there, too."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._came = 0

    def __call__(self, operation: str, path: Path) -> None:
        if operation != "sync_folder" or path.parent.name != "growing":
            return
        with self._changed:
            self._came += 1
            self._changed.notify_all()
            before = self._came
            self._changed.wait_for(lambda: self._came > before, 0.2)


def test_a_series_that_many_associations_fill_without_a_pause_is_cut_all_the_same(
    make_front: MakeFront,
) -> None:
    front = make_front(
        disk=HookedDisk(Relay()),
        limits={"max_open_instances": 50},
        default={"convert": "original", "send_to": ["archive"]},
    )
    stores = [front.receiver(name) for name in ("r1", "r2")]
    numbers = itertools.count(1)
    is_over = threading.Event()
    jobs: set[str] = set()

    def fill(store: SpoolStore) -> int:
        sent = 0
        while not is_over.is_set():
            Sent(f"1.2.3.{next(numbers)}").send(store)
            sent += 1
        return sent

    def cut_twice() -> bool:
        front.intake.close_due(time.monotonic())
        jobs.update(front.folders.jobs())
        return len(jobs) >= 2

    with ThreadPoolExecutor(16) as threads:
        filling = [threads.submit(fill, store) for store in stores * 8]
        try:
            front.until(cut_twice)
        finally:
            is_over.set()
    sent = sum(each.result() for each in filling)
    front.finish()

    assert front.states() == {State.DELIVERED: sent}


def test_while_one_series_cannot_be_cut_yet_the_next_is(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(limits={"max_open_instances": 2})
    front.receive(*slices(tmp_path / "old", 1, seed=1))
    lock = lock_folder_shared(front.layout.growing / only_series(front))
    assert lock is not None
    front.receive(*slices(tmp_path / "next", 3, seed=2))
    front.receive(*slices(tmp_path / "new", 1, seed=3))

    now = time.monotonic()
    front.intake.close_due(now)

    assert (front.intake.open_instances, len(front.folders.jobs())) == (2, 1)
    assert front.intake.next_wait(100) < 1
    os.close(lock)
    front.intake.close_due(now + 1)
    assert (front.intake.open_instances, len(front.folders.jobs())) == (1, 2)


@pytest.mark.parametrize("operation", ["make_folder", "rename"])
def test_without_room_to_close_a_series_it_stays_open_and_whole(
    make_front: MakeFront, tmp_path: Path, operation: str
) -> None:
    disk = HookedDisk()
    front = make_front(disk=disk)
    front.receive(*slices(tmp_path / "ct", 2))
    disk.hook = no_room_for(operation, "source" if operation == "rename" else "")

    front.close_quiet(20)

    assert front.intake.open_instances == 2
    assert front.folders.jobs() == []
    disk.hook = lambda *_: None
    front.close_quiet(21)
    assert front.intake.open_instances == 2, "the disk is left alone for a moment"
    front.close_quiet(23)
    front.finish()
    assert front.states() == {State.DELIVERED: 2}
