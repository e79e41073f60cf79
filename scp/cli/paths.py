"""Which files a command line means."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from scp.errors import UsageError


def files_in(paths: Iterable[Path]) -> Iterator[Path]:
    """Every regular file named, or below a folder named; sorted, hidden ones left out.

    Raises
    ------
    UsageError
        A path does not exist.
    """
    for path in paths:
        if path.is_dir():
            yield from sorted(
                found
                for found in path.rglob("*")
                if found.is_file() and not _is_hidden(found.relative_to(path))
            )
        elif path.exists():
            yield path
        else:
            raise UsageError(f"{path}: there is no such file or folder")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
