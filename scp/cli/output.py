"""How results are shown: tables for people, JSON for scripts."""

import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any


def show_version() -> None:
    print(version("dcmpress"))


def show_json(document: Any) -> None:
    print(json.dumps(document, indent=2, default=str))


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", footer: str = ""
) -> None:
    """A table as wide as it needs to be: a script may read it, and nothing is cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        is_number = column.startswith(">")
        table.add_column(
            column.removeprefix(">"), justify="right" if is_number else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console = Console(width=200, soft_wrap=True)
    console.print(table)
    if footer:
        console.print(footer, highlight=False)


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
