"""A peer that sends bytes as it likes, encoded by pynetdicom's own PDU and message classes."""

import socket
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, N_ACTION_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_ACTION
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    P_DATA,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

VERIFICATION = "1.2.840.10008.1.1"
CT = str(CTImageStorage)
EXPLICIT = str(ExplicitVRLittleEndian)
IMPLICIT = str(ImplicitVRLittleEndian)

DEFAULT_CONTEXTS = ((CT, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,)))

COMMAND, LAST = 1, 2

RELEASE_RQ = bytes.fromhex("05000000000400000000")
RELEASE_RP = bytes.fromhex("06000000000400000000")
ABORT = bytes.fromhex("07000000000400000000")

type Pdv = tuple[int, int, bytes]
"""Context ID, message control header, content."""


def associate_request(
    contexts: Sequence[tuple[str, Sequence[str]]] = DEFAULT_CONTEXTS,
    calling: str = "RAW",
    called: str = "ANY",
    max_pdu: int = 16384,
    items: Sequence[Any] = (),
) -> bytes:
    """An A-ASSOCIATE-RQ; contexts get the IDs 1, 3, 5 ..."""
    request = A_ASSOCIATE()
    request.application_context_name = UID("1.2.840.10008.3.1.1.1")
    request.calling_ae_title = calling
    request.called_ae_title = called
    proposals = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in contexts]
    for index, proposal in enumerate(proposals):
        proposal.context_id = 2 * index + 1
    request.presentation_context_definition_list = proposals
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = max_pdu
    implementation.implementation_class_uid = UID("2.25.1")
    request.user_information = [length, implementation, *items]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return pdu.encode()


def store_command(instance: str = "2.25.77", sop_class: str = CT, message_id: int = 7) -> bytes:
    """The command set of a C-STORE-RQ."""
    primitive = C_STORE()
    primitive.MessageID = message_id
    primitive.AffectedSOPClassUID = UID(sop_class)
    primitive.AffectedSOPInstanceUID = UID(instance)
    primitive.Priority = 0
    primitive.DataSet = BytesIO(b"there is one")
    return _encoded(C_STORE_RQ(), primitive)


def echo_command(message_id: int = 9) -> bytes:
    """The command set of a C-ECHO-RQ."""
    primitive = C_ECHO()
    primitive.MessageID = message_id
    primitive.AffectedSOPClassUID = UID(VERIFICATION)
    return _encoded(C_ECHO_RQ(), primitive)


def action_command(message_id: int = 11, *, has_dataset: bool = True) -> bytes:
    """The command set of an N-ACTION-RQ for storage commitment."""
    primitive = N_ACTION()
    primitive.MessageID = message_id
    primitive.RequestedSOPClassUID = UID("1.2.840.10008.1.20.1")
    primitive.RequestedSOPInstanceUID = UID("1.2.840.10008.1.20.1.1")
    primitive.ActionTypeID = 1
    primitive.ActionInformation = BytesIO(b"there is one") if has_dataset else None
    return _encoded(N_ACTION_RQ(), primitive)


def p_data(*pdvs: Pdv) -> bytes:
    """One P-DATA-TF of these PDVs."""
    primitive = P_DATA()
    items: Any = [[context_id, bytes([control]) + content] for context_id, control, content in pdvs]
    primitive.presentation_data_value_list = items
    pdu = P_DATA_TF()
    pdu.from_primitive(primitive)
    return pdu.encode()


def store_message(data: bytes, context_id: int = 1, instance: str = "2.25.77") -> bytes:
    """A C-STORE-RQ in two PDUs."""
    return p_data((context_id, COMMAND | LAST, store_command(instance))) + p_data(
        (context_id, LAST, data)
    )


class RawPeer:
    """One connection to a node. Closed on leaving the ``with`` block."""

    def __init__(self, address: tuple[str, int], *, source: str = "") -> None:
        self.socket = socket.create_connection(address, timeout=10, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def associate(self, request: bytes | None = None) -> A_ASSOCIATE_AC:
        """Send an A-ASSOCIATE-RQ, expect an A-ASSOCIATE-AC."""
        self.send(request or associate_request())
        encoded = self.read_pdu()
        assert encoded[0] == 2, encoded.hex()
        accept = A_ASSOCIATE_AC()
        accept.decode(encoded)
        return accept

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_pdu(self) -> bytes:
        """One whole PDU; empty when the node has closed the connection."""
        header = self._read(6)
        return header + self._read(int.from_bytes(header[2:], "big")) if header else b""

    def read_response(self) -> Dataset:
        """The command set of the next message, which has no dataset."""
        command = b""
        while True:
            pdu = self.read_pdu()
            assert pdu[:1] == b"\x04", pdu.hex()
            assert len(pdu) == 6 + 4 + int.from_bytes(pdu[6:10], "big")
            command += pdu[12:]
            if pdu[11] & LAST:
                return decode(BytesIO(command), True, True)

    def release(self) -> None:
        self.send(RELEASE_RQ)
        assert self.read_pdu() == RELEASE_RP

    def read_until_closed(self) -> list[bytes]:
        """The PDUs that still come before the node closes the connection."""
        pdus = []
        try:
            while pdu := self.read_pdu():
                pdus.append(pdu)
        except ConnectionResetError:
            pass
        return pdus

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                break
            data += more
        return bytes(data)


def _encoded(message: DIMSEMessage, primitive: C_STORE | C_ECHO | N_ACTION) -> bytes:
    message.primitive_to_message(primitive)
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    return encoded
