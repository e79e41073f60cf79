"""The association request and its answer (PS3.8 9.3.2 to 9.3.4), by pynetdicom's classes."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from struct import error as struct_error
from typing import Final, NamedTuple

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from scp.deliver.verdicts import rejection_error
from scp.errors import PeerRejectedError, PeerUnavailableError
from scp.model import IMPLEMENTATION_CLASS_UID

MAX_CONTEXTS: Final = 128
"""Odd numbers below 256 (PS3.8 9.3.2.2)."""
MAX_RECEIVED_PDU: Final = 16384
"""Announced: answers are short."""

_APPLICATION_CONTEXT: Final = UID("1.2.840.10008.3.1.1.1")
_IMPLEMENTATION_CLASS: Final = UID(IMPLEMENTATION_CLASS_UID)
_DEFAULT_PDU: Final = 16384
_NOT_SUPPORTED: Final = (3, 4)
"""Abstract syntax, transfer syntaxes (PS3.8 table 9-18); other refusals may pass."""
_UID: Final = re.compile(r"[0-9.]{1,64}")
_DECODING_FAULTS: Final = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    TypeError,
    ValueError,
    struct_error,
)


class Proposal(NamedTuple):
    """One presentation context: one transfer syntax, so that the answer leaves no choice."""

    sop_class_uid: str
    transfer_syntax: str

    @property
    def is_encodable(self) -> bool:
        return bool(_UID.fullmatch(self.sop_class_uid) and _UID.fullmatch(self.transfer_syntax))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What the peer agreed to."""

    contexts: Mapping[Proposal, int]
    """Context numbers of the accepted proposals."""
    refused: Collection[Proposal]
    """Those that the peer's implementation does not support, whatever the occasion."""
    max_pdu: int
    """The longest P-DATA-TF that the peer takes, headers of the PDU not counted; 0: any."""


def encode_request(
    called: str, calling: str, proposals: Sequence[Proposal], provider_of: Collection[str] = ()
) -> bytes:
    """The A-ASSOCIATE-RQ; proposal n has context number 2n+1.

    For the SOP classes in ``provider_of`` it asks for the role of the SCP (PS3.7 D.3.3.4).
    """
    request = A_ASSOCIATE()
    request.application_context_name = _APPLICATION_CONTEXT
    request.calling_ae_title = calling
    request.called_ae_title = called
    contexts = []
    for index, proposal in enumerate(proposals):
        context = PresentationContext()
        context.context_id = 2 * index + 1
        context.abstract_syntax = UID(proposal.sop_class_uid)
        context.add_transfer_syntax(UID(proposal.transfer_syntax))
        contexts.append(context)
    request.presentation_context_definition_list = contexts
    length = MaximumLengthNotification()
    length.maximum_length_received = MAX_RECEIVED_PDU
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = _IMPLEMENTATION_CLASS
    name = ImplementationVersionNameNotification()
    name.implementation_version_name = "DCMPRESS"
    roles = []
    for sop_class_uid in provider_of:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid = UID(sop_class_uid)
        role.scu_role, role.scp_role = False, True
        roles.append(role)
    request.user_information = [length, implementation, name, *roles]
    return A_ASSOCIATE_RQ(request).encode()


def decode_acceptance(pdu: bytes, proposals: Sequence[Proposal]) -> Accepted:
    """Read an A-ASSOCIATE-AC.

    A context that the peer answers with another syntax than the proposed one counts as refused.

    Raises
    ------
    PeerUnavailableError
        It makes no sense.
    """
    answer = A_ASSOCIATE_AC()
    contexts: dict[Proposal, int] = {}
    refused: list[Proposal] = []
    try:
        answer.decode(pdu)
        for item in answer.presentation_context:
            index = (item.context_id or 0) // 2
            if item.result in _NOT_SUPPORTED and index < len(proposals):
                refused.append(proposals[index])
            if item.result == 0 and index < len(proposals):
                proposal = proposals[index]
                if item.transfer_syntax == proposal.transfer_syntax:
                    contexts[proposal] = 2 * index + 1
        user = answer.user_information
        announced = user.maximum_length if user else None
    except _DECODING_FAULTS as error:
        raise PeerUnavailableError("the peer's A-ASSOCIATE-AC cannot be read") from error
    max_pdu = _DEFAULT_PDU if announced is None else announced
    return Accepted(contexts=contexts, refused=refused, max_pdu=max_pdu)


def rejection(pdu: bytes) -> PeerRejectedError | PeerUnavailableError:
    """The error that an A-ASSOCIATE-RJ amounts to (PS3.8 table 9-21)."""
    answer = A_ASSOCIATE_RJ()
    try:
        answer.decode(pdu)
    except _DECODING_FAULTS:
        return PeerUnavailableError("the peer's A-ASSOCIATE-RJ cannot be read")
    numbers = (answer.result or 0, answer.source or 0, answer.reason_diagnostic or 0)
    return rejection_error(*numbers)
