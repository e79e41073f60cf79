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


def assert_labelled(rows: list[LedgerRow], running: RunningNode, folder: Path) -> None:
    patient = str(pydicom.dcmread(next((folder / "a").rglob("*.dcm"))).PatientID)
    hashed = PatientHash.open(running.data / "patient-id.key").of(patient)
    assert {row.modality for row in rows} == {"CT"}
    assert hashed in {row.patient_id_hash for row in rows}
