"""What goes into the queue of a destination, and what it reports."""

from dataclasses import dataclass, field
from pathlib import Path

from scp.deliver.ports import Receipt
from scp.model import DeliveryItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One job's share of a destination."""

    job: str
    receipts: Path
    items: tuple[DeliveryItem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Instances were delivered, held or skipped; their receipts are durable."""

    job: str
    destination: str
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Every instance of the job is delivered, held or skipped; the queue has forgotten the job."""

    job: str
    destination: str
    delivered: int
    held: dict[str, str]
    """Instance to reason."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Instance to reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An attempt failed, wholly or in part."""

    job: str
    destination: str
    reason: str
    retry_at: float
    """Wall time of the next."""


type Event = Progress | Finished | Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSnapshot:
    """For the status."""

    destination: str
    jobs: dict[str, int]
    """Pending instances of each."""
    oldest: float | None
    """Wall time since when the oldest waits."""
    last_error: str
    """Empty once the destination took something again."""
    next_try: float | None
    """Wall time; None when nothing is pending or an attempt is being made."""
    is_sending: bool
    down_since: float | None = None
    """Wall time of the first failure of the destination as a whole since it took something."""
    silent_since: float | None = None
    """Wall time since when the attempt that waits the longest has had no answer."""
    was_reached: bool = False
    """Whether the destination has answered since the start, with more than to come later."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Reason to the number of instances that were skipped for it since the start."""

    @property
    def pending(self) -> int:
        return sum(self.jobs.values())
