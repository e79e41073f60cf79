"""What wakes the coordinator: connections that come and go, and notices only where it wants them."""

import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe

import pytest

from scp.pipeline.sources import Sources

SHORT, LONG = 0.05, 30.0


class Descriptor:
    """One that something can be written to, and read from."""

    def __init__(self) -> None:
        self.read, self._write = os.pipe()

    def write(self) -> None:
        os.write(self._write, b"x")

    def empty(self) -> None:
        os.read(self.read, 16)

    def close(self) -> None:
        os.close(self.read)
        os.close(self._write)


@pytest.fixture
def inbox() -> Iterator[Descriptor]:
    made = Descriptor()
    yield made
    made.close()


@pytest.fixture
def notices() -> Iterator[Descriptor]:
    made = Descriptor()
    yield made
    made.close()


@pytest.fixture
def sources(inbox: Descriptor, notices: Descriptor) -> Iterator[Sources]:
    made = Sources([inbox.read], [notices.read])
    yield made
    made.close()


def seconds_of(sources: Sources, *, with_notices: bool, longest: float) -> float:
    started = time.monotonic()
    assert sources.wait([], longest, with_notices=with_notices) == []
    return time.monotonic() - started


def test_notices_wake_only_where_they_are_wanted(sources: Sources, notices: Descriptor) -> None:
    notices.write()

    assert seconds_of(sources, with_notices=False, longest=SHORT) >= SHORT
    assert seconds_of(sources, with_notices=True, longest=LONG) < LONG


@pytest.mark.parametrize("with_notices", [False, True])
def test_whatever_else_there_is_wakes_always(
    sources: Sources, inbox: Descriptor, *, with_notices: bool
) -> None:
    inbox.write()
    assert seconds_of(sources, with_notices=with_notices, longest=LONG) < LONG

    inbox.empty()
    assert seconds_of(sources, with_notices=with_notices, longest=SHORT) >= SHORT


@pytest.mark.parametrize("with_notices", [False, True])
def test_those_connections_are_returned_that_have_something(
    sources: Sources, *, with_notices: bool
) -> None:
    (first, far), (second, other) = Pipe(), Pipe()
    with first, far, second, other:
        far.send("something")

        assert sources.wait([first, second], LONG, with_notices=with_notices) == [first]
        assert sources.wait([second], SHORT, with_notices=with_notices) == []
        far.close()
        other.close()
        ready = sources.wait([second, first], LONG, with_notices=with_notices)
        assert set(ready) == {first, second}, "an end is something to be read, too"


def test_a_connection_that_takes_the_number_of_a_closed_one_is_another(sources: Sources) -> None:
    first, far = Pipe()
    number = first.fileno()
    assert sources.wait([first], SHORT, with_notices=True) == []
    first.close()
    second, other = Pipe()
    with second, other, far:
        moved = second
        if second.fileno() != number:
            os.dup2(second.fileno(), number)
            moved = Connection(number)

        assert sources.wait([moved], SHORT, with_notices=True) == []
        other.send("something")
        assert sources.wait([moved], LONG, with_notices=True) == [moved]
        moved.close()
