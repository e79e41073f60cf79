"""What one destination still has to get, and when. Passive: the caller owns clocks and lock."""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from scp.deliver.breaker import Backoff, Breaker
from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import Answered, ReceiptState, Unavailable
from scp.model import DeliveryItem


class _Place(Enum):
    """Where a task is; an entry of any other place's list is a stale one."""

    READY = auto()
    """Due, and no trouble so far."""
    TROUBLED = auto()
    """Due, and failed before."""
    WAITING = auto()
    """For its own time."""
    BEHIND = auto()
    """For an earlier one of the same SOP Instance UID."""
    IN_HAND = auto()
    SETTLED = auto()


@dataclass(slots=True, eq=False)
class Task:
    """One instance that is not settled."""

    job: str
    item: DeliveryItem
    place: _Place = _Place.READY
    due: float = -math.inf
    tries: int = 0
    """Failures of the kind that is limited, or of the transient kind: the last one's count."""
    limited: int = 0
    setbacks: int = 0
    """How often an attempt ended at this instance: such come last, so that one cannot block all."""
    follower: "Task | None" = None
    """The next of the same SOP Instance UID: never two at once, and in order of arrival."""

    @property
    def is_settled(self) -> bool:
        return self.place is _Place.SETTLED

    @property
    def trouble(self) -> int:
        return self.tries + self.setbacks


@dataclass(slots=True)
class _Job:
    added: float
    tasks: dict[str, Task]
    """Not settled, by instance."""


