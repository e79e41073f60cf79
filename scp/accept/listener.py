"""Accepts connections on sockets that someone else has bound."""

import contextlib
import errno
import itertools
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from pynetdicom.ae import ApplicationEntity

from scp.accept.access import AccessList, plain_address
from scp.accept.association import Service, StorageAssociation
from scp.accept.commitment import CommitmentService
from scp.accept.contexts import Acceptance
from scp.accept.door import Door
from scp.accept.ports import InstanceStore
from scp.accept.reader import BUFFER_BYTES, SMALL_BUFFER_BYTES
from scp.accept.seats import ALL, Seats, make_table
from scp.accept.statuses import Rejection
from scp.accept.upper_layer import quiet_pynetdicom
from scp.config.schema import AccessSection, LimitsSection, NodeSection

logger = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 1.0
"""How long nothing is accepted after the system had no descriptor or thread for a connection."""

YIELD_SECONDS: Final = 0.1
"""How long a full receiver leaves a connection to the others before it turns the peer away."""

GIVE_WAY_SECONDS: Final = 0.002
"""How long a receiver that has more than half of the associations leaves the next to the others."""

MOST_TURNED_AWAY: Final = 16
"""Peers that are being told at a time; more wait, or are told nothing."""

FEW: Final = 32
"""So many associations at a time have large buffers, the others small ones: 8 and 11 MiB of 200."""

ABORT_SECONDS: Final = 10.0
"""How long aborted associations are waited for: a commit under way, the peer's close."""

IDLE_SECONDS: Final = 2.0
"""When draining: a peer that begins nothing for so long keeps its association open for later."""

_BROKEN_SOCKET: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)


