"""Storage commitment that destinations are asked for: a delivery counts when they vouch for it.

A job stays in the spool until then, so that what a destination lost can be sent again: whatever it
does not vouch for is held, and ``dcmpress retry`` delivers it and asks anew.
"""

import json
import logging
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from scp.buffer.commitments import Asked, CommitmentFiles
from scp.commitment import CommitmentReport, CommitmentRequest, Reference
from scp.config.schema import Config, DicomDestination
from scp.deliver import receipts
from scp.deliver.breaker import Backoff
from scp.deliver.commitment import ask_for_commitment
from scp.deliver.ports import Receipt, Verdict
from scp.durable import Disk
from scp.errors import DeliveryError
from scp.model import Origin
from scp.pipeline.live import Live
from scp.pipeline.threads import Chores, Inbox

logger = logging.getLogger(__name__)

COLLECT_SECONDS: Final = 2.0
"""Jobs that are delivered within so long are asked for together."""
ITEMS_A_TRANSACTION: Final = 2000
"""Of one job or of several. A report on so many has less than 400 kB, whatever their UIDs are: some
peers take no large one, and we ourselves 4 MiB."""
WAIT_SECONDS: Final = 10.0
"""How long an association stays open for a peer that reports on it."""
_AGAIN_SECONDS: Final = 5.0


class Vouched(Protocol):
    """Takes what a destination said of a job's share."""

    def __call__(self, live: Live, destination: str, refused: Mapping[str, str]) -> None:
        """``refused`` is what it did not vouch for, with why."""
        ...


@dataclass(slots=True)
class _Transaction:
    asked: Asked
    due: float = 0.0
    """Monotonic: when it is tried again; infinite once the destination has taken it."""
    tries: int = 0
    last_error: str = "no report came"
    is_busy: bool = False
    """Its thread asks, or what became of it is being written down."""
    is_settling: bool = False
    """The latter: whoever looks at the reports meanwhile sees the same one again."""

    @property
    def jobs(self) -> set[tuple[str, str]]:
        """(destination, job) of everything in it."""
        return {(self.asked.destination, job) for job, _, _ in self.asked.items}


@dataclass(slots=True)
class _Collected:
    since: float
    jobs: dict[str, Live] = field(default_factory=dict)


