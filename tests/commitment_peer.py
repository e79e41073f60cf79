"""A peer that asks for storage commitment and listens for reports, made of pynetdicom."""

import queue
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.events import Event

from scp.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE

SECONDS = 60.0


class Modality:
    """Sends N-ACTION to one address and keeps the N-EVENT-REPORTs that come to its own.

    ``answer`` gives the status of each report; by default all are taken.
    """

    def __init__(self, title: str, tls: ssl.SSLContext | None = None) -> None:
        self.title = title
        self._tls = tls
        self.port = 0
        self.answer: Callable[[], int] = lambda: 0x0000
        self.reports: queue.Queue[tuple[int, Dataset]] = queue.Queue()
        self._server: Any = None

    def listen(self, port: int = 0) -> None:
        """Take reports, on the same port as before where there was one."""
        entity = ApplicationEntity(self.title)
        entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._take)]
        self._server = entity.start_server(
            ("127.0.0.1", port or self.port),
            block=False,
            evt_handlers=handlers,
            ssl_context=self._tls,
        )
        self.port = self._server.socket.getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def ask(
        self,
        node_port: int,
        references: Iterable[tuple[str, str]],
        transaction_uid: str | None = None,
    ) -> tuple[int, str]:
        """The status of the N-ACTION for (SOP class, SOP instance) pairs, and its transaction."""
        transaction_uid = transaction_uid or generate_uid()
        dataset = Dataset()
        dataset.TransactionUID = transaction_uid
        dataset.ReferencedSOPSequence = [_item(*pair) for pair in references]
        entity = ApplicationEntity(self.title)
        entity.add_requested_context(PUSH_MODEL)
        association = entity.associate("127.0.0.1", node_port)
        assert association.is_established
        status, _ = association.send_n_action(dataset, 1, PUSH_MODEL, PUSH_MODEL_INSTANCE)
        association.release()
        return int(status.Status), transaction_uid

    def ask_for(self, node_port: int, paths: Iterable[Path]) -> str:
        """Ask for files; returns the transaction, which was accepted."""
        datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
        pairs = [(str(each.SOPClassUID), str(each.SOPInstanceUID)) for each in datasets]
        status, transaction_uid = self.ask(node_port, pairs)
        assert status == 0x0000
        return transaction_uid

    def report(self, transaction_uid: str) -> tuple[set[str], dict[str, int]]:
        """The next report, which is about that; the UIDs committed, and those failed with why."""
        event_type, dataset = self.reports.get(timeout=SECONDS)
        assert dataset.TransactionUID == transaction_uid
        committed = {
            str(item.ReferencedSOPInstanceUID) for item in dataset.get("ReferencedSOPSequence", [])
        }
        failed = {
            str(item.ReferencedSOPInstanceUID): int(item.FailureReason)
            for item in dataset.get("FailedSOPSequence", [])
        }
        assert event_type == (2 if failed else 1)
        return committed, failed

    def _take(self, event: Event) -> tuple[int, None]:
        status = self.answer()
        if status == 0x0000:
            assert event.event_type is not None
            self.reports.put((event.event_type, event.event_information))
        return status, None


@contextmanager
def modality(title: str = "CT1", tls: ssl.SSLContext | None = None) -> Iterator[Modality]:
    """One that listens."""
    running = Modality(title, tls)
    running.listen()
    try:
        yield running
    finally:
        running.close()


def _item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item
