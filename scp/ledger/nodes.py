"""How a node tells its rows from those of others in the same database.

By a name of its own: the AE title that it had when it was made, for a person, and a random part. It
lies in the data folder and stays with it whatever the configuration says later.
"""

import re
import secrets
from pathlib import Path
from typing import Final

from scp.config.ledger import LedgerSection
from scp.durable import Disk
from scp.errors import NodeError, StorageFullError

_RANDOM_BYTES: Final = 6
_NAME: Final = re.compile(r"[ -~]{1,40}")


def node_name(section: LedgerSection, path: Path, ae_title: str, disk: Disk) -> str:
    """The name in this file, made where there is none; durable on return.

    Empty for a ledger that is in a file: it is one node's anyway.

    Raises
    ------
    NodeError
        It cannot be read or made.
    """
    if section.url is None:
        return ""
    try:
        if not path.exists():
            made = f"{ae_title.strip()}-{secrets.token_hex(_RANDOM_BYTES)}"
            disk.publish(path, f"{made}\n".encode())
    except (OSError, StorageFullError) as error:
        raise NodeError(f"the node's name {path} cannot be made: {error}") from error
    return known_name(section, path)


def known_name(section: LedgerSection, path: Path) -> str:
    """As :func:`node_name` of a node that has been started before.

    Raises
    ------
    NodeError
        It cannot be read.
    """
    if section.url is None:
        return ""
    try:
        name = path.read_text("ascii").strip()
    except OSError as error:
        raise NodeError(f"the node's name {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        name = ""
    if not _NAME.fullmatch(name):
        raise NodeError(
            f"the node's name {path} is damaged: put it back from a backup, or delete it; with a new "
            "one the counters begin anew"
        )
    return name
