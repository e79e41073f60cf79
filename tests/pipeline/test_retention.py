"""Old rows leave the ledger in small steps, and what is to be recorded need not wait for that."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from scp.errors import LedgerError
from scp.ledger.memory import MemoryLedger
from scp.ledger.ports import Search
from scp.pipeline.coordinator import Timers
from scp.pipeline.retention import Retention
from scp.pipeline.threads import Chores, Inbox
from tests.ledger.rows import NOON, row
from tests.pipeline.parts import HandClock

DAY = 86400.0


class Ledger(MemoryLedger):
    """Notes what it is asked to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.error: Exception | None = None

    def forget(self, before: datetime, limit: int) -> int:
        if self.error is not None:
            raise self.error
        self.steps.append(super().forget(before, limit))
        return self.steps[-1]


class Bench:
    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ledger.record([row(number) for number in range(2500)])
        self.clock = HandClock()
        self.inbox = Inbox()
        self.chores = Chores(self.inbox)
        self.timers = Timers(self.clock)
        self.wall = NOON + timedelta(days=1, seconds=2400)

    def begin(self, keep: float | None) -> None:
        later = self.timers.later
        Retention(self.ledger, keep, self.chores, later, lambda: self.wall.timestamp()).begin()

    def later(self, seconds: float) -> None:
        """Let time pass, and all be done that is due then."""
        self.clock.seconds += seconds
        self.timers.run_due()
        ended: list[object] = []
        self.chores.do(lambda: None, ended.append, ended.append)
        while not ended:
            self.inbox.run_posted()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.chores.stop(10.0)


def test_what_is_too_old_leaves_step_by_step_and_later_what_has_become_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    bench.begin(DAY)
    for _ in range(5):
        bench.later(0.2)

    assert bench.ledger.steps == [1000, 1000, 400]
    assert caplog.messages == ["2400 old rows have left the ledger"]
    bench.wall += timedelta(seconds=50)
    bench.later(3599.0)
    assert bench.ledger.steps == [1000, 1000, 400]
    bench.later(1.0)
    assert bench.ledger.steps == [1000, 1000, 400, 50]
    assert bench.ledger.totals().finished == 2500


def test_nothing_leaves_where_everything_is_kept(bench: Bench) -> None:
    bench.begin(None)
    bench.later(0.0)

    assert bench.ledger.steps == []
    assert len(list(bench.ledger.search(Search()))) == 2500


@pytest.mark.parametrize("error", [LedgerError("no connection"), ValueError("a defect")])
def test_a_ledger_that_cannot_forget_now_is_asked_again_in_an_hour(
    bench: Bench, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    bench.ledger.error = error
    bench.begin(DAY)
    bench.later(0.0)
    bench.ledger.error = None

    bench.later(3600.0)

    assert bench.ledger.steps == [1000]
    assert len(caplog.records) == isinstance(error, ValueError)
