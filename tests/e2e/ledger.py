"""What the ledger of a running node says."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pydicom

from scp.config.load import load
from scp.ledger.open import open_for_reading
from scp.ledger.ports import LedgerRow
from tests.e2e.node import RunningNode


def rows_of(node: RunningNode, paths: Iterable[Path]) -> list[LedgerRow]:
    """The rows of these instances, oldest first."""
    uids = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}
    return rows_under(node, uids)


def rows_under(node: RunningNode, uids: Iterable[str]) -> list[LedgerRow]:
    """The rows of instances with these UIDs, oldest first."""
    section = load(node.config_file).ledger
    with closing(open_for_reading(section, node.data / "ledger.sqlite")) as ledger:
        rows = [
            row for uid in sorted(set(uids)) for row in ledger.find_results(sop_instance_uid=uid)
        ]
    return sorted(rows, key=lambda row: row.received_at)


def row_of(node: RunningNode, path: Path) -> LedgerRow:
    """The only row of an instance."""
    (row,) = rows_of(node, [path])
    return row
