"""What a coordinator is made of, put together as it does it, with the test as their loop."""

import errno
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from scp.buffer.job import Job
from scp.buffer.jobs import ORIGINAL, JobFolders
from scp.buffer.layout import Layout
from scp.buffer.originals import OriginalFolders
from scp.config.schema import Config
from scp.deliver.events import Event
from scp.durable import Disk
from scp.ledger.ports import Ledger, State
from scp.ledger.sql import SqlLedger
from scp.model import DeliveryItem
from scp.pipeline.accounts import Accounts
from scp.pipeline.coordinator import Timers
from scp.pipeline.destinations import build_queues
from scp.pipeline.dispatch import Dispatch
from scp.pipeline.live import Live
from scp.pipeline.originals import Originals
from scp.pipeline.recorder import Recorder
from scp.pipeline.threads import Chores, Inbox
from scp.pipeline.trusted_clock import TrustedClock
from scp.telemetry import Counters
from tests.buffer.recorder import Hook
from tests.material import ct_series, write
from tests.pipeline.jobs import instance_of, job_of

type Tree = dict[str, Any]

SECONDS = 20.0
"""Until a test gives up; nothing here takes so long."""


class HandClock:
    """A clock that a test turns."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def config_for(folder: Path, **sections: Any) -> Config:
    """Everything to one folder destination, unless a section says otherwise."""
    return Config.model_validate(
        {
            "node": {"data": folder / "data"},
            "destinations": {"archive": archive(folder)},
            "default": {"send_to": ["archive"]},
            **sections,
        }
    )


def archive(folder: Path) -> Tree:
    """A folder destination; a file of that name keeps it down."""
    return {"kind": "folder", "path": str(folder / "archive")}


def pacs(port: int) -> Tree:
    return {"kind": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "PACS"}


class Parts:
    """From the commit of a job to its ledger row."""

    def __init__(
        self, config: Config, *, ledger: Ledger | None = None, disk: Disk | None = None
    ) -> None:
        self.config = config
        self.disk = disk or Disk()
        self.layout = Layout(config.node.data)
        self.layout.make(self.disk)
        self.folders = JobFolders(self.layout, self.disk)
        self.ledger = ledger or SqlLedger.open_for_writing(self.layout.ledger, self.disk)
        self.clock = HandClock()
        self.timers = Timers(self.clock)
        self.inbox = Inbox()
        self.chores = Chores(self.inbox)
        self.accounts = Accounts(self.ledger, config.series.resend_window_seconds)
        self.queues = build_queues(config, self.disk, self.decode, self._report)
        self.wall = HandClock(time.time())
        clock = TrustedClock(self.layout.noted_time, self.disk, wall=self.wall, now=self.clock)
        self.kept = OriginalFolders(self.layout, self.disk)
        self.originals = Originals(config, self.kept, clock, self.chores, self.timers.later)
        self.recorder = Recorder(
            self.ledger,
            self.folders,
            self.disk,
            self.accounts,
            self.originals,
            self.chores,
            self.timers.later,
        )
        self.dispatch = Dispatch(
            self.queues, self.folders, self.disk, self.accounts, self.recorder, self.timers.later
        )
        self._is_open = True
        for queue in self.queues.values():
            queue.start()

    def close(self) -> None:
        """End the threads, as at the end of a process; the folders stay."""
        if self._is_open:
            self._is_open = False
            for queue in self.queues.values():
                assert queue.stop(SECONDS)
            self.chores.stop(SECONDS)
            self.ledger.close()

    def decode(self, item: DeliveryItem, transfer_syntax: str, decode_lossy: bool) -> Path:
        raise AssertionError("nothing was to be decoded")

    def _report(self, event: Event) -> None:
        self.inbox.post(lambda: self.dispatch.take(event))

    # -- the loop ------------------------------------------------------------------------------

    def sources(self) -> list[Any]:
        return [self.inbox.fileno()]

    def ready(self, source: Any) -> None:
        """One of :meth:`sources`, the inbox apart."""

    def turn(self, longest: float = 0.05) -> None:
        """What the coordinator does in one turn."""
        for source in wait(self.sources(), longest):
            self.ready(source)
        self.inbox.run_posted()
        self.timers.run_due()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.turn()

    def later(self, seconds: float) -> None:
        """Let so much time pass, as far as the timers know, and do what is due then."""
        self.clock.seconds += seconds
        self.wall.seconds += seconds
        self.turn(0)

    def settle(self) -> None:
        """Until every chore has ended that was asked for, and those that followed from their ends."""
        for _ in range(3):
            self.finish_chores()

    def finish_chores(self) -> None:
        """Until every chore has ended that was asked for."""
        ends: list[None] = []
        self.chores.do(lambda: None, ends.append, lambda _: ends.append(None))
        self.until(lambda: ends)

    # -- what it says --------------------------------------------------------------------------

    def counters(self, uncommitted: int = 0) -> Counters:
        live = [*self.dispatch.live.values(), *self.dispatch.held.values()]
        return self.accounts.counters(uncommitted, live, sum(self.dispatch.unreadable.values()))

    def states(self) -> dict[State, int]:
        """What the ledger adds up to, without zeros."""
        return {state: n for state, n in self.ledger.totals().states.items() if n}

    def archived(self) -> list[str]:
        """The names of files in the folder destination."""
        destination = self.config.destinations["archive"]
        assert destination.kind == "folder"
        return sorted(path.name for path in destination.path.rglob("*") if path.is_file())

    # -- jobs ----------------------------------------------------------------------------------

    def job(self, name: str = "job-1", count: int = 1, **changes: Any) -> Job:
        """A job as a commit leaves it: its files and job.json; ``changes`` are its instances'."""
        source = self.folders.source(name)
        source.mkdir(parents=True)
        seed = int.from_bytes(name.encode()) % 9973
        paths = [write(dataset, source) for dataset in ct_series(count, 16, 16, seed=seed)]
        job = job_of(name, [instance_of(path, **changes) for path in paths])
        for instance in job.instances:
            if instance.form != ORIGINAL:
                made = self.folders.make_results(name, instance.form) / instance.name
                shutil.copyfile(source / instance.name, made)
        self.folders.commit(job)
        return job

    def start(self, job: Job) -> Live:
        """Deliver it, as after its commit; nobody has reported yet."""
        self.accounts.remember(job)
        self.dispatch.start(job)
        return (self.dispatch.live | self.dispatch.held)[job.name]

    def held(self, job: Job) -> Live:
        """Deliver it and wait until it is set aside for a person."""
        live = self.start(job)
        self.until(lambda: job.name in self.dispatch.held)
        return live


def no_room_for(operation: str, name: str) -> Hook:
    """A disk that is full just then."""

    def hook(asked: str, path: Path) -> None:
        if asked == operation and name in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    return hook
