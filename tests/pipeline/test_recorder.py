"""From the last receipt to the ledger: nothing is lost or counted twice, and no job waits for another."""

import errno
import logging
import resource
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scp.errors import LedgerError, NodeError, ScpError
from scp.ledger.memory import MemoryLedger
from scp.ledger.ports import Ledger, LedgerRow, State, Totals
from scp.ledger.sql import SqlLedger
from scp.model import Origin
from scp.pipeline.live import Live
from tests.buffer.recorder import HookedDisk
from tests.pipeline.conftest import MakeParts
from tests.pipeline.jobs import come_again, takes
from tests.pipeline.parts import Parts

UNSTORABLE = Origin(calling_ae_title="\udcff", called_ae_title="DCMPRESS", peer_address="")
"""JSON keeps half of a surrogate pair, SQLite has no place for it."""


class WatchedLedger(MemoryLedger):
    """Calls ``before`` before it takes anything, and notes what came together."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.before = before
        self.batches: list[set[str]] = []

    def record(self, rows: Sequence[LedgerRow]) -> None:
        self.batches.append({row.job for row in rows})
        self.before()
        super().record(rows)


class AwayLedger(MemoryLedger):
    """Cannot be asked until it is back; then it has what ``behind`` has."""

    def __init__(self, behind: Ledger) -> None:
        super().__init__()
        self._behind = behind
        self.is_away = True

    def totals(self) -> Totals:
        self._check()
        return self._behind.totals()

    def finished_since(self, since: datetime) -> list[LedgerRow]:
        self._check()
        return self._behind.finished_since(since)

    def known(self, jobs: Collection[str]) -> set[str]:
        self._check()
        return self._behind.known(jobs)

    def close(self) -> None:
        self._behind.close()

    def _check(self) -> None:
        if self.is_away:
            raise LedgerError("no connection")


def done(parts: Parts, name: str = "job-1", **changes: Any) -> Live:
    """A job of which the archive has everything."""
    job = parts.job(name, **changes)
    live = Live(job=job, folder=parts.folders.folder(name))
    takes("archive", [instance.name for instance in job.instances], live)
    parts.accounts.remember(job)
    parts.dispatch.live[name] = live
    return live


def record(parts: Parts, *lives: Live, discarded: str = "") -> None:
    """The first goes at once, those after it together."""
    for live in lives:
        parts.recorder.record(live, discarded)


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@contextmanager
def no_file_grows() -> Iterator[None]:
    """For this process every disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- the order -------------------------------------------------------------------------------------


def test_the_last_trace_leaves_the_spool_only_after_the_commit(make_parts: MakeParts) -> None:
    ledger = WatchedLedger()
    parts = make_parts(ledger=ledger)
    live = done(parts)
    seen: list[list[str]] = []
    ledger.before = lambda: seen.append(sorted(path.name for path in live.folder.iterdir()))

    record(parts, live)
    parts.until(lambda: not parts.dispatch.live)

    assert seen == [["job.json", "results", "source"]]
    assert not live.folder.exists()
    parts.settle()
    assert list(parts.layout.trash.iterdir()) == []


def test_what_came_while_the_ledger_was_busy_is_one_commit(make_parts: MakeParts) -> None:
    ledger = WatchedLedger()
    parts = make_parts(ledger=ledger)

    record(parts, *(done(parts, name) for name in "abcd"))

    parts.until(lambda: not parts.dispatch.live)
    assert ledger.batches == [{"a"}, {"b", "c", "d"}]


def test_each_instance_is_counted_once_at_every_moment(make_parts: MakeParts) -> None:
    parts = make_parts()
    record(parts, *(done(parts, name, count=2) for name in "abc"))

    readings = []
    while parts.dispatch.live:
        counters = parts.counters()
        readings.append((counters.received, counters.delivered))
        parts.turn()
    readings.append((parts.counters().received, parts.counters().delivered))

    assert set(readings) == {(6, 6)}


# -- a job that the ledger refuses -----------------------------------------------------------------


