"""Delivery to a DICOM node: which form of an instance it takes, and what its answers mean."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from scp.config.accepts import NATIVE
from scp.config.schema import DicomDestination as DicomSection
from scp.config.values import check_ae_title
from scp.deliver.dicomfile import read_meta
from scp.deliver.forms import Form, Forms, syntaxes_of
from scp.deliver.messages import VERIFICATION
from scp.deliver.negotiation import MAX_CONTEXTS, Proposal
from scp.deliver.ports import DecodeForPeer, Receipt, Verdict
from scp.deliver.refusals import Refusals
from scp.deliver.scu import IMPLICIT_LITTLE, Association, associate
from scp.deliver.verdicts import verdict_of_status
from scp.errors import (
    DeliveryError,
    DigestMismatchError,
    MalformedError,
    NoAssociationError,
    PeerRejectedError,
    PeerUnavailableError,
)
from scp.model import DeliveryItem

logger = logging.getLogger(__name__)

LOST_IN_A_ROW: Final = 2
"""Associations that break in the middle of an instance before the peer counts as unavailable. One
may be the instance's fault, and must not keep the others from being delivered."""


def proposals_of(item: DeliveryItem, syntaxes: Iterable[str]) -> list[Proposal]:
    """The contexts that may carry an instance in one of these transfer syntaxes, in their order."""
    if not item.identity.sop_instance_uid.isascii():
        return []
    proposals = [Proposal(item.identity.sop_class_uid, syntax) for syntax in syntaxes]
    return [proposal for proposal in proposals if proposal.is_encodable]


