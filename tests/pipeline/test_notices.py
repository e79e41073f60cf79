"""What receivers tell the coordinator: whole, in order, and without harm where it is damaged."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator

import pytest

from scp.buffer.store import Landed
from scp.model import Identity, Origin, StoreRequest
from scp.pipeline.notices import (
    AT_ONCE,
    Notice,
    NoticeSender,
    notice_pair,
    read_needs,
    read_notices,
    send_needs,
)
from tests.conftest import REPOSITORY

SECONDS = 20.0
LONGEST_UID = "1" * 128
"""More than PS3.5 9.1 allows, and the most that is accepted."""

TALKER = """
import socket, sys
from scp.pipeline.notices import NoticeSender

sender = NoticeSender(socket.socket(fileno=int(sys.argv[1])), "r0")
number = 0
while True:
    sender.arriving(str(number))
    number += 1
"""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = notice_pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def receiver(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[0]


@pytest.fixture
def coordinator(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[1]


def read_one(end: socket.socket) -> list[Notice]:
    assert select.select([end], [], [], SECONDS)[0], "nothing came"
    return list(read_notices(end))


def landed(uid: str = "1.2.3") -> Landed:
    identity = Identity(
        sop_class_uid=uid,
        sop_instance_uid=uid,
        study_instance_uid=uid,
        series_instance_uid=uid,
    )
    request = StoreRequest(
        origin=Origin(
            calling_ae_title="C" * 16,
            called_ae_title="D" * 16,
            peer_address="1234:5678:9abc:def0:1234:5678:9abc:def0%interface-of-15",
        ),
        sop_class_uid=uid,
        sop_instance_uid=uid,
        transfer_syntax=uid,
    )
    return Landed(
        series=identity.series.folder,
        name=f"{identity.file_stem}~1000.dcm",
        request=request,
        identity=identity,
        file_bytes=2**60,
        received=1.7e9,
    )


# -- from the receiver -----------------------------------------------------------------------------


def test_a_death_is_told_of_without_waiting_for_room(
    receiver: socket.socket, coordinator: socket.socket
) -> None:
    sender = NoticeSender(receiver, "r0")
    while sender.gone():
        pass

    assert not sender.gone()
    assert len(list(read_notices(coordinator))) == AT_ONCE
    assert sender.gone()


def test_the_longest_notice_that_there_can_be_arrives_whole(
    receiver: socket.socket, coordinator: socket.socket
) -> None:
    longest = landed(LONGEST_UID)

    NoticeSender(receiver, "r0").landed(longest)

    assert read_one(coordinator) == [Notice("landed", "r0", longest.series, longest)]


def test_every_kind_arrives_in_the_order_it_was_told(
    receiver: socket.socket, coordinator: socket.socket
) -> None:
    sender = NoticeSender(receiver, "r0")

    sender.arriving("a")
    sender.landed(landed())
    sender.repeated("a")
    sender.given_up("b")
    sender.gone()

    kinds = [(notice.kind, notice.receiver) for notice in read_one(coordinator)]
    assert kinds == [(k, "r0") for k in ("arriving", "landed", "repeated", "given_up", "gone")]


def test_with_nothing_to_read_nobody_waits(coordinator: socket.socket) -> None:
    assert list(read_notices(coordinator)) == []


def test_a_flood_is_read_in_parts_so_that_other_work_is_done_between(
    receiver: socket.socket, coordinator: socket.socket
) -> None:
    sender = NoticeSender(receiver, "r0")
    for number in range(200):
        sender.arriving(str(number))

    parts = [[notice.series for notice in read_notices(coordinator)] for _ in range(3)]

    assert [len(part) for part in parts] == [128, 72, 0]
    assert parts[0] + parts[1] == [str(number) for number in range(200)]


def test_receivers_that_are_ahead_wait_and_lose_nothing(
    receiver: socket.socket, coordinator: socket.socket
) -> None:
    """Eight associations, and far more than the socket's buffer holds."""
    sender = NoticeSender(receiver, "r0")
    count = 2000

    def tell(thread: int) -> None:
        for number in range(count):
            sender.arriving(f"{thread} {number} {'x' * 500}")

    senders = [threading.Thread(target=tell, args=(thread,)) for thread in range(8)]
    for each in senders:
        each.start()
    told: defaultdict[str, list[int]] = defaultdict(list)
    while sum(map(len, told.values())) < 8 * count:
        for notice in read_one(coordinator):
            thread, number, _ = notice.series.split()
            told[thread].append(int(number))
    for each in senders:
        each.join(SECONDS)

    assert all(numbers == list(range(count)) for numbers in told.values())


def test_a_receiver_that_is_killed_leaves_whole_notices_only(
    receiver: socket.socket, coordinator: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    talker = subprocess.Popen(
        [sys.executable, "-c", TALKER, str(receiver.fileno())],
        pass_fds=[receiver.fileno()],
        cwd=REPOSITORY,
    )
    told = [notice.series for notice in read_one(coordinator)]

    # It is at it: the socket is full or about to be.
    os.kill(talker.pid, signal.SIGKILL)
    assert talker.wait(SECONDS) == -signal.SIGKILL
    NoticeSender(receiver, "r0").gone()
    while told[-1:] != [""]:
        told += [notice.series for notice in read_one(coordinator)]

    assert told[:-1] == [str(number) for number in range(len(told) - 1)]
    assert caplog.records == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"nothing of the kind",
        b"\xff\xfe",
        b"landed",
        b"landed\0r0\0a\0001.dcm",
        b"\0".join([b"landed", b"r0", b"a", *[b"1"] * 9, b"many", b"1.7e9"]),
        b"\0".join([b"landed", b"r0", b"a", *[b"1"] * 12]),
    ],
    ids=["one word", "no text", "no notice", "half an instance", "no number", "too much"],
)
def test_what_cannot_be_understood_is_ignored_and_what_follows_is_read(
    receiver: socket.socket, coordinator: socket.socket, garbage: bytes
) -> None:
    receiver.send(garbage)
    NoticeSender(receiver, "r0").arriving("b")

    assert [notice.series for notice in read_one(coordinator)] == ["b"]


def test_the_end_of_the_other_side_is_no_notice(
    receiver: socket.socket, coordinator: socket.socket
) -> None:
    NoticeSender(receiver, "r0").arriving("a")
    receiver.close()

    assert [notice.kind for notice in read_one(coordinator)] == ["arriving"]
    assert list(read_notices(coordinator)) == []


# -- to the receiver -------------------------------------------------------------------------------


def test_a_receiver_learns_what_work_at_hand_needs(
    receiver: socket.socket, coordinator: socket.socket
) -> None:
    send_needs(coordinator, 2**40)

    assert read_needs(receiver) == 2**40


def test_a_receiver_that_does_not_listen_keeps_nobody_waiting(
    receiver: socket.socket, coordinator: socket.socket
) -> None:
    for number in range(50_000):
        send_needs(coordinator, number)

    assert [read_needs(receiver) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("is_behind", [False, True], ids=["in peace", "with notices unread"])
def test_a_receiver_learns_that_the_coordinator_is_gone(
    receiver: socket.socket, coordinator: socket.socket, *, is_behind: bool
) -> None:
    if is_behind:
        NoticeSender(receiver, "r0").arriving("a")

    coordinator.close()

    assert read_needs(receiver) is None
    send_needs(coordinator, 5)
