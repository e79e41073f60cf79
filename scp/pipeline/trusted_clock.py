"""A wall clock for promises that last for weeks, on machines whose clocks are set now and then."""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scp.durable import Disk
from scp.errors import StorageFullError

logger = logging.getLogger(__name__)

SLACK_SECONDS: Final = 3600.0
"""So far from what was to be expected the clock may be and still be believed: restarts, corrections."""
DOUBT_SECONDS: Final = 86400.0
"""After so long of running with it a clock is believed that was set further."""
_KEEP_SECONDS: Final = 600.0
"""Between two notes of what time it was."""


class TrustedClock:
    """Tells times to promise by, which are late rather than early, and times to act on a promise.

    For any thread.

    What time it is follows from the time that was noted last, in ``file``, and from how long the node
    has run since. The machine's clock corrects that at once where it is near, and else after a day,
    in which a person may mend it; until then both have to agree that a time has come.
    """

    def __init__(
        self,
        file: Path,
        disk: Disk,
        *,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._disk = disk
        self._wall = wall
        self._now = now
        self._at = now()
        self._believed = self._noted_last() or wall()
        self._doubted_since: float | None = None
        self._noted_at = float("-inf")
        self._lock = threading.Lock()

    def to_promise(self) -> float:
        """Seconds since the epoch (UTC): it is not later than that."""
        with self._lock:
            return max(self._go_on(), self._believed)

    def to_act(self) -> float:
        """Seconds since the epoch (UTC): it is not earlier than that."""
        with self._lock:
            return min(self._go_on(), self._believed)

    def note(self) -> None:
        """Let a restart know what time it was, where that was not written down lately."""
        with self._lock:
            self._go_on()
            if self._at - self._noted_at < _KEEP_SECONDS:
                return
            self._noted_at = self._at
            content = {"believed": self._believed}
        try:
            self._disk.publish(self._file, json.dumps(content).encode())
        except (OSError, StorageFullError) as error:
            logger.warning("the time cannot be noted: %s", error)

    def _go_on(self) -> float:
        """Let time pass; returns what the machine's clock says."""
        now, wall = self._now(), self._wall()
        self._believed += now - self._at
        self._at = now
        if abs(wall - self._believed) <= SLACK_SECONDS:
            self._doubted_since = None
            self._believed = wall
        elif self._doubted_since is None:
            self._doubted_since = now
            logger.warning(
                "the clock is %.0f hours ahead of what the node has counted: it was down, or the "
                "clock was set; no original is deleted for that before a day has passed",
                (wall - self._believed) / 3600,
            )
        elif now - self._doubted_since >= DOUBT_SECONDS:
            logger.warning("the clock is believed again")
            self._doubted_since = None
            self._believed = wall
        return wall

    def _noted_last(self) -> float:
        try:
            return float(json.loads(self._file.read_bytes())["believed"])
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError, LookupError, TypeError) as error:
            logger.warning("the time that was noted last cannot be read: %s", error)
            return 0.0
