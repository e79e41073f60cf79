"""What the coordinator remembers of instances without a commit; the folders know it all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scp.buffer.jobs import SeriesFile
from scp.choose.rules import Decision, Facts
from scp.model import SpooledInstance
from scp.pipeline.pool import Entry
from scp.pipeline.tasks import Outcome


@dataclass(slots=True)
class Tracked:
    """One instance between its arrival and its job's commit."""

    name: str
    """Its file's, in the series' folder and then in the job's ``source/``."""
    spooled: SpooledInstance
    received: float
    """Wall time."""
    facts: Facts
    decision: Decision | None = None
    """None while the series is open and the rules cannot say yet."""
    job: str | None = None
    """Set when its series was closed."""
    task: Entry | None = None
    """While a worker has it or will have it."""
    on_done: Callable[[], None] | None = None
    """What its job waits for."""
    outcome: Outcome | None = None
    encoded: Path | None = None
    """Where the conversion lies before the commit moves it."""
    ahead_bytes: int = 0
    """Its share of the cache of conversions made while the series is open."""


@dataclass(slots=True)
class OpenSeries:
    """One series that still grows."""

    folder: str
    file: SeriesFile
    instances: dict[str, Tracked] = field(default_factory=dict)
    at_once: dict[str, Tracked] = field(default_factory=dict)
    """What is about to be taken out of it."""

    @property
    def bytes(self) -> int:
        return sum(i.spooled.file_bytes for i in self.instances.values())


@dataclass(slots=True)
class ClosedJob:
    """A job whose instances are being examined and converted."""

    name: str
    file: SeriesFile
    instances: dict[str, Tracked]
    was_cut: bool
    is_at_once: bool
    volumes: dict[str, Path] = field(default_factory=dict)
    """What was made of several instances together, by name, before the commit moves it."""
    volume_folders: list[Path] = field(default_factory=list)
    """Where that was made."""
    has_failed: bool = False
    """Its commit has: the log has said so."""

    @property
    def is_ready(self) -> bool:
        return all(i.outcome is not None for i in self.instances.values())
