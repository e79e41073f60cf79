"""What the folders of a configuration have to do with each other, and with what lies on the disk."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scp.config.faults import dotted
from scp.config.schema import NodeSection
from scp.config.yaml_tree import Fault, Tree
from scp.config.yaml_tree import Path as Place

SPOOL: Final = "spool"
"""The folder in ``node.data`` that is the node's alone."""
_DATA: Final[Place] = ("node", "data")


def faults_of_folders(raw: dict[str, Any], tree: Tree) -> Iterator[Fault]:
    """Folders that would spoil each other, or cannot be; ``raw`` may hold anything.

    Only looks: symbolic links are followed, nothing is made.
    """
    node = raw.get("node")
    written = node.get("data") if isinstance(node, dict) else None
    data = _resolved(NodeSection().data if written is None else written)
    if data is None:
        return
    # Unless it was asked for: commands that need no node work where ./data is something else.
    if written is not None and (file := _file_in_the_way(data)):
        below = "" if file == data else f", and {data} would lie below it"
        message = f"{dotted(_DATA)}: {file} is no folder{below}: name another"
        yield Fault(*tree.place(_DATA), message)
    destinations = raw["destinations"]
    for name, section in destinations.items() if isinstance(destinations, dict) else ():
        if isinstance(section, dict) and section.get("kind") == "folder":
            place = ("destinations", name, "path")
            yield from _faults_of_destination(place, section.get("path"), data, tree)


def _faults_of_destination(place: Place, written: Any, data: Path, tree: Tree) -> Iterator[Fault]:
    """The node deletes in its spool, and takes what it finds there for work."""
    path = _resolved(written)
    if path is None:
        return
    spool = data / SPOOL
    for each in dict.fromkeys((spool, Path(os.path.realpath(spool)))):
        if not path.is_relative_to(each) and not each.is_relative_to(path):
            continue
        how = "lies in" if path.is_relative_to(each) else "contains"
        message = f"{dotted(place)}: {path} {how} the node's own folder {each}: name another"
        # The built-in destination is not written anywhere; it follows the data folder.
        yield Fault(*tree.place(place if place in tree.places else _DATA), message)
        return


def _resolved(written: Any) -> Path | None:
    """Where a path leads; None for what is none, which the schema tells of."""
    if not isinstance(written, str | Path):
        return None
    try:
        return Path(os.path.realpath(written))
    except ValueError:
        return None


def _file_in_the_way(folder: Path) -> Path | None:
    for path in (folder, *folder.parents):
        # Of os.path, because a folder that may not be entered is no answer here, and no error.
        if os.path.exists(path):
            return None if os.path.isdir(path) else path
    return None
