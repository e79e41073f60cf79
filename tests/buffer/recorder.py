"""Disks for tests: one that can be stopped at any call, one that also writes down what was done."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scp.durable import Disk, DurableFile, StrPath
from scp.errors import DiskFailedError

type Hook = Callable[[str, Path], None]
"""Called with the name of an operation and its path before it is done; what it raises, the call raises."""


class HookedDisk(Disk):
    """Asks ``hook`` before every call; an OSError of it is treated like one of the system."""

    def __init__(
        self, hook: Hook = lambda *_: None, now: Callable[[], float] | None = None
    ) -> None:
        if now is None:
            super().__init__()
        else:
            super().__init__(now)
        self.hook = hook

    def _ask(self, operation: str, path: StrPath) -> None:
        with self._watched(operation):
            self.hook(operation, Path(path))

    def create(self, path: StrPath) -> DurableFile:
        self._ask("create", path)
        return super().create(path)

    def append_to(self, path: Path) -> DurableFile:
        self._ask("append_to", path)
        return super().append_to(path)

    def write(self, file: DurableFile, *pieces: bytes | bytearray | memoryview) -> None:
        self._ask("write", file.path)
        super().write(file, *pieces)

    def sync_file(self, file: DurableFile) -> None:
        self._ask("sync_file", file.path)
        super().sync_file(file)

    def sync_folder(self, folder: StrPath, descriptor: int | None = None) -> None:
        self._ask("sync_folder", folder)
        super().sync_folder(folder, descriptor)

    def link(self, source: StrPath, target: StrPath) -> None:
        self._ask("link", target)
        super().link(source, target)

    def unlink(self, path: StrPath) -> None:
        self._ask("unlink", path)
        super().unlink(path)

    def rename(self, source: StrPath, target: StrPath) -> None:
        self._ask("rename", target)
        super().rename(source, target)

    def move(self, source: StrPath, target: StrPath) -> None:
        self._ask("move", target)
        super().move(source, target)

    def make_folder(self, folder: Path) -> None:
        self._ask("make_folder", folder)
        super().make_folder(folder)

    def remove_folder(self, folder: Path) -> None:
        self._ask("remove_folder", folder)
        super().remove_folder(folder)

    def remove_tree(self, path: Path) -> None:
        self._ask("remove_tree", path)
        super().remove_tree(path)


MARKS = ("acknowledged", "committed", "recorded", "finished")
"""What a test writes down beside the operations: the promises that were given."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call that was done, or a mark that the test set. Paths are relative to the data folder."""

    kind: str
    path: str
    source: str = ""
    content: bytes = b""


class RecordingDisk(HookedDisk):
    """Writes down every call under ``root`` once it was done; syncs are believed, not done."""

    def __init__(
        self,
        root: Path,
        hook: Hook = lambda *_: None,
        now: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(hook, now)
        self._root = root
        self._order = threading.RLock()
        self.operations: list[Operation] = []

    def mark(self, kind: str, name: str, content: bytes = b"") -> None:
        """Write down what a promise was given about."""
        self.operations.append(Operation(kind, name, content=content))

    def written_elsewhere(self, path: Path, content: bytes, *, synced: bool) -> None:
        """Do what another process does that writes a file without this disk."""
        path.write_bytes(content)
        self._record("create", path)
        self._record("write", path, content=content)
        if synced:
            self._record("sync_file", path)

    def create(self, path: StrPath) -> DurableFile:
        with self._order:
            file = super().create(path)
            self._record("create", path)
            return file

    def write(self, file: DurableFile, *pieces: bytes | bytearray | memoryview) -> None:
        with self._order:
            super().write(file, *pieces)
            self._record("write", file.path, content=b"".join(pieces))

    def sync_file(self, file: DurableFile) -> None:
        with self._order:
            self._ask("sync_file", file.path)
            self._record("sync_file", file.path)

    def sync_folder(self, folder: StrPath, descriptor: int | None = None) -> None:
        with self._order:
            try:
                self._ask("sync_folder", folder)
            except DiskFailedError:
                self._record("sync_folder_failed", folder)
                raise
            assert Path(folder).is_dir(), f"{folder} was to be synced and is not there"
            self._record("sync_folder", folder)

    def link(self, source: StrPath, target: StrPath) -> None:
        with self._order:
            super().link(source, target)
            self._record("link", target, source)

    def unlink(self, path: StrPath) -> None:
        with self._order:
            super().unlink(path)
            self._record("unlink", path)

    def rename(self, source: StrPath, target: StrPath) -> None:
        with self._order:
            super().rename(source, target)
            self._record("rename", target, source)

    def _rename_new(self, source: StrPath, target: StrPath) -> bool:
        with self._order:
            is_done = super()._rename_new(source, target)
            if is_done:
                self._record("rename", target, source)
            return is_done

    def make_folder(self, folder: Path) -> None:
        with self._order:
            super().make_folder(folder)
            self._record("make_folder", folder)

    def remove_folder(self, folder: Path) -> None:
        with self._order:
            super().remove_folder(folder)
            self._record("remove_tree", folder)

    def remove_tree(self, path: Path) -> None:
        with self._order:
            existed = path.exists()
            super().remove_tree(path)
            if existed:
                self._record("remove_tree", path)

    def _record(
        self, kind: str, path: StrPath, source: StrPath | None = None, content: bytes = b""
    ) -> None:
        path = Path(path)
        if not path.is_relative_to(self._root):
            return
        self.operations.append(
            Operation(
                kind,
                str(path.relative_to(self._root)),
                str(Path(source).relative_to(self._root)) if source else "",
                content,
            )
        )
