"""kill -9, and SIGSTOP for a hang, of each process of a node."""

import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.accept.raw_peer import RawPeer
from tests.e2e.judges import assert_converted, dataset_bytes
from tests.e2e.node import LIKE_THE_FIRST_OF_A_CONTAINER, RunningNode, is_alive, until
from tests.e2e.peers import first_half
from tests.material import ct_series, mr_series, radiograph, write_all

pytestmark = pytest.mark.xdist_group("e2e process deaths")

DEADLINE_SECONDS = 6.0
"""For a conversion: long enough for a worker to start meanwhile on a busy machine."""


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node whose processes are killed under it, one test after the other."""
    running = RunningNode(
        tmp_path_factory.mktemp("killable") / "node",
        {"codec": {"deadline_seconds": DEADLINE_SECONDS}, "series": {"quiet_seconds": 0.5}},
    )
    running.start(through=LIKE_THE_FIRST_OF_A_CONTAINER)
    yield running
    running.close()


def test_a_receiver_that_is_killed_is_replaced_and_what_it_had_begun_is_forgotten(
    killable: RunningNode, tmp_path: Path
) -> None:
    whole, begun, later = write_all(ct_series(3, 64, 64, seed=11), tmp_path / "ct")
    before = killable.wait_idle()
    killable.send([whole])
    (receiver,) = killable.processes("scp.pipeline.receiver")
    with RawPeer(("127.0.0.1", killable.port)) as peer:
        peer.associate()
        peer.send(first_half(begun))
        until(lambda: killable.arriving_bytes() > 0, "nothing is arriving")
        os.kill(receiver, signal.SIGKILL)
        assert peer.read_until_closed() == []

    until(lambda: _replaced(killable, "scp.pipeline.receiver", receiver), "no new receiver")
    killable.send([later])

    killable.wait_for(delivered=before["delivered"] + 2, pending=0)
    assert killable.arriving_bytes() == 0
    assert not killable.delivered(pydicom.dcmread(begun)).exists()


def test_a_coordinator_that_is_killed_goes_on_with_what_the_folders_say(
    killable: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(6, 128, 128, seed=12), tmp_path / "ct")
    before = killable.wait_idle()
    killable.send(paths)
    (coordinator,) = killable.processes("scp.pipeline.coordinator")

    os.kill(coordinator, signal.SIGKILL)

    until(lambda: _replaced(killable, "scp.pipeline.coordinator", coordinator), "not replaced")
    until(killable.is_ready, "the node does not answer again")
    killable.wait_for(delivered=before["delivered"] + 6, pending=0)
    assert len({path.name for path in killable.archived()} & {path.name for path in paths}) == 6
    assert not [path for path in killable.archived() if "~" in path.name]


def test_a_coordinator_that_is_killed_while_it_recovers_is_started_once_more(
    killable: RunningNode, tmp_path: Path
) -> None:
    before = killable.wait_idle()
    killable.send(write_all(ct_series(1, 64, 64, seed=15), tmp_path / "ct"))
    killable.wait_for(delivered=before["delivered"] + 1)  # Its worker does not only start yet.
    (killed,) = killable.processes("scp.pipeline.coordinator")
    first = set(killable.processes())
    os.kill(killed, signal.SIGKILL)

    until(lambda: _replaced(killable, "scp.pipeline.coordinator", killed), "not replaced")
    # What it has just forked still goes by its name.
    recovering, *_ = killable.processes("scp.pipeline.coordinator")
    os.kill(recovering, signal.SIGKILL)

    until(lambda: _replaced(killable, "scp.pipeline.coordinator", recovering), "not replaced")
    until(killable.is_ready, "the node does not answer again")
    # Workers died with the first, and fell to the supervisor.
    assert all(map(is_alive, first & set(killable.processes()))), "a dead process was not reaped"


def test_a_coordinator_that_is_killed_finds_a_cache_that_somebody_deleted(
    killable: RunningNode,
) -> None:
    (killed,) = killable.processes("scp.pipeline.coordinator")
    shutil.rmtree(killable.data / "spool" / "encoded")

    os.kill(killed, signal.SIGKILL)

    until(lambda: _replaced(killable, "scp.pipeline.coordinator", killed), "not replaced")
    until(killable.is_ready, "the node does not answer again")


def test_a_receiver_that_cannot_be_started_again_is_started_later(
    killable: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(1, 64, 64, seed=18), tmp_path / "ct")
    before = killable.wait_idle()
    most = resource.prlimit(killable.pid, resource.RLIMIT_NOFILE)
    (receiver,) = killable.processes("scp.pipeline.receiver")
    resource.prlimit(killable.pid, resource.RLIMIT_NOFILE, (3, most[1]))

    os.kill(receiver, signal.SIGKILL)

    until(lambda: "cannot be started: Too many open files" in killable.log(), "it was started")
    resource.prlimit(killable.pid, resource.RLIMIT_NOFILE, most)
    until(lambda: _replaced(killable, "scp.pipeline.receiver", receiver), "no new receiver")
    killable.send(paths)
    killable.wait_for(delivered=before["delivered"] + 1, pending=0)


def test_a_worker_that_is_killed_at_work_is_replaced_and_its_task_done_again(
    killable: RunningNode, tmp_path: Path
) -> None:
    (path,) = write_all([radiograph(1500, 1500, seed=13)], tmp_path / "dx")
    before = killable.wait_idle()
    (worker,) = killable.processes("scp.pipeline.worker")
    killable.send([path])
    until(lambda: killable.status()["workers"]["busy"] == 1, "the worker has nothing to do")

    os.kill(worker, signal.SIGKILL)

    after = killable.wait_for(delivered=before["delivered"] + 1, pending=0)
    assert after["workers"]["replaced"] == before["workers"]["replaced"] + 1
    assert_converted(path, killable.delivered(pydicom.dcmread(path)))


def test_a_task_that_took_two_workers_is_given_up_and_the_original_delivered(
    killable: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(mr_series(2, 64, 64, seed=14), tmp_path / "mr")
    before = killable.wait_idle()
    _stop_workers(killable)
    killable.send(paths[:1])
    until(lambda: killable.status()["workers"]["busy"] == 1, "the worker has nothing to do")

    for _ in range(2):
        (worker,) = killable.processes("scp.pipeline.worker")
        os.kill(worker, signal.SIGKILL)
        until(lambda worker=worker: not is_alive(worker), "it lives")  # type: ignore[misc]
        until(lambda: killable.processes("scp.pipeline.worker") != [], "no new worker")

    after = killable.wait_for(delivered=before["delivered"] + 1, pending=0)
    assert after["reasons"]["worker_lost"] == before["reasons"].get("worker_lost", 0) + 1
    delivered = killable.delivered(pydicom.dcmread(paths[0]))
    assert dataset_bytes(delivered) == dataset_bytes(paths[0])


def test_a_worker_that_hangs_is_killed_at_the_deadline(
    killable: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(mr_series(2, 64, 64, seed=15), tmp_path / "mr")
    before = killable.wait_idle()
    _stop_workers(killable)

    killable.send(paths[:1])
    hung = killable.processes("scp.pipeline.worker")
    until(lambda: not any(map(is_alive, hung)), "the hung worker lives", 3 * DEADLINE_SECONDS)
    _stop_workers(killable)

    after = killable.wait_for(delivered=before["delivered"] + 1, pending=0)
    assert after["reasons"]["deadline"] == before["reasons"].get("deadline", 0) + 1
    delivered = killable.delivered(pydicom.dcmread(paths[0]))
    assert dataset_bytes(delivered) == dataset_bytes(paths[0])


def test_after_all_that_it_still_converts(killable: RunningNode, tmp_path: Path) -> None:
    paths = write_all(ct_series(2, 64, 64, seed=16), tmp_path / "ct")
    before = killable.wait_idle()

    killable.send(paths)

    killable.wait_for(delivered=before["delivered"] + 2, converted=before["converted"] + 2)


def _replaced(node: RunningNode, module: str, old: int) -> bool:
    found = node.processes(module)
    return bool(found) and old not in found


def _stop_workers(node: RunningNode) -> None:
    """Freeze every worker: whatever they are given from now on, they hang."""
    until(lambda: node.processes("scp.pipeline.worker") != [], "there is no worker")
    for worker in node.processes("scp.pipeline.worker"):
        os.kill(worker, signal.SIGSTOP)
