"""What receivers tell the coordinator, and it them: datagrams on a socket pair, in order, never lost.

The sender waits where the coordinator is behind; a receiver that cannot be told of is not run.
"""

import json
import logging
import pickle
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from scp.buffer.store import Landed

logger = logging.getLogger(__name__)

_LONGEST = 8192
"""Four UIDs, two AE titles and an address have at most a tenth of that."""
_AT_ONCE = 128
_BUFFER_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Notice:
    """One event in the spool's folders."""

    kind: str
    """``arriving``, ``landed``, ``given_up``, ``repeated``, or ``gone``: the receiver died."""
    receiver: str
    series: str
    landed: Landed | None = None


def notice_pair() -> tuple[socket.socket, socket.socket]:
    """The receiver's end and the coordinator's."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return pair


class NoticeSender:
    """The receiver's end (see :class:`scp.buffer.store.Notices`). Safe to use from many threads."""

    def __init__(self, end: socket.socket, receiver: str) -> None:
        self._end = end
        self._receiver = receiver

    def arriving(self, series: str) -> None:
        self._send("arriving", series)

    def landed(self, landed: Landed) -> None:
        self._send("landed", landed.series, landed)

    def given_up(self, series: str) -> None:
        self._send("given_up", series)

    def repeated(self, series: str) -> None:
        self._send("repeated", series)

    def gone(self) -> None:
        """Said by the supervisor in the name of a receiver that died."""
        self._send("gone", "")

    def _send(self, kind: str, series: str, landed: Landed | None = None) -> None:
        self._end.send(pickle.dumps(Notice(kind, self._receiver, series, landed)))


def read_notices(end: socket.socket) -> Iterator[Notice]:
    """What has come in; ends where nothing more waits, or the coordinator has other work, too."""
    for _ in range(_AT_ONCE):
        try:
            message = end.recv(_LONGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not message:
            return
        notice = _understood(message)
        if notice is not None:
            yield notice


def _understood(message: bytes) -> Notice | None:
    """The notice, if it is one: the folders are the truth, so one that is lost costs time only."""
    try:
        notice = pickle.loads(message)  # noqa: S301 - written by our own receivers
    except Exception as error:
        # Unpickling raises what it likes, and the coordinator must not end with a damaged hint.
        logger.error("a notice of %d bytes was ignored: %s", len(message), type(error).__name__)
        return None
    return notice if isinstance(notice, Notice) else None


def send_needs(end: socket.socket, needed_bytes: int) -> None:
    """Tell receivers what open and queued work may still write. Dropped where they are behind."""
    try:
        end.send(json.dumps({"needed_bytes": needed_bytes}).encode(), socket.MSG_DONTWAIT)
    except OSError:
        return


def read_needs(end: socket.socket) -> int | None:
    """Wait for the next :func:`send_needs`; None when the other end is closed."""
    try:
        message = end.recv(_LONGEST)
    except ConnectionResetError:  # It was closed before it had read all of ours.
        return None
    return int(json.loads(message)["needed_bytes"]) if message else None
