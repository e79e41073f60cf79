"""A node whose ledger is on a server: what happens to that is never in the way of an image."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pydicom
import pytest

from scp.ledger.open import open_for_reading
from scp.ledger.patients import PatientHash
from scp.ledger.ports import LedgerRow, Search
from tests.e2e.conftest import StartNode
from tests.e2e.judges import assert_converted
from tests.e2e.node import RunningNode, until
from tests.ledger.postgres import PostgresServer
from tests.material import ct_series, write_all


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def send_and_check(running: RunningNode, count: int, seed: int, folder: Path) -> None:
    """A series comes and is delivered whole."""
    paths = write_all(ct_series(count, 32, 32, seed=seed), folder)
    running.send(paths)
    datasets = [pydicom.dcmread(path) for path in paths]
    until(
        lambda: all(running.delivered(dataset).exists() for dataset in datasets),
        "they are not delivered",
    )
    for path, dataset in zip(paths, datasets, strict=True):
        assert_converted(path, running.delivered(dataset))


@pytest.mark.timeout(300)
def test_with_its_server_down_a_node_starts_receives_delivers_and_records_later(
    node: StartNode, postgres: PostgresServer, tmp_path: Path
) -> None:
    section = postgres.new_database()
    ledger = {
        "url": section.url,
        "password": {"file": str(postgres.folder / "password")},
        "keep": "forever",
    }
    running = node({"ledger": ledger})
    send_and_check(running, 2, 901, tmp_path / "a")
    running.wait_for(delivered=2, pending=0)
    until(lambda: not running.left_in_spool(), "the spool is not empty")

    postgres.stop()
    send_and_check(running, 3, 902, tmp_path / "b")
    running.wait_for(delivered=5, pending=0)
    until(lambda: running.status()["ledger"]["problem"], "the node has not noticed")
    assert running.status()["ledger"]["jobs_waiting"] == 1
    assert len(running.spool("jobs")) == 1
    assert "finished jobs wait for it in the spool" in running.command("status")

    running.kill9()
    running.start()
    send_and_check(running, 1, 903, tmp_path / "c")
    status = running.status()
    assert not status["ledger"]["is_known"]
    assert "what the ledger has is not known" in running.command("status")

    postgres.start()
    until(lambda: running.status()["ledger"]["is_known"], "the node has not come back to it")
    until(lambda: not running.left_in_spool(), "the spool is not empty")
    running.wait_for(delivered=6, received=6, pending=0)
    with closing(open_for_reading(section, tmp_path)) as reader:
        rows = list(reader.search(Search()))
    assert len(rows) == 6
    assert all(row.destinations["archive"].attempts == 1 for row in rows)
    assert_labelled(rows, running, tmp_path)
    for secret in (postgres.folder / "password").read_text(), "PatientID", "Traceback":
        assert secret not in running.log()
    assert running.log().count("is recorded later") <= 4


@pytest.mark.timeout(300)
def test_a_server_that_hangs_keeps_no_node_from_starting_receiving_or_delivering(
    node: StartNode, postgres: PostgresServer, tmp_path: Path
) -> None:
    section = postgres.new_database()
    secret = {"file": str(postgres.folder / "password")}
    rules = [{"name": "v", "match": {"called_ae_title": "VOLUME"}, "convert": "enhanced"}]
    running = node(
        {
            "ledger": {"url": section.url, "password": secret},
            "rules": [rule | {"send_to": ["archive"]} for rule in rules],
        }
    )
    send_and_check(running, 1, 911, tmp_path / "a")
    until(lambda: not running.left_in_spool(), "the spool is not empty")

    postgres.freeze(is_frozen=True)
    try:
        volume = write_all(ct_series(3, 32, 32, seed=912), tmp_path / "volume")
        running.send(volume, ae_title="VOLUME")
        send_and_check(running, 2, 913, tmp_path / "b")
        # Nobody says whether it is late, so its slices go as they are.
        running.wait_for(delivered=6, pending=0)
        assert running.status()["not_collapsed"] == {"late_instance": 3}

        running.kill9()
        running.start()
        assert "has not answered within 5 s" in running.log()
        send_and_check(running, 1, 914, tmp_path / "c")
        assert running.command("status")
    finally:
        postgres.freeze(is_frozen=False)

    until(lambda: running.status()["ledger"]["is_known"], "the node has not come back to it")
    running.wait_for(delivered=7, received=7, pending=0)
    until(lambda: not running.left_in_spool(), "the spool is not empty")
    with closing(open_for_reading(section, tmp_path)) as reader:
        rows = list(reader.search(Search()))
    assert len(rows) == 7
    assert all(row.destinations["archive"].attempts == 1 for row in rows)


def assert_labelled(rows: list[LedgerRow], running: RunningNode, folder: Path) -> None:
    patient = str(pydicom.dcmread(next((folder / "a").rglob("*.dcm"))).PatientID)
    hashed = PatientHash.open(running.data / "patient-id.key").of(patient)
    assert {row.modality for row in rows} == {"CT"}
    assert hashed in {row.patient_id_hash for row in rows}
