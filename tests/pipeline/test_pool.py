"""Workers that are killed, hang or cannot start: every task is answered, and the next ones are done."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import RLELossless

from scp.convert.enhanced.slices import SourceSlice
from scp.model import PassReason
from scp.pipeline.tasks import Collapse, CollapseTask, ConvertTask, DecodeTask, Lost, Outcome
from tests.convert.images import save
from tests.convert.streams import compressed, rle
from tests.material import ct_series, write
from tests.pipeline.parts import config_for
from tests.pipeline.workers import DEADLINE_SECONDS, SECONDS, Answers, Crew, Gate, crew_of

LATE = DEADLINE_SECONDS + 1
LOST = Lost(PassReason.WORKER_LOST, "a task took 2 workers with it")


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    """One worker."""
    with crew_of(config_for(tmp_path)) as crew:
        yield crew


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def task(tmp_path: Path) -> ConvertTask:
    """A conversion that succeeds."""
    (dataset,) = ct_series(1, 16, 16)
    return ConvertTask(source=write(dataset, tmp_path), target=tmp_path / "converted")


def is_converted(answer: object) -> bool:
    return isinstance(answer, Outcome) and answer.is_converted


# -- who is killed, hangs or cannot start ----------------------------------------------------------


def test_a_task_that_takes_two_workers_is_given_up_and_the_others_are_done(
    crew: Crew, answers: Answers, gate: Gate, task: ConvertTask
) -> None:
    crew.pool.submit(gate.task, 0, answers.to("deadly"))
    crew.pool.submit(task, 1, answers.to("next"))

    victims = {crew.kill()}
    crew.until(lambda: crew.pool.replaced == 1)
    assert answers.order == []
    victims.add(crew.kill())
    crew.until(lambda: len(answers.order) == 2)

    assert answers.of["deadly"] == LOST
    assert is_converted(answers.of["next"])
    assert crew.pool.replaced == len(victims) == 2
    assert len(crew.pids()) == 1
    assert victims.isdisjoint(crew.pids())


def test_a_task_that_took_one_worker_is_done_by_the_next(
    crew: Crew, answers: Answers, task: ConvertTask
) -> None:
    crew.freeze()
    crew.pool.submit(task, 0, answers.to("task"))
    crew.kill()

    crew.until(lambda: answers.order)

    assert is_converted(answers.of["task"])
    assert crew.pool.replaced == 1


def test_a_task_that_hangs_twice_is_given_up_at_the_deadline(
    crew: Crew, answers: Answers, gate: Gate, task: ConvertTask
) -> None:
    crew.pool.submit(gate.task, 0, answers.to("hangs"))
    crew.pool.submit(task, 1, answers.to("next"))
    hanging = crew.pids()

    crew.turn(DEADLINE_SECONDS - 10)
    assert crew.pids() == hanging
    crew.turn(LATE)
    hanging += crew.pids()
    crew.turn(LATE)
    crew.until(lambda: len(answers.order) == 2)

    assert answers.of["hangs"] == Lost(PassReason.DEADLINE, LOST.detail)
    assert is_converted(answers.of["next"])
    assert len(set(hanging)) == 2
    assert set(hanging).isdisjoint(crew.pids())


def test_a_worker_that_does_not_take_a_large_task_holds_nobody_up(
    tmp_path: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A series of thousands of slices is more than a pipe holds."""
    monkeypatch.setattr("scp.pipeline.pool._SEND_SECONDS", 1)
    missing = tmp_path / ("missing" * 20)
    source = SourceSlice(
        name="x" * 1000, path=missing, encoded=missing, dataset_sha256="", pixel_sha256=""
    )
    slices = tuple(replace(source, name=f"{number}{source.name}") for number in range(2000))
    task = CollapseTask(slices=slices, folder=tmp_path / "volumes")
    with crew_of(config_for(tmp_path)) as crew:
        crew.freeze()

        crew.pool.submit(task, 0, answers.to("series"))
        monkeypatch.setattr("scp.pipeline.pool._SEND_SECONDS", int(SECONDS))
        crew.until(lambda: answers.order)

        assert crew.pool.replaced == 1
    answer = answers.of["series"]
    assert isinstance(answer, Collapse)
    assert len(answer.refused) == 2000