class DicomDestination:
    """One node, as :class:`scp.deliver.ports.Destination`.

    An association that the peer rejects for good raises PeerRejectedError, unless each sender has
    its own: then it counts for the instances of that sender. Whatever else keeps an association from
    being made raises PeerUnavailableError. One that breaks in the middle of an instance makes a
    TRANSIENT receipt for it, and a new association carries the rest.

    A peer that breaks off at the association request may do so because of one SOP class: they are
    proposed one at a time then, that class waits, and the others are delivered. It is unavailable
    when two classes in a row fail.
    """

    def __init__(
        self,
        name: str,
        section: DicomSection,
        decode: DecodeForPeer,
        *,
        refusals: Refusals | None = None,
        own_title: str = "DCMPRESS",
    ) -> None:
        self.name = name
        self._section = section
        self._forms = Forms(decode, accepts=section.accepts, decode_lossy=section.decode_lossy)
        self._refusals = refusals or Refusals(None, name)
        self._own_title = own_title if section.calls_as_sender else section.calling_ae_title
        """Where the sender of an instance is not known, or cannot be called so."""
        self._breaking: set[str] = set()
        """SOP classes at which the peer broke off while it took another; proposed alone."""

    def deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        position = lost = 0
        is_apart = was_accepted = False
        suspect = ""
        """The SOP class at which the peer broke off, and has accepted no association since."""
        broken: dict[str, str] = {}
        while position < len(items) and not should_stop():
            sop_class = items[position].identity.sop_class_uid
            if sop_class in broken:
                receipt = _receipt(items[position], Verdict.TRANSIENT, broken[sop_class])
                yield replace(receipt, is_of_its_class=True)
                position += 1
                continue
            span = self._span(items, position, is_apart=is_apart)
            if isinstance(span, Receipt):
                yield span
                position += 1
                continue
            try:
                association = self._associate(span)
            except PeerRejectedError as error:
                if not self._section.calls_as_sender:
                    raise
                detail = f"{error} as {span.calling_ae_title}"
                yield from (
                    _receipt(i, Verdict.LIMITED, detail) for i in items[position : span.end]
                )
                position = span.end
                continue
            except NoAssociationError as error:
                if any(each.sop_class_uid != sop_class for each in span.proposals):
                    is_apart = True  # It may be because of one of them.
                    continue
                if sop_class not in self._breaking:
                    is_only = all(i.identity.sop_class_uid == sop_class for i in items)
                    if suspect or is_only:
                        raise
                    suspect = sop_class
                    if was_accepted:
                        self._breaking.add(sop_class)
                broken[sop_class] = f"{error} when it is asked for {sop_class}"
                continue
            was_accepted = True
            self._breaking |= {suspect} - {""}
            self._breaking -= {each.sop_class_uid for each in span.proposals}
            suspect = ""
            with association:
                while position < span.end and not should_stop():
                    sent = self._send(association, items[position])
                    position += 1
                    lost = lost + 1 if sent.is_lost else 0 if sent.receipt.status else lost
                    yield sent.receipt
                    if sent.is_lost and lost == LOST_IN_A_ROW:
                        raise PeerUnavailableError(sent.receipt.detail)
                    if sent.is_over:
                        break
                else:
                    association.release()

    def check(self) -> str:
        """C-ECHO (PS3.4 annex A)."""
        proposal = Proposal(VERIFICATION, IMPLICIT_LITTLE)
        section = self._as(self._own_title)
        started = time.monotonic()
        try:
            association = associate(section, [proposal])
        except PeerRejectedError as error:
            if not self._section.calls_as_sender:
                raise
            # It is there; whom it lets in is seen with the senders' titles.
            raise DeliveryError(f"{error}, called as {self._own_title}") from error
        with association:
            if proposal not in association.contexts:
                raise DeliveryError("the peer accepts the association, but no verification")
            status = association.echo()
            association.release()
        if status:
            raise DeliveryError(f"the peer answers C-ECHO with status {status:04X}")
        milliseconds = 1000 * (time.monotonic() - started)
        where = f"{section.ae_title}@{section.host}:{section.port}"
        return f"{where} answers C-ECHO ({milliseconds:.0f} ms)"

    # -- associations --------------------------------------------------------------------------

    def _span(
        self, items: Sequence[DeliveryItem], start: int, *, is_apart: bool
    ) -> "_Span | Receipt":
        """How far one association reaches and what it proposes; or why that item fits in none."""
        title = self._calling(items[start])
        first = items[start].identity.sop_class_uid
        proposals: dict[Proposal, None] = {}
        wanted: dict[tuple[str, str, str], list[Proposal]] = {}
        end = start
        for item in items[start:]:
            if self._calling(item) != title:
                break
            sop_class = item.identity.sop_class_uid
            if sop_class != first and (is_apart or {sop_class, first} & self._breaking):
                break
            key = (
                item.identity.sop_class_uid,
                item.transfer_syntax,
                item.original_transfer_syntax,
            )
            if key not in wanted:
                accepted = proposals_of(item, self._forms.syntaxes(item))
                wanted[key] = self._refusals.usable(title, accepted)
            together = proposals | dict.fromkeys(wanted[key])
            is_sendable = wanted[key] and item.identity.sop_instance_uid.isascii()
            if len(together) > MAX_CONTEXTS or not is_sendable:
                break
            proposals = together
            end += 1
        if end == start:
            return self._unsendable(items[start])
        return _Span(end, title, list(proposals))

    def _unsendable(self, item: DeliveryItem) -> Receipt:
        """Why no association would carry an instance."""
        if not proposals_of(item, syntaxes_of(item, NATIVE)):
            return _held(item, "uid_unusable", "its UIDs cannot be sent")
        accepted = proposals_of(item, self._forms.syntaxes(item))
        if not accepted:
            return self._forms.not_accepted(item)
        is_class = any(each.transfer_syntax in NATIVE for each in accepted)
        reason = "sop_class_refused" if is_class else "transfer_syntax_refused"
        return _refused(item, reason, "the peer has just refused every context that could carry it")

    def _associate(self, span: "_Span") -> Association:
        association = associate(self._as(span.calling_ae_title), span.proposals)
        accepted, refused = association.contexts, association.refused
        self._refusals.note(
            span.calling_ae_title,
            dict.fromkeys(accepted, True) | dict.fromkeys(refused, False),
        )
        logger.debug("%s accepted %d of %d contexts", self.name, len(accepted), len(span.proposals))
        return association

    def _as(self, calling: str) -> DicomSection:
        return self._section.model_copy(update={"calling_ae_title": calling})

    def _calling(self, item: DeliveryItem) -> str:
        if not self._section.calls_as_sender:
            return self._own_title
        try:
            return check_ae_title(item.calling_ae_title)
        except ValueError:
            return self._own_title

    # -- one instance --------------------------------------------------------------------------

    def _send(self, association: Association, item: DeliveryItem) -> "_Sent":
        form = self._form(association, item)
        if isinstance(form, Receipt):
            return _Sent(form)
        try:
            return _Sent(_store(association, form))
        except PeerUnavailableError as error:
            receipt = _receipt(item, Verdict.TRANSIENT, str(error))
            return _Sent(receipt, is_over=True, is_lost=True)
        except DigestMismatchError as error:
            return _Sent(_held(item, "digest_mismatch", str(error)), is_over=True)
        except DeliveryError as error:
            return _Sent(_receipt(item, Verdict.LIMITED, str(error)), is_over=True)
        finally:
            form.drop()

    def _form(self, association: Association, item: DeliveryItem) -> Form | Receipt:
        """The best form that the peer takes, or why there is none."""
        sop_class = item.identity.sop_class_uid
        for syntax in self._forms.syntaxes(item):
            if Proposal(sop_class, syntax) in association.contexts:
                return self._forms.make(item, syntax)
        is_known = any(each.sop_class_uid == sop_class for each in association.contexts)
        reason = "transfer_syntax_refused" if is_known else "sop_class_refused"
        return _refused(item, reason, "the peer accepts no context that could carry it")


