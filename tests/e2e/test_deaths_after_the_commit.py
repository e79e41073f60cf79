"""The node dies while a job is delivered, recorded in the ledger, its originals kept, and cleared away."""

from pathlib import Path

import pytest

from tests.e2e.deaths import assert_nothing_is_lost


@pytest.mark.timeout(240)
def test_wherever_the_node_dies_after_the_commit_everything_is_delivered_once(
    tmp_path: Path,
) -> None:
    deaths = assert_nothing_is_lost("after", tmp_path)

    assert deaths >= {
        "make_folder archive/*",
        "create archive/*/*/.dcmpress",
        "link archive/*/*/*.dcm",
        "unlink archive/*/*/.dcmpress",
        "write data/spool/jobs/*/receipts-archive",
        "write data/spool/jobs/*/receipts-pacs",
        "sync_file data/spool/jobs/*/receipts-archive",
        "make_folder data/spool/originals/*",
        "link data/spool/originals/*/*.dcm",
        "rename data/spool/originals/*/*",
        "rename data/spool/trash/*",
        "remove_tree data/spool/trash/*",
    }
