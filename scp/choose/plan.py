"""What is to become of one instance: the forms it is delivered in, and where each goes."""

from collections.abc import Collection
from dataclasses import dataclass, replace

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
    otherwise: Form | None = None
    """Instead of ``enhanced``, where its series, once closed, does not allow that; else None."""

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


def with_hopes(single: Plan, takers: Collection[str]) -> Plan:
    """The plan of an instance that may become a frame, for the destinations that take volumes.

    Parameters
    ----------
    single
        The same instance's as a single frame.
    takers
        Which destinations do; the others get the single frame.
    """
    takes = tuple(name for name in single.destinations if name in takers)
    if not takes:
        return single
    (alone,) = single.forms
    others = tuple(name for name in alone.send_to if name not in takes)
    forms = (PlannedForm(form=Form.ENHANCED, send_to=takes), replace(alone, send_to=others))
    return replace(
        single,
        forms=forms if others else forms[:1],
        reason=None,
        detail="",
        otherwise=alone.form,
    )
