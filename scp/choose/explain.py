"""Why an instance would be treated as it would: the data behind ``dcmpress explain``."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from scp.choose.attributes import read_attributes
from scp.choose.eligibility import Refusal, ineligible
from scp.choose.image_header import read_image_header
from scp.choose.plan import Plan, plan_for, with_hopes
from scp.choose.rules import Answer, Decision, Facts, RuleAnswer, RuleSet, fact
from scp.config.conditions import describe
from scp.config.schema import Config, DeleteOriginalsSection, Rule
from scp.errors import MalformedError, TruncatedError
from scp.header import open_header
from scp.model import CollapseReason, Form, Origin

type Foresee = Callable[[Path], str | None]
"""Why a file will not become a frame whatever else its series holds: a ``CollapseReason``, and words."""

_STUDY: Final = 0x0020000D
_SERIES: Final = 0x0020000E


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionExplained:
    """What one condition of a rule says."""

    key: str
    condition: str
    """In words."""
    answer: Answer
    found: tuple[str, ...] | None
    """The values it was asked of; None: the attribute is absent, or not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleExplained:
    """What one rule says. The first whose answer is yes decides."""

    rule: str
    answer: Answer
    conditions: tuple[ConditionExplained, ...]

    @property
    def failed(self) -> tuple[ConditionExplained, ...]:
        """The conditions that do not hold."""
        return tuple(one for one in self.conditions if one.answer is Answer.NO)


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationExplained:
    """Where the instance goes, and as what."""

    name: str
    kind: str
    where: str
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What would become of one file, and why."""

    path: Path
    facts: Facts
    rules: tuple[RuleExplained, ...]
    decision: Decision
    refusal: Refusal | None
    """Why DICOM does not allow to transcode it, whatever the rule asks for."""
    plan: Plan
    not_collapsed: str | None
    """Why it will be no frame although its rule says ``enhanced``, as far as its header tells."""
    destinations: tuple[DestinationExplained, ...]
    originals: DeleteOriginalsSection
    """When the file is deleted that was received."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        attributes = dict(self.facts.attributes.found)
        return {
            "path": str(self.path),
            "transfer_syntax": self.facts.transfer_syntax,
            "sop_class": self.facts.sop_class_uid,
            "instances": self.facts.instances,
            "origin": asdict(self.facts.origin),
            "attributes": {key: list(one.values) for key, one in attributes.items()},
            "rules": [asdict(rule) for rule in self.rules],
            "decision": asdict(self.decision),
            "eligible": self.refusal is None,
            "refusal": asdict(self.refusal) if self.refusal else None,
            "plan": {**asdict(self.plan), "is_skipped": self.plan.is_skipped},
            "not_collapsed": self.not_collapsed,
            "destinations": [asdict(destination) for destination in self.destinations],
            "delete_originals": {
                "after": self.originals.after,
                "plus_seconds": self.originals.plus,
                "in_words": kept_until(self.originals),
            },
        }


def kept_until(originals: DeleteOriginalsSection) -> str:
    """What becomes of the file as it was received."""
    if originals.after == "never":
        return "kept for good"
    when = "once every destination is done with it"
    if originals.after == "committed":
        when += " and one has vouched for it"
    longer = f"kept for {_period(originals.plus)} more " if originals.plus else "deleted "
    for_good = "; for good where none does" if originals.after == "committed" else ""
    return f"{longer}{when}{for_good}"


