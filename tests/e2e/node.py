"""A node as a hospital runs it: a process of its own, started by the command line, asked by its socket."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from scp.config.schema import DicomDestination
from scp.deliver.ports import Receipt
from scp.deliver.send import send_files
from scp.errors import NodeError
from scp.model import DeliveryItem
from scp.pipeline.control import ask
from tests.conftest import REPOSITORY

type Tree = dict[str, Any]

START_SECONDS = 90.0
WORK_SECONDS = 60.0
POLL_SECONDS = 0.02
COMMAND_SECONDS = 90.0

EVERYTHING_ELSE: Tree = {
    "node": {"bind": "127.0.0.1", "port": 0},
    "series": {"quiet_seconds": 0.3},
    "limits": {"reserve": "10MB"},
    "codec": {"workers": 1},
}


class RunningNode:
    """One data folder and configuration, and the process that serves them, started again at will."""

    def __init__(self, folder: Path, config: Tree) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self.archive = folder / "archive"
        self.config_file = folder / "dcmpress.yaml"
        self.log_file = folder / "node.log"
        self.expected_tracebacks = 0
        self.log_level = "INFO"
        self._family: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.configure(config)

    def configure(self, config: Tree) -> None:
        """Write the configuration; it counts from the next start."""
        base = {
            "destinations": {"archive": {"kind": "folder", "path": str(self.archive)}},
            "default": {"send_to": ["archive"]},
        }
        merged = _merged(_merged(EVERYTHING_ELSE, base), config)
        if "listeners" in merged:
            del merged["node"]["bind"], merged["node"]["port"]
        merged["node"].setdefault("data", str(self.data))
        self.data = Path(merged["node"]["data"])
        self.config_file.write_text(yaml.safe_dump(merged))

    # -- its life ------------------------------------------------------------------------------

    def start(self, *, through: tuple[str, ...] = ()) -> "RunningNode":
        """Serve, and return once the port answers; ``through`` a program that becomes what it is given."""
        assert self._process is None
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *through,
                    *COMMAND,
                    "serve",
                    "-c",
                    str(self.config_file),
                    "--log-level",
                    self.log_level,
                ],
                stdin=subprocess.DEVNULL,
                stderr=log,
                cwd=REPOSITORY,
                start_new_session=True,  # as a service has: its time is not that of the tests
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert self._process.poll() is None, f"the node ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"the node is not ready:\n{self.log()}"
            time.sleep(POLL_SECONDS)
        self.processes()
        return self

    def is_ready(self) -> bool:
        status = None
        with contextlib.suppress(FileNotFoundError, NodeError):
            status = ask(self.data / "control", {"command": "status"})
        if status is None:
            return False
        self.port = int(status["port"])
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 5).close()
            return True
        return False

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None
        return self._process.pid

    def processes(self, module: str = "") -> list[int]:
        """The node's processes, the supervisor first; with a module, those that run it."""
        if self._process is None:
            return []
        found = list(_family(self._process.pid))
        self._family.update(found)
        return [pid for pid in found if runs(pid, module)]

    def kill9(self) -> None:
        """kill -9 of every process of the node, as near to one moment as can be."""
        assert self._process is not None
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        self._process = None
        self._await_end()

    def kill_if_it_runs(self) -> None:
        """For tests that failed: nothing may stay."""
        if self._process is not None:
            self.kill9()

    def terminate(self, seconds: float = 60.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self.processes()
        self._process.terminate()
        return self.wait(seconds)

    def wait(self, seconds: float = 60.0) -> int:
        """Until the supervisor has ended, and every other process with it; returns the exit code."""
        assert self._process is not None
        code = self._process.wait(seconds)
        self._process = None
        self._await_end()
        return code

    def restart(self) -> None:
        assert self.terminate() == 0
        self.start()

    def _await_end(self) -> None:
        until(lambda: not any(map(is_alive, self._family)), "children outlive the supervisor", 30)
        self._family.clear()

    def close(self) -> None:
        """Stop it if it runs, and see that it leaves the accounts in order."""
        if self._process is not None:
            try:
                status = self.status()
                assert_balanced(status)
                if not status["pending"]:
                    until(lambda: not self.spool("jobs"), lambda: f"left: {self.spool('jobs')}")
                assert self.terminate() == 0, self.log()
            finally:
                if self._process is not None:
                    self.kill9()
        assert self.log().count("Traceback") == self.expected_tracebacks, self.log()

    # -- what it says --------------------------------------------------------------------------

    def status(self) -> Tree:
        return self._ask("status")

    def held(self) -> list[Tree]:
        """What `dcmpress held --json` shows, without its start-up time."""
        jobs: list[Tree] = self._ask("held")["jobs"]
        return jobs

    def _ask(self, request: str) -> Tree:
        answer = ask(self.data / "control", {"command": request})
        assert answer is not None, f"the node does not answer:\n{self.log()}"
        return answer

    def wait_for(self, deadline: float = WORK_SECONDS, **counters: int) -> Tree:
        """Poll the status until every counter has its value; returns it, balanced."""
        status: Tree = {}

        def reached() -> bool:
            status.update(self.status())
            return all(status[name] == value for name, value in counters.items())

        def explanation() -> str:
            seen = {name: status.get(name) for name in (*counters, "received", "pending", "held")}
            return f"{counters} expected, {seen} seen\n{self.log()[-3000:]}"

        until(reached, explanation, deadline)
        assert_balanced(status)
        return status

    def wait_idle(self, deadline: float = WORK_SECONDS) -> Tree:
        """Until nothing is open or waits."""
        return self.wait_for(deadline, pending=0)

    def settle(self) -> None:
        """Until everything that was sent has left the spool."""
        until(lambda: not self.left_in_spool(), lambda: f"{self.left_in_spool()}\n{self.log()}")

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def spool(self, part: str) -> list[Path]:
        """What lies in one of the spool's folders."""
        folder = self.data / "spool" / part
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def left_in_spool(self) -> list[Path]:
        """What no folder of the spool should have when everything is delivered."""
        parts = ("growing", "jobs", "held", "trash", "encoded")
        return [path for part in parts for path in self.spool(part)]

    def arriving_bytes(self, receiver: str = "r0") -> int:
        """Of instances that are not acknowledged; a receiver keeps empty files in store."""
        return sum(path.stat().st_size for path in self.spool(f"incoming/{receiver}"))

    def archived(self) -> list[Path]:
        """Every file of the folder destination, hidden and temporary ones included."""
        return sorted(path for path in self.archive.rglob("*") if path.is_file())

    def delivered(self, dataset: Any) -> Path:
        """Where the folder destination has an instance."""
        return (
            self.archive
            / str(dataset.StudyInstanceUID)
            / str(dataset.SeriesInstanceUID)
            / f"{dataset.SOPInstanceUID}.dcm"
        )

    # -- what is done to it --------------------------------------------------------------------

    def peer(self, **titles: str) -> DicomDestination:
        """This node, as something to send to."""
        return DicomDestination.model_validate(
            {
                "kind": "dicom",
                "host": "127.0.0.1",
                "port": self.port,
                "ae_title": "DCMPRESS",
                "calling_ae_title": "TEST",
                **titles,
            }
        )

    def send(self, paths: Iterable[Path], **titles: str) -> list[Receipt]:
        """C-STORE of files over one association, every one acknowledged."""
        receipts = list(send_files(paths, self.peer(**titles), no_decoding))
        assert all(receipt.status == "0000" for receipt in receipts), receipts
        return receipts

    def command(self, *arguments: str, code: int = 0) -> str:
        """A dcmpress command on this configuration, with the exit code expected; its output."""
        done = command(*arguments, "-c", str(self.config_file))
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.command(*arguments, "--json"))


