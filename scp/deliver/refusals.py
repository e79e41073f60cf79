"""What a peer has refused: remembered for a while, so that it is not proposed in vain again.

A small file beside the spool, rewritten now and then and never synced: whoever loses it asks once
more.
"""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from scp.deliver.negotiation import Proposal

logger = logging.getLogger(__name__)

REMEMBERED_SECONDS: Final = 24 * 3600.0
"""Where something else can be proposed."""
ALONE_SECONDS: Final = 600.0
"""Where nothing else is left: a peer that was changed should not have to wait for long."""
_MOST: Final = 4096
"""The oldest go first."""


class Key(NamedTuple):
    """Some peers decide by the calling AE title."""

    calling_ae_title: str
    proposal: Proposal


class Refusals:
    """Of one destination; used by all its lanes.

    Parameters
    ----------
    path
        None: remembered until the process ends.
    peer
        Whom it is about; what is remembered of another is forgotten.
    """

    def __init__(
        self, path: Path | None, peer: str, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._peer = peer
        self._wall = wall
        self._lock = threading.Lock()
        self._at: dict[Key, float] = _load(path, peer) if path is not None else {}

    def usable(self, calling: str, proposals: Iterable[Proposal]) -> list[Proposal]:
        """What is worth proposing; where that is nothing at all, what was not refused just now."""
        wanted = list(proposals)
        now = self._wall()
        with self._lock:
            age = {
                proposal: now - self._at.get(Key(calling, proposal), -REMEMBERED_SECONDS)
                for proposal in wanted
            }
        # A clock that was set back makes a refusal younger than it can be.
        for seconds in (REMEMBERED_SECONDS, ALONE_SECONDS):
            found = [proposal for proposal in wanted if not 0 <= age[proposal] < seconds]
            if found:
                return found
        return []

    def note(self, calling: str, answers: Mapping[Proposal, bool]) -> None:
        """What the peer said to proposals: True where it took them."""
        now = self._wall()
        with self._lock:
            known = len(self._at)
            for proposal, is_taken in answers.items():
                self._at.pop(Key(calling, proposal), None)
                if not is_taken:
                    self._at[Key(calling, proposal)] = now
            while len(self._at) > _MOST:
                del self._at[next(iter(self._at))]
            is_changed = known != len(self._at) or not all(answers.values())
            if is_changed:
                self._save()

    def forget(self) -> None:
        """A person asked for another try."""
        with self._lock:
            if self._at:
                self._at.clear()
                self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        refused = [[key.calling_ae_title, *key.proposal, int(at)] for key, at in self._at.items()]
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            aside.write_text(json.dumps({"peer": self._peer, "refused": refused}) + "\n")
            aside.rename(self._path)
        except OSError as error:
            logger.debug("what %s refused is not written down: %s", self._peer, error.strerror)
            with contextlib.suppress(OSError):
                aside.unlink()


def _load(path: Path, peer: str) -> dict[Key, float]:
    try:
        content = json.loads(path.read_bytes())
        if content["peer"] != peer:
            return {}
        return {
            Key(str(calling), Proposal(str(sop_class), str(syntax))): float(at)
            for calling, sop_class, syntax, at in content["refused"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
