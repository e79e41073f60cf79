"""Storage commitment: who vouches for which instances, and how that is written (PS3.4 annex J).

The node is on both sides of the service: peers ask it, and it asks its destinations.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ImplicitVRLittleEndian

from scp.elements import Encoding, encoding_of, items_of, walk
from scp.errors import MalformedError, TruncatedError

PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
PUSH_MODEL_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""Its one well-known SOP Instance."""
REQUEST_ACTION: Final = 1
"""Action Type ID of a request (PS3.4 table J.3-1)."""
ALL_COMMITTED: Final = 1
FAILURES_EXIST: Final = 2
"""Event Type IDs of a report (PS3.4 table J.3-2)."""

_TRANSACTION: Final = 0x00081195
_SOP_SEQUENCE: Final = 0x00081199
_FAILED_SEQUENCE: Final = 0x00081198
_SOP_CLASS: Final = 0x00081150
_SOP_INSTANCE: Final = 0x00081155
_REASON: Final = 0x00081197

_UID: Final = re.compile(r"[0-9.]{1,64}")


class Failure(IntEnum):
    """Why an instance is not committed: Failure Reason (0008,1197), PS3.3 C.14.1.1."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    """The instance is there, of another SOP class."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One instance, as the service names it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """What an N-ACTION-RQ asks (PS3.4 J.3.2)."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What an N-EVENT-REPORT-RQ answers (PS3.4 J.3.3)."""

    transaction_uid: str
    committed: tuple[Reference, ...] = ()
    failed: Mapping[Reference, int] = field(default_factory=dict)
    """Reference to Failure Reason."""

    @property
    def event_type(self) -> int:
        return FAILURES_EXIST if self.failed else ALL_COMMITTED


def encode_request(request: CommitmentRequest, transfer_syntax: str) -> bytes:
    """The Action Information of an N-ACTION-RQ."""
    dataset = Dataset()
    _put(dataset, _TRANSACTION, "UI", request.transaction_uid)
    _put(dataset, _SOP_SEQUENCE, "SQ", [_item(reference) for reference in request.references])
    return _encoded(dataset, transfer_syntax)


def encode_report(report: CommitmentReport, transfer_syntax: str) -> bytes:
    """The Event Information of an N-EVENT-REPORT-RQ."""
    dataset = Dataset()
    _put(dataset, _TRANSACTION, "UI", report.transaction_uid)
    if report.failed:
        items = [_item(reference, reason) for reference, reason in report.failed.items()]
        _put(dataset, _FAILED_SEQUENCE, "SQ", items)
    if report.committed:
        _put(dataset, _SOP_SEQUENCE, "SQ", [_item(reference) for reference in report.committed])
    return _encoded(dataset, transfer_syntax)


def decode_request(encoded: bytes | bytearray, transfer_syntax: str) -> CommitmentRequest:
    """Read the Action Information of an N-ACTION-RQ; an instance named twice counts once.

    Raises
    ------
    MalformedError
        It is none, or names no instance.
    """
    content = _Content(encoded, transfer_syntax)
    references = tuple(dict.fromkeys(reference for reference, _ in content.references))
    if not references:
        raise MalformedError("a request for storage commitment that names no instance")
    return CommitmentRequest(transaction_uid=content.transaction_uid, references=references)


def decode_report(encoded: bytes | bytearray, transfer_syntax: str) -> CommitmentReport:
    """Read the Event Information of an N-EVENT-REPORT-RQ; what is named as both counts as failed.

    Raises
    ------
    MalformedError
        It is none.
    """
    content = _Content(encoded, transfer_syntax)
    failed = dict(content.failed)
    committed = dict.fromkeys(reference for reference, _ in content.references)
    return CommitmentReport(
        transaction_uid=content.transaction_uid,
        committed=tuple(reference for reference in committed if reference not in failed),
        failed=failed,
    )


class _Content:
    """What both kinds of dataset hold."""

    def __init__(self, encoded: bytes | bytearray, transfer_syntax: str) -> None:
        self.transaction_uid = ""
        self.references: list[tuple[Reference, int]] = []
        self.failed: list[tuple[Reference, int]] = []
        encoding = encoding_of(transfer_syntax)
        try:
            for element in walk(encoded, encoding, stop_before=_SOP_SEQUENCE + 1):
                if element.tag == _TRANSACTION:
                    value = bytes(encoded[element.value : element.value_end])
                    self.transaction_uid = _uid(value)
                elif element.tag in (_SOP_SEQUENCE, _FAILED_SEQUENCE):
                    items = items_of(encoded, encoding, element)
                    found = self.failed if element.tag == _FAILED_SEQUENCE else self.references
                    found += _references(encoded, encoding, items)
        except TruncatedError as error:
            raise MalformedError(str(error)) from error
        if not self.transaction_uid:
            raise MalformedError("storage commitment without a Transaction UID")


def _references(
    encoded: bytes | bytearray, encoding: Encoding, items: Iterable[tuple[int, int]]
) -> Iterator[tuple[Reference, int]]:
    view = memoryview(encoded)
    for start, end in items:
        item = view[start:end]
        values = {
            element.tag: bytes(item[element.value : element.value_end])
            for element in walk(item, encoding)
        }
        reference = Reference(
            _uid(values.get(_SOP_CLASS, b"")), _uid(values.get(_SOP_INSTANCE, b""))
        )
        reason = values.get(_REASON, b"")
        code = int.from_bytes(reason, "little" if encoding.little else "big")
        yield reference, code if len(reason) == 2 else 0


def _uid(value: bytes) -> str:
    text = value.decode("latin-1").strip(" \0")
    if not _UID.fullmatch(text):
        raise MalformedError("storage commitment with a UID that is none")
    return text


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    _put(item, _SOP_CLASS, "UI", reference.sop_class_uid)
    _put(item, _SOP_INSTANCE, "UI", reference.sop_instance_uid)
    if reason is not None:
        _put(item, _REASON, "US", reason)
    return item


def _put(dataset: Dataset, tag: int, vr: str, value: object) -> None:
    # A UID is repeated as the sender wrote it, whatever pydicom thinks of its zeros.
    dataset.add(DataElement(tag, vr, value, validation_mode=config.IGNORE))


def _encoded(dataset: Dataset, transfer_syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = transfer_syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = encoding_of(transfer_syntax).little
    write_dataset(buffer, dataset)
    return buffer.getvalue()
