"""Site policy: which rule an instance falls under, and what the rule asks for."""

import hashlib
import ipaddress
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from typing import Final

from pydicom.uid import UID

from scp.choose.attributes import Attribute, Attributes, Wanted, wanted
from scp.config.conditions import (
    All,
    AnyOf,
    Between,
    Condition,
    Exists,
    Not,
    Regex,
    as_number,
)
from scp.config.match_keys import INSTANCES, PEER_ADDRESS
from scp.config.regexes import compile_regex
from scp.config.schema import DEFAULT_RULE, Outcome, Rule
from scp.model import Deliver, Form, Origin, Priority

logger = logging.getLogger(__name__)

_REGEX_SECONDS: Final = 0.02
"""Of this process' time, for one attribute with all its values; a usual one takes microseconds."""
_REMEMBERED_SEARCHES: Final = 1024
"""An attribute that takes too long should do so once, and not for each instance of its series."""

type _Test = Callable[[Attribute | None], bool]


class Answer(StrEnum):
    """Whether a condition, or a rule, holds."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """It depends on how many instances the series will have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What rules can know of one instance. Instances with equal facts get equal decisions."""

    attributes: Attributes
    origin: Origin
    transfer_syntax: str
    sop_class_uid: str
    instances: int | None = None
    """Of the whole series; None while it is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the first rule that matches asks for."""

    rule: str
    """Its name, or ``default``."""
    convert: Form
    deliver: Deliver
    """Never at once for a series that collapses."""
    send_to: tuple[str, ...]
    """Empty: skipped by policy."""
    quiet_seconds: float | None = None
    """None: as the ``series`` section says."""
    is_urgent: bool = False
    """It goes before what is not, where both wait for one destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAnswer:
    """What one rule says to an instance."""

    rule: str
    answer: Answer
    conditions: tuple[tuple[str, Answer], ...]
    """By match key, in the order of the configuration."""


class RuleSet:
    """The rules of one configuration, in order. Immutable; safe to use from several threads."""

    def __init__(self, rules: Sequence[Rule], default: Outcome) -> None:
        self._rules = tuple(_CompiledRule(rule) for rule in rules)
        self._default = _decision(DEFAULT_RULE, default, None)
        self.wanted: Wanted = wanted(rules)
        """What :func:`~scp.choose.attributes.read_attributes` has to read for these rules."""
        self.identity: str = _identity(rules, default)
        """A digest; equal for rule sets that decide alike because they were written alike."""

    def decide(self, facts: Facts) -> Decision:
        """The decision for an instance of a closed series: the first rule that matches wins."""
        for rule in self._rules:
            if rule.answer(facts) is Answer.YES:
                return rule.decision
        return self._default

    def decide_open(self, facts: Facts) -> Decision | None:
        """The decision that :meth:`decide` is sure to make once the series is closed, if any is."""
        for rule in self._rules:
            answer = rule.answer(facts)
            if answer is Answer.YES:
                return rule.decision
            if answer is Answer.UNKNOWN:
                return None
        return self._default

    def split[Member](self, members: Mapping[Member, Facts]) -> dict[Decision, list[Member]]:
        """The members of a closed series by decision, in the order of their first member."""
        known: dict[Facts, Decision] = {}
        parts: dict[Decision, list[Member]] = {}
        for member, facts in members.items():
            decision = known.get(facts)
            if decision is None:
                decision = known[facts] = self.decide(facts)
            parts.setdefault(decision, []).append(member)
        return parts

    def answers(self, facts: Facts) -> list[RuleAnswer]:
        """What every rule says, those after the winner too; for a person."""
        return [rule.explain(facts) for rule in self._rules]


class _CompiledRule:
    def __init__(self, rule: Rule) -> None:
        self.decision = _decision(rule.name, rule, rule.quiet_seconds)
        self._has_warned = False
        self._tests = [
            (key, _compile(key, condition, partial(self._warn, key)))
            for key, condition in rule.match.items()
        ]

    def answer(self, facts: Facts) -> Answer:
        overall = Answer.YES
        for key, test in self._tests:
            answer = _ask(test, key, facts)
            if answer is Answer.NO:
                return answer
            if answer is Answer.UNKNOWN:
                overall = answer
        return overall

    def explain(self, facts: Facts) -> RuleAnswer:
        conditions = tuple((key, _ask(test, key, facts)) for key, test in self._tests)
        return RuleAnswer(rule=self.decision.rule, answer=self.answer(facts), conditions=conditions)

    def _warn(self, key: str) -> None:
        """Say once, and without the value, that an expression was given up."""
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "rule %r: the regex for %s took too long on a value, which counts as no match; "
                "write it without repeats within repeats",
                self.decision.rule,
                key,
            )


def fact(facts: Facts, key: str) -> Attribute | None:
    """What a match key stands for in these facts; None: absent, or not yet known."""
    origin = facts.origin
    match key:
        case "calling_ae_title":
            return _present(origin.calling_ae_title)
        case "called_ae_title":
            return _present(origin.called_ae_title)
        case "peer_address":
            return _present(origin.peer_address)
        case "transfer_syntax":
            return _named_uid(facts.transfer_syntax)
        case "sop_class":
            return _named_uid(facts.sop_class_uid)
        case "instances":
            if facts.instances is None:
                return None
            return Attribute((str(facts.instances),), is_number=True)
    return facts.attributes.get(key)


