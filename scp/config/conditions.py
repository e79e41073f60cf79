"""What a rule's ``match`` may say: data, never code."""

import ipaddress
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydicom._uid_dict import UID_dictionary

from scp.config.match_keys import (
    INSTANCES,
    PEER_ADDRESS,
    UID_FACTS,
    has_text,
    parse_key,
)
from scp.config.regexes import compile_regex
from scp.config.words import as_written, did_you_mean, shown


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of the attribute's values equals one of these.

    Upper and lower case are the same, ``*`` and ``?`` are globs, numbers are compared as numbers.
    """

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition inside does not hold; an absent attribute satisfies it."""

    condition: "Condition"


@dataclass(frozen=True, slots=True)
class Regex:
    """One of the values contains a match; case counts unless the pattern begins with (?i)."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Between:
    """One of the values, as a number, lies in the closed range."""

    at_least: float | None
    at_most: float | None

    @property
    def is_empty(self) -> bool:
        return (
            self.at_least is not None and self.at_most is not None and self.at_least > self.at_most
        )


@dataclass(frozen=True, slots=True)
class Exists:
    """The attribute is there, with or without a value."""

    expected: bool


@dataclass(frozen=True, slots=True)
class All:
    """Every one holds."""

    conditions: tuple["Condition", ...]


type Condition = AnyOf | Not | Regex | Between | Exists | All

CONDITIONS: Final = (AnyOf, Not, Regex, Between, Exists, All)
OPERATORS: Final = ("not", "regex", "ge", "le", "exists")

type FaultPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class MatchFault:
    """One thing wrong in a ``match``, and where below it."""

    path: FaultPath
    message: str
    is_of_key: bool = False
    """Whether the last key of the path is wrong, and not its value."""


class MatchError(ValueError):
    """Everything wrong in one ``match``."""

    def __init__(self, faults: list[MatchFault]) -> None:
        super().__init__("; ".join(f"{_dotted(fault.path)}: {fault.message}" for fault in faults))
        self.faults = faults


def parse_match(value: Any) -> dict[str, Condition]:
    """Conditions by key, from what YAML or a program gives.

    Raises
    ------
    MatchError
        With every fault, for pydantic to report.
    """
    if not isinstance(value, Mapping):
        hint = "must be a mapping of attributes and values, like {Modality: [CT, MR]}"
        raise MatchError([MatchFault((), hint)])
    faults: list[MatchFault] = []
    conditions: dict[str, Condition] = {}
    for key, given in value.items():
        try:
            parser = _Parser(str(key))
        except ValueError as error:
            faults.append(MatchFault((str(key),), str(error), is_of_key=True))
            continue
        try:
            conditions[str(key)] = parser.parse(given, (str(key),))
        except _NotUnderstoodError as error:
            faults.extend(error.faults)
    if faults:
        raise MatchError(faults)
    return conditions


def describe(condition: Condition) -> str:
    """The condition in words, for a person."""
    match condition:
        case AnyOf(values):
            texts = [value or '""' for value in values]
            return texts[0] if len(texts) == 1 else f"one of {', '.join(texts)}"
        case Not(inner):
            return f"not {describe(inner)}"
        case Regex(pattern):
            return f"regex {pattern}"
        case Between(at_least, at_most):
            low = None if at_least is None else f">= {as_written(at_least)}"
            high = None if at_most is None else f"<= {as_written(at_most)}"
            return " and ".join(text for text in (low, high) if text)
        case Exists(expected):
            return "exists" if expected else "does not exist"
        case All(conditions):
            return " and ".join(describe(one) for one in conditions)


class _NotUnderstoodError(Exception):
    def __init__(self, faults: list[MatchFault]) -> None:
        super().__init__()
        self.faults = faults


def _wrong(path: FaultPath, message: str, *, is_of_key: bool = False) -> _NotUnderstoodError:
    return _NotUnderstoodError([MatchFault(path, message, is_of_key)])


class _Parser:
    """Parses the values of one key."""

    def __init__(self, key: str) -> None:
        tag = parse_key(key)
        self._key = key
        self._only_exists = tag is not None and not has_text(tag)
        self._check: Callable[[str], None] = {
            PEER_ADDRESS: _check_address,
            INSTANCES: _check_count,
            **dict.fromkeys(UID_FACTS, _check_uid),
        }.get(key, _accept)

    def parse(self, value: Any, path: FaultPath) -> Condition:
        if isinstance(value, CONDITIONS):
            return value
        if isinstance(value, Mapping):
            return self._parse_operators(value, path)
        if self._only_exists:
            raise _wrong(path, f"{self._key} has no values to compare: use {{exists: true}}")
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return AnyOf(tuple(self._collect(value, path)))
        return AnyOf((self._scalar(value, path),))

    def _collect(self, values: Sequence[Any], path: FaultPath) -> Iterator[str]:
        if not values:
            raise _wrong(path, "is an empty list: nothing would ever match")
        faults: list[MatchFault] = []
        for index, value in enumerate(values):
            try:
                yield self._scalar(value, (*path, index))
            except _NotUnderstoodError as error:
                faults.extend(error.faults)
        if faults:
            raise _NotUnderstoodError(faults)

    def _scalar(self, value: Any, path: FaultPath) -> str:
        if value is None:
            raise _wrong(path, 'has no value: write "" for an empty one, {exists: false} for none')
        if not isinstance(value, str | int | float):
            raise _wrong(path, "must be text or a number")
        text = str(value).strip()
        try:
            self._check(text)
        except ValueError as error:
            raise _wrong(path, str(error)) from error
        return text

    def _parse_operators(self, operators: Mapping[Any, Any], path: FaultPath) -> Condition:
        if not operators:
            raise _wrong(path, f"is an empty mapping: use one of {', '.join(OPERATORS)}")
        faults: list[MatchFault] = []
        conditions: list[Condition] = []
        for name, value in operators.items():
            try:
                conditions.append(self._parse_operator(str(name), value, (*path, str(name))))
            except _NotUnderstoodError as error:
                faults.extend(error.faults)
        if faults:
            raise _NotUnderstoodError(faults)
        condition = _simplest(conditions)
        for part in condition.conditions if isinstance(condition, All) else (condition,):
            if isinstance(part, Between) and part.is_empty:
                raise _wrong(path, f"no number is {describe(part)}: nothing would ever match")
        return condition

    def _parse_operator(self, name: str, value: Any, path: FaultPath) -> Condition:
        if name not in OPERATORS:
            known = ", ".join(OPERATORS)
            message = f"unknown condition {name!r}{did_you_mean(name, OPERATORS) or f': {known}'}"
            raise _wrong(path, message, is_of_key=True)
        if name == "not":
            return Not(self.parse(value, path))
        if name == "exists":
            if self._key == INSTANCES:
                raise _wrong(path, "a series always has instances", is_of_key=True)
            return Exists(_truth(value, path))
        if self._only_exists:
            raise _wrong(path, f"{self._key} has no values to compare: use {{exists: true}}")
        if name == "regex":
            return _regex(value, path)
        number = as_number(str(value)) if isinstance(value, str | int | float) else None
        if number is None or isinstance(value, bool):
            raise _wrong(path, f"must be a number, not {shown(value)}")
        return Between(number, None) if name == "ge" else Between(None, number)


def as_number(text: str) -> int | float | None:
    """The number that the text is, if it is one; whole numbers stay exact."""
    if "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _simplest(conditions: list[Condition]) -> Condition:
    ranges = [one for one in conditions if isinstance(one, Between)]
    if len(ranges) == 2:
        # One value must lie in both: two conditions of their own could be met by two values.
        low = next(one.at_least for one in ranges if one.at_least is not None)
        high = next(one.at_most for one in ranges if one.at_most is not None)
        rest = [one for one in conditions if not isinstance(one, Between)]
        conditions = [*rest, Between(low, high)]
    return conditions[0] if len(conditions) == 1 else All(tuple(conditions))


def _truth(value: Any, path: FaultPath) -> bool:
    text = str(value).lower()
    if text in ("true", "yes", "on"):
        return True
    if text in ("false", "no", "off"):
        return False
    raise _wrong(path, f"must be true or false, not {shown(value)}")


def _regex(value: Any, path: FaultPath) -> Regex:
    if not isinstance(value, str):
        raise _wrong(path, f"must be a regular expression as text, not {shown(value)}")
    try:
        compile_regex(value)
    except ValueError as error:
        raise _wrong(path, f"{shown(value)} is no regular expression: {error}") from error
    return Regex(value)


def _accept(text: str) -> None:
    """Any text may be compared with."""


def _check_address(text: str) -> None:
    if _is_glob(text):
        return
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        hint = "no IP address or network like 10.0.0.0/24"
        raise ValueError(f"{shown(text)} is {hint}") from error


def _check_count(text: str) -> None:
    if as_number(text) is None:
        raise ValueError(f"must be a number, not {shown(text)}")


def _check_uid(text: str) -> None:
    if _is_glob(text) or re.fullmatch(r"[0-9.]{1,64}", text):
        return
    names = {name for entry in UID_dictionary.values() for name in (entry[0], entry[4]) if name}
    if text.lower() not in {name.lower() for name in names}:
        raise ValueError(f"{shown(text)} is no UID or name of one{did_you_mean(text, names)}")


def _is_glob(text: str) -> bool:
    return "*" in text or "?" in text


def _dotted(path: FaultPath) -> str:
    return ".".join(str(part) for part in path) or "match"
