"""Delivery to a DICOMweb server by STOW-RS (PS3.18 section 10.5): whole files, several a request."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from scp.config.remote import DicomwebDestination as Section
from scp.deliver import qido, stow
from scp.deliver.forms import Form, Forms
from scp.deliver.negotiation import Proposal
from scp.deliver.ports import DecodeForPeer, Receipt, Verdict
from scp.deliver.refusals import Refusals
from scp.deliver.stow import StoreAnswer
from scp.deliver.upload import store
from scp.deliver.verdicts import http_error, verdict_of_http, verdict_of_status
from scp.deliver.web import Answer, WebClient, basic, bearer, nobody
from scp.errors import (
    DeliveryError,
    DigestMismatchError,
    MalformedError,
    PeerRejectedError,
    PeerUnavailableError,
)
from scp.model import DeliveryItem

LOST_IN_A_ROW: Final = 2
"""Instances that, alone in their request, got no answer before the server counts as unavailable."""
INSTANCES_A_REQUEST: Final = 100

_EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
_SYNTAX_REFUSED: Final = 0xC122
"""Referenced Transfer Syntax Not Supported (PS3.18 section 10.5.3)."""
_ALREADY_THERE: Final = (0x0111, 0xB00E)
"""Duplicate SOP Instance, and what the DICOM service of Azure says for it."""
_PER_INSTANCE: Final = (200, 202, 409)
"""Statuses whose body tells of each instance."""
_CONFLICT: Final = 409
_UNSUPPORTED_MEDIA_TYPE: Final = 415
_NOBODY: Final = ""
"""Who calls, as far as refusals go: a server of DICOMweb does not know us by a title."""


class DicomwebDestination:
    """One server, as :class:`scp.deliver.ports.Destination`.

    What a request for several instances leaves open, because it got no answer, or one that may be
    meant for any of them, is found out by sending each of them alone, in the next form where the
    server does not take the first.
    """

    def __init__(
        self,
        name: str,
        section: Section,
        decode: DecodeForPeer,
        *,
        refusals: Refusals | None = None,
    ) -> None:
        self.name = name
        self._section = section
        self._forms = Forms(
            decode,
            accepts=section.accepts,
            decode_lossy=section.decode_lossy,
            native=[_EXPLICIT_LITTLE],  # Implicit VR is none of the web's (PS3.18 section 8.7.3.5).
        )
        self._client = client_of(section)
        self._server = urlsplit(section.url).netloc
        self._parameter = section.transfer_syntax_parameter
        self._refusals = refusals or Refusals(None, name)
        self._lost: list[PeerUnavailableError] = []
        """Why the last instances in a row, each alone in its request, got no answer."""

    def deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        try:
            yield from self._deliver(items, should_stop)
        finally:
            self._client.close()

    def _deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        self._lost.clear()
        position = 0
        while position < len(items) and not should_stop():
            self._client.connect()  # Before anything is decoded for it.
            forms = self._together(items, position, should_stop)
            if len(forms) < 2:
                try:
                    yield self._alone(items[position], *forms)
                finally:
                    _drop(forms)
                self._end_if_lost()
                position += 1
                continue
            answers: list[Receipt | None] = [None] * len(forms)
            problem: PeerUnavailableError | None = None
            try:
                answers = self._store_together(forms)
            except PeerUnavailableError as error:
                problem = error
            finally:
                _drop(forms)
            yield from self._settle(forms, answers, problem, should_stop)
            position += len(forms)

    def _settle(
        self,
        forms: list[Form],
        answers: list[Receipt | None],
        problem: PeerUnavailableError | None,
        should_stop: Callable[[], bool],
    ) -> Iterator[Receipt]:
        """A receipt for each of what went together; what has none yet goes alone.

        Where that cannot be, because there is a problem with the server, they get one all the same:
        each was offered, which is counted.
        """
        for form, receipt in zip(forms, answers, strict=True):
            if receipt is not None:
                self._lost.clear()
            elif problem is None and not should_stop():
                try:
                    self._client.connect()
                    receipt = self._alone(form.item, offers=1)
                    self._end_if_lost()
                except PeerUnavailableError as error:
                    problem = error
            why = str(problem or "it was sent with others and not answered")
            yield receipt or _receipt(form.item, Verdict.TRANSIENT, why)
        if problem is not None:
            raise problem

    def _end_if_lost(self) -> None:
        if len(self._lost) >= LOST_IN_A_ROW or (self._lost and self._lost[-1].retry_after):
            raise self._lost[-1]

    def check(self) -> str:
        """Search for anything: what stores can be searched, as a rule."""
        started = time.monotonic()
        try:
            answer = self._client.request("GET", "/studies?limit=1", headers={"Accept": stow.JSON})
        finally:
            self._client.close()
        error = http_error(answer.status, self._server, answer.retry_after)
        if isinstance(error, PeerUnavailableError) and error.retry_after:
            raise error  # Else it may store all the same: some cannot be searched.
        if answer.status in (401, 403, 407) or answer.status >= 500:
            raise DeliveryError(f"{self._server} answers {answer.status}")
        milliseconds = 1000 * (time.monotonic() - started)
        not_found = "" if answer.status in (200, 204) else f", but a search with {answer.status}"
        return f"{self._section.url} answers{not_found} ({milliseconds:.0f} ms)"

    # -- several in one request ----------------------------------------------------------------

    def _together(
        self, items: Sequence[DeliveryItem], start: int, should_stop: Callable[[], bool]
    ) -> list[Form]:
        """What can go in one request, from ``start`` on; no instance twice, because it answers by UID."""
        forms: list[Form] = []
        uids: set[str] = set()
        left = self._section.max_request_bytes
        for item in items[start : start + INSTANCES_A_REQUEST]:
            syntaxes = self._syntaxes(item)
            uid = item.identity.sop_instance_uid
            if not syntaxes or uid in uids or should_stop():
                break
            try:
                form = self._forms.make(item, syntaxes[0])
            except BaseException:
                _drop(forms)
                raise
            if isinstance(form, Receipt):
                break
            try:
                left -= form.path.stat().st_size
            except OSError:
                left = -1
            if left < 0:
                form.drop()
                break
            uids.add(uid)
            forms.append(form)
        return forms

    def _store_together(self, forms: list[Form]) -> list[Receipt | None]:
        """A receipt for each, or None where nothing sure can be said of it.

        Raises
        ------
        PeerRejectedError
            The server lets nobody in.
        PeerUnavailableError
            It says when to come again.
        """
        try:
            answer = self._store(forms)
        except (DeliveryError, MalformedError):
            return [None] * len(forms)
        error = http_error(answer.status, self._server, answer.retry_after)
        if isinstance(error, PeerRejectedError) or (error is not None and error.retry_after):
            raise error
        if error is not None or answer.status not in _PER_INSTANCE:
            return [None] * len(forms)
        said = stow.read_answer(answer.content_type, answer.body)
        return [self._named(form, answer.status, said) for form in forms]

    # -- one alone -----------------------------------------------------------------------------

    def _alone(self, item: DeliveryItem, first: Form | None = None, *, offers: int = 0) -> Receipt:
        """Offer an instance in one form after the other; the first of them may be there.

        ``offers`` is how often it was sent with others before.
        """
        if not self._forms.syntaxes(item):
            return self._forms.not_accepted(item)
        receipt: Receipt | None = None
        for syntax in self._syntaxes(item):
            form, first = first or self._forms.make(item, syntax), None
            if isinstance(form, Receipt):
                receipt = form
                break
            offers += 1
            try:
                receipt = self._store_alone(form)
            except PeerRejectedError:
                raise
            except PeerUnavailableError as error:
                self._lost.append(error)
                lost = _receipt(item, Verdict.TRANSIENT, str(error))
                return replace(lost, offers=offers)
            except DigestMismatchError as error:
                receipt = _receipt(item, Verdict.HELD, f"digest_mismatch: {error}")
            except MalformedError as error:
                receipt = _receipt(item, Verdict.HELD, f"file_unreadable: {error}")
            except DeliveryError as error:
                receipt = _receipt(item, Verdict.LIMITED, str(error))
            finally:
                form.drop()
            if receipt is not None:
                self._lost.clear()
                break
        if receipt is None:
            why = "transfer_syntax_refused: the server takes no form of it"
            receipt = _receipt(item, Verdict.REFUSED, why)
        return replace(receipt, offers=max(1, offers))

    def _syntaxes(self, item: DeliveryItem) -> list[str]:
        """Those that it may go in and that the server has not refused, the most wanted first."""
        sop_class = item.identity.sop_class_uid
        proposals = [Proposal(sop_class, syntax) for syntax in self._forms.syntaxes(item)]
        usable = self._refusals.usable(_NOBODY, proposals)
        return [proposal.transfer_syntax for proposal in usable]

    def _store_alone(self, form: Form) -> Receipt | None:
        """The server's answer; None when it does not take this form."""
        answer = self._store([form])
        error = http_error(answer.status, self._server, answer.retry_after)
        if error is not None:
            raise error
        if answer.status == _UNSUPPORTED_MEDIA_TYPE:
            self._note_refusal(form)
            return None
        said = stow.read_answer(answer.content_type, answer.body)
        receipt = self._named(form, answer.status, said)
        if receipt is not None or form.transfer_syntax not in self._syntaxes(form.item):
            return receipt
        if said.others:
            return _failed(form, said.others[0])
        if not said.is_silent:
            return _receipt(form.item, Verdict.LIMITED, "the server's answer does not name it")
        detail = f"the server answers {answer.status}"
        if answer.status in _PER_INSTANCE and self._is_there(form) is False:
            return _receipt(form.item, Verdict.LIMITED, f"{detail}, and does not have it")
        if answer.status == _CONFLICT:
            return _already_there(form, "", detail)
        return _receipt(form.item, verdict_of_http(answer.status), detail, form)

    def _named(self, form: Form, status: int, said: StoreAnswer) -> Receipt | None:
        """What an answer says of an instance by its UID; None: nothing, or that its syntax is refused."""
        uid = form.item.identity.sop_instance_uid
        reason = said.failed.get(uid)
        if reason == _SYNTAX_REFUSED:
            self._note_refusal(form)
            return None
        if reason is not None:
            return _failed(form, reason)
        if said.is_silent and status == 200 and self._is_there(form):
            return _receipt(form.item, Verdict.DELIVERED, "", form)
        warning = said.stored.get(uid)
        if warning is None:
            return None
        verdict = Verdict.WARNING if warning else Verdict.DELIVERED
        detail = f"the server warns with {warning:04X}" if warning else ""
        return _receipt(form.item, verdict, detail, form, status=f"{warning:04X}")

    def _store(self, forms: Sequence[Form]) -> Answer:
        return store(self._client, forms, names_syntax=self._parameter)

    def _is_there(self, form: Form) -> bool | None:
        """Whether a search finds what an answer says nothing of; None: it cannot be searched for."""
        try:
            return qido.has_instance(self._client, form.item.identity.sop_instance_uid)
        except PeerUnavailableError:
            raise
        except DeliveryError:
            return None

    def _note_refusal(self, form: Form) -> None:
        proposal = Proposal(form.item.identity.sop_class_uid, form.transfer_syntax)
        if self._refusals.usable(_NOBODY, [proposal]):  # Else another of the request has said it.
            self._refusals.note(_NOBODY, {proposal: False})


