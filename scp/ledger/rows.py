"""A row of the ledger as values of the table's columns, and back."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping

from scp.ledger.ports import Delivered, LedgerRow, State
from scp.model import CollapseReason, Form, Identity, Origin, PassReason


def values_of(row: LedgerRow) -> dict[str, Any]:
    """What to insert."""
    values = {
        "job": row.job,
        "instance": row.instance,
        "sop_class_uid": row.identity.sop_class_uid,
        "sop_instance_uid": row.identity.sop_instance_uid,
        "study_instance_uid": row.identity.study_instance_uid,
        "series_instance_uid": row.identity.series_instance_uid,
        "calling_ae_title": row.origin.calling_ae_title,
        "called_ae_title": row.origin.called_ae_title,
        "peer_address": row.origin.peer_address,
        "received_at": row.received_at,
        "finished_at": row.finished_at,
        "state": str(row.state),
        "rule": row.rule,
        "form": row.form and str(row.form),
        "reason": row.reason and str(row.reason),
        "not_collapsed": row.not_collapsed and str(row.not_collapsed),
        "source_transfer_syntax": row.source_transfer_syntax,
        "result_transfer_syntax": row.result_transfer_syntax,
        "source_bytes": row.source_bytes,
        "result_bytes": row.result_bytes,
        "dataset_sha256": row.dataset_sha256,
        "normal_sha256": row.normal_sha256,
        "pixel_sha256": row.pixel_sha256,
        "result_sha256": row.result_sha256,
        "destinations": _encoded(row.destinations),
        "is_conflict": row.is_conflict,
        "became": row.became,
        "frame": row.frame,
        "note": row.note,
        "modality": row.modality,
        "patient_id_hash": row.patient_id_hash,
        "verified_by": row.verified_by,
        "restore_record": row.restore_record,
        "node": row.node,
    }
    # A sender may write what PostgreSQL refuses in a text.
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in values.items()
    }


def row_of(found: RowMapping) -> LedgerRow:
    """The row that was inserted."""
    values = {name: value for name, value in found.items() if name != "number"}
    identity = Identity(**{name: values.pop(name) for name in Identity.__slots__})
    origin = Origin(**{name: values.pop(name) for name in Origin.__slots__})
    values |= {
        "state": State(values["state"]),
        "form": Form(values["form"]) if values["form"] else None,
        "reason": PassReason(values["reason"]) if values["reason"] else None,
        "not_collapsed": collapse_reason(values["not_collapsed"]),
        "destinations": _decoded(values["destinations"], values["became"]),
    }
    return LedgerRow(identity=identity, origin=origin, **values)


def collapse_reason(value: str | None) -> CollapseReason | None:
    return CollapseReason(value) if value else None


def _encoded(destinations: Mapping[str, Delivered]) -> str:
    return json.dumps(
        {
            name: {
                "status": taken.status,
                "at": _text(taken.at),
                "attempts": taken.attempts,
                "transfer_syntax": taken.transfer_syntax,
                "committed_at": taken.committed_at and _text(taken.committed_at),
                "is_collapsed": taken.is_collapsed,
            }
            for name, taken in destinations.items()
        }
    )


def _decoded(destinations: str, became: str) -> dict[str, Delivered]:
    found = json.loads(destinations)
    return {name: _delivered(taken, bool(became)) for name, taken in found.items()}


def _delivered(taken: Any, is_collapsed: bool) -> Delivered:
    if isinstance(taken, list):  # As version 1 wrote it, whose destinations all got the same.
        status, at = taken
        return Delivered(status=status, at=datetime.fromisoformat(at), is_collapsed=is_collapsed)
    committed_at = taken.get("committed_at")
    return Delivered(
        **taken
        | {
            "at": datetime.fromisoformat(taken["at"]),
            "committed_at": datetime.fromisoformat(committed_at) if committed_at else None,
        }
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
