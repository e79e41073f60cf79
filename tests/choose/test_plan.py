"""From a decision to forms and destinations."""

import pytest

from scp.choose.eligibility import Refusal
from scp.choose.plan import Plan, PlannedForm, plan_for
from scp.choose.rules import Decision
from scp.model import Deliver, Form, PassReason

REFUSAL = Refusal(reason=PassReason.HIGH_BIT, detail="High Bit is wrong.")


def decision(convert: Form, *send_to: str) -> Decision:
    return Decision(rule="a", convert=convert, deliver=Deliver.AT_ONCE, send_to=send_to)


def test_an_eligible_instance_is_transcoded() -> None:
    plan = plan_for(decision(Form.HTJ2K, "archive", "pacs"), None)

    assert plan == Plan(
        rule="a",
        forms=(PlannedForm(form=Form.HTJ2K, send_to=("archive", "pacs")),),
        deliver=Deliver.AT_ONCE,
    )
    assert plan.form_for("pacs") is Form.HTJ2K


def test_an_instance_that_is_not_eligible_is_passed_with_the_reason() -> None:
    plan = plan_for(decision(Form.HTJ2K, "archive"), REFUSAL)

    assert plan.forms == (PlannedForm(form=Form.ORIGINAL, send_to=("archive",)),)
    assert plan.reason is PassReason.HIGH_BIT
    assert plan.detail == "High Bit is wrong."


@pytest.mark.parametrize("refusal", [None, REFUSAL])
def test_a_rule_that_asks_for_the_original_is_the_reason(refusal: Refusal | None) -> None:
    plan = plan_for(decision(Form.ORIGINAL, "archive"), refusal)

    assert [planned.form for planned in plan.forms] == [Form.ORIGINAL]
    assert plan.reason is PassReason.RULE_SAYS_ORIGINAL
    assert "'a'" in plan.detail


def test_what_can_be_transcoded_may_be_collapsed() -> None:
    plan = plan_for(decision(Form.ENHANCED, "archive"), None)

    assert [planned.form for planned in plan.forms] == [Form.ENHANCED]
    assert plan.reason is None


def test_what_can_be_neither_collapsed_nor_transcoded_is_passed() -> None:
    plan = plan_for(decision(Form.ENHANCED, "archive"), REFUSAL)

    assert [planned.form for planned in plan.forms] == [Form.ORIGINAL]
    assert plan.reason is PassReason.HIGH_BIT


@pytest.mark.parametrize("convert", list(Form))
def test_what_is_sent_nowhere_is_skipped(convert: Form) -> None:
    plan = plan_for(decision(convert), REFUSAL)

    assert plan.is_skipped
    assert plan.destinations == ()
    assert plan.reason is None
