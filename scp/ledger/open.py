"""Opens the ledger that the configuration means."""

import logging
from collections.abc import Callable
from pathlib import Path

from scp.config.ledger import LedgerSection
from scp.durable import Disk
from scp.errors import LedgerError, NodeError
from scp.ledger.sql import SqlLedger

logger = logging.getLogger(__name__)


type Opening = Callable[[Callable[[], None]], None]


def open_for_writing(
    section: LedgerSection,
    path: Path,
    disk: Disk,
    node: str = "",
    opening: Opening = lambda call: call(),
) -> SqlLedger:
    """The ledger of a node that starts: the server's that ``section`` names, else SQLite at ``path``.

    ``node`` tells its rows from those of others, see :mod:`scp.ledger.nodes`. A server that cannot be
    reached is tried again with each call; ``opening`` makes the first one, and gives it up with a
    LedgerError where it takes too long.

    Raises
    ------
    NodeError
        It is damaged, cannot be written, or a newer dcmpress wrote it.
    """
    if section.url is None:
        return SqlLedger.open_for_writing(path, disk)
    ledger = _on_server(section, node, is_writer=True)
    try:
        opening(ledger.open)
    except LedgerError as error:
        logger.error("%s; what is to be recorded waits in the spool", error)
    except NodeError:
        ledger.close()
        raise
    return ledger


def open_for_reading(section: LedgerSection, path: Path, node: str = "") -> SqlLedger:
    """The ledger that a node, running or not, has written.

    Raises
    ------
    NodeError
        There is none, it is damaged, cannot be read, or another dcmpress wrote it.
    """
    if section.url is None:
        return SqlLedger.open_for_reading(path)
    ledger = _on_server(section, node, is_writer=False)
    ledger.must_open()
    return ledger


def _on_server(section: LedgerSection, node: str, *, is_writer: bool) -> SqlLedger:
    # Here, because most nodes have no server, and every command would load its driver.
    from scp.ledger.postgres import PostgresDatabase

    return SqlLedger(PostgresDatabase(section, node), is_writer=is_writer)
