"""What the delivery queue needs from a kind of destination, and a destination from the node."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from scp.model import DeliveryItem


class Verdict(StrEnum):
    """What a destination's answer to one instance means for the queue."""

    DELIVERED = "delivered"
    WARNING = "warning"
    """Delivered; the peer coerced or dropped elements (B000, B006, B007)."""
    ALREADY_THERE = "already_there"
    """Delivered earlier (0111 for what is no conflict, or a file with the same bytes)."""
    TRANSIENT = "transient"
    """Tried again without end, after a backoff (A7xx, no answer)."""
    LIMITED = "limited"
    """Tried five times over an hour, then as REFUSED where it was the peer who said no (0110, Cxxx)."""
    REFUSED = "refused"
    """The peer will not take this instance (A9xx, 0122, 0124, its class or syntax): held, or skipped
    where the destination's ``on_refused`` says so. A queue makes one of the two of it."""
    HELD = "held"
    """A person decides (a file that is not the committed one, 0111 for a conflict)."""
    SKIPPED = "skipped"
    """Not delivered, because the configuration says so; the detail is the reason."""

    @property
    def is_done(self) -> bool:
        """Whether the destination has it."""
        return self in (Verdict.DELIVERED, Verdict.WARNING, Verdict.ALREADY_THERE)

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to be tried unless a person asks for it."""
        return self.is_done or self in (Verdict.HELD, Verdict.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One destination's answer to one instance; a line of the job's receipt file."""

    instance: str
    verdict: Verdict
    status: str
    """``0000`` in hexadecimal; empty where the destination has no DICOM statuses."""
    detail: str = ""
    """Why, for a person; no patient data."""
    transfer_syntax: str = ""
    """What was sent."""
    attempts: int = 0
    """Which try of the instance this was, from 1; a destination leaves it to its receipt file."""
    is_of_its_class: bool = False
    """It is said of the SOP class, whatever becomes of others; not in the receipt file."""
    offers: int = 1
    """How often the instance was sent until there was this answer; the receipt file has their sum."""


class DecodeForPeer(Protocol):
    """Makes a native copy for a peer that refuses a compressed syntax, verified."""

    def __call__(self, item: DeliveryItem, transfer_syntax: str) -> Path:
        """The file to send in Explicit or Implicit VR Little Endian; the caller deletes it.

        Raises
        ------
        ConversionError
            It cannot be decoded, or not verified: the instance is held.
        WorkerLostError, StorageFullError, OSError
            Not now, or not on this disk: the instance is tried again.
        PeerUnavailableError
            The node stops: the attempt ends, and nothing is said of the instance.
        """
        ...


class Destination(Protocol):
    """One kind of place to deliver to. Used by one thread; a queue has one for each of its lanes."""

    def deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        """Deliver in order and yield a receipt for each item tried, as soon as it is durable there.

        Fewer receipts than items come only when ``should_stop`` became true, or with an error.

        Raises
        ------
        PeerUnavailableError
            The items without a receipt may be tried again.
        PeerRejectedError
            Everything without a receipt counts as answered with LIMITED.
        """
        ...

    def check(self) -> str:
        """Try whether it can be reached (C-ECHO, a writable folder) and say so in one line.

        Raises
        ------
        DeliveryError
            It cannot; the message says why.
        """
        ...
