"""What the answers of destinations add up to for one job."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scp.buffer.job import JobInstance, JobVolume
from scp.deliver.ports import Verdict
from scp.ledger.ports import State
from scp.model import Form, PassReason
from scp.pipeline.live import Live
from tests.pipeline.jobs import EXPLICIT, NOON, answer, instance, job_of, takes

FOLDER = Path("spool/jobs/job-1")


def live(*instances: JobInstance) -> Live:
    return Live(job=job_of("job-1", list(instances)), folder=FOLDER)


def test_whatever_may_be_sent_of_an_instance_comes_with_its_digest() -> None:
    source = instance(result_sha256="ab", dataset_sha256="cd")

    (item,) = live(source).items_for("archive")

    assert (item.sha256, item.original_dataset_sha256) == ("ab", "cd")


def test_an_instance_is_delivered_only_when_every_destination_has_it() -> None:
    source = instance()
    job = live(source)
    takes("archive", ["a.dcm"], job)
    assert job.state_of(source) is None

    takes("pacs", ["a.dcm"], job)

    assert job.state_of(source) is State.DELIVERED


@pytest.mark.parametrize("verdict", [Verdict.WARNING, Verdict.ALREADY_THERE])
def test_a_warning_and_a_copy_that_was_there_count_as_delivered(verdict: Verdict) -> None:
    source = instance(send_to=("pacs",))
    job = live(source)

    job.take("pacs", {"a.dcm": answer("a.dcm", verdict)}, NOON)

    assert job.state_of(source) is State.DELIVERED


@pytest.mark.parametrize("verdict", [Verdict.TRANSIENT, Verdict.LIMITED])
def test_what_is_tried_again_is_neither_delivered_nor_held(verdict: Verdict) -> None:
    source = instance(send_to=("pacs",))
    job = live(source)

    job.take("pacs", {"a.dcm": answer("a.dcm", verdict)}, NOON)

    assert job.state_of(source) is None
    assert not job.is_held(source)


def test_what_one_destination_holds_is_held_although_another_has_it() -> None:
    source, other = instance(), instance("b.dcm")
    job = live(source, other)

    takes("archive", ["a.dcm", "b.dcm"], job)
    job.take("pacs", {"a.dcm": answer("a.dcm", Verdict.HELD)}, NOON)

    assert job.is_held(source)
    assert not job.is_held(other)
    assert job.held == {"pacs": {"a.dcm": "why"}}


def test_a_delivery_ends_what_the_same_destination_held() -> None:
    source = instance(send_to=("pacs",))
    job = live(source)
    job.take("pacs", {"a.dcm": answer("a.dcm", Verdict.HELD)}, NOON)

    takes("pacs", ["a.dcm"], job)

    assert not job.needs_a_person
    assert job.state_of(source) is State.DELIVERED


def test_skipped_instances_and_repeats_go_nowhere_and_wait_for_nobody() -> None:
    skipped = instance("s.dcm", send_to=())
    repeat = instance("r.dcm", repeat_of="job-0")
    job = live(skipped, repeat, instance())

    assert [item.instance for item in job.items_for("archive")] == ["a.dcm"]
    assert (job.state_of(skipped), job.state_of(repeat)) == (State.SKIPPED, State.REPEAT)
    assert job.waiting_for("pacs") == ["a.dcm"]
    assert job.waiting_bytes == 200


def test_what_a_destination_skips_is_not_waited_for_and_is_skipped_where_nobody_has_it() -> None:
    half, none = instance(), instance("b.dcm", send_to=("pacs",))
    job = live(half, none)
    takes("archive", ["a.dcm"], job)

    job.take("pacs", {name: answer(name, Verdict.SKIPPED) for name in ("a.dcm", "b.dcm")}, NOON)

    assert job.waiting_for("pacs") == []
    assert (job.state_of(half), job.state_of(none)) == (State.DELIVERED, State.SKIPPED)
    assert job.waiting_bytes == 0
    rows = {row.instance: row for row in job.rows()}
    assert {row.note for row in rows.values()} == {"pacs: why"}
    assert [list(rows[name].destinations) for name in ("a.dcm", "b.dcm")] == [["archive"], []]


def test_urgent_instances_and_their_senders_are_known_to_the_queue() -> None:
    (item,) = live(instance(is_urgent=True)).items_for("pacs")

    assert item.is_urgent
    assert item.calling_ae_title == "CT1"


def test_only_the_destinations_of_what_is_delivered_have_work() -> None:
    job = live(
        instance("a.dcm", send_to=("pacs",)),
        instance("b.dcm", send_to=("archive",), repeat_of="job-0"),
        instance("c.dcm", send_to=("pacs", "research")),
    )

    assert job.destinations == ["pacs", "research"]
    assert [item.instance for item in job.items_for("research")] == ["c.dcm"]


def test_a_conversion_is_sent_with_its_original_at_hand_and_an_original_alone() -> None:
    original = instance("o.dcm", form="original", transfer_syntax=EXPLICIT)
    job = live(instance("a.dcm", is_conflict=True), original)

    converted, passed = job.items_for("archive")

    assert converted.path == FOLDER / "results" / "htj2k" / "a.dcm"
    assert converted.original == FOLDER / "source" / "a.dcm"
    assert (converted.original_transfer_syntax, converted.is_conflict) == (EXPLICIT, True)
    assert passed.path == passed.original == FOLDER / "source" / "o.dcm"


def test_bytes_wait_until_the_last_destination_has_them_and_are_counted_once() -> None:
    job = live(instance(), instance("b.dcm", result_bytes=300))
    takes("archive", ["a.dcm", "b.dcm"], job)
    assert job.waiting_bytes == 500

    takes("pacs", ["a.dcm"], job)

    assert job.waiting_bytes == 300


def test_rows_say_what_became_of_each_instance() -> None:
    job = live(
        instance("done.dcm", remark="enhanced_not_available"),
        instance("skipped.dcm", send_to=()),
        instance("repeat.dcm", repeat_of="job-0"),
        instance("half.dcm", form="original", reason="lossy_source"),
    )
    takes("archive", ["done.dcm", "half.dcm"], job)
    takes("pacs", ["done.dcm"], job)

    rows = {row.instance: row for row in job.rows("the PACS has it")}

    assert {name: (row.state, row.form, row.note) for name, row in rows.items()} == {
        "done.dcm": (State.DELIVERED, Form.HTJ2K, "enhanced_not_available"),
        "skipped.dcm": (State.SKIPPED, None, ""),
        "repeat.dcm": (State.REPEAT, None, "repeat of job-0"),
        "half.dcm": (State.DISCARDED, Form.ORIGINAL, "the PACS has it"),
    }
    assert rows["half.dcm"].reason is PassReason.LOSSY_SOURCE
    assert sorted(rows["done.dcm"].destinations) == ["archive", "pacs"]
    assert list(rows["half.dcm"].destinations) == ["archive"]
    assert {row.received_at for row in rows.values()} == {NOON}


@pytest.mark.parametrize("seconds", [1e300, -1e18, float("inf"), float("nan")])
def test_a_time_of_arrival_that_is_no_date_does_not_keep_a_job_from_the_ledger(
    seconds: float,
) -> None:
    (row,) = live(instance(received=seconds)).rows("a test")

    assert row.received_at == row.finished_at


# -- a volume that was lost after its first delivery -----------------------------------------------

VOLUME = JobVolume(
    name="v.dcm",
    identity=replace(instance().identity, sop_instance_uid="1.5"),
    transfer_syntax=EXPLICIT,
    send_to=("archive", "pacs"),
    result_bytes=1,
    result_sha256="cc",
    restore_record="embedded",
)


def lost_volume(**changes: Any) -> Live:
    """Its two frames are delivered as originals, but to ``pacs``, which had it before."""
    frames = [
        instance(f"{n}.dcm", form="enhanced", volume="v.dcm", frame=n, result_sha256="cc")
        for n in (1, 2)
    ]
    job = replace(job_of("job-1", frames), volumes=(VOLUME,))
    given_up = Live(job=job.as_originals("result_lost", ["1.dcm"]), folder=FOLDER, **changes)
    takes("pacs", ["v.dcm"], given_up)
    return given_up


def test_who_had_a_volume_before_it_was_lost_has_it_also_in_the_ledger() -> None:
    job = lost_volume()
    assert (job.waiting_for("pacs"), job.waiting_for("archive")) == ([], ["1.dcm", "2.dcm"])
    takes("archive", ["1.dcm", "2.dcm"], job)

    rows = list(job.rows())

    assert [(row.state, row.became, row.frame) for row in rows] == [
        (State.DELIVERED, "1.5", 1),
        (State.DELIVERED, "1.5", 2),
    ]
    for row in rows:
        assert {name: each.is_collapsed for name, each in row.destinations.items()} == {
            "archive": False,
            "pacs": True,
        }


def test_a_lost_volume_that_nobody_had_is_nobodys() -> None:
    job = lost_volume()
    job.taken.clear()
    takes("archive", ["1.dcm", "2.dcm"], job)
    takes("pacs", ["1.dcm", "2.dcm"], job)

    rows = list(job.rows())

    assert [(row.state, row.became, row.frame) for row in rows] == [(State.DELIVERED, "", 0)] * 2


def test_a_lost_volume_has_to_be_vouched_for_like_any_other() -> None:
    job = lost_volume(vouching=frozenset({"pacs"}))
    takes("archive", ["1.dcm", "2.dcm"], job)
    assert (job.waiting_for("pacs"), job.instances_open) == (["v.dcm"], 2)
    assert job.unvouched("pacs").keys() == {"v.dcm"}

    job.vouch("pacs", ["v.dcm"], [], NOON)

    assert (job.waiting_for("pacs"), job.instances_open) == ([], 0)
    assert {row.destinations["pacs"].committed_at for row in job.rows()} == {NOON}


def test_of_a_lost_volume_that_is_not_vouched_for_the_originals_are_left_to_send() -> None:
    job = lost_volume(vouching=frozenset({"pacs"}))
    takes("archive", ["1.dcm", "2.dcm"], job)
    job.held["pacs"] = {"v.dcm": "commitment_failed: 0112"}

    job.vouch("pacs", [], ["v.dcm"], NOON)

    assert job.instances_held == 2
    assert [item.instance for item in job.items_for("pacs")] == ["1.dcm", "2.dcm"]
