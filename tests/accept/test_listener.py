"""Capacity, stopping and draining."""

import contextlib
import errno
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from scp.accept.door import Door
from scp.accept.listener import GIVE_WAY_SECONDS, Listener
from scp.config.network import ListenerSection
from scp.config.schema import AccessSection, LimitsSection, NodeSection
from tests.accept.raw_peer import (
    ABORT,
    COMMAND,
    LAST,
    RawPeer,
    associate_request,
    p_data,
    store_command,
    store_message,
)
from tests.accept.stores import MemoryStore, eventually, serving


def test_thirty_associations_send_at_once() -> None:
    everyone_is_in = threading.Barrier(30)

    def send(number: int) -> list[int]:
        with RawPeer(node.address) as peer:
            peer.associate()
            everyone_is_in.wait(30)
            statuses = []
            for index in range(3):
                peer.send(store_message(bytes(10_000), instance=f"2.25.{number}.{index}"))
                statuses.append(peer.read_response().Status)
            peer.release()
        return statuses

    with serving() as node, ThreadPoolExecutor(30) as pool:
        statuses = list(pool.map(send, range(30)))

    assert statuses == [[0, 0, 0]] * 30
    assert len({kept.request.sop_instance_uid for kept in node.store.kept}) == 90


def test_a_full_listener_lets_others_wait_until_one_leaves() -> None:
    with (
        serving(max_associations=2) as node,
        RawPeer(node.address) as first,
        RawPeer(node.address) as second,
        RawPeer(node.address) as third,
    ):
        first.associate()
        second.associate()
        third.send(associate_request())
        third.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            third.read_pdu()
        assert node.listener.open_associations == 2
        first.release()
        first.socket.close()
        third.socket.settimeout(10)

        assert third.read_pdu()[0] == 2


@pytest.mark.parametrize("is_alone", [True, False])
def test_only_a_receiver_that_is_not_alone_leaves_connections_to_others(
    monkeypatch: pytest.MonkeyPatch, is_alone: bool
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("scp.accept.listener.time.sleep", waits.append)

    with serving(is_alone=is_alone) as node, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(RawPeer(node.address)).associate()

    # With one of one it takes the next; two of two and three of three are too many.
    assert waits.count(GIVE_WAY_SECONDS) == (0 if is_alone else 2)


def test_a_connection_that_there_is_no_memory_for_takes_no_seat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with serving(max_associations=1) as node:
        with monkeypatch.context() as failing:
            failing.setattr("scp.accept.reader.mmap.mmap", no_memory)
            with RawPeer(node.address) as refused:
                assert refused.read_until_closed() == []

        with RawPeer(node.address) as peer:
            peer.associate()
            peer.release()


def test_a_descriptor_stops_it() -> None:
    reading, writing = os.pipe()
    try:
        with serving(stop_descriptors=(reading,)) as node:
            os.write(writing, b"x")
            node.thread.join(10)

            assert not node.thread.is_alive()
    finally:
        os.close(reading)
        os.close(writing)


def test_a_stop_before_serving_is_not_lost() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    door = Door(listening, ListenerSection(port=0))
    listener = Listener([door], MemoryStore(), NodeSection(), AccessSection(), LimitsSection())
    listener.stop()

    listener.serve()

    assert listener.drain(0) == 0


def test_draining_closes_the_port() -> None:
    with serving() as node:
        node.listener.stop()
        node.thread.join(10)
        assert node.listener.drain(1) == 0

        with pytest.raises(ConnectionRefusedError):
            RawPeer(node.address)


def test_draining_lets_an_association_finish() -> None:
    with serving() as node, RawPeer(node.address) as peer, ThreadPoolExecutor(1) as pool:
        peer.associate()
        peer.send(p_data((1, COMMAND | LAST, store_command()), (1, 0, b"first ")))
        node.listener.stop()
        node.thread.join(10)
        drained = pool.submit(node.listener.drain, 30)
        peer.send(p_data((1, LAST, b"second")))
        status = peer.read_response().Status
        peer.release()
        peer.socket.close()

        assert drained.result(10) == 0

    assert status == 0
    assert bytes(node.store.kept[0].data) == b"first second"


def test_draining_aborts_what_is_left_at_the_deadline() -> None:
    with serving() as node, RawPeer(node.address) as idle, RawPeer(node.address) as busy:
        idle.associate()
        busy.associate()
        busy.send(p_data((1, COMMAND | LAST, store_command()), (1, 0, b"first ")))
        node.listener.stop()
        node.thread.join(10)

        aborted = node.listener.drain(0.1)

        assert aborted == 2
        assert idle.read_pdu() == ABORT
        assert busy.read_pdu() == ABORT
    assert eventually(lambda: len(node.store.closed) == 2)
    assert len(node.store.abandoned) == 1


def test_draining_does_not_wait_for_a_peer_that_only_keeps_its_association_open() -> None:
    with serving() as node, RawPeer(node.address) as idle, RawPeer(node.address) as busy:
        idle.associate()
        busy.associate()
        busy.send(p_data((1, COMMAND | LAST, store_command()), (1, 0, b"first ")))
        node.listener.stop()
        node.thread.join(10)
        with ThreadPoolExecutor(1) as pool:
            drained = pool.submit(node.listener.drain, 60)

            assert idle.read_pdu() == ABORT
            busy.send(p_data((1, LAST, b"second")))
            assert busy.read_response().Status == 0
            busy.release()
            busy.socket.close()

            assert drained.result(10) == 1


def test_what_is_being_committed_at_the_deadline_is_still_answered() -> None:
    store = MemoryStore()
    store.may_commit.clear()

    with serving(store) as node, RawPeer(node.address) as peer, ThreadPoolExecutor(1) as pool:
        peer.associate()
        peer.send(store_message(b"data"))
        assert store.is_committing.wait(10)
        node.listener.stop()
        node.thread.join(10)
        drained = pool.submit(node.listener.drain, 0)
        with pytest.raises(TimeoutError):
            drained.result(0.2)
        store.may_commit.set()
        status = peer.read_response().Status

        assert peer.read_pdu() == ABORT
        assert drained.result(10) == 1
    assert status == 0
    assert len(store.kept) == 1


def test_several_listeners_share_one_socket() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    store = MemoryStore()
    listeners = [
        Listener(
            [Door(listening.dup(), ListenerSection(port=0))],
            store,
            NodeSection(),
            AccessSection(),
            LimitsSection(),
        )
        for _ in range(2)
    ]
    threads = [threading.Thread(target=listener.serve) for listener in listeners]
    for thread in threads:
        thread.start()

    for _ in range(10):
        with RawPeer(listening.getsockname()) as peer:
            peer.associate()
            peer.release()

    for listener, thread in zip(listeners, threads, strict=True):
        listener.stop()
        thread.join(10)
        assert listener.drain(5) == 0
    listening.close()
    assert len(store.opened) == 10


def test_two_hundred_open_at_once_are_served() -> None:
    with serving() as node, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(node.address)) for _ in range(200)]
        for peer in peers:
            peer.associate()

        for number, peer in enumerate(peers):
            peer.send(store_message(b"some bytes", instance=f"2.25.{number}"))
        statuses = {peer.read_response().Status for peer in peers}

        assert statuses == {0x0000}
        assert node.listener.open_associations == 200
    assert len(node.store.kept) == 200
