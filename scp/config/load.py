"""Loads a configuration and checks it as a whole: every fault in one run, each with its place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from scp.config.certificates import faults_of_certificates, faults_of_secrets
from scp.config.doubts import doubts_of
from scp.config.faults import dotted, faults_of
from scp.config.folders import faults_of_folders
from scp.config.listeners import faults_of_listeners
from scp.config.schema import (
    DEFAULT_RULE,
    KEEPS_SIDECARS,
    Config,
    NodeSection,
    parse_commitment,
)
from scp.config.words import did_you_mean, shown
from scp.config.yaml_tree import MAX_BYTES, Fault, Tree, read_tree
from scp.errors import ConfigError
from scp.model import Form

ARCHIVE: Final = "archive"
"""The destination that there is where a configuration names none."""
BUILT_IN: Final = "the built-in configuration"
"""What faults call it; its folders may be the wrong ones all the same."""


def load(path: Path | None, *, with_files: bool = False) -> Config:
    """Read and check a configuration.

    A file may leave out everything: without ``destinations`` there is the folder ``archive`` in
    the node's data folder, without ``default`` all goes there as HTJ2K. Relative paths in it start
    at the current directory.

    Parameters
    ----------
    path
        None: the built-in configuration.
    with_files
        Whether certificates, keys and files of secrets are tried too: they have to be good today.

    Raises
    ------
    ConfigError
        With every fault, as ``file:line:col: message`` in file order.
    """
    if path is None:
        return parse(b"", BUILT_IN, with_files=with_files)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"{path}:1:1: cannot be read: {reason}"]) from error
    return parse(content, str(path), with_files=with_files)


def doubts(path: Path) -> list[str]:
    """What a configuration that is good says to no effect, as ``file:line:col: warning: message``."""
    tree = read_tree(path.read_bytes())
    found = sorted(set(doubts_of(load(path), tree)))
    return [f"{path}:{doubt.line}:{doubt.column}: warning: {doubt.message}" for doubt in found]


def parse(content: bytes, name: str, *, with_files: bool = False) -> Config:
    """Check the content of a file that faults call ``name``.

    Raises
    ------
    ConfigError
        As :func:`load` does.
    """
    tree = read_tree(content)
    faults = list(tree.faults)
    config: Config | None = None
    if tree.value is None and not faults:
        tree.value = {}
    if isinstance(tree.value, dict):
        # A section with nothing in it, its keys commented out perhaps, is as good as none.
        given = {
            key: value
            for key, value in tree.value.items()
            if value is not None or key not in Config.model_fields
        }
        raw = _completed(given)
        try:
            config = Config.model_validate(raw)
        except ValidationError as error:
            faults.extend(faults_of(error, raw, tree))
        faults.extend(_faults_between_sections(given, raw, tree))
        faults.extend(faults_of_folders(raw, tree))
        faults.extend(faults_of_listeners(given, tree))
        if with_files and config is not None:
            faults.extend(faults_of_certificates(config, tree))
            faults.extend(faults_of_secrets(config, tree))
    elif tree.value is not None:
        line, column = tree.place(())
        found = shown(tree.value)
        faults.append(Fault(line, column, f"must be a mapping of sections, not {found}"))
    if faults or config is None:
        in_order = sorted(set(faults))
        raise ConfigError(
            [f"{name}:{fault.line}:{fault.column}: {fault.message}" for fault in in_order]
        )
    return config


def _completed(given: dict[str, Any]) -> dict[str, Any]:
    raw = dict(given)
    if "destinations" not in raw:
        node = raw.get("node")
        data = node.get("data") if isinstance(node, dict) else None
        folder = Path(data) if isinstance(data, str) else NodeSection().data
        raw["destinations"] = {ARCHIVE: {"kind": "folder", "path": str(folder / ARCHIVE)}}
    if "default" not in raw:
        raw["default"] = {"convert": Form.HTJ2K, "send_to": [ARCHIVE]}
    return raw


def _faults_between_sections(
    given: dict[str, Any], raw: dict[str, Any], tree: Tree
) -> Iterator[Fault]:
    """What only two places together make wrong. Anything may stand anywhere here."""
    destinations = raw["destinations"]
    names = list(destinations) if isinstance(destinations, dict) else None
    rules = raw.get("rules")
    outcomes: list[tuple[tuple[str | int, ...], Any]] = []
    if isinstance(rules, list):
        outcomes += [(("rules", index), rule) for index, rule in enumerate(rules)]
        yield from _names_taken_twice(rules, tree)
    if "default" in given:
        outcomes.append((("default",), given["default"]))
    elif names is not None and ARCHIVE not in names:
        message = f"a default section is needed where no destination is called {ARCHIVE!r}"
        yield Fault(*tree.place(("destinations",), of_key=True), message)
    else:
        yield from _nobody_to_vouch(("default",), raw["default"], raw, tree)
    commit = raw.get("commit")
    committed_to = commit.get("to") if isinstance(commit, dict) else None
    if names is not None and isinstance(committed_to, list):
        yield from _wrong_names(("commit", "to"), committed_to, names, tree)
    codec = raw.get("codec")
    is_verified = not (isinstance(codec, dict) and codec.get("verify") == "off")
    enhanced = raw.get("enhanced")
    has_sidecars = isinstance(enhanced, dict) and enhanced.get("restore_record") == "sidecar"
    for path, outcome in outcomes:
        if not isinstance(outcome, dict):
            continue
        if outcome.get("convert") == Form.ENHANCED and not is_verified:
            where = (*path, "convert")
            message = f"{dotted(where)}: enhanced needs codec.verify: independent"
            yield Fault(*tree.place(where), message)
        send_to = outcome.get("send_to")
        yield from _nobody_to_vouch(path, outcome, raw, tree)
        if outcome.get("convert") == Form.ENHANCED and has_sidecars and send_to:
            yield from _nowhere_for_sidecars((*path, "send_to"), send_to, destinations, tree)
        if names is not None and isinstance(send_to, list):
            yield from _wrong_names((*path, "send_to"), send_to, names, tree)


def _nobody_to_vouch(
    path: tuple[str | int, ...], outcome: dict[str, Any], raw: dict[str, Any], tree: Tree
) -> Iterator[Fault]:
    """Where no destination is asked for storage commitment, no original would ever be committed."""
    own = outcome.get("delete_originals")
    policy = raw.get("delete_originals") if own is None else own
    destinations, send_to = raw["destinations"], outcome.get("send_to")
    is_asked_for = isinstance(policy, dict) and policy.get("after") == "committed"
    if not is_asked_for or not isinstance(destinations, dict) or not isinstance(send_to, list):
        return
    sections = [destinations.get(name) if isinstance(name, str) else None for name in send_to]
    vouching = [
        isinstance(section, dict) and parse_commitment(section.get("commitment")) is not None
        for section in sections
    ]
    if None not in sections and not any(vouching):
        # The built-in default is written nowhere.
        where: tuple[str | int, ...] = (*path, "send_to")
        where = where if where in tree.places else ("delete_originals", "after")
        message = (
            f"{dotted((*path, 'send_to'))}: delete_originals: after: committed needs a destination "
            "with commitment: true here; name one, or let this rule say after: delivered"
        )
        yield Fault(*tree.place(where), message)


def _nowhere_for_sidecars(
    path: tuple[str | int, ...], send_to: Any, destinations: Any, tree: Tree
) -> Iterator[Fault]:
    """No node or server takes a restore record: it would be lost with the job."""
    if not isinstance(send_to, list) or not isinstance(destinations, dict):
        return
    kinds = [d.get("kind") for name in send_to if isinstance(d := destinations.get(name), dict)]
    if not set(kinds) & set(KEEPS_SIDECARS):
        message = (
            f"{dotted(path)}: restore_record: sidecar needs a folder or an object store here, "
            "which keeps the record beside the object"
        )
        yield Fault(*tree.place(path), message)


def _names_taken_twice(rules: list[Any], tree: Tree) -> Iterator[Fault]:
    taken = {DEFAULT_RULE: 0}
    for index, rule in enumerate(rules):
        name = rule.get("name") if isinstance(rule, dict) else None
        if not isinstance(name, str):
            continue
        place = tree.place(("rules", index, "name"))
        if name in taken:
            where = f"taken by the rule in line {taken[name]}" if taken[name] else "reserved"
            yield Fault(*place, f"rules[{index}].name: the name {name!r} is {where}")
        else:
            taken[name] = place[0]


def _wrong_names(
    path: tuple[str | int, ...], send_to: list[Any], names: list[str], tree: Tree
) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, name in enumerate(send_to):
        if not isinstance(name, str):
            continue
        place = tree.place((*path, index))
        if name not in names:
            hint = did_you_mean(name, names)
            yield Fault(*place, f"{dotted(path)}: no destination is called {shown(name)}{hint}")
        elif name in seen:
            yield Fault(*place, f"{dotted(path)}: {shown(name)} is named twice")
        seen.add(name)
