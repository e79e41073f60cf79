"""When a person has to be told: once when it begins, again after a long while, and when it is over."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from scp.durable import Disk
from scp.errors import StorageFullError

logger = logging.getLogger(__name__)

GROWTH_SECONDS: Final = 600.0
"""What grows is told of again after so long at the earliest."""


class Kind(StrEnum):
    """What a notice is about; part of the payload, so never renamed."""

    HELD = "held"
    """Instances need a person."""
    DESTINATION_DOWN = "destination_down"
    """Nothing could be delivered to it for a while."""
    LOW_SPACE = "low_space"
    """Soon nothing will be accepted."""
    LATE_INSTANCES = "late_instances"
    """They came after their series was collapsed, and went out as single frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something that is so at the moment. Neither UIDs nor anything of patients is in it."""

    kind: Kind
    subject: str
    """A destination's name; empty: the node as a whole."""
    text: str
    """One sentence for a person, with what to do next."""
    facts: dict[str, Any]
    weight: int = 1
    """How much of it there is: more is told of again."""
    since: float | None = None
    """Wall time; None: from now on."""
    is_event: bool = False
    """It happened: it is told of again only when it grew, and is never over."""

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.subject}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is told."""

    kind: str
    subject: str
    state: str
    """``raised``, ``repeated``, ``grown`` or ``resolved``."""
    text: str
    facts: dict[str, Any]
    since: float
    at: float
    """Wall times."""


@dataclass(slots=True)
class _Raised:
    kind: str
    subject: str
    text: str
    since: float
    told: float
    weight: int
    is_event: bool


class Alarms:
    """What was told, kept in a file, so that a restart repeats nothing. Passive."""

    def __init__(self, file: Path, disk: Disk, repeat_seconds: float) -> None:
        self._file = file
        self._disk = disk
        self._repeat_seconds = repeat_seconds
        self._raised = _load(file)

    def look(self, conditions: Iterable[Condition], wall: float) -> list[Notice]:
        """What is to be told now that these conditions hold, and no others."""
        notices: list[Notice] = []
        holding: set[str] = set()
        for condition in conditions:
            holding.add(condition.key)
            state = self._change(condition, wall)
            if state:
                raised = self._raised[condition.key]
                notices.append(
                    Notice(
                        kind=condition.kind,
                        subject=condition.subject,
                        state=state,
                        text=condition.text,
                        facts=condition.facts,
                        since=raised.since,
                        at=wall,
                    )
                )
        for key in [key for key in self._raised if key not in holding]:
            over = self._raised.pop(key)
            if over.is_event:  # Counted from the start of the node, which was started again.
                continue
            notices.append(
                Notice(
                    kind=over.kind,
                    subject=over.subject,
                    state="resolved",
                    text=f"no longer: {over.text}",
                    facts={},
                    since=over.since,
                    at=wall,
                )
            )
        if notices:
            self._keep()
        return notices

    def is_raised(self, kind: Kind, subject: str) -> bool:
        """Whether it was told, and not yet that it is over."""
        return f"{kind}/{subject}" in self._raised

    def _change(self, condition: Condition, wall: float) -> str:
        """Note a condition; how it is to be told, empty where it was."""
        raised = self._raised.get(condition.key)
        if raised is None:
            since = wall if condition.since is None else condition.since
            self._raised[condition.key] = _Raised(
                kind=condition.kind,
                subject=condition.subject,
                text=condition.text,
                since=since,
                told=wall,
                weight=condition.weight,
                is_event=condition.is_event,
            )
            return "raised"
        # A clock that was set back would silence it for ever.
        quiet = wall - raised.told if wall >= raised.told else self._repeat_seconds
        if condition.weight > raised.weight and quiet >= GROWTH_SECONDS:
            state = "grown"
        elif quiet >= self._repeat_seconds and not condition.is_event:
            state = "repeated"
        else:
            return ""
        raised.told, raised.weight, raised.text = wall, condition.weight, condition.text
        return state

    def _keep(self) -> None:
        content = json.dumps({key: asdict(raised) for key, raised in self._raised.items()})
        try:
            self._disk.publish(self._file, content.encode())
        except (OSError, StorageFullError) as error:
            logger.warning("what was told cannot be kept, a restart tells it again: %s", error)


def _load(file: Path) -> dict[str, _Raised]:
    try:
        content = json.loads(file.read_bytes())
        return {
            str(key): _Raised(
                kind=str(each["kind"]),
                subject=str(each["subject"]),
                text=str(each["text"]),
                since=float(each["since"]),
                told=float(each["told"]),
                weight=int(each["weight"]),
                is_event=bool(each["is_event"]),
            )
            for key, each in content.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        logger.warning("what was told cannot be read, some of it is told again: %s", error)
        return {}
