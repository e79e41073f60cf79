"""Encodes and decodes what an association carries after its negotiation: commands, PDVs, PDUs.

Commands: PS3.7 section 6.3 and annex E; PDUs: PS3.8 section 9.3.
"""

from enum import IntEnum
from struct import Struct, error, pack
from typing import Final

from scp.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, REQUEST_ACTION
from scp.errors import MalformedError

VERIFICATION: Final = "1.2.840.10008.1.1"
_NO_DATASET: Final = 0x0101
_PDU_AND_PDV: Final = Struct(">BxLLBB")
_PDU: Final = Struct(">BxL")
_PDV: Final = Struct(">LBB")
_ELEMENT: Final = Struct("<HHL")

PDU_HEADER_BYTES: Final = _PDU.size
PDV_HEADER_BYTES: Final = _PDV.size


class PduType(IntEnum):
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class Command(IntEnum):
    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_ACTION_RQ = 0x0130
    N_ACTION_RSP = 0x8130


RELEASE_REQUEST: Final = pack(">BxL4x", PduType.RELEASE_RQ, 4)
RELEASE_REPLY: Final = pack(">BxL4x", PduType.RELEASE_RP, 4)
ABORT: Final = pack(">BxLxxBB", PduType.ABORT, 4, 0, 0)


