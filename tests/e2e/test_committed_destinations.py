"""A destination vouches for what it has taken before its delivery counts; Orthanc does both sides."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pydicom
import pytest

from scp.ledger.sql import SqlLedger
from tests.e2e.node import RunningNode, Tree, until
from tests.e2e.orthanc import orthanc
from tests.material import ct_series, write_all
from tests.vouching_pacs import CT, vouching_pacs


def node_for(
    folder: Path, port: int, title: str, sections: Tree | None = None, **commitment: Any
) -> RunningNode:
    """A node whose one destination has to vouch for what it takes."""
    destination = {
        "kind": "dicom",
        "host": "127.0.0.1",
        "port": port,
        "ae_title": title,
        "commitment": commitment or True,
    }
    sent = {"destinations": {"pacs": destination}, "default": {"send_to": ["pacs"]}}
    return RunningNode(folder, sent | (sections or {}))


def uids_of(paths: list[Path]) -> set[str]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}


def committed(node: RunningNode, paths: list[Path]) -> list[bool]:
    """Of each row of these files, whether the ledger has the destination's word."""
    with closing(SqlLedger.open_for_reading(node.data / "ledger.sqlite")) as ledger:
        rows = ledger.find_instances(uids_of(paths))
    return [row.destinations["pacs"].committed_at is not None for row in rows]


