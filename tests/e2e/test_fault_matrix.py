"""Each kind of destination with each fault, and the node killed: nothing is lost, and all agree.

Once with each database: what the ledger says in the end is compared with what the peers have.
"""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from scp.ledger.ports import LedgerRow, State
from scp.model import Form
from tests.conftest import peer_program
from tests.deliver.files import dataset_bytes
from tests.e2e.faults import FAULTS, KINDS, Copy, Matrix, all_cells
from tests.e2e.judges import assert_converted
from tests.e2e.ledger import rows_of
from tests.e2e.node import RunningNode, Tree, command, until
from tests.ledger.postgres import PostgresServer
from tests.material import ct_series, write_all

COUNT = 2
"""Instances of each cell."""
SECONDS = 120.0
KILLS = 2
ANCHOR = "anchor"
"""A second destination that is down, so that a job has its receipts and is not over."""


@contextmanager
def ledger_in(kind: str) -> Iterator[Tree]:
    """The section of the configuration."""
    if kind == "sqlite":
        yield {}
        return
    server = PostgresServer()
    try:
        server.start()
        section = server.new_database()
        secret = {"file": str(server.folder / "password")}
        yield {"ledger": {"url": section.url, "password": secret}}
    finally:
        server.remove()


@pytest.mark.timeout(500)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_whatever_fails_at_the_far_end_nothing_is_lost_and_every_repeat_is_known(
    database: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with ledger_in(database) as section, all_cells(tmp_path) as matrix:
        site = Site(tmp_path, matrix, section)
        try:
            site.kill_between_the_file_and_its_receipt()
            site.send_everything()
            site.kill_and_heal()
            site.kill_when_all_is_over()
            rows = [site.outcome(number) for number in range(len(matrix.cells))]
        finally:
            site.node.close()
    record_property(f"fault matrix, ledger in {database}", table(matrix, rows))


def name(number: int) -> str:
    return f"C{number:02d}"


class Site:
    """A node with a destination for each cell, each with a series and a called AE title of its own."""

    def __init__(self, folder: Path, matrix: Matrix, section: Tree) -> None:
        self.cells = matrix.cells
        self.paths: dict[str, list[Path]] = {}
        self._anchor = folder / "below-the-anchor"
        self._anchor.touch()
        self._folder = folder
        for number, cell in enumerate(self.cells):
            sent = write_all(
                ct_series(COUNT, 48, 48, seed=800 + number), folder / "sent" / name(number)
            )
            self.paths[name(number)] = sent
            cell.prepare(sent)
        self.node = RunningNode(folder / "node", section | self._config()).start()

    def _config(self) -> Tree:
        anchor = {"kind": "folder", "path": str(self._anchor / "archive")}
        return {
            "codec": {"workers": 1},
            "destinations": {
                ANCHOR: anchor,
                **{name(n): cell.section for n, cell in enumerate(self.cells)},
            },
            "rules": [
                {
                    "name": name(n),
                    "match": {"called_ae_title": name(n)},
                    "convert": cell.convert,
                    "send_to": list(self._send_to(n)),
                }
                for n, cell in enumerate(self.cells)
            ],
        }

    def _send_to(self, number: int) -> tuple[str, ...]:
        is_anchored = self.cells[number].fault == "killed after the receipt"
        return (name(number), ANCHOR) if is_anchored else (name(number),)

    def kill_between_the_file_and_its_receipt(self) -> None:
        """A folder answers nothing that could be kept back: killed at the sync after its files' names."""
        number, cell = next(
            (n, c)
            for n, c in enumerate(self.cells)
            if (c.kind, c.fault) == ("folder", "killed before the receipt")
        )
        paths = self.paths[name(number)]
        read = pydicom.dcmread(paths[0], stop_before_pixels=True)
        series = Path(cell.section["path"]) / read.StudyInstanceUID / read.SeriesInstanceUID
        (coordinator,) = self.node.processes("scp.pipeline.coordinator")
        tracer = subprocess.Popen(
            [
                *(peer_program("strace"), "-f", "-p", str(coordinator), "-P", str(series)),
                *("-e", "trace=fsync", "-e", "inject=fsync:signal=KILL:when=1"),
            ],
            stderr=subprocess.PIPE,
        )
        try:
            said = tracer.stderr
            assert said is not None
            assert b"attached" in said.readline()
            self.node.send(paths, ae_title=name(number))
            tracer.communicate(timeout=60)
        finally:
            tracer.kill()
        until(self.node.is_ready, self.node.log)

    def send_everything(self) -> None:
        for title, files in self.paths.items():
            if self.cells[int(title[1:])].fault != "killed before the receipt" or (
                self.cells[int(title[1:])].kind != "folder"
            ):
                self.node.send(files, ae_title=title)
        until(
            lambda: not [*self._not_shown()],
            lambda: f"{[*self._not_shown()]}\n{self.node.log()[-3000:]}",
            SECONDS,
        )

    def _not_shown(self) -> Iterator[str]:
        """The cells whose fault is not to be seen yet; all else is delivered, or held."""
        status = self.node.status()
        waiting = 0
        for number, cell in enumerate(self.cells):
            there = status["destinations"][name(number)]
            is_shown = there["pending"] == 0
            if cell.kind == "folder" and cell.is_killed:
                pass  # It is there, and was before.
            elif cell.says_nothing:
                is_shown = there["pending"] == COUNT and (cell.heals_first or bool(cell.copies()))
            elif not cell.is_at_once:
                is_shown = there["pending"] == COUNT and there["last_error"] != ""
            if not is_shown:
                yield f"{cell.kind}, {cell.fault}: {there}"
            waiting += there["pending"] > 0 or len(self._send_to(number)) > 1
        if status["pending"] != COUNT * waiting:
            yield f"{status['pending']} pending, not {COUNT * waiting}"

    def kill_and_heal(self) -> None:
        """Before the receipts of what failed or is not answered, after those of what is."""
        for cell in self.cells:
            if cell.heals_first:
                cell.heal()
        self.node.kill9()
        for cell in self.cells:
            if cell.is_killed:
                cell.heal()
        self.node.start()
        for cell in self.cells:
            if not cell.is_killed and not cell.heals_first:
                cell.heal()
        self._anchor.unlink()
        self.node.command("retry", "--all")
        self._wait_until_over()

    def _wait_until_over(self) -> None:
        held, total = COUNT * sum(cell.is_held for cell in self.cells), COUNT * len(self.cells)
        counts = {"received": total, "held": held, "delivered": total - held, "pending": 0}
        self.node.wait_for(SECONDS, **counts)

    def kill_when_all_is_over(self) -> None:
        """Nothing is sent again then."""
        until(lambda: not self.node.spool("jobs"), "the ledger has not got everything")
        before = [cell.copies() for cell in self.cells]
        self.node.kill9()
        self.node.start()
        self._wait_until_over()
        assert [cell.copies() for cell in self.cells] == before

    # -- whether all agree ---------------------------------------------------------------------

    def outcome(self, number: int) -> str:
        """What became of a cell, once peer and ledger agree on it."""
        cell, paths = self.cells[number], self.paths[name(number)]
        where = f"{cell.kind}, {cell.fault}"
        sources = {str(pydicom.dcmread(p).SOPInstanceUID): p for p in paths}
        copies, rows = cell.copies(), rows_of(self.node, paths)
        reasons = [
            e["reasons"][name(number)] for e in self.node.held() if name(number) in e["reasons"]
        ]
        assert {copy.uid for copy in copies} <= sources.keys(), where
        if cell.is_held:
            ((reason, count),) = reasons[0].items()
            assert (count, copies, rows) == (COUNT, [], []), where
            return f"held: {reason}"
        assert not reasons, where
        assert sorted(row.identity.sop_instance_uid for row in rows) == sorted(sources), where
        for row in rows:
            uid = row.identity.sop_instance_uid
            mine = [copy for copy in copies if copy.uid == uid]
            self._agree(number, row, mine, sources[uid], where)
        repeats = len(copies) - len({copy.uid for copy in copies})
        told = f"({cell.means}) " if cell.means else ""
        told += "delivered" + (f", {repeats} repeats" if repeats else "")
        attempts = max(row.destinations[name(number)].attempts for row in rows)
        told += f" after {attempts} attempts" if attempts > 1 else ""
        return told + (self._forgotten(number, where) if cell.forget else "")

    def _agree(
        self, number: int, row: LedgerRow, copies: list[Copy], source: Path, where: str
    ) -> None:
        cell = self.cells[number]
        assert row.state is State.DELIVERED, where
        assert row.form is (Form.HTJ2K if cell.convert == "htj2k" else Form.ORIGINAL), where
        assert row.dataset_sha256 == hashlib.sha256(dataset_bytes(source)).hexdigest(), where
        assert set(row.destinations) == set(self._send_to(number)), where
        taken = row.destinations[name(number)]
        assert taken.status == cell.status, where
        assert taken.attempts >= 1, where
        if cell.tries is not None and cell.fault not in ("down", "rejects the association"):
            tries = cell.tries(row.identity.sop_instance_uid)
            # Of a try in whose middle the node was killed nobody wrote an answer down.
            allowed = 0 if cell.is_at_once else KILLS
            assert taken.attempts <= tries <= taken.attempts + allowed, where
            assert len(copies) <= tries + 1, where
        forgets = cell.kind == "dicomweb" and cell.forget is not None
        assert copies or forgets, f"{where}: it is missing"
        if cell.fault == "has it already":
            taken = replace(taken, transfer_syntax=row.source_transfer_syntax)
        for copy in copies:
            assert copy.transfer_syntax == taken.transfer_syntax, where
            if copy.transfer_syntax == row.source_transfer_syntax:
                assert copy.dataset == dataset_bytes(source), f"{where}: other bytes arrived"
            else:
                saved = source.with_suffix(".saved")
                saved.write_bytes(copy.file)
                assert_converted(source, saved)
            is_ours = cell.keeps_files and cell.fault != "has it already"
            if is_ours and copy.transfer_syntax == row.result_transfer_syntax:
                assert hashlib.sha256(copy.file).hexdigest() == row.result_sha256, where

    def _forgotten(self, number: int, where: str) -> str:
        """What ``reconcile`` says once the peer has lost it all."""
        cell = self.cells[number]
        assert cell.forget is not None
        cell.forget()
        assert cell.copies() == [], where
        if not cell.can_be_asked:
            return "; nobody can ask this peer for it"
        done = command("reconcile", name(number), "--json", "-c", str(self.node.config_file))
        found = json.loads(done.stdout)
        assert (done.returncode, len(found)) == (1, COUNT), f"{where}: {done.stderr}"
        assert {each["difference"] for each in found} == {"missing"}, where
        return "; reconcile finds all of it missing"


def table(matrix: Matrix, rows: list[str]) -> str:
    found = {
        (cell.kind, cell.fault): said for cell, said in zip(matrix.cells, rows, strict=True)
    } | {place: f"- {why}" for place, why in matrix.why.items()}
    assert found.keys() == {(kind, fault) for kind in KINDS for fault in FAULTS}
    lines = [
        f"{len(matrix.cells)} cells; after healing, and kill -9 before and after the receipts:"
    ]
    lines += [f"{fault:26}{kind:17}{found[kind, fault]}" for fault in FAULTS for kind in KINDS]
    return "\n".join(lines)
