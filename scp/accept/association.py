"""One association as acceptor: Verification and Storage, in one thread that waits for its peer."""

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from struct import pack
from typing import Final, cast

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AddressInformation

from scp import telemetry
from scp.accept.access import AccessList, Caller, Standing, plain_address
from scp.accept.audit import Account
from scp.accept.commitment import CommitmentService
from scp.accept.contexts import ACCEPTED
from scp.accept.door import Door
from scp.accept.messages import INVALID_PARAMETER, Messages, Negotiated
from scp.accept.ports import InstanceStore
from scp.accept.reader import MAX_CONTROL_PDU_BYTES, PduReader
from scp.accept.request import MAX_REQUEST_BYTES, Answers, read_request
from scp.accept.seats import ALL, Seats
from scp.accept.statuses import Rejection
from scp.accept.upper_layer import (
    HandedSocket,
    PumpedDul,
    State,
    StorageAcse,
    given_identity,
    positive_answer,
)
from scp.config.schema import LimitsSection
from scp.errors import AssociationError, ConnectionLostError, MalformedError
from scp.model import Origin

logger = logging.getLogger(__name__)

A_ASSOCIATE_RQ: Final = 0x01
P_DATA_TF: Final = 0x04

CLOSE_SECONDS: Final = 5.0
"""How long a peer may take to close the connection after a release, a rejection or an abort (ARTIM,
PS3.8 9.1.5)."""

ALERT_SECONDS: Final = 1.0
"""How long a peer with which TLS failed may take to read why."""

SEAT_SECONDS: Final = 0.02
"""How often one that waits for a seat looks whether another receiver has left one."""

DICOM_APPLICATION: Final = "1.2.840.10008.3.1.1.1"
"""The one application context name (PS3.7 A.2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What all associations of a listener share."""

    entity: ApplicationEntity
    store: InstanceStore
    access: AccessList
    answers: Answers
    limits: LimitsSection
    seats: Seats
    commitments: CommitmentService | None = None
    """None: neither offered nor asked for."""


