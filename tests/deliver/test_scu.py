"""The association: what goes over the socket, and what a peer may do to it."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from scp.config.schema import DicomDestination as Section
from scp.deliver.dicom import DicomDestination
from scp.deliver.negotiation import Proposal
from scp.deliver.ports import Receipt, Verdict
from scp.deliver.scu import associate
from scp.errors import DeliveryError, PeerRejectedError, PeerUnavailableError
from tests.deliver.files import CT, EXPLICIT, ct_items, dataset_bytes, no_decoder
from tests.deliver.peers import HandPeer


def deliver(section: Section, folder: Path, count: int = 1, rows: int = 32) -> list[Receipt]:
    items = ct_items(folder, count, rows)
    return list(DicomDestination("peer", section, no_decoder).deliver(items, lambda: False))


# -- out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_pdu", [8, 9, 64, 4096, 16384, 131072, 0])
def test_no_pdu_is_longer_than_the_peer_takes(tmp_path: Path, max_pdu: int) -> None:
    with HandPeer(max_pdu=max_pdu) as peer:
        (receipt,) = deliver(peer.section(), tmp_path, rows=16 if 0 < max_pdu <= 64 else 512)

    assert receipt.verdict is Verdict.DELIVERED
    assert peer.stored[0].dataset == dataset_bytes(tmp_path / "000.dcm")
    longest = max_pdu or 1 << 18
    assert longest - 2 < max(peer.pdu_lengths) <= longest


def test_fragments_are_of_even_length(tmp_path: Path) -> None:
    with HandPeer(max_pdu=4097) as peer:
        deliver(peer.section(), tmp_path, rows=64)

    assert all(length % 2 == 0 for length in peer.pdu_lengths)


def test_a_peer_that_takes_no_data_at_all_is_rejected(tmp_path: Path) -> None:
    with HandPeer(max_pdu=7) as peer, pytest.raises(PeerRejectedError, match="7 bytes"):
        deliver(peer.section(), tmp_path)


def test_a_dataset_longer_than_the_buffer_arrives_whole(tmp_path: Path) -> None:
    with HandPeer(max_pdu=16384) as peer:
        deliver(peer.section(), tmp_path, rows=1300)

    assert len(peer.stored[0].dataset) > 3 << 20
    assert peer.stored[0].dataset == dataset_bytes(tmp_path / "000.dcm")


def test_a_file_that_shrinks_while_it_is_sent_is_not_completed(tmp_path: Path) -> None:
    path = ct_items(tmp_path, 1)[0].path
    size = path.stat().st_size
    proposal = Proposal(CT, EXPLICIT)

    with (
        HandPeer() as peer,
        associate(peer.section(), [proposal]) as association,
        path.open("rb") as file,
        pytest.raises(DeliveryError, match="shorter"),
    ):
        association.store(proposal, "1.2.3", file.fileno(), 200, size)

    assert not peer.stored


def test_message_numbers_start_again_after_the_last(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 2)
    proposal = Proposal(CT, EXPLICIT)

    with HandPeer() as peer, associate(peer.section(), [proposal]) as association:
        association._message_id = 0xFFFE
        descriptor = os.open(items[0].path, os.O_RDONLY)
        statuses = [association.store(proposal, "1.2", descriptor, 400, 100) for _ in range(3)]
        os.close(descriptor)

    assert statuses == [0, 0, 0]


# -- in --------------------------------------------------------------------------------------------


def test_an_answer_in_single_bytes_and_several_pdvs_is_understood(tmp_path: Path) -> None:
    with HandPeer(answer=lambda number: "drip") as peer:
        receipts = deliver(peer.section(), tmp_path, 3)

    assert [each.verdict for each in receipts] == [Verdict.DELIVERED] * 3
    assert peer.associations == 1


@pytest.mark.parametrize(
    ("rejection", "error", "words"),
    [
        ((1, 1, 7), PeerRejectedError, "called AE title not recognised"),
        ((1, 1, 3), PeerRejectedError, "calling AE title not recognised"),
        ((1, 1, 1), PeerRejectedError, "no reason given"),
        ((1, 3, 2), PeerUnavailableError, "local limit exceeded"),
        ((2, 3, 1), PeerUnavailableError, "temporary congestion"),
        ((2, 1, 1), PeerUnavailableError, "no reason given"),
        ((1, 2, 9), PeerRejectedError, "source 2, reason 9"),
    ],
)
def test_a_rejection_is_for_good_or_for_now(
    tmp_path: Path, rejection: tuple[int, int, int], error: type[DeliveryError], words: str
) -> None:
    with HandPeer(reject=rejection) as peer, pytest.raises(error, match=words):
        deliver(peer.section(), tmp_path)


@pytest.mark.parametrize("how", ["abort", "close", "silence", "nonsense"])
def test_a_peer_that_does_not_negotiate_is_unavailable(tmp_path: Path, how: str) -> None:
    with HandPeer(on_request=how) as peer, pytest.raises(PeerUnavailableError):
        deliver(peer.section(answer_seconds=0.3), tmp_path)


def test_nobody_at_the_address_is_unavailable(tmp_path: Path, free_port: int) -> None:
    section = Section(kind="dicom", host="127.0.0.1", port=free_port, ae_title="NOBODY")

    with pytest.raises(PeerUnavailableError, match="refused"):
        deliver(section, tmp_path)


def test_a_name_that_nobody_knows_is_unavailable(tmp_path: Path) -> None:
    section = Section(kind="dicom", host="no-such-host.invalid", port=104, ae_title="NOBODY")

    with pytest.raises(PeerUnavailableError, match="no connection"):
        deliver(section, tmp_path)


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_configured(
    tmp_path: Path,
) -> None:
    with HandPeer(answer=lambda number: "silence") as peer:
        started = time.monotonic()
        (receipt,) = deliver(peer.section(answer_seconds=0.4), tmp_path)
        took = time.monotonic() - started

    assert receipt.verdict is Verdict.TRANSIENT
    assert "timeout" in receipt.detail
    assert 0.4 <= took < 3


def test_a_peer_that_takes_no_data_is_not_waited_for_longer_than_configured(tmp_path: Path) -> None:
    reading = threading.Event()

    class Stuck(HandPeer):
        def _accept(self, connection, body):  # type: ignore[no-untyped-def]
            super()._accept(connection, body)
            reading.wait(20)
            return {}

    with Stuck() as peer:
        (receipt,) = deliver(peer.section(answer_seconds=0.5), tmp_path, rows=3000)
        reading.set()
        peer.faults.clear()

    assert receipt.verdict is Verdict.TRANSIENT
    assert "timeout" in receipt.detail


# -- pynetdicom as the peer ------------------------------------------------------------------------


@contextmanager
def pynetdicom_peer(handle: Callable[[evt.Event], int], **settings: Any) -> Iterator[Section]:
    node = AE("PYNETDICOM")
    node.add_supported_context(CTImageStorage, [ExplicitVRLittleEndian])
    for name, value in settings.items():
        setattr(node, name, value)
    server = node.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)]
    )
    assert server is not None
    try:
        yield Section(
            kind="dicom",
            host="127.0.0.1",
            port=server.server_address[1],
            ae_title="PYNETDICOM",
            answer_seconds=5,
        )
    finally:
        server.shutdown()


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA700, 0xC001, 0xA900, 0x0124])
def test_pynetdicoms_statuses_arrive(tmp_path: Path, status: int) -> None:
    with pynetdicom_peer(lambda event: status) as section:
        (receipt,) = deliver(section, tmp_path)

    assert receipt.status == f"{status:04X}"


def test_pynetdicom_receives_the_files_bytes_in_small_pdus(tmp_path: Path) -> None:
    received = []

    def handle(event: evt.Event) -> int:
        received.append(event.encoded_dataset(include_meta=False))
        return 0

    with pynetdicom_peer(handle, maximum_pdu_size=1024) as section:
        deliver(section, tmp_path, 3, rows=128)

    assert received == [dataset_bytes(tmp_path / f"{number:03d}.dcm") for number in range(3)]


def test_pynetdicom_rejects_a_title_that_it_does_not_know(tmp_path: Path) -> None:
    with (
        pynetdicom_peer(lambda event: 0, require_called_aet=True) as section,
        pytest.raises(PeerRejectedError, match="called AE title not recognised"),
    ):
        deliver(section.model_copy(update={"ae_title": "OTHER"}), tmp_path)


def test_pynetdicom_aborts_in_the_middle(tmp_path: Path) -> None:
    count = 0

    def handle(event: evt.Event) -> int:
        nonlocal count
        count += 1
        if count == 2:
            event.assoc.abort()
        return 0

    with pynetdicom_peer(handle) as section:
        receipts = deliver(section, tmp_path, 4)

    verdicts = [each.verdict for each in receipts]
    done = Verdict.DELIVERED
    assert verdicts == [done, Verdict.TRANSIENT, done, done]
