"""pynetdicom's upper layer and association control, without the threads that poll.

What differs from pynetdicom 3.0.4, which behaviour of it makes that necessary, and the test of
tests/accept/test_upstream.py that shows it and fails when a newer pynetdicom has mended it:

``PumpedDul`` is no thread
    dul.py:403 polls with sleeps of 1 ms, and so does a second thread at association.py:714
    (an_association_is_one_thread). Whoever aborts waits for it, association.py:541, however long a
    peer stalls (an_association_is_aborted_although_its_peer_stalls). Sending at once also ends the
    race in which ``is_established`` is set before the accept is on the wire, acse.py:427-433
    (an_association_is_established_when_the_accept_is_sent).
``PduReader``, ``PumpedDul.receive``, ``HandedSocket.recv``
    dul.py:302 reads as many bytes as a PDU announces, without a deadline
    (a_pdu_that_is_too_long_is_answered_before_it_is_read,
    a_peer_that_stalls_inside_a_pdu_is_dropped), 4 KiB at a time into a growing copy,
    transport.py:598 (a_pdu_that_has_come_is_read_at_once). Timers measure wall time, timer.py:95
    (a_clock_that_is_set_ends_no_association).
``StorageAcse``
    acse.py:319 admits by calling title alone and looks at no application context
    (another_application_than_dicom_is_rejected), says nothing of an operations window
    (an_operations_window_is_answered_without_being_asked), and negotiates with contexts that
    transport.py:765 copies deeply for each association: 60 ms
    (associations_share_what_is_supported).
``positive_answer``
    acse.py:248 never tells a user who came by name alone that it was recognised
    (a_user_that_was_recognised_by_name_is_told).
``PumpedDul.answers``, ``read_request``
    pdu.py and presentation.py check every UID of every context several times by regular
    expressions: 15 ms for the 120 contexts that DCMTK's storescu proposes (a_uid_is_checked_once).
``plain_title``
    _validators.py:12 and utils.py:175 refuse titles that are blank, padded with NUL or not ASCII,
    which are sent (a_title_outside_the_standard_is_read, a_peer_without_a_name_is_accepted).
``StorageAssociation`` is made by ``Listener``
    transport.py:745 makes associations of a fixed class, and the server binds its port itself,
    :984; here the listening socket is inherited (a_socket_that_listens_can_be_handed_over).
``StorageAssociation`` shakes hands
    transport.py:969 shakes hands where it accepts, and meanwhile accepts nobody else
    (a_peer_that_stalls_in_its_tls_handshake_keeps_nobody_waiting).
``StorageAssociation._await_close``
    After a release, rejection or abort dul.py:171 closes at once instead of leaving it to the peer
    (the_peer_closes_first).
``StorageAssociation._close``
    transport.py:641 leaves the descriptor open when the peer has ended the connection first
    (a_connection_that_the_peer_has_reset_is_closed).
``Messages`` reads P-DATA
    dimse.py:248 holds a whole message in memory without a bound
    (a_command_without_an_end_is_aborted), decoding drops what follows it in the same PDU,
    dimse_messages.py:502 (two_messages_in_one_pdu_are_both_answered), and an unknown command field
    is a KeyError that ends the thread, :443 (an_unknown_command_is_aborted).
``quiet_pynetdicom``
    association.py:317 binds handlers that log identifiers (an_instance_is_not_named_in_the_log),
    and each module logs at INFO; we log one line an association
    (an_association_is_one_line_in_the_log).

So EVT_C_STORE, EVT_C_ECHO, EVT_DATA_RECV and EVT_PDU_RECV never fire for messages.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, cast

from pydicom.uid import UID
from pynetdicom import _config
from pynetdicom.acse import ACSE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ASSOCIATE_AC, _PDUType
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.transport import AssociationSocket

from scp.accept.access import UserIdentity
from scp.accept.contexts import Answer, put_answers
from scp.accept.statuses import Rejection
from scp.commitment import PUSH_MODEL

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import _PDUPrimitiveType


def quiet_pynetdicom() -> None:
    """Silence what pynetdicom logs of itself, unless someone set its level on purpose."""
    _config.LOG_HANDLER_LEVEL = "none"
    logger = logging.getLogger("pynetdicom")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)


class State(IntEnum):
    """The states of PS3.8 9.2.1 that our side looks at."""

    IDLE = 1
    AWAITING_REQUEST = 2
    DECIDING = 3
    ESTABLISHED = 6
    AWAITING_CLOSE = 13


class HandedSocket(AssociationSocket):
    """Sends to the peer; receives only the PDU that it is handed."""

    def __init__(self, association: "Association", connection: socket.socket) -> None:
        self._handed = bytearray()
        super().__init__(association, client_socket=connection)

    def hand(self, pdu: bytes) -> None:
        self._handed[:] = pdu

    def recv(self, nr_bytes: int) -> bytearray:
        taken = self._handed[:nr_bytes]
        del self._handed[:nr_bytes]
        return taken


class PumpedDul(DULServiceProvider):
    """The state machine of PS3.8 9.2, driven by the thread of its association."""

    answers: Sequence[Answer] = ()
    """What the A-ASSOCIATE-AC is to say of the contexts of the request."""

    def set_socket(self, handed: HandedSocket) -> None:
        self.socket = self._handed = handed

    @property
    def state(self) -> int:
        """Its number; of those that matter there is a :class:`State`."""
        return int(self.state_machine.current_state.removeprefix("Sta"))

    def send_pdu(self, primitive: "_PDUPrimitiveType") -> None:
        """Send at once, and be in the next state on return."""
        super().send_pdu(primitive)
        self.pump()

    def receive(self, pdu: bytes) -> None:
        """Act on one whole PDU from the peer; an A-ASSOCIATE-RQ comes without its contexts."""
        self._handed.hand(pdu)
        self._read_pdu_data()
        self.pump()

    def _send(self, pdu: _PDUType) -> None:
        if isinstance(pdu, A_ASSOCIATE_AC):
            self._handed.send(put_answers(pdu.encode(), self.answers))
        else:
            super()._send(pdu)

    def post(self, event: str) -> None:
        """Act on one event of PS3.8 Table 9-10."""
        self.event_queue.put(event)
        self.pump()

    def pump(self) -> None:
        """Act on everything that waits, unless the connection is over."""
        while not self._kill_thread and (
            not self.event_queue.empty() or self._process_recv_primitive()
        ):
            self.state_machine.do_action(self.event_queue.get_nowait())


class StorageAcse(ACSE):
    """Association control of the acceptor (PS3.8 7.1): who comes in, and for what."""

    def __init__(
        self,
        association: "Association",
        upper: PumpedDul,
        refusal: Callable[[str, str], Rejection | None],
    ) -> None:
        super().__init__(association)
        self._upper = upper
        self._refusal = refusal

    def _negotiate_as_acceptor(self) -> None:
        request = cast(A_ASSOCIATE, self.requestor.primitive)
        calling = request.calling_ae_title.strip()
        self.requestor.ae_title = calling
        refusal = self._refusal(calling, request.called_ae_title.strip())
        if refusal is not None:
            self.send_reject(*refusal.value)
            return
        if self.requestor.asynchronous_operations != (1, 1):
            window = AsynchronousOperationsWindowNegotiation()
            window.maximum_number_operations_invoked = 1
            window.maximum_number_operations_performed = 1
            self.acceptor.add_negotiation_item(window)
        role = self.requestor.role_selection.get(UID(PUSH_MODEL))
        if role is not None and (role.scu_role or role.scp_role):
            # We are both: peers ask us, and report what we have asked (PS3.7 D.3.3.4).
            self.acceptor.add_negotiation_item(role)
        self.send_accept()
        self.assoc.is_established = self._upper.state == State.ESTABLISHED


def given_identity(item: UserIdentityNegotiation | None) -> UserIdentity | None:
    """What a request for an association says of the user."""
    if item is None:
        return None
    return UserIdentity(
        kind=item.user_identity_type or 0,
        primary=item.primary_field or b"",
        secondary=item.secondary_field or b"",
        wants_answer=bool(item.positive_response_requested),
    )


def positive_answer() -> UserIdentityNegotiation:
    """That a user was recognised by name; there is nothing more to it (PS3.7 D.3.3.7.2)."""
    item = UserIdentityNegotiation()
    item.server_response = b""
    return item
