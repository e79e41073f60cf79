"""What the ledger of a running node says."""

from collections.abc import Iterable
from pathlib import Path

import pydicom

from scp.ledger.ports import LedgerRow
from scp.ledger.sql import SqlLedger
from tests.e2e.node import RunningNode


def rows_of(node: RunningNode, paths: Iterable[Path]) -> list[LedgerRow]:
    """The rows of these instances, oldest first."""
    uids = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}
    ledger = SqlLedger.open_for_reading(node.data / "ledger.sqlite")
    try:
        rows = [row for uid in sorted(uids) for row in ledger.find_results(sop_instance_uid=uid)]
    finally:
        ledger.close()
    return sorted(rows, key=lambda row: row.received_at)


def row_of(node: RunningNode, path: Path) -> LedgerRow:
    """The only row of an instance."""
    (row,) = rows_of(node, [path])
    return row
