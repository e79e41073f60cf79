"""How the supervisor's children are started: with their descriptors, and nothing else of their parent."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scp.pipeline.forks import Fork, fork
from tests.conftest import REPOSITORY
from tests.pipeline.parts import config_for
from tests.pipeline.workers import SECONDS, orders

MODULE = "tests.pipeline.forked"
ENDS = {"returns": 0, "has done all": 0, "leaves": 3, "raises": 1}
"""What a child may do, and its exit code."""


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def start(folder: Path, lock: int, name: str, *sockets: int) -> Fork:
    told = replace(orders(config_for(folder), lock), name=name, parent=os.getpid())
    return fork(MODULE, replace(told, sockets=sockets))


def test_a_child_has_the_lock_and_its_own_socket_and_nothing_else_of_its_parent(
    tmp_path: Path, lock: int
) -> None:
    """A receiver that kept the coordinator's socket open would outlive what the node knows of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as port:
        previous = signal.signal(signal.SIGTERM, lambda *_: None)
        child = start(tmp_path, lock, "waits", theirs.fileno())
        signal.signal(signal.SIGTERM, previous)
        ours.settimeout(SECONDS)
        said = ours.recv(4096)
        open_there = {os.readlink(each) for each in Path(f"/proc/{child.pid}/fd").iterdir()}
        name = Path(f"/proc/{child.pid}/comm").read_text()
        group = os.getpgid(child.pid)
        inode = os.fstat(port.fileno()).st_ino

        child.terminate()

        assert child.wait(SECONDS) == -signal.SIGTERM
    assert said == b"b'' default", "it reads nothing, and no handler of its parent's is left"
    assert str(tmp_path / "lock") in open_there
    assert f"socket:[{inode}]" not in open_there
    assert (name, group) == ("forked\n", child.pid)


def test_its_end_is_known_whatever_it_is(tmp_path: Path, lock: int) -> None:
    ends = [start(tmp_path, lock, name).wait(SECONDS) for name in ENDS]

    assert ends == list(ENDS.values())


def test_who_waits_for_a_child_that_runs_on_is_told_so(tmp_path: Path, lock: int) -> None:
    child = start(tmp_path, lock, "waits")

    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)

    child.kill()
    assert child.wait(SECONDS) == -signal.SIGKILL
    child.kill()  # It is another's number by now, perhaps.
    assert child.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "said", "tracebacks"),
    [("raises", "RuntimeError: of the child", 1), ("says why", "the disk is full", 0)],
)
def test_why_a_child_ended_is_written_once_and_in_one_sentence_where_that_is_known(
    tmp_path: Path, name: str, said: str, tracebacks: int
) -> None:
    program = (
        "import os, sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from tests.pipeline.test_forks import start\n"
        "sys.stdout.write('written before')\n"
        f"code = start(Path({str(tmp_path)!r}), os.open('/dev/null', os.O_RDONLY), {name!r}).wait()\n"
        "sys.exit(code)"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert run.returncode == 1
    assert run.stdout == "written before"
    assert (run.stderr.count(said), run.stderr.count("Traceback")) == (1, tracebacks)


def test_a_child_starts_also_where_nobody_takes_what_its_parent_says(tmp_path: Path) -> None:
    """Whatever read the log has ended, or its disk is full: what was to be written still is."""
    program = (
        "import contextlib, os, sys\n"
        "from pathlib import Path\n"
        "from tests.pipeline.test_forks import start\n"
        "with contextlib.suppress(OSError):\n"
        "    print('to nobody', file=sys.stderr)\n"
        f"child = start(Path({str(tmp_path)!r}), os.open('/dev/null', os.O_RDONLY), 'leaves')\n"
        "os._exit(child.wait())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("wb") as full:
        run = subprocess.run(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env=environment,
            stderr=full,
            check=False,
        )

    assert run.returncode == 3


def test_streams_that_were_closed_cost_no_child_its_lock(tmp_path: Path) -> None:
    program = (
        "import os\n"
        "from pathlib import Path\n"
        "from scp.pipeline.forks import hold_standard_streams\n"
        "from tests.pipeline.test_forks import start\n"
        "hold_standard_streams()\n"
        "lock = os.open('/dev/null', os.O_RDONLY)\n"
        f"ends = [start(Path({str(tmp_path)!r}), lock, name).wait() for name in ('leaves', 'raises')]\n"
        "os._exit(7 if ends == [3, 1] and lock > 2 else 1)"
    )
    run = subprocess.run(
        ["bash", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program],
        cwd=REPOSITORY,
        check=False,
    )

    assert run.returncode == 7


def test_what_a_child_runs_is_loaded_before_it_starts(tmp_path: Path, lock: int) -> None:
    """So that one that died is there again at once, and all share what is loaded."""
    sys.modules.pop(MODULE, None)

    start(tmp_path, lock, "returns").wait(SECONDS)

    assert MODULE in sys.modules


def test_no_child_is_begun_that_nobody_could_watch(
    tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would say in a traceback of its own what its parent says in a sentence."""
    start(tmp_path, lock, "returns").wait(SECONDS)  # What it runs is loaded.
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it was begun"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            start(tmp_path, lock, "returns")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.pipeline.test_forks import start\n"
        f"child = start(Path({str(tmp_path)!r}), os.open('/dev/null', os.O_RDONLY), 'waits')\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))

        parent.kill()

        os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
        ended = _ends_within(child, SECONDS)
        os.close(child)
    assert ended


def _ends_within(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
