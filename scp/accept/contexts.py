"""Which presentation contexts are accepted, and with which transfer syntax.

Nothing is prepared for one association alone: the answer to a proposal is two look-ups in tables
that all associations share. The answers are written into the A-ASSOCIATE-AC here, because senders
propose 128 contexts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

from pydicom import config
from pydicom.uid import UID
from pynetdicom.presentation import (
    AllStoragePresentationContexts,
    MediaStoragePresentationContexts,
    NonPatientObjectPresentationContexts,
)

from scp.commitment import PUSH_MODEL

VERIFICATION: Final = "1.2.840.10008.1.1"
_IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"

_UNCOMPRESSED: Final = (
    "1.2.840.10008.1.2.1",
    _IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.2",
)
"""For what carries no pixels."""

PREFERENCE: Final = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    _IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 part 2, lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless, process 14
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.1.98",  # Encapsulated uncompressed
    "1.2.840.10008.1.2.4.110",  # JPEG XL lossless
    "1.2.840.10008.1.2.4.58",  # JPEG Lossless, process 15 and hierarchical, retired
    "1.2.840.10008.1.2.4.65",
    "1.2.840.10008.1.2.4.66",
    "1.2.840.10008.1.2.8.1",  # Deflated image frames
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian, retired
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
)
"""Whichever comes first here wins in its context. What is not here (lossy, private and unknown
syntaxes) is taken where a context offers nothing else, in the order of the proposal."""

ACCEPTED: Final = 0x00
ABSTRACT_SYNTAX_REFUSED: Final = 0x03
TRANSFER_SYNTAX_REFUSED: Final = 0x04
"""Results of a presentation context (PS3.8 Table 9-18)."""

_FIXED_BYTES: Final = 74
"""What precedes the first item of an A-ASSOCIATE-AC (PS3.8 Table 9-17)."""

_ITEM: Final = Struct(">BxH")
_RESULT: Final = Struct(">BxHBxBxBxH")
_PDU_LENGTH: Final = Struct(">L")

_UID: Final = re.compile(r"[0-9.]{1,64}")
"""What is accepted ends up in file meta groups and in messages to other peers."""

_CONTEXT_RESULT: Final = 0x21
_TRANSFER_SYNTAX: Final = 0x40


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One presentation context as the peer proposes it (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    """As the peer writes them: perhaps no UIDs, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one (PS3.8 9.3.3.2). The transfer syntax counts only where it was accepted."""

    context_id: int
    result: int
    transfer_syntax: str


class Acceptance:
    """What the node accepts. Built once, shared by every association, never changed."""

    def __init__(self, *, offers_commitment: bool = False) -> None:
        self._offers_commitment = offers_commitment
        self._rank = {syntax: rank for rank, syntax in enumerate(PREFERENCE)}
        self._served = {VERIFICATION}.union(
            str(context.abstract_syntax) for context in AllStoragePresentationContexts
        )
        self._seriesless = {
            str(context.abstract_syntax)
            for context in (
                *MediaStoragePresentationContexts,
                *NonPatientObjectPresentationContexts,
            )
        }

    def answer(self, proposal: Proposal) -> Answer:
        syntaxes = [syntax for syntax in proposal.transfer_syntaxes if _UID.fullmatch(syntax)]
        if proposal.abstract_syntax == PUSH_MODEL:
            syntaxes = [syntax for syntax in syntaxes if syntax in _UNCOMPRESSED]
        result = ACCEPTED
        if not self.is_served(proposal.abstract_syntax):
            result = ABSTRACT_SYNTAX_REFUSED
        elif not syntaxes:
            result = TRANSFER_SYNTAX_REFUSED
        return Answer(
            context_id=proposal.context_id,
            result=result,
            transfer_syntax=self.preferred(syntaxes or (_IMPLICIT_LITTLE,)),
        )

    def is_served(self, abstract_syntax: str) -> bool:
        """Whether it is Verification, Storage Commitment or may be a storage SOP class.

        Private and unknown ones may be. Refused are those that the registry (PS3.6 Annex A) knows
        as something else, storage of objects that belong to no series, and what is no UID.
        """
        if abstract_syntax in self._served:
            return True
        if abstract_syntax == PUSH_MODEL:
            return self._offers_commitment
        if abstract_syntax in self._seriesless or not _UID.fullmatch(abstract_syntax):
            return False
        uid = UID(abstract_syntax, config.IGNORE)
        if not uid.type:
            return True
        return (
            uid.type == "SOP Class"
            and ("Storage" in uid.name or not uid.name)
            and "Storage Commitment" not in uid.name
        )

    def preferred(self, proposed: Sequence[str]) -> str:
        """The transfer syntax to accept of those that one context proposes, at least one."""
        last = len(self._rank)
        return min(proposed, key=lambda syntax: self._rank.get(syntax, last))


def put_answers(accept: bytes, answers: Sequence[Answer]) -> bytes:
    """An A-ASSOCIATE-AC with the results of contexts, behind its application context."""
    _, length = _ITEM.unpack_from(accept, _FIXED_BYTES)
    place = _FIXED_BYTES + _ITEM.size + length
    results = b"".join(
        _RESULT.pack(
            _CONTEXT_RESULT,
            len(answer.transfer_syntax) + 8,
            answer.context_id,
            answer.result,
            _TRANSFER_SYNTAX,
            len(answer.transfer_syntax),
        )
        + answer.transfer_syntax.encode("latin-1")
        for answer in answers
    )
    whole = accept[:place] + results + accept[place:]
    return whole[:2] + _PDU_LENGTH.pack(len(whole) - 6) + whole[6:]
