"""Counts associations where their number is limited."""

import threading
from collections import Counter


class Seats:
    """How many are taken, by what limits them: an address, an entry of the list of peers.

    Used by all threads of a receiver.
    """

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, of: str, most: int | None) -> bool:
        """Take one more, unless that would be more than ``most``."""
        with self._lock:
            if most is not None and self._taken[of] >= most:
                return False
            self._taken[of] += 1
            return True

    def leave(self, of: str) -> None:
        """Give one back."""
        with self._lock:
            self._taken[of] -= 1
            if not self._taken[of]:
                del self._taken[of]

    def __len__(self) -> int:
        """How many addresses and entries have some taken."""
        with self._lock:
            return len(self._taken)
