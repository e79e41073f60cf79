"""The messages of an established association: commands, data, answers (PS3.7, PS3.8 Annex E)."""

import logging
from dataclasses import dataclass
from typing import Final

from scp.accept.audit import Account
from scp.accept.commands import (
    IS_COMMAND,
    IS_LAST,
    MAX_COMMAND_BYTES,
    Command,
    CommandField,
    decode_command,
    encode_command_pdus,
    encode_response,
)
from scp.accept.commitment import CommitmentService, Operation
from scp.accept.ports import InstanceStore
from scp.accept.reader import PduReader
from scp.accept.reception import Reception
from scp.accept.statuses import OperationStatus, StoreStatus
from scp.config.schema import LimitsSection
from scp.errors import AssociationError, MalformedError
from scp.model import Origin, StoreRequest

logger = logging.getLogger(__name__)

_MOST_PIECES: Final = 64
"""Of datasets, kept until they are written; a peer may send PDVs of one byte, or bytes one by one."""

INVALID_PARAMETER: Final = 0x06
"""Reason of a provider's A-ABORT: invalid PDU parameter value (PS3.8 Table 9-26)."""

_COMMITMENT: Final = (CommandField.N_ACTION_RQ, CommandField.N_EVENT_REPORT_RQ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiated:
    """What both sides have agreed on."""

    origin: Origin
    syntaxes: dict[int, str]
    """Transfer syntaxes by the ID of their presentation context."""
    peer_max_pdu_bytes: int
    """0: no limit."""


class Messages:
    """Reads P-DATA-TF PDUs, gives instances to the store and answers.

    PDVs are followed as they come, whatever way the peer cuts messages into PDVs and PDVs into
    PDUs; no instance is ever held in memory.
    """

    def __init__(
        self,
        negotiated: Negotiated,
        store: InstanceStore,
        limits: LimitsSection,
        reader: PduReader,
        account: Account,
        commitments: CommitmentService | None = None,
    ) -> None:
        self._commitments = commitments
        self._negotiated = negotiated
        self._store = store
        self._limits = limits
        self._reader = reader
        self._account = account
        self._context_id = 0
        self._command_set = bytearray()
        self._pieces: list[memoryview] = []
        self._current: tuple[Command, Reception | Operation] | None = None
        reader.before_refill = self._make_way

    @property
    def is_receiving(self) -> bool:
        """Whether an instance is begun and not answered."""
        return self._current is not None

    def receive(self, left: int) -> None:
        """Read the body of one P-DATA-TF, ``left`` bytes, and act on what became complete.

        Raises
        ------
        AssociationError
            The peer broke the protocol or a limit, or as :class:`PduReader`'s methods.
        """
        if not 6 <= left <= self._limits.max_pdu_bytes:
            raise AssociationError(f"a P-DATA-TF PDU of {left} bytes", INVALID_PARAMETER)
        while left:
            length, context_id, control = self._reader.pdv_header() if left >= 6 else (0, 0, 0)
            left -= 4 + length
            if length < 2 or left < 0:
                raise AssociationError("a PDV that does not fit its PDU", INVALID_PARAMETER)
            if control & IS_COMMAND:
                self._receive_command(length - 2, context_id, bool(control & IS_LAST))
            else:
                self._receive_data(length - 2, context_id, bool(control & IS_LAST))

    def abandon(self) -> None:
        """Forget an instance that is not complete."""
        self._pieces.clear()
        if self._current is not None:
            self._current[1].abandon()
            self._current = None

    def _receive_command(self, length: int, context_id: int, is_last: bool) -> None:
        if self._current is not None:
            raise AssociationError("a command inside of a dataset")
        if context_id not in self._negotiated.syntaxes:
            raise AssociationError("a context that was not accepted", INVALID_PARAMETER)
        if self._command_set and context_id != self._context_id:
            raise AssociationError("a command in two contexts", INVALID_PARAMETER)
        if len(self._command_set) + length > MAX_COMMAND_BYTES:
            raise AssociationError("a command set that is too long", INVALID_PARAMETER)
        self._context_id = context_id
        self._command_set += self._reader.take_all(length)
        if is_last:
            try:
                command = decode_command(self._command_set)
            except MalformedError as error:
                raise AssociationError(str(error), INVALID_PARAMETER) from error
            self._command_set.clear()
            self._act_on(command)

    def _act_on(self, command: Command) -> None:
        if command.field == CommandField.C_STORE_RQ and command.has_dataset:
            request = StoreRequest(
                origin=self._negotiated.origin,
                sop_class_uid=command.sop_class_uid,
                sop_instance_uid=command.sop_instance_uid,
                transfer_syntax=self._negotiated.syntaxes[self._context_id],
            )
            reception = Reception(self._store, request, self._limits.max_instance_bytes)
            self._current = (command, reception)
        elif command.field == CommandField.C_STORE_RQ:
            logger.warning("instance refused with C000: a C-STORE without a dataset")
            self._account.refused += 1
            self._answer(command, StoreStatus.CANNOT_UNDERSTAND)
        elif command.field == CommandField.C_ECHO_RQ:
            self._answer(command, StoreStatus.SUCCESS)
        elif self._commitments is not None and command.field in _COMMITMENT:
            operation = self._commitments.begin(
                command, self._negotiated.origin, self._negotiated.syntaxes[self._context_id]
            )
            if command.has_dataset:
                self._current = (command, operation)
            else:
                self._answer(command, operation.finish())
        elif command.field != CommandField.C_CANCEL_RQ:  # which finds nothing to cancel here
            raise AssociationError(f"command field {command.field:04X} is not served")

    def _receive_data(self, length: int, context_id: int, is_last: bool) -> None:
        if self._current is None:
            raise AssociationError("data without a command")
        if context_id != self._context_id:
            raise AssociationError("a dataset in two contexts", INVALID_PARAMETER)
        pieces = self._pieces
        while length:
            piece = self._reader.take(length)
            length -= len(piece)
            pieces.append(piece)
            if len(pieces) >= _MOST_PIECES:
                self._make_way(is_full=True)
        if is_last:
            command, reception = self._current
            status = reception.finish(*pieces)
            pieces.clear()
            self._current = None
            if status != StoreStatus.SUCCESS:
                self._account.refused += 1
            elif isinstance(reception, Reception):
                self._account.instances += 1
                self._account.dataset_bytes += reception.received_bytes
            try:
                self._answer(command, status)
            finally:
                reception.tidy()

    def _make_way(self, is_full: bool) -> bool:
        """Hand on what lies in the reader's buffer, once that is full: one write takes several PDVs.

        At once until it is known what series an instance is of, which is to stay open meanwhile.
        Returns whether the buffer is free.
        """
        if self._current is None or not self._pieces:
            return True
        reception = self._current[1]
        if not is_full and reception.may_gather:
            return False
        reception.write(*self._pieces)
        self._pieces.clear()
        return True

    def _answer(self, command: Command, status: StoreStatus | OperationStatus) -> None:
        response = encode_response(command, status)
        self._reader.send(
            encode_command_pdus(self._context_id, response, self._negotiated.peer_max_pdu_bytes)
        )
