"""Records batches for ever, and says when it begins and has ended each: the victim of a kill."""

import sys
from pathlib import Path

from scp.durable import Disk
from scp.ledger.sql import SqlLedger
from tests.ledger.rows import row

BATCH = 500


def main(path: Path) -> None:
    ledger = SqlLedger.open_for_writing(path, Disk())
    batch = 0
    while True:
        rows = [row(number, job=f"job-{batch}") for number in range(BATCH)]
        print("begins", batch, flush=True)
        ledger.record(rows)
        print("ended", batch, flush=True)
        batch += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
