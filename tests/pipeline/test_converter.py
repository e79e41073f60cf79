"""How instances get their outcome: ahead or after the close, whatever happens to workers and files."""

import hashlib
import os
import shutil
import signal
from pathlib import Path

import pytest

from scp.model import Form, PassReason, SpooledInstance
from scp.pipeline.converter import AHEAD, AT_ONCE, CLOSED
from scp.pipeline.tracked import Tracked
from tests.material import ct_series, write_all
from tests.pipeline.bench import Bench, track
from tests.pipeline.jobs import EXPLICIT, ORIGIN
from tests.pipeline.workers import Answers, Crew, Gate


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def slices(tmp_path: Path) -> list[Tracked]:
    """Three instances of one series, to be converted."""
    return [track(path) for path in write_all(ct_series(3, 16, 16), tmp_path / "series")]


def move(instance: Tracked, folder: Path) -> None:
    """What the closing of its series does to an instance."""
    folder.mkdir(exist_ok=True)
    target = folder / instance.name
    instance.spooled.path.rename(target)
    instance.spooled = SpooledInstance(
        path=target,
        identity=instance.spooled.identity,
        origin=ORIGIN,
        transfer_syntax=EXPLICIT,
        file_bytes=instance.spooled.file_bytes,
    )


def assert_converted(instance: Tracked) -> None:
    outcome, encoded = instance.outcome, instance.encoded
    assert outcome is not None
    assert encoded is not None
    assert (outcome.is_converted, outcome.is_synced, instance.task) == (True, True, None)
    assert hashlib.sha256(encoded.read_bytes()).hexdigest() == outcome.result_sha256


def assert_passed(instance: Tracked, reason: PassReason) -> None:
    """The original is to go out, whose digests are known."""
    outcome, path = instance.outcome, instance.spooled.path
    assert outcome is not None
    assert (outcome.reason, outcome.is_converted, instance.encoded) == (reason, False, None)
    assert outcome.result_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert outcome.dataset_sha256
    assert outcome.normal_sha256


# -- ahead and after -------------------------------------------------------------------------------


def test_what_was_converted_ahead_is_ready_when_its_series_closes(
    bench: Bench, slices: list[Tracked]
) -> None:
    bench.converter.ahead(slices[0])
    bench.until(lambda: slices[0].outcome)
    done: list[str] = []

    bench.converter.closed(slices[0], CLOSED, lambda: done.append("at once"))

    assert done == ["at once"]
    assert bench.crew.pool.busy == 0
    assert_converted(slices[0])
    assert bench.cached() == [slices[0].encoded]


def test_what_is_closed_overtakes_what_still_grows(
    bench: Bench, gate: Gate, slices: list[Tracked]
) -> None:
    bench.crew.pool.submit(gate.task, -1, Answers().to("gate"))
    for instance in slices:
        bench.converter.ahead(instance)
    order: list[int] = []

    for number, priority in ((2, AT_ONCE), (1, CLOSED), (0, AHEAD)):
        bench.converter.closed(slices[number], priority, lambda n=number: order.append(n))  # type: ignore[misc]
    assert bench.crew.pool.queued == 3
    gate.open()
    bench.until(lambda: len(order) == 3)

    assert order == [2, 1, 0]


def test_what_a_worker_has_already_is_not_begun_again(bench: Bench, slices: list[Tracked]) -> None:
    frozen = bench.crew.freeze()
    bench.converter.ahead(slices[0])
    done: list[str] = []

    bench.converter.closed(slices[0], AT_ONCE, lambda: done.append("done"))

    assert bench.crew.pool.queued == 0
    os.kill(frozen[0], signal.SIGCONT)
    bench.until(lambda: done)
    assert_converted(slices[0])


def test_the_cache_is_bounded_and_gets_its_room_back(
    tmp_path: Path, one_worker: Crew, slices: list[Tracked]
) -> None:
    first, second, third = slices
    bench = Bench(tmp_path, one_worker, sum(i.spooled.file_bytes for i in slices[:2]))

    for instance in slices:
        bench.converter.ahead(instance)
    assert (first.task, second.task) != (None, None)
    assert third.task is None
    bench.until(lambda: first.outcome and second.outcome)
    bench.converter.forget(first)

    assert bench.cached() == [second.encoded]
    bench.converter.ahead(third)
    bench.until(lambda: third.outcome)
    assert_converted(third)


