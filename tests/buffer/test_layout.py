"""One node on a data folder, and no second."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scp.buffer.layout import Layout, is_locked, lock_data
from scp.durable import Disk
from scp.errors import NodeError

_NODE = """
import subprocess, sys
from pathlib import Path
from scp.buffer.layout import Layout, lock_data

lock = lock_data(Layout(Path(sys.argv[1])), 0.0)
orphan = 0
if sys.argv[2] == "child":
    orphan = subprocess.Popen(["sleep", "60"], pass_fds=[lock], stdout=subprocess.DEVNULL).pid
print(orphan, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "data")
    layout.make(Disk())
    return layout


@contextmanager
def another_node(layout: Layout, *, child: bool = False) -> Iterator[tuple[int, int]]:
    """A process that holds the folder: its id, and that of the child which inherited the lock."""
    node = subprocess.Popen(
        [sys.executable, "-c", _NODE, layout.data, "child" if child else "alone"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert node.stdout is not None
    orphan = int(node.stdout.readline())
    try:
        yield node.pid, orphan
    finally:
        node.kill()
        node.communicate()
        if orphan:
            os.kill(orphan, signal.SIGKILL)


def test_a_second_node_is_refused_and_told_who_runs(layout: Layout) -> None:
    with (
        another_node(layout) as (process, _),
        pytest.raises(NodeError, match=rf"another node \(process {process}\) uses .*data; stop it"),
    ):
        lock_data(layout, 0.0)


def test_the_folder_is_free_again_when_the_node_has_ended(layout: Layout) -> None:
    with another_node(layout):
        assert is_locked(layout)

    assert not is_locked(layout)
    os.close(lock_data(layout, 0.0))


def test_an_orphan_of_a_dead_node_keeps_the_folder(layout: Layout) -> None:
    with another_node(layout, child=True) as (process, orphan):
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)

        with pytest.raises(NodeError):
            lock_data(layout, 0.0)
        assert is_locked(layout)
        os.kill(orphan, 0)


def test_a_node_waits_for_what_is_about_to_end(layout: Layout) -> None:
    held = lock_data(layout, 0.0)
    waiting = subprocess.Popen(
        [sys.executable, "-c", _NODE.replace("0.0", "30.0"), layout.data, "alone"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert waiting.stdout is not None

    os.close(held)

    assert waiting.stdout.readline() == b"0\n"
    waiting.communicate()
    assert waiting.returncode == 0


def test_a_folder_that_no_node_ever_used_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(Layout(tmp_path))


def test_the_lock_names_its_holder(layout: Layout) -> None:
    layout.lock.write_text("4194304 and more digits of an earlier holder\n")

    held = lock_data(layout, 0.0)

    assert layout.lock.read_text() == f"{os.getpid()}\n"
    os.close(held)


def test_a_data_folder_that_cannot_be_made_stops_the_node_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(NodeError, match="cannot be used: Not a directory; choose another"):
        Layout(tmp_path / "file" / "data").make(Disk())


def test_a_parent_that_the_node_may_not_read_keeps_it_from_nothing() -> None:
    nobody = 65534
    with tempfile.TemporaryDirectory() as parent:
        layout = Layout(Path(parent) / "data")
        layout.data.mkdir()
        Path(parent).chmod(0o311)
        if os.geteuid() == 0:
            os.chown(layout.data, nobody, -1)
            os.seteuid(nobody)
        try:
            layout.make(Disk())
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            Path(parent).chmod(0o700)

        assert layout.growing.is_dir()


def test_a_lock_that_cannot_be_opened_stops_the_node_with_one_sentence(layout: Layout) -> None:
    layout.lock.mkdir()

    with pytest.raises(NodeError, match="cannot be locked: Is a directory"):
        lock_data(layout, 0.0)


def test_making_the_folders_again_keeps_what_is_there(layout: Layout) -> None:
    (layout.growing / "series").mkdir()

    layout.make(Disk())

    assert (layout.growing / "series").is_dir()


def test_nobody_else_on_the_machine_may_look_into_the_spool(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Layout(tmp_path / "data").make(Disk())
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "data" / "spool").stat().st_mode) == 0o750
