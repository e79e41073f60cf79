"""Negotiation, rejection, silence and the ends of an association."""

import logging
import time
import tracemalloc

import pytest
from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)

from scp.config.network import ListenerSection
from scp.config.schema import AccessSection, Peer
from scp.model import Origin
from tests.accept.raw_peer import (
    ABORT,
    COMMAND,
    CT,
    EXPLICIT,
    IMPLICIT,
    LAST,
    RELEASE_RQ,
    VERIFICATION,
    RawPeer,
    associate_request,
    echo_command,
    p_data,
    store_command,
    store_message,
)
from tests.accept.stores import MemoryStore, eventually, serving

PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"
PRIVATE_SYNTAX = "1.3.46.670589.33.1.4.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def reject(result: int, source: int, reason: int) -> bytes:
    return bytes([3, 0, 0, 0, 0, 4, 0, result, source, reason])


def results(accept: A_ASSOCIATE_AC) -> dict[int, tuple[int, str]]:
    """Result and transfer syntax of each context."""
    return {
        item.context_id or 0: (
            -1 if item.result is None else item.result,
            str(item.transfer_syntax),
        )
        for item in accept.presentation_context
    }


def test_each_context_is_answered_by_its_own_preference() -> None:
    contexts = (
        (CT, (JPEG_BASELINE, JPEG_LS, IMPLICIT, EXPLICIT)),
        (CT, (JPEG_LS,)),
        (CT, (JPEG_BASELINE,)),
        (PRIVATE_CLASS, (PRIVATE_SYNTAX,)),
        (VERIFICATION, (IMPLICIT,)),
    )

    with serving() as node, RawPeer(node.address) as peer:
        accept = peer.associate(associate_request(contexts))
        peer.release()

    assert results(accept) == {
        1: (0, EXPLICIT),
        3: (0, JPEG_LS),
        5: (0, JPEG_BASELINE),
        7: (0, PRIVATE_SYNTAX),
        9: (0, IMPLICIT),
    }


def test_a_service_that_is_not_served_is_refused_by_context() -> None:
    contexts = (("1.2.840.10008.5.1.4.1.2.2.1", (IMPLICIT,)), (CT, (EXPLICIT,)))

    with serving() as node, RawPeer(node.address) as peer:
        accept = peer.associate(associate_request(contexts))

    assert [result for result, _ in results(accept).values()] == [3, 0]


@pytest.mark.parametrize("odd", [b"\n", b"\0", b"\xb2", b"x", b" 1"])
def test_what_is_no_uid_is_refused_by_context_and_never_stored(odd: bytes) -> None:
    contexts = ((PRIVATE_CLASS, (IMPLICIT,)), (CT, (PRIVATE_SYNTAX,)), (CT, (EXPLICIT,)))
    request = associate_request(contexts)
    for uid in (PRIVATE_CLASS, PRIVATE_SYNTAX):
        middle = len(uid) // 2
        odd_uid = uid[:middle].encode() + odd + uid[middle + len(odd) :].encode()
        request = request.replace(uid.encode(), odd_uid)

    with serving() as node, RawPeer(node.address) as peer:
        accept = peer.associate(request)
        peer.send(store_message(b"data", context_id=5))
        stored = peer.read_response()
        peer.send(store_message(b"data", context_id=3))
        answer = peer.read_pdu()

    assert [result for result, _ in results(accept).values()] == [3, 4, 0]
    assert stored.Status == 0
    assert answer[0] == 7
    assert [each.request.transfer_syntax for each in node.store.kept] == [EXPLICIT]


def test_a_private_class_in_a_private_syntax_is_stored() -> None:
    request = associate_request([(PRIVATE_CLASS, (PRIVATE_SYNTAX,))])

    with serving() as node, RawPeer(node.address) as peer:
        peer.associate(request)
        peer.send(p_data((1, COMMAND | LAST, store_command(sop_class=PRIVATE_CLASS))))
        peer.send(p_data((1, LAST, b"anything")))
        response = peer.read_response()

    assert response.Status == 0
    assert node.store.kept[0].request.sop_class_uid == PRIVATE_CLASS
    assert node.store.kept[0].request.transfer_syntax == PRIVATE_SYNTAX


def test_the_store_learns_who_sends() -> None:
    with serving() as node, RawPeer(node.address) as peer:
        peer.associate(associate_request(calling="CT1", called="RESEARCH"))
        peer.send(store_message(b"data"))
        peer.read_response()
        peer.release()
        assert eventually(lambda: node.store.closed)

    origin = Origin(calling_ae_title="CT1", called_ae_title="RESEARCH", peer_address="127.0.0.1")
    assert node.store.kept[0].request.origin == origin
    assert node.store.opened == node.store.closed == [origin]


