"""What the coordinator waits on."""

import contextlib
import select
from collections.abc import Sequence
from multiprocessing.connection import Connection


class Sources:
    """Descriptors that stay, notices that may be left alone for a while, and connections that change.

    They stay registered from one wait to the next: to name them all each time costs more than what
    most turns of the coordinator do.

    Parameters
    ----------
    others
        What wakes the coordinator and is read by someone else.
    notices
        What wakes it unless it lets notices gather.
    """

    def __init__(self, others: Sequence[int], notices: Sequence[int]) -> None:
        self._calm, self._all = select.epoll(), select.epoll()
        self._connections: list[Connection] = []
        self._known: dict[int, Connection] = {}
        for descriptor in others:
            self._calm.register(descriptor, select.EPOLLIN)
        for descriptor in (*notices, self._calm.fileno()):
            self._all.register(descriptor, select.EPOLLIN)

    def wait(
        self, connections: Sequence[Connection], seconds: float, *, with_notices: bool
    ) -> list[Connection]:
        """Until something is there, for so long at most; returns the connections that are readable.

        Parameters
        ----------
        connections
            Open ones, all of them each time.
        """
        if connections != self._connections:
            self._change(connections)
        if with_notices:
            self._all.poll(seconds)
            seconds = 0
        ready = self._calm.poll(seconds)
        return [self._known[descriptor] for descriptor, _ in ready if descriptor in self._known]

    def close(self) -> None:
        self._all.close()
        self._calm.close()

    def _change(self, connections: Sequence[Connection]) -> None:
        """Take out what is closed first: what was opened since may have its number."""
        self._connections = list(connections)
        left = set(map(id, connections))
        for descriptor, connection in list(self._known.items()):
            if id(connection) not in left:
                del self._known[descriptor]
                with contextlib.suppress(OSError):  # The system has, if it was closed.
                    self._calm.unregister(descriptor)
        for connection in connections:
            descriptor = connection.fileno()
            if descriptor not in self._known:
                self._calm.register(descriptor, select.EPOLLIN)
                self._known[descriptor] = connection
