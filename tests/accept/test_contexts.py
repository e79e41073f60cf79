"""What is accepted, and in which order of preference."""

import pytest
from pynetdicom import AllStoragePresentationContexts

from scp.accept.contexts import (
    ABSTRACT_SYNTAX_REFUSED,
    ACCEPTED,
    TRANSFER_SYNTAX_REFUSED,
    Acceptance,
    Proposal,
)
from tests.accept.raw_peer import CT, EXPLICIT, IMPLICIT

BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_2000_LOSSY = "1.2.840.10008.1.2.4.91"
HTJ2K_RPCL = "1.2.840.10008.1.2.4.202"
PRIVATE = "1.3.46.670589.33.1.4.1"

ACCEPTANCE = Acceptance()


@pytest.mark.parametrize(
    ("proposed", "preferred"),
    [
        ([BIG_ENDIAN, IMPLICIT, EXPLICIT], EXPLICIT),
        ([JPEG_LS, IMPLICIT], IMPLICIT),
        ([DEFLATED, BIG_ENDIAN, JPEG_LS], JPEG_LS),
        ([JPEG_BASELINE, HTJ2K_RPCL], HTJ2K_RPCL),
        ([DEFLATED, BIG_ENDIAN], BIG_ENDIAN),
        ([JPEG_BASELINE, DEFLATED], DEFLATED),
        ([JPEG_2000_LOSSY, JPEG_BASELINE], JPEG_2000_LOSSY),
        ([PRIVATE, JPEG_BASELINE], PRIVATE),
        ([PRIVATE], PRIVATE),
    ],
)
def test_the_preferred_syntax_of_a_context_is_accepted(proposed: list[str], preferred: str) -> None:
    assert ACCEPTANCE.preferred(proposed) == preferred


def test_every_storage_class_that_pynetdicom_knows_is_served() -> None:
    assert all(
        ACCEPTANCE.is_served(str(context.abstract_syntax))
        for context in AllStoragePresentationContexts
    )


@pytest.mark.parametrize(
    "abstract_syntax",
    [
        pytest.param("1.2.840.10008.1.1", id="Verification"),
        pytest.param("1.3.12.2.1107.5.9.1", id="private CSA"),
        pytest.param("2.25.4711", id="unknown"),
        pytest.param("1.2.840.10008.5.1.4.1.1.99999", id="newer than this program"),
        pytest.param("1.2.840.10008.5.1.4.1.1.6", id="retired ultrasound"),
        pytest.param("1.2.840.10008.5.1.4.1.1.501.1", id="DICOS"),
    ],
)
def test_what_may_be_storage_is_served(abstract_syntax: str) -> None:
    assert ACCEPTANCE.is_served(abstract_syntax)


@pytest.mark.parametrize(
    "abstract_syntax",
    [
        pytest.param("1.2.840.10008.5.1.4.1.2.2.1", id="Study Root FIND"),
        pytest.param("1.2.840.10008.1.20.1", id="Storage Commitment"),
        pytest.param("1.2.840.10008.5.1.4.31", id="Modality Worklist"),
        pytest.param("1.2.840.10008.5.1.4.38.1", id="Hanging Protocol, without a series"),
        pytest.param("1.2.840.10008.1.3.10", id="DICOMDIR"),
        pytest.param("1.2.840.10008.4.2", id="Storage Service Class, not a SOP class"),
        pytest.param("1.2.840.10008.1.2.1", id="a transfer syntax"),
        pytest.param("not a uid", id="no UID at all"),
        pytest.param("1." * 32 + "1", id="a UID too long"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_is_known_to_be_something_else_is_not_served(abstract_syntax: str) -> None:
    assert not ACCEPTANCE.is_served(abstract_syntax)


@pytest.mark.parametrize(
    ("abstract_syntax", "transfer_syntaxes", "result"),
    [
        (CT, (EXPLICIT,), ACCEPTED),
        (CT, (), TRANSFER_SYNTAX_REFUSED),
        ("1.2.840.10008.1.20.1", (EXPLICIT,), ABSTRACT_SYNTAX_REFUSED),
        ("", (EXPLICIT,), ABSTRACT_SYNTAX_REFUSED),
        (CT, ("",), TRANSFER_SYNTAX_REFUSED),
        (CT, ("1." * 4096,), TRANSFER_SYNTAX_REFUSED),
        (CT, (f"{EXPLICIT}\n", "explicit", "1.2.\xb2"), TRANSFER_SYNTAX_REFUSED),
    ],
)
def test_a_context_gets_the_result_of_the_standard(
    abstract_syntax: str, transfer_syntaxes: tuple[str, ...], result: int
) -> None:
    answer = ACCEPTANCE.answer(
        Proposal(context_id=3, abstract_syntax=abstract_syntax, transfer_syntaxes=transfer_syntaxes)
    )

    assert (answer.context_id, answer.result) == (3, result)
    assert answer.transfer_syntax in (EXPLICIT, IMPLICIT)


def test_what_is_no_uid_is_passed_over_where_the_context_offers_more() -> None:
    answer = ACCEPTANCE.answer(
        Proposal(context_id=1, abstract_syntax=CT, transfer_syntaxes=("9" * 65, PRIVATE))
    )

    assert (answer.result, answer.transfer_syntax) == (ACCEPTED, PRIVATE)
