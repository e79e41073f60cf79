"""Whatever way a peer cuts messages into PDVs and PDUs, the same instance arrives."""

import contextlib
import itertools
import logging
import random
import socket
import struct
import threading
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scp.accept.audit import Account
from scp.accept.messages import Messages, Negotiated
from scp.accept.reader import PduReader
from scp.config.schema import LimitsSection
from scp.errors import (
    DiskFailedError,
    InvalidUidError,
    StorageFullError,
    UidMismatchError,
    UnreadableInstanceError,
)
from scp.model import Origin, StoreRequest
from tests.accept.raw_peer import (
    ABORT,
    COMMAND,
    LAST,
    Pdv,
    RawPeer,
    associate_request,
    echo_command,
    p_data,
    store_command,
    store_message,
)
from tests.accept.stores import KeptInstance, MemoryStore, eventually, serving

DATA = bytes(range(256)) * 3


def cut(content: bytes, places: list[int], kind: int) -> list[Pdv]:
    """PDVs of context 1 that together carry ``content``."""
    edges = [0, *sorted(place % (len(content) + 1) for place in places), len(content)]
    pieces = [content[start:stop] for start, stop in itertools.pairwise(edges)]
    return [(1, kind, piece) for piece in pieces[:-1]] + [(1, kind | LAST, pieces[-1])]


def provider_abort(reason: int) -> bytes:
    return bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, reason])


@given(
    command_cuts=st.lists(st.integers(0, 400), max_size=4),
    data_cuts=st.lists(st.integers(0, 1000), max_size=4),
    pdvs_per_pdu=st.integers(1, 12),
    segments=st.lists(st.integers(1, 300), max_size=6),
)
@settings(max_examples=60)
def test_a_message_cut_anywhere_arrives_whole(
    command_cuts: list[int], data_cuts: list[int], pdvs_per_pdu: int, segments: list[int]
) -> None:
    pdvs = cut(store_command(), command_cuts, COMMAND) + cut(DATA, data_cuts, 0)
    stream = b"".join(
        p_data(*pdvs[first : first + pdvs_per_pdu]) for first in range(0, len(pdvs), pdvs_per_pdu)
    )

    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        for length in segments:
            peer.send(stream[:length])
            stream = stream[length:]
        peer.send(stream)
        response = peer.read_response()
        peer.release()

    assert response.Status == 0
    assert [bytes(kept.data) for kept in node.store.kept] == [DATA]


class Dripping(socket.socket):
    """Gives a few bytes at a time, however many have come."""

    bytes_at_a_time = 1

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return super().recv_into(buffer[: self.bytes_at_a_time], nbytes, flags)


