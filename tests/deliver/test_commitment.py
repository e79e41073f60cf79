"""Storage commitment as the one who calls: whatever a peer answers, or does instead, is understood."""

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from scp.commitment import (
    PUSH_MODEL,
    CommitmentReport,
    CommitmentRequest,
    Reference,
    decode_report,
    decode_request,
    encode_report,
)
from scp.deliver.commitment import ask_for_commitment, report_commitment
from scp.errors import (
    DeliveryError,
    PeerRejectedError,
    PeerUnavailableError,
    StorageFullError,
)
from tests.deliver.peers import HandPeer, command_values, p_data, read_pdu, split_items
from tests.e2e.peers import free_port

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
GOOD, BAD = Reference(CT, "1.2.3.1"), Reference(CT, "1.2.3.2")
REQUEST = CommitmentRequest(transaction_uid="1.9", references=(GOOD, BAD))
REPORT = CommitmentReport(transaction_uid="1.9", committed=(GOOD,), failed={BAD: 0x0112})

N_ACTION, N_EVENT_REPORT, RESPONSE = 0x0130, 0x0100, 0x8000
WAIT = 0.3
"""Seconds for a report that does not come."""


@dataclass
class Committer(HandPeer):
    """Takes one operation on each association, and may report on the same, as it is told."""

    reports: str = "never"
    """``after`` its answer, ``before`` it, ``damaged``, ``command`` (that is none), ``silence``."""
    operations: list[tuple[int, str, bytes]] = field(default_factory=list)
    """Command field, transfer syntax and dataset of each."""
    answered: list[int] = field(default_factory=list)
    """The statuses with which its reports were answered."""
    roles: list[tuple[str, int, int]] = field(default_factory=list)
    """What was asked for: SOP class, SCU role, SCP role (PS3.7 D.3.3.4)."""

    def _accept(self, connection: socket.socket, body: bytes) -> dict[int, str]:
        (user,) = [content for kind, content in split_items(body[68:]) if kind == 0x50]
        for kind, content in split_items(user):
            if kind == 0x54:
                end = 2 + struct.unpack_from(">H", content)[0]
                self.roles.append((content[2:end].decode(), content[end], content[end + 1]))
        return super()._accept(connection, body)

    def _take(self, connection: socket.socket, syntax: str, command: bytes, dataset: bytes) -> bool:
        values = command_values(command)
        operation = int.from_bytes(values[0x0100], "little")
        message_id = int.from_bytes(values[0x0110], "little")
        self.operations.append((operation, syntax, dataset))
        answer = self.answer(len(self.operations) - 1)
        if isinstance(answer, str) and self._misbehave(connection, answer):
            return False
        if self.reports == "before":
            self._report(connection, syntax)
        reply = operation | RESPONSE if answer != "other command" else 0x8140
        status = answer if isinstance(answer, int) else 0
        if answer == "long":
            for _ in range(5000):
                connection.sendall(p_data(b"\0" * 1024, 1))
        connection.sendall(
            p_data(
                command_set(
                    (0x0002, PUSH_MODEL),
                    (0x0100, reply),
                    (0x0120, message_id + (answer == "stranger")),
                    (0x0800, 0x0101),
                    (0x0900, status),
                ),
                2 if answer == "mixed" else 3,
            )
        )
        if self.reports not in ("before", "never"):
            self._report(connection, syntax)
        if self.reports != "never":
            kind, body = read_pdu(connection)
            if kind == 4:
                status_bytes = command_values(body[6:])[0x0900]
                self.answered.append(int.from_bytes(status_bytes, "little"))
        return True

    def _report(self, connection: socket.socket, syntax: str) -> None:
        field_number = N_EVENT_REPORT if self.reports != "command" else 0x0020
        command = command_set(
            (0x0002, PUSH_MODEL),
            (0x0100, field_number),
            (0x0110, 7),
            (0x0800, 0x0001),
            (0x1000, "1.2.840.10008.1.20.1.1"),
            (0x1002, 2),
        )
        dataset = encode_report(REPORT, syntax)
        if self.reports == "damaged":
            dataset = dataset[:-5]
        connection.sendall(p_data(command, 3))
        half = len(dataset) // 2
        connection.sendall(p_data(dataset[:half], 0) + p_data(dataset[half:], 2))


def command_set(*elements: tuple[int, int | str]) -> bytes:
    """A command set in Implicit VR Little Endian (PS3.7 6.3.1)."""
    body = b""
    for number, value in elements:
        if isinstance(value, str):
            encoded = value.encode() + b"\0" * (len(value) % 2)
        else:
            encoded = struct.pack("<H", value)
        body += struct.pack("<HHL", 0, number, len(encoded)) + encoded
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def ask(
    peer: HandPeer, take: Callable[[CommitmentReport], None] | None = None, wait: float = WAIT
) -> list[CommitmentReport]:
    """Ask for two instances; the reports that came on the same association."""
    taken: list[CommitmentReport] = []
    ask_for_commitment(peer.section(answer_seconds=2.0), REQUEST, take or taken.append, wait)
    return taken


