"""The coordinator: one thread that decides, fed by notices, workers, deliveries and the control socket."""

import contextlib
import gc
import heapq
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from scp import telemetry
from scp.buffer.commitments import CommitmentFiles
from scp.buffer.jobs import JobFolders, drop_empty_jobs
from scp.buffer.layout import Layout
from scp.buffer.originals import OriginalFolders
from scp.deliver.events import Event
from scp.durable import Disk
from scp.errors import LedgerError, NodeError
from scp.ledger.nodes import node_name
from scp.ledger.open import open_for_writing
from scp.ledger.patients import PatientHash
from scp.ledger.ports import SeriesHistory
from scp.pipeline.accounts import Accounts
from scp.pipeline.collapser import Collapser
from scp.pipeline.commitment_asks import CommitmentAsks
from scp.pipeline.commitment_reports import Reports
from scp.pipeline.commitments import Commitments
from scp.pipeline.committer import Committer
from scp.pipeline.control import ControlServer, Reply
from scp.pipeline.converter import Converter
from scp.pipeline.destinations import build_queues, taking_volumes
from scp.pipeline.dispatch import Dispatch
from scp.pipeline.intake import Intake
from scp.pipeline.notices import AT_ONCE, read_notices, send_needs
from scp.pipeline.originals import Originals
from scp.pipeline.pool import WorkerPool
from scp.pipeline.processes import Orders
from scp.pipeline.recorder import Recorder
from scp.pipeline.requests import Requests, describe_queue
from scp.pipeline.retention import Retention
from scp.pipeline.sources import Sources
from scp.pipeline.threads import Chores, Inbox, Prompt
from scp.pipeline.trusted_clock import TrustedClock
from scp.pipeline.watch import Watch

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_GATHER_SECONDS = 0.05
"""So long notices are left to gather after some were read: a turn costs as much as ten of them."""
_STOP_SECONDS = 10.0
_LEDGER_SECONDS = 5.0
"""So long a start waits for the ledger, and a series that is to be collapsed; nobody else does at all."""


