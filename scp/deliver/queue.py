"""The queue of one destination: a thread for each lane, that delivers and tries again."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from scp.deliver.attempt import Attempt, Shared
from scp.deliver.books import Books
from scp.deliver.breaker import Backoff
from scp.deliver.events import Delivery, Event, QueueSnapshot
from scp.deliver.policy import Policy
from scp.deliver.ports import Destination, Receipt
from scp.deliver.receipts import Answered, ReceiptState, Released, load
from scp.deliver.schedule import Schedule
from scp.durable import Disk

logger = logging.getLogger(__name__)

ITEMS_A_BATCH: Final = 500
"""In one attempt, of as many jobs as it takes."""
GATHER_SECONDS: Final = 0.1
"""So long after an attempt has begun the next one waits for company: what comes one by one would have
an association each, which costs both sides more than ten small instances."""
GATHERED: Final = 20
"""Due instances that wait no longer for others."""


class DestinationQueue:
    """Delivers jobs to one destination, urgent ones first, then the oldest, several in one attempt.

    Each of ``lanes`` makes one attempt at a time, with instances that no other has; a destination
    without parallel attempts has one. What happens to an instance that fails is its verdict's
    meaning. A destination that raises PeerUnavailableError is left alone for a while, doubled each
    time, and then tried by one lane, which probes it before a large batch. One that raises
    PeerRejectedError gets what it rejected five times over an hour; then it is held, because
    somebody who edits the peer's list of callers at that moment must not cost a series.

    ``report`` is called from the lanes' threads, with Progress only after the receipts are durable.
    """

    def __init__(
        self,
        name: str,
        lanes: Sequence[Destination],
        disk: Disk,
        report: Callable[[Event], None],
        *,
        policy: Policy | None = None,
        on_retry: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        backoff = backoff or Backoff()
        self._schedule = Schedule(backoff)
        self._books = Books(name, disk, report, wall)
        self._changed = threading.Condition()
        self._shared = Shared(
            name=name,
            schedule=self._schedule,
            books=self._books,
            policy=policy or Policy(),
            backoff=backoff,
            report=report,
            wall=wall,
            now=now,
            changed=self._changed,
            max_lanes=len(lanes),
        )
        self._on_retry = on_retry
        self._wall = wall
        self._now = now
        self._attempts: list[Attempt] = []
        self._gather_until = -math.inf
        self._waiting_until: list[float] = []
        """When each lane that has nothing to do looks again by itself."""
        self._retries: set[str | None] = set()
        self._to_skip: list[tuple[str, Receipt]] = []
        self._threads = [
            threading.Thread(
                target=self._run, args=(lane,), name=f"deliver-{name}-{number}", daemon=True
            )
            for number, lane in enumerate(lanes, 1)
        ]

    # -- from any thread -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin; what was added before waits for it."""
        for thread in self._threads:
            thread.start()

    def add(self, delivery: Delivery, state: ReceiptState | None = None) -> None:
        """Take a job, in the state that its receipts say; they are read where they are not given.

        One that is queued already stays as it is. A job whose instances are all settled is finished
        at once.
        """
        state = state or load(delivery.receipts)
        with self._changed:
            if delivery.job in self._schedule:
                return
            self._books.open(delivery, state)
            items = []
            for item in delivery.items:
                skipped = None if state.is_settled(item.instance) else self._policy.skip(item)
                if skipped is None:
                    items.append(item)
                else:
                    self._to_skip.append((delivery.job, skipped))
            self._schedule.add(delivery.job, items, state, self._now(), self._wall())
            if state.unavailable is not None:
                self._shared.last_error = state.unavailable.reason
            if len(items) < len(delivery.items) or not self._is_gathering():
                self._changed.notify_all()

    def retry_now(self, job: str | None = None) -> None:
        """Try a job, or all, at once: what waits, and what is held of unfinished jobs.

        ``on_retry`` is called first: what is known of the destination may be known no longer.
        """
        self._on_retry()
        with self._changed:
            self._retries.add(job)
            self._changed.notify_all()

    def snapshot(self) -> QueueSnapshot:
        with self._changed:
            is_sending = bool(self._attempts)
            now = self._now()
            due = None if is_sending else self._schedule.next_due(now)
            return QueueSnapshot(
                destination=self.name,
                jobs=dict(self._schedule.pending()),
                oldest=self._schedule.oldest(),
                last_error=self._shared.last_error,
                next_try=None if due is None else self._wall() + max(0.0, due - now),
                is_sending=is_sending,
                down_since=self._shared.down_since,
                silent_since=min((attempt.heard for attempt in self._attempts), default=None),
                was_reached=self._shared.was_reached,
                skipped=dict(self._books.skipped),
            )

    def stop(self, timeout: float) -> bool:
        """End after the instances that are on their way; False when that outlasts ``timeout``."""
        with self._changed:
            self._shared.is_stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # -- the threads ---------------------------------------------------------------------------

    @property
    def _policy(self) -> Policy:
        return self._shared.policy

    def _run(self, lane: Destination) -> None:
        while not self._shared.is_stopping:
            try:
                self._step(lane)
            except Exception:
                logger.exception("the queue of %s failed unexpectedly", self.name)
                self._shared.rest("internal error", None)
        self._shared.flush()

    def _step(self, lane: Destination) -> None:
        """Do what is to be done, or wait for something."""
        self._release()
        self._skip()
        if self._now() >= self._schedule.breaker.rests_until:
            problem = self._shared.flush()
            if problem:
                self._shared.rest(problem, None)
        self._finish()
        with self._changed:
            if self._shared.is_stopping or self._retries or self._to_skip or self._finishable():
                return
            attempt = self._begin(lane)
            if attempt is None:
                self._wait()
                return
            self._attempts.append(attempt)
        try:
            attempt.run()
        finally:
            with self._changed:
                self._schedule.give_back(attempt.tasks)
                self._attempts.remove(attempt)
                self._changed.notify_all()

    def _begin(self, lane: Destination) -> Attempt | None:
        """Take this lane's share of what is due, if it may begin now."""
        now, busy, lanes = self._now(), len(self._attempts), self._shared.lanes
        if busy >= lanes or not self._schedule.breaker.allows(now, busy):
            return None
        if self._gathers(now):
            return None
        tasks = self._schedule.take(now, ITEMS_A_BATCH, lanes - busy)
        if not tasks:
            return None
        self._gather_until = now + GATHER_SECONDS
        if self._policy.groups_by_sender:
            tasks.sort(key=lambda t: (not t.item.is_urgent, t.item.calling_ae_title))
        attempt = Attempt(self._shared, lane, tasks)
        attempt.is_alone = lambda: len(self._attempts) == 1
        return attempt

    def _gathers(self, now: float) -> bool:
        """Whether what is due waits a moment for others."""
        return now < self._gather_until and not self._schedule.is_urgent_or_many(GATHERED)

    def _is_gathering(self) -> bool:
        """Whether a lane comes back to what is due in a moment, without being woken for each job."""
        now = self._now()
        is_awaited = any(until <= now + GATHER_SECONDS for until in self._waiting_until)
        return is_awaited and self._gathers(now)

    def _wait(self) -> None:
        seconds = self._seconds_to_wait()
        until = math.inf if seconds is None else self._now() + seconds
        self._waiting_until.append(until)
        try:
            self._changed.wait(seconds)
        finally:
            self._waiting_until.remove(until)

    def _seconds_to_wait(self) -> float | None:
        now = self._now()
        if len(self._attempts) >= self._shared.lanes:
            return None  # Who makes one tells when it is over.
        due = self._schedule.next_due(now)
        if due is None and self._books.unsynced:
            due = self._schedule.breaker.rests_until
        elif due is None and self._books.has_stuck:
            due = now + self._shared.backoff.longest_seconds
        if due is not None and due <= now:
            if self._gathers(now):
                return self._gather_until - now
            if self._attempts:
                return None
        return None if due is None else max(0.0, due - now)

    def _release(self) -> None:
        """Do what was asked by :meth:`retry_now`."""
        with self._changed:
            retries, self._retries = self._retries, set()
            wanted = [
                job
                for job in self._schedule.jobs()
                if retries and (job in retries or None in retries)
            ]
            for job in wanted:
                state = self._books.state(job)
                held = [i for i in self._books.delivery(job).items if i.instance in state.held]
                if held or state.tried or state.unavailable:
                    self._books.record(job, Released(at=self._wall()))
                self._schedule.hurry(job, held)

    def _skip(self) -> None:
        """Settle what is not to be offered."""
        with self._changed:
            skipped, self._to_skip = self._to_skip, []
            for job, receipt in skipped:
                self._books.record(job, Answered(at=self._wall(), receipt=receipt))

    def _finishable(self) -> list[str]:
        return [name for name in self._schedule.empty_jobs if not self._books.is_dirty(name)]

    def _finish(self) -> None:
        """Report jobs of which nothing is left to do."""
        with self._changed:
            skips = {job for job, _ in self._to_skip}
            names = [name for name in self._finishable() if name not in skips]
            for name in names:
                self._schedule.remove(name)
        held = 0
        for name in names:
            finished = self._books.close(name)
            held += len(finished.held)
            self._shared.report(finished)
        if held:
            logger.warning("%s: %d instances are held", self.name, held)