def test_nothing_is_begun_ahead_while_the_rules_cannot_say(
    bench: Bench, slices: list[Tracked]
) -> None:
    slices[0].decision = None

    bench.converter.ahead(slices[0])

    assert (slices[0].task, bench.crew.pool.busy) == (None, 0)


@pytest.mark.parametrize(("convert", "send_to"), [(Form.ORIGINAL, ("archive",)), (Form.HTJ2K, ())])
def test_what_is_not_to_be_converted_is_only_digested(
    bench: Bench, slices: list[Tracked], convert: Form, send_to: tuple[str, ...]
) -> None:
    instance = track(slices[0].spooled.path, convert, send_to)

    bench.converter.ahead(instance)
    bench.until(lambda: instance.outcome)

    assert_passed(instance, PassReason.RULE_SAYS_ORIGINAL)


# -- files that move and vanish --------------------------------------------------------------------


def test_the_cache_may_be_deleted_between_two_conversions(
    bench: Bench, slices: list[Tracked]
) -> None:
    shutil.rmtree(bench.layout.encoded)

    bench.converter.ahead(slices[0])
    bench.until(lambda: slices[0].outcome)

    assert_converted(slices[0])


def test_an_instance_whose_series_closes_under_its_worker_is_converted_before_what_still_grows(
    bench: Bench, slices: list[Tracked], tmp_path: Path
) -> None:
    (worker,) = bench.crew.freeze()
    for instance in slices:
        bench.converter.ahead(instance)
    move(slices[0], tmp_path / "job")
    others: list[object] = []

    bench.converter.closed(
        slices[0], CLOSED, lambda: others.extend(each.outcome for each in slices[1:])
    )
    os.kill(worker, signal.SIGCONT)
    bench.until(lambda: others)

    # The worker was given the next one before it was known that this one had moved.
    assert others[1] is None
    assert_converted(slices[0])


def test_an_instance_that_is_gone_has_an_outcome_too(bench: Bench, slices: list[Tracked]) -> None:
    slices[0].spooled.path.unlink()
    done: list[str] = []

    bench.converter.closed(slices[0], CLOSED, lambda: done.append("done"))
    bench.until(lambda: done)

    assert slices[0].outcome is not None
    assert slices[0].outcome.reason == PassReason.UNREADABLE


# -- workers that die and hang ---------------------------------------------------------------------


@pytest.mark.parametrize("is_moved", [False, True], ids=["", "while its series closes"])
def test_an_instance_that_took_two_workers_is_passed_with_its_digests(
    bench: Bench, slices: list[Tracked], tmp_path: Path, *, is_moved: bool
) -> None:
    bench.crew.freeze()
    bench.converter.ahead(slices[0])
    before = bench.crew.pool.replaced
    for number in (1, 2):
        bench.crew.kill()
        bench.until(lambda number=number: bench.crew.pool.replaced == before + number)  # type: ignore[misc]
    if is_moved:
        move(slices[0], tmp_path / "job")

    bench.until(lambda: slices[0].outcome)

    assert_passed(slices[0], PassReason.WORKER_LOST)
    assert bench.cached() == []


def test_an_instance_that_hangs_is_passed_with_its_digests(
    bench: Bench, slices: list[Tracked]
) -> None:
    bench.crew.freeze()
    bench.converter.ahead(slices[0])

    for _ in range(2):
        bench.miss_deadline()
    bench.until(lambda: slices[0].outcome)

    assert_passed(slices[0], PassReason.DEADLINE)


def test_an_instance_that_cannot_even_be_read_in_time_keeps_the_reason(
    bench: Bench, gate: Gate
) -> None:
    instance = track(gate.task.source)
    bench.converter.ahead(instance)

    for _ in range(4):
        assert instance.outcome is None
        bench.miss_deadline()

    assert instance.outcome is not None
    assert (instance.outcome.reason, instance.outcome.dataset_sha256) == (PassReason.DEADLINE, "")
