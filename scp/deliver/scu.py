"""One association as requestor, in the caller's thread, over a blocking socket (PS3.7, PS3.8).

The bytes of a file go to the socket as they are. A whole window of P-DATA-TF PDUs leaves in one
system call, so that neither Nagle's algorithm nor Python costs much.
"""

import hashlib
import os
import socket
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Final, Self

from scp.config.schema import DicomDestination
from scp.deliver.connect import connect, limit_waiting, write, write_last
from scp.deliver.messages import (
    ABORT,
    PDU_HEADER_BYTES,
    PDV_HEADER_BYTES,
    RELEASE_REPLY,
    RELEASE_REQUEST,
    VERIFICATION,
    Command,
    PduType,
    Response,
    echo_request,
    fragment_header,
    fragmented_command,
    pdvs,
    split_pdu_header,
    store_request,
)
from scp.deliver.negotiation import (
    Accepted,
    Proposal,
    decode_acceptance,
    encode_request,
    rejection,
)
from scp.errors import (
    DeliveryError,
    DigestMismatchError,
    MalformedError,
    NoAssociationError,
    PeerRejectedError,
    PeerUnavailableError,
)

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"

_WINDOW: Final = 1 << 20
"""Bytes of a file read at a time."""
_BUFFERS_A_CALL: Final = 800
"""Below IOV_MAX, 1024 on Linux, with room for the command."""
_TLS_ALERT: Final = 0x15
"""What a record begins with by which TLS complains (RFC 8446 5.1); no PDU begins so."""
_LONGEST_ANSWER: Final = 1 << 20
"""More in one PDU, or in one answer, ends the association."""
_READ: Final = 1 << 16
_SLOWEST: Final = 16 * 1024
"""Bytes a second; a peer that takes less is taken for dead."""
_RELEASE_SECONDS: Final = 5.0

type _Part = bytes | memoryview


