"""One instance on its way from the association to the store."""

import logging
from collections.abc import Callable

from scp.accept.ports import IncomingInstance, InstanceStore
from scp.accept.statuses import StoreStatus, status_for
from scp.errors import ScpError, StorageFullError
from scp.model import StoreRequest

logger = logging.getLogger(__name__)


class Reception:
    """Takes the data of one C-STORE to its end, whatever the store says of it.

    Once the store has refused, the rest is counted and dropped: the sender learns the status only
    when it has sent everything (PS3.7 9.3.1).
    """

    def __init__(self, store: InstanceStore, request: StoreRequest, max_bytes: int) -> None:
        self._store = store
        self._request = request
        self._max_bytes = max_bytes
        self._incoming: IncomingInstance | None = None
        self._committed: IncomingInstance | None = None
        self._status = StoreStatus.SUCCESS
        self.received_bytes = 0
        self._attempt(self._begin)

    @property
    def may_gather(self) -> bool:
        """Whether bytes may wait until there are many."""
        return self._incoming is None or self._incoming.may_gather

    def write(self, *pieces: memoryview) -> None:
        """Take the next bytes of the dataset; never raises because of the store."""
        self._count(pieces)
        if self._incoming is not None:
            self._attempt(self._incoming.write, *pieces)

    def finish(self, *pieces: memoryview) -> StoreStatus:
        """Take the last bytes and commit, unless the store has refused; then the status may be sent."""
        self._count(pieces)
        if self._incoming is not None:
            self._attempt(self._incoming.commit, *pieces)
            self._committed, self._incoming = self._incoming, None
        logger.debug("answered %04X to %d bytes", self._status, self.received_bytes)
        return self._status

    def tidy(self) -> None:
        """Have the store do what the sender need not wait for; after the answer."""
        if self._committed is not None:
            self._committed.tidy()
            self._committed = None

    def abandon(self) -> None:
        """Forget what was not committed."""
        if self._incoming is not None:
            self._incoming.abandon()
            self._incoming = None

    def _count(self, pieces: tuple[memoryview, ...]) -> None:
        self.received_bytes += sum(map(len, pieces))
        if self.received_bytes > self._max_bytes and self._incoming is not None:
            self._fail(StorageFullError(f"an instance of more than {self._max_bytes} bytes"))

    def _begin(self) -> None:
        self._incoming = self._store.begin(self._request)

    def _attempt[**P](self, action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            action(*args, **kwargs)
        except ScpError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("the store failed in an unexpected way")
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._status = status_for(error)
        logger.warning(
            "instance refused with %04X: %s: %.200r",
            self._status,
            type(error).__name__,
            str(error),
        )
        self.abandon()
