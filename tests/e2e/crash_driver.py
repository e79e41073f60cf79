"""Runs the stages between a C-STORE and the ledger in processes that die at one call of the disk.

    python -m tests.e2e.crash_driver CONFIG SOURCES before|after

SOURCES has a folder of DICOM files for each death, which is a kill -9 right before the call. The next
process recovers what the last one left, sends again what was not acknowledged, as a peer would, and
dies in turn; the last one lives. Which calls there are is found out by one process that does not die;
those before the commit of a job, or those after it, are gone through. The output is a line of JSON for
each process: where it was to die, and how it ended.
"""

import ctypes
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from scp.buffer.jobs import sweep
from scp.buffer.layout import Layout, lock_data
from scp.buffer.store import SpoolStore
from scp.choose.rules import RuleSet
from scp.config.load import load
from scp.config.schema import Config
from scp.deliver.dicomfile import read_meta
from scp.deliver.ports import Receipt
from scp.deliver.send import item_of
from scp.model import Origin, StoreRequest
from scp.pipeline.control import ask
from scp.pipeline.coordinator import Coordinator
from scp.pipeline.notices import NoticeSender, notice_pair
from scp.pipeline.processes import Orders
from tests.buffer.recorder import HookedDisk

_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1  # prctl(2)
_KEPT = re.compile(r"[a-z_]{3,}(-[a-z]+)?(\.json)?")
_ORIGIN = Origin(calling_ae_title="CT1", called_ae_title="DCMPRESS", peer_address="127.0.0.1")

RECEIVING = ("data/spool/incoming", "data/spool/growing")
"""Calls under these happen before the acknowledgement; that needs no more than a receiver."""


def changes_something(where: str) -> bool:
    """A death before a sync leaves what one before the next call leaves: the kernel lives on.

    But for the last sync of receipts, which the commit of the ledger follows.
    """
    operation, path = where.split()
    return path != "archive" and (not operation.startswith("sync") or "receipts" in path)


def comes_after_commit(where: str) -> bool:
    return any(name in where for name in ("archive", "receipts", "originals", "trash"))


class Rehearsal:
    """Counts calls by what they are; at the one it was told, the process is killed."""

    def __init__(self, base: Path, deadly: str, number: int) -> None:
        self._base = base
        self._deadly, self._number = deadly, number
        self._lock = threading.Lock()
        self.is_armed = False
        self.calls: Counter[str] = Counter()

    def __call__(self, operation: str, path: Path) -> None:
        # The time is noted now and then, whatever is delivered: no instance's way leads there.
        if not self.is_armed or "clock.json" in path.name:
            return
        with self._lock:
            name = f"{operation} {_shape(path.relative_to(self._base))}"
            self.calls[name] += 1
            if name == self._deadly and self.calls[name] == self._number:
                os.kill(os.getpid(), signal.SIGKILL)


def _shape(path: Path) -> str:
    """The path without what differs from run to run: jobs, UIDs, temporary names."""
    parts = []
    for part in path.parts:
        hidden = re.match(r"\.(job\.json|dcmpress|named)", part)
        if hidden:
            parts.append(f".{hidden[1]}")
        else:
            ending = Path(part).suffix if part.endswith((".dcm", ".part")) else ""
            parts.append(part if _KEPT.fullmatch(part) else f"*{ending}")
    return "/".join(parts) or "."


