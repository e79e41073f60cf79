"""From the last receipt to the ledger: many jobs in one commit, then the spool's last trace goes."""

import logging
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from scp.buffer.jobs import JobFolders
from scp.durable import Disk
from scp.errors import LedgerError, StorageFullError
from scp.ledger.ports import Ledger, LedgerRow, Totals
from scp.pipeline.accounts import Accounts
from scp.pipeline.live import Live
from scp.pipeline.threads import Chores

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 5.0
"""Until a ledger that failed is tried again; doubled each time."""
_LONGEST_SECONDS = 60.0
_INSTANCES_A_COMMIT = 2000
"""After a ledger was away, what has waited is not recorded all at once."""
_DEFECT_SECONDS = 300.0
"""Until a job that the ledger cannot take, for whatever reason, is tried again by itself."""

type Later = Callable[[float, Callable[[], None]], None]
type Entry = tuple[Live, str]
"""A job, and why it was discarded; empty where it was not."""


class Recorder:
    """Writes finished jobs to the ledger. On the coordinator's thread; the writing is a chore.

    ``chores`` wait for the ledger, so nothing else should wait for them.
    """

    def __init__(
        self,
        ledger: Ledger,
        folders: JobFolders,
        disk: Disk,
        accounts: Accounts,
        chores: Chores,
        later: Later,
    ) -> None:
        self._ledger = ledger
        self._folders = folders
        self._disk = disk
        self._accounts = accounts
        self._chores = chores
        self._later = later
        self._waiting: list[Entry] = []
        self._is_busy = False
        self._singly = False
        self._failures = 0
        self.instances_a_commit = _INSTANCES_A_COMMIT
        self.problem = ""
        """Why the ledger takes nothing; empty as far as one knows that it does."""
        self.done: Callable[[Live], None] = lambda live: None
        """Called when the ledger has a job; its folder is in the trash by then, if the disk let it."""

    @property
    def jobs_waiting(self) -> int:
        """Jobs that are done and wait for the ledger."""
        return len(self._waiting)

    def recorded(self, jobs: Collection[str]) -> set[str]:
        """Those that the ledger has already: only their folders were left behind by a crash.

        A ledger that cannot be asked has none: recording them once more changes nothing there.
        """
        try:
            return self._ledger.known(jobs)
        except LedgerError as error:
            self._failed(error)
            return set()

    def catch_up(self) -> None:
        """Tell the accounts what the ledger has, as soon as it can be asked; at once when it can."""
        since = self._accounts.window_begin()

        def again(error: Exception) -> None:
            if not isinstance(error, LedgerError):
                logger.error("what the ledger has is not known", exc_info=error)
            self._failed(error)
            self._later(self._wait(), self.catch_up)

        self._chores.do(
            lambda: (self._ledger.totals(), self._ledger.finished_since(since)),
            lambda found: self._accounts.load(*found),
            again,
        )

    def record(self, live: Live, discarded: str) -> None:
        """Record a job; with a reason, what was not delivered counts as discarded."""
        live.is_recording = True
        self._waiting.append((live, discarded))
        self._next()

    def throw_away(self, job: str, *, from_held: bool) -> None:
        """Delete a folder that nothing needs any more."""
        self._disk.remove_tree(self._folders.finish(job, from_held=from_held))

    def _next(self) -> None:
        if self._is_busy or not self._waiting:
            return
        self._is_busy = True
        size = 1 if self._singly else self._size_of_batch()
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        self._singly = self._singly and bool(self._waiting)

        def work() -> tuple[Totals, list[Path]]:
            rows: list[LedgerRow] = [row for live, why in batch for row in live.rows(why)]
            self._ledger.record(rows)
            return self._ledger.totals(), [*self._to_trash(batch)]

        self._chores.do(
            work,
            lambda result: self._recorded(batch, *result),
            lambda error: self._not_recorded(batch, error),
        )

    def _size_of_batch(self) -> int:
        """How many jobs go together, at least one."""
        instances = 0
        for size, (live, _) in enumerate(self._waiting):
            instances += len(live.job.instances)
            if size and instances > self.instances_a_commit:
                return size
        return len(self._waiting)

    def _to_trash(self, batch: list[Entry]) -> Iterator[Path]:
        for live, _ in batch:
            name = live.job.name
            is_held = live.folder == self._folders.held_folder(name)
            try:
                yield self._folders.finish(name, from_held=is_held)
            except (OSError, StorageFullError) as error:
                # The ledger has it, so it is done; the next start asks the ledger and deletes it.
                logger.warning("the folder of job %s is left behind: %s", name, error)

    def _recorded(self, batch: list[Entry], totals: Totals, trash: list[Path]) -> None:
        self._is_busy = False
        if self.problem:
            logger.info(
                "the ledger takes jobs again; %d have waited", len(batch) + len(self._waiting)
            )
        self._failures, self.problem = 0, ""
        for live, discarded in batch:
            self._accounts.finished(live.job.name, totals)
            if discarded:
                given_up = {i.name for i in live.job.instances if live.state_of(i) is None}
                self._accounts.remember(live.job, without=given_up, is_over=True)
            self.done(live)

        def empty() -> None:
            for folder in trash:
                self._disk.remove_tree(folder)

        self._chores.do(
            empty,
            lambda _: None,
            lambda error: logger.warning("trash could not be emptied: %s", error),
        )
        self._next()

    def _not_recorded(self, batch: list[Entry], error: Exception) -> None:
        """Try again; where it is not the ledger's state, find the job that it is, and let others go on."""
        self._is_busy = False
        if isinstance(error, LedgerError):
            self._failed(error)
            self._waiting = [*batch, *self._waiting]
            self._is_busy = True  # Until then; a job that comes meanwhile waits with these.
            self._later(self._wait(), self._try_again)
            return
        if len(batch) > 1:
            self._singly = True
            self._waiting = [*batch, *self._waiting]
        else:
            logger.error("job %s cannot be recorded", batch[0][0].job.name, exc_info=error)
            self._later(_DEFECT_SECONDS, lambda: self.record(*batch[0]))
        self._next()

    def _try_again(self) -> None:
        self._is_busy = False
        self._next()

    def _failed(self, error: Exception) -> None:
        """Say so once, and not each time until it works again."""
        log = logger.debug if self.problem else logger.error
        log("%s; what is done waits in the spool and is recorded later", error)
        self.problem = str(error)

    def _wait(self) -> float:
        """Seconds until the ledger is tried again."""
        self._failures += 1
        return min(_AGAIN_SECONDS * 2.0 ** min(self._failures - 1, 10), _LONGEST_SECONDS)