@given(
    size=st.integers(1, 5_000),
    pdv_bytes=st.integers(1, 3_000),
    bytes_at_a_time=st.integers(1, 700),
    buffer_bytes=st.sampled_from([12, 100, 2**11, 2**18]),
    gather_from=st.integers(0, 5_000),
)
@example(size=5_000, pdv_bytes=5_000, bytes_at_a_time=1, buffer_bytes=2**18, gather_from=1)
@example(size=5_000, pdv_bytes=1, bytes_at_a_time=700, buffer_bytes=2**18, gather_from=1)
@example(size=5_000, pdv_bytes=5_000, bytes_at_a_time=10, buffer_bytes=2**18, gather_from=1_000)
def test_what_comes_drop_by_drop_is_kept_in_few_pieces_and_in_order(
    size: int, pdv_bytes: int, bytes_at_a_time: int, buffer_bytes: int, gather_from: int
) -> None:
    counts: list[int] = []
    early: list[int] = []

    class Counting(KeptInstance):
        def write(self, *pieces: bytes | bytearray | memoryview) -> None:
            counts.append(len(pieces))
            if not self.may_gather:
                early.append(sum(map(len, pieces)))
            super().write(*pieces)

    class CountingStore(MemoryStore):
        def begin(self, request: StoreRequest) -> KeptInstance:
            return Counting(self, request)

    data = bytes(random.Random(size).randbytes(size))
    origin = Origin(calling_ae_title="CT", called_ae_title="US", peer_address="10.0.0.1")
    store = CountingStore(gather_from=gather_from)
    there, here = socket.socketpair()
    ours = Dripping(fileno=here.detach())
    ours.bytes_at_a_time = bytes_at_a_time
    with ours, there:
        reader = PduReader(ours, LimitsSection(), buffer_bytes)
        messages = Messages(
            Negotiated(origin=origin, syntaxes={1: "1.2.840.10008.1.2"}, peer_max_pdu_bytes=0),
            *(store, LimitsSection(), reader, Account(port=104, address="10.0.0.1")),
        )
        pdvs = cut(data, list(range(0, size, pdv_bytes)), 0)
        sending = threading.Thread(
            target=there.sendall,
            args=(b"".join(map(p_data, [(1, COMMAND | LAST, store_command()), *pdvs])),),
        )
        sending.start()
        for _ in range(1 + len(pdvs)):
            _, length = reader.pdu_header()
            messages.receive(length)
        sending.join()

    assert [bytes(kept.data) for kept in store.kept] == [data]
    assert max(counts) <= 64
    # Nothing more is waited for before what is here was handed on.
    assert max(early, default=0) <= bytes_at_a_time


def test_a_command_whose_last_piece_is_empty_is_answered_at_once() -> None:
    """Nothing comes after it: who waits for its bytes waits for a peer that waits for the answer."""
    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(p_data((3, COMMAND, echo_command())))
        peer.send(p_data((3, COMMAND | LAST, b"")))
        response = peer.read_response()
        peer.release()

    assert response.CommandField == 0x8030


def test_instances_and_echoes_follow_each_other_in_one_association() -> None:
    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        fields = []
        for number in range(3):
            peer.send(store_message(DATA, instance=f"2.25.{number}"))
            fields.append(peer.read_response().CommandField)
            peer.send(p_data((3, COMMAND | LAST, echo_command())))
            fields.append(peer.read_response().CommandField)
        peer.release()

    assert fields == [0x8001, 0x8030] * 3
    assert [kept.request.sop_instance_uid for kept in node.store.kept] == [
        "2.25.0",
        "2.25.1",
        "2.25.2",
    ]


def test_two_messages_in_one_pdu_are_both_answered() -> None:
    pdu = p_data(
        (1, COMMAND | LAST, store_command()), (1, LAST, DATA), (3, COMMAND | LAST, echo_command())
    )

    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(pdu)
        responses = [peer.read_response(), peer.read_response()]

    assert [response.CommandField for response in responses] == [0x8001, 0x8030]


def test_an_answer_repeats_what_it_answers() -> None:
    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(store_message(DATA, instance="2.25.123"))
        response = peer.read_response()

    assert response.MessageIDBeingRespondedTo == 7
    assert response.AffectedSOPInstanceUID == "2.25.123"
    assert response.AffectedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert response.CommandDataSetType == 0x0101


def test_answers_are_cut_for_a_peer_that_takes_small_pdus() -> None:
    with serving() as node, RawPeer(node.address) as peer:
        peer.associate(associate_request(max_pdu=64))
        peer.send(store_message(DATA))
        first = peer.read_pdu()

    assert len(first) <= 64 + 6
    assert not first[11] & LAST


def test_an_instance_larger_than_the_buffer_arrives_whole() -> None:
    data = bytes(range(251)) * 5000
    pieces = [data[start : start + 100_001] for start in range(0, len(data), 100_001)]

    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(p_data((1, COMMAND | LAST, store_command())))
        for piece in pieces[:-1]:
            peer.send(p_data((1, 0, piece)))
        peer.send(p_data((1, LAST, pieces[-1])))
        assert peer.read_response().Status == 0

    assert bytes(node.store.kept[0].data) == data


