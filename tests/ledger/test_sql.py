"""What only the ledger in SQLite promises: durability, readers beside it, clear refusals."""

import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from scp.durable import Disk
from scp.errors import LedgerError, NodeError
from scp.ledger import sqlite
from scp.ledger.ports import LedgerRow, Totals
from scp.ledger.sql import SqlLedger
from scp.ledger.tally import tally, totals_of
from tests.conftest import REPOSITORY
from tests.ledger.rows import row
from tests.ledger.writer import BATCH


@contextmanager
def _writer(folder: Path) -> Iterator[SqlLedger]:
    with closing(SqlLedger.open_for_writing(folder / "ledger.sqlite", Disk())) as ledger:
        yield ledger


def _read(folder: Path) -> tuple[Totals, list[LedgerRow]]:
    with closing(SqlLedger.open_for_reading(folder / "ledger.sqlite")) as ledger:
        return ledger.totals(), ledger.recent(1_000_000)


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.008, 0.015])
def test_killed_while_recording_it_has_every_batch_whole_or_not_at_all(
    tmp_path: Path, delay: float
) -> None:
    command = [sys.executable, "-m", "tests.ledger.writer", str(tmp_path / "ledger.sqlite")]
    ended = -1
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as child:
        assert child.stdout
        for line in child.stdout:
            word, batch = line.split()
            if word == "ended":
                ended = int(batch)
            elif int(batch) == 3:
                time.sleep(delay)  # not for luck: it moves the kill through the transaction
                child.kill()
                break
        ended += sum(line.startswith("ended") for line in child.stdout)

    totals, rows = _read(tmp_path)

    assert len(rows) % BATCH == 0
    assert ended + 1 <= len(rows) // BATCH <= ended + 2
    assert totals == totals_of(tally(rows))


def test_a_kill_leaves_a_file_that_can_be_written_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.ledger.writer", str(tmp_path / "ledger.sqlite")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as child:
        assert child.stdout
        child.stdout.readline()
        child.kill()

    with _writer(tmp_path) as ledger:
        ledger.record([row(number, job="job-0") for number in range(BATCH)])

        assert ledger.totals().finished == BATCH


def test_another_process_reads_while_the_node_writes(tmp_path: Path) -> None:
    reader = (
        "import sys, pathlib; from scp.ledger.sql import SqlLedger;"
        "print(SqlLedger.open_for_reading(pathlib.Path(sys.argv[1])).totals().finished)"
    )
    with _writer(tmp_path) as ledger:
        ledger.record([row(1), row(2)])

        answer = subprocess.run(
            [sys.executable, "-c", reader, str(tmp_path / "ledger.sqlite")],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
        )

    assert answer.stdout.strip() == "2"


def test_a_reader_that_takes_its_time_does_not_stop_the_writer(tmp_path: Path) -> None:
    with _writer(tmp_path) as ledger:
        ledger.record([row(1)])
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM instances").fetchone()

            ledger.record([row(2)])

            assert other.execute("SELECT count(*) FROM instances").fetchone() == (1,)
        assert ledger.totals().finished == 2


def test_it_can_be_read_after_the_node_has_stopped(tmp_path: Path) -> None:
    with _writer(tmp_path) as ledger:
        ledger.record([row(1)])

    totals, rows = _read(tmp_path)

    assert totals.finished == 1
    assert rows == [row(1)]


def test_every_commit_is_synced_and_readers_write_nothing(tmp_path: Path) -> None:
    with _writer(tmp_path) as ledger, ledger._database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"

    with (
        closing(SqlLedger.open_for_reading(tmp_path / "ledger.sqlite")) as reader,
        pytest.raises(LedgerError, match="readonly"),
    ):
        reader.record([row(1)])


def test_a_lock_that_another_program_keeps_is_an_error_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    with _writer(tmp_path) as ledger:
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="locked"):
                ledger.record([row(1)])

        ledger.record([row(1)])

        assert ledger.totals().finished == 1


def test_a_failed_record_adds_nothing(tmp_path: Path) -> None:
    with _writer(tmp_path) as ledger:
        ledger.record([row(1)])
        with ledger._database.engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 1}")

        with pytest.raises(LedgerError, match="full"):
            ledger.record([row(number) for number in range(2, 2000)])

        assert ledger.totals().finished == 1
        assert len(ledger.recent(5000)) == 1


def test_a_file_of_a_newer_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with _writer(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as other:
        other.execute("PRAGMA user_version = 7")

    for open_it in (
        lambda path: SqlLedger.open_for_writing(path, Disk()),
        SqlLedger.open_for_reading,
    ):
        with pytest.raises(NodeError, match=r"newer dcmpress \(format 7, this one knows 4\)"):
            open_it(tmp_path / "ledger.sqlite")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 1000)

    with pytest.raises(NodeError, match="damaged"):
        SqlLedger.open_for_writing(tmp_path / "ledger.sqlite", Disk())


def test_reading_where_no_node_has_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="no node has run"):
        SqlLedger.open_for_reading(tmp_path / "ledger.sqlite")


def test_a_folder_with_odd_characters_is_no_problem(tmp_path: Path) -> None:
    folder = tmp_path / "50% of?data#é"
    folder.mkdir()

    with _writer(folder) as ledger:
        ledger.record([row(1)])

    assert _read(folder)[0].finished == 1


def test_others_on_the_machine_cannot_read_it(tmp_path: Path) -> None:
    with _writer(tmp_path) as ledger:
        ledger.record([row(1)])
        modes = [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()]

    assert len(modes) == 3
    assert all(not mode & stat.S_IRWXO for mode in modes)
