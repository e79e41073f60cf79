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
from scp.accept.access import AccessList, plain_address
from scp.accept.contexts import ACCEPTED, Acceptance
from scp.accept.door import Door
from scp.accept.messages import INVALID_PARAMETER, Messages, Negotiated
from scp.accept.ports import InstanceStore
from scp.accept.reader import MAX_CONTROL_PDU_BYTES, PduReader
from scp.accept.upper_layer import HandedSocket, PumpedDul, State, StorageAcse
from scp.config.schema import LimitsSection
from scp.errors import AssociationError, ConnectionLostError, MalformedError
from scp.model import Origin

logger = logging.getLogger(__name__)

P_DATA_TF: Final = 0x04

CLOSE_SECONDS: Final = 5.0
"""How long a peer may take to close the connection after a release, a rejection or an abort (ARTIM,
PS3.8 9.1.5)."""

ALERT_SECONDS: Final = 1.0
"""How long a peer with which TLS failed may take to read why."""

NOT_ADMITTED: Final = (1, 1, 3)
"""Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4): calling AE title not recognised."""
NOT_CALLED: Final = (1, 1, 7)
"""The same for the called AE title."""
CONGESTED: Final = (2, 3, 1)
"""Rejected for now, by the provider: temporary congestion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What all associations of a listener share."""

    entity: ApplicationEntity
    store: InstanceStore
    access: AccessList
    acceptance: Acceptance
    limits: LimitsSection


class StorageAssociation(Association):
    """A thread that takes instances from one peer until it releases, vanishes or misbehaves."""

    def __init__(
        self,
        service: Service,
        door: Door,
        connection: socket.socket,
        address: tuple[str, int],
        when_over: Callable[["StorageAssociation"], None],
    ) -> None:
        super().__init__(service.entity, "acceptor")
        self._service = service
        self._limits = service.limits
        self._door = door
        self._peer_address = plain_address(address[0])
        self._when_over = when_over
        self._reader = PduReader(connection, service.limits)
        self._origin: Origin | None = None
        self._messages: Messages | None = None
        self._began = time.monotonic()
        self._ending = "failed"

        self.dul = self._upper = PumpedDul(self)
        self.acse = StorageAcse(self, self._upper, service.acceptance, self._refusal)
        # Their setters write into the timers of the current upper layer (association.py:282, :594).
        self.acse_timeout = self._limits.pdu_seconds
        self.network_timeout = self._limits.idle_seconds
        self.requestor.address_info = AddressInformation(self._peer_address, address[1])
        self.acceptor.ae_title = service.entity.ae_title
        self.acceptor.maximum_length = self._limits.max_pdu_bytes
        self.acceptor.implementation_version_name = service.entity.implementation_version_name

    def stop(self) -> None:
        """Abort as soon as the thread looks; from any thread, without waiting."""
        self._reader.stop()

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
            self._reader.secure(context, self._handshake_left)
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
        return self._limits.handshake_seconds - (time.monotonic() - self._began)

    def _establish(self) -> Negotiated | None:
        self._receive_control(*self._reader.pdu_header(self._handshake_left))
        # Only an A-ASSOCIATE-RQ leads to that state; mypy loses the type in a cycle of imports.
        request = cast(A_ASSOCIATE | None, self._upper.receive_pdu())
        if self._upper.state != State.DECIDING or request is None:
            self._ending = "ended before it was established"
            return None
        self.requestor.primitive = request
        self.acse.negotiate_association()
        if not self.is_established or self._origin is None:
            return None
        syntaxes = {
            answer.context_id: answer.transfer_syntax
            for answer in self._upper.answers
            if answer.result == ACCEPTED
        }
        return Negotiated(
            origin=self._origin,
            syntaxes=syntaxes,
            peer_max_pdu_bytes=self.requestor.maximum_length or 0,
        )

    def _refusal(self, calling: str, called: str) -> tuple[int, int, int] | None:
        self._origin = Origin(
            calling_ae_title=calling, called_ae_title=called, peer_address=self._peer_address
        )
        if not self._service.access.admits(calling, self._peer_address):
            self._ending = "rejected: caller not recognised"
            return NOT_ADMITTED
        if not self._door.answers_to(called):
            self._ending = "rejected: called title not recognised"
            return NOT_CALLED
        if not self._service.store.has_room():
            self._ending = "rejected: no room"
            return CONGESTED
        return None

    def _serve(self, negotiated: Negotiated) -> None:
        store = self._service.store
        messages = Messages(negotiated, store, self._limits, self._reader, self._reader.send)
        self._messages = messages
        store.association_opened(negotiated.origin)
        try:
            while self._upper.state == State.ESTABLISHED:
                kind, length = self._reader.pdu_header()
                if kind == P_DATA_TF:
                    messages.receive(length)
                else:
                    self._receive_control(kind, length)
            self._end()
        finally:
            messages.abandon()
            store.association_closed(negotiated.origin)

    def _receive_control(self, kind: int, length: int) -> None:
        """Leave any PDU but P-DATA-TF to the state machine."""
        if length > MAX_CONTROL_PDU_BYTES:
            raise AssociationError(f"a PDU of {length} bytes", INVALID_PARAMETER)
        pdu = pack(">BxL", kind, length) + self._reader.take_all(length)
        try:
            self._upper.receive(pdu)
        except MalformedError as error:
            raise AssociationError(str(error), INVALID_PARAMETER) from error

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
        logger.info(
            "association over: %s calling %s from %s, %d instances, %d bytes, %.2f s, %s",
            self._origin.calling_ae_title if self._origin else "-",
            self._origin.called_ae_title if self._origin else "-",
            self._peer_address,
            self._messages.instances if self._messages else 0,
            self._messages.dataset_bytes if self._messages else 0,
            time.monotonic() - self._began,
            self._ending,
        )
        self._when_over(self)
