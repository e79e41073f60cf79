"""What rules make of a series: split, at once, by its size, quiet for longer."""

from pathlib import Path

from scp.ledger.ports import State
from tests.buffer.recorder import HookedDisk
from tests.material import ct_series, write_all
from tests.pipeline.conftest import MakeFront
from tests.pipeline.parts import no_room_for

AT_ONCE = {
    "name": "now",
    "match": {"called_ae_title": "NOW"},
    "deliver": "at_once",
    "send_to": ["archive"],
}


def slices(folder: Path, count: int = 1) -> list[Path]:
    return write_all(ct_series(count, 16, 16), folder)


def test_instances_of_one_series_go_by_different_rules(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(
        rules=[
            {"name": "nowhere", "match": {"InstanceNumber": 1}, "send_to": []},
            {
                "name": "original",
                "match": {"calling_ae_title": "MR7"},
                "convert": "original",
                "send_to": ["archive"],
            },
        ]
    )
    first, second, third = slices(tmp_path / "ct", 3)
    front.receive(first, second)
    front.receive(third, calling="MR7")

    front.finish()

    rules = {row.instance: (row.rule, row.state) for row in front.ledger.recent(9)}
    assert sorted(rules.values()) == [
        ("default", State.DELIVERED),
        ("nowhere", State.SKIPPED),
        ("original", State.DELIVERED),
    ]
    assert len({row.job for row in front.ledger.recent(9)}) == 1


def test_at_once_leaves_its_series_and_the_rest_waits(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=[AT_ONCE])
    first, second = slices(tmp_path / "ct", 2)
    front.receive(first)

    front.receive(second, called="NOW")

    front.until(lambda: front.states() == {State.DELIVERED: 1})
    assert front.archived() == [second.name]
    assert front.intake.open_instances == 1
    front.finish()
    assert front.states() == {State.DELIVERED: 2}


def test_without_room_for_a_job_of_its_own_at_once_waits_for_its_series(
    make_front: MakeFront, tmp_path: Path
) -> None:
    disk = HookedDisk()
    front = make_front(disk=disk, rules=[AT_ONCE])
    (path,) = slices(tmp_path / "ct")
    front.land(path, called="NOW")

    disk.hook = no_room_for("make_folder", "source")
    front.turn()
    disk.hook = lambda *_: None

    assert front.intake.open_instances == 1
    assert front.folders.jobs() == []
    front.finish()
    assert front.states() == {State.DELIVERED: 1}


def test_what_depends_on_the_size_of_the_series_is_decided_when_that_is_known(
    make_front: MakeFront, tmp_path: Path
) -> None:
    small = {"name": "small", "match": {"instances": {"le": 2}}, "convert": "original"}
    front = make_front(rules=[{**small, "send_to": ["archive"]}])

    front.receive(*slices(tmp_path / "ct", 2))

    assert front.crew.pool.busy == 0, "nothing can be converted ahead"
    front.finish()
    assert {row.rule for row in front.ledger.recent(9)} == {"small"}


def test_a_rule_may_ask_for_a_longer_quiet_period(make_front: MakeFront, tmp_path: Path) -> None:
    slow = {"name": "slow", "quiet_seconds": 60, "send_to": ["archive"]}
    front = make_front(rules=[slow])
    front.receive(*slices(tmp_path / "ct"))

    front.close_quiet(50)
    assert front.folders.jobs() == []
    front.close_quiet(61)

    assert len(front.folders.jobs()) == 1
