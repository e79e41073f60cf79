"""The receipt file of one job and one destination: what it answered, and when it is tried again.

Lines of JSON, only ever appended. A line that a crash tore is ignored: its instance is delivered
once more. Times are wall time, seconds since the epoch (UTC).
"""

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scp.deliver.ports import Receipt, Verdict
from scp.durable import Disk, DurableFile
from scp.errors import NodeError, StorageFullError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer to one instance; with a failure, which try it was and when the next is due."""

    at: float
    receipt: Receipt
    tries: int = 0
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Nothing could be delivered at all."""

    at: float
    reason: str
    tries: int
    retry_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A person asked for another try: what was held or waiting is new again."""

    at: float


type Entry = Answered | Unavailable | Released


@dataclass(slots=True)
class ReceiptState:
    """What the entries amount to."""

    done: dict[str, Receipt] = field(default_factory=dict)
    done_at: dict[str, float] = field(default_factory=dict)
    """When each instance in ``done`` was taken."""
    held: dict[str, Receipt] = field(default_factory=dict)
    skipped: dict[str, Receipt] = field(default_factory=dict)
    tried: dict[str, Answered] = field(default_factory=dict)
    """Instances that failed and are tried again."""
    attempts: dict[str, int] = field(default_factory=dict, compare=False)
    """How often each instance was tried; also of what was released, unless the file was damaged."""
    unavailable: Unavailable | None = None
    """Why nothing goes, unless something went since."""

    def apply(self, entry: Entry) -> Entry:
        """Take an entry; returned as it is kept: an answer with the number of its attempt."""
        match entry:
            case Unavailable():
                self.unavailable = entry
            case Released():
                self.held.clear()
                self.tried.clear()
                self.unavailable = None
            case Answered(receipt=receipt):
                name = receipt.instance
                attempts = receipt.attempts or self.attempts.get(name, 0) + receipt.offers
                self.attempts[name] = attempts
                receipt = replace(receipt, attempts=attempts, offers=1)
                entry = replace(entry, receipt=receipt)
                self.tried.pop(name, None)
                if receipt.verdict.is_done:
                    self.done[name] = receipt
                    self.done_at[name] = entry.at
                    self.held.pop(name, None)
                    self.unavailable = None
                elif receipt.verdict is Verdict.HELD:
                    self.held[name] = receipt
                    # It may have been taken, and then not vouched for.
                    self.done.pop(name, None)
                    self.done_at.pop(name, None)
                elif receipt.verdict is Verdict.SKIPPED:
                    self.skipped[name] = receipt
                    self.held.pop(name, None)
                else:
                    self.tried[name] = entry
        return entry

    def is_settled(self, instance: str) -> bool:
        """Whether nothing more is to be tried."""
        return instance in self.done or instance in self.held or instance in self.skipped

    def entries(self, at: float) -> list[Entry]:
        """The least entries that lead to this state; what is held or skipped is dated ``at``."""
        found: list[Entry] = [
            Answered(at=self.done_at[name], receipt=receipt) for name, receipt in self.done.items()
        ]
        settled = (*self.held.values(), *self.skipped.values())
        found += [Answered(at=at, receipt=receipt) for receipt in settled]
        found += self.tried.values()
        return [*found, self.unavailable] if self.unavailable else found


def load(path: Path) -> ReceiptState:
    """Read a receipt file; a missing one is empty.

    Raises
    ------
    NodeError
        It is there and cannot be read: nothing may be sent again, or given up, for that.
    """
    state = ReceiptState()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return state
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from error
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        entry = _decode(line)
        if entry is not None:
            state.apply(entry)
        elif number < len(lines):
            logger.warning("%s: line %d was torn and is ignored", path.name, number)
    return state


def release_held(disk: Disk, path: Path, at: float) -> None:
    """Have everything tried anew that is held or waits, once the job is queued again."""
    log = ReceiptLog(disk, path, load(path), wall=lambda: at)
    log.record(Released(at=at))
    log.sync()
    log.close()


def hold(disk: Disk, path: Path, held: Iterable[Receipt], at: float) -> None:
    """Note that what was taken needs a person after all; for a job that no queue has."""
    log = ReceiptLog(disk, path, load(path), wall=lambda: at)
    for receipt in held:
        log.record(Answered(at=at, receipt=receipt))
    log.sync()
    log.close()


class ReceiptLog:
    """Appends to a receipt file. Used by one thread at a time."""

    def __init__(
        self, disk: Disk, path: Path, state: ReceiptState, *, wall: Callable[[], float]
    ) -> None:
        self._disk = disk
        self._path = path
        self._wall = wall
        self._file: DurableFile | None = None
        self._is_new = False
        self._is_damaged = False
        self.state = state
        self.unsynced = 0
        """Entries that a power failure would lose."""

    def record(self, entry: Entry) -> Entry:
        """Append an entry and return it as it is written, see :meth:`ReceiptState.apply`.

        It is durable after :meth:`sync`, which raises what went wrong here.
        """
        entry = self.state.apply(entry)
        self.unsynced += 1
        if self._is_damaged:
            return entry
        try:
            if self._file is None:
                self._file = self._open()
            self._file.write(_encode(entry))
        except (OSError, StorageFullError) as error:
            logger.warning("receipts cannot be written: %s", error)
            self._is_damaged = True
        return entry

    def sync(self) -> None:
        """Return once every entry is on the disk.

        A file that could not be written or synced is not touched again: the next call writes the
        whole state to a fresh one.

        Raises
        ------
        StorageFullError, OSError
            They are not; nothing is lost as long as the process lives.
        """
        if not self.unsynced:
            return
        if self._is_damaged:
            self.close()
            lines = [_encode(entry) for entry in self.state.entries(self._wall())]
            self._disk.publish(self._path, b"".join(lines))
            self._is_damaged = False
        else:
            try:
                if self._file is None:
                    self._disk.sync_path(self._path)
                else:
                    self._file.sync()
                if self._is_new:
                    self._disk.sync_folder(self._path.parent)
                    self._is_new = False
            except (OSError, StorageFullError):
                self._is_damaged = True
                raise
        self.unsynced = 0

    def close(self) -> None:
        """Give the descriptor back; the log may be used again, and synced."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> DurableFile:
        file = self._disk.append_to(self._path)
        try:
            size = os.fstat(file.descriptor).st_size
            self._is_new = self._is_new or not size
            if size and not _ends_whole(self._path):
                file.write(b"\n")
        except (OSError, StorageFullError):
            file.close()
            raise
        return file


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _encode(entry: Entry) -> bytes:
    content = asdict(entry)
    match entry:
        case Answered():
            content |= content.pop("receipt")
            del content["is_of_its_class"], content["offers"]
        case Unavailable():
            content["unavailable"] = content.pop("reason")
        case Released():
            content["released"] = True
    return json.dumps(content).encode() + b"\n"


def _decode(line: bytes) -> Entry | None:
    try:
        content: dict[str, Any] = json.loads(line)
        at = float(content["at"])
        datetime.fromtimestamp(at, UTC)  # Who reads it makes one of it.
        if "released" in content:
            return Released(at=at)
        tries, retry_at = int(content["tries"]), float(content["retry_at"])
        if "unavailable" in content:
            reason = str(content["unavailable"])
            return Unavailable(at=at, reason=reason, tries=tries, retry_at=retry_at)
        receipt = Receipt(
            instance=str(content["instance"]),
            verdict=Verdict(content["verdict"]),
            status=str(content["status"]),
            detail=str(content["detail"]),
            transfer_syntax=str(content["transfer_syntax"]),
            attempts=int(content.get("attempts", 0)),  # Earlier versions did not count.
        )
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None
    return Answered(at=at, receipt=receipt, tries=tries, retry_at=retry_at)
