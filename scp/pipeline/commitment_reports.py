"""What peers are told of storage commitment: once it is decided and written down, until they know."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from scp.accept.commitment import report_to
from scp.buffer.commitments import CommitmentFiles, Requested
from scp.commitment import CommitmentReport
from scp.config.schema import Config, DicomDestination
from scp.deliver.breaker import Backoff
from scp.deliver.commitment import report_commitment
from scp.errors import DeliveryError
from scp.pipeline.threads import Chores, Inbox

logger = logging.getLogger(__name__)

AT_A_TIME = 4
"""Associations for reports; one to each peer at most, so that one that hangs delays itself alone."""

_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class _Waiting:
    requested: Requested
    due: float = 0.0
    """Monotonic."""
    tries: int = 0
    is_written: bool = True
    """The decision is durable: nobody is told before."""
    is_sending: bool = False


class Reports:
    """Decided requests. On the coordinator's thread; each report is sent by a thread of its own.

    A peer that cannot be told is tried again, ever more rarely, for as long as an instance may take
    to be delivered; then it is given up, and the log says so.
    """

    def __init__(
        self,
        config: Config,
        files: CommitmentFiles,
        inbox: Inbox,
        chores: Chores,
        *,
        backoff: Backoff | None = None,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = config.access
        self._timeout = config.commit.timeout
        self._files = files
        self._inbox = inbox
        self._chores = chores
        self._backoff = backoff or Backoff()
        self._wall = wall
        self._now = now
        self._waiting: dict[str, _Waiting] = {}
        self.given_up = 0
        """Since the start."""

    @property
    def unreported(self) -> int:
        return len(self._waiting)

    def has(self, name: str) -> bool:
        return name in self._waiting

    def add(self, name: str, requested: Requested) -> None:
        """Tell a peer what was decided before the node was started again."""
        self._waiting[name] = _Waiting(requested)

    def decided(self, name: str, requested: Requested) -> None:
        """Write a decision down, then tell the peer."""
        waiting = self._waiting[name] = _Waiting(requested, is_written=False)
        report = requested.report
        assert report is not None
        logger.info(
            "storage commitment for %s: %d instances committed, %d failed",
            requested.origin.calling_ae_title,
            len(report.committed),
            len(report.failed),
        )
        self._write(name, waiting)

    def _write(self, name: str, waiting: _Waiting) -> None:
        def failed(error: Exception) -> None:
            # Not told, and not forgotten: a restart decides again.
            logger.error("storage commitment cannot be written down: %s; tried again", error)
            waiting.due = self._now() + _AGAIN_SECONDS

        def written(_: None) -> None:
            waiting.is_written = True
            waiting.due = self._now()
            self.tick()

        waiting.due = float("inf")
        self._chores.do(lambda: self._files.decide(name, waiting.requested), written, failed)

    def tick(self) -> None:
        """Begin what is due. Cheap to call often."""
        now = self._now()
        sending = [each for each in self._waiting.values() if each.is_sending]
        busy = {each.requested.origin.calling_ae_title for each in sending}
        for name, waiting in list(self._waiting.items()):
            if waiting.due > now or waiting.is_sending:
                continue
            if not waiting.is_written:
                self._write(name, waiting)
                continue
            title = waiting.requested.origin.calling_ae_title
            if len(busy) < AT_A_TIME and title not in busy:
                busy.add(title)
                self._begin(name, waiting)

    def _begin(self, name: str, waiting: _Waiting) -> None:
        origin, report = waiting.requested.origin, waiting.requested.report
        assert report is not None
        peer = report_to(self._access, origin)
        if peer is None:
            self._failed(name, waiting, "it has no report_to in access.peers any more")
            return
        section = DicomDestination(
            kind="dicom",
            host=peer.host,
            port=peer.port,
            ae_title=origin.calling_ae_title,
            calling_ae_title=origin.called_ae_title,
            tls=peer.tls,
        )
        waiting.is_sending = True
        threading.Thread(
            target=self._send, args=(name, waiting, section, report), name="report", daemon=True
        ).start()

    def _send(
        self, name: str, waiting: _Waiting, section: DicomDestination, report: CommitmentReport
    ) -> None:
        try:
            report_commitment(section, report)
        except DeliveryError as error:
            reason = str(error)
            self._inbox.post(lambda: self._failed(name, waiting, reason))
        except Exception as error:
            logger.exception("a report of storage commitment failed unexpectedly")
            reason = f"internal error: {type(error).__name__}"
            self._inbox.post(lambda: self._failed(name, waiting, reason))
        else:
            self._inbox.post(lambda: self._told(name, waiting))

    def _told(self, name: str, waiting: _Waiting) -> None:
        waiting.is_sending = False
        logger.info(
            "%s was told of its storage commitment", waiting.requested.origin.calling_ae_title
        )
        self._drop(name)

    def _failed(self, name: str, waiting: _Waiting, reason: str) -> None:
        waiting.is_sending = False
        waiting.tries += 1
        title = waiting.requested.origin.calling_ae_title
        if self._wall() - waiting.requested.decided >= self._timeout:
            self.given_up += 1
            logger.error("%s is not told of its storage commitment, given up: %s", title, reason)
            self._drop(name)
            return
        wait = self._backoff.seconds(waiting.tries, self._backoff.random())
        waiting.due = self._now() + wait
        logger.warning(
            "%s cannot be told of its storage commitment, next try in %.0f s: %s",
            title,
            wait,
            reason,
        )

    def _drop(self, name: str) -> None:
        """Forget it, the file first: under the same name the peer may have asked again meanwhile."""

        def gone(_: object) -> None:
            self._waiting.pop(name, None)

        self._waiting[name].due = float("inf")
        self._chores.do(lambda: self._files.drop_request(name), gone, gone)
