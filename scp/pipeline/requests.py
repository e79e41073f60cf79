"""What the control socket understands, and the same on the folders when the node is down."""

import threading
import time
from collections.abc import Callable

from scp.buffer.jobs import JobFolders, instances_in
from scp.buffer.layout import Layout, is_locked, lock_data
from scp.config.schema import Config
from scp.durable import Disk, free_bytes
from scp.errors import NodeError
from scp.ledger.sql import SqlLedger
from scp.pipeline.accounts import Accounts
from scp.pipeline.control import Reply, Request, ask
from scp.pipeline.dispatch import Dispatch
from scp.pipeline.threads import Chores, Inbox

_ANSWER_SECONDS = 20.0
_LOCK_SECONDS = 2.0


class Requests:
    """Answers for one coordinator, on its thread."""

    def __init__(
        self,
        config: Config,
        accounts: Accounts,
        dispatch: Dispatch,
        uncommitted: Callable[[], int],
        details: Callable[[], Reply],
    ) -> None:
        self._config = config
        self._accounts = accounts
        self._dispatch = dispatch
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
                job, reason = str(request["job"]), str(request["reason"])
                return {"instances": self._dispatch.discard(job, reason)}
        raise NodeError(f"the node does not know the command {request.get('command')!r}")

    def status(self) -> Reply:
        """Counters and what is going on; no UIDs, nothing of patients."""
        live = [*self._dispatch.live.values(), *self._dispatch.held.values()]
        counters = self._accounts.counters(self._uncommitted(), live)
        totals = self._accounts.totals
        node = self._config.node
        return {
            **counters.as_json(),
            "source_bytes": totals.source_bytes,
            "result_bytes": totals.result_bytes,
            "ae_title": node.ae_title,
            "port": node.port,
            "data": str(node.data),
            "free_bytes": free_bytes(node.data),
            "reserve_bytes": self._config.limits.reserve,
            "verify": self._config.codec.verify,
            **self._details(),
        }


def ask_node(config: Config, request: Request) -> Reply:
    """Ask the running node; without one, work on its folders under the lock.

    Raises
    ------
    NodeError
        It cannot be done, or there is no such folder.
    """
    layout = Layout(config.node.data)
    if not layout.data.is_dir():
        raise NodeError(f"no node has run on {layout.data} yet; start one with dcmpress serve")
    answer = ask(layout.control, request, _ANSWER_SECONDS)
    if answer is not None:
        return answer
    if is_locked(layout):
        # It holds the folder and does not answer: it starts, stops, or is being replaced.
        time.sleep(_LOCK_SECONDS)
        answer = ask(layout.control, request, _ANSWER_SECONDS)
        if answer is not None:
            return answer
    return _answer_offline(config, layout, request)


def _answer_offline(config: Config, layout: Layout, request: Request) -> Reply:
    disk = Disk()
    layout.make(disk)
    lock_data(layout, _LOCK_SECONDS)  # Held until this process ends.
    inbox = Inbox()
    chores = Chores(inbox)
    ledger = SqlLedger.open_for_writing(layout.ledger, disk)
    folders = JobFolders(layout, disk)
    accounts = Accounts(ledger, config.series.resend_window_seconds)
    dispatch = Dispatch(None, folders, disk, accounts, ledger, chores, lambda _, __: None)
    dispatch.recover_held()
    uncommitted = sum(
        len(instances_in(folder))
        for folder in (
            *(layout.growing / series for series in folders.growing()),
            *(folders.source(job) for job in dispatch.recover_jobs()),
        )
    )
    details: Reply = {"running": False, "destinations": {}, "series": []}
    requests = Requests(config, accounts, dispatch, lambda: uncommitted, lambda: details)
    answer = requests.handle(request)
    finished = threading.Event()
    chores.do(lambda: None, lambda _: finished.set(), lambda _: finished.set())
    while not finished.is_set():
        inbox.run_posted()
        time.sleep(0.005)
    ledger.close()
    return answer
