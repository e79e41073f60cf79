"""How long originals are kept after their job is done, what there is of them, and their end."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scp.buffer.originals import FOR_GOOD, Kept, OriginalFolders, bucket_of, closed_at
from scp.config.schema import DEFAULT_RULE, Config, DeleteOriginalsSection
from scp.ledger.ports import LedgerRow, State
from scp.pipeline.threads import Chores, Later
from scp.pipeline.trusted_clock import TrustedClock

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0
"""At most, until it is looked again whether something is due."""
_LEAST_SECONDS: Final = 1.0
_RECOUNT_SECONDS: Final = 3600.0
"""A person may delete some, too."""
_FOLDERS_A_STEP: Final = 20
"""Jobs to record wait for no more than one step."""
_NO_JOB: Final = "~"
"""After the names of all jobs."""
_NOT_DONE: Final = (State.DISCARDED, State.REPEAT)
"""Of these nothing is kept: a person gave it up, or another job has the same dataset."""


@dataclass(slots=True)
class _Sum:
    """What one folder of originals has, or all of them."""

    instances: int = 0
    bytes: int = 0
    for_good: int = 0
    """Of the instances."""
    next_until: float = FOR_GOOD
    first_job: str = _NO_JOB

    def count(self, kept: Kept) -> None:
        """Add one folder; there may be a million of them."""
        self.instances += kept.instances
        self.bytes += kept.bytes
        if kept.until == FOR_GOOD:
            self.for_good += kept.instances
        elif kept.until < self.next_until:
            self.next_until = kept.until
        if kept.job < self.first_job:
            self.first_job = kept.job

    def add(self, other: "_Sum") -> None:
        self.instances += other.instances
        self.bytes += other.bytes
        self.for_good += other.for_good
        self.next_until = min(self.next_until, other.next_until)
        self.first_job = min(self.first_job, other.first_job)


@dataclass(slots=True)
class _Looked:
    """What a step has found, and done."""

    sums: dict[str, _Sum]
    deleted: int = 0
    is_all: bool = True
    """False: there is more to delete."""


class Originals:
    """On the coordinator's thread, but for :meth:`keep`; looking and deleting are chores.

    What is kept is known by the names of folders, which are looked at once the node has started.
    """

    def __init__(
        self,
        config: Config,
        folders: OriginalFolders,
        clock: TrustedClock,
        chores: Chores,
        later: Later,
    ) -> None:
        self._of_rules = {rule.name: rule.delete_originals for rule in config.rules}
        self._of_rules[DEFAULT_RULE] = config.default.delete_originals
        self._otherwise = config.delete_originals
        self._folders = folders
        self._clock = clock
        self._chores = chores
        self._later = later
        self._sums: dict[str, _Sum] = {}
        self._is_counted = False
        self._deleted = 0
        policies = [*self._of_rules.values(), self._otherwise]
        self.keeps_nothing = all(p in (None, DeleteOriginalsSection()) for p in policies)
        """By the configuration; of an earlier one there may be some."""

    # -- keeping -------------------------------------------------------------------------------

    def keep(self, job: str, source: Path, rows: Sequence[LedgerRow]) -> list[Kept]:
        """Keep what is to be kept of a job that the ledger has; for any thread. Then :meth:`added`.

        A rule that has left the configuration counts as one that says nothing of it.

        Raises
        ------
        StorageFullError, OSError
            The job's folder has to stay.
        """
        if self.keeps_nothing:
            return []
        now = self._clock.to_promise()
        until: dict[str, float] = {}
        uncommitted = 0
        for row in rows:
            policy = self._of_rules.get(row.rule) or self._otherwise
            if row.state in _NOT_DONE:
                continue
            if policy.after == "committed" and not _is_committed(row):
                uncommitted += 1
                until[row.instance] = FOR_GOOD
            elif policy.after == "never":
                until[row.instance] = FOR_GOOD
            elif policy.plus:
                until[row.instance] = now + policy.plus
        if uncommitted:
            logger.warning(
                "nobody has vouched for %d instances of job %s: their originals are kept for good",
                uncommitted,
                job,
            )
        return self._folders.keep(job, source, until) if until else []

    def added(self, kept: Iterable[Kept]) -> None:
        """Count what :meth:`keep` has returned."""
        for each in kept:
            self._sums.setdefault(bucket_of(each.job), _Sum()).count(each)

    # -- what there is -------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """For the status; times are seconds since the epoch (UTC), None where there is none."""
        total = self._total()
        return {
            "instances": total.instances,
            "bytes": total.bytes,
            "kept_for_good": total.for_good,
            "oldest": closed_at(total.first_job),
            "next_deletion": _moment(total.next_until),
            "is_counted": self._is_counted,
        }

    @property
    def kept_bytes(self) -> int:
        return self._total().bytes

    def count(self) -> None:
        """Look at everything now, and delete nothing: for commands while the node is down."""
        self._counted(dict(self._sums_of(self._folders.buckets())))

    def _total(self) -> _Sum:
        total = _Sum()
        for each in self._sums.values():
            total.add(each)
        return total

    def _sums_of(self, buckets: Iterable[str]) -> Iterable[tuple[str, _Sum]]:
        for bucket in buckets:
            found = _Sum()
            for kept in self._folders.kept_in(bucket):
                found.count(kept)
            yield bucket, found

    def _counted(self, sums: dict[str, _Sum]) -> None:
        self._sums.update(sums)
        self._sums = {bucket: found for bucket, found in self._sums.items() if found.instances}
        self._is_counted = True

    # -- their end -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Count now and every hour, and delete whatever is due from now on."""
        self._recount()
        self._look()

    def _recount(self) -> None:
        self._chores.do(
            lambda: dict(self._sums_of(self._folders.buckets())),
            self._recounted,
            lambda error: logger.error("originals cannot be counted: %s; tried again", error),
        )
        self._later(_RECOUNT_SECONDS, self._recount)

    def _recounted(self, sums: dict[str, _Sum]) -> None:
        self._sums = {}
        self._counted(sums)

    def _look(self) -> None:
        now = self._clock.to_act() if self._sums else 0.0
        due = [bucket for bucket, found in self._sums.items() if found.next_until <= now]
        self._chores.do(lambda: self._delete(due, now), self._looked, self._failed)

    def _delete(self, buckets: list[str], now: float) -> _Looked:
        if self._sums or not self.keeps_nothing:
            self._clock.note()
        looked = _Looked({})
        folders = 0
        for bucket in buckets:
            left = looked.sums[bucket] = _Sum()
            for kept in self._folders.kept_in(bucket):
                if kept.until <= now and folders < _FOLDERS_A_STEP:
                    self._folders.drop(kept)
                    looked.deleted += kept.instances
                    folders += 1
                else:
                    left.count(kept)
            if not left.instances:
                self._folders.drop_bucket(bucket)
            looked.is_all = looked.is_all and left.next_until > now
        return looked

    def _looked(self, looked: _Looked) -> None:
        if looked.sums:
            self._counted(looked.sums)
        self._deleted += looked.deleted
        if not looked.is_all:
            self._look()
            return
        if self._deleted:
            logger.info("%d originals were kept long enough and are deleted", self._deleted)
            self._deleted = 0
        wait = LOOK_SECONDS if self._is_counted else _LEAST_SECONDS
        if self._sums:
            left = self._total().next_until - self._clock.to_act()
            wait = min(wait, max(_LEAST_SECONDS, left))
        self._later(wait, self._look)

    def _failed(self, error: Exception) -> None:
        logger.error("originals that are due cannot be deleted: %s; tried again", error)
        self._later(LOOK_SECONDS, self._look)


def _is_committed(row: LedgerRow) -> bool:
    return any(taken.committed_at is not None for taken in row.destinations.values())


def _moment(seconds: float) -> float | None:
    return None if seconds == FOR_GOOD else seconds
