"""Reads YAML into plain data that remembers where everything stands.

Every scalar stays the text that was written: YAML 1.1 would turn ``NO`` into false, ``0123`` into
83 and ``2024-01-01`` into a date, and only the schema knows what was meant.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

type Path = tuple[str | int, ...]

MAX_BYTES: Final = 256 * 1024
"""Of a configuration; reading more would take seconds."""
MAX_DEPTH: Final = 32
"""Mappings and lists in each other; the schema needs 8."""
MAX_NODES: Final = 50_000
"""After aliases are followed: ten lines of YAML can stand for millions of nodes."""

_SCALARS: Final = ("str", "int", "float", "bool", "timestamp", "merge", "value", "null")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Something wrong, and where; lines and columns count from 1."""

    line: int
    column: int
    message: str


@dataclass(slots=True)
class Tree:
    """Plain data: mappings, lists, text and None."""

    value: Any = None
    faults: list[Fault] = field(default_factory=list)
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column of each value."""
    key_places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column of the key of each value in a mapping."""

    def place(self, path: Path, *, of_key: bool = False) -> tuple[int, int]:
        """Where the value stands, or what is nearest around it."""
        for end in range(len(path), -1, -1):
            part = path[:end]
            places = self.key_places if of_key and part in self.key_places else self.places
            if part in places:
                return places[part]
        return 1, 1


def read_tree(content: bytes) -> Tree:
    """Read the bytes of one YAML file; what is wrong is in ``faults``."""
    tree = Tree()
    if len(content) > MAX_BYTES:
        message = f"a configuration has {MAX_BYTES} bytes at most"
        tree.faults.append(Fault(1, 1, message))
        return tree
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", errors="replace")
        tree.faults.append(_fault_at(before, "the file is not UTF-8 text"))
        return tree
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        character = f"character {error.character!r} is not allowed in YAML"
        tree.faults.append(_fault_at(text[: error.position], character))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        tree.faults.append(Fault(line, column, f"not valid YAML: {message}"))
    except (yaml.YAMLError, ValueError) as error:
        # PyYAML lets a ValueError out, for one for an escape beyond the last character of Unicode.
        tree.faults.append(Fault(1, 1, f"not valid YAML: {error}"))
    else:
        if root is not None:
            _Converter(tree).convert_root(root)
    return tree


class _Loader(yaml.SafeLoader):
    """Composes nodes; never constructs objects."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            event = self.peek_event()  # type: ignore[no-untyped-call]
            message = f"more than {MAX_DEPTH} levels deep"
            raise yaml.composer.ComposerError(None, None, message, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _TooLargeError(Exception):
    pass


class _Converter:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._nodes = 0

    def convert_root(self, root: yaml.Node) -> None:
        try:
            self._tree.value = self._convert(root, ())
        except _TooLargeError:
            message = f"aliases expand to more than {MAX_NODES} values or {MAX_DEPTH} levels"
            self._tree.faults.append(Fault(1, 1, message))

    def _convert(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise _TooLargeError
        self._tree.places[path] = _place(node)
        kind = node.tag.rpartition(":")[2] if node.tag.startswith("tag:yaml.org,2002:") else ""
        match node:
            case yaml.MappingNode() if kind == "map":
                return self._convert_mapping(node, path)
            case yaml.SequenceNode() if kind == "seq":
                return [
                    self._convert(child, (*path, index)) for index, child in enumerate(node.value)
                ]
            case yaml.ScalarNode() if kind in _SCALARS:
                return None if kind == "null" else node.value
        self._fault(node, f"the tag {node.tag!r} is not used in a configuration")
        return None

    def _convert_mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        converted: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, "a key must be plain text")
                continue
            key = key_node.value
            inside = (*path, key)
            if key in converted:
                first = self._tree.key_places[inside][0]
                self._fault(key_node, f"the key {key!r} is here twice, first in line {first}")
                continue
            self._tree.key_places[inside] = _place(key_node)
            converted[key] = self._convert(value_node, inside)
        return converted

    def _fault(self, node: yaml.Node, message: str) -> None:
        self._tree.faults.append(Fault(*_place(node), message))


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _fault_at(before: str, message: str) -> Fault:
    line = before.count("\n")
    return Fault(line + 1, len(before) - (before.rfind("\n") + 1) + 1, message)