def test_orthanc_vouches_for_what_it_was_sent(tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc") as pacs:
        node = node_for(tmp_path / "node", pacs.port, "ORTHANC").start()
        pacs.know(node.port)
        paths = write_all(ct_series(4, 32, 32, seed=601), tmp_path)

        node.send(paths)
        node.wait_for(delivered=4, pending=0)
        node.settle()

        assert committed(node, paths) == [True] * 4
        assert "pacs vouches for 4 instances, not for 0" in node.log()
        assert node.spool("commitments/asked") == node.spool("commitments/answers") == []
        node.close()


def test_orthanc_asks_and_is_told(tmp_path: Path) -> None:
    with orthanc(tmp_path / "orthanc") as pacs:
        peer = {"ae_title": "ORTHANC", "report_to": {"host": "127.0.0.1", "port": pacs.port}}
        node = RunningNode(
            tmp_path / "node",
            {"access": {"peers": [peer]}, "commit": {"unknown_after": "2s"}},
        ).start()
        pacs.know(node.port)
        paths = write_all(ct_series(3, 32, 32, seed=602), tmp_path)
        pacs.send([pacs.import_file(path) for path in paths], node.port)
        known = [(CT, uid) for uid in sorted(uids_of(paths))]

        good = pacs.ask_for_commitment(known)
        until(lambda: pacs.commitment(good)["Status"] == "Success", node.log)
        bad = pacs.ask_for_commitment([*known, (CT, "1.2.3.4")])
        until(lambda: pacs.commitment(bad)["Status"] == "Failure", node.log)

        (failure,) = pacs.commitment(bad)["Failures"]
        assert failure["SOPInstanceUID"] == "1.2.3.4", failure
        assert failure["FailureReason"] == 0x0112, failure
        node.close()


@pytest.mark.parametrize("way", ["anew", "here"])
def test_a_report_may_come_on_either_association(way: str, tmp_path: Path) -> None:
    with vouching_pacs() as pacs:
        pacs.reports = way
        node = node_for(tmp_path / "node", pacs.port, "PACS").start()
        pacs.node_port = node.port
        paths = write_all(ct_series(3, 32, 32, seed=603), tmp_path)

        node.send(paths)
        node.wait_for(delivered=3, pending=0)
        node.settle()

        assert pacs.statuses.get(timeout=30) == 0x0000
        assert committed(node, paths) == [True] * 3
        node.close()


def test_what_is_not_vouched_for_is_held_and_sent_again_when_a_person_says_so(
    tmp_path: Path,
) -> None:
    with vouching_pacs() as pacs:
        node = node_for(tmp_path / "node", pacs.port, "PACS").start()
        pacs.node_port = node.port
        paths = write_all(ct_series(3, 32, 32, seed=604), tmp_path)
        lost = sorted(uids_of(paths))[0]
        pacs.refuses = {lost}

        node.send(paths)
        node.wait_for(held=1, delivered=2, pending=0)
        (job,) = node.held()
        assert job["reasons"] == {"pacs": {"commitment_failed: 0112": 1}}
        node.restart()
        node.wait_for(held=1, delivered=2, pending=0)

        pacs.node_port = node.port
        pacs.refuses = set()
        node.command("retry", job["job"])
        node.wait_for(delivered=3, pending=0)
        node.settle()

        assert sorted(pacs.stored) == sorted([*uids_of(paths), lost])
        assert committed(node, paths) == [True] * 3
        node.close()


def test_of_what_was_refused_in_part_the_rest_is_vouched_for_and_only_the_refused_is_held(
    tmp_path: Path,
) -> None:
    with vouching_pacs() as pacs:
        originals = {"delete_originals": {"after": "committed", "plus": "1h"}}
        node = node_for(tmp_path / "node", pacs.port, "PACS", originals).start()
        pacs.node_port = node.port
        paths = write_all(ct_series(10, 32, 32, seed=607), tmp_path)
        uids = uids_of(paths)
        refused = min(uids)
        pacs.takes_not = {refused}

        node.send(paths)
        node.wait_for(held=1, delivered=9, pending=0)

        (job,) = node.held()
        assert (job["instances"], job["reasons"]) == (1, {"pacs": {"the peer answers A900": 1}})
        asked = pacs.asked.get(timeout=30)
        assert {each.ReferencedSOPInstanceUID for each in asked.ReferencedSOPSequence} == (
            uids - {refused}
        )
        # Nothing is over yet: the job, and with it all ten originals, waits for a person.
        assert len(node.spool(f"held/{job['job']}/source")) >= 10
        assert node.status()["originals"]["instances"] == 0

        node.kill9()
        node.start()
        pacs.node_port = node.port
        node.wait_for(held=1, delivered=9, pending=0)
        assert node.held() == [job]
        assert pacs.asked.empty()

        pacs.takes_not = set()
        node.command("retry", job["job"])
        node.wait_for(held=0, delivered=10, pending=0)
        node.settle()

        again = pacs.asked.get(timeout=30)
        assert [each.ReferencedSOPInstanceUID for each in again.ReferencedSOPSequence] == [refused]
        assert sorted(pacs.stored) == sorted(uids)
        assert committed(node, paths) == [True] * 10
        with closing(SqlLedger.open_for_reading(node.data / "ledger.sqlite")) as ledger:
            rows = ledger.find_instances(uids)
        tries = {row.identity.sop_instance_uid: row.destinations["pacs"].attempts for row in rows}
        assert tries == {uid: 2 if uid == refused else 1 for uid in uids}
        kept = node.status()["originals"]
        assert (kept["instances"], kept["kept_for_good"]) == (10, 0)
        node.close()


def test_a_kill_while_a_destination_thinks_loses_nothing(tmp_path: Path) -> None:
    with vouching_pacs() as pacs:
        pacs.reports = "never"
        node = node_for(tmp_path / "node", pacs.port, "PACS").start()
        paths = write_all(ct_series(2, 32, 32, seed=605), tmp_path)
        node.send(paths)
        first = pacs.asked.get(timeout=30)
        node.wait_for(pending=2, delivered=0)

        node.kill9()
        pacs.reports = "here"
        node.start()
        node.wait_for(delivered=2, pending=0)
        node.settle()

        assert pacs.asked.get(timeout=30).TransactionUID == first.TransactionUID
        assert len(pacs.stored) == 2
        assert committed(node, paths) == [True] * 2
        node.close()


def test_a_destination_that_never_reports_leaves_the_job_to_a_person(tmp_path: Path) -> None:
    with vouching_pacs() as pacs:
        pacs.reports = "never"
        node = node_for(tmp_path / "node", pacs.port, "PACS", timeout="3s").start()
        paths = write_all(ct_series(2, 32, 32, seed=606), tmp_path)

        node.send(paths)
        node.wait_for(held=2, delivered=0, pending=0)

        (job,) = node.held()
        assert job["reasons"] == {"pacs": {"commitment_timeout: no report came": 2}}
        node.close()