def test_a_large_file_has_more_time(crew: Crew, answers: Answers, tmp_path: Path) -> None:
    frozen = crew.freeze()
    source = tmp_path / "large.dcm"
    source.touch()
    os.truncate(source, 40 * 2**20)
    crew.pool.submit(ConvertTask(source=source, target=None), 0, answers.to("large"))

    crew.turn(DEADLINE_SECONDS + 5)
    assert crew.pids() == frozen
    crew.turn(DEADLINE_SECONDS + 15)

    assert crew.pids() != frozen


def test_what_is_large_once_it_is_unpacked_has_more_time(
    crew: Crew, answers: Answers, tmp_path: Path
) -> None:
    source = tmp_path / "packed.dcm"
    one = np.zeros((1, 1024, 1024, 1), "<u1")
    packed = compressed(one, rle(one) * 400, RLELossless, NumberOfFrames=400)
    save(packed, source)
    crew.until(lambda: crew.pool.ready)
    crew.pool.submit(ConvertTask(source=source, target=tmp_path / "made"), 0, answers.to("packed"))
    (connection,) = crew.pool.connections()
    assert connection.poll(SECONDS)
    frozen = crew.freeze()
    crew.pool.readable(connection)
    assert answers.order == []

    crew.turn(DEADLINE_SECONDS + 80)
    assert crew.pids() == frozen
    crew.turn(DEADLINE_SECONDS + 120)

    assert crew.pids() != frozen


def test_an_answer_that_came_in_time_counts_although_nobody_had_time_to_read_it(
    crew: Crew, answers: Answers, gate: Gate
) -> None:
    crew.pool.submit(gate.task, 0, answers.to("task"))
    gate.open()
    (connection,) = crew.pool.connections()
    crew.until(lambda: crew.pool.ready)
    assert connection.poll(20)

    crew.pool.tick(1e9)
    assert crew.pool.replaced == 0
    crew.pool.readable(connection)

    assert isinstance(answers.of["task"], Outcome)


def test_workers_that_cannot_start_give_up_tasks_and_do_not_start_in_a_loop(
    tmp_path: Path, answers: Answers, task: ConvertTask
) -> None:
    with crew_of(config_for(tmp_path), log_level="NO SUCH LEVEL") as crew:
        crew.pool.submit(task, 0, answers.to("first"))
        crew.pool.submit(task, 0, answers.to("second"))
        crew.until(lambda: len(answers.order) == 2)
        assert answers.of == {"first": LOST, "second": LOST}

        # The fifth dies with nothing to do, and the next one has time.
        crew.until(lambda: not crew.pool.connections())
        assert (crew.pool.ready, crew.pool.replaced, crew.pids()) == (0, 5, [])
        crew.turn(1.1)
        assert len(crew.pool.connections()) == 1


