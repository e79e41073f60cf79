"""When what is tried next, by clocks that the tests set."""

from pathlib import Path

import pytest

from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import Answered, ReceiptState, Unavailable
from scp.deliver.schedule import Backoff, Schedule, Task
from scp.model import DeliveryItem, Identity

WALL = 1_000_000.0


def item(instance: str) -> DeliveryItem:
    identity = Identity(
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        study_instance_uid="1.2.4",
        series_instance_uid="1.2.5",
    )
    return DeliveryItem(
        instance=instance,
        identity=identity,
        path=Path("x"),
        transfer_syntax="1.2",
        original=Path("x"),
        original_transfer_syntax="1.2",
        sha256="",
    )


def schedule(**jobs: str) -> Schedule:
    """With a job for each keyword, and an instance for each letter of its value."""
    made = Schedule(Backoff(random=lambda: 0.0))
    for name, instances in jobs.items():
        made.add(name, [item(each) for each in instances], ReceiptState(), 0.0, WALL)
    return made


def due(of: Schedule, now: float, limit: int = 99) -> list[str]:
    return [f"{task.job}{task.item.instance}" for task in of.due(now, limit)]


def fail(of: Schedule, name: str, verdict: Verdict, now: float) -> Answered:
    receipt = Receipt(instance=name[1:], verdict=verdict, status="")
    return of.postpone(Task(name[0], item(name[1:])), receipt, now, WALL + now, 0.0)


def test_jobs_go_in_the_order_of_their_arrival() -> None:
    assert due(schedule(x="ab", y="a"), 0.0, limit=2) == ["xa", "xb"]


def test_small_jobs_go_together() -> None:
    assert due(schedule(x="a", y="a", z="a"), 0.0) == ["xa", "ya", "za"]


def test_waits_double_up_to_the_longest() -> None:
    made = schedule(x="a")

    waits = [made.unavailable(None, "down", 0.0, WALL).retry_at - WALL for _ in range(12)]

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_jitter_only_shortens_a_wait() -> None:
    backoff = Backoff(first_seconds=10.0, jitter=0.2)

    assert backoff.seconds(1, 0.0) == 10.0
    assert backoff.seconds(1, 0.999) == pytest.approx(8.0, abs=0.01)


def test_a_thousand_failures_do_not_overflow() -> None:
    assert Backoff(jitter=0).seconds(5000, 0.0) == 300.0


def test_an_unavailable_destination_makes_every_job_wait() -> None:
    made = schedule(x="a")
    made.unavailable(None, "down", 0.0, WALL)
    made.add("y", [item("a")], ReceiptState(), 0.5, WALL)

    assert due(made, 0.9) == []
    assert made.next_due() == 1.0
    assert due(made, 1.0) == ["xa", "ya"]


def test_an_answer_ends_the_waiting_of_the_destination() -> None:
    made = schedule(x="a")
    for _ in range(5):
        made.unavailable(None, "down", 0.0, WALL)

    made.reached()

    assert made.unavailable(None, "down", 0.0, WALL).tries == 1


def test_a_transient_answer_makes_only_its_instance_wait() -> None:
    made = schedule(x="ab", y="a")

    fail(made, "xa", Verdict.TRANSIENT, 0.0)

    assert due(made, 0.5) == ["xb", "ya"]
    assert due(made, 1.0) == ["xb", "ya", "xa"]


def test_an_instance_at_which_attempts_end_goes_last_the_next_time() -> None:
    made = schedule(x="ab", y="a")

    made.unavailable(Task("x", item("a")), "broke", 0.0, WALL)

    assert due(made, 1.0) == ["xb", "ya", "xa"]


def test_transient_answers_never_end_in_holding() -> None:
    made = schedule(x="a")

    answers = [fail(made, "xa", Verdict.TRANSIENT, 0.0) for _ in range(50)]

    assert {each.receipt.verdict for each in answers} == {Verdict.TRANSIENT}
    assert answers[-1].retry_at == WALL + 300


def test_limited_answers_end_in_holding_after_five_tries_over_an_hour() -> None:
    made = schedule(x="a")
    now, times = 0.0, [0.0]

    for _ in range(4):
        answer = fail(made, "xa", Verdict.LIMITED, now)
        now = answer.retry_at - WALL
        assert due(made, now - 1) == []
        assert due(made, now) == ["xa"]
        times.append(now)
    last = fail(made, "xa", Verdict.LIMITED, now)

    assert times == [0, 60, 300, 1200, 3600]
    assert last.receipt.verdict is Verdict.HELD
    assert last.receipt.detail.endswith("(tried 5 times)")
    assert made.empty_jobs() == ["x"]


def test_a_restart_goes_on_where_the_receipts_say() -> None:
    state = ReceiptState()
    state.apply(
        Answered(at=WALL, receipt=Receipt(instance="a", verdict=Verdict.WARNING, status=""))
    )
    state.apply(Answered(at=WALL, receipt=Receipt(instance="b", verdict=Verdict.HELD, status="")))
    limited = Receipt(instance="c", verdict=Verdict.LIMITED, status="C000")
    state.apply(Answered(at=WALL, receipt=limited, tries=4, retry_at=WALL + 2400))
    made = Schedule(Backoff(random=lambda: 0.0))

    made.add("x", [item(each) for each in "abcd"], state, 50.0, WALL + 400)

    assert due(made, 50.0) == ["xd"]
    assert due(made, 2050.0) == ["xd", "xc"]
    assert fail(made, "xc", Verdict.LIMITED, 2050.0).receipt.verdict is Verdict.HELD


def test_a_restart_does_not_shorten_the_wait_for_the_destination() -> None:
    state = ReceiptState(
        unavailable=Unavailable(at=WALL, reason="down", tries=6, retry_at=WALL + 32)
    )
    made = Schedule(Backoff(random=lambda: 0.0))

    made.add("x", [item("a")], state, 0.0, WALL + 2)

    assert made.next_due() == 30.0
    assert made.unavailable(None, "down", 30.0, WALL).tries == 7


def test_a_wall_clock_that_was_set_back_delays_no_longer_than_the_longest_wait() -> None:
    state = ReceiptState(
        unavailable=Unavailable(at=WALL, reason="down", tries=1, retry_at=WALL + 1)
    )
    made = Schedule(Backoff())

    made.add("x", [item("a")], state, 0.0, WALL - 10_000_000)

    assert made.next_due() == 2400.0


def test_hurrying_makes_a_job_due_and_forgets_its_failures() -> None:
    made = schedule(x="ab")
    fail(made, "xa", Verdict.LIMITED, 0.0)
    made.settle("x", "b")
    made.unavailable(None, "down", 0.0, WALL)

    made.hurry("x", [item("b")])

    assert due(made, 0.0) == ["xa", "xb"]
    assert fail(made, "xa", Verdict.LIMITED, 0.0).tries == 1


def test_a_removed_job_is_no_longer_due_and_late_news_of_it_are_ignored() -> None:
    made = schedule(x="a", y="a")

    made.remove("x")
    made.settle("x", "a")
    fail(made, "xa", Verdict.TRANSIENT, 0.0)

    assert due(made, 99.0) == ["ya"]
    assert "x" not in made
