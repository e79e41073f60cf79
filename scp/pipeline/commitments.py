"""Storage commitment that peers ask for: which instances are safe, and when that is known.

Safe is an instance that every destination of ``commit.to`` has taken, by itself or within an object
out of which it can be restored. The newest that came under its UID decides, for that is the one
that its sender has.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from scp.buffer.commitments import CommitmentFiles, Requested
from scp.buffer.job import JobInstance
from scp.commitment import CommitmentReport, Failure, Reference
from scp.config.schema import KEEPS_SIDECARS, Config
from scp.ledger.ports import Ledger, LedgerRow, State
from scp.pipeline.commitment_reports import Reports
from scp.pipeline.live import Live
from scp.pipeline.threads import Chores

logger = logging.getLogger(__name__)


class Standing(Enum):
    """What is known of one instance."""

    UNKNOWN = auto()
    PENDING = auto()
    COMMITTED = auto()
    FAILED = auto()
    OTHER_CLASS = auto()


_FAILURES = {
    Standing.UNKNOWN: Failure.NO_SUCH_INSTANCE,
    Standing.PENDING: Failure.PROCESSING_FAILURE,
    Standing.FAILED: Failure.PROCESSING_FAILURE,
    Standing.OTHER_CLASS: Failure.CLASS_INSTANCE_CONFLICT,
}


@dataclass(frozen=True, slots=True)
class _Found:
    """The newest instance under one UID."""

    received: float
    sop_class_uid: str
    standing: Standing


@dataclass(slots=True)
class _Open:
    """A request that is not decided yet."""

    requested: Requested
    settled: dict[Reference, Standing] = field(default_factory=dict)
    looks: list[float] = field(default_factory=list)
    """When to look again although nothing happened; wall time, in order."""

    def unsettled(self) -> list[Reference]:
        return [each for each in self.requested.request.references if each not in self.settled]


class Policy:
    """What ``commit`` says of one instance."""

    def __init__(self, config: Config) -> None:
        self._to = config.commit.to
        self._keeps_sidecars = {
            name for name, section in config.destinations.items() if section.kind in KEEPS_SIDECARS
        }
        self._restore_record = config.enhanced.restore_record

    def of_live(self, live: Live, instance: JobInstance) -> Standing:
        """Of one that is in the spool and no repeat."""
        keys = {name: instance.key_for(name) for name in instance.send_to}
        to_have_it = {name for name, key in keys.items() if name not in live.skipped.get(key, {})}
        wanted = to_have_it if self._to is None else set(self._to)
        if not wanted or not wanted <= to_have_it:
            return Standing.FAILED
        if all(live.has(destination, keys[destination]) for destination in wanted):
            volumes = {keys[destination] for destination in wanted}
            records = [v.restore_record for v in live.job.volumes if v.name in volumes]
            taken_by = live.taken.get(instance.delivered_as, {})
            is_safe = all(self._is_restorable(record, taken_by) for record in records)
            return Standing.COMMITTED if is_safe else Standing.FAILED
        is_held = any(keys[name] in live.held.get(name, ()) for name in wanted)
        return Standing.FAILED if is_held else Standing.PENDING

    def of_row(self, row: LedgerRow) -> Standing:
        """Of one that has left the spool."""
        has_it = set(row.destinations)
        wanted = has_it if self._to is None else set(self._to)
        is_there = wanted <= has_it and (self._to is not None or row.state is State.DELIVERED)
        if is_there and any(row.destinations[name].is_collapsed for name in wanted):
            is_there = self._is_restorable(row.restore_record, row.destinations)
        return Standing.COMMITTED if is_there else Standing.FAILED

    def _is_restorable(self, restore_record: str, taken_by: Collection[str]) -> bool:
        """Of a collapsed instance; an earlier version worked as the configuration says, presumably."""
        restore_record = restore_record or self._restore_record
        if restore_record == "sidecar":
            return not self._keeps_sidecars.isdisjoint(taken_by)
        return restore_record == "embedded"


class Commitments:
    """Requests from their arrival to their decision. On the coordinator's thread; slow calls are chores.

    Parameters
    ----------
    jobs
        Every committed job in the spool, held ones included.
    uncommitted
        The SOP Instance UIDs of what is open or being converted.
    """

    def __init__(
        self,
        config: Config,
        files: CommitmentFiles,
        ledger: Ledger,
        chores: Chores,
        reports: Reports,
        jobs: Callable[[], Iterable[Live]],
        uncommitted: Callable[[], set[str]],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._unknown_after = config.commit.unknown_after
        self._timeout = config.commit.timeout
        self._policy = Policy(config)
        self._files = files
        self._ledger = ledger
        self._chores = chores
        self._reports = reports
        self._jobs = jobs
        self._uncommitted = uncommitted
        self._wall = wall
        self._open: dict[str, _Open] = {}
        self._wanted: defaultdict[str, set[str]] = defaultdict(set)
        """SOP Instance UID to the names of the requests that wait for it."""
        self._changed: set[str] = set()
        """UIDs to look at."""
        self._seen: object = None
        self._is_looking = False
        self._has_failed = False
        """The ledger, when it was asked last: said once."""

    @property
    def open_requests(self) -> int:
        """How many wait for instances."""
        return len(self._open)

    def changed(self, live: Live) -> None:
        """Something was delivered, held or recorded of a job."""
        if self._wanted:
            self._changed.update(
                i.identity.sop_instance_uid
                for i in live.job.instances
                if i.identity.sop_instance_uid in self._wanted
            )

    def tick(self) -> None:
        """Take up what has come, and look at what may have changed. Cheap to call often.

        To be called when every notice was read that had been sent before: what a peer has sent
        before it asked is known then.
        """
        self._look_at_changed()
        self._take_up()
        now = self._wall()
        for each in self._open.values():
            if each.looks and each.looks[0] <= now:
                each.looks = [look for look in each.looks if look > now]
                self._changed.update(r.sop_instance_uid for r in each.unsettled())

    def _take_up(self) -> None:
        """Know the requests that receivers have put into the folder since."""
        seen = self._files.changed()[0]
        if seen == self._seen:
            return
        self._seen = seen
        for name in self._files.requests():
            if self._reports.has(name):
                self._seen = None  # The peer may have asked again: until it is told, look again.
                continue
            if name in self._open:
                continue
            requested = self._files.requested(name)
            if requested is None:
                continue
            if requested.report is not None:
                self._reports.add(name, requested)
                continue
            self._open[name] = _Open(
                requested,
                looks=sorted(
                    requested.received + seconds for seconds in (self._unknown_after, self._timeout)
                ),
            )
            logger.info(
                "%s asks for storage commitment of %d instances",
                requested.origin.calling_ae_title,
                len(requested.request.references),
            )
            for reference in requested.request.references:
                self._wanted[reference.sop_instance_uid].add(name)
                self._changed.add(reference.sop_instance_uid)

    # -- what is known -------------------------------------------------------------------------

    def _look_at_changed(self) -> None:
        if not self._changed or self._is_looking:
            return
        uids, self._changed = self._changed, set()
        self._is_looking = True

        def work() -> list[LedgerRow]:
            return self._ledger.find_instances(uids)

        self._chores.do(
            work, lambda rows: self._looked(uids, rows), lambda error: self._not_looked(uids, error)
        )

    def _not_looked(self, uids: set[str], error: Exception) -> None:
        if not self._has_failed:
            logger.error("storage commitment waits for the ledger: %s", error)
        self._has_failed = True
        self._is_looking = False
        self._changed |= uids

    def _looked(self, uids: set[str], rows: list[LedgerRow]) -> None:
        self._is_looking = False
        self._has_failed = False
        found = self._newest(uids, rows)
        names = {name for uid in uids for name in self._wanted.get(uid, ())}
        now = self._wall()
        for name in sorted(names):
            self._settle(name, uids, found, now)

    def _newest(self, uids: set[str], rows: list[LedgerRow]) -> dict[str, _Found]:
        """What decides on each UID; nothing of one that nobody has sent."""
        found: dict[str, _Found] = {}

        def consider(uid: str, candidate: _Found) -> None:
            known = found.get(uid)
            if known is None or known.received <= candidate.received:
                found[uid] = candidate

        for row in rows:
            if row.state is not State.REPEAT:
                identity, at = row.identity, row.received_at.timestamp()
                standing = self._policy.of_row(row)
                consider(identity.sop_instance_uid, _Found(at, identity.sop_class_uid, standing))
        for live in self._jobs():
            for instance in live.job.instances:
                identity = instance.identity
                if identity.sop_instance_uid in uids and not instance.repeat_of:
                    standing = self._policy.of_live(live, instance)
                    consider(
                        identity.sop_instance_uid,
                        _Found(instance.received, identity.sop_class_uid, standing),
                    )
        for uid in uids & self._uncommitted():
            consider(uid, _Found(float("inf"), "", Standing.PENDING))
        return found

    def _settle(self, name: str, uids: set[str], found: dict[str, _Found], now: float) -> None:
        each = self._open.get(name)
        if each is None:
            return
        waited = now - each.requested.received
        for reference in each.unsettled():
            uid = reference.sop_instance_uid
            if uid not in uids:
                continue
            standing = _standing(reference, found.get(uid))
            is_over = waited >= self._timeout or (
                standing is Standing.UNKNOWN and waited >= self._unknown_after
            )
            if is_over or standing not in (Standing.UNKNOWN, Standing.PENDING):
                each.settled[reference] = standing
                self._wanted[uid].discard(name)
                if not self._wanted[uid]:
                    del self._wanted[uid]
        if len(each.settled) == len(each.requested.request.references):
            self._decide(name, each)

    def _decide(self, name: str, each: _Open) -> None:
        request = each.requested.request
        report = CommitmentReport(
            transaction_uid=request.transaction_uid,
            committed=tuple(r for r in request.references if each.settled[r] is Standing.COMMITTED),
            failed={
                r: _FAILURES[each.settled[r]]
                for r in request.references
                if each.settled[r] is not Standing.COMMITTED
            },
        )
        decided = replace(each.requested, report=report, decided=self._wall())
        del self._open[name]
        self._reports.decided(name, decided)


def _standing(reference: Reference, found: _Found | None) -> Standing:
    if found is None:
        return Standing.UNKNOWN
    if found.sop_class_uid not in ("", reference.sop_class_uid):
        return Standing.OTHER_CLASS
    return found.standing
