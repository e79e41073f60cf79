"""What the control socket answers, done on the folders while the node is down."""

import contextlib
import os
import threading
import time

from scp.buffer.jobs import JobFolders, instances_in
from scp.buffer.layout import Layout, lock_data
from scp.buffer.originals import OriginalFolders
from scp.config.schema import Config
from scp.durable import Disk
from scp.errors import NodeError
from scp.ledger.nodes import node_name
from scp.ledger.open import open_for_writing
from scp.ledger.ports import Ledger
from scp.pipeline.accounts import Accounts
from scp.pipeline.commitment_asks import vouching_destinations
from scp.pipeline.control import Reply, Request
from scp.pipeline.dispatch import Dispatch
from scp.pipeline.originals import Originals
from scp.pipeline.recorder import Recorder
from scp.pipeline.requests import Requests
from scp.pipeline.threads import Chores, Inbox
from scp.pipeline.trusted_clock import TrustedClock

_LOCK_SECONDS = 2.0
_STOP_SECONDS = 60.0


def answer_offline(config: Config, layout: Layout, request: Request) -> Reply:
    """Do it under the lock of the data folder.

    The answer to ``retry`` says too what was ``released``: nothing is tried without a node.

    Raises
    ------
    NodeError
        It cannot be done, or a node has the folder.
    """
    disk = Disk()
    layout.make(disk)
    with contextlib.ExitStack() as ends:
        ends.callback(os.close, lock_data(layout, _LOCK_SECONDS))
        name = node_name(config.ledger, layout.node_name, config.node.ae_title, disk)
        ledger = open_for_writing(config.ledger, layout.ledger, disk, name)
        ends.callback(ledger.close)
        inbox = Inbox()
        chores = Chores(inbox)
        ends.callback(chores.stop, _STOP_SECONDS)
        return _answer(config, layout, disk, ledger, inbox, chores, request)


def _answer(
    config: Config,
    layout: Layout,
    disk: Disk,
    ledger: Ledger,
    inbox: Inbox,
    chores: Chores,
    request: Request,
) -> Reply:
    folders = JobFolders(layout, disk)
    accounts = Accounts(ledger, config.series.resend_window_seconds)
    failures: list[str] = []
    kept = OriginalFolders(layout, disk)
    clock = TrustedClock(layout.noted_time, disk)
    originals = Originals(config, kept, clock, chores, lambda _, __: None)
    originals.count()
    recorder = Recorder(
        ledger,
        folders,
        disk,
        accounts,
        originals,
        chores,
        lambda _, __: failures.append("not recorded"),
    )
    dispatch = Dispatch(None, folders, disk, accounts, recorder, lambda _, __: None)
    dispatch.vouching = frozenset(vouching_destinations(config))
    dispatch.recover_held()
    uncommitted = sum(
        len(instances_in(folder))
        for folder in (
            *(layout.growing / series for series in folders.growing()),
            *(folders.source(job) for job in dispatch.recover_jobs()),
        )
    )
    details: Reply = {
        "running": False,
        "destinations": {},
        "series": [],
        "ledger": {
            "problem": "" if accounts.is_loaded else "the ledger cannot be reached",
            "jobs_waiting": 0,
            "is_known": accounts.is_loaded,
        },
    }
    requests = Requests(config, accounts, dispatch, originals, lambda: uncommitted, lambda: details)
    needed_a_person = {*dispatch.held, *dispatch.unreadable}
    needed_a_person |= {job for job, live in dispatch.live.items() if live.needs_a_person}
    answer = requests.handle(request)
    if request.get("command") == "retry":
        needed_a_person -= dispatch.unreadable.keys()
        answer["released"] = [job for job in answer["jobs"] if job in needed_a_person]
    finished = threading.Event()
    chores.do(lambda: None, lambda _: finished.set(), lambda _: finished.set())
    while not finished.is_set():
        inbox.run_posted()
        time.sleep(0.005)
    if recorder.left_behind:
        raise NodeError("it is recorded, and the next start clears it away; the log says why")
    if failures and request.get("command") == "discard":
        raise NodeError(
            "the job is given up, but the ledger did not take that: the next start of the node "
            "records it; the log above says why"
        )
    return answer
