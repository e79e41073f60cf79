"""Which files a command line means."""

import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NoReturn

from scp.errors import UsageError

_NO_FILES: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Every regular file named, or below a folder named; sorted, hidden ones left out.

    What is neither file nor folder may never end, or never begin: below a folder it is left out,
    and that is said on standard error.

    Raises
    ------
    UsageError
        A path does not exist, or is neither file nor folder.
    OSError
        A folder cannot be listed.
    """
    for path in paths:
        check_named(path)
        if path.is_dir():
            yield from sorted(_files_below(path))
        else:
            yield path


def check_named(path: Path) -> None:
    """A path on the command line must be a file or a folder.

    Raises
    ------
    UsageError
        It is neither, or does not exist.
    """
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    if kind := kind_of_no_file(path):
        raise UsageError(f"{path} is {kind}: name files or folders")


def kind_of_no_file(path: Path) -> str:
    """What a path is whose reading may never end; empty for a file, a folder, and nothing at all."""
    try:
        return _NO_FILES.get(stat.S_IFMT(path.stat().st_mode), "")
    except OSError:
        return ""


def leave_out(path: Path) -> bool:
    """Whether what was found below a folder is no file; says so if it is none."""
    kind = kind_of_no_file(path)
    if kind:
        print(f"{path} is left out: it is {kind}", file=sys.stderr)
    return bool(kind)


def _files_below(top: Path) -> Iterator[Path]:
    def fail(error: OSError) -> NoReturn:
        raise error

    for folder, folders, names in top.walk(on_error=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = folder / name
            if not name.startswith(".") and not leave_out(path) and path.is_file():
                yield path
