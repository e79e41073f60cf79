"""The receipt files of all jobs of one queue: written together, reported once they are durable."""

import errno
import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from scp.deliver.events import Delivery, Event, Finished, Progress
from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import Answered, Entry, ReceiptLog, ReceiptState
from scp.durable import Disk
from scp.errors import StorageFullError

logger = logging.getLogger(__name__)

_OF_ONE_JOB: Final = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
)
"""Of a job's folder, which somebody has taken away or closed: receipts of others can be written."""

_MOST_OPEN: Final = 64
"""Receipt files that stay open until a flush; those of more jobs that fail together are opened again."""


@dataclass(slots=True)
class _Book:
    delivery: Delivery
    log: ReceiptLog
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held for writing and syncing, by lanes that have instances of the same job."""
    unreported: list[Receipt] = field(default_factory=list)
    waiting: int = 0
    """Entries that a flush is to make durable, and that count for when there is one."""
    is_stuck: bool = False
    """Its receipts could not be written, for a reason of its own."""


class Books:
    """Used by all threads of a queue. ``report`` gets Progress only after its receipts are durable.

    Who adds a job waits for no disk: the coordinator does, for every destination.
    """

    def __init__(
        self,
        destination: str,
        disk: Disk,
        report: Callable[[Event], None],
        wall: Callable[[], float],
    ) -> None:
        self._destination = destination
        self._disk = disk
        self._report = report
        self._wall = wall
        self._lock = threading.Lock()
        """For what follows; never held while the disk is waited for."""
        self._flushing = threading.Lock()
        self._books: dict[str, _Book] = {}
        self._dirty: dict[str, _Book] = {}
        """With receipts that are not durable or not reported."""
        self._unsynced = 0
        self.skipped: Counter[str] = Counter()
        """Reason to the number of instances, since the start."""

    @property
    def unsynced(self) -> int:
        """Entries that a power failure would lose, those of stuck jobs apart."""
        return self._unsynced

    @property
    def has_stuck(self) -> bool:
        """Whether receipts of some job cannot be written although those of others can."""
        with self._lock:
            return any(book.is_stuck for book in self._dirty.values())

    def open(self, delivery: Delivery, state: ReceiptState) -> None:
        log = ReceiptLog(self._disk, delivery.receipts, state, wall=self._wall)
        with self._lock:
            self._books[delivery.job] = _Book(delivery, log)

    def delivery(self, job: str) -> Delivery:
        return self._books[job].delivery

    def state(self, job: str) -> ReceiptState:
        return self._books[job].log.state

    def is_dirty(self, job: str) -> bool:
        return job in self._dirty

    def record(self, job: str, entry: Entry) -> None:
        """Write an entry; it is durable, and reported, after :meth:`flush`."""
        book = self._books[job]
        with book.lock:
            entry = book.log.record(entry)
            is_settled = isinstance(entry, Answered) and entry.receipt.verdict.is_settled
            with self._lock:
                self._unsynced += 1
                book.waiting += 1
                self._dirty[job] = book
                if isinstance(entry, Answered) and is_settled:
                    book.unreported.append(entry.receipt)
                    if entry.receipt.verdict is Verdict.SKIPPED:
                        self.skipped[entry.receipt.detail.split(":")[0]] += 1
                is_one_too_many = len(self._dirty) > _MOST_OPEN
            if is_one_too_many:
                book.log.close()

    def flush(self) -> str:
        """Make all receipts durable and report them; returns why that failed.

        A job whose own folder cannot be written is no failure of the others: it is stuck, never
        reported as finished, and tried again with each flush.
        """
        with self._flushing:
            with self._lock:
                dirty = list(self._dirty.items())
            for job, book in dirty:
                with book.lock:
                    problem = self._flush_one(job, book)
                if problem:
                    return problem
        return ""

    def _flush_one(self, job: str, book: _Book) -> str:
        try:
            book.log.sync()
        except (OSError, StorageFullError) as error:
            if not isinstance(error, OSError) or error.errno not in _OF_ONE_JOB:
                return f"receipts cannot be written: {error}"
            if not book.is_stuck:
                logger.error(
                    "receipts of job %s cannot be written: %s; it is not finished before they are",
                    job,
                    error.strerror,
                )
            book.is_stuck = True
            self._waits_no_more(book)
            return ""
        finally:
            book.log.close()
        book.is_stuck = False
        receipts, book.unreported = tuple(book.unreported), []
        if receipts:
            self._report(Progress(job=job, destination=self._destination, receipts=receipts))
        self._waits_no_more(book)
        with self._lock:  # Last: a job that is not dirty may be reported as finished.
            del self._dirty[job]
        return ""

    def _waits_no_more(self, book: _Book) -> None:
        with self._lock:
            self._unsynced -= book.waiting
            book.waiting = 0

    def close(self, job: str) -> Finished:
        """Forget a job of which nothing is left to do; what it came to."""
        with self._lock:
            book = self._books.pop(job)
        state = book.log.state
        wanted = {item.instance for item in book.delivery.items}
        return Finished(
            job=job,
            destination=self._destination,
            delivered=len(wanted & state.done.keys()),
            held={name: r.detail for name, r in state.held.items() if name in wanted},
            skipped={name: r.detail for name, r in state.skipped.items() if name in wanted},
        )