class _Span(NamedTuple):
    """The items up to ``end`` go over one association."""

    end: int
    calling_ae_title: str
    proposals: list[Proposal]


class _Sent(NamedTuple):
    receipt: Receipt
    is_over: bool = False
    """The association is."""
    is_lost: bool = False
    """By the peer or the network, for all we know."""


def _store(association: Association, form: Form) -> Receipt:
    item, syntax = form.item, form.transfer_syntax
    try:
        descriptor = os.open(form.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return _receipt(item, Verdict.LIMITED, f"file_unreadable: {error.strerror}")
    try:
        meta = read_meta(descriptor)
        size = os.fstat(descriptor).st_size - meta.dataset_start
        if meta.transfer_syntax != syntax or size <= 0:
            return _held(item, "file_unreadable", f"it does not hold a dataset in {syntax}")
        status = association.store(
            Proposal(item.identity.sop_class_uid, syntax),
            item.identity.sop_instance_uid,
            descriptor,
            meta.dataset_start,
            size,
            form.sha256,
            form.dataset_sha256,
        )
    except MalformedError as error:
        return _held(item, "file_unreadable", str(error))
    except OSError as error:
        return _receipt(item, Verdict.LIMITED, f"file_unreadable: {error.strerror}")
    finally:
        os.close(descriptor)
    verdict = verdict_of_status(status)
    detail = "" if not status else f"the peer answers {status:04X}"
    if verdict is Verdict.ALREADY_THERE and item.is_conflict:
        # What the peer has under this UID may be the other dataset.
        verdict, detail = Verdict.HELD, f"duplicate_refused: {detail}"
    return Receipt(
        instance=item.instance,
        verdict=verdict,
        status=f"{status:04X}",
        detail=detail,
        transfer_syntax=syntax,
    )


def _held(item: DeliveryItem, reason: str, detail: str) -> Receipt:
    return _receipt(item, Verdict.HELD, f"{reason}: {detail}")


def _refused(item: DeliveryItem, reason: str, detail: str) -> Receipt:
    return _receipt(item, Verdict.REFUSED, f"{reason}: {detail}")


def _receipt(item: DeliveryItem, verdict: Verdict, detail: str) -> Receipt:
    return Receipt(instance=item.instance, verdict=verdict, status="", detail=detail)