COMMAND = (sys.executable, "-m", "scp.cli.main")

LIKE_THE_FIRST_OF_A_CONTAINER = (
    sys.executable,
    "-c",
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(36, 1)\n"  # PR_SET_CHILD_SUBREAPER
    "os.execv(sys.argv[1], sys.argv[1:])",
)
"""Children of its children that are left behind become its own."""


def command(*arguments: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """A dcmpress command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def no_decoding(item: DeliveryItem, transfer_syntax: str) -> Path:
    raise AssertionError("the node refused a transfer syntax")


def assert_balanced(status: Tree) -> None:
    """Everything acknowledged is accounted for."""
    parts = ("pending", "delivered", "skipped", "held", "discarded")
    assert status["received"] == sum(status[name] for name in parts), status


def until(
    condition: Callable[[], bool],
    otherwise: str | Callable[[], str],
    seconds: float = WORK_SECONDS,
) -> None:
    """Poll until the condition holds; after the deadline the test fails, saying ``otherwise``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(POLL_SECONDS)


def is_alive(pid: int) -> bool:
    """Whether a process runs; what has ended and was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def runs(pid: int, module: str) -> bool:
    """Whether it was started with a module of ours, or forked for it and named so."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return module in command or name == module.rpartition(".")[2]


def _family(pid: int) -> Iterable[int]:
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _merged(base: Tree, more: Tree) -> Tree:
    """``more`` over ``base``, section by section; a section that is None goes."""
    result = deepcopy(base)
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict) and key != "destinations":
            result[key] = _merged(result[key], value)
        elif key == "destinations":
            result[key] = {**result.get(key, {}), **value}
            result[key] = {name: section for name, section in result[key].items() if section}
        else:
            result[key] = deepcopy(value)
    return result
