"""What the control socket's commands answer; how they are asked is tests/cli's business."""

import time
from pathlib import Path
from typing import Any

import pytest

from scp.deliver.events import QueueSnapshot
from scp.errors import NodeError
from scp.ledger.ports import State
from scp.pipeline.requests import Requests, describe_queue
from scp.telemetry import Counter
from tests.pipeline.conftest import MakeParts
from tests.pipeline.parts import Parts


@pytest.fixture
def parts(make_parts: MakeParts) -> Parts:
    """One job delivered, one of two instances held, one that cannot be read, four open instances."""
    made = make_parts()
    made.start(made.job("delivered"))
    made.held(made.job("held", count=2, send_to=("archive", "left")))
    made.job("unreadable", count=3)
    (made.folders.folder("unreadable") / "job.json").write_text("{")
    made.dispatch.recover_jobs()
    made.until(lambda: made.states() == {State.DELIVERED: 1})
    made.settle()
    return made


@pytest.fixture
def requests(parts: Parts) -> Requests:
    return Requests(
        parts.config,
        parts.accounts,
        parts.dispatch,
        parts.originals,
        lambda: 4,
        lambda: {"more": 1},
    )


def test_the_status_has_every_counter_as_an_integer_and_they_add_up(requests: Requests) -> None:
    status = requests.handle({"command": "status"})

    counted = {name: status[name] for name in Counter}
    assert all(type(value) is int for value in counted.values())
    assert counted == {
        "received": 10,
        "pending": 4,
        "delivered": 1,
        "held": 5,
        "skipped": 0,
        "discarded": 0,
        "converted": 3,
        "passed_through": 0,
    }
    assert (status["reasons"], status["more"]) == ({}, 1)


def test_the_status_names_no_uid_and_nobody(requests: Requests, parts: Parts) -> None:
    text = str(requests.handle({"command": "status"}))

    job = parts.dispatch.held["held"].job
    for value in (job.study_instance_uid, job.series_instance_uid, "Phantom", "CT1"):
        assert value not in text


def test_held_shows_all_or_the_one_that_is_named(requests: Requests) -> None:
    jobs = requests.handle({"command": "held"})["jobs"]
    (one,) = requests.handle({"command": "held", "job": "held"})["jobs"]

    assert [(each["job"], each["instances"]) for each in jobs] == [("unreadable", 3), ("held", 2)]
    assert one["reasons"] == {"left": {"destination_left_configuration": 2}}
    assert Path(one["folder"]).is_dir()


def test_retry_without_names_means_all(requests: Requests) -> None:
    assert requests.handle({"command": "retry"}) == {"jobs": ["held", "unreadable"]}


def test_discard_says_how_many_were_given_up(requests: Requests, parts: Parts) -> None:
    request = {"command": "discard", "job": "held", "reason": "a test"}

    assert requests.handle(request) == {"instances": 2}

    parts.until(lambda: parts.states() == {State.DELIVERED: 1, State.DISCARDED: 2})


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({}, "does not know the command None"),
        ({"command": ["status"]}, "does not know the command"),
        ({"command": "held", "job": "none"}, "no job none is held"),
        ({"command": "retry", "jobs": ["none"]}, "no job none is held or waits"),
        ({"command": "discard", "job": "none", "reason": "x"}, "no job none is held"),
        ({"command": "discard", "job": "held"}, "say why"),
        ({"command": "discard", "reason": "x"}, "no job  is held"),
        ({"command": "discard", "job": "unreadable", "reason": "x"}, "cannot be read"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    requests: Requests, parts: Parts, request_: dict[str, Any], why: str
) -> None:
    with pytest.raises(NodeError, match=why):
        requests.handle(request_)

    assert sorted(parts.folders.held()) == ["held", "unreadable"]
    assert (parts.counters().held, parts.counters().received) == (5, 6)


def test_a_destination_that_waits_since_before_a_restart_is_not_idle() -> None:
    snapshot = QueueSnapshot(
        destination="pacs",
        jobs={"job-1": 2},
        oldest=time.time(),
        last_error="",
        next_try=time.time() + 60,
        is_sending=False,
    )

    assert str(describe_queue(snapshot)["state"]).startswith("waits ")


@pytest.mark.parametrize(("silent", "state"), [(1.0, "sending"), (120.0, "not answered for 1")])
def test_a_destination_that_does_not_answer_what_is_being_sent_is_seen(
    silent: float, state: str
) -> None:
    snapshot = QueueSnapshot(
        destination="archive",
        jobs={"job-1": 2},
        oldest=time.time(),
        last_error="",
        next_try=None,
        is_sending=True,
        silent_since=time.time() - silent,
    )

    said = str(describe_queue(snapshot)["state"])

    assert said.startswith("sending")
    assert state in said
    assert ("not answered" in said) == (silent > 60)
