"""The receipt files of all jobs of one queue: written together, reported once they are durable."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from scp.deliver.events import Delivery, Event, Finished, Progress
from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import Answered, Entry, ReceiptLog, ReceiptState
from scp.durable import Disk
from scp.errors import StorageFullError


@dataclass(slots=True)
class _Book:
    delivery: Delivery
    log: ReceiptLog
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held for writing and syncing, by lanes that have instances of the same job."""
    unreported: list[Receipt] = field(default_factory=list)


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
        """Entries that a power failure would lose."""
        return self._unsynced

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
                self._dirty[job] = book
                if isinstance(entry, Answered) and is_settled:
                    book.unreported.append(entry.receipt)
                    if entry.receipt.verdict is Verdict.SKIPPED:
                        self.skipped[entry.receipt.detail.split(":")[0]] += 1

    def flush(self) -> str:
        """Make all receipts durable and report them; returns why that failed."""
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
        entries = book.log.unsynced
        try:
            book.log.sync()
        except (OSError, StorageFullError) as error:
            return f"receipts cannot be written: {error}"
        finally:
            book.log.close()
        receipts, book.unreported = tuple(book.unreported), []
        if receipts:
            self._report(Progress(job=job, destination=self._destination, receipts=receipts))
        with self._lock:  # Last: a job that is not dirty may be reported as finished.
            del self._dirty[job]
            self._unsynced -= entries
        return ""

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
