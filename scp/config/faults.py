"""Turns what pydantic says of a configuration into faults at a place, in a person's words."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from scp.config.conditions import MatchError
from scp.config.network import ListenerSection, User
from scp.config.remote import (
    AzureDestination,
    DicomwebDestination,
    GcsDestination,
    S3Destination,
)
from scp.config.schema import Config, DicomDestination, FolderDestination, Outcome, Peer, Rule
from scp.config.values import Section
from scp.config.words import as_written, did_you_mean, shown
from scp.config.yaml_tree import Fault, Path, Tree

_KINDS: Final[dict[str, type[Section]]] = {
    "folder": FolderDestination,
    "dicom": DicomDestination,
    "dicomweb": DicomwebDestination,
    "s3": S3Destination,
    "azure": AzureDestination,
    "gcs": GcsDestination,
}
_KEY_MARK: Final = "[key]"
"""How pydantic says that the key of a mapping is meant, and not its value."""


def faults_of(error: ValidationError, raw: dict[str, Any], tree: Tree) -> Iterator[Fault]:
    """A fault for each thing that pydantic found; ``raw`` is what it validated."""
    for details in error.errors(include_url=False):
        path, is_of_key = _path_in(raw, details["loc"])
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, MatchError):
            for fault in cause.faults:
                whole = path + fault.path
                line, column = tree.place(whole, of_key=fault.is_of_key)
                yield Fault(line, column, f"{dotted(whole)}: {fault.message}")
            continue
        match details["type"]:
            case "extra_forbidden":
                line, column = tree.place(path, of_key=True)
                message = _unknown_key(path, raw)
            case "missing" if isinstance(path[-1], str):
                line, column = tree.place(path[:-1], of_key=True)
                message = f"{dotted(path[:-1])}: the key {path[-1]!r} is missing"
            case _:
                line, column = tree.place(path, of_key=is_of_key)
                message = f"{dotted(path)}: {_in_words(details)}"
        yield Fault(line, column, message)


def dotted(path: Path) -> str:
    """``rules[0].match`` for a person who looks for the place."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the configuration"


def _path_in(raw: Any, location: tuple[int | str, ...]) -> tuple[Path, bool]:
    """The path of a pydantic location, which also names the kind it took a destination for."""
    path: Path = ()
    current = raw
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        if part == _KEY_MARK and is_last:
            return path, True
        if len(path) == 2 and path[0] == "destinations" and index == 2:
            continue
        if _holds(current, part):
            current = current[part]
        elif not is_last:
            continue
        path = (*path, part)
    return path, False


def _holds(container: Any, part: int | str) -> bool:
    if isinstance(container, list):
        return isinstance(part, int) and part < len(container)
    return isinstance(container, dict) and part in container


def _unknown_key(path: Path, raw: dict[str, Any]) -> str:
    where = f" in {dotted(path[:-1])}" if len(path) > 1 else ""
    known = _section_at(path[:-1], raw).model_fields
    return f"unknown key {path[-1]!r}{where}{did_you_mean(str(path[-1]), known)}"


def _section_at(path: Path, raw: dict[str, Any]) -> type[Section]:
    match path:
        case ():
            return Config
        case ("destinations", str(name), *below):
            return _below(_KINDS[raw["destinations"][name]["kind"]], below)
        case ("rules", _, *below):
            return _below(Rule, below)
        case ("listeners", _, *below):
            return _below(ListenerSection, below)
        case ("access", "peers", _, *below):
            return _below(Peer, below)
        case ("access", "users", _, *below):
            return _below(User, below)
        case ("default",):
            return Outcome
    return _below(Config, path)


def _below(section: type[Section], path: Sequence[str | int]) -> type[Section]:
    """The section that keys lead to, of which some may be there or not."""
    for part in path:
        field = section.model_fields.get(str(part))
        kinds = [field.annotation, *get_args(field.annotation)] if field is not None else []
        section = next(
            (k for k in kinds if isinstance(k, type) and issubclass(k, Section)), Section
        )
    return section


def _in_words(details: ErrorDetails) -> str:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags"))
        words = re.findall(r"'([^']*)'", expected) or [expected]
        given = given.get("kind") if kind == "union_tag_invalid" else given
        suggestion = did_you_mean(given, words) if isinstance(given, str) else ""
        choice = " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]
        return f"must be {choice}, not {shown(given)}{suggestion}"
    say = _WORDS.get(kind)
    if say is None:
        return details["msg"][:1].lower() + details["msg"][1:]
    return say(shown(given), context)


_WORDS: Final[dict[str, Callable[[str, dict[str, Any]], str]]] = {
    **dict.fromkeys(
        ("bool_parsing", "bool_type"), lambda given, _: f"must be true or false, not {given}"
    ),
    **dict.fromkeys(
        ("int_parsing", "int_type", "int_from_float", "int_parsing_size"),
        lambda given, _: f"must be a whole number, not {given}",
    ),
    **dict.fromkeys(
        ("float_parsing", "float_type", "finite_number"),
        lambda given, _: f"must be a number, not {given}",
    ),
    **dict.fromkeys(("string_type", "enum_type"), lambda given, _: f"must be text, not {given}"),
    "path_type": lambda given, _: f"must be a path, not {given}",
    **dict.fromkeys(
        ("tuple_type", "list_type"), lambda given, _: f"must be a list like [a, b], not {given}"
    ),
    **dict.fromkeys(
        ("model_type", "model_attributes_type", "dict_type"),
        lambda given, _: f"must be a mapping of keys and values, not {given}",
    ),
    "missing": lambda _, __: "is missing",
    "too_short": lambda _, context: (
        "must not be empty"
        if context["min_length"] == 1
        else f"must have {context['min_length']} values"
    ),
    "too_long": lambda _, context: f"must have {context['max_length']} values",
    "string_too_short": lambda _, __: "must not be empty",
    "union_tag_not_found": lambda _, __: f"the key 'kind' is missing: {' or '.join(_KINDS)}",
    "greater_than": lambda given, context: (
        f"must be greater than {as_written(context['gt'])}, not {given}"
    ),
    "greater_than_equal": lambda given, context: (
        f"must be at least {as_written(context['ge'])}, not {given}"
    ),
    "less_than_equal": lambda given, context: (
        f"must be at most {as_written(context['le'])}, not {given}"
    ),
}
