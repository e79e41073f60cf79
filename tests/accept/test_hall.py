"""Who says nothing, or may not come, keeps nobody out who has something to say."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scp import tls
from scp.accept import listener as listeners
from scp.accept.association import StorageAssociation
from scp.accept.door import Door
from scp.accept.listener import Listener
from scp.accept.reader import PduReader
from scp.accept.seats import ALL, Seats, make_table
from scp.config.network import ListenerSection, ListenerTls
from scp.config.schema import AccessSection, LimitsSection, NodeSection, Peer
from tests.accept.raw_peer import RawPeer, associate_request, store_message
from tests.accept.stores import MemoryStore, Node, eventually, serving
from tests.accept.test_tls import TlsPeer
from tests.certificates import Authority

STRANGER, MODALITY = "127.0.0.9", "127.0.0.2"
HALL = 30
"""Smaller than it is, so that crowds may be, too."""
ONLY_MODALITY = AccessSection(anyone=False, peers=(Peer(address=MODALITY),))


@pytest.fixture(autouse=True)
def _small_hall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "HALL", HALL)


@contextlib.contextmanager
def silent(node: Node, count: int, source: str = "") -> Iterator[list[RawPeer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(RawPeer(node.address, source=source)) for _ in range(count)]


def store_one(node: Node, source: str = "") -> int:
    """The status that an instance gets, from an association of its own."""
    with RawPeer(node.address, source=source) as peer:
        peer.socket.settimeout(30)
        peer.associate()
        peer.send(store_message(b"data"))
        status: int = peer.read_response().Status
        peer.release()
        return status


@pytest.mark.parametrize(
    ("access", "source"), [(ONLY_MODALITY, STRANGER), (AccessSection(), STRANGER)]
)
def test_a_crowd_that_says_nothing_keeps_nobody_out(access: AccessSection, source: str) -> None:
    with (
        serving(access=access, max_associations=4, handshake_seconds=60) as node,
        RawPeer(node.address, source=MODALITY) as before,
    ):
        before.associate()
        with silent(node, 3 * HALL, source):
            assert store_one(node, MODALITY) == 0
            before.send(store_message(b"data", instance="2.25.1"))
            assert before.read_response().Status == 0


def test_one_address_that_says_nothing_leaves_another_in_peace() -> None:
    with (
        serving(handshake_seconds=60) as node,
        RawPeer(node.address, source=MODALITY) as slow,
        silent(node, 2 * HALL, STRANGER),
    ):
        assert store_one(node, STRANGER) == 0

        slow.associate()


def test_who_says_nothing_has_no_seat() -> None:
    with serving(max_associations=1, busy_seconds=0) as node, silent(node, 5):
        assert store_one(node) == 0
        assert eventually(lambda: node.listener.open_associations == 0)


def test_who_is_not_known_has_no_seat_and_is_told_so() -> None:
    with (
        serving(access=ONLY_MODALITY, max_associations=1, busy_seconds=0) as node,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(5):
            peer = stack.enter_context(RawPeer(node.address, source=STRANGER))
            peer.send(associate_request())
            assert peer.read_pdu()[:10] == b"\3\0\0\0\0\4\0\1\1\3"
        assert store_one(node, MODALITY) == 0


def test_a_crowd_in_its_tls_handshakes_keeps_nobody_out(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue()
    trusts = tls.client_context(ca=authority.file, certificate=None, key=None, check_host=True)
    port = ListenerSection(port=0, tls=ListenerTls(certificate=certificate, key=key))

    with (
        serving(ports=[port], handshake_seconds=60) as node,
        silent(node, 3 * HALL),
        TlsPeer(node.address, trusts) as peer,
    ):
        peer.associate()
        peer.release()


def test_who_has_said_something_that_is_not_read_yet_is_not_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_start = threading.Event()
    looks: list[bool] = []
    run, has_unread = StorageAssociation.run_reactor, PduReader.has_unread.fget  # type: ignore[attr-defined]

    def late(association: StorageAssociation) -> None:
        assert may_start.wait(20)
        run(association)

    def look(reader: PduReader) -> bool:
        looks.append(has_unread(reader))
        return looks[-1]

    monkeypatch.setattr(listeners, "HALL", 4)
    monkeypatch.setattr(listeners, "GRACE_SECONDS", 60.0)
    monkeypatch.setattr(StorageAssociation, "run_reactor", late)
    monkeypatch.setattr(PduReader, "has_unread", property(look))
    with serving() as node, silent(node, 4) as peers:
        for peer in peers:
            peer.send(associate_request())
        monkeypatch.setattr(listeners, "GRACE_SECONDS", 0.0)
        node.listener._wake_up()
        with RawPeer(node.address) as fifth:
            fifth.send(associate_request())
            assert eventually(lambda: looks[-4:] == [True] * 4)
            may_start.set()

            assert [peer.read_pdu()[:1] for peer in (*peers, fifth)] == [b"\2"] * 5


def test_who_waits_for_a_seat_is_not_sent_away_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "HALL", 2)
    monkeypatch.setattr(listeners, "GRACE_SECONDS", 60.0)

    def comes_in(peer: RawPeer) -> bool:
        came = peer.read_pdu()[:1] == b"\2"
        peer.release()
        peer.socket.close()
        return came

    with (
        serving(max_associations=1, busy_seconds=60) as node,
        RawPeer(node.address) as first,
        ThreadPoolExecutor(3) as pool,
    ):
        first.associate()
        with silent(node, 2) as waiting, RawPeer(node.address) as third:
            for peer in waiting:
                peer.send(associate_request())
            assert eventually(lambda: have_asked(node) == [True, True])
            monkeypatch.setattr(listeners, "GRACE_SECONDS", 0.0)
            node.listener._wake_up()
            third.send(associate_request())
            third.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                third.read_pdu()
            monkeypatch.setattr(listeners, "GRACE_SECONDS", 60.0)
            third.socket.settimeout(10)
            first.release()
            first.socket.close()

            assert list(pool.map(comes_in, [*waiting, third])) == [True] * 3


def have_asked(node: Node) -> list[bool]:
    with node.listener._changed:
        return [each._has_asked for each in node.listener._hall]


def test_a_seat_that_another_receiver_was_faster_to_take_is_waited_for() -> None:
    table = make_table(1)
    faster = Seats(table, owner=2)

    class Late(Seats):
        def take(self, of: str, most: int | None) -> bool:
            if of == ALL and not taken:
                taken.append(faster.take(ALL, 1))
            return super().take(of, most)

    taken: list[bool] = []
    listening = socket.create_server(("127.0.0.1", 0))
    listener = Listener(
        [Door(listening, ListenerSection(port=0))],
        MemoryStore(),
        NodeSection(),
        AccessSection(),
        LimitsSection(max_associations=1, busy_seconds=60),
        seats=Late(table),
        is_alone=False,
    )
    thread = threading.Thread(target=listener.serve)
    thread.start()
    try:
        with RawPeer(listening.getsockname()) as peer:
            peer.send(associate_request())
            peer.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.read_pdu()
            peer.socket.settimeout(10)
            faster.leave(ALL)

            assert peer.read_pdu()[:1] == b"\2"
    finally:
        listener.stop()
        thread.join(10)
        listener.drain(0)
    assert taken == [True]


def test_a_node_that_stops_does_not_wait_for_seats() -> None:
    with (
        serving(max_associations=1, busy_seconds=600) as node,
        RawPeer(node.address) as first,
        RawPeer(node.address) as second,
    ):
        first.associate()
        second.send(associate_request())
        assert eventually(lambda: have_asked(node) == [True])
        node.listener.stop()
        node.thread.join(10)

        assert node.listener.drain(0) == 2
        assert second.read_pdu()[:1] == b"\7"
