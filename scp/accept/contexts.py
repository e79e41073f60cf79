"""Which presentation contexts are accepted, and with which transfer syntax.

Nothing is prepared for one association alone: the answer to a proposal is two look-ups in tables
that all associations share.
"""

from collections.abc import Sequence
from typing import Final

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom.presentation import (
    AllStoragePresentationContexts,
    MediaStoragePresentationContexts,
    NonPatientObjectPresentationContexts,
    PresentationContext,
)

VERIFICATION: Final = "1.2.840.10008.1.1"

ACCEPTED: Final = 0x00
ABSTRACT_SYNTAX_REFUSED: Final = 0x03
TRANSFER_SYNTAX_REFUSED: Final = 0x04
"""Results of a presentation context (PS3.8 Table 9-18)."""

PREFERENCE: Final = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
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


class Acceptance:
    """What the node accepts. Built once, shared by every association, never changed."""

    def __init__(self) -> None:
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

    def is_served(self, abstract_syntax: str) -> bool:
        """Whether it is Verification or may be a storage SOP class.

        Private and unknown ones may be. Refused are those that the registry (PS3.6 Annex A) knows
        as something else, and storage of objects that belong to no series.
        """
        if abstract_syntax in self._served:
            return True
        if abstract_syntax in self._seriesless:
            return False
        uid = UID(abstract_syntax)
        if not uid.type:
            return True
        name = uid.name
        return (
            uid.type == "SOP Class"
            and ("Storage" in name or not name)
            and "Storage Commitment" not in name
        )

    def preferred(self, proposed: Sequence[str]) -> str:
        """The transfer syntax to accept of those that one context proposes, at least one."""
        last = len(self._rank)
        return min(proposed, key=lambda syntax: self._rank.get(syntax, last))

    def answer(self, proposals: Sequence[PresentationContext]) -> list[PresentationContext]:
        """Accept or refuse each proposed context, keeping order."""
        return [self._answer(proposal) for proposal in proposals]

    def _answer(self, proposal: PresentationContext) -> PresentationContext:
        answer = PresentationContext()
        answer.context_id = proposal.context_id
        answer.abstract_syntax = proposal.abstract_syntax
        proposed = proposal.transfer_syntax
        if not proposed:
            answer.result = TRANSFER_SYNTAX_REFUSED
            answer.transfer_syntax = [ImplicitVRLittleEndian]
        elif not self.is_served(str(proposal.abstract_syntax)):
            answer.result = ABSTRACT_SYNTAX_REFUSED
            answer.transfer_syntax = [proposed[0]]
        else:
            answer.result = ACCEPTED
            answer.transfer_syntax = [UID(self.preferred(proposed))]
        return answer
