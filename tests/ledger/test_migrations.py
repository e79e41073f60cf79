"""A ledger of an earlier version becomes one of this, with every row; nothing is half migrated."""

import errno
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from scp.durable import Disk
from scp.errors import LedgerError, NodeError
from scp.ledger import migrate
from scp.ledger.open import open_for_reading, open_for_writing
from scp.ledger.ports import Delivered, LedgerRow, Search, State
from scp.ledger.schema import metadata
from scp.ledger.sql import SqlLedger
from scp.ledger.sqlite import SqliteDatabase
from scp.model import Form, PassReason
from tests.conftest import REPOSITORY
from tests.ledger.postgres import PostgresServer
from tests.ledger.rows import NOON, row

OLD = REPOSITORY / "tests" / "ledger" / "version_1.sqlite"
"""Written by version 0.1.0 before there were migrations: the rows below."""


def old_rows() -> list[LedgerRow]:
    first = row(1, destinations={"archive": Delivered(status="0000", at=NOON)})
    passed = row(
        2,
        form=Form.ORIGINAL,
        reason=PassReason.LOSSY_SOURCE,
        destinations={"pacs": Delivered(status="B000", at=NOON)},
    )
    volume = {"archive": Delivered(status="0000", at=NOON, is_collapsed=True)}
    frame = row(3, form=Form.ENHANCED, became="2.25.7", frame=1, destinations=volume)
    skipped = row(4, form=None, state=State.SKIPPED, destinations={}, result_bytes=0)
    return [first, passed, frame, skipped]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copy(OLD, tmp_path / "ledger.sqlite"))


def tables_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return repr(connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall())


def test_an_old_ledger_keeps_its_rows_and_sums_and_takes_new_ones(old: Path) -> None:
    with closing(SqlLedger.open_for_writing(old, Disk())) as ledger:
        assert list(ledger.search(Search())) == old_rows()
        totals = ledger.totals()
        assert (totals.finished, totals.converted, totals.passed_through) == (4, 2, 1)
        assert ledger.history_of(row().identity.series_instance_uid).volumes

        ledger.record([row(5, modality="CT"), row(1)])

        assert [each.modality for each in ledger.search(Search())] == ["", "", "", "", "CT"]
        assert ledger.totals().finished == 5


def test_an_old_ledger_is_migrated_once_and_then_as_a_new_one_is(old: Path, tmp_path: Path) -> None:
    SqlLedger.open_for_writing(old, Disk()).close()
    SqlLedger.open_for_writing(tmp_path / "new.sqlite", Disk()).close()
    with closing(sqlite3.connect(tmp_path / "new.sqlite")) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    with closing(sqlite3.connect(old)) as connection:
        assert sorted(names) == sorted(
            name for (name,) in connection.execute("SELECT name FROM sqlite_master")
        )
        assert connection.execute("PRAGMA user_version").fetchone() == (migrate.SCHEMA_VERSION,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    before = tables_of(old)

    SqlLedger.open_for_writing(old, Disk()).close()

    assert tables_of(old) == before


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_steps_lead_to_the_tables_that_are_used(
    request: pytest.FixtureRequest, old: Path, kind: str
) -> None:
    if kind == "sqlite":
        ledger = SqlLedger.open_for_writing(old, Disk())
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        ledger = open_for_writing(server.new_database(), old, Disk())

    with closing(ledger), ledger._database.engine.begin() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)

    assert differences == []


class FullDisk(SqliteDatabase):
    """Fails at the very end of a migration."""

    def mark_version(self, connection: Connection, version: int) -> None:
        super().mark_version(connection, version)
        raise OSError(errno.ENOSPC, "no room")


def test_a_migration_that_breaks_leaves_the_old_tables(old: Path) -> None:
    before = tables_of(old)
    ledger = SqlLedger(FullDisk(old, is_writer=True), is_writer=True)

    with closing(ledger), pytest.raises(OSError, match="no room"):
        ledger.must_open()

    assert tables_of(old) == before
    with closing(SqlLedger.open_for_writing(old, Disk())) as opened:
        assert opened.recent(10) == old_rows()[::-1]


def test_who_only_reads_does_not_migrate_and_says_what_to_do(old: Path) -> None:
    before = tables_of(old)

    with pytest.raises(NodeError, match="by an earlier dcmpress: start the node"):
        SqlLedger.open_for_reading(old)

    assert tables_of(old) == before


def test_a_newer_server_is_refused_at_the_start_in_one_sentence(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    section = postgres.new_database()
    with (
        closing(open_for_writing(section, tmp_path, Disk())) as ledger,
        ledger._database.engine.begin() as connection,
    ):
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '7'")

    for open_it in (open_for_reading, lambda s, p: open_for_writing(s, p, Disk())):
        with pytest.raises(NodeError, match=r"newer dcmpress \(format 7, this one knows 4\)"):
            open_it(section, tmp_path)


def test_a_server_that_turns_out_newer_later_is_an_error_that_passes(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    section = postgres.new_database()
    with closing(open_for_writing(section, tmp_path, Disk())) as ledger:
        with ledger._database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '7'")
        late = SqlLedger(ledger._database, is_writer=True)

        with pytest.raises(LedgerError, match="newer dcmpress"):
            late.record([row(1)])


def test_a_database_without_tables_is_nobodys_ledger(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    section = postgres.new_database()

    with pytest.raises(NodeError, match="is empty: no node has finished its first start"):
        open_for_reading(section, tmp_path)