def _ask(test: _Test, key: str, facts: Facts) -> Answer:
    if key == INSTANCES and facts.instances is None:
        return Answer.UNKNOWN
    return Answer.YES if test(fact(facts, key)) else Answer.NO


def _present(text: str) -> Attribute | None:
    return Attribute((text,)) if text else None


@lru_cache(maxsize=1024)
def _named_uid(uid: str) -> Attribute | None:
    if not uid:
        return None
    known = UID(uid)
    return Attribute(
        tuple(dict.fromkeys(name for name in (uid, known.keyword, known.name) if name))
    )


def _decision(name: str, outcome: Outcome, quiet_seconds: float | None) -> Decision:
    collapses = outcome.convert is Form.ENHANCED
    deliver = Deliver.WHEN_QUIET if collapses else outcome.deliver
    hurries = Priority.URGENT if deliver is Deliver.AT_ONCE else Priority.NORMAL
    return Decision(
        rule=name,
        convert=outcome.convert,
        deliver=deliver,
        is_urgent=(outcome.priority or hurries) is Priority.URGENT,
        send_to=outcome.send_to,
        quiet_seconds=quiet_seconds,
    )


def _identity(rules: Sequence[Rule], default: Outcome) -> str:
    written = [(rule.name, sorted(rule.match.items()), *_asked(rule)) for rule in rules]
    quiet = [rule.quiet_seconds for rule in rules]
    return hashlib.sha256(repr((written, quiet, _asked(default))).encode()).hexdigest()[:16]


def _asked(outcome: Outcome) -> tuple[str | None, ...]:
    return outcome.convert.value, outcome.deliver.value, outcome.priority, *outcome.send_to


def _compile(key: str, condition: Condition, gave_up: Callable[[], None]) -> _Test:
    """``gave_up`` is called when a search has taken too long."""
    match condition:
        case AnyOf(values):
            if key == PEER_ADDRESS:
                return _any_value([_address_test(value) for value in values])
            return _any_of(values)
        case Not(inner):
            holds = _compile(key, inner, gave_up)
            return lambda attribute: not holds(attribute)
        case Regex(pattern):
            return _regex_test(pattern, gave_up)
        case Between(at_least, at_most):
            return _any_value([_range_test(at_least, at_most)])
        case Exists(expected):
            return lambda attribute: (attribute is not None) is expected
        case All(conditions):
            tests = [_compile(key, one, gave_up) for one in conditions]
            return lambda attribute: all(test(attribute) for test in tests)


def _any_value(tests: Sequence[Callable[[str], bool]]) -> _Test:
    """One of the values passes one of the tests; an attribute without value has an empty one."""

    def holds(attribute: Attribute | None) -> bool:
        if attribute is None:
            return False
        return any(test(value) for value in attribute.values or ("",) for test in tests)

    return holds


def _regex_test(pattern: str, gave_up: Callable[[], None]) -> _Test:
    search = compile_regex(pattern).search

    @lru_cache(maxsize=_REMEMBERED_SEARCHES)
    def is_in_one_of(values: tuple[str, ...]) -> bool:
        # process_time, which is what the library's own limit counts.
        deadline = time.process_time() + _REGEX_SECONDS
        try:
            for value in values:
                # Less than 0 would be no limit at all.
                left = max(deadline - time.process_time(), 0.0)
                if search(value, timeout=left) is not None:
                    return True
        except TimeoutError:
            gave_up()
        return False

    return lambda attribute: attribute is not None and is_in_one_of(attribute.values or ("",))


def _any_of(values: Sequence[str]) -> _Test:
    texts = frozenset(value.casefold() for value in values)
    globs = [_glob(value) for value in values if "*" in value or "?" in value]
    numbers = frozenset(number for value in values if (number := as_number(value)) is not None)
    as_text = _any_value(
        [lambda text: text.casefold() in texts, *(glob_test for glob_test in globs)]
    )
    as_numbers = _any_value([lambda text: as_number(text) in numbers])

    def holds(attribute: Attribute | None) -> bool:
        if as_text(attribute):
            return True
        # Only numeric values: "0123" is another accession number than "123".
        return attribute is not None and attribute.is_number and as_numbers(attribute)

    return holds


def _glob(value: str) -> Callable[[str], bool]:
    # Atomic groups: what a sender writes must not make the match take exponential time.
    head, *rest = ("".join(_glob_parts(part)) for part in re.split(r"\*+", value))
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    tail = f".*{rest[-1]}" if rest else ""
    fullmatch = re.compile(head + middle + tail, re.IGNORECASE | re.DOTALL).fullmatch
    return lambda text: fullmatch(text) is not None


def _glob_parts(part: str) -> list[str]:
    return ["." if character == "?" else re.escape(character) for character in part]


def _range_test(at_least: float | None, at_most: float | None) -> Callable[[str], bool]:
    def holds(text: str) -> bool:
        number = as_number(text)
        if number is None:
            return False
        return (at_least is None or number >= at_least) and (at_most is None or number <= at_most)

    return holds


def _address_test(value: str) -> Callable[[str], bool]:
    if "*" in value or "?" in value:
        return _glob(value)
    network = ipaddress.ip_network(value, strict=False)

    def holds(text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        mapped = address.ipv4_mapped if address.version == 6 else None
        return (mapped or address) in network

    return holds
