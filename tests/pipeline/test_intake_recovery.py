"""What a start makes of series that grew and of jobs without a commit; the folders are all it has."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scp.ledger.ports import State
from scp.model import Form
from scp.pipeline.notices import Notice
from tests.material import ct_series, write_all
from tests.pipeline.conftest import MakeFront
from tests.pipeline.front import Front

QUIET = {"quiet_seconds": 15, "max_open_seconds": 900}


@pytest.fixture
def left(make_front: MakeFront, tmp_path: Path) -> Front:
    """A node that received three instances of one series, and is gone."""
    front = make_front(series=QUIET)
    front.receive(*write_all(ct_series(3, 16, 16), tmp_path / "ct"))
    front.close()
    return front


def series_folder(front: Front) -> Path:
    (series,) = front.folders.growing()
    return front.layout.growing / series


def recovered(make_front: MakeFront) -> Front:
    """The next node, which knows what the folders say."""
    front = make_front(series=QUIET)
    front.dispatch.recover_held()
    for job in front.dispatch.recover_jobs():
        front.intake.recover_job(job)
    front.intake.recover_series()
    return front


# -- series that grew ------------------------------------------------------------------------------


def test_a_series_that_grew_has_a_fresh_quiet_period_and_is_whole(
    make_front: MakeFront, left: Front
) -> None:
    front = recovered(make_front)

    assert front.intake.open_instances == 3
    front.close_quiet(14)
    assert front.folders.jobs() == []
    front.finish()
    assert front.states() == {State.DELIVERED: 3}
    assert {row.origin.calling_ae_title for row in front.ledger.recent(9)} == {"CT1"}


@pytest.mark.parametrize(("age", "is_cut"), [(850, True), (100, False), (-1e6, False), (1e9, True)])
def test_how_long_a_series_has_been_open_survives_a_restart(
    make_front: MakeFront, left: Front, age: float, *, is_cut: bool
) -> None:
    """A minute later, with something arriving; a clock that was wrong cuts it, at most."""
    opened = datetime.now(UTC) - timedelta(seconds=age)
    file = series_folder(left) / "series.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"opened": opened.isoformat()}))
    front = recovered(make_front)

    front.intake.take(Notice("arriving", "r1", series_folder(left).name))

    front.intake.close_due(time.monotonic() + 60)

    assert bool(front.folders.jobs()) == is_cut
    front.intake.take(Notice("gone", "r1", ""))
    front.finish()
    assert front.states() == {State.DELIVERED: 3}


def test_a_series_whose_file_is_lost_is_delivered(make_front: MakeFront, left: Front) -> None:
    (series_folder(left) / "series.json").unlink()

    front = recovered(make_front)

    front.finish()
    assert front.states() == {State.DELIVERED: 3}


@pytest.mark.parametrize("content", [b"", b"x" * 1000], ids=["empty", "overwritten"])
def test_an_instance_that_the_disk_has_spoiled_is_delivered_or_held_and_never_dropped(
    make_front: MakeFront, left: Front, content: bytes
) -> None:
    spoiled = sorted(series_folder(left).glob("*.dcm"))[1]
    spoiled.write_bytes(content)

    front = recovered(make_front)

    front.until(lambda: front.intake.open_instances == 3)
    while not front.dispatch.live:
        front.close_quiet()
        front.turn()
    (live,) = front.dispatch.live.values()
    front.until(lambda: len(live.taken) >= 2)
    (instance,) = (each for each in live.job.instances if each.name == spoiled.name)
    assert (instance.reason, instance.source_bytes) == ("unreadable", len(content))
    assert front.counters().received == 3


# -- jobs without a commit -------------------------------------------------------------------------


def test_a_job_that_was_closed_and_not_committed_is_done_again(
    make_front: MakeFront, left: Front
) -> None:
    job = left.folders.close(series_folder(left).name)
    assert job is not None
    half = left.folders.make_results(job, Form.HTJ2K) / "half.dcm"
    half.write_bytes(b"half")

    front = recovered(make_front)

    assert not half.exists()
    assert front.committer.instances_in_work == 3
    front.until(lambda: front.states() == {State.DELIVERED: 3})
    assert front.ledger.totals().converted == 3


@pytest.mark.parametrize("was_cut", [False, True])
def test_a_job_that_was_closed_by_a_limit_is_still_known_as_such(
    make_front: MakeFront, left: Front, caplog: pytest.LogCaptureFixture, *, was_cut: bool
) -> None:
    assert left.folders.close(series_folder(left).name, was_cut=was_cut)
    caplog.set_level("INFO")

    front = recovered(make_front)

    front.until(lambda: front.states() == {State.DELIVERED: 3})
    (closed,) = [line for line in caplog.messages if line.startswith("series closed")]
    assert closed.endswith(", cut") == was_cut


def test_a_job_of_one_instance_that_was_not_to_wait_goes_by_the_same_rule_again(
    make_front: MakeFront, left: Front
) -> None:
    folder = series_folder(left)
    name = min(path.name for path in folder.glob("*.dcm"))
    job = left.folders.take_each(folder.name, [name])[name]

    front = recovered(make_front)

    front.until(lambda: front.states() == {State.DELIVERED: 1})
    assert front.intake.open_instances == 2
    (row,) = front.ledger.recent(9)
    assert (row.job, row.instance) == (job, name)