@pytest.mark.parametrize(
    ("title", "known_as"),
    [(b"CT1".ljust(16, b"\0"), "CT1"), (b" " * 16, "UNKNOWN"), (b"CT\xd6".ljust(16), "CT_")],
)
def test_a_title_outside_the_standard_is_no_reason_to_refuse(title: bytes, known_as: str) -> None:
    request = associate_request()

    with serving() as node, RawPeer(node.address) as peer:
        peer.associate(request[:26] + title + request[42:])
        peer.release()

    assert node.store.opened[0].calling_ae_title == known_as


def test_an_ipv4_peer_of_an_ipv6_port_has_its_ipv4_address() -> None:
    with serving(host="::") as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.release()

    assert node.store.opened[0].peer_address == "127.0.0.1"


def test_the_longest_pdu_of_the_configuration_is_announced_and_taken() -> None:
    with serving(max_pdu_bytes=8192) as node, RawPeer(node.address) as peer:
        accept = peer.associate()
        peer.send(p_data((1, COMMAND | LAST, store_command())))
        peer.send(p_data((1, LAST, bytes(8192 - 6))))
        longest = peer.read_response()
        peer.send(p_data((1, COMMAND | LAST, store_command())))
        peer.send(p_data((1, LAST, bytes(8192 - 5))))
        too_long = peer.read_pdu()

    assert accept.user_information is not None
    assert accept.user_information.maximum_length == 8192
    assert longest.Status == 0
    assert too_long[0] == 7


def test_one_operation_at_a_time_is_agreed() -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 8
    window.maximum_number_operations_performed = 8

    with serving() as node, RawPeer(node.address) as peer:
        accept = peer.associate(associate_request(items=[window]))

    assert accept.user_information is not None
    agreed = accept.user_information.async_ops_window
    assert agreed is not None
    assert agreed.maximum_number_operations_invoked == 1
    assert agreed.maximum_number_operations_performed == 1


def test_user_identity_and_roles_are_ignored_politely() -> None:
    identity, role = UserIdentityNegotiation(), SCP_SCU_RoleSelectionNegotiation()
    identity.user_identity_type = 2
    identity.primary_field = b"user"
    identity.secondary_field = b"secret"
    identity.positive_response_requested = True
    role.sop_class_uid = UID(CT)
    role.scu_role = True
    role.scp_role = True

    with serving() as node, RawPeer(node.address) as peer:
        accept = peer.associate(associate_request(items=[identity, role]))
        peer.send(store_message(b"data"))
        assert peer.read_response().Status == 0

    assert accept.user_information is not None
    assert accept.user_information.user_identity is None


def test_an_unknown_caller_is_rejected_for_good() -> None:
    access = AccessSection(anyone=False, peers=(Peer(ae_title="CT1"),))

    with serving(access=access) as node:
        with RawPeer(node.address) as stranger:
            stranger.send(associate_request(calling="STRANGER"))
            answer = stranger.read_pdu()
        with RawPeer(node.address) as known:
            known.associate(associate_request(calling="CT1"))

    assert answer == reject(1, 1, 3)


def test_a_title_that_a_port_does_not_answer_to_is_rejected_for_good() -> None:
    ports = (ListenerSection(port=0), ListenerSection(port=0, ae_titles=("CT", "MR")))

    with serving(ports=ports) as node:
        any_title, some_titles = node.addresses
        with RawPeer(some_titles) as peer:
            peer.send(associate_request(called="US"))
            answer = peer.read_pdu()
        for address, title in ((some_titles, "MR"), (any_title, "US")):
            with RawPeer(address) as peer:
                peer.associate(associate_request(called=title))

    assert answer == reject(1, 1, 7)
    assert {origin.called_ae_title for origin in node.store.opened} == {"MR", "US"}


def test_without_room_an_association_is_rejected_for_now() -> None:
    store = MemoryStore(room=False)

    with serving(store) as node:
        with RawPeer(node.address) as early:
            early.send(associate_request())
            answer = early.read_pdu()
        store.room = True
        with RawPeer(node.address) as late:
            late.associate()

    assert answer == reject(2, 3, 1)
    assert len(store.opened) == 1


