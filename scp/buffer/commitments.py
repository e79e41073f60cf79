"""Storage commitment in the spool: one small file for each transaction, durable before it is answered.

``requested`` has what peers ask of the node, ``asked`` what the node asks of its destinations and
``answers`` what those have reported. Receivers write the first and the last, the coordinator takes
them up; as everywhere in the spool, the folders are the truth.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from scp.buffer.layout import Layout
from scp.commitment import CommitmentReport, CommitmentRequest, Reference
from scp.durable import Disk
from scp.errors import StorageFullError, UnknownTransactionError
from scp.model import Origin

logger = logging.getLogger(__name__)

FORMAT: Final = 1
MAX_REQUESTS: Final = 10_000
MAX_REQUESTED_BYTES: Final = 64 * 2**20
"""Of requests that are open at a time; a peer that asks for more is told to come later."""
ENDING: Final = ".json"
_COARSE_NS: Final = 1_000_000_000
"""Two changes of a folder within it may bear the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """What a peer has asked for, and, once that is known, what it is told."""

    origin: Origin
    request: CommitmentRequest
    received: float
    """Wall time, seconds since the epoch (UTC), as all times here."""
    report: CommitmentReport | None = None
    decided: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a destination was asked for. ``items`` are (job, instance, reference)."""

    destination: str
    ae_title: str
    """Whose report counts. Empty: anybody's, as of what an older version has asked."""
    transaction_uid: str
    asked: float
    items: tuple[tuple[str, str, Reference], ...]

    @property
    def references(self) -> tuple[Reference, ...]:
        return tuple(dict.fromkeys(reference for _, _, reference in self.items))


