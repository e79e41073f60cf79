"""kill -9 right before every call of the disk that the way of an instance makes, one after the other."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pydicom
import yaml

from scp.convert.digests import dataset_sha256
from scp.ledger.ports import State
from scp.ledger.sql import SqlLedger
from tests.conftest import REPOSITORY
from tests.deliver.peers import HandPeer
from tests.e2e.judges import assert_converted
from tests.material import ct_series, write_all

DEATHS = 40
"""At most; there is material for so many."""
INSTANCES = 3


def assert_nothing_is_lost(part: str, tmp_path: Path) -> set[str]:
    """Die ``before`` or ``after`` the commit, at every call; returns which calls these were.

    In the end every instance is in the folder once, was sent to the PACS once or, after a death,
    twice, is counted once, and its original is kept once.
    """
    sources = tmp_path / "sources"
    for number in range(DEATHS):
        write_all(ct_series(INSTANCES, 16, 16, seed=number + 1), sources / f"{number:03d}")
    with HandPeer() as pacs:
        config = {
            "node": {"data": str(tmp_path / "data")},
            "series": {"quiet_seconds": 0.1},
            "codec": {"workers": 1},
            "destinations": {
                "archive": {"kind": "folder", "path": str(tmp_path / "archive")},
                "pacs": {"kind": "dicom", "host": "127.0.0.1", "port": pacs.port, "ae_title": "P"},
            },
            "default": {"send_to": ["archive", "pacs"]},
            "delete_originals": {"after": "never"},
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        lives = _run_driver(tmp_path / "config.yaml", sources, part)
        stored = Counter(each.sop_instance_uid for each in pacs.stored)

    assert lives[0]["ended"] == lives[-1]["ended"] == "exit 0"
    died = {life["where"] for life in lives if life["ended"] == "killed"}
    assert died == {life["where"] for life in lives[1:-1]}, lives
    assert {life["ended"] for life in lives} == {"killed", "exit 0"}, lives
    sent = [
        path for folder in sorted(sources.iterdir())[: len(lives) - 1] for path in folder.iterdir()
    ]
    archived = [path for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    assert sorted(path.name for path in archived) == sorted(path.name for path in sent)
    by_name = {path.name: path for path in archived}
    for path in sent:
        assert_converted(path, by_name[path.name])
    ledger = SqlLedger.open_for_reading(tmp_path / "data" / "ledger.sqlite")
    assert ledger.totals().states[State.DELIVERED] == len(sent)
    ledger.close()
    assert set(stored) == {str(pydicom.dcmread(path).SOPInstanceUID) for path in sent}
    assert max(stored.values()) <= 2
    _assert_originals_are_kept(tmp_path / "data" / "spool" / "originals", sent)
    return died


def _assert_originals_are_kept(folder: Path, sent: list[Path]) -> None:
    kept = [dataset_sha256(path) for path in folder.glob("[!.]*/*/*.dcm")]
    assert Counter(kept) == Counter(dataset_sha256(path) for path in sent)
    promised = sum(int(path.name.split(",N=")[1].split(",")[0]) for path in folder.glob("*/*,U=*"))
    assert promised == len(kept)


def _run_driver(config: Path, sources: Path, part: str) -> list[dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.crash_driver", str(config), str(sources), part],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