class Timers:
    """Calls to make later, on the coordinator's thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self._now() + seconds, next(self._numbers), call))

    def run_due(self) -> None:
        while self._heap and self._heap[0][0] <= self._now():
            heapq.heappop(self._heap)[2]()

    def wait(self, longest: float) -> float:
        """Seconds until the next call, at most ``longest``."""
        return min(longest, max(0.0, self._heap[0][0] - self._now())) if self._heap else longest


class Coordinator:
    """Everything between an instance's landing and its ledger row."""

    def __init__(self, orders: Orders, disk: Disk | None = None) -> None:
        config = orders.config
        self._config = config
        self._layout = Layout(config.node.data)
        self._notices = [socket.socket(fileno=each) for each in orders.sockets[1:]]
        self._inbox = Inbox()
        self._timers = Timers()
        self._chores = Chores(self._inbox)
        self._disk = disk = disk or Disk()
        folders = JobFolders(self._layout, disk)
        name = node_name(config.ledger, self._layout.node_name, config.node.ae_title, disk)
        self._prompt = prompt = Prompt(_LEDGER_SECONDS)
        self._ledger = open_for_writing(config.ledger, self._layout.ledger, disk, name, prompt)
        _make_patient_key(self._layout, disk)
        self._accounts = Accounts(self._ledger, config.series.resend_window_seconds, soon=prompt)
        workers = config.codec.workers or os.cpu_count() or 1
        orders = replace(orders, gpus=self._layout.gpus)
        self._pool = WorkerPool(orders, workers, config.codec.deadline_seconds)
        converter = Converter(config, self._layout, self._pool, self._inbox)
        self._queues = build_queues(config, disk, converter.decode, self._report)
        # Who waits for a database server waits on a thread of its own.
        self._ledger_chores = Chores(self._inbox)
        self._histories = Chores(self._inbox)
        self._originals = Originals(
            config,
            OriginalFolders(self._layout, disk),
            TrustedClock(self._layout.noted_time, disk),
            self._ledger_chores,
            self._timers.later,
        )
        self._recorder = recorder = Recorder(
            self._ledger,
            folders,
            disk,
            self._accounts,
            self._originals,
            self._ledger_chores,
            self._timers.later,
            prompt,
        )
        self._retention = Retention(
            self._ledger, config.ledger.keep, self._ledger_chores, self._timers.later
        )
        self._dispatch = Dispatch(
            self._queues, folders, disk, self._accounts, recorder, self._timers.later
        )
        self._committer = Committer(
            folders,
            disk,
            converter,
            self._accounts,
            self._chores,
            self._timers.later,
            self._dispatch,
            Collapser(self._layout, self._pool, self._look_up, taking_volumes(config)),
            config.series.conflict,
        )
        self._intake = Intake(config, self._layout, folders, converter, self._committer)
        self._requests = Requests(
            config,
            self._accounts,
            self._dispatch,
            self._originals,
            self._uncommitted,
            self._details,
        )
        files = CommitmentFiles(self._layout, disk)
        self._lookups = Chores(self._inbox)
        self._reports = Reports(config, files, self._inbox, self._lookups)
        self._commitments = Commitments(
            config,
            files,
            self._ledger,
            self._lookups,
            self._reports,
            jobs=lambda: [*self._dispatch.live.values(), *self._dispatch.held.values()],
            uncommitted=lambda: self._intake.open_uids() | self._committer.uids_in_work(),
        )
        self._dispatch.changed = self._commitments.changed
        self._watch = Watch(
            config, self._layout, disk, self._dispatch, self._queues, self._originals
        )
        self._asks = CommitmentAsks(
            config,
            files,
            disk,
            self._inbox,
            self._lookups,
            self._dispatch.live,
            self._dispatch.vouched,
        )
        self._dispatch.asks = self._asks.asks
        self._dispatch.vouching = self._asks.vouching
        self._stop_read, self._stop_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._sources = Sources(
            [self._inbox.fileno(), self._stop_read], [end.fileno() for end in self._notices]
        )
        self._is_stopping = False
        self._last_tick = 0.0
        self._gather_until = 0.0
        self._told_until = 0.0
        """All that receivers said until then is known: after a stall they have much to say."""

    def run(self, ready: int) -> None:
        """Recover, say so on the descriptor ``ready``, then work until SIGTERM."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._recover()
        control = ControlServer(
            self._layout.control,
            lambda request: self._inbox.ask(lambda: self._requests.handle(request), 20.0),
        )
        os.write(ready, b"1")
        os.close(ready)
        try:
            while not self._is_stopping:
                self._turn()
        finally:
            control.stop()
            self._stop()

    def _look_up(
        self,
        series_instance_uid: str,
        then: Callable[[SeriesHistory], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """What was made of a series before, as far as anybody knows; see :class:`Collapser`."""
        # Asked before the ledger and after it: a job may go over to that meanwhile.
        before = self._dispatch.history_of(series_instance_uid)
        is_over = False

        def answer(found: SeriesHistory | Exception) -> None:
            nonlocal is_over
            if is_over:
                return
            is_over = True
            if isinstance(found, Exception):
                failed(found)
            else:
                then(before | found | self._dispatch.history_of(series_instance_uid))

        self._histories.do(lambda: self._ledger.history_of(series_instance_uid), answer, answer)
        late = LedgerError(f"the ledger has not answered within {_LEDGER_SECONDS:g} s")
        self._timers.later(_LEDGER_SECONDS, lambda: answer(late))

    def _report(self, event: Event) -> None:
        """From a destination's thread to the coordinator's."""
        self._inbox.post(lambda: self._dispatch.take(event))

    def _recover(self) -> None:
        """Take up what the folders say; nothing else knows."""
        drop_empty_jobs(self._layout, self._disk)
        # The oldest job goes out while the others are read; what comes of it is taken up afterwards.
        for queue in self._queues.values():
            queue.start()
        with _without_collections():
            self._dispatch.recover_held()
            uncommitted = self._dispatch.recover_jobs()
        for job in uncommitted:
            self._intake.recover_job(job)
        self._intake.recover_series()
        if not self._accounts.is_loaded:
            self._recorder.catch_up()
        self._retention.begin()
        self._originals.begin()

    def _turn(self) -> None:
        longest = self._timers.wait(self._intake.next_wait(_TICK_SECONDS))
        gathering = self._gather_until - time.monotonic()
        ready = self._sources.wait(
            self._pool.connections(),
            min(longest, gathering) if gathering > 0 else longest,
            with_notices=gathering <= 0,
        )
        self._read_notices()
        for connection in ready:
            self._pool.readable(connection)
        self._inbox.run_posted()
        self._timers.run_due()
        now = time.monotonic()
        self._pool.tick(now)
        self._intake.close_due(now, self._told_until)
        if now - self._last_tick >= _TICK_SECONDS:
            self._last_tick = now
            self._accounts.prune(now)
            self._commitments.tick()
            self._reports.tick()
            self._watch.tick(now)
            self._asks.tick()
            needed = (
                self._intake.open_bytes
                + self._committer.bytes_in_work
                + self._dispatch.bytes_waiting
            )
            for end in self._notices:
                send_needs(end, needed)

    def _read_notices(self) -> None:
        began = time.monotonic()
        counts = []
        for end in self._notices:
            notices = list(read_notices(end))
            self._intake.take(*notices)
            counts.append(len(notices))
        if max(counts) < AT_ONCE:
            self._told_until = began
        if 0 < max(counts) < AT_ONCE:
            self._gather_until = time.monotonic() + _GATHER_SECONDS

    def _uncommitted(self) -> int:
        return self._intake.open_instances + self._committer.instances_in_work

    def _details(self) -> Reply:
        return {
            "running": True,
            "series": self._intake.snapshot(),
            "repeats": self._intake.repeats + self._accounts.repeats(self._dispatch.live.values()),
            "commitments": {
                "requested": self._commitments.open_requests,
                "unreported": self._reports.unreported,
                "given_up": self._reports.given_up,
                "asked": self._asks.unanswered,
            },
            "workers": {
                "ready": self._pool.ready,
                "busy": self._pool.busy,
                "queued": self._pool.queued,
                "replaced": self._pool.replaced,
            },
            "gpus": self._pool.gpus.describe(),
            "no_gpu": self._pool.gpus.why_not,
            "ledger": {
                "problem": self._recorder.problem,
                "jobs_waiting": self._recorder.jobs_waiting,
                "is_known": self._accounts.is_loaded,
            },
            "destinations": {
                name: describe_queue(queue.snapshot()) for name, queue in self._queues.items()
            },
        }

    def _on_signal(self, number: int, frame: object) -> None:
        self._is_stopping = True
        os.write(self._stop_write, b"x")

    def _stop(self) -> None:
        """End the work at hand in order; what is left waits on disk."""
        self._pool.stop(_STOP_SECONDS / 2)
        self._inbox.run_posted()  # A delivery that asked for a worker has to be told.
        for queue in self._queues.values():
            queue.stop(_STOP_SECONDS)
        self._inbox.run_posted()
        self._chores.stop(_STOP_SECONDS)
        self._lookups.stop(_STOP_SECONDS)
        self._histories.stop(_STOP_SECONDS)
        self._inbox.run_posted()
        self._ledger_chores.stop(_STOP_SECONDS)
        self._prompt.stop(0.0)
        self._inbox.run_posted()
        self._watch.stop(_STOP_SECONDS)
        self._ledger.close()
        self._sources.close()


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Read what stays for long without looking for cycles in it, now or later: there are none.

    With 100,000 instances that search is a third of the time, and afterwards stops all threads for
    most of a second whenever it is made.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _make_patient_key(layout: Layout, disk: Disk) -> None:
    """For the workers. Without one, nobody is found by patient, and all else goes on."""
    try:
        PatientHash.open_or_make(layout.patient_key, disk)
    except NodeError as error:
        logger.error("nothing that arrives now will be found by its patient: %s", error)


def main(orders: Orders) -> None:
    """One coordinator's life."""
    telemetry.configure(orders.log_format, orders.log_level)
    Coordinator(orders).run(orders.sockets[0])