class Schedule:
    """Pending instances: the urgent before the others, the oldest job first.

    A failing instance waits by itself. A destination that is unavailable as a whole makes all wait.
    Nothing here looks at all instances, so that a long queue costs no more than a short one.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self.breaker = Breaker(backoff)
        self._jobs: dict[str, _Job] = {}
        self._urgent: deque[Task] = deque()
        self._normal: deque[Task] = deque()
        self._troubled: list[Task] = []
        self._waiting: list[tuple[float, int, Task]] = []
        self._numbers = itertools.count()
        self._last_of: dict[str, Task] = {}
        """SOP Instance UID to the last unsettled task of it."""
        self._empty: dict[str, None] = {}

    def __contains__(self, job: str) -> bool:
        return job in self._jobs

    def add(
        self, job: str, items: Iterable[DeliveryItem], state: ReceiptState, now: float, wall: float
    ) -> None:
        """Take a job, in the state that its receipts say."""
        known = self._jobs[job] = _Job(wall, {})
        for item in items:
            if state.is_settled(item.instance):
                continue
            task = known.tasks[item.instance] = Task(job, item)
            tried = state.tried.get(item.instance)
            if tried is not None:
                task.tries = tried.tries
                task.limited = tried.tries if tried.receipt.verdict is Verdict.LIMITED else 0
                task.due = now + self._wait_until(tried.retry_at, wall)
            self._line_up(task)
        if not known.tasks:
            self._empty[job] = None
        elif state.unavailable is not None:
            wait = self._wait_until(state.unavailable.retry_at, wall)
            if wait:
                self.breaker.resume(state.unavailable.tries, now, wait)

    def _wait_until(self, retry_at: float, wall: float) -> float:
        """Bounded, because the wall clock may have been set since."""
        return min(max(0.0, retry_at - wall), self._backoff.longest_wait)

    def _line_up(self, task: Task) -> None:
        """Behind an earlier task of the same instance, or in its own place."""
        uid = task.item.identity.sop_instance_uid
        earlier, self._last_of[uid] = self._last_of.get(uid), task
        if earlier is None:
            self._put(task)
        else:
            earlier.follower, task.place = task, _Place.BEHIND

    def _put(self, task: Task, *, in_front: bool = False) -> None:
        if task.due > -math.inf:
            task.place = _Place.WAITING
            heapq.heappush(self._waiting, (task.due, next(self._numbers), task))
        elif task.trouble:
            task.place = _Place.TROUBLED
            self._troubled.append(task)
        else:
            task.place = _Place.READY
            ready = self._urgent if task.item.is_urgent else self._normal
            (ready.appendleft if in_front else ready.append)(task)

    def remove(self, job: str) -> None:
        """Forget a finished job."""
        del self._jobs[job]
        self._empty.pop(job, None)

    def hurry(self, job: str, restored: Iterable[DeliveryItem]) -> None:
        """Make a job due at once, failures counted from zero, with instances that were settled."""
        known = self._jobs.get(job)
        if known is None:
            return
        self.breaker.hurry()
        for task in known.tasks.values():
            task.tries = task.limited = task.setbacks = 0
            task.due = -math.inf
            if task.place in (_Place.WAITING, _Place.TROUBLED):
                self._put(task)
        for item in restored:
            task = known.tasks[item.instance] = Task(job, item)
            self._empty.pop(job, None)
            self._line_up(task)

    # -- asking --------------------------------------------------------------------------------

    def take(self, now: float, limit: int, lanes: int = 1) -> list[Task]:
        """What to try now, and nobody else: its share for one of ``lanes`` that are free.

        At most ``limit``: what was no trouble so far first, then by age.
        """
        self._wake(now)
        size = len(self._urgent) + len(self._normal) + len(self._troubled)
        limit = min(limit, -(-size // lanes))
        tasks: list[Task] = []
        for ready in (self._urgent, self._normal):
            while ready and len(tasks) < limit:
                tasks.append(ready.popleft())
        if len(tasks) < limit and self._troubled:
            due = {id(t): t for t in self._troubled if t.place is _Place.TROUBLED}
            troubled = sorted(due.values(), key=lambda t: (t.trouble, not t.item.is_urgent))
            room = limit - len(tasks)
            self._troubled = troubled[room:]
            tasks += troubled[:room]
        for task in tasks:
            task.place = _Place.IN_HAND
        return tasks

    def give_back(self, tasks: Iterable[Task]) -> None:
        """What was taken and not tried."""
        for task in reversed([t for t in tasks if t.place is _Place.IN_HAND]):
            self._put(task, in_front=True)

    def is_urgent_or_many(self, many: int) -> bool:
        """Whether something urgent is due, or so much."""
        return bool(self._urgent) or len(self._normal) + len(self._troubled) >= many

    def next_due(self, now: float) -> float | None:
        """When something can be taken; None when nothing but what is in hand is pending."""
        self._wake(now)
        if self._urgent or self._normal or self._troubled:
            return max(now, self.breaker.rests_until)
        return max(self._waiting[0][0], self.breaker.rests_until) if self._waiting else None

    def _wake(self, now: float) -> None:
        """Move what has waited long enough to what is due."""
        while self._waiting and (self._waiting[0][0] <= now or not _still_waits(self._waiting[0])):
            entry = heapq.heappop(self._waiting)
            if _still_waits(entry):
                task = entry[2]
                task.due = -math.inf
                self._put(task)

    def jobs(self) -> list[str]:
        return list(self._jobs)

    @property
    def empty_jobs(self) -> list[str]:
        """Jobs of which nothing is pending."""
        return list(self._empty)

    def pending(self) -> Iterator[tuple[str, int]]:
        """(job, instances)."""
        return ((name, len(each.tasks)) for name, each in self._jobs.items() if each.tasks)

    def oldest(self) -> float | None:
        """Wall time since when the oldest unfinished job waits."""
        return next((each.added for each in self._jobs.values() if each.tasks), None)

    # -- what happened -------------------------------------------------------------------------

    def settle(self, task: Task) -> None:
        """An instance is delivered, held or skipped."""
        task.place = _Place.SETTLED
        job = self._jobs[task.job]
        if job.tasks.get(task.item.instance) is task:
            del job.tasks[task.item.instance]
        if not job.tasks:
            self._empty[task.job] = None
        uid = task.item.identity.sop_instance_uid
        if task.follower is not None:
            self._put(task.follower, in_front=True)
            task.follower = None
        elif self._last_of.get(uid) is task:
            del self._last_of[uid]

    def postpone(
        self, task: Task, receipt: Receipt, now: float, wall: float, drawn: float
    ) -> Answered:
        """An instance failed: when it is tried again; or that it was the last try, and is settled.

        The same ``now`` and ``drawn`` keep instances that failed together together.
        """
        waits = self._backoff.limited_seconds
        if receipt.verdict is Verdict.LIMITED:
            task.limited += 1
            if task.limited > len(waits):
                self.settle(task)
                last = Receipt(
                    instance=receipt.instance,
                    verdict=Verdict.REFUSED if receipt.status else Verdict.HELD,
                    status=receipt.status,
                    detail=f"{receipt.detail} (tried {task.limited} times)",
                    offers=receipt.offers,
                )
                return Answered(at=wall, receipt=last, tries=task.limited)
            task.tries, wait = task.limited, waits[task.limited - 1]
        else:
            task.tries += 1
            wait = self._backoff.seconds(task.tries, drawn)
        task.due = now + wait
        self._put(task)
        return Answered(at=wall, receipt=receipt, tries=task.tries, retry_at=wall + wait)

    def unavailable(
        self, first: Task | None, reason: str, now: float, wall: float, retry_after: float = 0.0
    ) -> Unavailable:
        """Nothing could be delivered; the attempt ended at ``first``.

        The destination wants to be left alone for ``retry_after`` seconds.
        """
        if first is not None:
            first.setbacks += 1
        wait = self.breaker.failed(now, retry_after)
        tries = self.breaker.failures
        return Unavailable(at=wall, reason=reason, tries=tries, retry_at=wall + wait)


def _still_waits(entry: tuple[float, int, Task]) -> bool:
    due, _, task = entry
    return task.place is _Place.WAITING and task.due == due