def client_of(section: Section) -> WebClient:
    """What speaks to the server of a section."""
    authorization = nobody
    if section.user is not None and section.password is not None:
        authorization = basic(section.user, section.password)
    elif section.token is not None:
        authorization = bearer(section.token)
    return WebClient(
        section.url,
        section.tls,
        connect_seconds=section.connect_seconds,
        answer_seconds=section.answer_seconds,
        authorization=authorization,
    )


def _failed(form: Form, reason: int) -> Receipt:
    status, detail = f"{reason:04X}", f"the server answers {reason:04X}"
    if reason in _ALREADY_THERE:
        return _already_there(form, status, detail)
    verdict = verdict_of_status(reason)
    if verdict.is_done:  # It failed all the same: no reason was given, or one that is none.
        verdict = Verdict.LIMITED
    return _receipt(form.item, verdict, detail, form, status=status)


def _already_there(form: Form, status: str, detail: str) -> Receipt:
    if form.item.is_conflict:
        # What the server has under this UID may be the other dataset.
        return _receipt(form.item, Verdict.HELD, f"duplicate_refused: {detail}", status=status)
    return _receipt(form.item, Verdict.ALREADY_THERE, detail, form, status=status)


def _drop(forms: Iterable[Form]) -> None:
    """Delete what are copies."""
    for form in forms:
        form.drop()


def _receipt(
    item: DeliveryItem, verdict: Verdict, detail: str, form: Form | None = None, *, status: str = ""
) -> Receipt:
    syntax = form.transfer_syntax if form is not None else ""
    return Receipt(
        instance=item.instance,
        verdict=verdict,
        status=status,
        detail=detail,
        transfer_syntax=syntax,
    )
