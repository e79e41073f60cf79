"""What receivers tell the coordinator, and it them: datagrams on a socket pair, in order, never lost.

The sender waits where the coordinator is behind; a receiver that cannot be told of is not run.
"""

import json
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from scp.buffer.store import Landed
from scp.model import Identity, Origin, StoreRequest

logger = logging.getLogger(__name__)

_LONGEST = 8192
"""Four UIDs, two AE titles and an address have at most a tenth of that."""
AT_ONCE: Final = 128
"""How many notices are read before other work is looked at."""
_BUFFER_BYTES = 2**20
_SEPARATOR = "\0"
"""In no UID, title or address: these are checked when they come in."""


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

    def gone(self) -> bool:
        """Said by the supervisor in the name of a receiver that died; False: no room, say it later.

        It never waits: whoever it would wait for is watched by the supervisor, too.
        """
        try:
            self._send("gone", "", flags=socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True

    def _send(
        self, kind: str, series: str, landed: Landed | None = None, *, flags: int = 0
    ) -> None:
        # Plain text, because pickle and json take as long as receiving a small instance.
        fields = (kind, self._receiver, series, *(_flat(landed) if landed else ()))
        self._end.send(_SEPARATOR.join(fields).encode(), flags)


def read_notices(end: socket.socket) -> Iterator[Notice]:
    """What has come in; ends where nothing more waits, or the coordinator has other work, too."""
    for _ in range(AT_ONCE):
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
        kind, receiver, series, *landed = message.decode().split(_SEPARATOR)
        return Notice(kind, receiver, series, _landed(series, *landed) if landed else None)
    except (TypeError, ValueError) as error:
        logger.error("a notice of %d bytes was ignored: %s", len(message), type(error).__name__)
        return None


def _flat(landed: Landed) -> tuple[str, ...]:
    """What :func:`_landed` takes, the series apart."""
    request, identity = landed.request, landed.identity
    return (
        landed.name,
        request.origin.calling_ae_title,
        request.origin.called_ae_title,
        request.origin.peer_address,
        request.sop_class_uid,
        request.sop_instance_uid,
        request.transfer_syntax,
        identity.study_instance_uid,
        identity.series_instance_uid,
        str(landed.file_bytes),
        repr(landed.received),
    )


def _landed(
    series: str,
    name: str,
    calling: str,
    called: str,
    address: str,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax: str,
    study_instance_uid: str,
    series_instance_uid: str,
    file_bytes: str,
    received: str,
) -> Landed:
    """Only an instance whose dataset has the command's UIDs has landed."""
    return Landed(
        series=series,
        name=name,
        request=StoreRequest(
            origin=Origin(calling_ae_title=calling, called_ae_title=called, peer_address=address),
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax=transfer_syntax,
        ),
        identity=Identity(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
        ),
        file_bytes=int(file_bytes),
        received=float(received),
    )


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
