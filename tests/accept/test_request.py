"""An A-ASSOCIATE-RQ is read item by item."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
)

from scp.accept.contexts import Acceptance, Answer, Proposal
from scp.accept.request import (
    MAX_ITEM_BYTES,
    MAX_REMEMBERED,
    MAX_REMEMBERED_BYTES,
    Answers,
    Request,
    read_request,
)
from scp.commitment import PUSH_MODEL
from scp.errors import MalformedError
from tests.accept.raw_peer import CT, EXPLICIT, IMPLICIT, associate_request

JPEG_LS = "1.2.840.10008.1.2.4.80"
PRIVATE = "1.3.46.670589.33.1.4.1"
ACCEPTANCE = Acceptance()


class Received:
    """What a peer has sent, and nothing behind it."""

    def __init__(self, pdu: bytes) -> None:
        self.left = pdu[6:]

    def take_all(self, length: int) -> bytes:
        assert length <= len(self.left), "more was taken than there is"
        taken, self.left = self.left[:length], self.left[length:]
        return taken

    def drop(self, length: int) -> None:
        self.take_all(length)


def read(pdu: bytes) -> tuple[Request, list[Proposal]]:
    proposals: list[Proposal] = []

    def answer(proposal: Proposal) -> Answer:
        proposals.append(proposal)
        return ACCEPTANCE.answer(proposal)

    received = Received(pdu)
    request = read_request(received, len(pdu) - 6, Answers(answer))
    assert received.left == b""
    return request, proposals


def item(kind: int, body: bytes) -> bytes:
    return bytes([kind, 0]) + len(body).to_bytes(2, "big") + body


def with_items(*items: bytes) -> bytes:
    return associate_request([]) + b"".join(items)


def extended_negotiation() -> list[Any]:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = UID(CT), True, True
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = UID(CT), b"\2\0\3"
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid, common.service_class_uid = UID(CT), UID("1.2.840.10008.4.2")
    return [role, extended, common]


def test_contexts_are_read_as_pynetdicom_writes_them() -> None:
    pdu = associate_request([(CT, (EXPLICIT, JPEG_LS)), (PRIVATE, (IMPLICIT,))], calling="CT1")

    request, proposals = read(pdu)

    assert proposals == [
        Proposal(context_id=1, abstract_syntax=CT, transfer_syntaxes=(EXPLICIT, JPEG_LS)),
        Proposal(context_id=3, abstract_syntax=PRIVATE, transfer_syntaxes=(IMPLICIT,)),
    ]
    assert [answer.context_id for answer in request.answers] == [1, 3]
    rest = A_ASSOCIATE_RQ()
    rest.decode(request.pdu)
    assert len(request.pdu) == 6 + rest.pdu_length
    assert rest.presentation_context == []
    assert (rest.calling_ae_title, rest.called_ae_title) == ("CT1", "ANY")
    assert rest.application_context_name == "1.2.840.10008.3.1.1.1"
    assert rest.user_information is not None
    assert rest.user_information.maximum_length == 16384


class Asked:
    """Answers as the node does, and counts."""

    def __init__(self) -> None:
        self.proposals: list[Proposal] = []
        self.answers = Answers(self._answer)

    def _answer(self, proposal: Proposal) -> Answer:
        self.proposals.append(proposal)
        return ACCEPTANCE.answer(proposal)


def context(number: int, syntaxes: int = 1) -> bytes:
    return b"\1\0\0\0" + item(0x30, f"1.2.{number}".encode()) + item(0x40, b"1.2.3") * syntaxes


def test_a_context_that_comes_again_is_answered_the_same_without_being_read() -> None:
    asked = Asked()

    first, again = asked.answers.to(context(1)), asked.answers.to(context(1))
    other = asked.answers.to(b"\3" + context(1)[1:])

    assert first == again
    assert (first.context_id, other.context_id) == (1, 3)
    assert [each.context_id for each in asked.proposals] == [1, 3]


def test_what_is_remembered_of_contexts_is_bounded_in_number_and_in_length() -> None:
    asked = Asked()
    for number in (*range(MAX_REMEMBERED + 1), 0):
        asked.answers.to(context(number))
    assert len(asked.proposals) == MAX_REMEMBERED + 2, "the oldest was remembered"

    long = context(1, MAX_REMEMBERED_BYTES // 9)
    assert asked.answers.to(long) == asked.answers.to(long)
    assert len(asked.proposals) == MAX_REMEMBERED + 4, "a long one was remembered"


def test_two_contexts_of_one_id_are_no_request() -> None:
    """Data in it could be in the syntax of one or of the other (PS3.8 9.3.2.2)."""
    pdu = associate_request([(CT, (EXPLICIT,)), (CT, (IMPLICIT,))])
    second = pdu.index(b"\3\0\0\0\x30")  # Before the abstract syntax of context 3.

    with pytest.raises(MalformedError, match="two presentation contexts"):
        read(pdu[:second] + b"\1" + pdu[second + 1 :])


def test_extended_negotiation_is_passed_over() -> None:
    plain, _ = read(associate_request())
    extended, _ = read(associate_request(items=extended_negotiation()))

    assert extended == plain


def test_roles_are_kept_for_storage_commitment_alone() -> None:
    plain, _ = read(associate_request())
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = UID(PUSH_MODEL), False, True

    kept, _ = read(associate_request(items=[*extended_negotiation(), role]))

    rest = A_ASSOCIATE_RQ()
    rest.decode(kept.pdu)
    assert rest.user_information is not None
    assert list(rest.user_information.role_selection) == [PUSH_MODEL]
    assert len(kept.pdu) == len(plain.pdu) + 8 + len(PUSH_MODEL)


def test_items_that_nobody_knows_are_passed_over() -> None:
    plain, _ = read(with_items())
    odd, _ = read(with_items(item(0x99, bytes(60_000)), item(0x10, b"twice")))

    assert odd == plain


@pytest.mark.parametrize(
    "pdu",
    [
        pytest.param(with_items(b"\x20"), id="half an item"),
        pytest.param(with_items(b"\x20\0\xff\xff"), id="more than there is"),
        pytest.param(with_items(item(0x20, b"\1\0\0")), id="no ID"),
        pytest.param(with_items(item(0x20, b"\2\0\0\0" + item(0x30, b"1.2"))), id="an even ID"),
        pytest.param(with_items(item(0x20, b"\1\0\0\0")), id="no abstract syntax"),
        pytest.param(with_items(item(0x20, b"\1\0\0\0\x30\0")), id="half an item in a context"),
        pytest.param(with_items(item(0x20, b"\1\0\0\0\x30\0\0\x09")), id="too long in a context"),
        pytest.param(with_items(item(0x20, bytes(MAX_ITEM_BYTES + 1))), id="a context too long"),
        pytest.param(with_items(item(0x50, b"\x58\0\0\x09")), id="too long in user information"),
        pytest.param(
            with_items(item(0x50, item(0x58, bytes(MAX_ITEM_BYTES + 1)))), id="identity too long"
        ),
        pytest.param(
            with_items(
                *[
                    item(0x20, bytes([number % 256, 0, 0, 0]) + item(0x30, b"1.2"))
                    for number in range(1, 259, 2)
                ]
            ),
            id="too many contexts",
        ),
        pytest.param(b"\1\0\0\0\0\x09" + bytes(9), id="less than the titles"),
    ],
)
def test_what_cannot_be_a_request_is_refused_by_one_error(pdu: bytes) -> None:
    with pytest.raises(MalformedError):
        read(pdu)


@given(st.integers(6, 600), st.binary(max_size=12))
def test_a_damaged_request_is_read_or_refused_by_one_error(place: int, damage: bytes) -> None:
    pdu = associate_request(items=extended_negotiation())
    damaged = pdu[:place] + damage + pdu[place + len(damage) :]

    try:
        request, _ = read(damaged)
    except MalformedError:
        return

    assert all(re.fullmatch(r"[0-9.]{1,64}", each.transfer_syntax) for each in request.answers)
