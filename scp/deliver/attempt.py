"""One attempt: a batch of instances, one call of the destination, and what its answers lead to."""

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from scp.deliver.books import Books
from scp.deliver.breaker import Backoff
from scp.deliver.events import Event, Waiting
from scp.deliver.policy import Policy
from scp.deliver.ports import Destination, Receipt, Verdict
from scp.deliver.receipts import Answered
from scp.deliver.schedule import Schedule, Task
from scp.errors import DeliveryError, PeerRejectedError, PeerUnavailableError

logger = logging.getLogger(__name__)

RECEIPTS_A_SYNC: Final = 64
"""At most so many instances, or those of one second, are sent again after a power failure."""
SECONDS_A_SYNC: Final = 1.0
TRANSIENT_IN_A_ROW: Final = 3
"""Answers of "later" after which the destination is left alone as a whole."""
SMALL_BATCH: Final = 10
"""A larger one is not tried on a destination that has failed before it was probed."""
CROWDED_SECONDS: Final = 60.0
"""For so long no more associations are tried than the peer took beside each other."""


@dataclass(slots=True)
class Shared:
    """What the lanes of one queue have in common; ``changed`` guards all but the books."""

    name: str
    schedule: Schedule
    books: Books
    policy: Policy
    backoff: Backoff
    report: Callable[[Event], None]
    wall: Callable[[], float]
    now: Callable[[], float]
    changed: threading.Condition
    max_lanes: int
    is_stopping: bool = False
    last_error: str = ""
    down_since: float | None = None
    """Wall time of the first failure since something was taken."""
    was_reached: bool = False
    """Whether it has answered since the start."""
    synced_at: float = 0.0
    crowded_until: float = 0.0
    crowded_lanes: int = 0

    @property
    def lanes(self) -> int:
        """How many attempts may be made at a time."""
        return self.crowded_lanes if self.now() < self.crowded_until else self.max_lanes

    def reached(self) -> None:
        """The destination answers: lanes that waited for that may begin."""
        self.down_since = None
        self.was_reached = True
        if not self.schedule.breaker.is_closed:
            self.schedule.breaker.reached()
            self.changed.notify_all()

    def flush(self) -> str:
        """Have the receipts durable; returns why that failed."""
        self.synced_at = self.now()
        return self.books.flush()

    def rest(self, problem: str, first: Task | None, retry_after: float = 0.0) -> float:
        """Leave the destination alone for a while; returns until when, in wall time.

        That is at least the ``retry_after`` seconds from now that it has asked for, within bounds.
        The receipts of one job remember it, which is enough for the next start.
        """
        with self.changed:
            entry = self.schedule.unavailable(first, problem, self.now(), self.wall(), retry_after)
            self.last_error = problem
            self.down_since = self.down_since or entry.at
        if first is not None:
            self.books.record(first.job, entry)
        wait = entry.retry_at - entry.at
        logger.warning("delivery to %s failed, next try in %.0f s: %s", self.name, wait, problem)
        return entry.retry_at


