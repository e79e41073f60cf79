"""A PACS of pynetdicom that takes instances and vouches for them, or not, as a test says."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.events import Event
from pynetdicom.presentation import AllStoragePresentationContexts, build_role

from scp.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE

CT = "1.2.840.10008.5.1.4.1.1.2"


class VouchingPacs:
    """Takes instances, and requests for storage commitment, which it answers as it is told.

    ``takes_not`` gives the UIDs that it answers with A900 when they are stored, ``refuses`` those that a
    report names as failed, ``forgets`` those that it does not name;
    ``reports`` is how it reports: ``anew`` on an association of its own, ``here`` on the one that asked,
    or ``never``; ``status`` is its answer to the request.
    """

    def __init__(self) -> None:
        self.takes_not: set[str] = set()
        self.refuses: set[str] = set()
        self.forgets: set[str] = set()
        self.status = 0x0000
        self.reports = "anew"
        self.node_port = 0
        self.stored: list[str] = []
        self.asked: queue.Queue[Dataset] = queue.Queue()
        self.statuses: queue.Queue[int] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._server: Any = None
        self.port = 0

    def start(self) -> None:
        entity = ApplicationEntity("PACS")
        for context in AllStoragePresentationContexts:
            assert context.abstract_syntax is not None
            entity.add_supported_context(context.abstract_syntax)
        entity.add_supported_context(CT, ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.202"])
        entity.add_supported_context(PUSH_MODEL)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        self._server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=handlers
        )
        self.port = self._server.socket.getsockname()[1]

    def close(self) -> None:
        for thread in self._threads:
            thread.join(30)
        self._server.shutdown()

    def _store(self, event: Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]
        if uid in self.takes_not:
            return 0xA900
        self.stored.append(uid)
        return 0x0000

    def _action(self, event: Event) -> tuple[int, None]:
        asked = event.action_information
        self.asked.put(asked)
        if self.status:
            return self.status, None
        report = {"anew": self._anew, "here": self._here, "never": None}[self.reports]
        if report is not None:
            thread = threading.Thread(target=report, args=(event.assoc, self._report(asked)))
            self._threads.append(thread)
            thread.start()
        return 0x0000, None

    def _report(self, asked: Dataset) -> Dataset:
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        items = [
            item
            for item in asked.ReferencedSOPSequence
            if item.ReferencedSOPInstanceUID not in self.forgets
        ]
        failed = [i for i in items if i.ReferencedSOPInstanceUID in self.refuses]
        for item in failed:
            item.FailureReason = 0x0112
        if failed:
            report.FailedSOPSequence = failed
        report.ReferencedSOPSequence = [i for i in items if i not in failed]
        return report

    def _here(self, association: Any, report: Dataset) -> None:
        self._send(association, report)

    def _anew(self, _: Any, report: Dataset) -> None:
        entity = ApplicationEntity("PACS")
        entity.add_requested_context(PUSH_MODEL)
        roles: list[Any] = [build_role(PUSH_MODEL, scu_role=False, scp_role=True)]
        association = entity.associate("127.0.0.1", self.node_port, ext_neg=roles)
        assert association.is_established
        self._send(association, report)
        association.release()

    def _send(self, association: Any, report: Dataset) -> None:
        event = 2 if "FailedSOPSequence" in report else 1
        status, _ = association.send_n_event_report(report, event, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        self.statuses.put(int(status.Status))


@contextmanager
def vouching_pacs() -> Iterator[VouchingPacs]:
    running = VouchingPacs()
    running.start()
    try:
        yield running
    finally:
        running.close()
