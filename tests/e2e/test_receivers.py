"""Several receivers behind one port: one of them dies, and together they are one node."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.accept.raw_peer import LAST, RawPeer, associate_request, p_data
from tests.e2e.judges import assert_converted, dataset_bytes
from tests.e2e.node import RunningNode, until
from tests.e2e.peers import first_half
from tests.material import ct_series, write_all

pytestmark = pytest.mark.xdist_group("e2e receivers")

A_ASSOCIATE_RJ = 3
RECEIVERS = ("r0", "r1")
PEERS = 8


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """With two receivers, and room for just as many associations as are opened at once."""
    running = RunningNode(
        tmp_path_factory.mktemp("receivers") / "node",
        {
            "node": {"receivers": len(RECEIVERS)},
            "limits": {"max_associations": PEERS, "busy_seconds": 10},
        },
    ).start()
    yield running
    running.close()


def begin(node: RunningNode, paths: list[Path], stack: contextlib.ExitStack) -> list[RawPeer]:
    """An association each, all in the middle of their instances, half of them with each receiver.

    Who accepts is for the receivers to settle: so one of them stands still meanwhile.
    """
    until(
        lambda: len(node.processes("scp.pipeline.receiver")) == len(RECEIVERS), "a receiver lacks"
    )
    receivers = node.processes("scp.pipeline.receiver")
    half = len(paths) // len(receivers)
    peers: list[RawPeer] = []
    for number in range(len(receivers)):
        others = receivers[:number] + receivers[number + 1 :]
        with frozen(others):
            for path in paths[number * half : (number + 1) * half]:
                peer = stack.enter_context(RawPeer(("127.0.0.1", node.port)))
                peer.associate()
                peer.send(first_half(path))
                peers.append(peer)
            await_arriving(node, len(peers))
    assert all(node.arriving_bytes(receiver) for receiver in RECEIVERS)
    return peers


def await_arriving(node: RunningNode, count: int) -> None:
    until(lambda: arriving(node) == count, lambda: f"{arriving(node)} arrive, not {count}")


@contextlib.contextmanager
def frozen(processes: list[int]) -> Iterator[None]:
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def arriving(node: RunningNode) -> int:
    """How many instances are being received."""
    count = 0
    for receiver in RECEIVERS:
        for path in node.spool(f"incoming/{receiver}"):
            with contextlib.suppress(FileNotFoundError):  # given up in this moment
                count += path.stat().st_size > 0
    return count


def finish(peer: RawPeer, path: Path) -> bool:
    """Send the rest; whether it was acknowledged. False: its receiver is gone."""
    dataset = dataset_bytes(path)
    try:
        peer.send(p_data((1, LAST, dataset[len(dataset) // 2 :])))
        status: int = peer.read_response().Status
    except (AssertionError, ConnectionError):
        return False
    assert status == 0
    return True


def test_a_series_over_two_receivers_is_one_series(node: RunningNode, tmp_path: Path) -> None:
    paths = write_all(ct_series(PEERS, 64, 64, seed=21), tmp_path / "ct")
    before = node.wait_idle()

    with contextlib.ExitStack() as stack:
        for peer, path in zip(begin(node, paths, stack), paths, strict=True):
            assert finish(peer, path)

    node.wait_for(delivered=before["delivered"] + PEERS, pending=0)
    assert f"{PEERS} instances" in node.log()
    for path in paths:
        assert_converted(path, node.delivered(pydicom.dcmread(path)))


def test_one_that_is_killed_takes_nothing_with_it_but_what_it_was_receiving(
    node: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(PEERS, 64, 64, seed=22), tmp_path / "ct")
    before = node.wait_idle()
    victim, survivor = node.processes("scp.pipeline.receiver")

    with contextlib.ExitStack() as stack:
        peers = begin(node, paths, stack)
        os.kill(victim, signal.SIGKILL)
        acknowledged = [path for peer, path in zip(peers, paths, strict=True) if finish(peer, path)]
    assert 0 < len(acknowledged) < PEERS
    until(lambda: len(node.processes("scp.pipeline.receiver")) == 2, "no new receiver")
    assert survivor in node.processes("scp.pipeline.receiver")
    node.wait_for(delivered=before["delivered"] + len(acknowledged), pending=0)

    # What the dead one had taken of the places is free again: as many as before can come.
    with contextlib.ExitStack() as stack:
        for peer, path in zip(begin(node, paths, stack), paths, strict=True):
            assert finish(peer, path)
    node.wait_for(received=before["received"] + PEERS, pending=0)
    for path in paths:
        assert_converted(path, node.delivered(pydicom.dcmread(path)))


def test_associations_are_counted_over_all_receivers(node: RunningNode, tmp_path: Path) -> None:
    paths = write_all(ct_series(PEERS, 64, 64, seed=23), tmp_path / "ct")

    with contextlib.ExitStack() as stack:
        peers = begin(node, paths, stack)
        with RawPeer(("127.0.0.1", node.port)) as one_too_many:
            one_too_many.send(associate_request())
            one_too_many.socket.settimeout(20)
            assert one_too_many.read_pdu()[0] == A_ASSOCIATE_RJ
        assert all(finish(peer, path) for peer, path in zip(peers, paths, strict=True))

    node.wait_idle()


def test_when_the_node_stops_each_finishes_what_it_receives(
    node: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(PEERS, 64, 64, seed=24), tmp_path / "ct")
    before = node.wait_idle()

    with contextlib.ExitStack() as stack:
        peers = begin(node, paths, stack)
        os.kill(node.pid, signal.SIGTERM)
        for peer, path in zip(peers, paths, strict=True):
            assert finish(peer, path)
            peer.release()
    assert node.wait() == 0
    node.start()

    node.wait_for(received=before["received"] + PEERS, pending=0)
