"""Real workers for tests, and tasks that keep one busy until a test lets go."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path

from scp.config.schema import Config
from scp.pipeline.pool import WorkerPool
from scp.pipeline.processes import Orders
from scp.pipeline.tasks import Answer, ConvertTask, Lost

SECONDS = 90.0
"""Until a test gives up; a worker that is nicer than all else on the machine takes its time to start."""
DEADLINE_SECONDS = 100.0
"""Of a task, by the pool's clock, which tests turn."""


def orders(
    config: Config, lock: int, *, log_level: str = "INFO", gpus: Path | None = None
) -> Orders:
    """What workers are told; with a ``log_level`` that is none they end at once."""
    return Orders(
        config=config,
        rules="rules-1",
        name="coordinator",
        parent=os.getpid(),
        log_format="console",
        log_level=log_level,
        lock=lock,
        gpus=gpus,
    )


class Crew:
    """A pool and its processes, with the test as the pool's loop."""

    def __init__(self, orders: Orders, count: int) -> None:
        self._others = set(children())
        self.pool = WorkerPool(orders, count, DEADLINE_SECONDS)

    def pids(self) -> list[int]:
        """The pool's processes, those that ended and were not reaped included."""
        return [pid for pid in children() if pid not in self._others and _may_be_a_worker(pid)]

    def turn(self, seconds: float = 0.0) -> None:
        """One turn of the loop, ``seconds`` from now as far as the pool can tell."""
        for connection in wait(self.pool.connections(), 0.02):
            assert isinstance(connection, Connection)
            self.pool.readable(connection)
        self.pool.tick(time.monotonic() + seconds)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.turn()

    def kill(self) -> int:
        """Of the only one, its process, which is returned."""
        (pid,) = self.pids()
        os.kill(pid, signal.SIGKILL)
        return pid

    def freeze(self) -> list[int]:
        """From now on those that there are hang."""
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)
        return self.pids()


@contextmanager
def crew_of(
    config: Config, count: int = 1, *, log_level: str = "INFO", gpus: Path | None = None
) -> Iterator[Crew]:
    """Workers that are gone at the end, whatever became of them."""
    config.node.data.mkdir(parents=True, exist_ok=True)
    lock = os.open(config.node.data / "lock", os.O_RDWR | os.O_CREAT)
    crew = Crew(orders(config, lock, log_level=log_level, gpus=gpus), count)
    try:
        yield crew
    finally:
        crew.pool.stop(0)
        os.close(lock)
    assert crew.pids() == []


def children() -> list[int]:
    """The processes that this one has started."""
    found: list[int] = []
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with contextlib.suppress(
            FileNotFoundError, ProcessLookupError
        ):  # A thread that just ended.
            found += map(int, (task / "children").read_text().split())
    return found


def _may_be_a_worker(pid: int) -> bool:
    """Whether it is one or was one; a server that another test needs has started meanwhile, too."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not command or b"scp.pipeline.worker" in command


class Gate:
    """A file whose reader waits until :meth:`open`: a task on it hangs for as long as a test likes."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.task = ConvertTask(source=path, target=None)

    def open(self) -> None:
        """The reader, who has to be there, finds the file empty."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                os.close(os.open(self.task.source, os.O_WRONLY | os.O_NONBLOCK))
                return
            except OSError:
                assert time.monotonic() < deadline, "nobody reads it"
                time.sleep(0.002)


class Answers:
    """What the pool said of tasks, in order."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.of: dict[str, Answer | Lost] = {}

    def to(self, name: str) -> Callable[[Answer | Lost], None]:
        def done(answer: Answer | Lost) -> None:
            assert name not in self.of, f"{name} was answered twice"
            self.order.append(name)
            self.of[name] = answer

        return done
