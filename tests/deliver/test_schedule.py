"""When what is tried next, by clocks that the tests set."""

import itertools
import sys
from pathlib import Path
from types import FrameType

import pytest

from scp.deliver.breaker import Backoff
from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import Answered, ReceiptState, Unavailable
from scp.deliver.schedule import Schedule, Task
from scp.model import DeliveryItem, Identity

WALL = 1_000_000.0
NUMBERS = itertools.count()


def item(instance: str, uid: str = "", *, is_urgent: bool = False) -> DeliveryItem:
    """Each has a SOP Instance UID of its own where none is given."""
    identity = Identity(
        sop_class_uid="1.2",
        sop_instance_uid=uid or f"1.2.{next(NUMBERS)}",
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
        is_urgent=is_urgent,
    )


def schedule(**jobs: str) -> Schedule:
    """With a job for each keyword, and an instance for each letter of its value."""
    made = Schedule(Backoff(random=lambda: 0.0))
    for name, instances in jobs.items():
        made.add(name, [item(each) for each in instances], ReceiptState(), 0.0, WALL)
    return made


def take(of: Schedule, now: float, limit: int = 99, lanes: int = 1) -> dict[str, Task]:
    taken = of.take(now, limit, lanes) if of.breaker.allows(now, 0) else []
    return {f"{task.job}{task.item.instance}": task for task in taken}


def due(of: Schedule, now: float, limit: int = 99) -> list[str]:
    """What would be taken; it goes back."""
    taken = take(of, now, limit)
    of.give_back(taken.values())
    return list(taken)


def fail(of: Schedule, task: Task, verdict: Verdict, now: float, status: str = "") -> Answered:
    receipt = Receipt(instance=task.item.instance, verdict=verdict, status=status)
    return of.postpone(task, receipt, now, WALL + now, 0.0)


def test_jobs_go_in_the_order_of_their_arrival() -> None:
    assert due(schedule(x="ab", y="a"), 0.0, limit=2) == ["xa", "xb"]


def test_small_jobs_go_together() -> None:
    assert due(schedule(x="a", y="a", z="a"), 0.0) == ["xa", "ya", "za"]


def test_waits_double_up_to_the_longest() -> None:
    made = schedule(x="a")

    waits, now = [], 0.0
    for _ in range(12):
        waits.append(made.unavailable(None, "down", now, WALL).retry_at - WALL)
        now += waits[-1]

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_attempts_that_fail_together_count_once() -> None:
    made = schedule(x="ab")

    made.unavailable(None, "down", 0.0, WALL)
    again = made.unavailable(None, "down", 0.25, WALL)

    assert (again.tries, again.retry_at) == (1, WALL + 0.75)


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
    assert made.next_due(0.9) == 1.0
    assert due(made, 1.0) == ["xa", "ya"]


def test_an_answer_ends_the_waiting_of_the_destination() -> None:
    made = schedule(x="a")
    for now in (0.0, 10.0, 20.0):
        made.unavailable(None, "down", now, WALL)

    made.breaker.reached()

    assert made.unavailable(None, "down", 20.0, WALL).tries == 1


def test_only_one_lane_tries_a_destination_that_failed() -> None:
    made = schedule(x="ab")
    made.unavailable(None, "down", 0.0, WALL)

    assert made.breaker.allows(1.0, 0)
    assert not made.breaker.allows(1.0, 1)

    made.breaker.reached()

    assert made.breaker.allows(1.0, 1)


def test_a_destination_is_left_alone_for_as_long_as_it_asks_for() -> None:
    made = schedule(x="ab")

    made.unavailable(None, "429", 0.0, WALL, retry_after=100.0)
    told = made.unavailable(None, "429", 0.5, WALL, retry_after=20.0)
    made.breaker.reached()  # Another lane's instance was on its way, and is there now.

    assert told.retry_at == WALL + 99.5
    assert (made.next_due(1.0), due(made, 99.0)) == (100.0, [])
    assert due(made, 100.0) == ["xa", "xb"]


def test_no_destination_is_left_alone_for_ever_and_a_person_can_have_it_tried_at_once() -> None:
    made = schedule(x="a")

    entry = made.unavailable(None, "503", 0.0, WALL, retry_after=1e9)
    assert entry.retry_at == WALL + Backoff().longest_wait
    made.hurry("x", [])

    assert due(made, 1.0) == ["xa"]


def test_a_transient_answer_makes_only_its_instance_wait() -> None:
    made = schedule(x="ab", y="a")
    taken = take(made, 0.0)

    fail(made, taken["xa"], Verdict.TRANSIENT, 0.0)
    made.give_back(taken.values())

    assert due(made, 0.5) == ["xb", "ya"]
    assert due(made, 1.0) == ["xb", "ya", "xa"]


def test_an_instance_at_which_attempts_end_goes_last_the_next_time() -> None:
    made = schedule(x="ab", y="a")
    taken = take(made, 0.0)

    made.unavailable(taken["xa"], "broke", 0.0, WALL)
    made.give_back(taken.values())

    assert due(made, 1.0) == ["xb", "ya", "xa"]


def test_urgent_instances_go_first() -> None:
    made = schedule(x="ab")
    made.add("y", [item("a", is_urgent=True)], ReceiptState(), 0.0, WALL)

    assert due(made, 0.0) == ["ya", "xa", "xb"]


