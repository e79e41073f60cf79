"""Whatever bytes a peer sends: an answer or an end, never a crash, a hang or something left behind."""

import contextlib
import os
import random
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.accept.raw_peer import (
    ABORT,
    COMMAND,
    LAST,
    RELEASE_RQ,
    RawPeer,
    associate_request,
    echo_command,
    p_data,
    store_command,
    store_message,
)
from tests.accept.stores import Node, eventually, serving
from tests.accept.test_request import extended_negotiation

LONGEST_SECONDS = 8.0
"""The limits of the node below, and much patience with a busy machine."""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scp.accept.association.CLOSE_SECONDS", 0.1)
        with serving(handshake_seconds=0.2, pdu_seconds=0.2, idle_seconds=0.2) as running:
            yield running


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def fare(node: Node, *, is_associated: bool, sent: bytes) -> list[bytes]:
    """What one peer is answered until the end; checks what has to hold of every peer."""
    threads, files = threading.active_count(), descriptors()
    kept = len(node.store.kept) + len(node.store.abandoned)
    began = time.monotonic()
    with RawPeer(node.address) as peer:
        if is_associated:
            peer.associate()
        with contextlib.suppress(OSError):  # where the node has ended it already
            peer.send(sent)
        answers = peer.read_until_closed()
    assert eventually(lambda: node.listener.open_associations == 0)
    assert time.monotonic() - began < LONGEST_SECONDS
    assert eventually(lambda: threading.active_count() <= threads)
    assert eventually(lambda: descriptors() <= files)
    assert len(node.store.opened) == len(node.store.closed)
    assert all(
        len(pdu) == 6 + int.from_bytes(pdu[2:6], "big") and 2 <= pdu[0] <= 7 for pdu in answers
    )
    assert len(node.store.kept) + len(node.store.abandoned) - kept <= sent.count(b"\x04") + 1
    return answers


def assert_serves(node: Node) -> None:
    with RawPeer(node.address) as peer:
        peer.associate()
        peer.send(store_message(b"still there"))
        assert peer.read_response().Status == 0
        peer.release()


lengths = st.one_of(st.integers(0, 300), st.sampled_from([2**16, 2**17 + 1, 2**31, 2**32 - 1]))
pdus = st.builds(
    lambda kind, length, body: (
        struct.pack(">BxL", kind, len(body) if length is None else length) + body
    ),
    st.integers(0, 9),
    st.one_of(st.none(), lengths),
    st.binary(max_size=200),
)
pdvs = st.builds(
    lambda context, control, content, length: (
        struct.pack(">LBB", len(content) + 2 if length is None else length, context, control)
        + content
    ),
    st.sampled_from([1, 3, 5, 0, 255]),
    st.integers(0, 255),
    st.one_of(
        st.binary(max_size=60), st.sampled_from([store_command(), echo_command(), b"data" * 50])
    ),
    st.one_of(st.none(), lengths),
)
p_datas = st.lists(pdvs, min_size=1, max_size=4).map(
    lambda parts: struct.pack(">BxL", 4, len(b"".join(parts))) + b"".join(parts)
)
whole = st.sampled_from(
    [RELEASE_RQ, ABORT, store_message(b"data"), p_data((3, 3, echo_command())), associate_request()]
)


@given(st.lists(st.one_of(pdus, p_datas, whole), min_size=1, max_size=4).map(b"".join))
@settings(max_examples=30)
def test_any_pdus_on_an_association_end_in_an_answer(node: Node, sent: bytes) -> None:
    fare(node, is_associated=True, sent=sent)

    assert_serves(node)


@given(st.lists(st.one_of(pdus, whole), min_size=1, max_size=3).map(b"".join))
@settings(max_examples=30)
def test_any_pdus_before_an_association_end_in_an_answer(node: Node, sent: bytes) -> None:
    fare(node, is_associated=False, sent=sent)

    assert_serves(node)


elements = st.lists(
    st.tuples(
        st.sampled_from([0x0000, 0x0002, 0x0100, 0x0110, 0x0120, 0x0800, 0x0900, 0x1000]),
        st.one_of(st.binary(max_size=70), st.sampled_from([b"\1\0", b"\x30\0", b"\1\1", b"\0\0"])),
    ),
    max_size=8,
)


@given(elements, st.booleans(), st.booleans())
@settings(max_examples=30)
def test_any_command_set_ends_in_an_answer(
    node: Node, values: list[tuple[int, bytes]], is_cut: bool, has_data: bool
) -> None:
    command = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in values)
    command = command[:-1] if is_cut else command
    sent = p_data((1, COMMAND | LAST, command))
    if has_data:
        sent += p_data((1, LAST, b"data"))

    fare(node, is_associated=True, sent=sent + RELEASE_RQ)

    assert_serves(node)


@given(
    st.randoms(use_true_random=False),
    st.integers(1, 8),
)
@settings(max_examples=30)
def test_a_damaged_request_is_accepted_rejected_or_aborted(
    node: Node, source: random.Random, damages: int
) -> None:
    request = bytearray(associate_request(items=extended_negotiation()))
    for _ in range(damages):
        request[source.randrange(len(request))] = source.randrange(256)

    answers = fare(node, is_associated=False, sent=bytes(request))

    assert all(pdu[0] in (2, 3, 7) for pdu in answers)
    assert_serves(node)


user_items = st.lists(
    st.tuples(st.sampled_from([*range(0x51, 0x5A), 0, 0xFF]), st.binary(max_size=80)), max_size=6
).map(lambda items: b"".join(struct.pack(">BxH", kind, len(body)) + body for kind, body in items))


@given(user_items, st.integers(-3, 3))
@settings(max_examples=30)
def test_any_user_information_is_accepted_rejected_or_aborted(
    node: Node, body: bytes, lie: int
) -> None:
    request = associate_request()
    head = request[: request.index(b"\x50\0", 74)]
    whole_item = head + struct.pack(">BxH", 0x50, max(len(body) + lie, 0)) + body
    pdu = whole_item[:2] + struct.pack(">L", len(whole_item) - 6) + whole_item[6:]

    answers = fare(node, is_associated=False, sent=pdu)

    assert all(answer[0] in (2, 3, 7) for answer in answers)
    assert_serves(node)