class Node:
    """One process's life."""

    def __init__(self, config: Config, base: Path, rehearsal: Rehearsal) -> None:
        self._config = config
        self._layout = Layout(config.node.data)
        self._acknowledged = base / "acknowledged"
        self._rehearsal = rehearsal
        self._disk = HookedDisk(rehearsal)
        self._rules = RuleSet(config.rules, config.default).identity
        self._layout.make(self._disk)
        self._lock = lock_data(self._layout, _SECONDS)
        receivers = [each.name for each in self._layout.incoming.iterdir()]
        sweep(self._layout, self._disk, receivers=receivers)
        self._ours, self._theirs = notice_pair()
        self._store = SpoolStore(
            self._layout,
            "r0",
            self._disk,
            NoticeSender(self._ours, "r0"),
            reserve_bytes=0,
            rules=self._rules,
        )

    def receive(self, before: Iterable[Path], folder: Path) -> None:
        """Only receive: what is left of ``before`` in peace, then ``folder``."""
        for each in before:
            self._send(each)
        self._rehearsal.is_armed = True
        self._send(folder)

    def run(self, before: Iterable[Path], folder: Path | None) -> None:
        """Recover, have everything of ``before`` delivered in peace, then all of ``folder``."""
        _, ready = os.pipe()
        orders = Orders(
            config=self._config,
            rules=self._rules,
            name="coordinator",
            parent=os.getppid(),
            log_format="console",
            log_level="INFO",
            lock=self._lock,
            sockets=(ready, self._theirs.detach()),
        )
        coordinator = Coordinator(orders, self._disk)
        threading.Thread(target=self._feed, args=(list(before), folder), daemon=True).start()
        coordinator.run(ready)

    def _feed(self, before: list[Path], folder: Path | None) -> None:
        _until(lambda: ask(self._layout.control, {"command": "status"}) is not None)
        for each in before:
            self._send(each)
        _until(self._is_idle)
        if folder is not None:
            self._rehearsal.is_armed = True
            self._send(folder)
            _until(self._is_idle)
        os.kill(os.getpid(), signal.SIGTERM)

    def _is_idle(self) -> bool:
        status = ask(self._layout.control, {"command": "status"})
        if status is None:
            return False
        left = [*self._layout.jobs.iterdir(), *self._layout.trash.iterdir()]
        return status["pending"] == 0 and not left

    def _send(self, folder: Path) -> None:
        """What a peer does: every file that was not acknowledged yet."""
        known = set()
        if self._acknowledged.exists():
            known = set(self._acknowledged.read_text().split())
        for path in sorted(folder.iterdir()):
            if path.stem not in known:
                self._store_one(path)
                with self._acknowledged.open("a") as log:
                    log.write(f"{path.stem}\n")

    def _store_one(self, path: Path) -> None:
        item = item_of(path)
        assert not isinstance(item, Receipt)
        with path.open("rb") as file:
            start = read_meta(file.fileno()).dataset_start
        request = StoreRequest(
            origin=_ORIGIN,
            sop_class_uid=item.identity.sop_class_uid,
            sop_instance_uid=item.identity.sop_instance_uid,
            transfer_syntax=item.transfer_syntax,
        )
        incoming = self._store.begin(request)
        incoming.write(path.read_bytes()[start:])
        incoming.commit()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > deadline:
            os._exit(70)
        time.sleep(0.01)


def _in_a_process(work: Callable[[], None]) -> str:
    """How a process ended that did ``work``."""
    child = os.fork()
    if not child:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            work()
        except BaseException:
            logging.exception("a process of the node failed")
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return "killed" if code == -signal.SIGKILL else f"exit {code}"


def main(config_file: Path, sources: Path, part: str) -> None:
    logging.basicConfig(level=logging.INFO)
    config = load(config_file)
    base = config_file.parent
    folders = iter(sorted(sources.iterdir()))
    before: list[Path] = []

    def say(where: str, how: str) -> None:
        print(json.dumps({"where": where, "ended": how}), flush=True)

    def node(where: str = "", number: int = 1) -> tuple[Node, Rehearsal]:
        rehearsal = Rehearsal(base, where, number)
        return Node(config, base, rehearsal), rehearsal

    def watched(folder: Path) -> None:
        running, rehearsal = node()
        try:
            running.run((), folder)
        finally:
            (base / "calls").write_text(json.dumps(rehearsal.calls))

    def died(where: str, number: int) -> bool:
        folder = next(folders)

        def live() -> None:
            running, _ = node(where, number)
            is_receiving = where.split()[1].startswith(RECEIVING)
            (running.receive if is_receiving else running.run)(before, folder)

        ended = _in_a_process(live)
        say(where, ended)
        before.append(folder)
        return ended == "killed"

    first = next(folders)
    say("", _in_a_process(lambda: watched(first)))
    before.append(first)
    calls: dict[str, int] = json.loads((base / "calls").read_text())
    for where in sorted(filter(changes_something, calls)):
        # The second time, where there is one: in the middle, with one done and one not. Two threads
        # write the folder, so what came twice may come once in another life.
        if comes_after_commit(where) == (part == "after") and not died(where, min(calls[where], 2)):
            died(where, 1)

    say("", _in_a_process(lambda: node()[0].run(before, None)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
