"""From a commit to the last receipt: deliveries, what they report, holding, retrying, giving up."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scp.buffer.job import Job
from scp.buffer.jobs import SOURCE, JobFolders, instances_in
from scp.deliver import receipts as receipt_files
from scp.deliver.events import Delivery, Event, Finished, Progress
from scp.deliver.queue import DestinationQueue
from scp.deliver.receipts import ReceiptState
from scp.durable import Disk
from scp.errors import NodeError, StorageFullError
from scp.ledger.ports import SeriesHistory
from scp.model import CollapseReason
from scp.pipeline.accounts import Accounts
from scp.pipeline.held import UNREADABLE, held_jobs
from scp.pipeline.live import LEFT_CONFIGURATION, NOT_TAKEN, Live, history_of
from scp.pipeline.lost import with_what_is_there
from scp.pipeline.recorder import Recorder
from scp.pipeline.threads import Later

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 5.0


class Dispatch:
    """Committed jobs. On the coordinator's thread.

    Without queues nothing is delivered, nor held for that: for commands while the node is down.
    """

    def __init__(
        self,
        queues: dict[str, DestinationQueue] | None,
        folders: JobFolders,
        disk: Disk,
        accounts: Accounts,
        recorder: Recorder,
        later: Later,
    ) -> None:
        self._queues = queues
        self._folders = folders
        self._disk = disk
        self._accounts = accounts
        self._recorder = recorder
        recorder.done = self._forget
        self.changed: Callable[[Live], None] = lambda live: None
        """Called when something was delivered, held or recorded of a job."""
        self.asks: Callable[[Live, str], bool] = lambda live, destination: False
        """Called when a destination has taken its share: whether :meth:`vouched` is called later."""
        self.vouching: frozenset[str] = frozenset()
        """Destinations that have an instance for good only when they vouch for it."""
        self._later = later
        self.live: dict[str, Live] = {}
        """Jobs that are being delivered."""
        self.held: dict[str, Live] = {}
        """Jobs that need a person."""
        self.unreadable: dict[str, int] = {}
        """Held jobs whose commit cannot be understood, and how many instances lie there."""
        self.late_instances = 0
        """Committed since the start, whose series had been collapsed before they came."""
        self.conflicts = 0
        """Committed since the start, whose UIDs other datasets have too."""

    @property
    def bytes_waiting(self) -> int:
        """What deliveries to folders may still write."""
        return sum(live.waiting_bytes for live in self.live.values())

    def history_of(self, series_instance_uid: str) -> SeriesHistory:
        """What collapsing has made of this series before, as far as the spool knows."""
        return history_of((*self.live.values(), *self.held.values()), series_instance_uid)

    def files_of(self, job: str, sop_instance_uid: str) -> list[Path]:
        """What was received under a UID and lies in a committed job."""
        live = self.live.get(job) or self.held.get(job)
        if live is None:
            return []
        return [
            live.folder / SOURCE / instance.name
            for instance in live.job.instances
            if instance.identity.sop_instance_uid == sop_instance_uid
        ]

    # -- start and recovery --------------------------------------------------------------------

    def start(self, job: Job) -> None:
        """Deliver a job that was committed now."""
        self.late_instances += sum(
            i.not_collapsed == CollapseReason.LATE_INSTANCE for i in job.instances
        )
        self.conflicts += sum(i.is_conflict for i in job.instances)
        live = self._live(job, self._folders.folder(job.name))
        live.hold_as_committed()
        # Nobody has answered yet; looking for receipts would wait for those who write some already.
        self._deliver(
            live, {name: ReceiptState() for name in live.destinations if name not in live.held}
        )

    def _live(self, job: Job, folder: Path) -> Live:
        return Live(job=job, folder=folder, vouching=self.vouching)

    def recover_jobs(self) -> list[str]:
        """Go on with every committed job; returns those that have no commit yet.

        A job whose commit cannot be understood is held: a person may have the version that wrote it.
        """
        names = self._folders.jobs()
        recorded = self._recorder.recorded(names)
        return [name for name in names if not self._recover_job(name, recorded)]

    def _recover_job(self, name: str, recorded: Collection[str]) -> bool:
        """False: it has no commit."""
        try:
            job = self._folders.load(self._folders.folder(name))
        except (NodeError, OSError) as error:
            logger.error("job %s is held: %s", name, error)
            self._hold_unreadable(name)
            return True
        if job is None:
            return False
        if name in recorded:
            self._recorder.throw_away(self._live(job, self._folders.folder(name)))
            return True
        job = self._with_what_is_there(job)
        live = self._live(job, self._folders.folder(name))
        try:
            states = live.read_receipts()
        except NodeError as error:
            logger.error("job %s is held: %s", name, error)
            self._hold_unreadable(name)
            return True
        self._remember(live)
        self._deliver(live, states)
        return True

    def _with_what_is_there(self, job: Job) -> Job:
        """The job as it was committed, or with originals where the disk has lost a conversion."""
        found = with_what_is_there(job, self._folders)
        if found is not job:
            try:
                # What is left of the results has been durable since the first commit.
                self._folders.commit(found, {name for _, name in found.results})
            except (OSError, StorageFullError) as error:
                # The next start finds out again; until then this one goes on with what it knows.
                logger.warning("job %s could not be committed anew: %s", job.name, error)
        return found

    def recover_held(self) -> None:
        """Know what is held, for the counters."""
        names = self._folders.held()
        recorded = self._recorder.recorded(names)
        for name in names:
            self._recognise(name, recorded)

    def _recognise(self, name: str, recorded: Collection[str]) -> None:
        folder = self._folders.held_folder(name)
        job: Job | None = None
        try:
            job = self._folders.load(folder)
        except (NodeError, OSError) as error:
            logger.error("held job %s: %s", name, error)
        self.unreadable.pop(name, None)
        if job is not None and name in recorded:
            self._recorder.throw_away(self._live(job, folder))
            return
        if job is None:
            self.unreadable[name] = _count(folder)
            return
        live = self._live(job, folder)
        try:
            live.read_receipts()
        except NodeError as error:
            logger.error("held job %s: %s", name, error)
            self.unreadable[name] = _count(folder)
            return
        said = self._folders.reasons(name)
        for destination in live.destinations:
            # Receipts tell of refusals only, not of a destination that was not there to refuse.
            refusals = live.held.get(destination, {}).values()
            others = (reason for reason in said.get(destination, ()) if reason not in refusals)
            live.hold_the_rest(destination, next(others, NOT_TAKEN))
        self.held[name] = live
        self._remember(live, is_over=True)
        if reason := self._folders.given_up(name):
            self.live[name] = self.held.pop(name)
            self._recorder.record(live, reason)

    def _remember(self, live: Live, *, is_over: bool = False) -> None:
        """Know the datasets of a job but for what is held: a person may give that up."""
        self._accounts.remember(live.job, without=live.names_held, is_over=is_over)

    def _hold_unreadable(self, name: str) -> None:
        self.unreadable[name] = _count(self._folders.folder(name))
        try:
            self._folders.hold(name, {"": {UNREADABLE: self.unreadable[name]}})
        except (OSError, StorageFullError) as error:
            logger.error("job %s could not be set aside, it stays in jobs: %s", name, error)

    def _deliver(self, live: Live, states: Mapping[str, ReceiptState]) -> None:
        """Give a job to its queues; the receipts of who is not in ``states`` are read."""
        self.live[live.job.name] = live
        live.unfinished = set(live.destinations)
        if self._queues is None:
            return
        for destination in live.destinations:
            self._enqueue(live, destination, states.get(destination))
        self._finish_if_done(live)

    def _enqueue(self, live: Live, destination: str, state: ReceiptState | None = None) -> None:
        queue = (self._queues or {}).get(destination)
        if queue is None:
            live.unfinished.discard(destination)
            if waiting := live.waiting_for(destination):
                live.held[destination] = dict.fromkeys(waiting, LEFT_CONFIGURATION)
            return
        live.unfinished.add(destination)
        queue.add(
            Delivery(
                job=live.job.name,
                receipts=live.receipts_path(destination),
                items=tuple(live.items_for(destination)),
            ),
            state,
        )

    # -- reports -------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """A destination's thread reported."""
        live = self.live.get(event.job)
        if live is None:
            return
        if isinstance(event, Progress):
            receipts = {receipt.instance: receipt for receipt in event.receipts}
            live.take(event.destination, receipts, datetime.now(UTC))
        elif isinstance(event, Finished):
            live.unfinished.discard(event.destination)
            if self.asks(live, event.destination):  # Whatever it refused, it has the rest.
                live.asked.add(event.destination)
            if event.held:
                live.held.setdefault(event.destination, {}).update(event.held)
                # A person may give it up: what is sent again must not be a repeat of that.
                self._remember(live)
            self._finish_if_done(live)
        self.changed(live)

    def vouched(self, live: Live, destination: str, refused: Mapping[str, str]) -> None:
        """A destination has said for what of its share it vouches; the rest is held."""
        if self.live.get(live.job.name) is not live:
            return
        if not self.asks(live, destination):  # It may have taken more since it was asked.
            live.asked.discard(destination)
        if refused:
            live.held[destination] = live.held.get(destination, {}) | dict(refused)
            self._remember(live)
        self._finish_if_done(live)
        self.changed(live)

    def _finish_if_done(self, live: Live) -> None:
        is_over = live.is_recording or self.live.get(live.job.name) is not live
        if is_over or live.unfinished or live.asked:
            return
        live.held = {name: reasons for name, reasons in live.held.items() if reasons}
        for destination in live.destinations:
            # Only a person gives an instance up: what nobody has taken is never recorded unasked.
            live.hold_the_rest(destination, NOT_TAKEN)
        if live.held:
            self._hold(live)
        else:
            self._recorder.record(live, "")

    # -- holding -------------------------------------------------------------------------------

    def _hold(self, live: Live) -> None:
        name = live.job.name
        reasons = {d: dict(Counter(held.values())) for d, held in live.held.items()}
        try:
            self._folders.hold(name, reasons)
        except (OSError, StorageFullError) as error:
            logger.error("job %s could not be set aside: %s; tried again", name, error)
            self._later(_AGAIN_SECONDS, lambda: self._finish_if_done(live))
            return
        del self.live[name]
        self._remember(live, is_over=True)
        live.move(self._folders.held_folder(name))
        self.held[name] = live
        self.changed(live)
        why = "; ".join(
            f"{d}: {n} of {why}" for d, each in reasons.items() for why, n in each.items()
        )
        logger.error("job %s is held for a person: %s; see dcmpress held", name, why)

    def retry(self, names: Iterable[str]) -> list[str]:
        """Release the named held jobs and try the named waiting ones now; all where none is named.

        Raises
        ------
        NodeError
            A name is no job that is held or waits.
        """
        wanted = list(names)
        for name in wanted:
            if name not in self.held | self.unreadable | self.live:
                raise NodeError(f"no job {name} is held or waits; see dcmpress held")
        tried = []
        for name in wanted or [*self.live, *self.held, *self.unreadable]:
            if name in self.unreadable:
                self._recognise(name, self._recorder.recorded([name]))  # It may have been mended.
            if name in self.held:
                self._release(self.held[name])
            elif name in self.live:
                self._try_again(self.live[name])
            tried.append(name)
        return tried

    def _try_again(self, live: Live) -> None:
        """Have everything of a job in work tried now, also where one destination holds its share."""
        if live.is_recording:
            return
        queues = self._queues or {}
        for destination in list(live.held):
            if destination in live.unfinished and destination in queues:
                del live.held[destination]  # Its queue releases them itself.
                continue
            self._release_receipts(live, destination)
            del live.held[destination]
            if self._queues is not None:
                self._enqueue(live, destination)
        self._remember(live)  # What was held was not known, and goes out after all.
        for queue in queues.values():
            queue.retry_now(live.job.name)

    def _forget(self, live: Live) -> None:
        self.live.pop(live.job.name, None)
        self.changed(live)

    def _release(self, live: Live) -> None:
        name = live.job.name
        for destination in live.held:
            self._release_receipts(live, destination)
            if self._queues is not None and destination in self._queues:
                self._queues[destination].retry_now(name)
        self._folders.release(name)
        del self.held[name]
        live.held = {}
        self._remember(live)
        live.move(self._folders.folder(name))
        self._deliver(live, {})

    def _release_receipts(self, live: Live, destination: str) -> None:
        receipt_files.release_held(self._disk, live.receipts_path(destination), time.time())

    def discard(self, name: str, reason: str) -> int:
        """Give a held job up; returns how many instances were not delivered.

        Raises
        ------
        NodeError
            No such job is held, or no reason is given.
        """
        if not reason.strip():
            raise NodeError("whoever gives a job up has to say why")
        if name in self.unreadable:
            raise NodeError(f"job {name} cannot be read, so there is no record of what it holds")
        if name in self.live and not self.live[name].is_recording:
            busy = self.live[name].unfinished | self.live[name].asked
            whom = ", ".join(sorted(busy)) or "its destinations"
            raise NodeError(
                f"job {name} is not held: it waits for {whom}; a destination that is to get nothing "
                "any more has to leave the configuration, and the node be started again"
            )
        live = self.held.get(name)
        if live is None:
            raise NodeError(f"no job {name} is held; see dcmpress held")
        self._folders.give_up(name, reason)  # The ledger may be away, and the node be started anew.
        count = live.instances_open
        del self.held[name]
        self.live[name] = live
        self._recorder.record(live, reason)
        logger.warning("job %s was discarded: %d instances", name, count)
        return count

    def held_jobs(self, name: str | None) -> list[dict[str, Any]]:
        """What is held, as :func:`scp.pipeline.held.held_jobs`."""
        # Also those where one destination needs a person and another still works.
        held = self.held | {job: live for job, live in self.live.items() if live.needs_a_person}
        return held_jobs(name, held, self.unreadable, self._folders)


def _count(job: Path) -> int:
    source = job / SOURCE
    return len(instances_in(source)) if source.is_dir() else 0
