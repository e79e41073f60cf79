"""What a start makes of the jobs that it finds; each test is the first life, then the second."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import Answered, ReceiptLog, ReceiptState, hold, load
from scp.ledger.ports import State
from scp.model import Form, PassReason
from scp.pipeline.live import Live
from tests.buffer.recorder import HookedDisk
from tests.pipeline.conftest import MakeParts
from tests.pipeline.jobs import come_again
from tests.pipeline.parts import Parts, archive, no_room_for

HTJ2K = Form.HTJ2K.value


def recover(parts: Parts) -> list[str]:
    """What the coordinator does first; the names of jobs without a commit."""
    parts.dispatch.recover_held()
    return parts.dispatch.recover_jobs()


def receipt(name: str, verdict: Verdict = Verdict.DELIVERED) -> Receipt:
    return Receipt(instance=name, verdict=verdict, status="0000", detail="why")


def write_receipts(parts: Parts, live: Live, destination: str, *receipts: Receipt) -> None:
    log = ReceiptLog(parts.disk, live.receipts_path(destination), ReceiptState(), wall=lambda: 5.0)
    for each in receipts:
        log.record(Answered(at=5.0, receipt=each))
    log.sync()
    log.close()


# -- conversions that the disk has lost ------------------------------------------------------------


def test_a_lost_conversion_is_replaced_by_its_original_and_the_reason_counted(
    make_parts: MakeParts,
) -> None:
    parts = make_parts()
    job = parts.job(count=3)
    lost = job.instances[1]
    parts.folders.result("job-1", HTJ2K, lost.name).unlink()

    assert recover(parts) == []

    parts.until(lambda: parts.states() == {State.DELIVERED: 3})
    forms = {row.instance: (row.form, row.reason) for row in parts.ledger.recent(9)}
    assert forms.pop(lost.name) == (Form.ORIGINAL, PassReason.RESULT_LOST)
    assert set(forms.values()) == {(Form.HTJ2K, None)}
    assert len(parts.archived()) == 3


def test_an_original_that_replaces_a_conversion_is_checked_like_one(make_parts: MakeParts) -> None:
    parts = make_parts()
    job = parts.job(count=2)
    for lost in job.instances:
        parts.folders.result("job-1", HTJ2K, lost.name).unlink()
    spoiled = parts.folders.source("job-1") / job.instances[0].name
    content = bytearray(spoiled.read_bytes())
    content[-1] ^= 1
    spoiled.write_bytes(content)

    assert recover(parts) == []

    live = parts.dispatch.live["job-1"]
    kept, replaced = live.job.instances
    whole = hashlib.sha256((parts.folders.source("job-1") / replaced.name).read_bytes())
    assert (replaced.form, replaced.result_sha256) == ("original", whole.hexdigest())
    assert (kept.form, kept.reason) == (HTJ2K, "")  # Nobody gets what the disk has spoiled.


def test_that_originals_are_sent_instead_is_committed_before_anything_is_sent(
    make_parts: MakeParts, tmp_path: Path
) -> None:
    (tmp_path / "archive").touch()
    first = make_parts()
    first.job()
    first.folders.drop_results("job-1")
    recover(first)
    first.close()

    job = first.folders.load(first.folders.folder("job-1"))

    assert job is not None
    assert [(i.form, i.reason) for i in job.instances] == [("original", PassReason.RESULT_LOST)]
    second = make_parts()
    (tmp_path / "archive").unlink()
    recover(second)
    second.dispatch.retry([])
    second.until(lambda: second.states() == {State.DELIVERED: 1})


def test_originals_are_sent_also_where_the_disk_has_no_room_to_say_so(
    make_parts: MakeParts,
) -> None:
    parts = make_parts(disk=HookedDisk())
    parts.job()
    parts.folders.drop_results("job-1")
    assert isinstance(parts.disk, HookedDisk)
    parts.disk.hook = no_room_for("create", "job.json")

    recover(parts)

    parts.until(lambda: parts.states() == {State.DELIVERED: 1})
    assert parts.ledger.totals().reasons == {PassReason.RESULT_LOST: 1}


@pytest.mark.parametrize("changes", [{"send_to": ()}, {"repeat_of": "job-0"}], ids=str)
def test_a_conversion_that_nobody_was_to_have_is_not_missed(
    make_parts: MakeParts, changes: dict[str, Any]
) -> None:
    parts = make_parts()
    parts.job(**changes)
    parts.folders.drop_results("job-1")
    before = (parts.folders.folder("job-1") / "job.json").read_bytes()

    parts.dispatch.recover_jobs()

    assert parts.dispatch.live["job-1"].job.instances[0].form == HTJ2K
    assert (parts.folders.folder("job-1") / "job.json").read_bytes() == before


# -- jobs that are done, half done, not begun ------------------------------------------------------


@pytest.mark.parametrize("where", ["jobs", "held"])
def test_a_job_that_the_ledger_has_is_thrown_away_and_counted_once(
    make_parts: MakeParts, where: str
) -> None:
    first = make_parts()
    job = first.job(count=2)
    first.ledger.record(list(Live(job=job, folder=first.folders.folder("job-1")).rows("a reason")))
    if where == "held":
        first.folders.hold("job-1", {"archive": {"a reason": 2}})
    first.close()
    second = make_parts()

    assert recover(second) == []

    assert not second.dispatch.live | second.dispatch.held
    assert [*second.layout.jobs.iterdir(), *second.layout.held.iterdir()] == []
    assert list(second.layout.trash.iterdir()) == []
    assert (second.counters().received, second.counters().discarded) == (2, 2)
    assert second.archived() == []


def test_what_receipts_say_is_done_is_not_sent_again(make_parts: MakeParts, tmp_path: Path) -> None:
    parts = make_parts()
    job = parts.job(count=3)
    live = Live(job=job, folder=parts.folders.folder("job-1"))
    done = [receipt(instance.name) for instance in job.instances[:2]]
    write_receipts(parts, live, "archive", *done)

    recover(parts)

    parts.until(lambda: parts.states() == {State.DELIVERED: 3})
    assert len(parts.archived()) == 1
    at = {
        row.instance: row.destinations["archive"].at.timestamp() for row in parts.ledger.recent(9)
    }
    assert [at[each.instance] for each in done] == [5.0, 5.0]


def test_what_receipts_say_is_refused_is_held_without_asking_again(make_parts: MakeParts) -> None:
    parts = make_parts()
    job = parts.job(count=2)
    live = Live(job=job, folder=parts.folders.folder("job-1"))
    refused = receipt(job.instances[0].name, Verdict.HELD)
    write_receipts(parts, live, "archive", refused, receipt(job.instances[1].name))

    recover(parts)

    parts.until(lambda: parts.dispatch.held)
    assert parts.archived() == []
    assert (parts.counters().held, parts.counters().delivered) == (1, 1)
    assert parts.dispatch.held_jobs("job-1")[0]["reasons"] == {"archive": {"why": 1}}


def test_jobs_without_a_commit_are_left_to_be_done_again(make_parts: MakeParts) -> None:
    parts = make_parts()
    parts.job("job-1")
    parts.job("job-2")
    (parts.folders.folder("job-2") / "job.json").unlink()

    assert recover(parts) == ["job-2"]

    assert list(parts.dispatch.live) == ["job-1"]


def test_a_committed_job_is_known_as_what_a_repeat_repeats(
    make_parts: MakeParts, tmp_path: Path
) -> None:
    (tmp_path / "archive").touch()
    parts = make_parts()
    job = parts.job()

    recover(parts)

    again = come_again(job.instances[0])
    assert parts.accounts.find_repeat(*again, ["archive"]) == ("job-1", False)


def test_what_a_person_may_give_up_makes_nothing_a_repeat(make_parts: MakeParts) -> None:
    parts = make_parts()
    job = parts.job()
    parts.folders.hold("job-1", {"archive": {"why": 1}})

    recover(parts)

    again = come_again(job.instances[0])
    assert parts.accounts.find_repeat(*again, ["archive"]) == ("", False)


@pytest.mark.parametrize("where", ["jobs", "held"])
def test_a_job_whose_receipts_cannot_be_read_is_held_and_nothing_sent_again(
    make_parts: MakeParts, where: str
) -> None:
    parts = make_parts()
    parts.job(count=2)
    if where == "held":
        parts.folders.hold("job-1", {"archive": {"why": 2}})
    folder = (
        parts.folders.folder("job-1") if where == "jobs" else parts.folders.held_folder("job-1")
    )
    (folder / "receipts-archive").mkdir()

    recover(parts)

    assert parts.dispatch.unreadable == {"job-1": 2}
    assert parts.archived() == []


def test_a_commit_that_lies_in_another_job_is_damage(make_parts: MakeParts) -> None:
    parts = make_parts()
    parts.job("job-1")
    parts.job("job-2")
    other = parts.folders.folder("job-2") / "job.json"
    (parts.folders.folder("job-1") / "job.json").write_bytes(other.read_bytes())

    recover(parts)

    assert list(parts.dispatch.unreadable) == ["job-1"]


# -- held jobs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_said", [True, False], ids=["said", "reason.json is lost"])
def test_a_held_job_is_counted_as_held_whatever_is_left_of_the_reasons(
    make_parts: MakeParts, *, is_said: bool
) -> None:
    first = make_parts()
    first.held(first.job(count=2, send_to=("archive", "left")))
    if not is_said:
        (first.folders.held_folder("job-1") / "reason.json").unlink()
    first.close()
    second = make_parts()

    recover(second)

    assert (second.counters().held, second.counters().pending) == (2, 0)
    reason = "destination_left_configuration" if is_said else "not_taken"
    assert second.dispatch.held_jobs(None)[0]["reasons"] == {"left": {reason: 2}}


def test_what_a_held_job_has_delivered_and_nobody_has_vouched_for_is_held_with_that_reason(
    make_parts: MakeParts,
) -> None:
    first = make_parts()
    live = first.held(first.job(count=3, send_to=("archive", "left")))
    names = [instance.name for instance in live.job.instances]
    # As the version before left it that asked for nothing of a job of which something was refused.
    refused = Receipt(instance=names[0], verdict=Verdict.HELD, status="A900", detail="A900")
    hold(first.disk, live.receipts_path("archive"), [refused], 1.0)
    first.close()
    second = make_parts()
    second.dispatch.vouching = frozenset({"archive"})

    recover(second)

    reasons = second.dispatch.held_jobs(None)[0]["reasons"]
    assert reasons["archive"] == {"A900": 1, "not_vouched": 2}
    assert (second.counters().held, second.counters().pending) == (3, 0)
    asked: list[set[str]] = []

    def asks(live: Live, destination: str) -> bool:
        asked.append({*live.unvouched(destination)})
        return True

    second.dispatch.asks = asks
    second.dispatch.retry([])
    second.until(lambda: asked)
    assert asked == [set(names)]
    done = load(second.dispatch.live["job-1"].receipts_path("archive")).done
    assert [done[name].attempts for name in names] == [3, 1, 1]


def test_a_job_that_was_discarded_while_the_ledger_was_away_stays_so(make_parts: MakeParts) -> None:
    first = make_parts()
    first.held(first.job(count=2, send_to=("archive", "left")))
    first.folders.give_up("job-1", "the PACS is gone")
    first.close()

    second = make_parts()
    assert recover(second) == []

    second.until(lambda: not second.dispatch.live)
    assert not second.dispatch.held
    assert second.folders.held() == []
    rows = second.ledger.recent(9)
    assert [(row.state, row.note) for row in rows] == [(State.DISCARDED, "the PACS is gone")] * 2
    assert second.counters().discarded == 2


def test_a_destination_that_is_back_gets_what_was_held_for_it_by_retry(
    make_parts: MakeParts, tmp_path: Path
) -> None:
    first = make_parts()
    first.held(first.job(send_to=("archive", "back")))
    first.close()
    back = {**archive(tmp_path), "path": str(tmp_path / "back")}
    second = make_parts(destinations={"archive": archive(tmp_path), "back": back})
    recover(second)
    assert second.states() == {}

    second.dispatch.retry(["job-1"])

    second.until(lambda: second.states() == {State.DELIVERED: 1})
    assert len(list((tmp_path / "back").rglob("*.dcm"))) == 1


def test_a_held_job_of_another_version_is_shown_and_left_alone(make_parts: MakeParts) -> None:
    first = make_parts()
    first.held(first.job(count=2, send_to=["left"]))
    commit = first.folders.held_folder("job-1") / "job.json"
    commit.write_text(json.dumps(json.loads(commit.read_bytes()) | {"format": 99}))
    first.close()
    second = make_parts()

    recover(second)

    assert second.dispatch.unreadable == {"job-1": 2}
    assert json.loads(commit.read_bytes())["format"] == 99
