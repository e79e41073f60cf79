"""dcmpress ledger find: what happened to an instance, a series, a study, a patient's images."""

import contextlib
import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from scp.buffer.layout import Layout
from scp.buffer.originals import FOR_GOOD, Kept, OriginalFolders, bucket_of
from scp.cli.configuration import load_config
from scp.durable import Disk
from scp.errors import NodeError, UsageError
from scp.ledger.open import open_for_reading
from scp.ledger.patients import PatientHash
from scp.ledger.ports import LedgerRow, Search, State

type Style = Literal["table", "json", "csv"]

_COLUMNS: Final = (
    "finished_at", "state", "modality", "calling_ae_title", "form", "sop_instance_uid", "became",
    "destinations", "original_until", "why",
)  # fmt: skip
"""Of the table; JSON and CSV have everything."""
_WIDTHS_FROM: Final = 200
"""So many rows say how wide the table is; it is not held in memory whole."""


def moment(text: str, option: str) -> datetime:
    """A point in time from ``2026-11-25``, ``2026-11-25T14:30`` or with a zone; without one, ours.

    Raises
    ------
    UsageError
        It is none.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option} {text}: write a date like 2026-11-25 or 2026-11-25T14:30"
        ) from error


def style_of(*, as_json: bool, as_csv: bool) -> Style:
    """How to show it.

    Raises
    ------
    UsageError
        Two ways are asked for.
    """
    if as_json and as_csv:
        raise UsageError("--json or --csv, not both")
    return "json" if as_json else "csv" if as_csv else "table"


def find_rows(
    path: Path | None,
    *,
    uid: str,
    patient_id: str,
    ae_title: str,
    since: str,
    until: str,
    state: str,
    destination: str,
    style: Style,
) -> None:
    """Show the rows that match everything given, oldest first.

    Raises
    ------
    NodeError
        There is none, or no ledger.
    UsageError
        A date or a state is none.
    """
    config = load_config(path)
    layout = Layout(config.node.data)
    if state and state not in set(State):
        raise UsageError(f"--state {state}: say one of {', '.join(State)}")
    patient = PatientHash.open(layout.patient_key).of(patient_id) if patient_id else ""
    search = Search(
        uid=uid,
        patient_id_hash=patient,
        ae_title=ae_title,
        since=moment(since, "--since") if since else None,
        until=moment(until, "--until") if until else None,
        state=State(state) if state else None,
        destination=destination,
    )
    originals = _Originals(layout)
    with closing(open_for_reading(config.ledger, layout.ledger)) as ledger:
        records = (record_of(row) | originals.record_of(row) for row in ledger.search(search))
        found = show_records(records, style, _COLUMNS)
    if not found:
        raise NodeError(
            "the ledger has no such instance; what is not done yet is in dcmpress status and held"
        )


class _Originals:
    """Where originals are kept. What was looked at last is remembered: rows come in order of time."""

    def __init__(self, layout: Layout) -> None:
        self._folders = OriginalFolders(layout, Disk())
        self._bucket = ""
        self._by_job: dict[str, list[Kept]] = {}

    def record_of(self, row: LedgerRow) -> dict[str, str]:
        """Where the file is that was received, and until when; empty where it was deleted."""
        bucket = bucket_of(row.job)
        if bucket != self._bucket:
            self._bucket, self._by_job = bucket, {}
            with contextlib.suppress(PermissionError):  # The spool is the node's; the ledger tells.
                for kept in self._folders.kept_in(bucket):
                    self._by_job.setdefault(kept.job, []).append(kept)
        for kept in self._by_job.get(row.job, ()):
            path = kept.path / row.instance
            if path.exists():
                until = "for good"
                if kept.until != FOR_GOOD:
                    until = datetime.fromtimestamp(kept.until, UTC).isoformat()
                return {"original": str(path), "original_until": until}
        return {"original": "", "original_until": ""}


def record_of(row: LedgerRow) -> dict[str, Any]:
    """A row as JSON: everything that the ledger knows."""
    identity, origin = row.identity, row.origin
    return {
        "job": row.job,
        "instance": row.instance,
        "received_at": row.received_at.isoformat(),
        "finished_at": row.finished_at.isoformat(),
        "state": str(row.state),
        "modality": row.modality,
        "calling_ae_title": origin.calling_ae_title,
        "called_ae_title": origin.called_ae_title,
        "peer_address": origin.peer_address,
        "study_instance_uid": identity.study_instance_uid,
        "series_instance_uid": identity.series_instance_uid,
        "sop_instance_uid": identity.sop_instance_uid,
        "sop_class_uid": identity.sop_class_uid,
        "patient_id_hash": row.patient_id_hash,
        "rule": row.rule,
        "form": str(row.form or ""),
        "reason": str(row.reason or ""),
        "not_collapsed": str(row.not_collapsed or ""),
        "became": row.became,
        "frame": row.frame,
        "verified_by": row.verified_by,
        "source_transfer_syntax": row.source_transfer_syntax,
        "result_transfer_syntax": row.result_transfer_syntax,
        "source_bytes": row.source_bytes,
        "result_bytes": row.result_bytes,
        "dataset_sha256": row.dataset_sha256,
        "normal_sha256": row.normal_sha256,
        "pixel_sha256": row.pixel_sha256,
        "result_sha256": row.result_sha256,
        "is_conflict": row.is_conflict,
        "destinations": {
            name: {
                "status": taken.status,
                "at": taken.at.isoformat(),
                "attempts": taken.attempts,
                "transfer_syntax": taken.transfer_syntax,
                "committed_at": taken.committed_at.isoformat() if taken.committed_at else "",
                "is_collapsed": taken.is_collapsed,
            }
            for name, taken in row.destinations.items()
        },
        "node": row.node,
        "why": row.note or str(row.reason or row.not_collapsed or ""),
    }


def show_records(records: Iterable[dict[str, Any]], style: Style, columns: Iterable[str]) -> int:
    """Show records as they come, none of them kept; returns how many there were."""
    if style == "json":
        return _show_json(records)
    if style == "csv":
        return _show_csv(records)
    return _show_table(records, tuple(columns))


def _show_json(records: Iterable[dict[str, Any]]) -> int:
    count = 0
    for count, record in enumerate(records, 1):
        print("[" if count == 1 else ",")
        print(json.dumps(record), end="")
    print("\n]" if count else "[]")
    return count


def _show_csv(records: Iterable[dict[str, Any]]) -> int:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    count = 0
    for count, record in enumerate(records, 1):
        if count == 1:
            writer.writerow(record)
        writer.writerow(_flat(value, json.dumps) for value in record.values())
    return count


def _show_table(records: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> int:
    rows = ([_flat(record[name], _in_words) for name in columns] for record in records)
    first = [list(columns), *itertools.islice(rows, _WIDTHS_FROM)]
    widths = [max(map(len, column)) for column in zip(*first, strict=True)]
    count = len(first) - 1
    if not count:
        return 0
    for row in _counted(itertools.chain(first, rows)):
        count = row[0]
        cells = (cell.ljust(width) for cell, width in zip(row[1], widths, strict=True))
        print("  ".join(cells).rstrip())
    return count


def _counted(rows: Iterable[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """With the number of each, the heading being 0."""
    return zip(itertools.count(), rows, strict=False)


def _flat(value: Any, nested: Any) -> str:
    return str(nested(value) if isinstance(value, dict) else value)


def _in_words(destinations: dict[str, dict[str, Any]]) -> str:
    return ", ".join(
        f"{name} {taken['status']}".strip()
        + (f" after {taken['attempts']} attempts" if taken["attempts"] > 1 else "")
        for name, taken in destinations.items()
    )