class StorageAssociation(Association):
    """A thread that takes instances from one peer until it releases, vanishes or misbehaves.

    Parameters
    ----------
    when_seated
        Called by the thread once it has its seats.
    when_over
        Called by the thread at its end.
    buffer_bytes
        To receive into.
    """

    def __init__(
        self,
        service: Service,
        door: Door,
        connection: socket.socket,
        address: tuple[str, int],
        when_seated: Callable[["StorageAssociation"], None],
        when_over: Callable[["StorageAssociation"], None],
        *,
        buffer_bytes: int,
    ) -> None:
        super().__init__(service.entity, "acceptor")
        self._service = service
        self._limits = service.limits
        self._door = door
        self.peer_address = plain_address(address[0])
        self._when_seated = when_seated
        self._when_over = when_over
        self._has_asked = False
        self._reader = PduReader(connection, service.limits, buffer_bytes)
        self._messages: Messages | None = None
        self._seats: list[str] = []
        self._ending = "failed"
        self._account = Account(port=door.port, address=self.peer_address)

        self.dul = self._upper = PumpedDul(self)
        self.acse = StorageAcse(self, self._upper, self._refusal)
        # Their setters write into the timers of the current upper layer (association.py:282, :594).
        self.acse_timeout = self._limits.pdu_seconds
        self.network_timeout = self._limits.idle_seconds
        self.requestor.address_info = AddressInformation(self.peer_address, address[1])
        self.acceptor.ae_title = service.entity.ae_title
        self.acceptor.maximum_length = self._limits.max_pdu_bytes
        self.acceptor.implementation_version_name = service.entity.implementation_version_name

    def stop(self) -> None:
        """Abort as soon as the thread looks; from any thread, without waiting."""
        self._reader.stop()

    def leave(self) -> None:
        """As :meth:`stop`, at once, of one that has no seat and takes up the room of another."""
        self._reader.stop("others want its place", at_once=True)

    @property
    def is_leaving(self) -> bool:
        """Whether it was stopped."""
        return self._reader.is_stopped

    @property
    def is_silent(self) -> bool:
        """Whether it has neither asked for what is not decided yet, nor said what is not read yet."""
        return not (self._has_asked or self._reader.has_unread)

    @property
    def open_seconds(self) -> float:
        """Since the connection came."""
        return self._account.seconds

    @property
    def idle_seconds(self) -> float:
        """For how long the peer has begun nothing; 0 in the middle of an instance."""
        is_busy = self._messages is not None and self._messages.is_receiving
        return 0.0 if is_busy else self._reader.silent_seconds

    def run_reactor(self) -> None:
        """The thread's one loop."""
        with telemetry.context(association=self.name):
            try:
                self._run()
            except Exception:
                logger.exception("association failed")
            finally:
                self._close()

    def _run(self) -> None:
        self._reader.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = self._door.tls_context()
        if context is not None and not self._shake_hands(context):
            return
        self._upper.set_socket(HandedSocket(self, self._reader.connection))
        self._upper.pump()
        try:
            negotiated = self._establish()
            if negotiated is not None:
                self._serve(negotiated)
        except ConnectionLostError as error:
            self._ending = str(error)
            self._upper.post("Evt17")
        except AssociationError as error:
            self._ending = f"aborted: {error}"
            self._abort(error.reason)
        if self._upper.state == State.AWAITING_CLOSE:
            self._await_close()

    def _shake_hands(self, context: ssl.SSLContext) -> bool:
        try:
            self._account.secured(self._reader.secure(context, self._handshake_left))
        except ConnectionLostError as error:
            self._ending = str(error)
            with contextlib.suppress(AssociationError):
                self._reader.drop_until_closed(ALERT_SECONDS)
            return False
        except AssociationError as error:
            self._ending = str(error)
            return False
        return True

    @property
    def _handshake_left(self) -> float:
        """Seconds that the peer has until it is associated."""
        return self._limits.handshake_seconds - self._account.seconds

    def _establish(self) -> Negotiated | None:
        self._receive_control(*self._reader.pdu_header(self._handshake_left))
        # Only an A-ASSOCIATE-RQ leads to that state; mypy loses the type in a cycle of imports.
        request = cast(A_ASSOCIATE | None, self._upper.receive_pdu())
        if self._upper.state != State.DECIDING or request is None:
            self._ending = "ended before it was established"
            return None
        self.requestor.primitive = request
        self.acse.negotiate_association()
        origin = self._account.origin
        if not self.is_established or origin is None:
            return None
        self._account.negotiated(self._upper.answers)
        syntaxes = {
            answer.context_id: answer.transfer_syntax
            for answer in self._upper.answers
            if answer.result == ACCEPTED
        }
        return Negotiated(
            origin=origin,
            syntaxes=syntaxes,
            peer_max_pdu_bytes=self.requestor.maximum_length or 0,
        )

    def _refusal(self, calling: str, called: str) -> Rejection | None:
        self._account.origin = Origin(
            calling_ae_title=calling, called_ae_title=called, peer_address=self.peer_address
        )
        rejection = self._judge(calling, called)
        if rejection is not None:
            self._ending = rejection.words
            self._has_asked = False
        return rejection

    def _judge(self, calling: str, called: str) -> Rejection | None:
        access, request = self._service.access, cast(A_ASSOCIATE, self.requestor.primitive)
        names = self._account.certificate_names
        user = given_identity(self.requestor.user_identity)
        self._account.user = "" if user is None else user.name
        if request.application_context_name != DICOM_APPLICATION:
            return Rejection.APPLICATION_CONTEXT
        standing = access.standing(
            Caller(calling_ae_title=calling, address=self.peer_address, certificate_names=names)
        )
        if standing is None:
            return Rejection.CALLING_TITLE
        if not self._door.answers_to(called) or not standing.may_call(called):
            return Rejection.CALLED_TITLE
        if not access.recognises(user):
            return Rejection.USER_IDENTITY
        if not self._service.store.has_room():
            return Rejection.CONGESTION
        if not self._sit_down(standing):
            return Rejection.LOCAL_LIMIT
        self._take_limits(standing.limits)
        if user is not None and user.wants_answer and access.looks_at_users:
            self.acceptor.add_negotiation_item(positive_answer())
        return None

    def _sit_down(self, standing: Standing) -> bool:
        """Take a seat of all, for which it may have to wait, then of its address and of its entry."""
        limits, seats = self._limits, self._service.seats
        wanted: dict[str, int | None] = {
            ALL: limits.max_associations,
            self.peer_address: limits.max_associations_per_address,
        }
        if standing.entry:
            wanted[standing.entry] = standing.max_associations
        deadline = time.monotonic() + limits.busy_seconds
        for of, most in wanted.items():
            while not seats.take(of, most):
                if of != ALL or time.monotonic() >= deadline:
                    self._stand_up()
                    return False
                self._reader.wait(SEAT_SECONDS)
            self._has_asked = False
            self._seats.append(of)
        self._when_seated(self)
        return True

    def _stand_up(self) -> None:
        while self._seats:
            self._service.seats.leave(self._seats.pop())

    def _take_limits(self, limits: LimitsSection) -> None:
        self._limits = limits
        self._reader.set_idle_seconds(limits.idle_seconds)
        self.acceptor.maximum_length = limits.max_pdu_bytes

    def _serve(self, negotiated: Negotiated) -> None:
        store = self._service.store
        messages = Messages(
            negotiated,
            store,
            self._limits,
            self._reader,
            self._account,
            self._service.commitments,
        )
        self._messages = messages
        store.association_opened(negotiated.origin)
        try:
            while self._upper.state == State.ESTABLISHED:
                kind, length = self._reader.pdu_header()
                while kind == P_DATA_TF:  # which changes no state
                    messages.receive(length)
                    kind, length = self._reader.pdu_header()
                self._receive_control(kind, length)
            self._end()
        finally:
            messages.abandon()
            store.association_closed(negotiated.origin)

    def _receive_control(self, kind: int, length: int) -> None:
        """Leave any PDU but P-DATA-TF to the state machine."""
        is_request = kind == A_ASSOCIATE_RQ
        if length > (MAX_REQUEST_BYTES if is_request else MAX_CONTROL_PDU_BYTES):
            raise AssociationError(f"a PDU of {length} bytes", INVALID_PARAMETER)
        if not is_request:
            self._upper.receive(pack(">BxL", kind, length) + self._reader.take_all(length))
            return
        try:
            request = read_request(self._reader, length, self._service.answers)
        except MalformedError as error:
            raise AssociationError(str(error), INVALID_PARAMETER) from error
        self._has_asked = True
        self._upper.answers = request.answers
        self._upper.receive(request.pdu)

    def _end(self) -> None:
        """Answer what took the state machine out of data transfer."""
        if self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self._ending = "released"
        elif self._upper.state == State.IDLE:
            self._ending = "aborted by the peer"
        else:
            self._ending = "aborted: a PDU that does not belong there"

    def _abort(self, reason: int | None) -> None:
        if self._upper.state == State.AWAITING_REQUEST:
            self._upper.post("Evt18" if reason is None else "Evt19")
        elif self._upper.state not in (State.IDLE, State.AWAITING_CLOSE):
            if reason is None:
                self.acse.send_abort(0x00)
            else:
                self.acse.send_ap_abort(reason)

    def _await_close(self) -> None:
        """Let the peer close first: closing with unread data would take our last PDU from it."""
        try:
            self._reader.drop_until_closed(CLOSE_SECONDS)
        except ConnectionLostError:
            self._upper.post("Evt17")
        except AssociationError:
            self._upper.post("Evt18")

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._reader.connection.close()
        self._stand_up()
        self._account.close(self._ending)
        self._when_over(self)
