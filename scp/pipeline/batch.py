"""Worker processes for a command that converts files without a node."""

import itertools
import os
import selectors
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path

from scp.config.schema import Config
from scp.pipeline.pool import WorkerPool
from scp.pipeline.processes import Orders
from scp.pipeline.tasks import Answer, Lost, Task

_TICK_SECONDS = 0.5
_PER_WORKER = 2
"""Tasks that wait beside those in hand, so that no worker idles and memory stays small."""


class Batch:
    """Runs many tasks; the answers come in the order they are ready."""

    def __init__(self, config: Config) -> None:
        self._count = count = config.codec.workers or os.cpu_count() or 1
        self._nowhere = os.open(os.devnull, os.O_RDONLY)
        self._folder = tempfile.TemporaryDirectory(prefix="dcmpress-gpus-")
        orders = Orders(
            config=config,
            rules="",
            name="batch",
            parent=os.getpid(),
            log_format="console",
            log_level="WARNING",
            lock=self._nowhere,
            gpus=Path(self._folder.name) if config.codec.backend != "cpu" else None,
        )
        self._room = count * (1 + _PER_WORKER)
        self._selector = selectors.DefaultSelector()
        self._watched: list[Connection] = []
        self._pool = WorkerPool(orders, count, config.codec.deadline_seconds)

    def run[Key](
        self,
        tasks: Iterable[tuple[Key, Task]],
        done: Callable[[Key, Answer | Lost], None],
    ) -> None:
        """Do all tasks; ``done`` is called for each, in this thread."""
        waiting = 0
        tasks = iter(tasks)

        def finish(key: Key, answer: Answer | Lost) -> None:
            nonlocal waiting
            waiting -= 1
            done(key, answer)

        is_exhausted = False
        while not is_exhausted or waiting:
            batch = list(itertools.islice(tasks, self._room - waiting))
            is_exhausted = not batch and waiting < self._room
            for key, task in batch:
                waiting += 1
                self._pool.submit(task, 0, lambda answer, key=key: finish(key, answer))  # type: ignore[misc]
            if waiting:
                self._turn()

    def wait_until_ready(self, seconds: float) -> bool:
        """Whether every worker has loaded its libraries, and every GPU is open or given up, by then."""
        deadline = time.monotonic() + seconds
        while not (self._pool.ready == self._count and self._pool.gpus.is_settled):
            if time.monotonic() >= deadline:
                return False
            self._turn()
        return True

    def _turn(self) -> None:
        connections = self._pool.connections()
        if connections != self._watched:
            # To watch them anew at each turn takes a third of the time between two tasks of a worker.
            self._selector.close()
            self._selector = selectors.DefaultSelector()
            for connection in connections:
                self._selector.register(connection, selectors.EVENT_READ)
            self._watched = connections
        for key, _ in self._selector.select(_TICK_SECONDS):
            assert isinstance(key.fileobj, Connection)
            if key.fileobj in self._pool.connections():
                self._pool.readable(key.fileobj)
        self._pool.tick(time.monotonic())

    def stop(self) -> None:
        self._pool.stop(0.0)
        self._selector.close()
        os.close(self._nowhere)
        self._folder.cleanup()
