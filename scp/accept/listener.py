"""Accepts connections on sockets that someone else has bound."""

import contextlib
import errno
import itertools
import logging
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final

from pynetdicom.ae import ApplicationEntity

from scp.accept.access import AccessList
from scp.accept.association import Service, StorageAssociation
from scp.accept.commitment import CommitmentService
from scp.accept.contexts import Acceptance
from scp.accept.door import Door
from scp.accept.ports import InstanceStore
from scp.accept.reader import BUFFER_BYTES, SMALL_BUFFER_BYTES
from scp.accept.request import Answers
from scp.accept.seats import ALL, HALL, Seats, make_table
from scp.accept.upper_layer import quiet_pynetdicom
from scp.config.schema import AccessSection, LimitsSection, NodeSection

logger = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 1.0
"""How long nothing is accepted after the system had no descriptor or thread for a connection."""

GIVE_WAY_SECONDS: Final = 0.002
"""How long a receiver that has more than half of the associations leaves the next to the others."""

GRACE_SECONDS: Final = 1.0
"""How long one in a full hall may say nothing before it makes room for the next; strangers may not."""

LOOK_SECONDS: Final = 0.05
"""Until it is looked again for one that makes room."""

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
            answers=Answers(Acceptance(offers_commitment=commitments is not None).answer),
            limits=limits,
            seats=seats or Seats(make_table(limits.max_associations)),
            commitments=commitments,
        )
        self._has_others = not is_alone
        self._numbers = itertools.count(1)
        self._open: set[StorageAssociation] = set()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._hall: set[StorageAssociation] = set()
        self._is_hall_full = False
        self._paused_until = 0.0
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)

    @property
    def open_associations(self) -> int:
        """Those that have a seat."""
        return len(self._open) - len(self._hall)

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
        """0: listen now. Else for so many seconds not; None: until somebody leaves the hall."""
        now = time.monotonic()
        if now < self._paused_until:
            return self._paused_until - now
        with self._changed:
            hall = tuple(self._hall)
            self._is_hall_full = len(hall) >= HALL
        return self._make_room(hall) if self._is_hall_full else 0

    def _make_room(self, hall: Collection[StorageAssociation]) -> float | None:
        """Have one leave that asks for nothing; returns as :meth:`_wait_before_listening`.

        Strangers go first, then whoever has come from where most have: a crowd of them must not keep
        others out, and who has something to say says it at once.
        """
        if any(each.is_leaving for each in hall):
            return None
        crowds = Counter(each.peer_address for each in hall)

        def claim(each: StorageAssociation) -> tuple[bool, int, float]:
            return not self._is_stranger(each), -crowds[each.peer_address], -each.open_seconds

        for each in sorted(hall, key=claim):
            if not each.is_silent:
                continue
            grace = 0.0 if self._is_stranger(each) else GRACE_SECONDS
            if each.open_seconds < grace:
                return grace - each.open_seconds
            each.leave()
            return None
        return LOOK_SECONDS

    def _is_stranger(self, association: StorageAssociation) -> bool:
        return not self._service.access.may_come_from(association.peer_address)

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
        if self._has_others and self._has_more_than_half:
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
            self._start(door, connection, address)
        except (OSError, RuntimeError, ValueError) as error:
            logger.error("cannot serve a connection: %s", error)
            connection.close()
            self._paused_until = time.monotonic() + PAUSE_SECONDS

    @property
    def _has_more_than_half(self) -> bool:
        seated = self._service.seats.taken(ALL)
        return 2 * len(self._open) > seated + len(self._hall) + 1

    def _start(self, door: Door, connection: socket.socket, address: tuple[str, int]) -> None:
        association = StorageAssociation(
            self._service,
            door,
            connection,
            (address[0], address[1]),
            self._seat,
            self._forget,
            buffer_bytes=BUFFER_BYTES if len(self._open) < FEW else SMALL_BUFFER_BYTES,
        )
        association.name = f"association-{next(self._numbers)}"
        with self._changed:
            self._open.add(association)
            self._hall.add(association)
        try:
            association.start()
        except RuntimeError:  # no more threads
            self._forget(association)
            raise

    def _seat(self, association: StorageAssociation) -> None:
        with self._changed:
            self._hall.discard(association)
        if self._is_hall_full:
            self._wake_up()

    def _forget(self, association: StorageAssociation) -> None:
        with self._changed:
            self._open.discard(association)
            self._hall.discard(association)
            self._changed.notify_all()
        if self._is_hall_full:
            self._wake_up()

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: nobody serves
            self._waker.send(b"x")
