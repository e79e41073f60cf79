"""The node dies while an instance is received, its series closed, its conversion committed."""

from pathlib import Path

import pytest

from tests.e2e.deaths import assert_nothing_is_lost


@pytest.mark.timeout(240)
def test_wherever_the_node_dies_before_the_commit_nothing_acknowledged_is_lost(
    tmp_path: Path,
) -> None:
    deaths = assert_nothing_is_lost("before", tmp_path)

    assert deaths >= {
        "create data/spool/incoming/*/*.part",
        "rename data/spool/growing/*",
        "move data/spool/growing/*/*.dcm",
        "make_folder data/spool/jobs/*",
        "rename data/spool/jobs/*/source",
        "rename data/spool/jobs/*/results/*/*.dcm",
        "write data/spool/jobs/*/.job.json",
        "rename data/spool/jobs/*/job.json",
    }
