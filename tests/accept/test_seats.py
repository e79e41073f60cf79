"""Places for associations: what one receiver takes, another finds taken."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from scp.accept.seats import ALL, Seats, make_table
from tests.conftest import REPOSITORY

TAKER = """
import sys
from scp.accept.seats import Seats

seats = Seats(int(sys.argv[1]), owner=2)
for _ in range(100):
    taken = seats.take("10.0.0.1", 50)
    print(int(taken), end="", flush=True)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def table() -> Iterator[int]:
    descriptor = make_table(40)
    yield descriptor
    os.close(descriptor)


def test_no_more_than_the_most_are_given_and_what_is_left_is_given_again(table: int) -> None:
    seats = Seats(table)

    assert [seats.take("10.0.0.1", 2) for _ in range(3)] == [True, True, False]
    assert seats.take("10.0.0.2", 2)
    seats.leave("10.0.0.1")

    assert seats.take("10.0.0.1", 2)
    assert (seats.taken("10.0.0.1"), seats.taken("10.0.0.2"), seats.taken(ALL)) == (2, 1, 0)


def test_every_association_finds_the_three_seats_that_it_takes(table: int) -> None:
    seats = Seats(table)

    taken = [seats.take(of, None) for _ in range(40) for of in (ALL, "10.0.0.1", "peer 1")]

    assert all(taken)
    assert not seats.take("10.0.0.1", None)


def test_two_receivers_count_together_and_give_back_only_their_own(table: int) -> None:
    first, second = Seats(table, owner=1), Seats(table, owner=2)
    assert first.take("10.0.0.1", 2)
    assert second.take("10.0.0.1", 2)

    assert not first.take("10.0.0.1", 2)
    first.leave("10.0.0.1")
    first.leave("10.0.0.1")

    assert second.taken("10.0.0.1") == 1


def test_processes_that_take_at_once_never_take_more_than_there_are(table: int) -> None:
    ours = Seats(table)
    theirs = subprocess.Popen(
        [sys.executable, "-c", TAKER, str(table)],
        pass_fds=[table],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert theirs.stdout is not None

    told = theirs.stdout.read(1)
    taken = sum(ours.take("10.0.0.1", 50) for _ in range(100))
    told += theirs.stdout.readline().strip()

    assert taken + told.count(b"1") == 50
    assert ours.taken("10.0.0.1") == 50
    theirs.send_signal(signal.SIGKILL)
    theirs.communicate(timeout=20)
    ours.leave_all(2)
    assert ours.taken("10.0.0.1") == taken
