"""What is to become of one instance: the forms it is delivered in, and where each goes."""

from dataclasses import dataclass

from scp.choose.eligibility import Refusal
from scp.choose.rules import Decision
from scp.model import Deliver, Form, PassReason


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedForm:
    """One form, and the destinations that get it."""

    form: Form
    send_to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A set of forms and the destinations of each."""

    rule: str
    """That decided, or ``default``."""
    forms: tuple[PlannedForm, ...]
    """None: skipped by policy. A destination is named once."""
    deliver: Deliver
    reason: PassReason | None = None
    """Why the original is delivered; None where it is converted, or skipped."""
    detail: str = ""
    """``reason`` in words."""

    @property
    def is_skipped(self) -> bool:
        return not self.forms

    @property
    def destinations(self) -> tuple[str, ...]:
        return tuple(name for planned in self.forms for name in planned.send_to)

    def form_for(self, destination: str) -> Form:
        """The form that a destination of this plan gets."""
        return next(planned.form for planned in self.forms if destination in planned.send_to)


def plan_for(decision: Decision, refusal: Refusal | None) -> Plan:
    """The plan that a rule's decision gives for an instance that DICOM allows to transcode, or not.

    ``enhanced`` is what is hoped for: only the closed series tells which of its instances can be
    collapsed. What cannot be is transcoded; what cannot be transcoded is passed.
    """
    if not decision.send_to:
        return Plan(rule=decision.rule, forms=(), deliver=decision.deliver)
    form, reason, detail = decision.convert, None, ""
    if decision.convert is Form.ORIGINAL:
        form, reason = Form.ORIGINAL, PassReason.RULE_SAYS_ORIGINAL
        detail = f"The rule {decision.rule!r} asks for the original."
    elif refusal is not None:
        form, reason, detail = Form.ORIGINAL, refusal.reason, refusal.detail
    return Plan(
        rule=decision.rule,
        forms=(PlannedForm(form=form, send_to=decision.send_to),),
        deliver=decision.deliver,
        reason=reason,
        detail=detail,
    )
