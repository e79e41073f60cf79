"""What peers ask for and report of storage commitment, on real associations."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import build_role

from scp.accept import commitment, room
from scp.accept.commitment import CommitmentService, report_to
from scp.commitment import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentReport,
    CommitmentRequest,
    Reference,
    encode_request,
)
from scp.config.schema import AccessSection, ReportTo
from scp.errors import StorageFullError, UnknownTransactionError
from scp.model import Origin
from tests.accept.raw_peer import (
    COMMAND,
    CT,
    EXPLICIT,
    IMPLICIT,
    LAST,
    RawPeer,
    action_command,
    associate_request,
    p_data,
)
from tests.accept.stores import Node, eventually, serving

DEFLATED, BIG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
ACCESS = AccessSection.model_validate(
    {
        "peers": [
            {"ae_title": "CT1", "address": "10.0.0.0/24"},
            {
                "ae_title": "CT1",
                "address": "10.1.0.0/24",
                "report_to": {"host": "elsewhere", "port": 105},
            },
            {"ae_title": "CT1", "report_to": {"host": "ct1", "port": 104}},
            {"ae_title": "MR1"},
        ]
    }
)
REQUEST = CommitmentRequest(
    transaction_uid="1.2.3", references=(Reference(CT, "1.2.4"), Reference(CT, "1.2.5"))
)


@dataclass
class MemoryDesk:
    """Keeps what comes, unless it is to fail."""

    requests: list[tuple[str, CommitmentRequest]] = field(default_factory=list)
    reports: list[CommitmentReport] = field(default_factory=list)
    error: Exception | None = None

    def take_request(self, origin: Origin, request: CommitmentRequest) -> None:
        if self.error is not None:
            raise self.error
        self.requests.append((origin.calling_ae_title, request))

    def take_report(self, origin: Origin, report: CommitmentReport) -> None:
        if self.error is not None:
            raise self.error
        self.reports.append(report)


@contextmanager
def desk_on(desk: MemoryDesk, *, is_offered: bool = True) -> Iterator[Node]:
    service = CommitmentService(desk, ACCESS, is_offered=is_offered)
    with serving(commitments=service) as node:
        yield node


@contextmanager
def associated(node: Node, title: str = "CT1", *, as_scp: bool = False) -> Iterator[Association]:
    entity = ApplicationEntity(title)
    entity.add_requested_context(PUSH_MODEL, [IMPLICIT])
    roles: list[Any] = [build_role(PUSH_MODEL, scu_role=False, scp_role=True)] if as_scp else []
    association = entity.associate(*node.address, ext_neg=roles)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def information(
    *uids: str, transaction: str = "1.2.3", failed: dict[str, int] | None = None
) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = transaction
    dataset.ReferencedSOPSequence = [item(uid) for uid in uids]
    if failed:
        dataset.FailedSOPSequence = [item(uid) for uid in failed]
        for each, reason in zip(dataset.FailedSOPSequence, failed.values(), strict=True):
            each.FailureReason = reason
    return dataset


def item(uid: str) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = CT
    reference.ReferencedSOPInstanceUID = uid
    return reference


def ask(association: Association, dataset: Dataset, action: int = 1) -> int:
    status, _ = association.send_n_action(dataset, action, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    return int(status.Status)


def report(association: Association, dataset: Dataset, event: int = 1) -> int:
    status, _ = association.send_n_event_report(dataset, event, PUSH_MODEL, PUSH_MODEL_INSTANCE)
    return int(status.Status)


def test_a_request_is_kept_and_then_answered() -> None:
    desk = MemoryDesk()
    with desk_on(desk) as node, associated(node) as association:
        assert ask(association, information("1.2.4", "1.2.5")) == 0x0000

    assert desk.requests == [("CT1", REQUEST)]


def test_a_report_comes_from_a_peer_that_takes_the_role_of_the_provider() -> None:
    desk = MemoryDesk()
    with desk_on(desk) as node, associated(node, "PACS", as_scp=True) as association:
        dataset = information("1.2.4", failed={"1.2.5": 0x0112})
        assert report(association, dataset, event=2) == 0x0000
        (context,) = association.accepted_contexts
        assert context.as_scp

    assert desk.reports == [
        CommitmentReport(
            transaction_uid="1.2.3",
            committed=(Reference(CT, "1.2.4"),),
            failed={Reference(CT, "1.2.5"): 0x0112},
        )
    ]


@pytest.mark.parametrize("title", ["MR1", "STRANGER"])
def test_who_cannot_be_reported_to_is_refused_and_the_log_says_what_to_do(
    title: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk = MemoryDesk()
    with desk_on(desk) as node, associated(node, title) as association:
        assert ask(association, information("1.2.4")) == 0x0124

    assert desk.requests == []
    assert "give it a report_to in access.peers" in caplog.text


def test_where_it_is_not_offered_a_request_is_refused_and_a_report_taken() -> None:
    desk = MemoryDesk()
    with desk_on(desk, is_offered=False) as node, associated(node) as association:
        assert ask(association, information("1.2.4")) == 0x0124
        assert report(association, information("1.2.4")) == 0x0000

    assert (desk.requests, len(desk.reports)) == ([], 1)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StorageFullError("full"), 0x0213),
        (UnknownTransactionError("which?"), 0x0115),
        (ZeroDivisionError("a defect"), 0x0110),
    ],
)
def test_what_cannot_be_kept_is_refused(error: Exception, status: int) -> None:
    with desk_on(MemoryDesk(error=error)) as node, associated(node) as association:
        assert ask(association, information("1.2.4")) == status
        assert report(association, information("1.2.4")) == status
        assert association.is_established


def test_what_the_command_gets_wrong_has_a_status_of_its_own() -> None:
    desk = MemoryDesk()
    with desk_on(desk) as node, associated(node) as association:
        assert ask(association, information("1.2.4"), action=2) == 0x0123
        assert report(association, information("1.2.4"), event=3) == 0x0113
        assert ask(association, information()) == 0x0115
        status, _ = association.send_n_action(information("1.2.4"), 1, PUSH_MODEL, "1.2.9")
        assert status.Status == 0x0112
        status, _ = association.send_n_action(
            information("1.2.4"), 1, CT, PUSH_MODEL_INSTANCE, meta_uid=PUSH_MODEL
        )
        assert status.Status == 0x0118

    assert (desk.requests, desk.reports) == ([], [])


def test_a_request_longer_than_the_bound_is_refused_and_the_association_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commitment, "MAX_DATASET_BYTES", 500)
    desk = MemoryDesk()
    with desk_on(desk) as node, associated(node) as association:
        assert ask(association, information(*(f"1.2.{n}" for n in range(50)))) == 0x0213
        assert ask(association, information("1.2.4", "1.2.5")) == 0x0000

    assert desk.requests == [("CT1", REQUEST)]


@pytest.mark.parametrize("title", ["STRANGER", "CT1"])
def test_what_operations_hold_together_is_bounded(
    title: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(commitment, "MAX_HELD_BYTES", 1000)
    desk = MemoryDesk()
    request = associate_request([(PUSH_MODEL, [EXPLICIT])], calling=title)
    begun = p_data((1, COMMAND | LAST, action_command())) + p_data((1, 0, bytes(600)))
    with desk_on(desk) as node, RawPeer(node.address) as first, RawPeer(node.address) as second:
        for peer in (first, second):
            peer.associate(request)
            peer.send(begun)
        refused = 2 if title == "STRANGER" else 1
        assert eventually(lambda: caplog.text.count("N-ACTION refused") == refused)
        statuses = []
        for peer in (first, second):
            peer.send(p_data((1, LAST, bytes(1))))
            statuses.append(peer.read_response().Status)
        with associated(node) as association:
            assert ask(association, information("1.2.4", "1.2.5")) == 0x0000

    # Who is refused anyway holds nothing. The first of the others had a damaged dataset.
    assert sorted(statuses) == ([0x0124, 0x0124] if title == "STRANGER" else [0x0115, 0x0213])
    assert desk.requests == [("CT1", REQUEST)]


def test_peers_that_stall_inside_their_requests_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commitment, "MAX_HELD_BYTES", 1000)
    monkeypatch.setattr(room, "PATIENCE_SECONDS", 0.0)
    desk = MemoryDesk()
    request = associate_request([(PUSH_MODEL, [EXPLICIT])], calling="CT1")
    begun = p_data((1, COMMAND | LAST, action_command())) + p_data((1, 0, bytes(990)))
    service = CommitmentService(desk, ACCESS, is_offered=True)
    with serving(commitments=service) as node, RawPeer(node.address) as stalled:
        stalled.associate(request)
        stalled.send(begun)
        assert eventually(lambda: service.room.held_bytes == 990)
        with associated(node) as association:
            assert ask(association, information("1.2.4", "1.2.5")) == 0x0000
        stalled.send(p_data((1, LAST, bytes(1))))
        assert stalled.read_response().Status == 0x0213
        stalled.release()

    assert desk.requests == [("CT1", REQUEST)]


def test_a_connection_lost_inside_a_request_gives_its_room_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commitment, "MAX_HELD_BYTES", 1000)
    desk = MemoryDesk()
    with desk_on(desk) as node:
        with RawPeer(node.address) as peer:
            peer.associate(associate_request([(PUSH_MODEL, [EXPLICIT])], calling="CT1"))
            peer.send(p_data((1, COMMAND | LAST, action_command())) + p_data((1, 0, bytes(990))))
        assert eventually(lambda: node.store.closed)
        with associated(node) as association:
            assert ask(association, information("1.2.4", "1.2.5")) == 0x0000


def test_a_request_in_many_fragments_arrives_whole() -> None:
    desk = MemoryDesk()
    encoded = encode_request(REQUEST, EXPLICIT)
    with desk_on(desk) as node, RawPeer(node.address) as peer:
        peer.associate(associate_request([(PUSH_MODEL, [EXPLICIT])], calling="CT1"))
        peer.send(p_data((1, COMMAND | LAST, action_command())))
        for start in range(0, len(encoded) - 10, 10):
            peer.send(p_data((1, 0, encoded[start : start + 10])))
        peer.send(p_data((1, LAST, encoded[start + 10 :])))
        assert peer.read_response().Status == 0x0000
        peer.release()

    assert desk.requests == [("CT1", REQUEST)]


def test_a_request_without_a_dataset_is_refused() -> None:
    with desk_on(MemoryDesk()) as node, RawPeer(node.address) as peer:
        peer.associate(associate_request([(PUSH_MODEL, [EXPLICIT])], calling="CT1"))
        peer.send(p_data((1, COMMAND | LAST, action_command(has_dataset=False))))
        assert peer.read_response().Status == 0x0115
        peer.release()


def test_no_instance_is_counted_for_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with desk_on(MemoryDesk()) as node, associated(node) as association:
        assert ask(association, information("1.2.4")) == 0x0000

    (over,) = [r for r in caplog.records if r.getMessage().startswith("association over")]
    assert (over.__dict__["instances"], over.__dict__["refused"]) == (0, 0)


def test_only_syntaxes_without_compression_are_taken_for_it() -> None:
    with desk_on(MemoryDesk()) as node, RawPeer(node.address) as peer:
        contexts = [
            (PUSH_MODEL, [DEFLATED]),
            (PUSH_MODEL, [DEFLATED, BIG]),
            (PUSH_MODEL, [IMPLICIT]),
        ]
        accept = peer.associate(associate_request(contexts))
        assert [each.result for each in accept.presentation_context] == [4, 0, 0]


def test_a_node_without_it_refuses_the_class() -> None:
    with serving() as node, RawPeer(node.address) as peer:
        accept = peer.associate(associate_request([(PUSH_MODEL, [IMPLICIT])]))
        assert [each.result for each in accept.presentation_context] == [3]


@pytest.mark.parametrize(
    ("title", "address", "expected"),
    [
        ("CT1", "192.168.0.1", ReportTo(host="ct1", port=104)),
        ("CT1", "10.0.0.7", ReportTo(host="ct1", port=104)),
        ("CT1", "10.1.0.7", ReportTo(host="elsewhere", port=105)),
        ("MR1", "192.168.0.1", None),
        ("ct1", "192.168.0.1", None),
    ],
)
def test_the_first_peer_that_fits_and_has_an_address_gets_the_report(
    title: str, address: str, expected: ReportTo | None
) -> None:
    origin = Origin(calling_ae_title=title, called_ae_title="DCMPRESS", peer_address=address)

    assert report_to(ACCESS, origin) == expected
