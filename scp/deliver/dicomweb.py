"""Delivery to a DICOMweb server by STOW-RS (PS3.18 section 10.5): whole files, several a request."""

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from scp.config.remote import DicomwebDestination as Section
from scp.deliver import qido, stow
from scp.deliver.dicomfile import read_meta
from scp.deliver.forms import Form, Forms
from scp.deliver.ports import DecodeForPeer, Receipt, Verdict
from scp.deliver.stow import StoreAnswer
from scp.deliver.verdicts import http_error, verdict_of_http, verdict_of_status
from scp.deliver.web import Answer, Buffer, WebClient, basic, bearer, nobody
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

_CHUNK: Final = 1 << 20
_EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
_SYNTAX_REFUSED: Final = 0xC122
"""Referenced Transfer Syntax Not Supported (PS3.18 section 10.5.3)."""
_ALREADY_THERE: Final = (0x0111, 0xB00E)
"""Duplicate SOP Instance, and what the DICOM service of Azure says for it."""
_PER_INSTANCE: Final = (200, 202, 409)
"""Statuses whose body tells of each instance."""
_CONFLICT: Final = 409
_UNSUPPORTED_MEDIA_TYPE: Final = 415
_REMEMBERED: Final = 1000


class DicomwebDestination:
    """One server, as :class:`scp.deliver.ports.Destination`.

    What a request for several instances leaves open, because it got no answer, or one that may be
    meant for any of them, is found out by sending each of them alone, in the next form where the
    server does not take the first.
    """

    def __init__(self, name: str, section: Section, decode: DecodeForPeer) -> None:
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
        self._buffer = memoryview(bytearray(_CHUNK))
        self._refused: set[tuple[str, str]] = set()
        """(SOP class, transfer syntax) that the server did not take."""
        self._lost = 0

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
        self._lost = 0
        position = 0
        while position < len(items) and not should_stop():
            self._client.connect()  # Before anything is decoded for it.
            forms = self._together(items, position, should_stop)
            try:
                if len(forms) < 2:
                    yield from self._alone(items[position], *forms)
                    position += 1
                    continue
                answers = self._store_together(forms)
            finally:
                _drop(forms)
            for form, receipt in zip(forms, answers, strict=True):
                if receipt is not None:
                    self._lost = 0
                    yield receipt
                elif not should_stop():
                    yield from self._alone(form.item)
                else:
                    return
            position += len(forms)

    def check(self) -> str:
        """Search for anything: what stores can be searched, as a rule."""
        started = time.monotonic()
        try:
            answer = self._client.request("GET", "/studies?limit=1", headers={"Accept": stow.JSON})
        finally:
            self._client.close()
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
        """A receipt for each, or None where nothing sure can be said of it."""
        try:
            answer = self._post(forms)
        except (DeliveryError, MalformedError):
            return [None] * len(forms)
        error = http_error(answer.status, self._server)
        if isinstance(error, PeerRejectedError):
            raise error
        if error is not None or answer.status not in _PER_INSTANCE:
            return [None] * len(forms)
        said = stow.read_answer(answer.content_type, answer.body)
        return [self._named(form, answer.status, said) for form in forms]

    # -- one alone -----------------------------------------------------------------------------

    def _alone(self, item: DeliveryItem, first: Form | None = None) -> Iterator[Receipt]:
        """Offer an instance in one form after the other; the first of them may be there."""
        self._client.connect()
        if not self._forms.syntaxes(item):
            yield self._forms.not_accepted(item)
            return
        for syntax in self._syntaxes(item):
            form, first = first or self._forms.make(item, syntax), None
            if isinstance(form, Receipt):
                yield form
                return
            try:
                receipt = self._store_alone(form)
            except PeerRejectedError:
                raise
            except PeerUnavailableError as error:
                self._lost += 1
                yield _receipt(item, Verdict.TRANSIENT, str(error))
                if self._lost == LOST_IN_A_ROW:
                    raise
                return
            except DigestMismatchError as error:
                receipt = _receipt(item, Verdict.HELD, f"digest_mismatch: {error}")
            except MalformedError as error:
                receipt = _receipt(item, Verdict.HELD, f"file_unreadable: {error}")
            except DeliveryError as error:
                receipt = _receipt(item, Verdict.LIMITED, str(error))
            finally:
                form.drop()
            if receipt is not None:
                self._lost = 0
                yield receipt
                return
        # Nothing of it is taken; what is sent next may find that this has changed.
        sop_class = item.identity.sop_class_uid
        self._refused = {each for each in self._refused if each[0] != sop_class}
        yield _receipt(
            item, Verdict.REFUSED, "transfer_syntax_refused: the server takes no form of it"
        )

    def _syntaxes(self, item: DeliveryItem) -> list[str]:
        """Those that it may go in and that the server has not refused, the most wanted first."""
        sop_class = item.identity.sop_class_uid
        syntaxes = self._forms.syntaxes(item)
        return [syntax for syntax in syntaxes if (sop_class, syntax) not in self._refused]

    def _store_alone(self, form: Form) -> Receipt | None:
        """The server's answer; None when it does not take this form."""
        answer = self._post([form])
        error = http_error(answer.status, self._server)
        if error is not None:
            raise error
        if answer.status == _UNSUPPORTED_MEDIA_TYPE:
            self._remember_refusal(form)
            return None
        said = stow.read_answer(answer.content_type, answer.body)
        receipt = self._named(form, answer.status, said)
        if receipt is not None or _key(form) in self._refused:
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
            self._remember_refusal(form)
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

    def _is_there(self, form: Form) -> bool | None:
        """Whether a search finds what an answer says nothing of; None: it cannot be searched for."""
        try:
            return qido.has_instance(self._client, form.item.identity.sop_instance_uid)
        except PeerUnavailableError:
            raise
        except DeliveryError:
            return None

    def _remember_refusal(self, form: Form) -> None:
        if len(self._refused) >= _REMEMBERED:
            self._refused.clear()
        self._refused.add(_key(form))

    # -- bytes out -----------------------------------------------------------------------------

    def _post(self, forms: list[Form]) -> Answer:
        boundary = f"dcmpress-{uuid.uuid4().hex}"
        parts: list[tuple[Form, bytes, int]] = []
        for form in forms:
            try:
                size = form.path.stat().st_size
            except OSError as error:
                raise DeliveryError(f"file_unreadable: {error.strerror}") from error
            named = form.transfer_syntax if self._section.transfer_syntax_parameter else ""
            parts.append((form, stow.part_header(boundary, named), size))
        fixed = len(stow.PART_END) * len(parts) + len(stow.closing(boundary))
        return self._client.request(
            "POST",
            "/studies",
            body=self._body(parts, boundary),
            size=fixed + sum(len(header) + size for _, header, size in parts),
            headers={"Content-Type": stow.content_type(boundary), "Accept": stow.JSON},
        )

    def _body(self, parts: list[tuple[Form, bytes, int]], boundary: str) -> Iterator[Buffer]:
        """All bytes, read while they are sent; each is overwritten by the next."""
        for form, header, size in parts:
            yield header
            yield from self._content(form, size)
            yield stow.PART_END
        yield stow.closing(boundary)

    def _content(self, form: Form, size: int) -> Iterator[Buffer]:
        """The file; the last of it only when all of it is what was committed."""
        digest = hashlib.sha256()
        try:
            descriptor = os.open(form.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                meta = read_meta(descriptor)
                if meta.transfer_syntax != form.transfer_syntax:
                    raise MalformedError(f"it does not hold a dataset in {form.transfer_syntax}")
                committed = form.sha256 or form.dataset_sha256
                digested_from = 0 if form.sha256 else meta.dataset_start
                offset = 0
                while offset < size:
                    window = self._buffer[: min(_CHUNK, size - offset)]
                    count = os.preadv(descriptor, [window], offset)
                    if not count:
                        raise DeliveryError("file_unreadable: it became shorter while it was sent")
                    digest.update(window[max(0, digested_from - offset) : count])
                    offset += count
                    if offset == size and committed and digest.hexdigest() != committed:
                        raise DigestMismatchError("the file is not the one that was committed")
                    yield window[:count]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DeliveryError(f"file_unreadable: {error.strerror}") from error


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


def _key(form: Form) -> tuple[str, str]:
    return form.item.identity.sop_class_uid, form.transfer_syntax


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
