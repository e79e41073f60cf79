"""What every kind of destination does, tried with a real peer of each."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from scp.deliver.ports import Destination, Receipt, Verdict
from scp.errors import DeliveryError, PeerUnavailableError
from scp.model import DeliveryItem
from tests.deliver.files import EXPLICIT, item_for, save
from tests.deliver.places import KINDS, Place
from tests.material import ct_series


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def place(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with KINDS[kind](tmp_path_factory.mktemp(kind)) as place:
        yield place


def items_in(folder: Path, seed: int, count: int = 3, rows: int = 32) -> list[DeliveryItem]:
    folder.mkdir(exist_ok=True)
    return [
        item_for(save(dataset, folder / f"{seed}-{index}.dcm"))
        for index, dataset in enumerate(ct_series(count, rows, rows, seed=seed))
    ]


def deliver(destination: Destination, items: list[DeliveryItem]) -> list[Receipt]:
    return list(destination.deliver(items, lambda: False))


def uid(item: DeliveryItem) -> str:
    return item.identity.sop_instance_uid


def test_every_instance_arrives_byte_for_byte_and_has_a_receipt(
    place: Place, tmp_path: Path
) -> None:
    items = items_in(tmp_path, 1)

    receipts = deliver(place.new(), items)

    assert [r.instance for r in receipts] == [item.instance for item in items]
    assert {r.verdict for r in receipts} == {Verdict.DELIVERED}
    assert {r.transfer_syntax for r in receipts} == {EXPLICIT}
    for item in items:
        assert place.stored(uid(item)) == [place.bytes_of(item.path)]


def test_what_is_delivered_again_is_there_once(place: Place, tmp_path: Path) -> None:
    items = items_in(tmp_path, 2)
    deliver(place.new(), items)

    receipts = deliver(place.new(), items)

    assert all(r.verdict.is_done for r in receipts)
    for item in items:
        assert place.stored(uid(item)) == [place.bytes_of(item.path)]


def test_another_dataset_under_a_uid_that_is_taken_replaces_nothing(
    place: Place, tmp_path: Path
) -> None:
    (first,) = items_in(tmp_path, 3, count=1)
    deliver(place.new(), [first])
    dataset = pydicom.dcmread(first.path)
    dataset.InstanceNumber = 77
    second = replace(item_for(save(dataset, tmp_path / "second.dcm")), is_conflict=True)

    (receipt,) = deliver(place.new(), [second])

    kept = place.stored(uid(first))
    assert place.bytes_of(first.path) in kept
    if receipt.verdict is Verdict.DELIVERED and len(kept) > 1:
        assert receipt.detail.startswith("conflict")
        assert place.bytes_of(second.path) in kept


def test_a_file_that_is_gone_costs_only_its_own_instance(place: Place, tmp_path: Path) -> None:
    items = items_in(tmp_path, 4)
    items[1].path.unlink()

    receipts = deliver(place.new(), items)

    verdicts = [r.verdict for r in receipts]
    assert verdicts == [Verdict.DELIVERED, Verdict.LIMITED, Verdict.DELIVERED]
    assert receipts[1].detail.startswith("file_unreadable")


def test_a_file_that_is_not_the_committed_one_is_held_and_does_not_arrive(
    place: Place, tmp_path: Path
) -> None:
    items = items_in(tmp_path, 5)
    content = bytearray(items[1].path.read_bytes())
    content[-1] ^= 1
    items[1].path.write_bytes(content)

    receipts = deliver(place.new(), items)

    verdicts = [r.verdict for r in receipts]
    assert verdicts == [Verdict.DELIVERED, Verdict.HELD, Verdict.DELIVERED]
    assert receipts[1].detail.startswith("digest_mismatch")
    assert place.stored(uid(items[1])) == []


def test_it_ends_when_it_is_told_to(place: Place, tmp_path: Path) -> None:
    items = items_in(tmp_path, 6)

    assert list(place.new().deliver(items, lambda: True)) == []


def test_a_peer_that_is_not_there_makes_everything_wait(place: Place, tmp_path: Path) -> None:
    items = items_in(tmp_path, 7)
    receipts: list[Receipt] = []

    with pytest.raises(PeerUnavailableError):
        receipts.extend(place.unreachable().deliver(items, lambda: False))

    assert {r.verdict for r in receipts} <= {Verdict.TRANSIENT}


def test_check_says_in_one_line_what_it_found(place: Place) -> None:
    said = place.new().check()

    assert said
    assert "\n" not in said


def test_check_of_a_peer_that_is_not_there_fails(place: Place) -> None:
    with pytest.raises(DeliveryError):
        place.unreachable().check()


def test_an_instance_of_several_megabytes_arrives_whole(
    place: Place, kind: str, tmp_path: Path
) -> None:
    """Larger than one request or part may be, where there is such a limit."""
    items = items_in(tmp_path, 8, count=2, rows=2048)
    parts = {"max_put_bytes": "5MiB"}
    limits = {"dicomweb": {"max_request_bytes": "1MB"}, "s3": parts, "azure": parts}

    receipts = deliver(place.new(**limits.get(kind, {})), items)

    assert {r.verdict for r in receipts} == {Verdict.DELIVERED}
    for item in items:
        assert place.stored(uid(item)) == [place.bytes_of(item.path)]
