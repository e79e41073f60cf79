"""From the last receipt to the ledger: many jobs in one commit, then the spool's last trace goes."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from scp.buffer.jobs import SOURCE, JobFolders
from scp.buffer.originals import Kept
from scp.durable import Disk
from scp.errors import LedgerError, NodeError, StorageFullError
from scp.ledger.ports import Ledger, LedgerRow, State, Totals
from scp.pipeline.accounts import Accounts
from scp.pipeline.live import Live
from scp.pipeline.originals import Originals
from scp.pipeline.threads import Chores, Later, Soon, directly

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 5.0
"""Until a ledger that failed is tried again; doubled each time."""
_LONGEST_SECONDS = 60.0
_INSTANCES_A_COMMIT = 2000
"""After a ledger was away, what has waited is not recorded all at once."""
_LEFT_SECONDS = 60.0
"""Until it is tried again to clear a recorded job away."""
_GIVEN_UP = "discarded"
_DEFECT_SECONDS = 300.0
"""Until a job that the ledger cannot take, for whatever reason, is tried again by itself."""

type Entry = tuple[Live, str]
"""A job, and why it was discarded; empty where it was not."""
type Recorded = tuple[Live, list[LedgerRow]]
"""A job that the ledger has, and its rows."""


@dataclass(slots=True)
class _Cleared:
    """What became of the folders of recorded jobs."""

    kept: list[Kept] = field(default_factory=list)
    trash: list[Path] = field(default_factory=list)
    left: list[Recorded] = field(default_factory=list)
    """They could not be moved."""


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
        originals: Originals,
        chores: Chores,
        later: Later,
        soon: Soon = directly,
    ) -> None:
        self._ledger = ledger
        self._folders = folders
        self._disk = disk
        self._accounts = accounts
        self._originals = originals
        self._chores = chores
        self._later = later
        self._soon = soon
        self._waiting: list[Entry] = []
        self._is_busy = False
        self._singly = False
        self._failures = 0
        self.instances_a_commit = _INSTANCES_A_COMMIT
        self.problem = ""
        """Why the ledger takes nothing; empty as far as one knows that it does."""
        self.left_behind = 0
        """Recorded jobs whose folders could not be cleared away."""
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
            return self._soon(lambda: self._ledger.known(jobs))
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

    def throw_away(self, live: Live) -> None:
        """Keep the originals of a job that the ledger has and a crash left behind; delete its folder."""
        try:
            live.read_receipts()
        except NodeError as error:
            # Without them it is not known which originals are to be kept.
            logger.error("job %s is done and left in %s: %s", live.job.name, live.folder, error)
            return
        rows = [*live.rows(_GIVEN_UP)]
        if live.folder != self._folders.held_folder(live.job.name):
            # Nobody gives up what is not held: what its receipts have lost was delivered.
            rows = [
                replace(row, state=State.DELIVERED) if row.state is State.DISCARDED else row
                for row in rows
            ]
        cleared = self._clear([(live, rows)])
        self._originals.added(cleared.kept)
        for folder in cleared.trash:
            self._disk.remove_tree(folder)

    def _next(self) -> None:
        if self._is_busy or not self._waiting:
            return
        self._is_busy = True
        size = 1 if self._singly else self._size_of_batch()
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        self._singly = self._singly and bool(self._waiting)

        def work() -> tuple[Totals, _Cleared]:
            recorded = [(live, [*live.rows(why)]) for live, why in batch]
            self._ledger.record([row for _, rows in recorded for row in rows])
            return self._ledger.totals(), self._clear(recorded)

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

    def _clear(self, recorded: list[Recorded]) -> "_Cleared":
        """Keep what originals are to be kept, then move the jobs into the trash."""
        cleared = _Cleared()
        moved: dict[bool, list[Recorded]] = {}
        for live, rows in recorded:
            name = live.job.name
            is_held = live.folder == self._folders.held_folder(name)
            try:
                cleared.kept += self._originals.keep(name, live.folder / SOURCE, rows)
                cleared.trash.append(self._folders.finish(name, from_held=is_held))
            except (OSError, StorageFullError) as error:
                # The ledger has it, so it is done; a start would find that out, too.
                logger.warning("the folder of job %s is left behind for now: %s", name, error)
                cleared.left.append((live, rows))
            else:
                moved.setdefault(is_held, []).append((live, rows))
        try:
            for is_held in moved:
                self._folders.sync_finished(from_held=is_held)
        except (OSError, StorageFullError) as error:
            # They may come back, and must be whole then; the next start empties the trash.
            logger.warning("the folders of finished jobs are left behind for now: %s", error)
            cleared.left += [each for those in moved.values() for each in those]
            cleared.trash.clear()
        return cleared

    def _recorded(self, batch: list[Entry], totals: Totals, cleared: "_Cleared") -> None:
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

        self._cleared(cleared)
        self._next()

    def _cleared(self, cleared: "_Cleared") -> None:
        self._originals.added(cleared.kept)

        def empty() -> None:
            for folder in cleared.trash:
                self._disk.remove_tree(folder)

        self._chores.do(
            empty,
            lambda _: None,
            lambda error: logger.warning("trash could not be emptied: %s", error),
        )
        if cleared.left:
            self.left_behind += len(cleared.left)
            self._later(_LEFT_SECONDS, lambda: self._clear_again(cleared.left))

    def _clear_again(self, left: list[Recorded]) -> None:
        self.left_behind -= len(left)
        self._chores.do(
            lambda: self._clear(left),
            self._cleared,
            lambda error: logger.error("jobs could not be cleared away", exc_info=error),
        )

    def _not_recorded(self, batch: list[Entry], error: Exception) -> None:
        """Try again; where it is not the ledger's state, find the job that it is, and let others go on."""
        self._is_busy = False
        if isinstance(error, LedgerError | NodeError):
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
