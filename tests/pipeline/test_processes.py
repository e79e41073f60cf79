"""How children are started: with their orders and descriptors, and no others."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scp.pipeline.processes import describe_exit, kill, start
from tests.pipeline.parts import config_for
from tests.pipeline.workers import SECONDS, Crew, orders


def descriptors(pid: int) -> set[str]:
    """What a process has open, by what it is."""
    return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_child_has_the_lock_and_its_own_pipe_and_nothing_else_of_its_parent(
    one_worker: Crew, tmp_path: Path
) -> None:
    """What kept the port open in a worker would outlive the node; so would a receiver's spool file."""
    with socket.create_server(("127.0.0.1", 0)) as port, (tmp_path / "open").open("wb") as file:
        for each in (port, file):
            os.set_inheritable(each.fileno(), True)
        lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
        ours, theirs = socket.socketpair()
        told = replace(orders(config_for(tmp_path), lock), sockets=(theirs.fileno(),))

        child = start("scp.pipeline.worker", told)

        with ours, theirs:
            theirs.close()
            ours.settimeout(SECONDS)
            assert ours.recv(4096), "it is ready"
            found = descriptors(child.pid)
            kill([child], SECONDS)
        os.close(lock)
        assert str(tmp_path / "lock") in found
        assert str(tmp_path / "open") not in found
        inode = os.fstat(port.fileno()).st_ino
        assert f"socket:[{inode}]" not in found


def test_a_child_shares_the_time_of_its_parents_session_and_not_its_signals(
    one_worker: Crew,
) -> None:
    (child,) = one_worker.pids()

    assert os.getsid(child) == os.getsid(0), "how nice it is would count for nothing"
    assert os.getpgid(child) == child, "a terminal's Ctrl-C is for the supervisor alone"


def test_a_child_that_dies_before_it_has_read_its_orders_is_one_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    long = replace(orders(config_for(tmp_path), 0), rules="x" * 2**20)

    child = start("scp.pipeline.worker", long)

    assert child.wait(SECONDS) == 0


def test_a_child_whose_parent_died_before_it_could_ask_ends(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    told = replace(orders(config_for(tmp_path), 0), parent=1 << 30, sockets=(theirs.fileno(),))

    with ours, theirs:
        child = start("scp.pipeline.worker", told)

        assert child.wait(SECONDS) == 1


def test_children_that_were_asked_before_are_killed_and_reaped() -> None:
    children = [subprocess.Popen(["/bin/sleep", "100"]) for _ in range(2)]
    children[0].send_signal(signal.SIGSTOP)
    ended = subprocess.Popen(["/bin/true"])
    ended.wait(SECONDS)

    kill([*children, ended], SECONDS)

    assert [child.returncode for child in (*children, ended)] == [-9, -9, 0]


@pytest.mark.parametrize(
    ("code", "text"), [(None, "still running"), (3, "exit code 3"), (-9, "killed by SIGKILL")]
)
def test_an_end_is_said_in_words(code: int | None, text: str) -> None:
    assert describe_exit(code) == text


def test_a_process_that_runs_promptly_has_no_more_rights_than_before() -> None:
    program = (
        "import os; from scp.pipeline.processes import run_promptly\n"
        "before = os.sched_getscheduler(0), os.nice(3)\n"
        "run_promptly()\n"
        "assert (os.sched_getscheduler(0), os.nice(0)) == before, before"
    )

    run = subprocess.run([sys.executable, "-c", program], check=False)

    assert run.returncode == 0


def test_a_process_that_keeps_freed_memory_does_not_have_every_frame_cleared_anew() -> None:
    program = (
        "import resource; from scp.pipeline.processes import keep_freed_memory\n"
        "keep_freed_memory()\n"
        "def frame(): return [bytes(2**20) for _ in range(4)]\n"
        "frame()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(50): frame()\n"
        "faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "assert faults < 5000, faults"  # Otherwise 256 a megabyte: 51,200.
    )

    run = subprocess.run([sys.executable, "-c", program], check=False)

    assert run.returncode == 0
