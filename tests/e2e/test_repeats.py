"""The same dataset again, and another one under the same UID."""

import threading
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from scp.ledger.ports import State
from tests.e2e.judges import assert_converted
from tests.e2e.ledger import rows_of
from tests.e2e.node import RunningNode
from tests.material import ct_series, write_all

pytestmark = pytest.mark.xdist_group("shared node")


def files_of(node: RunningNode, paths: list[Path]) -> list[str]:
    """Names in the series' folder of the archive."""
    return sorted(path.name for path in node.delivered(pydicom.dcmread(paths[0])).parent.iterdir())


def states_of(node: RunningNode, paths: list[Path]) -> Counter[State]:
    return Counter(row.state for row in rows_of(node, paths))


def test_a_series_sent_again_while_it_is_open_is_one_series(
    shared_node: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(4, 32, 32, seed=101), tmp_path)
    before = shared_node.status()

    shared_node.send(paths)
    shared_node.send(paths)

    shared_node.settle()
    after = shared_node.status()
    assert files_of(shared_node, paths) == sorted(path.name for path in paths)
    assert after["received"] - before["received"] == 4
    assert after["repeats"] - before["repeats"] == 4
    assert states_of(shared_node, paths) == {State.DELIVERED: 4}


def test_what_comes_under_two_titles_goes_where_the_rules_of_both_say(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("archive", "research")}
    node = RunningNode(
        tmp_path / "node",
        {
            "destinations": {
                name: {"kind": "folder", "path": str(folder)} for name, folder in folders.items()
            },
            "rules": [
                {
                    "name": "research",
                    "match": {"called_ae_title": "RESEARCH"},
                    "send_to": ["archive", "research"],
                }
            ],
        },
    ).start()
    paths = write_all(ct_series(4, 32, 32, seed=109), tmp_path / "ct")

    for title in ("DCMPRESS", "RESEARCH", "RESEARCH"):
        node.send(paths, ae_title=title)

    node.wait_for(delivered=8, pending=0)
    node.settle()
    for folder in folders.values():
        assert len([path for path in folder.rglob("*") if path.is_file()]) == 4
    node.close()


def test_a_series_sent_again_after_its_delivery_is_a_repeat(
    shared_node: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(4, 32, 32, seed=102), tmp_path)
    before = shared_node.status()
    shared_node.send(paths)
    shared_node.settle()

    shared_node.send(paths)

    shared_node.settle()
    after = shared_node.status()
    assert files_of(shared_node, paths) == sorted(path.name for path in paths)
    assert after["received"] - before["received"] == 4
    assert after["repeats"] - before["repeats"] == 4
    assert states_of(shared_node, paths) == {State.DELIVERED: 4, State.REPEAT: 4}


def test_the_same_dataset_in_implicit_vr_is_a_repeat(
    shared_node: RunningNode, tmp_path: Path
) -> None:
    explicit = write_all(ct_series(2, 32, 32, seed=103), tmp_path / "explicit")
    implicit = write_all(ct_series(2, 32, 32, seed=103), tmp_path / "implicit")
    for path in implicit:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)

    shared_node.send(implicit)
    shared_node.send(explicit)

    shared_node.settle()
    assert files_of(shared_node, explicit) == sorted(path.name for path in explicit)
    assert states_of(shared_node, explicit) == {State.DELIVERED: 2, State.REPEAT: 2}


@pytest.mark.parametrize("is_open", [True, False], ids=["while it is open", "after its delivery"])
def test_other_pixels_under_the_same_uid_are_delivered_too(
    shared_node: RunningNode, tmp_path: Path, *, is_open: bool
) -> None:
    (first,) = write_all(ct_series(1, 32, 32, seed=104 + is_open), tmp_path / "first")
    dataset = pydicom.dcmread(first)
    dataset.PixelData = bytes(len(dataset.PixelData))
    (tmp_path / "second").mkdir()
    second = tmp_path / "second" / first.name
    dataset.save_as(second)

    shared_node.send([first])
    if not is_open:
        shared_node.settle()
    shared_node.send([second])

    shared_node.settle()
    delivered = shared_node.delivered(dataset)
    numbered = delivered.with_name(f"{delivered.stem}~2.dcm")
    assert files_of(shared_node, [first]) == sorted([delivered.name, numbered.name])
    assert_converted(first, delivered)
    assert_converted(second, numbered)
    rows = rows_of(shared_node, [first])
    assert [(row.state, row.is_conflict) for row in rows] == [
        (State.DELIVERED, False),
        (State.DELIVERED, True),
    ]


def test_two_associations_with_the_same_series_make_one(
    shared_node: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(20, 32, 32, seed=106), tmp_path)
    before = shared_node.status()
    failures: list[BaseException] = []

    def send(calling: str) -> None:
        try:
            shared_node.send(paths, calling_ae_title=calling)
        except BaseException as failure:
            failures.append(failure)

    senders = [threading.Thread(target=send, args=(name,)) for name in ("FIRST", "SECOND")]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    shared_node.settle()
    assert failures == []
    assert files_of(shared_node, paths) == sorted(path.name for path in paths)
    assert shared_node.status()["received"] - before["received"] == 20
