"""Which files a command line means."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from scp.errors import UsageError


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Every regular file named, or below a folder named; sorted, hidden ones left out.

    Raises
    ------
    UsageError
        A path does not exist.
    OSError
        A folder cannot be listed.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(_files_below(path))
        elif path.exists():
            yield path
        else:
            raise UsageError(f"{path}: there is no such file or folder")


def _files_below(top: Path) -> Iterator[Path]:
    def fail(error: OSError) -> NoReturn:
        raise error

    for folder, folders, names in top.walk(on_error=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and (folder / name).is_file():
                yield folder / name