class Association:
    """An accepted association. Leaving the context aborts it unless it was released."""

    def __init__(self, connection: socket.socket, answer_seconds: float, max_pdu: int) -> None:
        self._socket = connection
        self._answer_seconds = answer_seconds
        self._max_pdu = max_pdu
        self._inbox = bytearray()
        self._message_id = 0
        self._chunk = 0
        self._buffer = memoryview(b"")
        self.contexts: dict[Proposal, int] = {}
        """What the peer accepted; the rest it refused."""
        self.refused: Collection[Proposal] = ()
        """What it refused because it does not support it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def store(
        self,
        proposal: Proposal,
        sop_instance_uid: str,
        descriptor: int,
        start: int,
        size: int,
        sha256: str = "",
        dataset_sha256: str = "",
    ) -> int:
        """Send ``size`` bytes of a file from ``start`` as a dataset; return the answer's status.

        Parameters
        ----------
        sha256
            Of the whole file, if known: one that has another is never sent to its end.
        dataset_sha256
            Of the bytes to send alone, for a file of which no more is known.

        Raises
        ------
        PeerUnavailableError
            No answer; the association is over.
        DigestMismatchError, DeliveryError
            The file is not that one, or cannot be read; the association is over.
        """
        context = self.contexts[proposal]
        message_id = self._next_message_id()
        command = store_request(message_id, proposal.sop_class_uid, sop_instance_uid)
        deadline = time.monotonic() + self._answer_seconds + size / _SLOWEST
        parts: list[_Part] = [fragmented_command(command, context, self._chunk)]
        full = fragment_header(context, self._chunk, is_command=False, is_last=False)
        digest = hashlib.sha256(os.pread(descriptor, start, 0) if sha256 else b"")
        committed = sha256 or dataset_sha256
        remaining = size
        while True:
            window = self._read_window(descriptor, start + size - remaining, remaining)
            remaining -= len(window)
            if committed:
                digest.update(window)
                if not remaining and digest.hexdigest() != committed:
                    raise DigestMismatchError("the file is not the one that was committed")
            for at in range(0, len(window), self._chunk):
                part = window[at : at + self._chunk]
                is_last = not remaining and at + self._chunk >= len(window)
                parts.append(
                    fragment_header(context, len(part), is_command=False, is_last=True)
                    if is_last
                    else full
                )
                parts.append(part)
            self._send(parts, deadline)
            if not remaining:
                return self._answer(Command.C_STORE_RSP, message_id)
            parts = []

    def echo(self) -> int:
        """Verify the connection (PS3.4 annex A); return the answer's status."""
        context = self.contexts[Proposal(VERIFICATION, IMPLICIT_LITTLE)]
        message_id = self._next_message_id()
        command = fragmented_command(echo_request(message_id), context, self._chunk)
        self._send([command], time.monotonic() + self._answer_seconds)
        return self._answer(Command.C_ECHO_RSP, message_id)

    def release(self) -> None:
        """End in good order. A peer that does not answer changes nothing: all answers are here."""
        deadline = time.monotonic() + min(self._answer_seconds, _RELEASE_SECONDS)
        try:
            limit_waiting(self._socket, min(self._answer_seconds, _RELEASE_SECONDS))
            self._send([RELEASE_REQUEST], deadline)
            kind = 0
            while kind not in (PduType.RELEASE_RP, PduType.ABORT):
                kind, _ = self._next_pdu(deadline)
                if kind == PduType.RELEASE_RQ:
                    self._send([RELEASE_REPLY], deadline)
            self._socket.close()
        except PeerUnavailableError:
            self.abort()

    def abort(self) -> None:
        """End at once; nothing happens where it is over already."""
        if self._socket.fileno() < 0:
            return
        write_last(self._socket, ABORT)

    # -- negotiation ---------------------------------------------------------------------------

    def request(
        self,
        called: str,
        calling: str,
        proposals: Sequence[Proposal],
        provider_of: Collection[str] = (),
    ) -> None:
        """Ask for the association; used once, first.

        Parameters
        ----------
        provider_of
            SOP classes of which this side is the provider, although it is the one that asks.

        Raises
        ------
        PeerRejectedError
            The peer rejects it for good.
        PeerUnavailableError
            It rejects for now; as NoAssociationError: it aborts, or does not answer.
        """
        deadline = time.monotonic() + self._answer_seconds
        try:
            self._send([encode_request(called, calling, proposals, provider_of)], deadline)
            kind, pdu = self._next_pdu(deadline)
            if kind not in (PduType.ASSOCIATE_RJ, PduType.ASSOCIATE_AC):
                raise self._ended(kind)
        except PeerUnavailableError as error:
            raise NoAssociationError(str(error)) from error
        if kind == PduType.ASSOCIATE_RJ:
            raise rejection(pdu)
        accepted = decode_acceptance(pdu, proposals)
        self.contexts = dict(accepted.contexts)
        self.refused = accepted.refused
        self._chunk = _chunk_for(accepted, self._max_pdu)
        fragments = max(1, min(_WINDOW // self._chunk, _BUFFERS_A_CALL // 2))
        self._buffer = memoryview(bytearray(fragments * self._chunk))

    # -- bytes out -----------------------------------------------------------------------------

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    def _read_window(self, descriptor: int, offset: int, remaining: int) -> memoryview:
        """The next bytes of the file: as many as the buffer holds, or all that remain.

        Read, not mapped: a disk error in a mapping would kill the process.
        """
        window = self._buffer[: min(len(self._buffer), remaining)]
        filled = 0
        try:
            while filled < len(window):
                count = os.preadv(descriptor, [window[filled:]], offset + filled)
                if not count:
                    raise DeliveryError("file_unreadable: it became shorter while it was sent")
                filled += count
        except OSError as error:
            raise DeliveryError(f"file_unreadable: {error.strerror}") from error
        return window

    def _send(self, parts: list[_Part], deadline: float) -> None:
        remaining = sum(map(len, parts))
        try:
            while True:
                sent = write(self._socket, parts)
                remaining -= sent
                if not remaining:
                    return
                parts = _without(parts, sent)
                if time.monotonic() > deadline:
                    raise PeerUnavailableError("timeout: the peer takes the data too slowly")
        except (BlockingIOError, TimeoutError) as error:
            raise PeerUnavailableError("timeout: the peer takes no more data") from error
        except OSError as error:
            raise PeerUnavailableError(f"connection lost: {error.strerror}") from error

    # -- bytes in ------------------------------------------------------------------------------

    def _answer(self, command: Command, message_id: int) -> int:
        """Wait for the answer to ``message_id``, fragmented in any way; return its status."""
        deadline = time.monotonic() + self._answer_seconds
        encoded = bytearray()
        response: Response | None = None
        total = 0
        while True:
            kind, pdu = self._next_pdu(deadline)
            if kind != PduType.P_DATA:
                raise self._ended(kind)
            total += len(pdu)
            if total > _LONGEST_ANSWER:
                raise PeerUnavailableError("the peer's answer is too long")
            try:
                for is_command, is_last, data in pdvs(pdu[PDU_HEADER_BYTES:]):
                    if is_command != (response is None):
                        raise MalformedError("command and dataset are mixed up")
                    encoded += data if is_command else b""
                    if is_last and response is not None:
                        return response.status
                    if is_last:
                        response = Response(encoded)
                        if response.command != command or response.message_id != message_id:
                            raise MalformedError("it belongs to another request")
                        if not response.has_dataset:
                            return response.status
            except MalformedError as error:
                raise PeerUnavailableError(f"the peer's answer makes no sense: {error}") from error

    def _next_pdu(self, deadline: float) -> tuple[int, bytes]:
        """(type, all its bytes) of the next PDU."""
        self._fill(PDU_HEADER_BYTES, deadline)
        kind, length = split_pdu_header(self._inbox)
        if kind == _TLS_ALERT:
            raise PeerUnavailableError("the peer answers in TLS: give its section a tls")
        if length > _LONGEST_ANSWER:
            raise PeerUnavailableError("the peer's PDU is too long")
        end = PDU_HEADER_BYTES + length
        self._fill(end, deadline)
        pdu = bytes(self._inbox[:end])
        del self._inbox[:end]
        return kind, pdu

    def _fill(self, size: int, deadline: float) -> None:
        while len(self._inbox) < size:
            try:
                data = self._socket.recv(_READ)
            except (BlockingIOError, TimeoutError) as error:
                raise PeerUnavailableError("timeout: the peer does not answer") from error
            except OSError as error:
                raise PeerUnavailableError(f"connection lost: {error.strerror}") from error
            if not data:
                raise PeerUnavailableError("the peer closed the connection")
            self._inbox += data
            if time.monotonic() > deadline:
                raise PeerUnavailableError("timeout: the peer answers too slowly")

    def _ended(self, kind: int) -> PeerUnavailableError:
        """The error for a PDU that came instead of an answer."""
        if kind == PduType.ABORT:
            return PeerUnavailableError("the peer aborted the association")
        if kind == PduType.RELEASE_RQ:
            self._send([RELEASE_REPLY], time.monotonic() + _RELEASE_SECONDS)
            return PeerUnavailableError("the peer released the association instead of answering")
        return PeerUnavailableError(f"a PDU of type {kind:02X} came instead of an answer")


def associate(section: DicomDestination, proposals: Sequence[Proposal]) -> Association:
    """Connect and negotiate, as :func:`associate_as`."""
    return associate_as(Association, section, proposals)


def associate_as[A: Association](
    kind: type[A],
    section: DicomDestination,
    proposals: Sequence[Proposal],
    provider_of: Collection[str] = (),
) -> A:
    """Connect and negotiate an association of one kind.

    Raises
    ------
    PeerRejectedError
        The peer rejects the association for good, or is not to be believed.
    PeerUnavailableError
        It cannot be reached, rejects for now or does not answer.
    """
    association = kind(connect(section), section.answer_seconds, section.max_pdu)
    try:
        association.request(section.ae_title, section.calling_ae_title, proposals, provider_of)
    except BaseException:
        association.abort()
        raise
    return association


def _chunk_for(accepted: Accepted, max_pdu: int) -> int:
    """Bytes of data in one PDU: even, and no more than the peer or we want (PS3.8 D.1)."""
    longest = min(accepted.max_pdu or max_pdu, max_pdu)
    chunk = (longest - PDV_HEADER_BYTES) // 2 * 2
    if chunk <= 0:
        raise PeerRejectedError(
            f"the peer takes PDUs of {accepted.max_pdu} bytes: none can be sent"
        )
    return chunk


def _without(parts: list[_Part], sent: int) -> list[_Part]:
    """What is left of ``parts`` after their first ``sent`` bytes."""
    for index, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[index + 1 :]]
        sent -= len(part)
    return []
