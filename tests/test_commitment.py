"""What is asked and answered about commitment survives being written down, and pydicom agrees."""

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode

from scp.commitment import (
    CommitmentReport,
    CommitmentRequest,
    Failure,
    Reference,
    decode_report,
    decode_request,
    encode_report,
    encode_request,
)
from scp.errors import MalformedError

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
CT = "1.2.840.10008.5.1.4.1.1.2"

syntaxes = st.sampled_from([IMPLICIT, EXPLICIT, BIG])
uids = st.from_regex(r"[0-9.]{1,64}", fullmatch=True)
references = st.builds(Reference, uids, uids)


def read(encoded: bytes, syntax: str) -> Dataset:
    return decode(BytesIO(encoded), syntax == IMPLICIT, syntax != BIG)


@given(uids, st.lists(references, min_size=1, unique=True), syntaxes)
def test_a_request_is_read_as_it_was_written(
    transaction: str, wanted: list[Reference], syntax: str
) -> None:
    request = CommitmentRequest(transaction_uid=transaction, references=tuple(wanted))

    assert decode_request(encode_request(request, syntax), syntax) == request


@given(uids, st.lists(references, unique=True), st.data(), syntaxes)
def test_a_report_is_read_as_it_was_written(
    transaction: str, wanted: list[Reference], data: st.DataObject, syntax: str
) -> None:
    failed = {
        reference: data.draw(st.integers(0, 0xFFFF))
        for reference in wanted
        if data.draw(st.booleans())
    }
    report = CommitmentReport(
        transaction_uid=transaction,
        committed=tuple(reference for reference in wanted if reference not in failed),
        failed=failed,
    )

    assert decode_report(encode_report(report, syntax), syntax) == report


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_pydicom_reads_a_report_as_the_standard_has_it(syntax: str) -> None:
    report = CommitmentReport(
        transaction_uid="1.2.3",
        committed=(Reference(CT, "1.2.4"),),
        failed={Reference(CT, "1.2.5"): Failure.NO_SUCH_INSTANCE},
    )

    dataset = read(encode_report(report, syntax), syntax)

    assert dataset.TransactionUID == "1.2.3"
    assert [i.ReferencedSOPInstanceUID for i in dataset.ReferencedSOPSequence] == ["1.2.4"]
    (failed,) = dataset.FailedSOPSequence
    assert (failed.ReferencedSOPClassUID, failed.ReferencedSOPInstanceUID) == (CT, "1.2.5")
    assert failed.FailureReason == 0x0112


def test_without_a_failure_there_is_no_sequence_of_failures() -> None:
    report = CommitmentReport(transaction_uid="1.2.3", committed=(Reference(CT, "1.2.4"),))

    assert "FailedSOPSequence" not in read(encode_report(report, EXPLICIT), EXPLICIT)
    assert report.event_type == 1


def test_an_instance_named_twice_counts_once() -> None:
    twice = CommitmentRequest(
        transaction_uid="1.2.3", references=(Reference(CT, "1.2.4"), Reference(CT, "1.2.4"))
    )

    assert decode_request(encode_request(twice, IMPLICIT), IMPLICIT).references == (
        Reference(CT, "1.2.4"),
    )


def test_an_instance_named_as_committed_and_as_failed_has_failed() -> None:
    reference = Reference(CT, "1.2.4")
    both = CommitmentReport(
        transaction_uid="1.2.3", committed=(reference,), failed={reference: 0x0110}
    )

    report = decode_report(encode_report(both, EXPLICIT), EXPLICIT)

    assert (report.committed, report.failed) == ((), {reference: 0x0110})


def test_a_request_for_nothing_is_none() -> None:
    nothing = CommitmentRequest(transaction_uid="1.2.3", references=())

    with pytest.raises(MalformedError, match="names no instance"):
        decode_request(encode_request(nothing, EXPLICIT), EXPLICIT)


def test_a_request_without_a_transaction_is_none() -> None:
    with pytest.raises(MalformedError, match="Transaction UID"):
        decode_request(b"", EXPLICIT)


@given(st.binary(max_size=300), syntaxes)
def test_any_bytes_are_a_request_or_malformed(encoded: bytes, syntax: str) -> None:
    with contextlib.suppress(MalformedError):
        assert decode_request(encoded, syntax).references


@given(st.data(), syntaxes)
def test_a_damaged_report_is_a_report_or_malformed(data: st.DataObject, syntax: str) -> None:
    report = CommitmentReport(
        transaction_uid="1.2.3",
        committed=(Reference(CT, "1.2.4"), Reference(CT, "1.2.6")),
        failed={Reference(CT, "1.2.5"): 0x0110},
    )
    encoded = bytearray(encode_report(report, syntax))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    del encoded[data.draw(st.integers(0, len(encoded))) :]

    with contextlib.suppress(MalformedError):
        assert decode_report(encoded, syntax).transaction_uid
