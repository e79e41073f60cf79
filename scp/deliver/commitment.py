"""Storage commitment as the one who calls: to ask for it, and to report it (PS3.4 annex J)."""

import logging
import time
from collections.abc import Callable
from typing import Final

from scp.commitment import (
    PUSH_MODEL,
    CommitmentReport,
    CommitmentRequest,
    decode_report,
    encode_report,
    encode_request,
)
from scp.config.schema import DicomDestination
from scp.deliver.connect import limit_waiting
from scp.deliver.messages import (
    PDU_HEADER_BYTES,
    Command,
    Event,
    PduType,
    Response,
    action_request,
    event_report_request,
    event_report_response,
    fragmented_command,
    fragmented_dataset,
    has_dataset,
    pdvs,
)
from scp.deliver.negotiation import Proposal
from scp.deliver.scu import IMPLICIT_LITTLE, Association, associate_as
from scp.errors import (
    DeliveryError,
    MalformedError,
    PeerRejectedError,
    PeerUnavailableError,
    ScpError,
)

logger = logging.getLogger(__name__)

PROPOSALS: Final = (
    Proposal(PUSH_MODEL, "1.2.840.10008.1.2.1"),
    Proposal(PUSH_MODEL, IMPLICIT_LITTLE),
)
MAX_MESSAGE_BYTES: Final = 4 * 2**20
ALREADY_ASKED: Final = (0x0131, 0x0210)
"""Duplicate transaction or invocation: an earlier attempt got through, and its answer was lost."""

_PROCESSING_FAILURE: Final = 0x0110


class CommitmentAssociation(Association):
    """An association for the two operations of the service."""

    _early: tuple[int, bytearray] | None = None
    """A report that came before the answer to its request."""

    @property
    def proposal(self) -> Proposal:
        """The accepted context.

        Raises
        ------
        PeerRejectedError
            There is none.
        """
        for proposal in PROPOSALS:
            if proposal in self.contexts:
                return proposal
        raise PeerRejectedError("the peer does not take storage commitment on this association")

    def ask(self, request: CommitmentRequest) -> int:
        """N-ACTION; returns the status of its answer."""
        dataset = encode_request(request, self.proposal.transfer_syntax)
        return self._operate(action_request, dataset, Command.N_ACTION_RSP)

    def report(self, report: CommitmentReport) -> int:
        """N-EVENT-REPORT; returns the status of its answer."""
        return self._operate(
            lambda message_id: event_report_request(message_id, report.event_type),
            encode_report(report, self.proposal.transfer_syntax),
            Command.N_EVENT_REPORT_RSP,
        )

    def await_report(
        self, seconds: float, take: Callable[[CommitmentReport], None]
    ) -> CommitmentReport | None:
        """Wait for the peer to report on the same association, as some do; None: it did not.

        ``take`` has made the report durable when it returns.
        """
        deadline = time.monotonic() + seconds
        limit_waiting(self._socket, seconds)
        try:
            message_id, dataset = self._next_event(deadline)
        except PeerUnavailableError as error:
            logger.debug("no report on the same association: %s", error)
            return None
        report: CommitmentReport | None = None
        try:
            report = decode_report(dataset, self.proposal.transfer_syntax)
            take(report)
        except ScpError as error:
            logger.warning("a report of storage commitment was refused: %s", error)
            report = None
        answer = event_report_response(message_id, _PROCESSING_FAILURE if report is None else 0)
        pdus = fragmented_command(answer, self.contexts[self.proposal], self._chunk)
        self._send([pdus], deadline)
        return report

    def _operate(self, command: Callable[[int], bytes], dataset: bytes, answer: Command) -> int:
        context = self.contexts[self.proposal]
        message_id = self._next_message_id()
        deadline = time.monotonic() + self._answer_seconds
        self._send(
            [
                fragmented_command(command(message_id), context, self._chunk),
                fragmented_dataset(dataset, context, self._chunk),
            ],
            deadline,
        )
        while True:
            encoded, event_dataset = self._next_message(deadline)
            try:
                if Event.is_one(encoded):
                    # Some peers report first and answer then.
                    self._early = (Event(encoded).message_id, event_dataset)
                    continue
                response = Response(encoded)
            except MalformedError as error:
                raise _senseless(error) from error
            if response.command != answer or response.message_id != message_id:
                raise _senseless("it belongs to another request")
            return response.status

    def _next_event(self, deadline: float) -> tuple[int, bytearray]:
        """The message ID and the dataset of the next N-EVENT-REPORT-RQ."""
        if self._early is not None:
            early, self._early = self._early, None
            return early
        encoded, dataset = self._next_message(deadline)
        try:
            if not Event.is_one(encoded):
                raise MalformedError("a command that is no N-EVENT-REPORT")
            return Event(encoded).message_id, dataset
        except MalformedError as error:
            raise _senseless(error) from error

    def _next_message(self, deadline: float) -> tuple[bytearray, bytearray]:
        """Command set and dataset of the next message, fragmented in any way."""
        command, dataset = bytearray(), bytearray()
        is_command_whole = False
        while True:
            kind, pdu = self._next_pdu(deadline)
            if kind != PduType.P_DATA:
                raise self._ended(kind)
            if len(command) + len(dataset) + len(pdu) > MAX_MESSAGE_BYTES:
                raise PeerUnavailableError("the peer's message is too long")
            try:
                for is_command, is_last, data in pdvs(pdu[PDU_HEADER_BYTES:]):
                    if is_command == is_command_whole:
                        raise MalformedError("command and dataset are mixed up")
                    if is_command:
                        command += data
                        is_command_whole = is_last
                        if is_last and not has_dataset(command):
                            return command, dataset
                    else:
                        dataset += data
                        if is_last:
                            return command, dataset
            except MalformedError as error:
                raise _senseless(error) from error


def _senseless(why: object) -> PeerUnavailableError:
    return PeerUnavailableError(f"the peer's message makes no sense: {why}")


def ask_for_commitment(
    section: DicomDestination,
    request: CommitmentRequest,
    take: Callable[[CommitmentReport], None],
    wait_seconds: float,
) -> None:
    """Ask a peer to vouch for instances; its report may come here, within ``wait_seconds``, or later.

    Raises
    ------
    PeerUnavailableError
        Nothing can be said of the peer: to be tried again.
    PeerRejectedError
        It said no.
    """
    with associate_as(CommitmentAssociation, section, PROPOSALS) as association:
        status = association.ask(request)
        if status and status not in ALREADY_ASKED:
            raise PeerRejectedError(f"the peer answers N-ACTION with {status:04X}")
        association.await_report(wait_seconds, take)
        association.release()


def report_commitment(section: DicomDestination, report: CommitmentReport) -> None:
    """Report to a peer what has become of the instances it asked for.

    Raises
    ------
    PeerUnavailableError, DeliveryError
        It was not told, or did not understand: to be tried again.
    """
    with associate_as(CommitmentAssociation, section, PROPOSALS, [PUSH_MODEL]) as association:
        status = association.report(report)
        association.release()
    if status:
        raise DeliveryError(f"the peer answers N-EVENT-REPORT with {status:04X}")
