"""A model of what a file system may show after power was lost in the middle of recorded operations.

Sure is only what was synced: a file's content by its own fsync, a change of names by the fsync of a
folder that it touched. Everything else may be there or not, each change by itself; a rename is there
whole or not at all, as every journalling file system has it. What a failed fsync was to cover stays
unsure whatever is synced later.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.buffer.recorder import MARKS, Operation


@dataclass(slots=True, eq=False)
class _File:
    written: bytes = b""
    synced: bytes = b""


@dataclass(slots=True, eq=False)
class _Folder:
    entries: dict[str, "_Node"] = field(default_factory=dict)
    """As running programs see it."""


type _Node = _File | _Folder
type Keep = Callable[[str], bool]
"""Asked with ``name``, ``rename``, ``removal`` or ``content``."""


@dataclass(slots=True)
class _Change:
    """One change of names: an entry less, an entry more, or both."""

    removed: tuple[_Folder, str] | None
    added: tuple[_Folder, str, _Node] | None
    is_synced: bool = False

    @property
    def kind(self) -> str:
        if self.removed is None:
            return "name"
        return "removal" if self.added is None else "rename"

    def touches(self, folder: _Folder) -> bool:
        return any(part is not None and part[0] is folder for part in (self.removed, self.added))


class FileSystem:
    """Takes the operations one after the other; :meth:`lose_power` builds what may be left."""

    def __init__(self, operations: Iterable[Operation] = ()) -> None:
        self._root = _Folder()
        self._changes: list[_Change] = []
        self._unsynced: list[_Change] = []
        for operation in operations:
            self.apply(operation)

    def apply(self, operation: Operation) -> None:
        """Do one operation; marks do nothing."""
        if operation.kind in MARKS:
            return
        parent, name = self._place(operation.path)
        match operation.kind:
            case "create":
                self._change(None, (parent, name, _File()))
            case "make_folder":
                self._change(None, (parent, name, _Folder()))
            case "link":
                source_parent, source_name = self._place(operation.source)
                self._change(None, (parent, name, source_parent.entries[source_name]))
            case "rename":
                removed = self._place(operation.source)
                self._change(removed, (parent, name, removed[0].entries[removed[1]]))
            case "unlink":
                self._change((parent, name), None)
            case "remove_tree":
                self._remove_tree(parent, name)
            case "write":
                self._file(operation.path).written += operation.content
            case "sync_file":
                file = self._file(operation.path)
                file.synced = file.written
            case "sync_folder":
                folder = self._node(operation.path)
                for change in self._unsynced:
                    change.is_synced = change.touches(folder)
                self._unsynced = [change for change in self._unsynced if not change.is_synced]
            case "sync_folder_failed":
                # The kernel took them for written: no later sync comes back to them.
                folder = self._node(operation.path)
                self._unsynced = [change for change in self._unsynced if not change.touches(folder)]

    def lose_power(self, target: Path, keep: Keep = lambda _: False) -> None:
        """Build in ``target`` what is left; ``keep`` is asked about each thing that was not synced."""
        left: dict[int, dict[str, _Node]] = {id(self._root): {}}
        for change in self._changes:
            if not (change.is_synced or keep(change.kind)):
                continue
            if change.removed is not None:
                folder, name = change.removed
                left.setdefault(id(folder), {}).pop(name, None)
            if change.added is not None:
                folder, name, node = change.added
                left.setdefault(id(folder), {})[name] = node
        for path, node in _tree(self._root, left, target):
            if isinstance(node, _Folder):
                path.mkdir(exist_ok=True)
            elif keep("content"):
                path.write_bytes(node.written)
            else:
                path.write_bytes(node.synced)

    def _change(
        self, removed: tuple[_Folder, str] | None, added: tuple[_Folder, str, _Node] | None
    ) -> None:
        change = _Change(removed, added)
        self._changes.append(change)
        self._unsynced.append(change)
        if removed is not None:
            del removed[0].entries[removed[1]]
        if added is not None:
            added[0].entries[added[1]] = added[2]

    def _remove_tree(self, parent: _Folder, name: str) -> None:
        node = parent.entries[name]
        if isinstance(node, _Folder):
            for child in list(node.entries):
                self._remove_tree(node, child)
        self._change((parent, name), None)

    def _place(self, path: str) -> tuple[_Folder, str]:
        *parents, name = path.split("/")
        folder: _Node = self._root
        for part in parents:
            assert isinstance(folder, _Folder)
            folder = folder.entries.get(part, _Folder())
        assert isinstance(folder, _Folder)
        return folder, name

    def _node(self, path: str) -> _Folder:
        parent, name = self._place(path)
        node = parent if name == "." else parent.entries[name]
        assert isinstance(node, _Folder)
        return node

    def _file(self, path: str) -> _File:
        parent, name = self._place(path)
        node = parent.entries[name]
        assert isinstance(node, _File)
        return node


def _tree(
    folder: _Folder, left: dict[int, dict[str, _Node]], path: Path
) -> Iterator[tuple[Path, _Node]]:
    yield path, folder
    for name, node in left.get(id(folder), {}).items():
        if isinstance(node, _Folder):
            yield from _tree(node, left, path / name)
        else:
            yield path / name, node
