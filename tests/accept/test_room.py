"""Memory that many peers share: bounded, and nobody keeps it for ever."""

import pytest

from scp.accept.room import PATIENCE_SECONDS, Room
from scp.errors import StorageFullError

LONG = PATIENCE_SECONDS + 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def room(clock: Clock) -> Room:
    return Room(100, clock)


def test_what_was_added_is_there_when_it_is_complete(room: Room) -> None:
    share = room.begin()
    room.add(share, b"one ", memoryview(b"two "))
    room.add(share, b"three")

    assert room.complete(share) == b"one two three"


def test_all_shares_together_are_bounded(room: Room) -> None:
    first, second = room.begin(), room.begin()
    room.add(first, bytes(60))

    with pytest.raises(StorageFullError, match="other operations"):
        room.add(second, bytes(41))

    room.add(second, bytes(40))


def test_what_is_freed_is_there_for_others(room: Room) -> None:
    first, second = room.begin(), room.begin()
    room.add(first, bytes(100))
    room.free(first)
    room.free(first)

    room.add(second, bytes(100))
    with pytest.raises(StorageFullError):
        room.add(second, bytes(1))


def test_whoever_has_been_at_it_for_longest_gives_way(room: Room, clock: Clock) -> None:
    first, second = room.begin(), room.begin()
    room.add(first, bytes(50))
    room.add(second, bytes(50))
    clock.now += LONG
    third = room.begin()

    room.add(third, bytes(50))

    assert room.complete(second) == bytes(50)
    with pytest.raises(StorageFullError, match="took too long"):
        room.add(first, bytes(1))
    with pytest.raises(StorageFullError, match="took too long"):
        room.complete(first)


def test_nobody_gives_way_where_there_is_room(room: Room, clock: Clock) -> None:
    first = room.begin()
    room.add(first, bytes(50))
    clock.now += LONG
    room.add(room.begin(), bytes(50))

    assert room.complete(first) == bytes(50)


def test_what_is_complete_gives_way_to_nobody(room: Room, clock: Clock) -> None:
    first = room.begin()
    room.add(first, bytes(80))
    kept = room.complete(first)
    clock.now += LONG

    with pytest.raises(StorageFullError, match="other operations"):
        room.add(room.begin(), bytes(50))
    assert kept == bytes(80)
    room.free(first)
    room.add(room.begin(), bytes(100))


def test_one_that_asks_for_more_takes_nothing_from_itself(room: Room, clock: Clock) -> None:
    share = room.begin()
    room.add(share, bytes(60))
    clock.now += LONG

    with pytest.raises(StorageFullError, match="other operations"):
        room.add(share, bytes(41))

    assert room.complete(share) == bytes(60)
