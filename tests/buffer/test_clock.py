"""When a series is complete."""

import pytest

from scp.buffer.clock import SeriesClock


@pytest.fixture
def clock() -> SeriesClock:
    return SeriesClock(quiet_seconds=15.0, max_open_seconds=900.0)


def test_a_series_is_quiet_when_nothing_arrived_for_its_quiet_period(clock: SeriesClock) -> None:
    clock.arrived("a", 0.0)

    assert clock.due(14.9) == []
    assert clock.due(15.0) == [("a", False)]


def test_a_late_instance_restarts_the_quiet_period(clock: SeriesClock) -> None:
    clock.arrived("a", 0.0)

    clock.arrived("a", 14.0)

    assert clock.due(28.9) == []
    assert clock.due(29.0) == [("a", False)]


def test_a_time_of_which_not_all_is_known_is_not_quiet(clock: SeriesClock) -> None:
    clock.arrived("a", 0.0)

    assert clock.due(100.0, known_until=14.9) == []
    assert clock.due(100.0, known_until=15.0) == [("a", False)]
    assert clock.due(900.0, known_until=14.9) == [("a", True)]


def test_a_series_is_not_quiet_in_the_middle_of_an_instance(clock: SeriesClock) -> None:
    clock.begin("a", "r0", 0.0)
    assert clock.due(800.0) == []

    clock.end("a", "r0", 800.0)

    assert clock.due(814.9) == []
    assert clock.due(815.0) == [("a", False)]


def test_each_of_several_instances_in_the_middle_counts(clock: SeriesClock) -> None:
    for receiver in ("r0", "r0", "r1"):
        clock.begin("a", receiver, 0.0)

    clock.end("a", "r0", 1.0)
    clock.end("a", "r1", 1.0)
    assert clock.due(100.0) == []
    clock.end("a", "r0", 1.0)

    assert clock.due(100.0) == [("a", False)]


def test_a_receiver_that_dies_is_in_the_middle_of_nothing(clock: SeriesClock) -> None:
    clock.begin("a", "r0", 0.0)
    clock.begin("a", "r1", 0.0)

    clock.receiver_died("r0")
    assert clock.due(100.0) == []
    clock.receiver_died("r1")

    assert clock.due(100.0) == [("a", False)]


def test_an_end_without_a_beginning_changes_nothing_but_the_time(clock: SeriesClock) -> None:
    clock.end("unknown", "r0", 0.0)
    clock.begin("a", "r0", 0.0)

    clock.end("a", "r1", 1.0)

    assert "unknown" not in clock
    assert clock.due(100.0) == []


def test_a_series_is_cut_when_it_has_been_open_for_too_long(clock: SeriesClock) -> None:
    for second in range(0, 901, 10):
        clock.arrived("a", float(second))
    assert clock.due(899.9) == []

    clock.begin("a", "r0", 899.0)

    assert clock.due(900.0) == [("a", True)]


def test_the_longest_quiet_comes_first(clock: SeriesClock) -> None:
    clock.arrived("late", 2.0)
    clock.arrived("early", 1.0)

    assert clock.due(20.0) == [("early", False), ("late", False)]


def test_a_rule_may_ask_for_less_or_more_quiet(clock: SeriesClock) -> None:
    for series, quiet in (("short", 2.0), ("long", 120.0)):
        clock.arrived(series, 0.0)
        clock.set_quiet_seconds(series, quiet)

    assert clock.due(2.0) == [("short", False)]
    assert clock.due(119.0) == [("short", False)]
    assert clock.due(120.0) == [("short", False), ("long", False)]


@pytest.mark.parametrize("asked", [(2.0, 60.0), (60.0, 2.0)])
def test_of_several_quiet_periods_the_longest_that_was_asked_for_holds(
    clock: SeriesClock, asked: tuple[float, float]
) -> None:
    clock.arrived("a", 0.0)

    for quiet in asked:
        clock.set_quiet_seconds("a", quiet)

    assert clock.due(59.0) == []
    assert clock.due(60.0) == [("a", False)]


def test_a_quiet_period_for_a_series_that_is_not_open_is_ignored(clock: SeriesClock) -> None:
    clock.set_quiet_seconds("a", 1.0)

    assert "a" not in clock


def test_after_a_restart_a_series_has_a_fresh_quiet_period_and_its_age(clock: SeriesClock) -> None:
    clock.arrived("a", 0.0, age=890.0)

    assert clock.due(9.9) == []
    assert clock.due(10.0) == [("a", True)]


@pytest.mark.parametrize(("age", "cut_at"), [(-3600.0, 900.0), (1e12, 0.0), (float("-inf"), 900.0)])
def test_an_age_from_a_clock_that_was_set_is_clamped(
    clock: SeriesClock, age: float, cut_at: float
) -> None:
    clock.arrived("a", 0.0, age=age)
    clock.begin("a", "r0", 0.0)

    assert clock.due(cut_at - 0.1) == []
    assert clock.due(cut_at) == [("a", True)]


def test_the_oldest_is_the_one_open_longest_not_the_quietest(clock: SeriesClock) -> None:
    assert clock.oldest_first() == []
    clock.arrived("a", 0.0)
    clock.arrived("b", 1.0)
    clock.arrived("a", 2.0)

    assert clock.oldest_first() == ["a", "b"]
    clock.close("a")
    assert clock.oldest_first() == ["b"]


def test_a_closed_series_that_comes_again_is_a_new_one(clock: SeriesClock) -> None:
    clock.arrived("a", 0.0)
    clock.close("a")
    clock.close("a")

    clock.arrived("a", 100.0)

    assert len(clock) == 1
    assert clock.due(115.0) == [("a", False)]


def test_what_was_begun_before_a_series_was_cut_keeps_it_from_being_quiet_after_it(
    clock: SeriesClock,
) -> None:
    clock.begin("a", "r0", 0.0)
    clock.close("a")
    clock.begin("a", "r0", 1.0)

    clock.end("a", "r0", 2.0)
    assert clock.due(100.0) == []
    assert clock.next_due(100.0) == 801.0
    clock.end("a", "r0", 100.0)

    assert clock.due(115.0) == [("a", False)]


def test_what_was_begun_before_a_series_was_cut_ends_while_it_is_not_open(
    clock: SeriesClock,
) -> None:
    clock.begin("a", "r0", 0.0)
    clock.begin("a", "r1", 0.0)
    clock.close("a")

    clock.end("a", "r0", 1.0)
    clock.receiver_died("r1")
    assert "a" not in clock
    clock.arrived("a", 2.0)

    assert clock.due(17.0) == [("a", False)]


def test_the_next_look_is_when_something_may_be_due(clock: SeriesClock) -> None:
    assert clock.next_due(0.0) is None
    clock.arrived("a", 0.0)
    assert clock.next_due(5.0) == 10.0
    clock.begin("a", "r0", 5.0)
    assert clock.next_due(5.0) == 895.0

    assert clock.next_due(1000.0) == 0.0


def test_a_snapshot_tells_age_quiet_and_whether_something_arrives(clock: SeriesClock) -> None:
    clock.arrived("a", 0.0)
    clock.begin("b", "r0", 1.0)

    assert clock.snapshot(3.0) == {"a": (3.0, 3.0, False), "b": (2.0, 2.0, True)}
