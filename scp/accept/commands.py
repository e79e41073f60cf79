"""Command sets (PS3.7 6.3.1), as far as Verification, Storage and Storage Commitment need them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from scp.errors import MalformedError

MAX_COMMAND_BYTES: Final = 2**14
"""For one command set. Those that conform stay below 1 KiB: two UIDs, two titles, some numbers."""

IS_COMMAND: Final = 0x01
IS_LAST: Final = 0x02
"""Bits of a message control header (PS3.8 E.2)."""

_NO_DATASET: Final = 0x0101
_RESPONSE: Final = 0x8000

_ELEMENT: Final = Struct("<HHL")
_ELEMENT_BYTES: Final = _ELEMENT.size
_SHORT: Final = Struct("<H")
_SHORT_ELEMENT: Final = Struct("<HHLH")
_GROUP_LENGTH: Final = Struct("<HHLL")
_PDU: Final = Struct(">BxLLBB")

_SOP_CLASS: Final = 0x0002
_REQUESTED_SOP_CLASS: Final = 0x0003
_FIELD: Final = 0x0100
_MESSAGE_ID: Final = 0x0110
_MESSAGE_ID_ANSWERED: Final = 0x0120
_DATASET_TYPE: Final = 0x0800
_STATUS: Final = 0x0900
_SOP_INSTANCE: Final = 0x1000
_REQUESTED_SOP_INSTANCE: Final = 0x1001
_EVENT_TYPE: Final = 0x1002
_ACTION_TYPE: Final = 0x1008


class CommandField(IntEnum):
    """The requests that are served (PS3.7 Annex E)."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    N_ACTION_RQ = 0x0130
    C_CANCEL_RQ = 0x0FFF


_TYPE_IDS: Final[dict[int, int]] = {
    CommandField.N_EVENT_REPORT_RQ: _EVENT_TYPE,
    CommandField.N_ACTION_RQ: _ACTION_TYPE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One request's command set. UIDs are as they were sent, so that an answer repeats them."""

    field: int
    message_id: int
    has_dataset: bool
    sop_class: bytes
    """Affected or requested, as the message has it."""
    sop_instance: bytes
    type_id: int = 0
    """Action or Event Type ID."""

    @property
    def sop_class_uid(self) -> str:
        return _uid(self.sop_class)

    @property
    def sop_instance_uid(self) -> str:
        return _uid(self.sop_instance)


def decode_command(encoded: bytes | bytearray) -> Command:
    """Read a request's command set.

    Raises
    ------
    MalformedError
        It is cut off, has elements of other groups, or lacks what every request has.
    """
    encoded = bytes(encoded)
    size = len(encoded)
    values: dict[int, bytes] = {}
    offset = 0
    while offset < size:
        start = offset + _ELEMENT_BYTES
        if start > size:
            raise MalformedError("a command set ends inside an element")
        group, element, length = _ELEMENT.unpack_from(encoded, offset)
        offset = start + length
        if group != 0 or offset > size:
            raise MalformedError("a command set has an element that does not belong or fit there")
        values[element] = encoded[start:offset]
    field = _number(values, _FIELD)
    is_cancel = field == CommandField.C_CANCEL_RQ
    type_element = _TYPE_IDS.get(field)
    return Command(
        field=field,
        message_id=_number(values, _MESSAGE_ID_ANSWERED if is_cancel else _MESSAGE_ID),
        has_dataset=_number(values, _DATASET_TYPE) != _NO_DATASET,
        sop_class=values.get(_SOP_CLASS, values.get(_REQUESTED_SOP_CLASS, b"")),
        sop_instance=values.get(_SOP_INSTANCE, values.get(_REQUESTED_SOP_INSTANCE, b"")),
        type_id=_number(values, type_element) if type_element else 0,
    )


def encode_response(command: Command, status: int) -> bytes:
    """The command set that answers ``command`` (PS3.7 9.3.1.2, 9.3.5.2, 10.3.1.2 and 10.3.4.2)."""
    elements = b"".join(
        (
            _ELEMENT.pack(0, _SOP_CLASS, len(command.sop_class)) + command.sop_class
            if command.sop_class
            else b"",
            _SHORT_ELEMENT.pack(0, _FIELD, 2, command.field | _RESPONSE),
            _SHORT_ELEMENT.pack(0, _MESSAGE_ID_ANSWERED, 2, command.message_id),
            _SHORT_ELEMENT.pack(0, _DATASET_TYPE, 2, _NO_DATASET),
            _SHORT_ELEMENT.pack(0, _STATUS, 2, status),
            _ELEMENT.pack(0, _SOP_INSTANCE, len(command.sop_instance)) + command.sop_instance
            if command.sop_instance
            else b"",
        )
    )
    return _GROUP_LENGTH.pack(0, 0, 4, len(elements)) + elements


def encode_command_pdus(context_id: int, command_set: bytes, max_pdu_bytes: int) -> bytes:
    """P-DATA-TF PDUs (PS3.8 9.3.5) of one PDV each, as long as the peer takes; 0: no limit.

    Every fragment has an even number of bytes (PS3.8 E.1).
    """
    size = len(command_set)
    if not max_pdu_bytes or size + 6 <= max_pdu_bytes:
        return _PDU.pack(0x04, size + 6, size + 2, context_id, IS_COMMAND | IS_LAST) + command_set
    return b"".join(
        _PDU.pack(0x04, len(piece) + 6, len(piece) + 2, context_id, control) + piece
        for piece, control in _pieces(command_set, max(max_pdu_bytes - 6 & ~1, 2))
    )


def _pieces(command_set: bytes, most: int) -> Iterator[tuple[bytes, int]]:
    for start in range(0, len(command_set), most):
        is_last = start + most >= len(command_set)
        yield command_set[start : start + most], IS_COMMAND | (IS_LAST if is_last else 0)


def _number(values: dict[int, bytes], element: int) -> int:
    value = values.get(element, b"")
    if len(value) != 2:
        raise MalformedError(f"a command set has no proper (0000,{element:04X})")
    number: int = _SHORT.unpack(value)[0]
    return number


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")
