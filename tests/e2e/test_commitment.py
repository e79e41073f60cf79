"""A modality asks for storage commitment and is told the truth, whatever happens in between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.commitment_peer import Modality, modality
from tests.e2e.node import RunningNode, until
from tests.material import ct_series, write_all

NOT_THERE, FAILED, OTHER_CLASS = 0x0112, 0x0110, 0x0119


@pytest.fixture
def scanner() -> Iterator[Modality]:
    with modality() as running:
        yield running


def node_for(folder: Path, scanner: Modality, **sections: Any) -> RunningNode:
    """A node that knows where the scanner listens."""
    return RunningNode(folder, {"access": {"peers": [peer_of(scanner)]}, **sections})


def peer_of(scanner: Modality) -> dict[str, Any]:
    return {"ae_title": "CT1", "report_to": {"host": "127.0.0.1", "port": scanner.port}}


def uids_of(paths: list[Path]) -> set[str]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}


def test_what_was_delivered_is_committed_whenever_it_is_asked_for(
    scanner: Modality, tmp_path: Path
) -> None:
    node = node_for(tmp_path / "node", scanner).start()
    paths = write_all(ct_series(5, 32, 32, seed=501), tmp_path)
    node.send(paths, calling_ae_title="CT1")

    early = scanner.ask_for(node.port, paths)
    assert scanner.report(early) == (uids_of(paths), {})
    node.settle()
    late = scanner.ask_for(node.port, paths)
    assert scanner.report(late) == (uids_of(paths), {})

    until(lambda: not node.spool("commitments/requested"), node.log)
    assert "was told of its storage commitment" in node.log()
    node.close()


def test_a_request_that_comes_before_the_instances_waits_for_them(
    scanner: Modality, tmp_path: Path
) -> None:
    node = node_for(tmp_path / "node", scanner).start()
    paths = write_all(ct_series(3, 32, 32, seed=502), tmp_path)

    transaction = scanner.ask_for(node.port, paths)
    until(lambda: node.status()["commitments"]["requested"] == 1, node.log)
    node.send(paths, calling_ae_title="CT1")

    assert scanner.report(transaction) == (uids_of(paths), {})
    node.close()


def test_a_kill_between_the_answer_and_the_report_loses_no_request(
    scanner: Modality, tmp_path: Path
) -> None:
    node = node_for(tmp_path / "node", scanner).start()
    paths = write_all(ct_series(3, 32, 32, seed=503), tmp_path)

    transaction = scanner.ask_for(node.port, paths)
    node.kill9()
    node.start()
    node.send(paths, calling_ae_title="CT1")

    assert scanner.report(transaction) == (uids_of(paths), {})
    node.close()


def test_a_decision_outlives_a_kill_while_its_peer_is_away(
    scanner: Modality, tmp_path: Path
) -> None:
    node = node_for(tmp_path / "node", scanner).start()
    paths = write_all(ct_series(3, 32, 32, seed=504), tmp_path)
    scanner.close()
    node.send(paths, calling_ae_title="CT1")
    transaction = scanner.ask_for(node.port, paths)
    until(lambda: "cannot be told of its storage commitment" in node.log(), node.log)
    assert node.status()["commitments"]["unreported"] == 1

    node.kill9()
    node.start()
    scanner.listen()

    assert scanner.report(transaction) == (uids_of(paths), {})
    until(lambda: not node.spool("commitments/requested"), node.log)
    node.close()


def test_a_report_that_the_peer_does_not_take_is_sent_again(
    scanner: Modality, tmp_path: Path
) -> None:
    node = node_for(tmp_path / "node", scanner).start()
    paths = write_all(ct_series(1, 32, 32, seed=505), tmp_path)
    answers = iter([0x0110, 0x0110])
    scanner.answer = lambda: next(answers, 0x0000)
    node.send(paths, calling_ae_title="CT1")

    transaction = scanner.ask_for(node.port, paths)

    assert scanner.report(transaction) == (uids_of(paths), {})
    assert "answers N-EVENT-REPORT with 0110" in node.log()
    node.close()


def test_what_is_held_unknown_or_of_another_class_has_failed(
    scanner: Modality, tmp_path: Path
) -> None:
    node = node_for(
        tmp_path / "node",
        scanner,
        commit={"unknown_after": "2s"},
        rules=[
            {
                "name": "gone",
                "match": {"called_ae_title": "GONE"},
                "send_to": ["archive", "second"],
            }
        ],
        destinations={"second": {"kind": "folder", "path": str(tmp_path / "second")}},
    ).start()
    held = write_all(ct_series(2, 32, 32, seed=506), tmp_path / "held")
    good = write_all(ct_series(1, 32, 32, seed=507), tmp_path / "good")
    # A file where its folder should be keeps a destination down; without it in the
    # configuration its share is held.
    (tmp_path / "second").write_text("")
    node.send(held, calling_ae_title="CT1", ae_title="GONE")
    until(lambda: len(node.archived()) == 2, node.log)
    assert node.terminate() == 0
    node.configure({"access": {"peers": [peer_of(scanner)]}, "commit": {"unknown_after": "2s"}})
    node.start()
    node.wait_for(held=2)
    node.send(good, calling_ae_title="CT1")
    node.wait_for(held=2, delivered=1, pending=0)

    (good_uid,) = uids_of(good)
    ct, mr = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
    pairs = [(ct, uid) for uid in uids_of(held)] + [(ct, good_uid), (ct, "1.2.3.4")]
    status, transaction = scanner.ask(node.port, pairs)
    assert status == 0
    committed, failed = scanner.report(transaction)
    assert committed == {good_uid}
    assert failed == {**dict.fromkeys(uids_of(held), FAILED), "1.2.3.4": NOT_THERE}

    status, transaction = scanner.ask(node.port, [(mr, good_uid)])
    assert scanner.report(transaction) == (set(), {good_uid: OTHER_CLASS})
    node.close()


def test_only_what_every_named_destination_has_is_committed(
    scanner: Modality, tmp_path: Path
) -> None:
    node = node_for(
        tmp_path / "node",
        scanner,
        commit={"to": ["archive", "second"], "timeout": "6s"},
        destinations={"second": {"kind": "folder", "path": str(tmp_path / "second")}},
        rules=[
            {
                "name": "both",
                "match": {"called_ae_title": "BOTH"},
                "send_to": ["archive", "second"],
            }
        ],
    ).start()
    one = write_all(ct_series(1, 32, 32, seed=508), tmp_path / "one")
    both = write_all(ct_series(1, 32, 32, seed=509), tmp_path / "both")
    down = write_all(ct_series(1, 32, 32, seed=510), tmp_path / "down")
    node.send(one, calling_ae_title="CT1")
    node.send(both, calling_ae_title="CT1", ae_title="BOTH")
    node.wait_for(delivered=2, pending=0)

    transaction = scanner.ask_for(node.port, [*one, *both])
    assert scanner.report(transaction) == (
        uids_of(both),
        dict.fromkeys(uids_of(one), FAILED),
    )

    (tmp_path / "second").rename(tmp_path / "away")
    (tmp_path / "second").write_text("")
    node.send(down, calling_ae_title="CT1", ae_title="BOTH")
    transaction = scanner.ask_for(node.port, down)
    assert scanner.report(transaction) == (set(), dict.fromkeys(uids_of(down), FAILED))
    (tmp_path / "second").unlink()
    (tmp_path / "away").rename(tmp_path / "second")
    assert node.terminate() == 0


def test_who_has_no_address_for_reports_is_refused(tmp_path: Path) -> None:
    node = RunningNode(tmp_path / "node", {}).start()
    stranger = Modality("STRANGER")

    status, _ = stranger.ask(node.port, [("1.2.840.10008.5.1.4.1.1.2", "1.2.3")])

    assert status == 0x0124
    assert "give it a report_to in access.peers" in node.log()
    node.close()


def test_a_transaction_asked_twice_is_one_and_another_under_its_uid_is_refused(
    scanner: Modality, tmp_path: Path
) -> None:
    node = node_for(tmp_path / "node", scanner).start()
    paths = write_all(ct_series(2, 32, 32, seed=511), tmp_path)
    ct = "1.2.840.10008.5.1.4.1.1.2"
    pairs = [(ct, uid) for uid in sorted(uids_of(paths))]

    _, transaction = scanner.ask(node.port, pairs)
    assert scanner.ask(node.port, pairs, transaction)[0] == 0x0000
    assert scanner.ask(node.port, pairs[:1], transaction)[0] == 0x0115
    node.send(paths, calling_ae_title="CT1")

    assert scanner.report(transaction) == (uids_of(paths), {})
    until(lambda: not node.spool("commitments/requested"), node.log)
    assert scanner.reports.empty()
    node.close()


@pytest.mark.parametrize(
    ("record", "is_restorable"), [("embedded", True), ("sidecar", True), ("none", False)]
)
def test_a_collapsed_instance_is_committed_while_it_can_be_restored(
    record: str, is_restorable: bool, scanner: Modality, tmp_path: Path
) -> None:
    node = node_for(
        tmp_path / "node",
        scanner,
        enhanced={"restore_record": record},
        default={"convert": "enhanced", "send_to": ["archive"]},
    ).start()
    paths = write_all(ct_series(3, 32, 32, seed=512), tmp_path)
    node.send(paths, calling_ae_title="CT1")
    early = scanner.ask_for(node.port, paths)
    expected = (
        (uids_of(paths), {}) if is_restorable else (set(), dict.fromkeys(uids_of(paths), FAILED))
    )
    assert scanner.report(early) == expected
    node.settle()
    assert len([path for path in node.archived() if path.suffix == ".dcm"]) == 1

    late = scanner.ask_for(node.port, paths)

    assert scanner.report(late) == expected
    node.close()
