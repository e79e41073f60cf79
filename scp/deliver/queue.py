"""The queue of one destination: one thread that delivers, keeps receipts and tries again."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from scp.deliver.events import Delivery, Event, Finished, Progress, QueueSnapshot, Waiting
from scp.deliver.ports import Destination, Receipt, Verdict
from scp.deliver.receipts import Answered, Entry, ReceiptLog, Released, load
from scp.deliver.schedule import Backoff, Schedule, Task
from scp.durable import Disk
from scp.errors import PeerRejectedError, PeerUnavailableError, StorageFullError

logger = logging.getLogger(__name__)

ITEMS_A_BATCH: Final = 500
"""In one attempt, of as many jobs as it takes."""
RECEIPTS_A_SYNC: Final = 64
"""At most so many instances, or those of one second, are sent again after a power failure."""
SECONDS_A_SYNC: Final = 1.0
TRANSIENT_IN_A_ROW: Final = 3
"""Answers of "later" after which the destination is left alone as a whole."""


@dataclass(slots=True)
class _Job:
    delivery: Delivery
    log: ReceiptLog
    unreported: list[Receipt] = field(default_factory=list)


@dataclass(slots=True)
class _Attempt:
    """What one call of the destination did so far."""

    tasks: list[Task]
    started: float
    answered: int = 0
    failed: list[tuple[Task, Receipt]] = field(default_factory=list)
    transient_in_a_row: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    warnings: int = 0
    problem: str = ""
    """Why the destination as a whole is left alone for a while."""

    @property
    def unanswered(self) -> list[Task]:
        return self.tasks[self.answered :]


class DestinationQueue:
    """Delivers jobs to one destination, the oldest first, several in one attempt.

    What happens to an instance that fails is its verdict's meaning. A destination that raises
    PeerUnavailableError is left alone for a while, doubled each time. One that raises
    PeerRejectedError gets what it rejected five times over an hour; then it is held, because
    somebody who edits the peer's list of callers at that moment must not cost a series.

    ``report`` is called from the queue's thread, with Progress only after the receipts are durable.
    """

    def __init__(
        self,
        name: str,
        destination: Destination,
        disk: Disk,
        report: Callable[[Event], None],
        *,
        backoff: Backoff | None = None,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._destination = destination
        self._disk = disk
        self._report = report
        self._backoff = backoff or Backoff()
        self._wall = wall
        self._now = now
        self._changed = threading.Condition()
        self._schedule = Schedule(self._backoff)
        self._jobs: dict[str, _Job] = {}
        self._dirty: dict[str, _Job] = {}
        """Jobs with receipts that are not durable or not reported; the thread's own."""
        self._synced_at = 0.0
        self._retries: set[str | None] = set()
        self._attempt: _Attempt | None = None
        self._last_error = ""
        self._is_stopping = False
        self._is_interrupted = False
        self._thread = threading.Thread(target=self._run, name=f"deliver-{name}", daemon=True)

    # -- from any thread -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin; what was added before waits for it."""
        self._thread.start()

    def add(self, delivery: Delivery) -> None:
        """Take a job, in the state that its receipts say.

        One that is queued already stays as it is. A job whose instances are all delivered or held
        is finished at once.
        """
        state = load(delivery.receipts)
        log = ReceiptLog(self._disk, delivery.receipts, state, wall=self._wall)
        with self._changed:
            if delivery.job not in self._jobs:
                self._jobs[delivery.job] = _Job(delivery, log)
                now, wall = self._now(), self._wall()
                self._schedule.add(delivery.job, delivery.items, state, now, wall)
                if state.unavailable is not None:
                    self._last_error = state.unavailable.reason
                self._changed.notify_all()

    def retry_now(self, job: str | None = None) -> None:
        """Try a job, or all, at once: what waits, and what is held of unfinished jobs."""
        with self._changed:
            self._retries.add(job)
            self._changed.notify_all()

    def remove(self, job: str, timeout: float = 5.0) -> bool:
        """Forget a job; no receipt of it is written any more, and it is never reported as finished.

        False: one of its instances is still on its way after ``timeout`` seconds.
        """
        with self._changed:
            self._jobs.pop(job, None)
            self._schedule.remove(job)
            self._is_interrupted = self._is_interrupted or self._is_in_hand(job)
            return self._changed.wait_for(lambda: not self._is_in_hand(job), timeout)

    def snapshot(self) -> QueueSnapshot:
        with self._changed:
            due = None if self._attempt is not None else self._schedule.next_due()
            return QueueSnapshot(
                destination=self.name,
                jobs=dict(self._schedule.pending()),
                oldest=self._schedule.oldest(),
                last_error=self._last_error,
                next_try=None if due is None else self._wall() + max(0.0, due - self._now()),
                is_sending=self._attempt is not None,
            )

    def stop(self, timeout: float) -> bool:
        """End after the instance that is on its way; False when that outlasts ``timeout``."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _is_in_hand(self, job: str) -> bool:
        return self._attempt is not None and any(task.job == job for task in self._attempt.tasks)

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                self._step()
            except Exception:
                logger.exception("the queue of %s failed unexpectedly", self.name)
                self._rest("internal error", None)
        self._flush()

    def _step(self) -> None:
        """Do what is to be done, or wait for something."""
        self._release()
        problem = self._flush() if self._now() >= self._schedule.rests_until else ""
        if problem:
            self._rest(problem, None)
        self._finish()
        with self._changed:
            if self._is_stopping or self._retries or self._finishable():
                return
            tasks = self._schedule.due(self._now(), ITEMS_A_BATCH)
            if not tasks:
                self._changed.wait(self._seconds_to_wait())
                return
            attempt = self._attempt = _Attempt(tasks, self._now())
            self._is_interrupted = False
        try:
            self._deliver(attempt)
        finally:
            with self._changed:
                self._attempt = None
                self._changed.notify_all()

    def _seconds_to_wait(self) -> float | None:
        due = self._schedule.next_due()
        if due is None and self._dirty:
            due = self._schedule.rests_until
        return None if due is None else max(0.0, due - self._now())

    def _release(self) -> None:
        """Do what was asked by :meth:`retry_now`."""
        with self._changed:
            retries, self._retries = self._retries, set()
            jobs = [
                (name, job)
                for name, job in self._jobs.items()
                if name in retries or None in retries
            ]
        for name, job in jobs:
            state = job.log.state
            held = [item for item in job.delivery.items if item.instance in state.held]
            if held or state.tried or state.unavailable:
                self._record(name, Released(at=self._wall()))
            with self._changed:
                self._schedule.hurry(name, held)

    # -- one attempt ---------------------------------------------------------------------------

    def _deliver(self, attempt: _Attempt) -> None:
        items = [task.item for task in attempt.tasks]
        self._synced_at = self._now()

        def should_stop() -> bool:
            return self._is_stopping or self._is_interrupted or bool(attempt.problem)

        try:
            for receipt in self._destination.deliver(items, should_stop):
                self._take(attempt, receipt)
        except PeerUnavailableError as error:
            attempt.problem = str(error)
        except PeerRejectedError as error:
            attempt.failed += [(task, _limited(task, str(error))) for task in attempt.unanswered]
        except Exception as error:
            # The fault of one instance, for all we know: it is tried as often as such, then held.
            logger.exception("delivery to %s failed unexpectedly", self.name)
            reason = f"internal_error: {type(error).__name__}"
            attempt.failed += [(task, _limited(task, reason)) for task in attempt.unanswered[:1]]
        self._log(attempt)
        self._put_off(attempt)

    def _take(self, attempt: _Attempt, receipt: Receipt) -> None:
        """Note one answer."""
        task = attempt.tasks[attempt.answered]
        attempt.answered += 1
        verdict = receipt.verdict
        attempt.transient_in_a_row += 1
        if verdict is Verdict.TRANSIENT:
            attempt.failed.append((task, receipt))
            if attempt.transient_in_a_row == TRANSIENT_IN_A_ROW:
                attempt.problem = receipt.detail
            return
        attempt.transient_in_a_row = 0
        if verdict is Verdict.LIMITED:
            attempt.failed.append((task, receipt))
        else:
            self._record(task.job, Answered(at=self._wall(), receipt=receipt))
        with self._changed:
            self._schedule.reached()
            if verdict is not Verdict.LIMITED:
                self._schedule.settle(task.job, receipt.instance)
            if verdict.is_done:
                self._last_error = ""
        if verdict.is_done:
            attempt.delivered += 1
            attempt.warnings += verdict is Verdict.WARNING
            with contextlib.suppress(OSError):
                attempt.delivered_bytes += task.item.path.stat().st_size
        unsynced = sum(job.log.unsynced for job in self._dirty.values())
        if unsynced >= RECEIPTS_A_SYNC or self._now() - self._synced_at >= SECONDS_A_SYNC:
            attempt.problem = attempt.problem or self._flush()

    def _put_off(self, attempt: _Attempt) -> None:
        """Decide when what failed is tried again; write it down, and say so."""
        now, wall, drawn = self._now(), self._wall(), self._backoff.random()
        waiting: dict[str, tuple[float, str]] = {}
        for task, receipt in attempt.failed:
            with self._changed:
                entry = self._schedule.postpone(task, receipt, now, wall, drawn)
            self._record(task.job, entry)
            if entry.receipt.verdict is not Verdict.HELD:
                earliest = min(waiting.get(task.job, (entry.retry_at, "")), (entry.retry_at, ""))
                waiting[task.job] = (earliest[0], receipt.detail)
        if attempt.problem:
            unanswered = attempt.unanswered or [task for task, _ in attempt.failed]
            retry_at = self._rest(attempt.problem, unanswered[0] if unanswered else None)
            waiting |= {task.job: (retry_at, attempt.problem) for task in unanswered}
        problem = self._flush()
        if problem:
            self._rest(problem, None)
        for job, (retry_at, reason) in waiting.items():
            self._last_error = reason
            self._report(Waiting(job=job, destination=self.name, reason=reason, retry_at=retry_at))
        if attempt.failed and waiting and not attempt.problem:
            retry_at, reason = min(waiting.values())
            logger.warning(
                "%s did not take %d of %d instances, next try in %.0f s: %s",
                self.name,
                len(attempt.failed),
                len(attempt.tasks),
                retry_at - wall,
                reason,
            )

    def _rest(self, problem: str, first: Task | None) -> float:
        """Leave the destination alone for a while; returns until when, in wall time.

        The receipts of one job remember it, which is enough for the next start.
        """
        with self._changed:
            entry = self._schedule.unavailable(first, problem, self._now(), self._wall())
            self._last_error = problem
        if first is not None:
            self._record(first.job, entry)
        wait = entry.retry_at - entry.at
        logger.warning("delivery to %s failed, next try in %.0f s: %s", self.name, wait, problem)
        return entry.retry_at

    def _log(self, attempt: _Attempt) -> None:
        if attempt.delivered:
            logger.info(
                "delivered to %s: %d instances, %d bytes, %.2f s, %d warnings",
                self.name,
                attempt.delivered,
                attempt.delivered_bytes,
                self._now() - attempt.started,
                attempt.warnings,
            )

    # -- receipts and reports ------------------------------------------------------------------

    def _record(self, name: str, entry: Entry) -> None:
        job = self._jobs.get(name)
        if job is None:
            return
        entry = job.log.record(entry)
        if isinstance(entry, Answered) and (
            entry.receipt.verdict.is_done or entry.receipt.verdict is Verdict.HELD
        ):
            job.unreported.append(entry.receipt)
        self._dirty[name] = job

    def _flush(self) -> str:
        """Make all receipts durable and report them; returns why that failed."""
        self._synced_at = self._now()
        for name, job in list(self._dirty.items()):
            is_removed = self._jobs.get(name) is not job
            try:
                if not is_removed:
                    job.log.sync()
            except (OSError, StorageFullError) as error:
                return f"receipts cannot be written: {error}"
            finally:
                job.log.close()
            del self._dirty[name]
            if job.unreported and not is_removed:
                receipts, job.unreported = tuple(job.unreported), []
                self._report(Progress(job=name, destination=self.name, receipts=receipts))
        return ""

    def _finishable(self) -> list[str]:
        return [name for name in self._schedule.empty_jobs() if name not in self._dirty]

    def _finish(self) -> None:
        """Report jobs of which nothing is left to do."""
        with self._changed:
            names = self._finishable()
            jobs = [self._jobs.pop(name) for name in names]
            for name in names:
                self._schedule.remove(name)
        for job in jobs:
            state = job.log.state
            wanted = {item.instance for item in job.delivery.items}
            held = {name: state.held[name].detail for name in state.held if name in wanted}
            if held:
                logger.warning("%s: %d instances are held", self.name, len(held))
            self._report(
                Finished(
                    job=job.delivery.job,
                    destination=self.name,
                    delivered=len(wanted & state.done.keys()),
                    held=held,
                )
            )


def _limited(task: Task, reason: str) -> Receipt:
    return Receipt(instance=task.item.instance, verdict=Verdict.LIMITED, status="", detail=reason)