# -- asking ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_peer_is_asked_in_the_syntax_that_it_takes(syntax: str) -> None:
    with Committer(accepts=lambda sop_class, offered: offered == syntax) as peer:
        assert ask(peer) == []

    ((operation, used, dataset),) = peer.operations
    assert (operation, used) == (N_ACTION, syntax)
    assert decode_request(dataset, used) == REQUEST
    assert peer.released == 1
    assert {sop_class for sop_class, _ in peer.proposed} == {PUSH_MODEL}
    assert peer.roles == []


@pytest.mark.parametrize("status", [0x0131, 0x0210])
def test_a_transaction_that_the_peer_knows_has_been_asked_for(status: int) -> None:
    with Committer(answer=lambda number: status) as peer:
        ask(peer)

    assert peer.released == 1


@pytest.mark.parametrize("status", [0x0110, 0x0124, 0x0213, 0xC000])
def test_a_peer_that_says_no_is_to_be_asked_again(status: int) -> None:
    with (
        Committer(answer=lambda number: status) as peer,
        pytest.raises(PeerRejectedError, match=f"answers N-ACTION with {status:04X}"),
    ):
        ask(peer)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("abort", "aborted the association"),
        ("close", "closed the connection"),
        ("silence", "timeout"),
        ("release", "released the association instead"),
        ("nonsense", "makes no sense"),
        ("stranger", "belongs to another request"),
        ("other command", "belongs to another request"),
        ("mixed", "command and dataset are mixed up"),
        ("long", "too long"),
    ],
)
def test_a_peer_that_does_not_answer_is_unavailable(answer: str, why: str) -> None:
    with (
        Committer(answer=lambda number: answer) as peer,
        pytest.raises(PeerUnavailableError, match=why),
    ):
        ask(peer)


def test_a_peer_that_does_not_know_the_service_says_so() -> None:
    with (
        Committer(accepts=lambda sop_class, syntax: False) as peer,
        pytest.raises(PeerRejectedError, match="does not take storage commitment"),
    ):
        ask(peer)

    assert peer.operations == []


@pytest.mark.parametrize(
    ("rejection", "error"),
    [((1, 1, 7), PeerRejectedError), ((2, 3, 1), PeerUnavailableError)],
)
def test_a_rejected_association_is_for_good_or_for_now(
    rejection: tuple[int, int, int], error: type[DeliveryError]
) -> None:
    with Committer(reject=rejection) as peer, pytest.raises(error):
        ask(peer)


def test_a_peer_that_is_not_there_is_unavailable() -> None:
    peer = Committer()
    peer.port = free_port()

    with pytest.raises(PeerUnavailableError, match="no connection"):
        ask(peer)


# -- a report on the same association --------------------------------------------------------------


@pytest.mark.parametrize("reports", ["after", "before"])
def test_a_report_on_the_same_association_is_taken(reports: str) -> None:
    with Committer(reports=reports) as peer:
        assert ask(peer, wait=10.0) == [REPORT]

    assert peer.answered == [0x0000]
    assert peer.released == 1


def test_a_report_that_cannot_be_kept_is_answered_with_a_failure() -> None:
    def take(report: CommitmentReport) -> None:
        raise StorageFullError("no room")

    with Committer(reports="after") as peer:
        ask(peer, take, wait=10.0)

    assert peer.answered == [0x0110]


def test_a_damaged_report_is_answered_with_a_failure() -> None:
    with Committer(reports="damaged") as peer:
        assert ask(peer, wait=10.0) == []

    assert peer.answered == [0x0110]


def test_what_is_no_report_is_no_answer_to_anything() -> None:
    with Committer(reports="command") as peer:
        assert ask(peer, wait=10.0) == []

    assert peer.answered == []


# -- reporting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("failed", [{}, {BAD: 0x0112}])
def test_a_peer_is_told_as_the_provider_of_the_service(failed: dict[Reference, int]) -> None:
    report = CommitmentReport(transaction_uid="1.9", committed=(GOOD,), failed=failed)
    with Committer() as peer:
        report_commitment(peer.section(), report)

    ((operation, syntax, dataset),) = peer.operations
    assert operation == N_EVENT_REPORT
    assert decode_report(dataset, syntax) == report
    assert peer.roles == [(PUSH_MODEL, 0, 1)]
    assert peer.released == 1


def test_a_peer_that_does_not_take_the_report_is_to_be_told_again() -> None:
    with (
        Committer(answer=lambda number: 0x0110) as peer,
        pytest.raises(DeliveryError, match="answers N-EVENT-REPORT with 0110"),
    ):
        report_commitment(peer.section(), REPORT)


@pytest.mark.parametrize("answer", ["abort", "close", "silence", "nonsense", "stranger"])
def test_a_peer_that_does_not_answer_the_report_is_to_be_told_again(answer: str) -> None:
    with (
        Committer(answer=lambda number: answer) as peer,
        pytest.raises(PeerUnavailableError),
    ):
        report_commitment(peer.section(answer_seconds=2.0), REPORT)
