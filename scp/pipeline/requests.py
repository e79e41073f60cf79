"""What the control socket understands."""

import time
from collections.abc import Callable
from typing import Final

from scp.config.schema import Config
from scp.deliver.events import QueueSnapshot
from scp.durable import free_bytes
from scp.errors import NodeError
from scp.pipeline.accounts import Accounts
from scp.pipeline.control import Reply, Request
from scp.pipeline.dispatch import Dispatch
from scp.pipeline.originals import Originals

_LONG_SECONDS: Final = 30.0
"""So long an instance may be on its way before the status says that nobody has answered."""


class Requests:
    """Answers for one coordinator, on its thread."""

    def __init__(
        self,
        config: Config,
        accounts: Accounts,
        dispatch: Dispatch,
        originals: Originals,
        uncommitted: Callable[[], int],
        details: Callable[[], Reply],
    ) -> None:
        self._config = config
        self._accounts = accounts
        self._dispatch = dispatch
        self._originals = originals
        self._uncommitted = uncommitted
        self._details = details

    def handle(self, request: Request) -> Reply:
        """Answer one request.

        Raises
        ------
        NodeError
            It cannot be done; the message says why.
        """
        match request.get("command"):
            case "status":
                return self.status()
            case "held":
                return {"jobs": self._dispatch.held_jobs(request.get("job"))}
            case "retry":
                return {"jobs": self._dispatch.retry(request.get("jobs") or [])}
            case "discard":
                job, reason = str(request.get("job", "")), str(request.get("reason", ""))
                return {"instances": self._dispatch.discard(job, reason)}
        raise NodeError(f"the node does not know the command {request.get('command')!r}")

    def status(self) -> Reply:
        """Counters and what is going on; no UIDs, nothing of patients."""
        live = [*self._dispatch.live.values(), *self._dispatch.held.values()]
        unreadable = sum(self._dispatch.unreadable.values())
        counters = self._accounts.counters(self._uncommitted(), live, unreadable)
        totals = self._accounts.totals
        node = self._config.node
        return {
            **counters.as_json(),
            "conflicts": self._dispatch.conflicts,
            "source_bytes": totals.source_bytes,
            "result_bytes": totals.result_bytes,
            "originals": self._originals.describe(),
            "ae_title": node.ae_title,
            "port": node.port,
            "listeners": [
                {
                    "port": port.port,
                    "bind": port.bind,
                    "tls": port.tls is not None,
                    "ae_titles": list(port.ae_titles),
                }
                for port in self._config.ports
            ],
            "data": str(node.data),
            "free_bytes": free_bytes(node.data),
            "reserve_bytes": self._config.limits.reserve,
            "verify": self._config.codec.verify,
            "backend": self._config.codec.backend,
            **self._details(),
        }


def describe_queue(snapshot: QueueSnapshot) -> Reply:
    """A destination, for the status."""
    if snapshot.is_sending:
        silent = time.time() - (snapshot.silent_since or time.time())
        state = "sending" + (
            f", not answered for {silent:.0f} s" if silent >= _LONG_SECONDS else ""
        )
    elif snapshot.next_try is not None:
        why = f": {snapshot.last_error}" if snapshot.last_error else ""
        state = f"waits {max(0.0, snapshot.next_try - time.time()):.0f} s{why}"
    else:
        state = "idle"
    return {
        "pending": snapshot.pending,
        "jobs": snapshot.jobs,
        "state": state,
        "last_error": snapshot.last_error,
        "oldest": snapshot.oldest,
        "next_try": snapshot.next_try,
        "down_since": snapshot.down_since,
        "silent_since": snapshot.silent_since,
        "skipped": snapshot.skipped,
    }
