"""Delivery to a DICOM node: which form of an instance it takes, and what its answers mean."""

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from scp.config.schema import DicomDestination as DicomSection
from scp.deliver.dicomfile import read_meta
from scp.deliver.messages import VERIFICATION
from scp.deliver.negotiation import MAX_CONTEXTS, Proposal
from scp.deliver.ports import DecodeForPeer, Receipt, Verdict
from scp.deliver.scu import IMPLICIT_LITTLE, Association, associate
from scp.deliver.verdicts import verdict_of_status
from scp.errors import (
    ConversionError,
    DeliveryError,
    DigestMismatchError,
    MalformedError,
    PeerUnavailableError,
    StorageFullError,
    WorkerLostError,
)
from scp.model import DeliveryItem

logger = logging.getLogger(__name__)

EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
NATIVE: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)

LOST_IN_A_ROW: Final = 2
"""Associations that break in the middle of an instance before the peer counts as unavailable. One
may be the instance's fault, and must not keep the others from being delivered."""

_LOSSY: Final = re.compile(
    r"1\.2\.840\.10008\.1\.2\.4\."
    r"(5[0-6]|59|6[0-4]|81|91|93|10[0-6](\.1)?|107|108|111|112|203)"
)
"""Syntaxes whose pixels may differ from what was acquired (PS3.5 annex A)."""


def proposals_of(item: DeliveryItem) -> list[Proposal]:
    """The contexts that may carry an instance, the most wanted first."""
    if not item.identity.sop_instance_uid.isascii():
        return []
    syntaxes = dict.fromkeys((item.transfer_syntax, item.original_transfer_syntax, *NATIVE))
    proposals = [Proposal(item.identity.sop_class_uid, syntax) for syntax in syntaxes]
    return [proposal for proposal in proposals if proposal.is_encodable]


class DicomDestination:
    """One node, as :class:`scp.deliver.ports.Destination`.

    An association that the peer rejects for good raises PeerRejectedError; whatever else keeps an
    association from being made raises PeerUnavailableError. One that breaks in the middle of an
    instance makes a TRANSIENT receipt for it, and a new association carries the rest.
    """

    def __init__(self, name: str, section: DicomSection, decode: DecodeForPeer) -> None:
        self.name = name
        self._section = section
        self._decode = decode

    def deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        position = lost = 0
        while position < len(items) and not should_stop():
            end, proposals = _one_association(items, position)
            if not proposals:
                yield _held(items[position], "uid_unusable", "its UIDs cannot be sent")
                position += 1
                continue
            with associate(self._section, proposals) as association:
                logger.debug(
                    "%s accepted %d of %d contexts",
                    self.name,
                    len(association.contexts),
                    len(proposals),
                )
                while position < end and not should_stop():
                    item, position = items[position], position + 1
                    form = self._form(association, item)
                    if isinstance(form, Receipt):
                        yield form
                        continue
                    try:
                        receipt = _store(association, item, form)
                    except PeerUnavailableError as error:
                        lost += 1
                        yield _receipt(item, Verdict.TRANSIENT, str(error))
                        if lost == LOST_IN_A_ROW:
                            raise
                        break
                    except DigestMismatchError as error:
                        yield _held(item, "digest_mismatch", str(error))
                        break
                    except DeliveryError as error:
                        yield _receipt(item, Verdict.LIMITED, str(error))
                        break
                    finally:
                        if form.is_copy:
                            with contextlib.suppress(OSError):  # The answer counts, not the copy.
                                form.path.unlink()
                    lost = 0 if receipt.status else lost
                    yield receipt
                else:
                    association.release()

    def check(self) -> str:
        """C-ECHO (PS3.4 annex A)."""
        section = self._section
        proposal = Proposal(VERIFICATION, IMPLICIT_LITTLE)
        started = time.monotonic()
        with associate(section, [proposal]) as association:
            if proposal not in association.contexts:
                raise DeliveryError("the peer accepts the association, but no verification")
            status = association.echo()
            association.release()
        if status:
            raise DeliveryError(f"the peer answers C-ECHO with status {status:04X}")
        milliseconds = 1000 * (time.monotonic() - started)
        where = f"{section.ae_title}@{section.host}:{section.port}"
        return f"{where} answers C-ECHO ({milliseconds:.0f} ms)"

    def _form(self, association: Association, item: DeliveryItem) -> "_Form | Receipt":
        """The best form that the peer takes, or why there is none."""
        sop_class = item.identity.sop_class_uid
        for form in (
            _Form(item.path, item.transfer_syntax, sha256=item.sha256),
            _Form(item.original, item.original_transfer_syntax),
        ):
            if Proposal(sop_class, form.transfer_syntax) in association.contexts:
                return form
        native = [
            syntax for syntax in NATIVE if Proposal(sop_class, syntax) in association.contexts
        ]
        if not native:
            is_known = any(each.sop_class_uid == sop_class for each in association.contexts)
            reason = "transfer_syntax_refused" if is_known else "sop_class_refused"
            return _refused(item, reason, "the peer accepts no context that could carry it")
        if _LOSSY.fullmatch(item.original_transfer_syntax) and not self._section.decode_lossy:
            return _refused(item, "lossy_syntax_refused", item.original_transfer_syntax)
        try:
            return _Form(self._decode(item, native[0]), native[0], is_copy=True)
        except WorkerLostError as error:
            return _receipt(item, Verdict.TRANSIENT, f"decode_failed: {error}")
        except ConversionError as error:
            return _held(item, "decode_failed", str(error))
        except StorageFullError as error:
            return _receipt(item, Verdict.TRANSIENT, f"no room to decode: {error}")
        except OSError as error:
            return _receipt(item, Verdict.TRANSIENT, f"decode_failed: {error.strerror}")


class _Form(NamedTuple):
    """A file that the peer takes."""

    path: Path
    transfer_syntax: str
    sha256: str = ""
    """Empty: not known."""
    is_copy: bool = False
    """Made for this peer, and deleted once it was sent."""


def _one_association(items: Sequence[DeliveryItem], start: int) -> tuple[int, list[Proposal]]:
    """How far one association reaches and what it proposes; nothing: that item fits in none."""
    proposals: dict[Proposal, None] = {}
    for position in range(start, len(items)):
        wanted = proposals_of(items[position])
        together = proposals | dict.fromkeys(wanted)
        if len(together) > MAX_CONTEXTS or not wanted:
            return position, list(proposals)
        proposals = together
    return len(items), list(proposals)


def _store(association: Association, item: DeliveryItem, form: _Form) -> Receipt:
    syntax = form.transfer_syntax
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
