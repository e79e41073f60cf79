"""The workers: processes on pipes, one task each, with a deadline; beside them those that have a GPU.

No ``concurrent.futures`` pool, because there one crash breaks them all. A worker that dies or hangs is
killed and replaced; a task that took two workers with it is given up.
"""

import heapq
import itertools
import logging
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Final

from scp.model import PassReason
from scp.pipeline import processes
from scp.pipeline.gpus import GpuProcesses
from scp.pipeline.processes import Orders
from scp.pipeline.tasks import (
    Answer,
    Assignment,
    CollapseTask,
    ConvertTask,
    DecodeTask,
    Extent,
    Lost,
    Ready,
    Task,
)

logger = logging.getLogger(__name__)

URGENT: Final = 1
"""Tasks of this priority and before are done before receiving; all others in what time is left."""
_TRIES = 2
_RESTART_SECONDS = 1.0
_SEND_SECONDS = 20
"""Until a worker that does not take a task, which may be larger than what a pipe holds, is given up."""
_BYTES_A_SECOND = 4 * 2**20
"""What the deadline grows by: the slowest machine and codec that is still no hang."""

type Done = Callable[[Answer | Lost], None]


@dataclass(order=True, slots=True)
class Entry:
    """A task in the queue or with a worker; what :meth:`WorkerPool.cancel` takes."""

    priority: int
    number: int
    task: Task = field(compare=False)
    done: Done = field(compare=False)
    tries: int = field(default=0, compare=False)
    is_taken: bool = field(default=False, compare=False)
    is_cancelled: bool = field(default=False, compare=False)


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    entry: Entry | None = None
    deadline: float = 0.0
    is_ready: bool = False


