"""The ledger's database in one file: SQLite.

Write-ahead logging, because with a rollback journal a reader that takes its time makes the writer
wait; synchronous=FULL, because with less the last commits are not on the disk when they return. It
needs a local file system, as the spool does.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, Table, create_engine, event
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.exc import DatabaseError

from scp.errors import LedgerError, NodeError, ScpError

BUSY_SECONDS: Final = 30.0
"""How long a call waits for a lock that another program holds, a backup for one."""

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PASSING: Final = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
)


class SqliteDatabase:
    """A file, as :class:`~scp.ledger.database.Database`."""

    def __init__(self, path: Path, *, is_writer: bool) -> None:
        self.name = str(path)
        self.node = ""  # The file is one node's.
        if is_writer:
            self.engine = _engine(path, "rw", _prepare_for_writing)
        else:
            self.engine = _engine(path, "ro", lambda connection: None)

    def check(self) -> None:
        """A file is always worth a try."""

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def mark_version(self, connection: Connection, version: int) -> None:
        connection.exec_driver_sql(f"PRAGMA user_version = {version}")

    def meaning_of(self, error: Exception) -> ScpError | None:
        if not isinstance(error, DatabaseError):
            return None
        # The low byte is the primary code (SQLite's documentation, "Result and Error Codes").
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            return NodeError(f"the ledger {self.name} is damaged: {error.orig}")
        if code in _PASSING:
            return LedgerError(f"the ledger {self.name}: {error.orig}")
        return None


def _engine(path: Path, mode: str, prepare: Callable[[sqlite3.Connection], None]) -> Engine:
    address = f"file:{quote(os.fspath(path.absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        # isolation_level: transactions begin where the listener below says, not where the driver
        # guesses.
        connection = sqlite3.connect(
            address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            prepare(connection)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _prepare_for_writing(connection: sqlite3.Connection) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