class Attempt:
    """One lane's; what it took and did not try goes back to the schedule by its queue."""

    def __init__(self, shared: Shared, destination: Destination, tasks: Sequence[Task]) -> None:
        self._shared = shared
        self._destination = destination
        self.tasks = list(tasks)
        self.answered = 0
        self.is_alone: Callable[[], bool] = lambda: True
        """Whether no other lane makes one meanwhile."""
        self.heard = shared.wall()
        """Wall time of the last answer, or of the beginning: it may hang, and nobody would know."""
        self._started = shared.now()
        self._failed: list[tuple[Task, Receipt]] = []
        self._transient_in_a_row = 0
        self._was_reached = False
        self._delivered = 0
        self._delivered_bytes = 0
        self._warnings = 0
        self._problem = ""
        """Why the destination as a whole is left alone for a while."""
        self._retry_after = 0.0
        """For how many seconds it wants that."""

    def run(self) -> None:
        items = [task.item for task in self.tasks]
        try:
            self._probe()
            for receipt in self._destination.deliver(items, self._should_stop):
                self._take(receipt)
        except PeerUnavailableError as error:
            if self._was_reached or self.is_alone() or error.retry_after:
                self._problem, self._retry_after = str(error), error.retry_after
            else:
                self._give_way(str(error))
        except PeerRejectedError as error:
            self._rejected(str(error))
        except Exception as error:
            # The fault of one instance, for all we know: it is tried as often as such, then held.
            logger.exception("delivery to %s failed unexpectedly", self._shared.name)
            reason = f"internal_error: {type(error).__name__}"
            self._failed += [(task, _limited(task, reason)) for task in self._unanswered[:1]]
        self._log()
        self._put_off()

    @property
    def _unanswered(self) -> list[Task]:
        return self.tasks[self.answered :]

    def _should_stop(self) -> bool:
        return self._shared.is_stopping or bool(self._problem)

    def _probe(self) -> None:
        """Do not send much into a hole: ask first whether the destination is back."""
        if self._shared.schedule.breaker.is_closed or len(self.tasks) <= SMALL_BATCH:
            return
        try:
            self._destination.check()
        except (PeerUnavailableError, PeerRejectedError):
            raise
        except DeliveryError as error:
            # It is there, and does not verify; what it does with instances remains to be seen.
            logger.debug("%s: %s", self._shared.name, error)

    def _give_way(self, reason: str) -> None:
        """The peer takes no further association beside those of the other lanes."""
        shared = self._shared
        with shared.changed:
            shared.crowded_lanes = max(1, shared.lanes - 1)
            shared.crowded_until = shared.now() + CROWDED_SECONDS
        logger.info("%s takes %d associations: %s", shared.name, shared.crowded_lanes, reason)

    def _rejected(self, reason: str) -> None:
        """It was said of the association: it holds for whatever else is due, too."""
        shared = self._shared
        with shared.changed:
            self.tasks += shared.schedule.take(shared.now(), len(self.tasks) + 10**9)
            shared.down_since = shared.down_since or shared.wall()
        self._failed += [(task, _limited(task, reason)) for task in self._unanswered]

    def _take(self, receipt: Receipt) -> None:
        """Note one answer."""
        shared = self._shared
        self.heard = shared.wall()
        receipt = shared.policy.decide(receipt)
        verdict = receipt.verdict
        task = self.tasks[self.answered]
        self.answered += 1
        self._was_reached = self._was_reached or not receipt.is_of_its_class
        self._transient_in_a_row += not receipt.is_of_its_class
        if verdict is Verdict.TRANSIENT:
            self._failed.append((task, receipt))
            if self._transient_in_a_row == TRANSIENT_IN_A_ROW:
                self._problem = receipt.detail
            return
        self._transient_in_a_row = 0
        answered = Answered(at=shared.wall(), receipt=receipt)
        if verdict.is_done:
            shared.books.record(task.job, answered)
        elif not verdict.is_settled:
            self._failed.append((task, receipt))
        with shared.changed:
            shared.reached()
            if verdict.is_settled and not verdict.is_done:
                # With its task: whoever retries what is held must not find one without the other.
                shared.books.record(task.job, answered)
            if verdict.is_settled:
                shared.schedule.settle(task)
            if verdict.is_done:
                shared.last_error = ""
        if verdict.is_done:
            self._delivered += 1
            self._warnings += verdict is Verdict.WARNING
            with contextlib.suppress(OSError):
                self._delivered_bytes += task.item.path.stat().st_size
        is_due = shared.now() - shared.synced_at >= SECONDS_A_SYNC
        if is_due or shared.books.unsynced >= RECEIPTS_A_SYNC:
            self._problem = self._problem or shared.flush()

    def _put_off(self) -> None:
        """Decide when what failed is tried again; write it down, and say so."""
        shared = self._shared
        now, wall, drawn = shared.now(), shared.wall(), shared.backoff.random()
        waiting: dict[str, tuple[float, str]] = {}
        for task, receipt in self._failed:
            with shared.changed:  # Until it is on record: one that settles may be its job's last.
                entry = shared.schedule.postpone(task, receipt, now, wall, drawn)
                entry = replace(entry, receipt=shared.policy.decide(entry.receipt))
                shared.books.record(task.job, entry)
            if not entry.receipt.verdict.is_settled:
                earliest = min(waiting.get(task.job, (entry.retry_at, "")), (entry.retry_at, ""))
                waiting[task.job] = (earliest[0], receipt.detail)
        if self._problem:
            failed = [task for task, _ in self._failed if not task.is_settled]
            unanswered = self._unanswered or failed
            first = unanswered[0] if unanswered else None
            retry_at = shared.rest(self._problem, first, self._retry_after)
            waiting |= {task.job: (retry_at, self._problem) for task in unanswered}
        problem = shared.flush()
        if problem:
            shared.rest(problem, None)
        for job, (retry_at, reason) in waiting.items():
            shared.last_error = reason
            shared.report(
                Waiting(job=job, destination=shared.name, reason=reason, retry_at=retry_at)
            )
        if self._failed and waiting and not self._problem:
            retry_at, reason = min(waiting.values())
            logger.warning(
                "%s did not take %d of %d instances, next try in %.0f s: %s",
                shared.name,
                len(self._failed),
                len(self.tasks),
                retry_at - wall,
                reason,
            )

    def _log(self) -> None:
        if self._delivered:
            logger.info(
                "delivered to %s: %d instances, %d bytes, %.2f s, %d warnings",
                self._shared.name,
                self._delivered,
                self._delivered_bytes,
                self._shared.now() - self._started,
                self._warnings,
            )


def _limited(task: Task, reason: str) -> Receipt:
    return Receipt(instance=task.item.instance, verdict=Verdict.LIMITED, status="", detail=reason)