def store_request(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """The command set of a C-STORE-RQ of medium priority (PS3.7 9.3.1.1)."""
    return _command_set(
        _uid(0x0002, sop_class_uid)
        + _short(0x0100, Command.C_STORE_RQ)
        + _short(0x0110, message_id)
        + _short(0x0700, 0)
        + _short(0x0800, 1)
        + _uid(0x1000, sop_instance_uid)
    )


def echo_request(message_id: int) -> bytes:
    """The command set of a C-ECHO-RQ (PS3.7 9.3.5.1)."""
    return _command_set(
        _uid(0x0002, VERIFICATION)
        + _short(0x0100, Command.C_ECHO_RQ)
        + _short(0x0110, message_id)
        + _short(0x0800, _NO_DATASET)
    )


def action_request(message_id: int) -> bytes:
    """The command set of an N-ACTION-RQ that asks for storage commitment (PS3.7 10.3.4.1)."""
    return _command_set(
        _uid(0x0003, PUSH_MODEL)
        + _short(0x0100, Command.N_ACTION_RQ)
        + _short(0x0110, message_id)
        + _short(0x0800, 1)
        + _uid(0x1001, PUSH_MODEL_INSTANCE)
        + _short(0x1008, REQUEST_ACTION)
    )


def event_report_request(message_id: int, event_type: int) -> bytes:
    """The command set of an N-EVENT-REPORT-RQ about storage commitment (PS3.7 10.3.1.1)."""
    return _command_set(
        _uid(0x0002, PUSH_MODEL)
        + _short(0x0100, Command.N_EVENT_REPORT_RQ)
        + _short(0x0110, message_id)
        + _short(0x0800, 1)
        + _uid(0x1000, PUSH_MODEL_INSTANCE)
        + _short(0x1002, event_type)
    )


def event_report_response(message_id: int, status: int) -> bytes:
    """The command set of an N-EVENT-REPORT-RSP (PS3.7 10.3.1.2)."""
    return _command_set(
        _uid(0x0002, PUSH_MODEL)
        + _short(0x0100, Command.N_EVENT_REPORT_RSP)
        + _short(0x0120, message_id)
        + _short(0x0800, _NO_DATASET)
        + _short(0x0900, status)
        + _uid(0x1000, PUSH_MODEL_INSTANCE)
    )


class Event:
    """The command set of an N-EVENT-REPORT-RQ."""

    def __init__(self, encoded: bytes | bytearray) -> None:
        """Decode it.

        Raises
        ------
        MalformedError
            It is none, or has no dataset.
        """
        values = _numbers(encoded)
        if 0x0110 not in values or values.get(0x0800, _NO_DATASET) == _NO_DATASET:
            raise MalformedError("a report without a message ID or a dataset")
        self.message_id = values[0x0110]

    @staticmethod
    def is_one(encoded: bytes | bytearray) -> bool:
        """Whether the command set is of that kind."""
        return _numbers(encoded).get(0x0100) == Command.N_EVENT_REPORT_RQ


def has_dataset(encoded: bytes | bytearray) -> bool:
    """Whether a dataset follows a command set."""
    return _numbers(encoded).get(0x0800, _NO_DATASET) != _NO_DATASET


class Response:
    """The command set of an answer."""

    def __init__(self, encoded: bytes | bytearray) -> None:
        """Decode it.

        Raises
        ------
        MalformedError
            It is no command set, or lacks the elements of an answer.
        """
        values = _numbers(encoded)
        try:
            self.command = values[0x0100]
            self.message_id = values[0x0120]
            self.status = values[0x0900]
            self.has_dataset = values.get(0x0800, _NO_DATASET) != _NO_DATASET
        except KeyError as cause:
            raise MalformedError("an answer that is no command set") from cause


def _numbers(encoded: bytes | bytearray) -> dict[int, int]:
    """The elements of a command set that are numbers of two bytes."""
    values: dict[int, int] = {}
    position = 0
    try:
        while position < len(encoded):
            group, element, length = _ELEMENT.unpack_from(encoded, position)
            position += _ELEMENT.size
            if group == 0 and length == 2:
                values[element] = int.from_bytes(encoded[position : position + 2], "little")
            position += length
    except error as cause:
        raise MalformedError("an answer that is no command set") from cause
    if position != len(encoded):
        raise MalformedError("a command set ends inside an element")
    return values


def split_pdu_header(data: bytes | bytearray) -> tuple[int, int]:
    """(type, length of what follows) of a PDU."""
    kind, length = _PDU.unpack_from(data)
    return kind, length


def fragment_header(context_id: int, length: int, *, is_command: bool, is_last: bool) -> bytes:
    """The headers of a P-DATA-TF PDU with one PDV of ``length`` bytes (PS3.8 9.3.5 and annex E)."""
    flags = int(is_command) | int(is_last) << 1
    return _PDU_AND_PDV.pack(PduType.P_DATA, length + 6, length + 2, context_id, flags)


def fragmented_command(command: bytes, context_id: int, chunk: int) -> bytes:
    """Whole PDUs with ``command`` in PDVs of at most ``chunk`` bytes."""
    return _fragmented(command, context_id, chunk, is_command=True)


def fragmented_dataset(dataset: bytes, context_id: int, chunk: int) -> bytes:
    """Whole PDUs with ``dataset`` in PDVs of at most ``chunk`` bytes."""
    return _fragmented(dataset, context_id, chunk, is_command=False)


def _fragmented(message: bytes, context_id: int, chunk: int, *, is_command: bool) -> bytes:
    parts = []
    for start in range(0, len(message), chunk):
        part = message[start : start + chunk]
        is_last = start + chunk >= len(message)
        parts.append(fragment_header(context_id, len(part), is_command=is_command, is_last=is_last))
        parts.append(part)
    return b"".join(parts)


def pdvs(body: bytes) -> list[tuple[bool, bool, bytes]]:
    """(is command, is last, bytes) of each PDV of a P-DATA-TF.

    Raises
    ------
    MalformedError
        The lengths do not fit.
    """
    found = []
    position = 0
    while position < len(body):
        if position + _PDV.size > len(body):
            raise MalformedError("a PDU ends inside a PDV header")
        length, _, flags = _PDV.unpack_from(body, position)
        end = position + 4 + length
        if length < 2 or end > len(body):
            raise MalformedError("the length of a PDV does not fit its PDU")
        found.append((bool(flags & 1), bool(flags & 2), body[position + _PDV.size : end]))
        position = end
    return found


def _command_set(elements: bytes) -> bytes:
    return pack("<HHLL", 0, 0, 4, len(elements)) + elements


def _short(element: int, value: int) -> bytes:
    return pack("<HHLH", 0, element, 2, value)


def _uid(element: int, value: str) -> bytes:
    encoded = value.encode("ascii")
    encoded += b"\0" * (len(encoded) % 2)
    return _ELEMENT.pack(0, element, len(encoded)) + encoded
