"""The buffer under the PDUs."""

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.accept.reader import PduReader
from scp.config.schema import LimitsSection
from scp.errors import AssociationError, ConnectionLostError


@given(
    bodies=st.lists(st.binary(max_size=200), max_size=12),
    buffer_bytes=st.integers(12, 70),
    most=st.integers(1, 90),
)
def test_a_stream_is_read_right_wherever_the_buffer_ends(
    bodies: list[bytes], buffer_bytes: int, most: int
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = PduReader(ours, LimitsSection(), buffer_bytes)
        for body in bodies:
            pdv = (len(body) + 2).to_bytes(4, "big") + b"\x01\x02" + body
            theirs.sendall(b"\x04\x00" + len(pdv).to_bytes(4, "big") + pdv)
        theirs.shutdown(socket.SHUT_WR)

        received = []
        for body in bodies:
            assert reader.pdu_header() == (4, len(body) + 6)
            assert reader.pdv_header() == (len(body) + 2, 1, 2)
            left, taken = len(body), b""
            while left:
                chunk = bytes(reader.take(min(left, most)))
                left -= len(chunk)
                taken += chunk
            received.append(taken)

        assert received == bodies
        with pytest.raises(ConnectionLostError):
            reader.pdu_header()


def test_nothing_is_taken_without_waiting_for_more() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = PduReader(ours, LimitsSection(idle_seconds=0.1, pdu_seconds=0.1))

        assert reader.take_all(0) == b""


def test_another_thread_stops_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = PduReader(ours, LimitsSection())
        stopper = threading.Timer(0.05, reader.stop)
        stopper.start()

        with pytest.raises(AssociationError, match="the node stops"):
            reader.pdu_header()

        stopper.join()
