"""How workers are started and told what to do: by exec, orders on standard input."""

import contextlib
import ctypes
import os
import pickle
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from scp.config.schema import Config
from scp.telemetry import LogFormat

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # prctl(2)
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_SLICE_NANOSECONDS: Final = 100_000
"""The shortest that the kernel takes."""
_KEPT_BYTES: Final = 2**24
"""More than most images take at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a child is told at its start. Descriptors are inherited under the same numbers."""

    config: Config
    rules: str
    """Identity of the rule set."""
    name: str
    parent: int
    log_format: LogFormat
    log_level: str
    lock: int
    """Held for as long as any process of the node lives."""
    number: int = 0
    """Of a receiver, from 1."""
    sockets: tuple[int, ...] = ()
    """What the kind of process needs; see its ``main``."""
    gpus: Path | None = None
    """Folder of the sockets on which GPU processes answer; None: nobody has a GPU."""


def start(module: str, orders: Orders) -> subprocess.Popen[bytes]:
    """Start ``python -m module``; it reads its orders first thing.

    One that dies before it has read them is returned like any other that ends.

    Raises
    ------
    OSError
        The system has no process, memory or descriptor for it.
    """
    child = subprocess.Popen(  # noqa: S603 - our own module by our own interpreter
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        pass_fds=(orders.lock, *orders.sockets),
        # No session of its own: in each of those Linux may share out time by itself (sched(7),
        # autogroup), and how nice its processes are counts for nothing outside.
        process_group=0,
    )
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
        pipe.write(pickle.dumps(orders))
    return child


def read_orders() -> Orders:
    """The child's side. From here on the child dies with its parent, whatever kills that.

    A terminal's Ctrl-C goes to the supervisor alone, which stops the others in order.
    """
    orders = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - written by our own parent
    assert isinstance(orders, Orders)
    die_with(orders.parent)
    show_as(orders.name)
    return orders


def show_as(name: str) -> None:
    """What ps and top call this process."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())


def die_with(parent: int) -> None:
    """Have this process killed when its parent dies, whatever kills that."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # It died before we asked.


def run_promptly() -> None:
    """Have this process, and threads that it starts, take a core from others as soon as it needs one.

    A short slice of time (sched(7), Linux 6.12): the scheduler lets who has one interrupt who has the usual
    3 ms, and takes nothing from anybody's share. Older kernels and other machines run as they do.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    # struct sched_attr: size, policy (SCHED_OTHER), flags, nice, priority, runtime, deadline, period.
    attributes = struct.pack("<IIQiIQQQ", 48, 0, 0, os.nice(0), 0, _SLICE_NANOSECONDS, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, ctypes.c_char_p(attributes), 0)


def keep_freed_memory() -> None:
    """Have malloc give memory back to the system from 32 MiB on, not from 128 KiB on.

    For whoever makes and drops frame after frame: each page that was given back is cleared when it is
    taken again, which for a CT is a quarter of all that reading, encoding, proving and writing it costs.
    glibc learns it from the first large block that is freed (mallopt(3), M_MMAP_THRESHOLD), and goes on
    learning from larger ones; other C libraries stay as they are.
    """
    bytes(_KEPT_BYTES)


def send(connection: Connection, message: Any) -> None:
    """As :meth:`Connection.send`, which pickles into a buffer of the kind that :func:`receive` tells of."""
    connection.send_bytes(pickle.dumps(message))


def receive(connection: Connection) -> Any:
    """The next message, as :meth:`Connection.recv` gives it.

    That one unpickles out of a buffer that CPython 3.12.1 crashes over when a collection of garbage
    comes upon it (gh-111049).
    """
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - written by our own processes


def describe_exit(code: int | None) -> str:
    if code is None:
        return "still running"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def kill(children: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Kill and reap; for children that were asked before."""
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait(seconds)