def test_an_unsupported_protocol_version_is_rejected() -> None:
    request = bytearray(associate_request())
    request[6:8] = b"\0\2"

    with serving() as node, RawPeer(node.address) as peer:
        peer.send(bytes(request))
        answer = peer.read_pdu()

    assert answer == reject(1, 2, 2)


def test_a_request_in_single_bytes_is_accepted() -> None:
    with serving() as node, RawPeer(node.address) as peer:
        request = associate_request()
        for byte in request[:-1]:
            peer.send(bytes([byte]))
        peer.associate(request[-1:])


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", id="HTTP"),
        pytest.param(associate_request()[:74] + b"\x20\0\xff\xff", id="cut item"),
        pytest.param(p_data((1, 3, echo_command())), id="P-DATA before an association"),
        pytest.param(bytes.fromhex("99000000000400000000"), id="unknown PDU"),
        pytest.param(RELEASE_RQ, id="release before an association"),
        pytest.param(ABORT, id="abort before an association"),
        pytest.param(bytes.fromhex("0100ffffffff"), id="request of 4 GiB"),
        pytest.param(b"\x01", id="one byte"),
    ],
)
def test_what_is_no_request_ends_the_connection_and_nothing_else(
    noise: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(handshake_seconds=0.2) as node:
        with RawPeer(node.address) as peer:
            peer.send(noise)
            assert all(pdu[0] == 7 for pdu in [peer.read_pdu()] if pdu)
        with RawPeer(node.address) as other:
            other.associate()

    assert len(node.store.opened) == 1
    assert not [record for record in caplog.records if record.name.startswith("pynetdicom")]


def test_a_connection_without_a_request_is_closed() -> None:
    with serving(handshake_seconds=0.2) as node, RawPeer(node.address) as peer:
        assert peer.read_until_closed() == []


def test_an_association_without_a_message_is_aborted_when_it_has_idled() -> None:
    with serving(idle_seconds=0.3) as node, RawPeer(node.address) as peer:
        peer.associate()
        began = time.monotonic()
        answer = peer.read_pdu()
        idled = time.monotonic() - began

    assert answer == ABORT
    assert 0.25 < idled < 5


def test_work_of_ours_is_not_held_against_the_peer() -> None:
    store = MemoryStore()
    store.may_commit.clear()

    with serving(store, idle_seconds=0.2, pdu_seconds=0.2) as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(store_message(b"data"))
        assert store.is_committing.wait(10)
        time.sleep(0.5)  # longer than the peer would be given
        store.may_commit.set()
        response = peer.read_response()
        peer.release()

    assert response.Status == 0


@pytest.mark.parametrize("where", ["header", "command", "data"])
def test_a_peer_that_stalls_inside_a_pdu_is_dropped(where: str) -> None:
    message = store_message(bytes(1000))
    sent = {"header": message[:3], "command": message[:40], "data": message[:-1]}[where]

    with serving(pdu_seconds=0.3) as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(sent)
        answer = peer.read_pdu()
        assert eventually(lambda: node.store.closed)

    assert answer == ABORT
    assert node.store.kept == []


def test_a_peer_that_trickles_a_pdu_is_dropped() -> None:
    message = store_message(bytes(1000))

    with serving(pdu_seconds=0.3) as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.socket.settimeout(0.02)
        answer = b""
        for byte in message:
            peer.send(bytes([byte]))
            try:
                answer = peer.read_pdu()
                break
            except TimeoutError:
                continue

    assert answer == ABORT


def test_an_announced_length_costs_no_memory() -> None:
    with serving(max_pdu_bytes="1MiB") as node, RawPeer(node.address) as peer:
        peer.associate()
        tracemalloc.start()
        try:
            peer.send(bytes.fromhex("0400000ffffe") + bytes.fromhex("000ffffa0103") + b"\0" * 100)
            assert peer.socket.send(b"") == 0
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        peer.send(bytes(100))

    assert peak < 500_000


def test_a_peer_that_never_closes_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp.accept.association.CLOSE_SECONDS", 0.4)

    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.release()
        peer.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            peer.read_pdu()
        assert eventually(lambda: node.listener.open_associations == 0, 3)
        assert peer.read_pdu() == b""


def test_one_line_is_logged_of_an_association(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    with serving() as node:
        with RawPeer(node.address) as peer:
            peer.associate(associate_request(calling="CT1", called="NODE"))
            peer.send(store_message(b"data", instance="2.25.9"))
            peer.read_response()
            peer.release()
        assert eventually(lambda: node.listener.open_associations == 0)

    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.INFO]
    assert lines == ["association over: released"]
    assert not any("2.25.9" in record.getMessage() for record in caplog.records)
