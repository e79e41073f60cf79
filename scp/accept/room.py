"""Memory for what cannot go to the disk piece by piece as it comes: bounded over all peers."""

import threading
import time
from collections.abc import Callable
from typing import Final

from scp.errors import StorageFullError

PATIENCE_SECONDS: Final = 5.0
"""Whoever has been at it for so long may have to give way to others."""


class Share:
    """What one operation holds; for its :class:`Room` to fill and to empty."""

    __slots__ = ("began", "data", "is_lost")

    def __init__(self, began: float) -> None:
        self.began = began
        self.data = bytearray()
        self.is_lost = False


class Room:
    """What all operations on their way in may hold together. Used by many threads.

    Where there is none left, whoever has been at it for longest gives way: a peer that stalls in the
    middle keeps nobody out for longer than :data:`PATIENCE_SECONDS`.
    """

    def __init__(self, most_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes = most_bytes
        self._now = now
        self.held_bytes = 0
        """Of all shares, at this moment."""
        self._coming: dict[Share, None] = {}
        """Those that are not complete, the oldest first."""
        self._lock = threading.Lock()

    def begin(self) -> Share:
        """A share without anything in it."""
        share = Share(self._now())
        with self._lock:
            self._coming[share] = None
        return share

    def add(self, share: Share, *pieces: bytes | bytearray | memoryview) -> None:
        """Keep the next bytes.

        Raises
        ------
        StorageFullError
            Others hold what there is, or the share was lost to them.
        """
        count = sum(map(len, pieces))
        with self._lock:
            self._check(share)
            self._make_room(count, share)
            self.held_bytes += count
            for piece in pieces:
                share.data += piece

    def complete(self, share: Share) -> bytearray:
        """All of its bytes, which nobody takes away any more; held until :meth:`free`.

        Raises
        ------
        StorageFullError
            The share was lost to others.
        """
        with self._lock:
            self._check(share)
            self._coming.pop(share, None)
            return share.data

    def free(self, share: Share) -> None:
        """Forget what it holds; may be called again."""
        with self._lock:
            self._empty(share)

    def _check(self, share: Share) -> None:
        if share.is_lost:
            raise StorageFullError("it took too long, and others needed the room that it held")

    def _make_room(self, count: int, asking: Share) -> None:
        latest = self._now() - PATIENCE_SECONDS
        for share in list(self._coming):
            if self.held_bytes + count <= self._most_bytes or share.began > latest:
                break
            if share is not asking and share.data:
                share.is_lost = True
                self._empty(share)
        if self.held_bytes + count > self._most_bytes:
            raise StorageFullError("other operations on their way in hold what there is")

    def _empty(self, share: Share) -> None:
        self._coming.pop(share, None)
        self.held_bytes -= len(share.data)
        share.data = bytearray()
