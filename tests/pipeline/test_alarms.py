"""What is told, how often, and that a restart repeats nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from scp.durable import Disk
from scp.pipeline.alarms import GROWTH_SECONDS, Alarms, Condition, Kind

HOUR = 3600.0
HELD = Condition(
    kind=Kind.HELD, subject="pacs", text="instances are held", facts={"instances": 2}, weight=2
)
LATE = Condition(
    kind=Kind.LATE_INSTANCES, subject="", text="late", facts={}, weight=1, is_event=True
)


def alarms(folder: Path) -> Alarms:
    return Alarms(folder / "notices.json", Disk(), 24 * HOUR)


def states(alarms: Alarms, conditions: list[Condition], wall: float) -> list[str]:
    return [notice.state for notice in alarms.look(conditions, wall)]


def test_what_holds_is_told_once_again_after_a_long_while_and_when_it_is_over(
    tmp_path: Path,
) -> None:
    told = alarms(tmp_path)

    assert states(told, [HELD], 0.0) == ["raised"]
    assert [states(told, [HELD], second) for second in (5.0, HOUR, 23 * HOUR)] == [[], [], []]
    assert states(told, [HELD], 24 * HOUR) == ["repeated"]
    assert states(told, [HELD], 25 * HOUR) == []
    assert states(told, [], 26 * HOUR) == ["resolved"]
    assert states(told, [], 27 * HOUR) == []


def test_what_grows_is_told_again_but_no_storm_comes_of_it(tmp_path: Path) -> None:
    told = alarms(tmp_path)
    told.look([HELD], 0.0)
    storm = [replace(HELD, weight=2 + more) for more in range(100)]

    assert not any(told.look([each], 1.0 + index) for index, each in enumerate(storm))
    assert states(told, [storm[-1]], GROWTH_SECONDS) == ["grown"]
    assert states(told, [HELD], 3 * GROWTH_SECONDS) == []


def test_destinations_are_told_of_one_by_one(tmp_path: Path) -> None:
    told = alarms(tmp_path)
    other = replace(HELD, subject="archive")

    assert [n.subject for n in told.look([HELD, other], 0.0)] == ["pacs", "archive"]
    assert [(n.subject, n.state) for n in told.look([other], 1.0)] == [("pacs", "resolved")]


def test_a_restart_repeats_nothing_and_knows_what_is_over(tmp_path: Path) -> None:
    alarms(tmp_path).look([HELD], 10.0)

    again = alarms(tmp_path)

    assert again.look([HELD], 20.0) == []
    (over,) = again.look([], 30.0)
    assert (over.state, over.since) == ("resolved", 10.0)
    assert alarms(tmp_path).look([], 40.0) == []


def test_what_happened_is_told_when_it_grows_and_never_as_over(tmp_path: Path) -> None:
    told = alarms(tmp_path)

    assert states(told, [LATE], 0.0) == ["raised"]
    assert states(told, [LATE], 48 * HOUR) == []
    assert states(told, [replace(LATE, weight=3)], 49 * HOUR) == ["grown"]
    restarted = alarms(tmp_path)
    assert states(restarted, [], 50 * HOUR) == []
    assert states(restarted, [LATE], 51 * HOUR) == ["raised"]


def test_a_clock_that_is_set_back_does_not_silence_it(tmp_path: Path) -> None:
    told = alarms(tmp_path)
    told.look([HELD], 100 * HOUR)

    assert states(told, [HELD], 1 * HOUR) == ["repeated"]
    assert states(told, [HELD], 2 * HOUR) == []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"held/pacs": {}}', b'{"held/pacs": 1}', b"\xff"]
)
def test_a_damaged_file_only_means_that_it_is_told_again(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "notices.json").write_bytes(content)

    assert states(alarms(tmp_path), [HELD], 0.0) == ["raised"]
