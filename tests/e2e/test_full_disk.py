"""A spool without room: peers are told to come back, nothing acknowledged is lost, the node lives."""

import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from scp.deliver.send import send_files
from scp.errors import PeerUnavailableError
from tests.e2e.disks import MEGABYTE, SmallDisk
from tests.e2e.judges import assert_converted, dataset_bytes
from tests.e2e.node import RunningNode, no_decoding, until
from tests.material import ct_series, write_all

pytestmark = pytest.mark.xdist_group("e2e full disk")

NO_ROOM = "association rejected: temporary congestion (transient)"


@pytest.fixture(scope="module")
def cramped(
    small_disk: SmallDisk, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningNode]:
    """A node whose spool lies on the small disk, and its archive elsewhere."""
    node = RunningNode(
        tmp_path_factory.mktemp("cramped") / "node",
        {
            "node": {"data": str(small_disk.folder / "data")},
            "limits": {"reserve": "8MB"},
            "series": {"quiet_seconds": 1.0},
            "rules": [
                {
                    "name": "original",
                    "match": {"called_ae_title": "ORIGINAL"},
                    "convert": "original",
                    "send_to": ["archive"],
                }
            ],
        },
    ).start()
    yield node
    node.close()


def sent_as_far_as_it_goes(node: RunningNode, paths: list[Path]) -> tuple[list[Path], set[str]]:
    """What was acknowledged, and what the node said to the rest. No faster than a scanner."""
    taken: list[Path] = []
    said: set[str] = set()
    for path in paths:
        try:
            (receipt,) = send_files([path], node.peer(), no_decoding)
        except PeerUnavailableError as error:
            said.add(str(error))
        else:
            if receipt.status == "0000":
                taken.append(path)
            else:
                said.add(receipt.status)
        time.sleep(0.01)
    return taken, said


def test_below_the_reserve_peers_are_told_to_come_back(
    cramped: RunningNode, small_disk: SmallDisk, tmp_path: Path
) -> None:
    paths = write_all(ct_series(40, 512, 512, seed=601), tmp_path / "ct")
    before = cramped.wait_idle()
    small_disk.leave(14 * MEGABYTE)

    taken, said = sent_as_far_as_it_goes(cramped, paths)

    assert 0 < len(taken) < len(paths)
    assert said <= {"A700", NO_ROOM}
    # Without room for conversions the originals are delivered, which need none.
    cramped.wait_for(delivered=before["delivered"] + len(taken), pending=0)
    small_disk.give_back()
    rest = [path for path in paths if path not in taken]
    cramped.send(rest)
    after = cramped.wait_for(delivered=before["delivered"] + len(paths), pending=0)
    assert after["reasons"] == {"no_room": len(taken)}
    for path in taken:
        delivered = cramped.delivered(pydicom.dcmread(path, stop_before_pixels=True))
        assert dataset_bytes(delivered) == dataset_bytes(path)
    for path in rest:
        assert_converted(path, cramped.delivered(pydicom.dcmread(path, stop_before_pixels=True)))


def test_without_room_associations_are_rejected_for_now(
    cramped: RunningNode, small_disk: SmallDisk, tmp_path: Path
) -> None:
    paths = write_all(ct_series(1, 64, 64, seed=602), tmp_path / "ct")
    small_disk.leave(MEGABYTE)

    taken, said = sent_as_far_as_it_goes(cramped, paths)

    small_disk.give_back()
    assert taken == []
    assert said == {NO_ROOM}


def test_a_disk_without_a_byte_left_delays_what_was_acknowledged_and_loses_none_of_it(
    cramped: RunningNode, small_disk: SmallDisk, tmp_path: Path
) -> None:
    converted = write_all(ct_series(4, 256, 256, seed=603), tmp_path / "ct")
    kept = write_all(ct_series(4, 256, 256, seed=604), tmp_path / "original")
    before = cramped.wait_idle()
    cramped.send(converted)
    cramped.send(kept, ae_title="ORIGINAL")

    small_disk.fill()

    # Long enough for the series to be due, and for every step to be tried and to fail.
    until(lambda: "tried again" in cramped.log() or "No space left" in cramped.log(), cramped.log)
    time.sleep(2.5)
    assert "coordinator ended" not in cramped.log()
    assert cramped.status()["received"] == before["received"] + 8
    small_disk.give_back()
    cramped.wait_for(delivered=before["delivered"] + 8, pending=0)
    cramped.settle()
    for path in kept:
        delivered = cramped.delivered(pydicom.dcmread(path, stop_before_pixels=True))
        assert dataset_bytes(delivered) == dataset_bytes(path)
    later = write_all(ct_series(2, 64, 64, seed=605), tmp_path / "later")
    cramped.send(later)
    cramped.wait_for(delivered=before["delivered"] + 10, pending=0)
