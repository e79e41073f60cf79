"""Which version the tables have, and how they become those of this one."""

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect

from scp.errors import EmptyLedgerError, NodeError
from scp.ledger.database import Database

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 4
"""The newest file in ``migrations/versions``; 0 is a database without tables."""

_FOLDER: Final = Path(__file__).with_name("migrations")


def check_version(database: Database, connection: Connection) -> None:
    """For who only reads.

    Raises
    ------
    NodeError
        The tables are not there, or of another version.
    """
    version = version_of(database, connection)
    if version == 0:
        raise EmptyLedgerError(
            f"{database.name} is empty: no node has finished its first start on it"
        )
    if version < SCHEMA_VERSION:
        raise NodeError(
            f"{database.name} was written by an earlier dcmpress: start the node, which brings it up "
            "to date"
        )


def migrate(database: Database, connection: Connection) -> None:
    """Bring the tables up to date, or make them; in the connection's transaction.

    Raises
    ------
    NodeError
        A newer dcmpress wrote them.
    """
    version = version_of(database, connection)
    if version == SCHEMA_VERSION:
        return
    # Here, because it takes a while and is needed once in a version.
    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    if version:
        logger.info("the ledger %s becomes one of version %d", database.name, SCHEMA_VERSION)
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["node"] = database.node
    if version == 1 and not _has_table(connection, "alembic_version"):
        command.stamp(config, "1")  # Written before there were migrations.
    command.upgrade(config, str(SCHEMA_VERSION))
    database.mark_version(connection, SCHEMA_VERSION)


def version_of(database: Database, connection: Connection) -> int:
    """The tables' version.

    Raises
    ------
    NodeError
        It is a newer one.
    """
    version = 0
    if connection.dialect.name == "sqlite":
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version <= SCHEMA_VERSION and _has_table(connection, "alembic_version"):
        query = "SELECT version_num FROM alembic_version"
        version = int(connection.exec_driver_sql(query).scalar() or 0)
    if version > SCHEMA_VERSION:
        raise NodeError(
            f"{database.name} was written by a newer dcmpress (format {version}, this one "
            f"knows {SCHEMA_VERSION}): install that version, or name another data folder"
        )
    return version


def _has_table(connection: Connection, name: str) -> bool:
    return inspect(connection).has_table(name)