def test_a_job_whose_rows_are_refused_keeps_no_other_waiting(
    make_parts: MakeParts, caplog: pytest.LogCaptureFixture
) -> None:
    parts = make_parts()
    bad = done(parts, "bad", origin=UNSTORABLE)

    record(parts, done(parts, "a"), done(parts, "b"), bad, done(parts, "c"))

    parts.until(lambda: parts.states() == {State.DELIVERED: 3})
    parts.settle()
    assert list(parts.dispatch.live) == ["bad"]
    assert bad.folder.is_dir()
    assert (parts.counters().received, parts.counters().delivered) == (4, 4)
    (said,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert said.getMessage() == "job bad cannot be recorded"


def test_after_a_job_that_is_refused_jobs_share_commits_again(make_parts: MakeParts) -> None:
    ledger = WatchedLedger()

    def refuse() -> None:
        if "bad" in ledger.batches[-1]:
            raise ValueError("such a row there is not")

    ledger.before = refuse
    parts = make_parts(ledger=ledger)
    record(parts, *(done(parts, name) for name in ("a", "b", "bad")))
    parts.until(lambda: list(parts.dispatch.live) == ["bad"])
    parts.settle()
    ledger.batches.clear()

    record(parts, *(done(parts, name) for name in "cde"))

    parts.until(lambda: list(parts.dispatch.live) == ["bad"])
    assert ledger.batches == [{"c"}, {"d", "e"}]


def test_a_job_that_was_refused_is_tried_again_after_minutes_and_not_before(
    make_parts: MakeParts,
) -> None:
    ledger = WatchedLedger()
    parts = make_parts(ledger=ledger)
    ledger.before = failing(ValueError("such a row there is not"))
    record(parts, done(parts))
    parts.settle()
    ledger.before = lambda: None

    parts.later(299.0)
    parts.settle()
    assert ledger.batches == [{"job-1"}]
    parts.later(1.0)

    parts.until(lambda: not parts.dispatch.live)
    assert parts.states() == {State.DELIVERED: 1}


# -- a ledger that fails for a while ---------------------------------------------------------------


def test_with_a_full_disk_jobs_stay_in_the_spool_and_are_recorded_once_there_is_room(
    make_parts: MakeParts,
) -> None:
    parts = make_parts()
    lives = [done(parts, name) for name in "abc"]
    with no_file_grows():
        record(parts, *lives)
        parts.settle()
        parts.later(5.0)
        parts.settle()
        assert [live.folder.is_dir() for live in lives] == [True] * 3
        assert parts.states() == {}
        assert parts.counters().delivered == 3

    parts.later(9.0)
    parts.settle()
    assert parts.states() == {}, "it waits longer each time"
    parts.later(1.0)

    parts.until(lambda: not parts.dispatch.live)
    assert parts.states() == {State.DELIVERED: 3}


def test_what_comes_meanwhile_goes_with_what_failed(make_parts: MakeParts) -> None:
    ledger = WatchedLedger(failing(LedgerError("the disk is full")))
    parts = make_parts(ledger=ledger)
    record(parts, done(parts, "a"))
    parts.settle()
    ledger.before = lambda: None

    record(parts, done(parts, "b"))
    parts.settle()
    assert ledger.batches == [{"a"}]
    assert (parts.recorder.problem, parts.recorder.jobs_waiting) == ("the disk is full", 2)
    parts.later(5.0)

    parts.until(lambda: not parts.dispatch.live)
    assert ledger.batches == [{"a"}, {"a", "b"}]
    assert parts.states() == {State.DELIVERED: 2}
    assert (parts.recorder.problem, parts.recorder.jobs_waiting) == ("", 0)


@pytest.mark.parametrize("kind", [LedgerError, NodeError])
def test_a_ledger_that_is_away_or_damaged_is_an_error_once_and_its_return_is_said(
    kind: type[ScpError], make_parts: MakeParts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ledger = WatchedLedger(failing(kind("no connection")))
    parts = make_parts(ledger=ledger)
    record(parts, done(parts, "a"))
    for seconds in (0.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        parts.later(seconds)
        parts.settle()
    assert len(ledger.batches) == 7
    assert parts.recorder.problem == "no connection"
    ledger.before = lambda: None

    parts.later(60.0)

    parts.until(lambda: not parts.dispatch.live)
    assert [(level, said) for name, level, said in caplog.record_tuples if "recorder" in name] == [
        (logging.ERROR, "no connection; what is done waits in the spool and is recorded later"),
        (logging.INFO, "the ledger takes jobs again; 1 have waited"),
    ]


def test_what_has_waited_long_is_recorded_in_bounded_commits(make_parts: MakeParts) -> None:
    ledger = WatchedLedger(failing(LedgerError("no connection")))
    parts = make_parts(ledger=ledger)
    lives = [done(parts, name, count=3) for name in "abcde"]
    parts.recorder.instances_a_commit = 7
    record(parts, *lives)
    parts.settle()
    ledger.before = lambda: None
    ledger.batches.clear()

    parts.later(5.0)

    parts.until(lambda: not parts.dispatch.live)
    assert ledger.batches == [{"a", "b"}, {"c", "d"}, {"e"}]


def test_a_ledger_that_is_away_at_the_start_is_asked_later_what_it_has(
    make_parts: MakeParts,
) -> None:
    before = make_parts()
    job = before.job("before")
    (given,) = job.instances
    before.start(job)
    before.until(lambda: before.states() == {State.DELIVERED: 1})
    before.close()
    away = AwayLedger(SqlLedger.open_for_writing(before.layout.ledger, before.disk))
    parts = make_parts(ledger=away)
    assert not parts.accounts.is_loaded
    assert parts.counters().delivered == 0
    assert parts.recorder.recorded(["before"]) == set()

    parts.recorder.catch_up()
    parts.settle()
    assert not parts.accounts.is_loaded
    away.is_away = False
    parts.later(5.0)

    parts.until(lambda: parts.accounts.is_loaded)
    assert parts.counters().delivered == 1
    assert parts.accounts.find_repeat(*come_again(given), ["archive"]) == ("before", False)
    assert parts.recorder.recorded(["before", "x"]) == {"before"}


# -- the folder that is left -----------------------------------------------------------------------


def test_a_folder_that_cannot_go_to_the_trash_is_left_to_the_next_start_and_counted_once(
    make_parts: MakeParts,
) -> None:
    def hook(operation: str, path: Path) -> None:
        if operation == "rename" and path.parent.name == "trash" and path.name.startswith("b"):
            raise OSError(errno.EIO, "Input/output error")

    first = make_parts(disk=HookedDisk(hook))
    lives = [done(first, name) for name in "abc"]
    record(first, *lives)
    first.until(lambda: not first.dispatch.live)
    first.settle()
    assert first.folders.jobs() == ["b"]
    assert (first.counters().received, first.counters().delivered) == (3, 3)
    first.close()

    second = make_parts()
    second.dispatch.recover_jobs()

    assert second.folders.jobs() == []
    assert (second.counters().received, second.counters().delivered) == (3, 3)


def test_what_may_come_back_out_of_the_trash_is_whole(make_parts: MakeParts) -> None:
    """A power failure may undo a move that was not synced."""

    def hook(operation: str, path: Path) -> None:
        if operation == "sync_folder" and path.name == "jobs":
            raise OSError(errno.EIO, "Input/output error")

    disk = HookedDisk()
    parts = make_parts(disk=disk)
    lives = [done(parts, name) for name in "abc"]
    disk.hook = hook

    record(parts, *lives)
    parts.until(lambda: not parts.dispatch.live)
    parts.settle()

    assert parts.recorder.left_behind == 3
    moved = list(parts.layout.trash.iterdir())
    assert sorted(path.name[0] for path in moved) == ["a", "b", "c"]
    assert all((path / "job.json").exists() for path in moved)


# -- what is discarded -----------------------------------------------------------------------------


@pytest.mark.parametrize(("discarded", "known"), [("", "job-1"), ("a reason", "")])
def test_only_what_was_not_discarded_makes_its_datasets_repeats(
    make_parts: MakeParts, discarded: str, known: str
) -> None:
    parts = make_parts()
    job = parts.job(count=2)
    live = Live(job=job, folder=parts.folders.folder(job.name))
    taken, other = job.instances
    takes("archive", [taken.name] if discarded else [taken.name, other.name], live)
    parts.accounts.remember(job)
    parts.dispatch.live[job.name] = live

    record(parts, live, discarded=discarded)

    parts.until(lambda: not parts.dispatch.live)
    assert parts.accounts.find_repeat(*come_again(taken), ["archive"]) == (job.name, False)
    assert parts.accounts.find_repeat(*come_again(other), ["archive"]) == (known, False)
