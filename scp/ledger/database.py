"""What the ledger needs to know of the database that it lies in."""

from typing import Protocol

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

from scp.errors import ScpError


class Database(Protocol):
    """One kind of database."""

    name: str
    """For messages; without a password."""
    engine: Engine
    node: str
    """Whose rows are added, and counted; empty where nobody else writes there."""

    def check(self) -> None:
        """Called before each transaction; raises LedgerError where none need be tried now."""
        ...

    def insert(self, table: Table) -> SqliteInsert | PostgresInsert:
        """An INSERT that knows ON CONFLICT."""
        ...

    def mark_version(self, connection: Connection, version: int) -> None:
        """Note the version of the tables where an older dcmpress looks for it."""
        ...

    def meaning_of(self, error: Exception) -> ScpError | None:
        """What an error of the driver or of the system means; None: it is a defect."""
        ...
