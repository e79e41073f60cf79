"""dcmpress ledger find: what it finds, how it shows it, and its exit codes."""

import csv
import io
import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scp.buffer.layout import Layout
from scp.buffer.originals import OriginalFolders
from scp.cli.ledger import find_rows, moment
from scp.durable import Disk
from scp.errors import NodeError, UsageError
from scp.ledger.patients import PatientHash
from scp.ledger.ports import Delivered, LedgerRow, State
from scp.ledger.sql import SqlLedger
from tests.ledger.rows import NOON, row

NOTHING = {
    "uid": "",
    "patient_id": "",
    "ae_title": "",
    "since": "",
    "until": "",
    "state": "",
    "destination": "",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a node with three rows, the last one of a patient, sent twice to the PACS."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "dcmpress.yaml"
    path.write_text(f"node: {{data: '{tmp_path / 'data'}'}}\n")
    patient = PatientHash.open_or_make(tmp_path / "data" / "patient-id.key", Disk()).of("4711")
    last = row(
        3,
        identity=replace(row().identity, sop_instance_uid="2.25.3", series_instance_uid="2.25.7"),
        patient_id_hash=patient,
        modality="CT",
        destinations={"pacs": Delivered(status="B000", at=NOON, attempts=2)},
    )
    record(tmp_path, [row(1), row(2, state=State.SKIPPED, destinations={}), last])
    return path


def record(folder: Path, rows: list[LedgerRow]) -> None:
    ledger = SqlLedger.open_for_writing(folder / "data" / "ledger.sqlite", Disk())
    with closing(ledger):
        ledger.record(rows)


def found(
    capsys: pytest.CaptureFixture[str], config: Path, **asked: str
) -> list[dict[str, object]]:
    find_rows(config, **(NOTHING | asked), style="json")
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


@pytest.mark.parametrize(
    ("asked", "instances"),
    [
        ({}, [1, 2, 3]),
        ({"uid": "2.25.7"}, [3]),
        ({"patient_id": " 4711 "}, [3]),
        ({"ae_title": "CT1"}, [1, 2, 3]),
        ({"state": "skipped"}, [2]),
        ({"destination": "pacs"}, [3]),
        ({"since": "2026-01-05T12:00:02+00:00"}, [2, 3]),
        ({"until": "2026-01-05T13:00:02+01:00"}, [1]),
    ],
)
def test_rows_are_found_by_what_is_asked_for(
    capsys: pytest.CaptureFixture[str], config: Path, asked: dict[str, str], instances: list[int]
) -> None:
    rows = found(capsys, config, **asked)

    assert [each["instance"] for each in rows] == [f"instance-{n}.dcm" for n in instances]


def test_the_table_says_in_a_line_what_happened(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    find_rows(config, **(NOTHING | {"uid": "2.25.3"}), style="table")

    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["finished_at", "state"]
    assert "delivered" in line
    assert "pacs B000 after 2 attempts" in line


def test_csv_and_json_have_the_same_and_every_column(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    rows = found(capsys, config)
    find_rows(config, **NOTHING, style="csv")

    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [list(each) for each in table] == [list(each) for each in rows]
    for flat, whole in zip(table, rows, strict=True):
        assert json.loads(flat["destinations"]) == whole["destinations"]
        assert flat["sop_instance_uid"] == whole["sop_instance_uid"]
        assert "4711" not in str(whole)


def test_a_long_answer_comes_whole(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    record(config.parent, [row(number, job="long") for number in range(10, 1510)])

    assert len(found(capsys, config)) == 1503
    find_rows(config, **NOTHING, style="table")
    assert len(capsys.readouterr().out.splitlines()) == 1504


def test_nothing_found_is_an_error_and_json_all_the_same(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    with pytest.raises(NodeError, match="no such instance"):
        find_rows(config, **(NOTHING | {"patient_id": "4712"}), style="json")

    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("asked", [{"state": "lost"}, {"since": "yesterday"}, {"until": "25.11."}])
def test_what_cannot_be_meant_is_a_usage_error(config: Path, asked: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        find_rows(config, **(NOTHING | asked), style="table")


def test_a_date_without_a_zone_is_local() -> None:
    assert moment("2026-01-05T12:00:00+02:00", "--since") == NOON - timedelta(hours=2)
    assert moment("2026-01-05", "--since") == datetime(2026, 1, 5).astimezone(UTC)


def test_it_says_where_an_original_is_kept_and_until_when(
    capsys: pytest.CaptureFixture[str], config: Path, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "data")
    layout.make(Disk())
    job = row(1).job
    (tmp_path / row(1).instance).write_bytes(b"original")
    until = {row(1).instance: NOON.timestamp()}
    (kept,) = OriginalFolders(layout, Disk()).keep(job, tmp_path, until)

    of_all = found(capsys, config)

    assert [(each["original"], each["original_until"]) for each in of_all] == [
        (str(kept.path / row(1).instance), NOON.isoformat()),
        ("", ""),
        ("", ""),
    ]
    kept.path.rename(kept.path.with_name(kept.path.name.replace("20260105T120000Z", "never")))
    find_rows(config, **(NOTHING | {"uid": row(1).identity.sop_instance_uid}), style="table")
    assert "for good" in capsys.readouterr().out
