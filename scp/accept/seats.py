"""Counts associations where their number is limited, over all receivers of a node."""

import fcntl
import hashlib
import mmap
import os
import threading
from typing import Final

ALL: Final = ""
"""What every association takes a seat of."""

HALL: Final = 200
"""Connections of a receiver without a seat: they have not asked for an association yet, wait for a seat,
or are told that they get none. More wait to be accepted."""

_SEATS_EACH: Final = 3
"""That one association takes: of all, of its address, of its entry in the list of peers."""
_OF_BYTES: Final = 16
_FREE: Final = 0


def make_table(max_associations: int) -> int:
    """A table in memory that processes share by inheriting its descriptor."""
    descriptor = os.memfd_create("seats")
    os.ftruncate(descriptor, max_associations * _SEATS_EACH * (1 + _OF_BYTES))
    return descriptor


class Seats:
    """How many are taken, by what limits them: an address, an entry of the list of peers.

    Used by all threads of a receiver. A table has an owner's number a seat, and then what each is a
    seat of, as a digest; a lock of the system guards it, which a process that is killed gives back.

    Parameters
    ----------
    table
        Of :func:`make_table`.
    owner
        The receiver's own number, 1 to 255.
    """

    def __init__(self, table: int, owner: int = 1) -> None:
        self._descriptor = table
        self._owner = owner
        size = os.fstat(table).st_size
        self._count = size // (1 + _OF_BYTES)
        self._table = mmap.mmap(table, size)
        self._lock = threading.Lock()

    def take(self, of: str, most: int | None) -> bool:
        """Take one more, unless that would be more than ``most``."""
        with self._lock, _Alone(self._descriptor):
            if most is not None and self._taken(of) >= most:
                return False
            seat = self._table.find(bytes([_FREE]), 0, self._count)
            if seat < 0:
                return False
            self._put(seat, self._owner, _digest(of))
            return True

    def leave(self, of: str) -> None:
        """Give one back that this receiver took."""
        with self._lock, _Alone(self._descriptor):
            place = self._table.find(_digest(of), self._count)
            while place >= 0:
                seat, rest = divmod(place - self._count, _OF_BYTES)
                if not rest and self._table[seat] == self._owner:
                    self._put(seat, _FREE, bytes(_OF_BYTES))
                    return
                place = self._table.find(_digest(of), place + 1)

    def leave_all(self, owner: int) -> None:
        """Give back what a receiver had that is dead."""
        with self._lock, _Alone(self._descriptor):
            for seat in range(self._count):
                if self._table[seat] == owner:
                    self._put(seat, _FREE, bytes(_OF_BYTES))

    def taken(self, of: str) -> int:
        """How many there are at this moment."""
        with self._lock, _Alone(self._descriptor):
            return self._taken(of)

    def _taken(self, of: str) -> int:
        return self._table[self._count :].count(_digest(of))

    def _put(self, seat: int, owner: int, of: bytes) -> None:
        start = self._count + seat * _OF_BYTES
        self._table[start : start + _OF_BYTES] = of
        self._table[seat] = owner


class _Alone:
    """A lock between processes; between threads it does nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


def _digest(of: str) -> bytes:
    return hashlib.blake2b(of.encode(), digest_size=_OF_BYTES).digest()