class CommitmentFiles:
    """The folders under ``commitments``. Safe to use from several threads and processes."""

    def __init__(
        self, layout: Layout, disk: Disk, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._layout = layout
        self._disk = disk
        self._wall = wall

    # -- by receivers --------------------------------------------------------------------------

    def take_request(self, origin: Origin, request: CommitmentRequest) -> None:
        """Keep a request; on return it is durable. The same one again is there already, and decided
        anew where it was decided and perhaps told.

        Raises
        ------
        UnknownTransactionError
            The peer uses the Transaction UID for something else that is not answered yet.
        StorageFullError
            Too many wait, or the disk is full or failed.
        """
        folder = self._layout.requested
        path = folder / _name(origin.calling_ae_title, request.transaction_uid)
        requested = Requested(origin=origin, request=request, received=self._wall())
        with self._locked(folder):
            known = self.requested(path.name)
            if known is not None and known.request != request:
                raise UnknownTransactionError("the Transaction UID is in use for other instances")
            if known is not None and known.report is None:
                # Whoever wrote it may have been killed before it had synced the name.
                self._disk.sync_folder(folder)
                return
            if known is None:
                self._check_room(folder)
            self._publish(path, _requested(requested))

    def take_report(self, origin: Origin, report: CommitmentReport) -> None:
        """Keep what a destination reports; on return it is durable.

        Raises
        ------
        UnknownTransactionError
            No destination of that AE title was asked for that, or it has been answered.
        StorageFullError
            The disk is full or failed.
        """
        name = _name("", report.transaction_uid)
        asked = self._load(self._layout.asked / name)
        if asked is None:
            raise UnknownTransactionError(
                f"{origin.calling_ae_title} reports storage commitment that nobody waits for"
            )
        if asked.get("ae_title", "") not in ("", origin.calling_ae_title):
            raise UnknownTransactionError(
                f"{origin.calling_ae_title} at {origin.peer_address} reports for "
                f"{asked.get('destination')}, of which {asked['ae_title']} was asked: if it may, give "
                "its title as commitment: ae_title"
            )
        path = self._layout.answers / name
        self._publish(path, {"format": FORMAT, "report": _report(report)})

    # -- what peers ask ------------------------------------------------------------------------

    def requests(self) -> list[str]:
        """The names of what was asked and is not reported yet."""
        return self._names(self._layout.requested)

    def requested(self, name: str) -> Requested | None:
        """None: it is gone, or cannot be understood, which the log says."""
        content = self._load(self._layout.requested / name)
        if content is None:
            return None
        try:
            report = content["report"]
            return Requested(
                origin=Origin(**content["origin"]),
                request=CommitmentRequest(
                    transaction_uid=content["transaction_uid"],
                    references=_references(content["references"]),
                ),
                received=float(content["received"]),
                report=report and _read_report(report),
                decided=float(content["decided"]),
            )
        except (KeyError, TypeError, ValueError):
            logger.error("commitments/requested/%s is damaged and ignored", name)
            return None

    def decide(self, name: str, requested: Requested) -> None:
        """Write down what the peer will be told: after a restart it is told the same."""
        self._publish(self._layout.requested / name, _requested(requested))

    def drop_request(self, name: str) -> None:
        """The peer was told, or given up; not where it has asked again since it was decided."""
        with self._locked(self._layout.requested):
            requested = self.requested(name)
            if requested is not None and requested.report is not None:
                self._drop(self._layout.requested / name)

    # -- what destinations are asked -----------------------------------------------------------

    def ask(self, asked: Asked) -> None:
        """Know the transaction, before the destination does."""
        self._publish(
            self._layout.asked / _name("", asked.transaction_uid),
            {
                "format": FORMAT,
                "destination": asked.destination,
                "ae_title": asked.ae_title,
                "transaction_uid": asked.transaction_uid,
                "asked": asked.asked,
                "items": [
                    [job, name, reference.sop_class_uid, reference.sop_instance_uid]
                    for job, name, reference in asked.items
                ],
            },
        )

    def all_asked(self) -> list[Asked]:
        """Every transaction that is open."""
        found = []
        for name in self._names(self._layout.asked):
            content = self._load(self._layout.asked / name)
            if content is None:
                continue
            try:
                found.append(
                    Asked(
                        destination=content["destination"],
                        ae_title=content.get("ae_title", ""),
                        transaction_uid=content["transaction_uid"],
                        asked=float(content["asked"]),
                        items=tuple(
                            (job, instance, Reference(sop_class, sop_instance))
                            for job, instance, sop_class, sop_instance in content["items"]
                        ),
                    )
                )
            except (KeyError, TypeError, ValueError):
                logger.error("commitments/asked/%s is damaged and ignored", name)
        return found

    def answers(self) -> list[CommitmentReport]:
        """What destinations have reported and nobody has taken up."""
        found = []
        for name in self._names(self._layout.answers):
            content = self._load(self._layout.answers / name)
            if content is None:
                continue
            try:
                found.append(_read_report(content["report"]))
            except (KeyError, TypeError, ValueError):
                logger.error("commitments/answers/%s is damaged and ignored", name)
        return found

    def drop_asked(self, transaction_uid: str) -> None:
        """The transaction is over: a report that comes later finds nobody."""
        name = _name("", transaction_uid)
        self._drop(self._layout.asked / name)
        self._drop(self._layout.answers / name)

    def changed(self) -> tuple[int, int]:
        """Two numbers that change when a receiver has put something there."""
        return _changed(self._layout.requested), _changed(self._layout.answers)

    # -- files ---------------------------------------------------------------------------------

    def _names(self, folder: Path) -> list[str]:
        names = os.listdir(folder)
        return sorted(name for name in names if name.endswith(ENDING) and name[0] != ".")

    def _load(self, path: Path) -> dict[str, Any] | None:
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.error("%s/%s is ignored: %s", path.parent.name, path.name, error)
            return None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            logger.error("%s/%s is of another version and ignored", path.parent.name, path.name)
            return None
        return content

    def _publish(self, path: Path, content: dict[str, Any]) -> None:
        try:
            self._disk.publish(path, json.dumps(content).encode() + b"\n")
        except OSError as error:
            raise StorageFullError(f"spool: {error.strerror}") from error

    def _check_room(self, folder: Path) -> None:
        count = total = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                count += 1
                total += entry.stat().st_size
        if count >= MAX_REQUESTS or total >= MAX_REQUESTED_BYTES:
            raise StorageFullError(f"{count} requests for storage commitment wait already")

    @contextlib.contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Alone among threads and processes, for as long as a file takes."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _drop(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(path)


def _changed(folder: Path) -> int:
    """When; a folder of just now is another each time, as times of files may be coarse."""
    now, changed = time.time_ns(), os.stat(folder).st_mtime_ns
    return now if abs(now - changed) < _COARSE_NS else changed


def _name(ae_title: str, transaction_uid: str) -> str:
    """A file name that is safe whatever a peer calls itself and its transaction."""
    return hashlib.sha256(f"{ae_title}\0{transaction_uid}".encode()).hexdigest()[:32] + ENDING


def _requested(requested: Requested) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "origin": asdict(requested.origin),
        "transaction_uid": requested.request.transaction_uid,
        "references": [_pair(each) for each in requested.request.references],
        "received": requested.received,
        "report": requested.report and _report(requested.report),
        "decided": requested.decided,
    }


def _report(report: CommitmentReport) -> dict[str, Any]:
    return {
        "transaction_uid": report.transaction_uid,
        "committed": [_pair(each) for each in report.committed],
        "failed": [[*_pair(each), reason] for each, reason in report.failed.items()],
    }


def _read_report(content: dict[str, Any]) -> CommitmentReport:
    return CommitmentReport(
        transaction_uid=content["transaction_uid"],
        committed=_references(content["committed"]),
        failed={
            Reference(sop_class, sop_instance): int(reason)
            for sop_class, sop_instance, reason in content["failed"]
        },
    )


def _pair(reference: Reference) -> tuple[str, str]:
    return reference.sop_class_uid, reference.sop_instance_uid


def _references(pairs: Iterable[Iterable[str]]) -> tuple[Reference, ...]:
    return tuple(Reference(sop_class, sop_instance) for sop_class, sop_instance in pairs)
