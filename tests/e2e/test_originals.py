"""A node keeps what it received beyond its delivery, through kill -9, and deletes it in time."""

import time
from datetime import datetime
from pathlib import Path

from scp.convert.digests import dataset_sha256
from tests.e2e.conftest import StartNode
from tests.e2e.ledger import rows_of
from tests.e2e.node import RunningNode, until
from tests.material import ct_series, write_all

PLUS = 10.0
CONFIG = {
    "rules": [
        {
            "name": "for good",
            "match": {"called_ae_title": "KEEP"},
            "send_to": ["archive"],
            "delete_originals": {"after": "never"},
        }
    ],
    "delete_originals": {"plus": f"{PLUS:.0f}s"},
}


def kept_files(node: RunningNode) -> list[Path]:
    return sorted((node.data / "spool" / "originals").glob("*/*/*.dcm"))


def test_originals_outlast_their_delivery_and_kill_9_and_go_in_time(
    node: StartNode, tmp_path: Path
) -> None:
    running = node(CONFIG)
    for_good = write_all(ct_series(3, 32, 32, seed=701), tmp_path / "good")
    for_a_while = write_all(ct_series(2, 32, 32, seed=702), tmp_path / "while")
    running.send(for_good, ae_title="KEEP")
    running.send(for_a_while)
    running.wait_for(delivered=5, pending=0)
    running.settle()

    running.kill9()
    running.start()

    running.wait_for(delivered=5, pending=0)
    found = running.json("ledger", "find")
    kept = {row["original_until"]: row["original"] for row in found if row["original"]}
    assert "for good" in kept
    until(lambda: len(kept_files(running)) == 3, running.log)
    ended = [row.finished_at.timestamp() for row in rows_of(running, for_a_while)]
    assert time.time() >= max(ended) + PLUS

    assert {dataset_sha256(path) for path in kept_files(running)} == {
        dataset_sha256(path) for path in for_good
    }
    until(lambda: running.status()["originals"]["instances"] == 3, running.log)
    status = running.status()["originals"]
    assert status["bytes"] == sum(path.stat().st_size for path in kept_files(running))
    assert (status["kept_for_good"], status["next_deletion"]) == (3, None)
    assert time.time() - 600 < status["oldest"] <= time.time()
    assert "3 originals are kept" in running.command("status")
    row = next(row for row in running.json("ledger", "find") if row["original"])
    assert Path(row["original"]).is_file()
    assert datetime.fromisoformat(row["finished_at"]).timestamp() <= time.time()
