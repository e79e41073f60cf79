"""Each kind of destination with each fault, and the node killed twice: nothing is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deliver.files import dataset_bytes
from tests.e2e.faults import FAULTS, Cell, all_cells
from tests.e2e.node import RunningNode, Tree, until
from tests.material import ct_series, write_all

COUNT = 2
"""Instances of each cell."""
SECONDS = 120.0


@pytest.mark.timeout(400)
def test_whatever_fails_at_the_far_end_nothing_is_lost_and_every_repeat_is_known(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with all_cells(tmp_path) as cells:
        paths = {
            name(number): write_all(
                ct_series(COUNT, 32, 32, seed=800 + number), tmp_path / "sent" / name(number)
            )
            for number in range(len(cells))
        }
        node = RunningNode(tmp_path / "node", config_for(cells)).start()
        try:
            for title, files in paths.items():
                node.send(files, ae_title=title)
            until(
                lambda: have_shown(cells, node.status()),
                lambda: f"{node.status()['destinations']}\n{node.log()[-3000:]}",
                SECONDS,
            )
            node.kill9()  # Before the receipts of what failed.
            node.start()
            for cell in cells:
                cell.heal()
            node.command("retry", "--all")
            held = COUNT * sum(cell.ends == "held" for cell in cells)
            total = COUNT * len(cells)
            node.wait_for(SECONDS, received=total, held=held, delivered=total - held, pending=0)
            node.kill9()  # After the receipts.
            before = [sorted(cell.stored()) for cell in cells]
            node.start()
            status = node.wait_for(received=total, held=held, delivered=total - held, pending=0)
            assert [sorted(cell.stored()) for cell in cells] == before
            jobs = node.held()
            rows = [row(cell, paths[name(n)], name(n), jobs) for n, cell in enumerate(cells)]
        finally:
            node.close()
    assert status["held"] == held
    record_property("fault matrix", table(rows))


def name(number: int) -> str:
    return f"C{number:02d}"


def config_for(cells: list[Cell]) -> Tree:
    return {
        "codec": {"workers": 1},
        "destinations": {name(n): cell.section for n, cell in enumerate(cells)},
        "rules": [
            {
                "name": name(n),
                "match": {"called_ae_title": name(n)},
                "convert": cell.convert,
                "send_to": [name(n)],
            }
            for n, cell in enumerate(cells)
        ],
    }


def have_shown(cells: list[Cell], status: Tree) -> bool:
    """Whether what waits has failed, and all else is delivered or held."""
    waiting = [name(n) for n, cell in enumerate(cells) if not cell.is_at_once]
    states = [status["destinations"][each] for each in waiting]
    return (
        status["received"] == COUNT * len(cells)
        and status["pending"] == COUNT * len(waiting)
        and all(each["last_error"] and each["pending"] == COUNT for each in states)
    )


def row(cell: Cell, paths: list[Path], destination: str, jobs: list[Any]) -> tuple[str, str, str]:
    """(kind, fault, what became of it), once everything agrees."""
    wanted = {dataset_bytes(path) for path in paths}
    got = [_dataset(content) for content in cell.stored()]
    reasons = [each["reasons"][destination] for each in jobs if destination in each["reasons"]]
    where = f"{cell.kind}, {cell.fault}"
    assert set(got) <= wanted, f"{where}: other bytes arrived"
    if cell.ends == "held":
        ((reason, count),) = reasons[0].items()
        assert count == COUNT, where
        return cell.kind, cell.fault, f"held: {reason}"
    assert not reasons, where
    if cell.keeps:
        assert set(got) == wanted, f"{where}: something is missing"
    repeats = len(got) - len(set(got))
    assert repeats <= 20 * COUNT, f"{where}: {repeats} repeats"
    told = "delivered" if cell.keeps else "counts as delivered, the peer has nothing"
    return cell.kind, cell.fault, told + (f", {repeats} repeats" if repeats else "")


def _dataset(content: bytes) -> bytes:
    """Without the meta group, which names who received it."""
    if content[128:132] != b"DICM":
        return content
    return content[144 + int.from_bytes(content[140:144], "little") :]


def table(rows: list[tuple[str, str, str]]) -> str:
    found = {(kind, fault): said for kind, fault, said in rows}
    kinds = dict.fromkeys(kind for kind, _, _ in rows)
    lines = [f"{'fault':22}{'kind':10}outcome after healing, kill -9 before and after the receipts"]
    for fault in FAULTS:
        for kind in kinds:
            if (kind, fault) in found:
                lines.append(f"{fault:22}{kind:10}{found[kind, fault]}")
    return "\n".join(lines)
