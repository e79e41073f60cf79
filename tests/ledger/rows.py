"""Ledger rows for tests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from scp.ledger.ports import Delivered, LedgerRow, State
from scp.model import Form, Identity, Origin

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def row(number: int = 0, **changes: Any) -> LedgerRow:
    """A delivered and converted instance; each ``number`` is another, finished a second later."""
    made = LedgerRow(
        job="job-1",
        instance=f"instance-{number}.dcm",
        identity=Identity(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=f"2.25.{number}",
            study_instance_uid="2.25.1000",
            series_instance_uid="2.25.1001",
        ),
        origin=Origin(calling_ae_title="CT1", called_ae_title="DCMPRESS", peer_address="127.0.0.1"),
        received_at=NOON,
        finished_at=NOON + timedelta(seconds=number),
        state=State.DELIVERED,
        rule="default",
        form=Form.HTJ2K,
        source_transfer_syntax="1.2.840.10008.1.2.1",
        result_transfer_syntax="1.2.840.10008.1.2.4.202",
        source_bytes=500,
        result_bytes=200,
        dataset_sha256="aa",
        normal_sha256="bb",
        pixel_sha256="cc",
        result_sha256=f"{number:064x}",
        destinations={"archive": Delivered(status="0000", at=NOON)},
    )
    return replace(made, **changes)
