"""The coordinator's timers. Its loop is what tests/e2e is about."""

import pytest

from scp.pipeline.coordinator import Timers
from tests.pipeline.parts import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def timers(clock: HandClock) -> Timers:
    return Timers(clock)


def test_calls_are_made_when_they_are_due_the_earliest_first(
    timers: Timers, clock: HandClock
) -> None:
    made: list[str] = []
    for name, seconds in (("c", 3.0), ("a", 1.0), ("b", 1.0), ("d", 3.1)):
        timers.later(seconds, lambda name=name: made.append(name))  # type: ignore[misc]

    timers.run_due()
    assert made == []
    clock.seconds += 3.0
    timers.run_due()

    assert made == ["a", "b", "c"]


def test_it_says_how_long_may_be_waited(timers: Timers, clock: HandClock) -> None:
    assert timers.wait(5.0) == 5.0

    timers.later(3.0, lambda: None)

    assert timers.wait(5.0) == 3.0
    assert timers.wait(1.0) == 1.0
    clock.seconds += 10.0
    assert timers.wait(5.0) == 0.0


def test_a_call_may_ask_to_be_made_again(timers: Timers, clock: HandClock) -> None:
    made: list[float] = []

    def again() -> None:
        made.append(clock.seconds)
        timers.later(5.0, again)

    timers.later(5.0, again)
    for _ in range(3):
        clock.seconds += 5.0
        timers.run_due()

    assert made == [1005.0, 1010.0, 1015.0]