class Listener:
    """Turns connections into associations while it has capacity; several may share the sockets.

    Parameters
    ----------
    doors
        At least one.
    seats
        Shared with the other receivers; None: its own.
    is_alone
        There are no other receivers, to which it would give way.
    """

    def __init__(
        self,
        doors: Sequence[Door],
        store: InstanceStore,
        node: NodeSection,
        access: AccessSection,
        limits: LimitsSection,
        commitments: CommitmentService | None = None,
        seats: Seats | None = None,
        *,
        is_alone: bool = True,
    ) -> None:
        quiet_pynetdicom()
        for door in doors:
            door.socket.setblocking(False)
        self._doors = {door.socket.fileno(): door for door in doors}
        self._limits = limits
        self._service = Service(
            entity=ApplicationEntity(node.ae_title),
            store=store,
            access=AccessList(access, limits),
            acceptance=Acceptance(offers_commitment=commitments is not None),
            limits=limits,
            seats=seats or Seats(make_table(limits.max_associations)),
            commitments=commitments,
        )
        self._has_others = not is_alone
        self._numbers = itertools.count(1)
        self._open: set[StorageAssociation] = set()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._paused_until = 0.0
        self._turning_away = 0
        self._full_since: float | None = None
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)

    @property
    def open_associations(self) -> int:
        """Connections that have a thread, but for those that are only told that they may not."""
        return len(self._open) - self._turning_away

    def serve(self, stop_descriptors: Sequence[int] = ()) -> None:
        """Accept until :meth:`stop`, or until one of the descriptors becomes readable."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            for descriptor in stop_descriptors:
                selector.register(descriptor, selectors.EVENT_READ)
            is_listening = False
            while True:
                wait = self._wait_before_listening()
                should_listen = wait == 0
                for descriptor in self._doors:
                    if should_listen and not is_listening:
                        selector.register(descriptor, selectors.EVENT_READ)
                    elif is_listening and not should_listen:
                        selector.unregister(descriptor)
                is_listening = should_listen
                ready = {key.fd for key, _ in selector.select(None if wait == 0 else wait)}
                if self._wake.fileno() in ready:
                    self._wake.recv(4096)
                if self._is_stopping or not ready.isdisjoint(stop_descriptors):
                    return
                for descriptor in ready.intersection(self._doors):
                    self._accept(self._doors[descriptor])

    def _wait_before_listening(self) -> float | None:
        """0: listen now. Else for so many seconds not; None: until an association ends."""
        now = time.monotonic()
        if not self._is_full():
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        if now < self._paused_until:
            return self._paused_until - now
        if self._full_since is None:
            return 0
        if self._turning_away >= MOST_TURNED_AWAY:
            return None
        return max(self._full_since + self._limits.busy_seconds - now, 0)

    def stop(self) -> None:
        """Make :meth:`serve` return; from any thread or a signal handler."""
        self._is_stopping = True
        self._wake_up()

    def drain(self, deadline_seconds: float) -> int:
        """Close the ports, let open associations finish, abort those that idle, and in the end the rest.

        For when :meth:`serve` has returned. An instance that is being committed is still answered.

        Returns
        -------
        int
            How many had to be aborted.
        """
        for door in self._doors.values():
            door.socket.close()
        self._wake.close()
        self._waker.close()
        deadline = time.monotonic() + deadline_seconds
        stopped: set[StorageAssociation] = set()
        while (left := deadline - time.monotonic()) > 0:
            if self._await_end(min(left, IDLE_SECONDS / 4)):
                return len(stopped)
            stopped |= self._stop_those(lambda one: one.idle_seconds >= IDLE_SECONDS)
        stopped |= self._stop_those(lambda _: True)
        if not self._await_end(ABORT_SECONDS):
            logger.error("%d associations did not end", len(self._open))
        return len(stopped)

    def _stop_those(
        self, is_meant: Callable[[StorageAssociation], bool]
    ) -> set[StorageAssociation]:
        with self._changed:
            found = {association for association in self._open if is_meant(association)}
        for association in found:
            association.stop()
        return found

    def _await_end(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    def _accept(self, door: Door) -> None:
        """Take one connection if there is one."""
        is_full = self._is_full()
        if is_full:
            if self._full_since is None:
                return  # filled in this very turn: others wait
            time.sleep(YIELD_SECONDS)
            is_full = self._is_full()
        elif 2 * self.open_associations > self._service.seats.taken(ALL) + 1 and self._has_others:
            time.sleep(GIVE_WAY_SECONDS)
        try:
            connection, address = door.socket.accept()
        except (BlockingIOError, ConnectionError):
            return  # another receiver was faster, or the peer has gone
        except OSError as error:
            if error.errno in _BROKEN_SOCKET:
                raise
            logger.error("cannot accept a connection: %s", error.strerror)
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            return
        try:
            self._start(door, connection, address, is_full=is_full)
        except (OSError, RuntimeError, ValueError) as error:
            logger.error("cannot serve a connection: %s", error)
            connection.close()
            self._paused_until = time.monotonic() + PAUSE_SECONDS

    def _is_full(self) -> bool:
        return self._service.seats.taken(ALL) >= self._limits.max_associations

    def _sit_down(self, address: str) -> bool:
        """Take the seats of one association; False: one of them is not to be had."""
        seats, most = self._service.seats, self._limits.max_associations_per_address
        if not seats.take(ALL, self._limits.max_associations):
            return False
        if not seats.take(address, most):
            seats.leave(ALL)
            return False
        return True

    def _stand_up(self, address: str) -> None:
        """Give back what :meth:`_sit_down` took."""
        self._service.seats.leave(address)
        self._service.seats.leave(ALL)

    def _start(
        self, door: Door, connection: socket.socket, address: tuple[str, int], *, is_full: bool
    ) -> None:
        is_welcome = not is_full and self._sit_down(plain_address(address[0]))
        if not is_welcome and self._turning_away >= MOST_TURNED_AWAY:
            logger.warning("too many connections from %s, one is closed", address[0])
            connection.close()
            return
        try:
            association = StorageAssociation(
                self._service,
                door,
                connection,
                (address[0], address[1]),
                self._forget,
                buffer_bytes=BUFFER_BYTES if len(self._open) < FEW else SMALL_BUFFER_BYTES,
                turned_away=None if is_welcome else Rejection.LOCAL_LIMIT,
            )
        except Exception:  # no memory for its buffer, or something that nobody thought of
            if is_welcome:
                self._stand_up(plain_address(address[0]))
            raise
        association.name = f"association-{next(self._numbers)}"
        with self._changed:
            self._open.add(association)
            self._turning_away += not is_welcome
        try:
            association.start()
        except RuntimeError:  # no more threads
            self._forget(association)
            raise

    def _forget(self, association: StorageAssociation) -> None:
        is_welcome = association.turned_away is None
        if is_welcome:
            self._stand_up(association.peer_address)
        with self._changed:
            self._open.discard(association)
            self._turning_away -= not is_welcome
            self._changed.notify_all()
        self._wake_up()

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: nobody serves
            self._waker.send(b"x")