def _period(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length and seconds % length == 0:
            count = seconds / length
            return f"{count:g} {unit if count > 1 else unit[:-1]}"
    return f"{seconds:g} seconds"


def explain(
    config: Config,
    paths: Sequence[Path],
    *,
    origin: Origin | None = None,
    foresee: Foresee = lambda path: None,
) -> list[Explanation]:
    """Explain DICOM files; those of one series count as all of its instances.

    Parameters
    ----------
    config
        Whose rules.
    paths
        Files, not folders.
    origin
        As if received so. None: as the file says, which a node's own files do.
    foresee
        Asked of what is to become part of an enhanced object.

    Raises
    ------
    OSError
        A file cannot be opened or read. Content never raises.
    """
    rule_set = RuleSet(config.rules, config.default)
    seen = [_Seen(path, rule_set, origin) for path in paths]
    members = Counter(one.series for one in seen)
    return [_explain_one(config, rule_set, one, members[one.series], foresee) for one in seen]


class _Seen:
    """What a first look at a file tells."""

    def __init__(self, path: Path, rule_set: RuleSet, origin: Origin | None) -> None:
        self.path = path
        self.origin = origin or Origin(calling_ae_title="", called_ae_title="", peer_address="")
        self.transfer_syntax = ""
        self.sop_class_uid = ""
        self.series: tuple[str, ...] = (str(path),)
        self.attributes = read_attributes(path, rule_set.wanted)
        try:
            with open_header(path) as header:
                self.transfer_syntax = header.transfer_syntax
                self.sop_class_uid = header.meta.sop_class_uid
                if origin is None:
                    self.origin = header.meta.origin
                uids = [
                    header.value(element, 64).decode("latin-1").strip(" \0")
                    for element in header.elements(_SERIES + 1)
                    if element.tag in (_STUDY, _SERIES) and not element.is_undefined_length
                ]
                self.series = tuple(uids) or self.series
        except (MalformedError, TruncatedError):
            pass  # The explanation says so: the header of the image cannot be read either.


def _explain_one(
    config: Config, rule_set: RuleSet, seen: _Seen, instances: int, foresee: Foresee
) -> Explanation:
    facts = Facts(
        attributes=seen.attributes,
        origin=seen.origin,
        transfer_syntax=seen.transfer_syntax,
        sop_class_uid=seen.sop_class_uid,
        instances=instances,
    )
    decision = rule_set.decide(facts)
    header, most = read_image_header(seen.path), config.codec.max_instance_bytes
    refusal = ineligible(header, max_native_bytes=most)
    plan, why = plan_for(decision, refusal), None
    if decision.convert is Form.ENHANCED and not plan.is_skipped:
        plan = plan_for(replace(decision, convert=Form.HTJ2K), refusal)
        if ineligible(header, max_native_bytes=most, is_for_volume=True) is None:
            takers = [n for n, each in config.destinations.items() if each.accepts_collapsed]
            why = foresee(seen.path)
            hoped = plan if why else with_hopes(plan, takers)
            if why is None and hoped.otherwise is None:
                why = f"{CollapseReason.NOT_ACCEPTED}: none of its destinations has `accepts_collapsed`"
            plan = hoped
    answers = zip(config.rules, rule_set.answers(facts), strict=True)
    return Explanation(
        path=seen.path,
        facts=facts,
        rules=tuple(_explain_rule(rule, answer, facts) for rule, answer in answers),
        decision=decision,
        refusal=refusal,
        plan=plan,
        not_collapsed=why,
        originals=_originals(config, decision),
        destinations=tuple(
            DestinationExplained(
                name=name,
                kind=config.destinations[name].kind,
                where=config.destinations[name].place,
                form=plan.form_for(name).value,
            )
            for name in plan.destinations
        ),
    )


def _originals(config: Config, decision: Decision) -> DeleteOriginalsSection:
    rule = next((rule for rule in config.rules if rule.name == decision.rule), config.default)
    return rule.delete_originals or config.delete_originals


def _explain_rule(rule: Rule, answer: RuleAnswer, facts: Facts) -> RuleExplained:
    conditions = []
    for key, condition_answer in answer.conditions:
        attribute = fact(facts, key)
        conditions.append(
            ConditionExplained(
                key=key,
                condition=describe(rule.match[key]),
                answer=condition_answer,
                found=None if attribute is None else attribute.values,
            )
        )
    return RuleExplained(rule=rule.name, answer=answer.answer, conditions=tuple(conditions))