class CommitmentAsks:
    """What destinations were asked for. On the coordinator's thread; each asks in a thread of its own."""

    def __init__(
        self,
        config: Config,
        files: CommitmentFiles,
        disk: Disk,
        inbox: Inbox,
        chores: Chores,
        jobs: Mapping[str, Live],
        vouched: Vouched,
        *,
        backoff: Backoff | None = None,
        items_a_transaction: int = ITEMS_A_TRANSACTION,
        wait_seconds: float = WAIT_SECONDS,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sections = vouching_destinations(config)
        self.vouching = frozenset(self._sections)
        """Destinations whose word for a delivery is not enough."""
        self._own_title = config.node.ae_title
        self._files = files
        self._disk = disk
        self._inbox = inbox
        self._chores = chores
        self._jobs = jobs
        self._vouched = vouched
        self._backoff = backoff or Backoff()
        self._items_a_transaction = items_a_transaction
        self._wait_seconds = wait_seconds
        self._wall = wall
        self._now = now
        self._collected: dict[str, _Collected] = {}
        self._open: dict[str, _Transaction] = {}
        self._asked_for: Counter[tuple[str, str]] = Counter()
        """How many transactions are open for (destination, job); there may be a hundred thousand."""
        self._seen: object = None
        for asked in files.all_asked():
            if asked.destination in self.vouching:
                self._begin_one(_Transaction(asked))
            else:
                files.drop_asked(asked.transaction_uid)

    @property
    def unanswered(self) -> int:
        """How many transactions wait for a destination."""
        return len(self._open)

    def asks(self, live: Live, destination: str) -> bool:
        """A destination has taken its share of a job; False: its word is enough.

        Otherwise the job waits for it until ``vouched`` is called.
        """
        if destination not in self.vouching or not live.unvouched(destination):
            return False
        if not self._asked_for[destination, live.job.name]:
            collected = self._collected.setdefault(destination, _Collected(self._now()))
            collected.jobs[live.job.name] = live
        return True

    def tick(self) -> None:
        """Take up reports, ask for what was delivered, give up what took too long. Cheap."""
        if not self.vouching:
            return
        seen = self._files.changed()[1]
        if seen != self._seen:
            self._seen = seen
            for report in self._files.answers():
                self._answered(report)
        for destination, collected in list(self._collected.items()):
            if self._now() - collected.since >= COLLECT_SECONDS:
                del self._collected[destination]
                self._begin(destination, collected)
        now, wall = self._now(), self._wall()
        asking = {each.asked.destination for each in self._open.values() if each.is_busy}
        for each in list(self._open.values()):
            if each.is_busy:
                continue
            section = self._sections[each.asked.destination]
            assert section.commitment is not None
            if wall - each.asked.asked >= section.commitment.timeout:
                reason = f"commitment_timeout: {each.last_error}"
                self._settle(each, dict.fromkeys(each.asked.references, reason))
            elif each.due <= now and each.asked.destination not in asking:
                asking.add(each.asked.destination)
                self._ask(each, section)

    # -- asking --------------------------------------------------------------------------------

    def _begin(self, destination: str, collected: _Collected) -> None:
        """Open transactions for everything collected.

        A job of which one is open is left out: when its last is over, whoever waits for the job asks
        for what is left, of which a crash may have kept a transaction from being written.
        """
        items = [
            (name, each, reference)
            for name, live in collected.jobs.items()
            if self._jobs.get(name) is live and not self._asked_for[destination, name]
            for each, reference in live.unvouched(destination).items()
        ]
        for start in range(0, len(items), self._items_a_transaction):
            end = start + self._items_a_transaction
            self._open_transaction(destination, items[start:end])

    def _open_transaction(self, destination: str, items: list[tuple[str, str, Reference]]) -> None:
        section = self._sections[destination]
        assert section.commitment is not None
        asked = Asked(
            destination=destination,
            ae_title=section.commitment.ae_title or section.ae_title,
            transaction_uid=f"2.25.{uuid.uuid4().int}",
            asked=self._wall(),
            items=tuple(items),
        )
        transaction = _Transaction(asked, is_busy=True)
        self._begin_one(transaction)

        def written(_: None) -> None:
            transaction.is_busy = False
            self.tick()

        def failed(error: Exception) -> None:
            logger.error("storage commitment cannot be asked for: %s; tried again", error)
            self._end_one(transaction)
            collected = self._collected.setdefault(destination, _Collected(self._now()))
            for job in {job for job, _, _ in items} & self._jobs.keys():
                collected.jobs[job] = self._jobs[job]

        self._chores.do(lambda: self._files.ask(asked), written, failed)

    def _begin_one(self, transaction: _Transaction) -> None:
        self._open[transaction.asked.transaction_uid] = transaction
        self._asked_for.update(transaction.jobs)

    def _end_one(self, transaction: _Transaction) -> None:
        self._open.pop(transaction.asked.transaction_uid, None)
        self._asked_for -= Counter(transaction.jobs)

    def _ask(self, transaction: _Transaction, section: DicomDestination) -> None:
        commitment = section.commitment
        assert commitment is not None
        given = {
            key: value
            for key in ("ae_title", "host", "port")
            if (value := getattr(commitment, key)) is not None
        }
        if section.calls_as_sender:
            # Instances of many senders are asked for together, and it is the node that waits.
            given["calling_ae_title"] = self._own_title
        transaction.is_busy = True
        threading.Thread(
            target=self._send,
            args=(transaction, section.model_copy(update=given)),
            name="commitment",
            daemon=True,
        ).start()

    def _send(self, transaction: _Transaction, section: DicomDestination) -> None:
        asked = transaction.asked
        request = CommitmentRequest(
            transaction_uid=asked.transaction_uid, references=asked.references
        )
        origin = Origin(
            calling_ae_title=section.ae_title,
            called_ae_title=section.calling_ae_title,
            peer_address=section.host,
        )

        def take(report: CommitmentReport) -> None:
            self._files.take_report(origin, report)

        try:
            ask_for_commitment(section, request, take, self._wait_seconds)
        except DeliveryError as error:
            reason = str(error)
        except Exception as error:
            logger.exception("storage commitment could not be asked for")
            reason = f"internal error: {type(error).__name__}"
        else:
            reason = ""
        self._inbox.post(lambda: self._asked(transaction, reason))

    def _asked(self, transaction: _Transaction, reason: str) -> None:
        transaction.is_busy = False
        destination = transaction.asked.destination
        if not reason:
            transaction.due = float("inf")
            return
        transaction.tries += 1
        transaction.last_error = reason
        wait = self._backoff.seconds(transaction.tries, self._backoff.random())
        transaction.due = self._now() + wait
        logger.warning(
            "%s cannot be asked for storage commitment, next try in %.0f s: %s",
            destination,
            wait,
            reason,
        )

    # -- what became of it ---------------------------------------------------------------------

    def _answered(self, report: CommitmentReport) -> None:
        transaction = self._open.get(report.transaction_uid)
        if transaction is None:
            self._chores.do(
                lambda: self._files.drop_asked(report.transaction_uid), _ignore, _ignore
            )
            return
        committed = {each.sop_instance_uid for each in report.committed}
        failed = {each.sop_instance_uid: reason for each, reason in report.failed.items()}

        refusals: dict[Reference, str] = {}
        for reference in transaction.asked.references:
            uid = reference.sop_instance_uid
            if uid in failed:
                refusals[reference] = f"commitment_failed: {failed[uid]:04X}"
            elif uid not in committed:
                refusals[reference] = "commitment_failed: the report does not name it"
        self._settle(transaction, refusals)

    def _settle(self, transaction: _Transaction, refusals: Mapping[Reference, str]) -> None:
        """Write down what a destination vouches for and what not, then let its jobs go on."""
        if transaction.is_settling:
            return
        asked = transaction.asked
        transaction.is_busy = transaction.is_settling = True
        shares: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for job, name, reference in asked.items:
            shares[job][name] = refusals.get(reference, "")
        lives = {job: self._jobs[job] for job in shares if job in self._jobs}
        at = self._wall()

        def work() -> None:
            for job, live in lives.items():
                try:
                    self._write(live, asked.destination, shares[job], at)
                except (OSError, ValueError) as error:
                    # Its folder is gone, or damaged: others need not wait for that, and if a restart
                    # finds it again, the destination is asked again.
                    logger.error(
                        "what %s vouches for of job %s is not on record: %s",
                        asked.destination,
                        job,
                        error,
                    )
            self._files.drop_asked(asked.transaction_uid)

        def failed(error: Exception) -> None:
            logger.error("storage commitment cannot be written down: %s; tried again", error)
            transaction.is_busy = transaction.is_settling = False
            self._seen = None
            transaction.due = self._now() + _AGAIN_SECONDS

        def done(_: None) -> None:
            self._end_one(transaction)
            for job, live in lives.items():
                refused = {name: why for name, why in shares[job].items() if why}
                live.vouch(
                    asked.destination,
                    shares[job].keys() - refused.keys(),
                    refused,
                    datetime.fromtimestamp(at, UTC),
                )
                self._vouched(live, asked.destination, refused)
            said = [why for share in shares.values() for why in share.values()]
            refused_count = sum(map(bool, said))
            logger.log(
                logging.ERROR if refused_count else logging.INFO,
                "%s vouches for %d instances, not for %d",
                asked.destination,
                len(said) - refused_count,
                refused_count,
            )

        self._chores.do(work, done, failed)

    def _write(self, live: Live, destination: str, share: dict[str, str], at: float) -> None:
        path = live.vouched_path(destination)
        known = json.loads(path.read_bytes()) if path.exists() else {}
        known |= {name: at for name, why in share.items() if not why}
        self._disk.publish_json(path, known)
        if refused := {name: why for name, why in share.items() if why}:
            receipts.hold(
                self._disk,
                live.receipts_path(destination),
                [
                    Receipt(instance=name, verdict=Verdict.HELD, status="", detail=why)
                    for name, why in refused.items()
                ],
                at,
            )


def vouching_destinations(config: Config) -> dict[str, DicomDestination]:
    """Those that are asked for storage commitment."""
    return {
        name: section
        for name, section in config.destinations.items()
        if isinstance(section, DicomDestination) and section.commitment is not None
    }


def _ignore(_: object) -> None:
    """Tried again at the next start."""
