"""What ``dcmpress transcode`` says in the end: by modality, form and reason."""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from scp.cli import output
from scp.cli.manifest import Entry

_COLUMNS = (
    "modality",
    "form",
    "reason",
    "not_collapsed",
    "instances",
    "source_bytes",
    "result_bytes",
)

type Style = Literal["table", "json", "csv"]


def report(
    entries: Iterable[Entry], failed: Sequence[str], resumed: int, seconds: float, style: Style
) -> None:
    """Sum up everything that OUT's record knows; failures of this run go to where they can be seen.

    Parameters
    ----------
    resumed
        How many files an earlier run had done.
    """
    groups: dict[tuple[str, str, str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.modality, entry.form, entry.reason, entry.not_collapsed].append(entry)
    rows = [
        {
            "modality": modality,
            "form": form,
            "reason": reason,
            "not_collapsed": not_collapsed,
            "instances": len(members),
            "source_bytes": sum(each.source_bytes for each in members),
            "result_bytes": sum(each.result_bytes for each in members),
        }
        for (modality, form, reason, not_collapsed), members in sorted(groups.items())
    ]
    if style == "json":
        output.show_json(
            {
                "seconds": round(seconds, 3),
                "already_done": resumed,
                "failed": list(failed),
                "groups": rows,
            }
        )
    elif style == "csv":
        _show_csv(rows)
        print(*failed, sep="\n", end="\n" if failed else "", file=sys.stderr)
    else:
        print(*failed, sep="\n", end="\n" if failed else "")
        _show_table(rows, f"{seconds:.1f} s, {resumed} files were done before")


def _show_csv(rows: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _show_table(rows: list[dict[str, Any]], footer: str) -> None:
    output.show_table(
        [
            "modality",
            "form",
            "reason",
            "not collapsed",
            ">instances",
            ">before",
            ">after",
            ">ratio",
        ],
        [
            (
                row["modality"],
                row["form"],
                row["reason"],
                row["not_collapsed"],
                row["instances"],
                output.megabytes(row["source_bytes"]),
                output.megabytes(row["result_bytes"]),
                f"{row['source_bytes'] / row['result_bytes']:.2f}" if row["result_bytes"] else "",
            )
            for row in rows
        ],
        footer=footer,
    )
