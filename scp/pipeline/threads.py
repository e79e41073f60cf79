"""How threads hand work on: an inbox for the coordinator, one thread for its slow calls."""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from scp.errors import LedgerError

logger = logging.getLogger(__name__)


type Later = Callable[[float, Callable[[], None]], None]
"""Makes a call after some seconds, on the coordinator's thread."""


class Inbox:
    """Calls that other threads want made on the coordinator's thread."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_woken = False
        """Something was, or is about to be, written that :meth:`run_posted` reads before it looks."""

    def fileno(self) -> int:
        """Readable when calls wait."""
        return self._read

    def post(self, call: Callable[[], None]) -> None:
        """Make ``call`` soon, after what was posted before."""
        self._calls.put(call)
        if self._is_woken:
            return  # Each write costs the threads of a busy node a change of who runs.
        self._is_woken = True
        with contextlib.suppress(BlockingIOError):  # The pipe is full: it will wake anyway.
            os.write(self._write, b"x")

    def ask[T](self, call: Callable[[], T], seconds: float) -> T:
        """Make ``call`` on the coordinator's thread and wait for its result, or its exception.

        Raises
        ------
        TimeoutError
            It was not made in time, and will not be; or it takes too long.
        """
        answer: Future[T] = Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(call())
            except Exception as error:
                # Not ours to judge: whoever asked gets it.
                answer.set_exception(error)

        self.post(run)
        try:
            return answer.result(seconds)
        finally:
            answer.cancel()  # Whoever was told that it failed does not want it done later.

    def run_posted(self) -> None:
        """Make the calls that wait; on the coordinator's thread."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 65536)
        self._is_woken = False  # Between the two: what is posted from here on wakes again.
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            call()


class Chores:
    """One thread for calls that wait for the disk, in order; their ends come by the inbox."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="chores", daemon=True)
        self._thread.start()

    def do[T](
        self,
        work: Callable[[], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Do ``work`` on the thread, then one of the other two on the coordinator's."""

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                reason = error  # The name of an except clause ends with it.
                self._inbox.post(lambda: failed(reason))
            else:
                self._inbox.post(lambda: then(result))

        self._calls.put(run)

    def stop(self, seconds: float) -> None:
        """Finish what was asked for and end."""
        self._calls.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


class Soon(Protocol):
    """Makes a call of the ledger for who cannot wait; LedgerError where its answer takes too long."""

    def __call__[T](self, call: Callable[[], T]) -> T: ...


def directly[T](call: Callable[[], T]) -> T:
    """For who can wait, as :class:`Soon`."""
    return call()


class Prompt:
    """A thread that asks the ledger for the coordinator, which waits a moment and then goes on.

    A server that hangs is noticed late: nothing else tells it from one that is slow. While a call is
    not answered, further ones fail at once.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._last: Future[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="prompt", daemon=True)
        self._thread.start()

    def __call__[T](self, call: Callable[[], T]) -> T:
        """As :class:`Soon`; on the coordinator's thread."""
        if self._last is not None and not self._last.done():
            raise LedgerError("the ledger has not answered the last call yet")
        answer: Future[T] = Future()
        self._last = answer

        def run() -> None:
            try:
                answer.set_result(call())
            except Exception as error:
                # Not ours to judge: whoever asked gets it.
                answer.set_exception(error)

        self._calls.put(run)
        try:
            return answer.result(self._seconds)
        except TimeoutError as error:
            raise LedgerError(f"the ledger has not answered within {self._seconds:g} s") from error

    def stop(self, seconds: float) -> None:
        """Finish what was asked for and end."""
        self._calls.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
