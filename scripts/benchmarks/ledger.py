"""How fast the ledger takes rows, finds them, forgets them, and tells a start what it has. SQLite."""

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scp.durable import Disk
from scp.ledger.ports import Delivered, LedgerRow, Search, State
from scp.ledger.sql import SqlLedger
from scp.model import Form, Identity, Origin

_ROWS = 100_000
_ROWS_A_JOB = 400
_BEGAN = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def run(folder: Path) -> None:
    """Each job in a commit of its own, as a node that is not behind records it."""
    jobs = [
        [_row(number) for number in range(first, first + _ROWS_A_JOB)]
        for first in range(0, _ROWS, _ROWS_A_JOB)
    ]
    with closing(SqlLedger.open_for_writing(folder / "ledger.sqlite", Disk())) as ledger:
        cpu = time.process_time()
        seconds = _timed(lambda: _record(ledger, jobs))
        cpu = time.process_time() - cpu
        print(
            f"record: {_ROWS / seconds:,.0f} rows/s, {_ROWS / cpu:,.0f} a second of CPU, "
            f"{_ROWS_A_JOB} a commit (must be >= 5,000)"
        )
        names = [rows[0].job for rows in jobs] * 400
        seconds = _timed(lambda: ledger.known(names))
        print(f"ask of {len(names):,} jobs whether they are known: {seconds:.2f} s")
        print(f"totals: {1000 * _timed(ledger.totals):.1f} ms")
        one = Search(uid="2.25.77777")
        print(f"find one of {_ROWS:,}: {1000 * _timed(lambda: list(ledger.search(one))):.1f} ms")
        print(f"find all: {_timed(lambda: sum(1 for _ in ledger.search(Search()))):.2f} s")
        late = _BEGAN + timedelta(days=365)
        print(f"forget 1,000: {1000 * _timed(lambda: ledger.forget(late, 1000)):.1f} ms")


def _record(ledger: SqlLedger, jobs: list[list[LedgerRow]]) -> None:
    for rows in jobs:
        ledger.record(rows)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _row(number: int) -> LedgerRow:
    job = number // _ROWS_A_JOB
    return LedgerRow(
        job=f"20260105T120000-{job:08x}",
        instance=f"{number:032x}.dcm",
        identity=Identity(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=f"2.25.{number}",
            study_instance_uid=f"2.25.1{job // 4:09}",
            series_instance_uid=f"2.25.2{job:09}",
        ),
        origin=Origin(calling_ae_title="CT1", called_ae_title="DCMPRESS", peer_address="10.0.0.1"),
        received_at=_BEGAN,
        finished_at=_BEGAN + timedelta(milliseconds=number),
        state=State.DELIVERED,
        rule="default",
        form=Form.HTJ2K,
        source_transfer_syntax="1.2.840.10008.1.2.1",
        result_transfer_syntax="1.2.840.10008.1.2.4.202",
        source_bytes=526_000,
        result_bytes=210_000,
        dataset_sha256=f"{number:064x}",
        normal_sha256=f"{number:064x}",
        pixel_sha256=f"{number:064x}",
        result_sha256=f"{number * 7919:064x}",
        destinations={
            name: Delivered(status="0000", at=_BEGAN, attempts=1) for name in ("archive", "pacs")
        },
        modality="CT",
        patient_id_hash=f"{job // 8:064x}",
        verified_by="openjpeg",
    )
