"""How the supervisor starts its children: by fork, since it has loaded what they need.

A child that died is there again after milliseconds, runs the code that the node began with, and shares the
memory of what was loaded. Only for a process of one thread that has not touched a GPU.
"""

import contextlib
import gc
import importlib
import logging
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from scp.errors import ScpError
from scp.pipeline.processes import Orders, die_with, show_as

logger = logging.getLogger(__name__)

STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that stop a node; of the last two a terminal sends one for Ctrl-C and one when it is closed."""


class Fork:
    """A child, and as much of :class:`subprocess.Popen` as its parent needs."""

    def __init__(self, pid: int, name: str) -> None:
        self.pid = pid
        self._name = name
        self._code: int | None = None
        try:
            self.descriptor = os.pidfd_open(pid)
        except OSError:
            self.descriptor = -1
            self.kill()
            self.wait()
            raise

    def wait(self, seconds: float | None = None) -> int:
        """Until it has ended; returns the exit code, negative where a signal ended it.

        Raises
        ------
        subprocess.TimeoutExpired
            It still runs.
        """
        if self._code is None:
            if seconds is not None and not self._ends_within(seconds):
                raise subprocess.TimeoutExpired(self._name, seconds)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            if self.descriptor >= 0:
                os.close(self.descriptor)
        return self._code

    def _ends_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._code is None:
            os.kill(self.pid, number)


def fork(module: str, orders: Orders) -> Fork:
    """Have a child run ``main(orders)`` of a module; it dies with this process.

    Raises
    ------
    OSError
        The system has no process, memory or descriptor for it.
    """
    main = importlib.import_module(module).main
    # The child is watched by one more descriptor: without room for it none is begun.
    os.close(os.open(os.devnull, os.O_RDONLY))
    _flush()  # What is in them would be written twice.
    gc.freeze()  # No child looks for cycles in what they share, and copies it for that.
    # A signal for the parent must not come to its handler in a child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        pid = os.fork()
        if not pid:
            _be_a_child(module, main, orders, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Fork(pid, module)


def hold_standard_streams() -> None:
    """Open what of 0, 1 and 2 was closed: what is opened next, the lock for one, would take its number.

    Before anything is opened that stays open.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # by workers, which are started by exec
    os.close(descriptor)


def _be_a_child(
    module: str, main: Callable[[Orders], None], orders: Orders, mask: Iterable[int]
) -> NoReturn:
    """Never returns: the parent's objects stay where they are, and none of them is ever finished.

    A socket of the parent that was collected here would close a descriptor that is another's by now.
    """
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # A terminal's is for the supervisor alone.
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # No session of its own: see scp.pipeline.processes.start.
        os.setpgid(0, 0)
        die_with(orders.parent)
        _keep_only({0, 1, 2, orders.lock, *orders.sockets})
        show_as(module.rpartition(".")[2])
        main(orders)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except ScpError as error:
        logger.error("%s", error)  # A sentence for whoever runs the node.
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            _flush()
        finally:
            os._exit(code)


def _flush() -> None:
    """Whoever reads them may be gone, their disk full, or they closed: that stops no node."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def _keep_only(kept: set[int]) -> None:
    """Close every other descriptor, and read nothing."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    first = 0
    for last in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        if first < last:  # To CPython 3.12, nothing before 0 is everything.
            os.closerange(first, last)
        first = last + 1