class WorkerPool:
    """Runs tasks on worker processes. All methods are for the coordinator's thread alone."""

    def __init__(self, orders: Orders, count: int, deadline_seconds: float) -> None:
        self._orders = orders
        self._deadline_seconds = deadline_seconds
        self._queue: list[Entry] = []
        self._numbers = itertools.count()
        self._names = itertools.count()
        self._workers: list[_Worker] = []
        self._restarts: list[float] = []
        self.is_stopped = False
        self.replaced = 0
        """Workers that died or hung since the start."""
        self.gpus = GpuProcesses(orders)
        for _ in range(count):
            self._start_another()

    def connections(self) -> list[Connection]:
        """What to wait on; call :meth:`readable` with those that are ready."""
        return [*(worker.connection for worker in self._workers), *self.gpus.connections()]

    @property
    def queued(self) -> int:
        return sum(not entry.is_cancelled for entry in self._queue)

    @property
    def busy(self) -> int:
        return sum(worker.entry is not None for worker in self._workers)

    @property
    def ready(self) -> int:
        """Workers that have loaded their libraries."""
        return sum(worker.is_ready for worker in self._workers)

    def submit(self, task: Task, priority: int, done: Done) -> Entry:
        """Queue a task; lower priorities run first. ``done`` is called from :meth:`readable`."""
        entry = Entry(priority, next(self._numbers), task, done)
        if self.is_stopped:
            self._forget(entry)
            return entry
        heapq.heappush(self._queue, entry)
        self._feed()
        return entry

    def cancel(self, entry: Entry) -> bool:
        """Take a task back that no worker has; False when one has it or had it."""
        entry.is_cancelled = not entry.is_taken
        return entry.is_cancelled

    def readable(self, connection: Connection) -> None:
        """A worker, or a process that has a GPU, said something or died."""
        worker = next((w for w in self._workers if w.connection is connection), None)
        if worker is None:
            self.gpus.readable(connection)
            return
        try:
            answer: Answer | Ready | Extent = processes.receive(connection)
        except (EOFError, OSError):
            self._replace(worker, PassReason.WORKER_LOST)
            return
        if isinstance(answer, Ready):
            worker.is_ready = True
        elif isinstance(answer, Extent):
            worker.deadline = self._deadline(answer.native_bytes)
        else:
            entry, worker.entry = worker.entry, None
            self._feed()
            if entry is not None:
                entry.done(answer)

    def tick(self, now: float) -> None:
        """Kill what has missed its deadline; start again what died of no task."""
        self.gpus.tick(now)
        while self._restarts and self._restarts[0] <= now:
            del self._restarts[0]
            self._start_another()
            self._feed()
        for worker in list(self._workers):
            is_late = worker.entry is not None and now >= worker.deadline
            if is_late and not worker.connection.poll():
                worker.process.kill()
                self._replace(worker, PassReason.DEADLINE)

    def stop(self, seconds: float) -> None:
        """Let running tasks end for so long, then kill; queued tasks are forgotten.

        Whoever waits for a :class:`DecodeTask` is told; conversions are done again at the next start.
        """
        self.is_stopped = True
        running = [worker.entry for worker in self._workers if worker.entry is not None]
        for entry in [*self._queue, *running]:
            self._forget(entry)
        self._queue.clear()
        deadline = time.monotonic() + seconds
        workers, self._workers = self._workers, []
        for worker in workers:
            if worker.entry is not None:
                worker.connection.poll(max(0.0, deadline - time.monotonic()))
            worker.connection.close()
        processes.kill([worker.process for worker in workers], seconds=10)
        self.gpus.stop()

    def _forget(self, entry: Entry) -> None:
        if isinstance(entry.task, DecodeTask):
            entry.done(Lost(PassReason.WORKER_LOST, "the node stops"))

    def _feed(self) -> None:
        for worker in self._workers:
            if worker.entry is not None:
                continue
            while self._queue:
                entry = heapq.heappop(self._queue)
                if not entry.is_cancelled:
                    self._give(worker, entry)
                    break

    def _give(self, worker: _Worker, entry: Entry) -> None:
        worker.entry = entry
        entry.is_taken = True
        worker.deadline = self._deadline(_size(entry.task))
        try:
            processes.send(worker.connection, Assignment(entry.task, entry.priority <= URGENT))
        except OSError:
            # It died while idle, and its connection becomes readable; or it hangs, and is late at once.
            worker.deadline = 0.0

    def _deadline(self, size: int) -> float:
        return time.monotonic() + self._deadline_seconds + size / _BYTES_A_SECOND

    def _replace(self, worker: _Worker, reason: PassReason) -> None:
        worker.connection.close()
        processes.kill([worker.process], seconds=10)
        self.replaced += 1
        logger.warning(
            "worker %d %s (%s), replaced",
            worker.process.pid,
            "missed its deadline" if reason is PassReason.DEADLINE else "died",
            processes.describe_exit(worker.process.returncode),
        )
        entry = worker.entry
        self._workers.remove(worker)
        if entry is None:
            # It could not even start, or died of nothing: not again at once.
            self._restarts.append(time.monotonic() + _RESTART_SECONDS)
            return
        self._start_another()
        entry.tries += 1
        if entry.tries < _TRIES:
            heapq.heappush(self._queue, entry)
            self._feed()
        else:
            self._feed()
            entry.done(Lost(reason, f"a task took {_TRIES} workers with it"))

    def _start_another(self) -> None:
        """Now, or soon where the system has no process or memory for it."""
        try:
            self._workers.append(self._start())
        except OSError as error:
            logger.error("no worker could be started: %s; tried again", error)
            self._restarts.append(time.monotonic() + _RESTART_SECONDS)

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        with ours, theirs:
            process = processes.start(
                "scp.pipeline.worker",
                replace(
                    self._orders,
                    name=f"worker-{next(self._names)}",
                    parent=os.getpid(),
                    sockets=(theirs.fileno(),),
                ),
            )
            return _Worker(process, Connection(ours.detach()))


def _size(task: Task) -> int:
    """Bytes to read, which add to the deadline."""
    match task:
        case ConvertTask(source=source):
            sources = [source]
        case DecodeTask(original=original):
            sources = [original]
        case CollapseTask(slices=slices):
            sources = [each.path for each in slices]
    try:
        return sum(path.stat().st_size for path in sources)
    except OSError:
        return 0