def test_the_store_tidies_after_the_answer() -> None:
    store = MemoryStore()
    store.may_tidy.clear()

    with serving(store) as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(store_message(DATA))
        assert peer.read_response().Status == 0
        assert store.tidied == []
        store.may_tidy.set()
        peer.send(store_message(DATA))
        assert peer.read_response().Status == 0
        assert eventually(lambda: store.tidied == store.kept)

    assert len(store.kept) == 2


@pytest.mark.parametrize("where", ["begin_error", "write_error", "commit_error"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StorageFullError("full"), 0xA700),
        (DiskFailedError("broken"), 0xA700),
        (UnreadableInstanceError("no series"), 0xC000),
        (InvalidUidError("slash"), 0x0117),
        (UidMismatchError("other"), 0xA900),
        (RuntimeError("a bug"), 0xC211),
    ],
)
def test_a_refusal_is_answered_with_its_status_and_the_association_goes_on(
    error: Exception, status: int, where: str
) -> None:
    store = MemoryStore()
    setattr(store, where, error)

    with serving(store) as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(p_data((1, COMMAND | LAST, store_command()), (1, 0, DATA), (1, LAST, DATA)))
        refused = peer.read_response()
        setattr(store, where, None)
        peer.send(store_message(DATA))
        accepted = peer.read_response()

    assert (refused.Status, accepted.Status) == (status, 0)
    assert len(store.kept) == 1
    assert len(store.abandoned) == (0 if where == "begin_error" else 1)
    assert store.tidied == store.kept