def test_where_the_system_starts_no_process_tasks_wait_until_it_does(
    tmp_path: Path, answers: Answers, task: ConvertTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no such program"))
    with crew_of(config_for(tmp_path), count=2) as crew:
        crew.pool.submit(task, 0, answers.to("task"))
        crew.turn()
        assert crew.pool.connections() == []

        monkeypatch.undo()
        crew.until(lambda: answers.order)

        assert is_converted(answers.of["task"])
        assert (len(crew.pool.connections()), crew.pool.replaced) == (2, 0)


def test_an_idle_worker_that_is_killed_is_replaced_a_moment_later(
    crew: Crew, answers: Answers, task: ConvertTask
) -> None:
    crew.until(lambda: crew.pool.ready)
    crew.kill()
    crew.until(lambda: crew.pool.replaced)

    crew.pool.submit(task, 0, answers.to("task"))
    crew.turn(1.1)
    crew.until(lambda: answers.order)

    assert is_converted(answers.of["task"])


def test_while_one_worker_is_replaced_the_other_works_on(
    tmp_path: Path, answers: Answers, gate: Gate, task: ConvertTask
) -> None:
    with crew_of(config_for(tmp_path), count=2) as crew:
        crew.pool.submit(gate.task, 0, answers.to("hangs"))
        crew.pool.submit(task, 1, answers.to("next"))

        crew.until(lambda: answers.order and crew.pool.ready == 2)

        assert answers.order == ["next"]
        assert (crew.pool.busy, crew.pool.ready, crew.pool.replaced) == (1, 2, 0)


# -- the order -------------------------------------------------------------------------------------


def test_the_more_urgent_goes_first_and_among_equals_the_older(
    crew: Crew, answers: Answers, gate: Gate, task: ConvertTask
) -> None:
    crew.pool.submit(gate.task, 0, answers.to("gate"))
    for name, priority in (("c", 3), ("a", 1), ("d", 3), ("b", 1)):
        crew.pool.submit(task, priority, answers.to(name))
    assert (crew.pool.queued, crew.pool.busy) == (4, 1)

    gate.open()
    crew.until(lambda: len(answers.order) == 5)

    assert answers.order == ["gate", "a", "b", "c", "d"]
    assert (crew.pool.queued, crew.pool.busy) == (0, 0)


def test_a_task_can_be_taken_back_until_a_worker_has_it(
    crew: Crew, answers: Answers, gate: Gate, task: ConvertTask
) -> None:
    taken = crew.pool.submit(gate.task, 0, answers.to("taken"))
    waiting = crew.pool.submit(task, 1, answers.to("waiting"))
    crew.pool.submit(task, 2, answers.to("last"))

    assert not crew.pool.cancel(taken)
    assert crew.pool.cancel(waiting)
    assert crew.pool.queued == 1
    gate.open()
    crew.until(lambda: len(answers.order) == 2)

    assert answers.order == ["taken", "last"]


# -- the end ---------------------------------------------------------------------------------------


def test_stop_tells_who_waits_for_a_copy_and_leaves_conversions_to_the_next_start(
    crew: Crew, answers: Answers, gate: Gate, task: ConvertTask
) -> None:
    copy = DecodeTask(
        source=task.source,
        original=task.source,
        target=task.source.with_suffix(".copy"),
        transfer_syntax="1.2.840.10008.1.2.1",
        decode_lossy=False,
    )
    crew.pool.submit(gate.task, 0, answers.to("running"))
    crew.pool.submit(copy, 0, answers.to("copy"))
    crew.pool.submit(task, 1, answers.to("conversion"))

    crew.pool.stop(0)
    crew.pool.submit(copy, 0, answers.to("too late"))
    crew.pool.submit(task, 0, answers.to("conversion, too late"))

    told = Lost(PassReason.WORKER_LOST, "the node stops")
    assert answers.of == {"copy": told, "too late": told}
    assert crew.pids() == []


def test_stop_lets_a_task_end_that_does_so_in_time(
    crew: Crew, answers: Answers, gate: Gate
) -> None:
    crew.until(lambda: crew.pool.ready)
    crew.pool.submit(gate.task, 0, answers.to("running"))

    def open_later() -> None:
        while not crew.pool.is_stopped:
            time.sleep(0.001)
        time.sleep(0.1)  # Who did not wait would have killed the reader by now.
        gate.open()

    opener = threading.Thread(target=open_later)
    opener.start()

    started = time.monotonic()

    crew.pool.stop(SECONDS)

    assert time.monotonic() - started < SECONDS
    opener.join(0)
    assert not opener.is_alive()


def test_stop_ends_workers_that_hang(tmp_path: Path, answers: Answers, gate: Gate) -> None:
    with crew_of(config_for(tmp_path), count=2) as crew:
        crew.pool.submit(gate.task, 0, answers.to("hangs"))
        crew.freeze()

        crew.pool.stop(0)

        assert crew.pids() == []
