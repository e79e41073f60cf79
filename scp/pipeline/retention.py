"""Old rows leave the ledger, a few at a time."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from scp.errors import LedgerError
from scp.ledger.ports import Ledger
from scp.pipeline.threads import Chores, Later

logger = logging.getLogger(__name__)

_ROWS_A_STEP = 1000
"""Some 20 ms on SQLite; jobs to record wait for no more than one step."""
_BETWEEN_STEPS_SECONDS = 0.2
"""While there is more: up to 5,000 rows a second leave, which is more than ever come."""
_BETWEEN_LOOKS_SECONDS = 3600.0


class Retention:
    """Deletes what is older than ``keep_seconds``. On the coordinator's thread; the work is a chore."""

    def __init__(
        self,
        ledger: Ledger,
        keep_seconds: float | None,
        chores: Chores,
        later: Later,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._keep_seconds = keep_seconds
        self._chores = chores
        self._later = later
        self._wall = wall
        self._forgotten = 0

    def begin(self) -> None:
        """Look now, and from now on every hour; nothing happens where everything is kept."""
        if self._keep_seconds is None:
            return
        now = datetime.fromtimestamp(self._wall(), UTC)
        before = now - timedelta(seconds=self._keep_seconds)
        self._chores.do(
            lambda: self._ledger.forget(before, _ROWS_A_STEP), self._went_on, self._not_now
        )

    def _went_on(self, forgotten: int) -> None:
        self._forgotten += forgotten
        if forgotten == _ROWS_A_STEP:
            self._later(_BETWEEN_STEPS_SECONDS, self.begin)
            return
        if self._forgotten:
            logger.info("%d old rows have left the ledger", self._forgotten)
            self._forgotten = 0
        self._later(_BETWEEN_LOOKS_SECONDS, self.begin)

    def _not_now(self, error: Exception) -> None:
        if not isinstance(error, LedgerError):
            logger.error("old rows cannot leave the ledger", exc_info=error)
        self._later(_BETWEEN_LOOKS_SECONDS, self.begin)
