"""Storage commitment on an association: what peers ask for, and what they report (PS3.4 annex J)."""

import ipaddress
import logging
import threading
from collections.abc import Callable
from typing import Final

from scp.accept.commands import Command, CommandField
from scp.accept.ports import CommitmentDesk
from scp.accept.room import Room
from scp.accept.statuses import OperationStatus, operation_status_for
from scp.commitment import (
    ALL_COMMITTED,
    FAILURES_EXIST,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_ACTION,
    decode_report,
    decode_request,
)
from scp.config.schema import AccessSection, ReportTo
from scp.errors import CommitmentRefusedError, ScpError, StorageFullError
from scp.model import Origin

logger = logging.getLogger(__name__)

MAX_DATASET_BYTES: Final = 4 * 2**20
"""For what one operation names: 30,000 instances and more. A longer one is refused."""

MAX_HELD_BYTES: Final = 2 * MAX_DATASET_BYTES
"""Of all operations on their way into a receiver. One that finds no room in it is refused, unless
another has been at it for too long."""


class CommitmentService:
    """What all associations share. Used by many at once."""

    def __init__(self, desk: CommitmentDesk, access: AccessSection, *, is_offered: bool) -> None:
        self._desk = desk
        self._access = access
        self._is_offered = is_offered
        self.room = Room(MAX_HELD_BYTES)
        self._taking = threading.Lock()

    def begin(self, command: Command, origin: Origin, transfer_syntax: str) -> "Operation":
        """One N-ACTION or N-EVENT-REPORT whose dataset comes next."""
        return Operation(self, command, origin, transfer_syntax)

    def admit(self, command: Command, origin: Origin) -> None:
        """Refuse with :class:`CommitmentRefusedError` what needs no dataset to be refused."""
        if command.field == CommandField.N_EVENT_REPORT_RQ:
            return
        if not self._is_offered:
            raise CommitmentRefusedError("storage commitment is not offered: commit.when is never")
        if report_to(self._access, origin) is None:
            raise CommitmentRefusedError(
                f"nobody knows where to report to {origin.calling_ae_title} at "
                f"{origin.peer_address}: give it a report_to in access.peers"
            )

    def take(
        self, command: Command, origin: Origin, dataset: bytes | bytearray, transfer_syntax: str
    ) -> None:
        """Keep what an operation says; on return it is durable."""
        # One at a time: decoded, a dataset takes up to seven times its room.
        with self._taking:
            if command.field == CommandField.N_EVENT_REPORT_RQ:
                self._desk.take_report(origin, decode_report(dataset, transfer_syntax))
            else:
                self._desk.take_request(origin, decode_request(dataset, transfer_syntax))


class Operation:
    """The dataset of one operation on its way in, held in memory up to a bound.

    Once it is refused, the rest is dropped as it comes: the peer learns the status only when it has
    sent everything.
    """

    may_gather = False
    """What it holds is to count at once."""

    def __init__(
        self, service: CommitmentService, command: Command, origin: Origin, transfer_syntax: str
    ) -> None:
        self._service = service
        self._command = command
        self._origin = origin
        self._transfer_syntax = transfer_syntax
        self._share = service.room.begin()
        self._status = self._fault() or OperationStatus.SUCCESS
        self.received_bytes = 0
        if self._status != OperationStatus.SUCCESS:
            logger.warning("%s refused with %04X", self._name, self._status)
        else:
            self._attempt(service.admit, command, origin)

    def write(self, *pieces: memoryview) -> None:
        """Take the next bytes of the dataset."""
        self.received_bytes += sum(map(len, pieces))
        if self._status == OperationStatus.SUCCESS:
            self._attempt(self._hold, *pieces)

    def finish(self, *pieces: memoryview) -> OperationStatus:
        """Take the last bytes and keep it, unless it was refused; on return the status may be sent."""
        self.write(*pieces)
        if self._status == OperationStatus.SUCCESS:
            self._attempt(self._take)
        self.abandon()
        return self._status

    def tidy(self) -> None:
        """Nothing is left to do after the answer."""

    def abandon(self) -> None:
        """Forget what is held."""
        self._service.room.free(self._share)

    def _hold(self, *pieces: memoryview) -> None:
        if self.received_bytes > MAX_DATASET_BYTES:
            raise StorageFullError(f"a dataset of more than {MAX_DATASET_BYTES} bytes")
        self._service.room.add(self._share, *pieces)

    def _take(self) -> None:
        dataset = self._service.room.complete(self._share)
        self._service.take(self._command, self._origin, dataset, self._transfer_syntax)

    def _attempt[**P](self, action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            action(*args, **kwargs)
        except Exception as error:
            self._status = operation_status_for(error)
            if not isinstance(error, ScpError):
                logger.exception("storage commitment failed in an unexpected way")
            logger.warning(
                *("%s refused with %04X: %s: %.200s", self._name, self._status),
                *(type(error).__name__, error),
            )
            self.abandon()

    @property
    def _name(self) -> str:
        return "N-ACTION" if self._command.field == CommandField.N_ACTION_RQ else "N-EVENT-REPORT"

    def _fault(self) -> OperationStatus | None:
        """What is wrong with the command itself."""
        command = self._command
        if command.sop_class_uid != PUSH_MODEL:
            return OperationStatus.NO_SUCH_CLASS
        if command.sop_instance_uid != PUSH_MODEL_INSTANCE:
            return OperationStatus.NO_SUCH_INSTANCE
        if command.field == CommandField.N_ACTION_RQ:
            return None if command.type_id == REQUEST_ACTION else OperationStatus.NO_SUCH_ACTION
        is_known = command.type_id in (ALL_COMMITTED, FAILURES_EXIST)
        return None if is_known else OperationStatus.NO_SUCH_EVENT_TYPE


def report_to(access: AccessSection, origin: Origin) -> ReportTo | None:
    """Where the peer that associated as ``origin`` listens for reports; None: nobody has said."""
    address = ipaddress.ip_address(origin.peer_address)
    for peer in access.peers:
        if peer.report_to is None or peer.ae_title != origin.calling_ae_title:
            continue
        if not peer.address or address in ipaddress.ip_network(peer.address, strict=False):
            return peer.report_to
    return None