def test_a_refusal_is_logged_once_with_its_status(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(write_error=StorageFullError("no room"))

    with serving(store) as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(p_data((1, COMMAND | LAST, store_command()), (1, 0, DATA), (1, LAST, DATA)))
        peer.read_response()

    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["instance refused with A700: StorageFullError: 'no room'"]


def test_an_instance_that_is_too_large_is_refused_when_it_has_been_read() -> None:
    with serving(max_instance_bytes=1000) as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(p_data((1, COMMAND | LAST, store_command()), (1, 0, DATA), (1, LAST, DATA)))
        too_large = peer.read_response()
        peer.send(store_message(DATA))
        accepted = peer.read_response()

    assert (too_large.Status, accepted.Status) == (0xA700, 0)
    assert len(node.store.abandoned[0].data) <= 1000


def test_a_connection_lost_inside_an_instance_abandons_it() -> None:
    with serving() as node:
        with RawPeer(node.address) as peer:
            peer.associate()
            peer.send(p_data((1, COMMAND | LAST, store_command())))
            peer.send(p_data((1, 0, DATA))[:-100])
        assert eventually(lambda: node.store.closed)

    assert len(node.store.abandoned) == 1
    assert node.store.kept == []


@pytest.mark.parametrize("farewell", [ABORT, bytes.fromhex("05000000000400000000")])
def test_an_abort_or_release_inside_an_instance_abandons_it(farewell: bytes) -> None:
    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(p_data((1, COMMAND | LAST, store_command()), (1, 0, DATA)) + farewell)
        assert eventually(lambda: node.store.closed)

    assert len(node.store.abandoned) == 1


def command_set(*elements: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)


USER_ABORT = bytes.fromhex("07000000000400000000")
NO_DATASET = (0x0800, b"\1\1")


@pytest.mark.parametrize(
    ("pdus", "answer"),
    [
        pytest.param(
            p_data((1, 3, command_set((0x0100, b"\x99\x99"), (0x0110, b"\1\0"), NO_DATASET))),
            USER_ABORT,
            id="unknown command field",
        ),
        pytest.param(
            p_data((1, 3, command_set((0x0100, b"\x20\x00"), (0x0110, b"\1\0"), NO_DATASET))),
            USER_ABORT,
            id="C-FIND",
        ),
        pytest.param(
            p_data((1, 3, command_set((0x0110, b"\1\0"), NO_DATASET))),
            provider_abort(6),
            id="no command field",
        ),
        pytest.param(p_data((1, 3, b"\0\0\0")), provider_abort(6), id="cut element"),
        pytest.param(
            p_data((1, 3, b"\0\0\0\1\xff\xff\xff\xff")), provider_abort(6), id="endless element"
        ),
        pytest.param(p_data((1, 3, b"\x10\0\x10\0\0\0\0\0")), provider_abort(6), id="other group"),
        pytest.param(p_data((9, 3, echo_command())), provider_abort(6), id="context not proposed"),
        pytest.param(p_data((1, LAST, DATA)), USER_ABORT, id="data without command"),
        pytest.param(
            p_data((1, 3, store_command()), (1, 0, DATA), (3, 3, echo_command())),
            USER_ABORT,
            id="command inside of data",
        ),
        pytest.param(
            p_data((1, 3, store_command()), (3, 0, DATA)), provider_abort(6), id="data elsewhere"
        ),
        pytest.param(
            p_data((1, 1, store_command()[:50]), (3, 3, store_command()[50:])),
            provider_abort(6),
            id="command in two contexts",
        ),
        pytest.param(
            b"".join(p_data((1, 1, bytes(60_000))) for _ in range(2)),
            provider_abort(6),
            id="endless command",
        ),
        pytest.param(bytes.fromhex("04000000000400000001"), provider_abort(6), id="short PDV"),
        pytest.param(
            bytes.fromhex("0400000000080000000101030000"), provider_abort(6), id="PDV of one byte"
        ),
        pytest.param(
            bytes.fromhex("040000000006000000ff0103"), provider_abort(6), id="PDV beyond its PDU"
        ),
        pytest.param(bytes.fromhex("040000000000"), provider_abort(6), id="empty P-DATA"),
        pytest.param(bytes.fromhex("0400ffffffff"), provider_abort(6), id="PDU of 4 GiB"),
        pytest.param(bytes.fromhex("0500ffffffff"), provider_abort(6), id="release of 4 GiB"),
        pytest.param(bytes.fromhex("99000000000400000000"), provider_abort(0), id="unknown PDU"),
        pytest.param(associate_request(), provider_abort(0), id="second association request"),
    ],
)
def test_what_breaks_the_protocol_ends_in_an_abort(pdus: bytes, answer: bytes) -> None:
    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(pdus)
        received = [peer.read_pdu()]
        peer.socket.close()
        assert eventually(lambda: node.store.closed)

    assert received == [answer]
    assert node.store.kept == []


def test_an_abort_reaches_a_peer_that_has_sent_much_more() -> None:
    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(p_data((1, LAST, DATA)) + bytes(300_000))
        answer = peer.read_pdu()

    assert answer == USER_ABORT


def test_a_peer_that_reads_no_answers_is_dropped() -> None:
    echoes = p_data((3, COMMAND | LAST, echo_command())) * 500

    with serving(pdu_seconds=0.3) as node, RawPeer(node.address) as peer:
        peer.associate()
        while not node.store.closed:
            with contextlib.suppress(ConnectionError):
                peer.send(echoes)

    assert node.store.closed == node.store.opened


def test_a_cancel_request_finds_nothing_to_cancel() -> None:
    cancel = command_set((0x0100, b"\xff\x0f"), (0x0120, b"\1\0"), NO_DATASET)

    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(p_data((1, 3, cancel)))
        peer.send(store_message(DATA))
        response = peer.read_response()

    assert response.Status == 0


def test_a_store_without_a_dataset_is_not_understood() -> None:
    command = command_set((0x0100, b"\1\0"), (0x0110, b"\1\0"), NO_DATASET, (0x1000, b"2.25.1"))

    with serving() as node, RawPeer(node.address) as peer:
        peer.associate()
        peer.send(p_data((1, 3, command)))
        response = peer.read_response()

    assert response.Status == 0xC000
    assert node.store.kept == []
