"""How calls get from one thread to another: in order, none lost, none in the wrong thread."""

import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from scp.errors import LedgerError
from scp.pipeline.threads import Chores, Inbox, Prompt

SECONDS = 10.0
MANY = 70_000
"""More than a pipe has room for (pipe(7): 65536 bytes)."""


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def chores(inbox: Inbox) -> Iterator[Chores]:
    made = Chores(inbox)
    yield made
    made.stop(SECONDS)


def fail() -> None:
    raise KeyError("key")


def is_readable(inbox: Inbox) -> bool:
    return bool(select.select([inbox.fileno()], [], [], 0)[0])


def run_until(inbox: Inbox, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        select.select([inbox.fileno()], [], [], 0.01)
        inbox.run_posted()


# -- the inbox -------------------------------------------------------------------------------------


def test_calls_are_made_in_order_on_the_thread_that_runs_them(inbox: Inbox) -> None:
    made: list[tuple[int, int]] = []

    def post() -> None:
        for number in range(5):
            inbox.post(lambda number=number: made.append((number, threading.get_ident())))  # type: ignore[misc]

    sender = threading.Thread(target=post)
    sender.start()
    sender.join()
    assert made == []

    inbox.run_posted()

    assert made == [(number, threading.get_ident()) for number in range(5)]


def test_it_is_readable_as_long_as_calls_wait(inbox: Inbox) -> None:
    assert not is_readable(inbox)

    inbox.post(lambda: None)
    assert is_readable(inbox)
    inbox.run_posted()

    assert not is_readable(inbox)


def test_more_calls_than_the_pipe_has_room_for_are_all_made(inbox: Inbox) -> None:
    made: list[int] = []

    for number in range(MANY):
        inbox.post(lambda number=number: made.append(number))  # type: ignore[misc]
    inbox.run_posted()

    assert made == list(range(MANY))
    inbox.post(lambda: None)
    assert is_readable(inbox)


def test_a_call_may_post_another(inbox: Inbox) -> None:
    made: list[str] = []

    inbox.post(lambda: inbox.post(lambda: made.append("second")))
    inbox.run_posted()

    assert made == ["second"]


def test_who_asks_gets_the_result_or_the_error_and_nobody_else_does(inbox: Inbox) -> None:
    answers: list[object] = []

    def ask() -> None:
        answers.append(inbox.ask(threading.get_ident, SECONDS))
        try:
            inbox.ask(fail, SECONDS)
        except KeyError as error:
            answers.append(error.args)

    asker = threading.Thread(target=ask)
    asker.start()
    run_until(inbox, lambda: len(answers) == 2)
    asker.join(SECONDS)

    assert answers == [threading.get_ident(), ("key",)]


def test_what_was_not_done_in_time_is_not_done_later(inbox: Inbox) -> None:
    done: list[str] = []
    with pytest.raises(TimeoutError):
        inbox.ask(lambda: done.append("discarded"), 0.01)

    inbox.run_posted()

    assert done == []


def test_who_is_woken_already_is_not_woken_for_each_call(inbox: Inbox) -> None:
    for _ in range(3):
        inbox.post(lambda: None)

    assert len(os.read(inbox.fileno(), 100)) == 1


def test_what_comes_when_nothing_more_was_found_wakes_again(inbox: Inbox) -> None:
    class Late(queue.SimpleQueue[Callable[[], None]]):
        """Something is posted right after it was found empty."""

        is_over = False

        def get_nowait(self) -> Callable[[], None]:
            try:
                return super().get_nowait()
            except queue.Empty:
                if not self.is_over:
                    self.is_over = True
                    inbox.post(lambda: made.append("late"))
                raise

    made: list[str] = []
    inbox._calls = Late()
    inbox.post(lambda: made.append("first"))

    inbox.run_posted()

    assert made == ["first"]
    assert is_readable(inbox)
    inbox.run_posted()
    assert made == ["first", "late"]


# -- chores ----------------------------------------------------------------------------------------


def test_chores_are_done_one_after_the_other_elsewhere_and_their_ends_come_here(
    inbox: Inbox, chores: Chores
) -> None:
    here = threading.get_ident()
    ends: list[tuple[int, bool, bool]] = []
    running: list[int] = []

    def work(number: int) -> tuple[int, bool]:
        running.append(number)
        assert len(running) == 1
        running.remove(number)
        return number, threading.get_ident() == here

    for number in range(100):
        chores.do(
            lambda number=number: work(number),  # type: ignore[misc]
            lambda result: ends.append((*result, threading.get_ident() == here)),
            lambda error: ends.append((-1, False, False)),
        )
    run_until(inbox, lambda: len(ends) == 100)

    assert ends == [(number, False, True) for number in range(100)]


def test_a_chore_that_fails_says_so_and_keeps_no_other_from_being_done(
    inbox: Inbox, chores: Chores
) -> None:
    ends: list[object] = []

    chores.do(fail, lambda _: ends.append("done"), lambda e: ends.append(e.args))
    chores.do(lambda: "next", ends.append, lambda e: ends.append(e.args))
    run_until(inbox, lambda: len(ends) == 2)

    assert ends == [("key",), "next"]


def test_stop_waits_for_what_was_asked_for_and_its_ends_can_still_be_run(inbox: Inbox) -> None:
    chores = Chores(inbox)
    gate = threading.Event()
    ends: list[object] = []
    chores.do(lambda: gate.wait(SECONDS), ends.append, ends.append)
    chores.do(lambda: "last", ends.append, ends.append)

    gate.set()
    chores.stop(SECONDS)

    assert ends == []
    inbox.run_posted()
    assert ends == [True, "last"]
    assert "chores" not in {thread.name for thread in threading.enumerate()}


# -- who cannot wait -------------------------------------------------------------------------------


def test_a_prompt_answer_is_given_as_it_is() -> None:
    prompt = Prompt(SECONDS)

    assert prompt(lambda: 7) == 7
    with pytest.raises(KeyError, match="key"):
        prompt(fail)
    assert prompt(lambda: 8) == 8

    prompt.stop(SECONDS)


def test_who_asks_what_hangs_goes_on_and_asks_again_when_it_has_answered() -> None:
    go_on, came_back = threading.Event(), threading.Event()

    def hang() -> None:
        assert go_on.wait(SECONDS)
        came_back.set()

    prompt = Prompt(0.05)
    with pytest.raises(LedgerError, match=r"has not answered within 0\.05 s"):
        prompt(hang)
    with pytest.raises(LedgerError, match="has not answered the last call yet"):
        prompt(lambda: 7)
    go_on.set()
    assert came_back.wait(SECONDS)
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            assert prompt(lambda: 7) == 7
            break
        except LedgerError:
            assert time.monotonic() < deadline

    prompt.stop(SECONDS)
