"""What one destination still has to get, and when. Passive: the caller owns clocks and lock."""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import Answered, ReceiptState, Unavailable
from scp.model import DeliveryItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait after failures."""

    first_seconds: float = 1.0
    """After the first; doubled each time."""
    longest_seconds: float = 300.0
    jitter: float = 0.2
    """A wait is shortened by up to this share, so that nodes do not return in step."""
    limited_seconds: tuple[float, ...] = (60.0, 240.0, 900.0, 2400.0)
    """Between the tries of what is tried a limited number of times: five over an hour."""
    random: Callable[[], float] = random.random
    """Uniform in [0, 1)."""

    def seconds(self, failures: int, drawn: float) -> float:
        """The wait after ``failures`` in a row; ``drawn`` is a value of :attr:`random`."""
        exponent = min(failures - 1, 64)
        wait = min(self.first_seconds * 2.0**exponent, self.longest_seconds)
        return wait * (1 - self.jitter * drawn)

    @property
    def longest_wait(self) -> float:
        return max(self.longest_seconds, *self.limited_seconds)


class Task(NamedTuple):
    """One instance that is due."""

    job: str
    item: DeliveryItem


@dataclass(slots=True)
class _Pending:
    item: DeliveryItem
    due: float = -math.inf
    tries: int = 0
    """Failures of the kind that is limited, or of the transient kind: the last one's count."""
    limited: int = 0
    setbacks: int = 0
    """How often an attempt ended at this instance: such come last, so that one cannot block all."""


@dataclass(slots=True)
class _Job:
    added: float
    pending: dict[str, _Pending]


class Schedule:
    """Pending instances by job, oldest job first.

    A failing instance waits by itself. A destination that is unavailable as a whole makes all wait.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._jobs: dict[str, _Job] = {}
        self._failures = 0
        self._due = -math.inf

    def __contains__(self, job: str) -> bool:
        return job in self._jobs

    def add(
        self, job: str, items: Iterable[DeliveryItem], state: ReceiptState, now: float, wall: float
    ) -> None:
        """Take a job, in the state that its receipts say."""
        pending = {}
        for item in items:
            if item.instance in state.done or item.instance in state.held:
                continue
            entry = _Pending(item)
            tried = state.tried.get(item.instance)
            if tried is not None:
                entry.tries = tried.tries
                entry.limited = tried.tries if tried.receipt.verdict is Verdict.LIMITED else 0
                entry.due = now + self._wait_until(tried.retry_at, wall)
            pending[item.instance] = entry
        self._jobs[job] = _Job(wall, pending)
        if pending and state.unavailable is not None:
            wait = self._wait_until(state.unavailable.retry_at, wall)
            if wait:
                self._failures = max(self._failures, state.unavailable.tries)
                self._due = max(self._due, now + wait)

    def _wait_until(self, retry_at: float, wall: float) -> float:
        """Bounded, because the wall clock may have been set since."""
        return min(max(0.0, retry_at - wall), self._backoff.longest_wait)

    def remove(self, job: str) -> None:
        self._jobs.pop(job, None)

    def hurry(self, job: str, restored: Iterable[DeliveryItem]) -> None:
        """Make a job due at once, failures counted from zero, with instances that were settled."""
        if job not in self._jobs:
            return
        self.reached()
        pending = self._jobs[job].pending
        for item in [*(entry.item for entry in pending.values()), *restored]:
            pending[item.instance] = _Pending(item)

    @property
    def rests_until(self) -> float:
        """The destination as a whole is left alone until then."""
        return self._due

    # -- asking --------------------------------------------------------------------------------

    def due(self, now: float, limit: int) -> list[Task]:
        """What to try now, at most ``limit``: what was no trouble so far first, then by age."""
        if now < self._due:
            return []
        tasks: list[Task] = []
        troubled: list[tuple[int, Task]] = []
        for name, each in self._jobs.items():
            for entry in each.pending.values():
                if entry.due <= now:
                    task, trouble = Task(name, entry.item), entry.setbacks + entry.tries
                    if trouble:
                        troubled.append((trouble, task))
                    else:
                        tasks.append(task)
                    if len(tasks) == limit:
                        return tasks
        troubled.sort(key=lambda each: each[0])
        return (tasks + [task for _, task in troubled])[:limit]

    def next_due(self) -> float | None:
        """When to ask :meth:`due` again; None when nothing is pending."""
        times = (entry.due for each in self._jobs.values() for entry in each.pending.values())
        earliest = min(times, default=None)
        return None if earliest is None else max(self._due, earliest)

    def empty_jobs(self) -> list[str]:
        """Jobs of which nothing is pending."""
        return [name for name, each in self._jobs.items() if not each.pending]

    def pending(self) -> Iterator[tuple[str, int]]:
        """(job, instances)."""
        for name, each in self._jobs.items():
            yield name, len(each.pending)

    def oldest(self) -> float | None:
        """Wall time since when the oldest unfinished job waits."""
        return min((each.added for each in self._jobs.values() if each.pending), default=None)

    # -- what happened -------------------------------------------------------------------------

    def settle(self, job: str, instance: str) -> None:
        """An instance is delivered or held."""
        if job in self._jobs:
            self._jobs[job].pending.pop(instance, None)

    def reached(self) -> None:
        """The destination answered something better than later."""
        self._failures, self._due = 0, -math.inf

    def postpone(
        self, task: Task, receipt: Receipt, now: float, wall: float, drawn: float
    ) -> Answered:
        """An instance failed: when it is tried again; or it is held, when it was the last try.

        The same ``now`` and ``drawn`` keep instances that failed together together.
        """
        entry = self._entry(task)
        waits = self._backoff.limited_seconds
        if receipt.verdict is Verdict.LIMITED:
            entry.limited += 1
            if entry.limited > len(waits):
                self.settle(task.job, task.item.instance)
                last = Receipt(
                    instance=receipt.instance,
                    verdict=Verdict.HELD,
                    status=receipt.status,
                    detail=f"{receipt.detail} (tried {entry.limited} times)",
                )
                return Answered(at=wall, receipt=last, tries=entry.limited)
            entry.tries, wait = entry.limited, waits[entry.limited - 1]
        else:
            entry.tries += 1
            wait = self._backoff.seconds(entry.tries, drawn)
        entry.due = now + wait
        return Answered(at=wall, receipt=receipt, tries=entry.tries, retry_at=wall + wait)

    def unavailable(self, first: Task | None, reason: str, now: float, wall: float) -> Unavailable:
        """Nothing could be delivered; the attempt ended at ``first``."""
        if first is not None:
            self._entry(first).setbacks += 1
        self._failures += 1
        wait = self._backoff.seconds(self._failures, self._backoff.random())
        self._due = now + wait
        return Unavailable(at=wall, reason=reason, tries=self._failures, retry_at=wall + wait)

    def _entry(self, task: Task) -> _Pending:
        """Of a job that may have been removed meanwhile."""
        job = self._jobs.get(task.job)
        entry = job.pending.get(task.item.instance) if job is not None else None
        return entry if entry is not None else _Pending(task.item)