def test_what_a_lane_has_no_other_gets() -> None:
    made = schedule(x="abcd")

    first, second = take(made, 0.0, lanes=2), take(made, 0.0, lanes=1)

    assert [list(first), list(second)] == [["xa", "xb"], ["xc", "xd"]]
    assert made.next_due(0.0) is None


def test_one_sop_instance_is_never_tried_twice_at_once_and_goes_in_order_of_arrival() -> None:
    made = schedule()
    made.add("x", [item("a", "1.2.3"), item("b")], ReceiptState(), 0.0, WALL)
    made.add("y", [item("a", "1.2.3")], ReceiptState(), 0.0, WALL)
    made.add("z", [item("a", "1.2.3")], ReceiptState(), 0.0, WALL)

    first = take(made, 0.0)
    made.settle(first["xa"])
    second = take(made, 0.0)
    made.settle(second["ya"])

    assert [list(first), list(second), due(made, 0.0)] == [["xa", "xb"], ["ya"], ["za"]]


def test_transient_answers_never_end_in_holding() -> None:
    made = schedule(x="a")

    answers, now = [], 0.0
    for _ in range(50):
        answers.append(fail(made, take(made, now)["xa"], Verdict.TRANSIENT, now))
        now += 300.0

    assert {each.receipt.verdict for each in answers} == {Verdict.TRANSIENT}
    assert answers[-1].retry_at == WALL + now


def test_limited_answers_end_in_holding_after_five_tries_over_an_hour() -> None:
    made = schedule(x="a")
    now, times = 0.0, [0.0]

    for _ in range(4):
        answer = fail(made, take(made, now)["xa"], Verdict.LIMITED, now)
        now = answer.retry_at - WALL
        assert due(made, now - 1) == []
        assert due(made, now) == ["xa"]
        times.append(now)
    last = fail(made, take(made, now)["xa"], Verdict.LIMITED, now)

    assert times == [0, 60, 300, 1200, 3600]
    assert last.receipt.verdict is Verdict.HELD
    assert last.receipt.detail.endswith("(tried 5 times)")
    assert made.empty_jobs == ["x"]


def test_what_the_peer_itself_said_no_to_five_times_is_refused() -> None:
    made = schedule(x="a")

    for now in (0.0, 60.0, 300.0, 1200.0, 3600.0):
        answer = fail(made, take(made, now)["xa"], Verdict.LIMITED, now, status="C000")

    assert answer.receipt.verdict is Verdict.REFUSED


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
    last = fail(made, take(made, 2050.0)["xc"], Verdict.LIMITED, 2050.0, "C000")
    assert last.receipt.verdict is Verdict.REFUSED


def test_a_restart_does_not_shorten_the_wait_for_the_destination() -> None:
    state = ReceiptState(
        unavailable=Unavailable(at=WALL, reason="down", tries=6, retry_at=WALL + 32)
    )
    made = Schedule(Backoff(random=lambda: 0.0))

    made.add("x", [item("a")], state, 0.0, WALL + 2)

    assert made.next_due(0.0) == 30.0
    assert made.unavailable(None, "down", 30.0, WALL).tries == 7


def test_a_wall_clock_that_was_set_back_delays_no_longer_than_the_longest_wait() -> None:
    state = ReceiptState(
        unavailable=Unavailable(at=WALL, reason="down", tries=1, retry_at=WALL + 1)
    )
    made = Schedule(Backoff())

    made.add("x", [item("a")], state, 0.0, WALL - 10_000_000)

    assert made.next_due(0.0) == 2400.0


def test_hurrying_makes_a_job_due_and_forgets_its_failures() -> None:
    made = schedule(x="abc")
    taken = take(made, 0.0)
    fail(made, taken["xa"], Verdict.LIMITED, 0.0)
    made.settle(taken["xb"])
    made.unavailable(taken["xc"], "down", 0.0, WALL)
    made.give_back(taken.values())

    made.hurry("x", [item("b")])

    again = take(made, 0.0)
    assert sorted(again) == ["xa", "xb", "xc"]
    assert fail(made, again["xa"], Verdict.LIMITED, 0.0).tries == 1
    assert due(made, 0.0) == []


def test_what_was_restored_stays_when_its_earlier_task_settles() -> None:
    made = schedule(x="a")
    earlier = take(made, 0.0)["xa"]
    made.hurry("x", [earlier.item])

    made.settle(earlier)

    assert made.empty_jobs == []
    assert due(made, 0.0) == ["xa"]


def test_a_finished_job_is_forgotten() -> None:
    made = schedule(x="a", y="a")

    made.settle(take(made, 0.0)["xa"])
    empty = made.empty_jobs
    made.remove("x")

    assert empty == ["x"]
    assert "x" not in made
    assert made.empty_jobs == []
    assert dict(made.pending()) == {"y": 1}


def test_a_hundred_thousand_instances_are_scheduled_in_steps_that_do_not_grow() -> None:
    """Counted, not timed: what a step looks at must not depend on the length of the queue."""
    made = Schedule(Backoff())
    made.add("x", [item(str(number)) for number in range(20_000)], ReceiptState(), 0.0, WALL)
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        made.give_back(made.take(0.0, 5))
        made.next_due(0.0)
        list(made.pending())
        made.oldest()
        _ = made.empty_jobs
    finally:
        sys.setprofile(None)

    assert calls < 200
