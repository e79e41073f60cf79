"""What a peer is told of its instances: which are safe, which are not, and when that is known."""

import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from scp.buffer.commitments import CommitmentFiles, Requested
from scp.buffer.job import JobInstance, JobVolume
from scp.buffer.layout import Layout
from scp.commitment import CommitmentRequest, Failure, Reference
from scp.durable import Disk
from scp.errors import LedgerError
from scp.ledger.memory import MemoryLedger
from scp.ledger.ports import LedgerRow, State
from scp.model import Form
from scp.pipeline.commitments import Commitments
from scp.pipeline.live import Live
from scp.pipeline.threads import Chores, Inbox
from tests.ledger.rows import NOON, row
from tests.pipeline.jobs import ORIGIN, instance, job_of, takes
from tests.pipeline.parts import SECONDS, HandClock, config_for, pacs

CLASS = "1.1"
"""Of :func:`tests.pipeline.jobs.instance`."""
COMMITTED = 0
UNKNOWN_AFTER, TIMEOUT = 600.0, 24 * 3600.0


class Told:
    """Instead of the reports: what would be told, by transaction."""

    def __init__(self) -> None:
        self.decided_of: dict[str, Requested] = {}
        self.of_before: dict[str, Requested] = {}

    def has(self, name: str) -> bool:
        return name in self.decided_of | self.of_before

    def add(self, name: str, requested: Requested) -> None:
        self.of_before[name] = requested

    def decided(self, name: str, requested: Requested) -> None:
        self.decided_of[name] = requested


class FailingLedger(MemoryLedger):
    """Cannot be asked while it is away."""

    is_away = False
    asked = 0

    def find_instances(self, uids: Collection[str]) -> list[LedgerRow]:
        self.asked += 1
        if self.is_away:
            raise LedgerError("no connection")
        return super().find_instances(uids)


class Desk:
    """Requests, and everything that decides on them, with the test as its loop."""

    def __init__(self, folder: Path, **commit: Any) -> None:
        destinations = {
            "archive": {"kind": "folder", "path": str(folder / "archive")},
            "pacs": pacs(104),
            "store": {"kind": "s3", "bucket": "images"},
        }
        config = config_for(folder, destinations=destinations, commit=commit)
        self.layout, disk = Layout(config.node.data), Disk()
        self.layout.make(disk)
        self.wall = HandClock(NOON.timestamp())
        self.files = CommitmentFiles(self.layout, disk, wall=self.wall)
        self.ledger = FailingLedger()
        self.told = Told()
        self.jobs: list[Live] = []
        self.open: set[str] = set()
        self.inbox = Inbox()
        self.chores = Chores(self.inbox)
        self.commitments = Commitments(
            config,
            self.files,
            self.ledger,
            self.chores,
            self.told,  # type: ignore[arg-type]
            jobs=lambda: self.jobs,
            uncommitted=lambda: self.open,
            wall=self.wall,
        )

    def ask(self, *names: str, sop_class: str = CLASS, transaction: str = "1.9") -> None:
        """For the instances that :func:`instance` makes of these names."""
        references = tuple(Reference(sop_class, f"1.2.{name}") for name in names)
        request = CommitmentRequest(transaction_uid=transaction, references=references)
        self.files.take_request(ORIGIN, request)
        self.settle()

    def job(self, *instances: JobInstance, **of_job: Any) -> Live:
        live = Live(job=replace(job_of("job-1", list(instances)), **of_job), folder=Path("job-1"))
        self.jobs.append(live)
        return live

    def settle(self) -> None:
        """As often as the coordinator looks, until all looks have ended."""
        for _ in range(4):
            self.commitments.tick()
            ended: list[object] = []
            self.chores.do(lambda: None, ended.append, ended.append)
            deadline = time.monotonic() + SECONDS
            while not ended:
                assert time.monotonic() < deadline, "a chore does not end"
                wait([self.inbox.fileno()], 0.05)
                self.inbox.run_posted()

    def later(self, seconds: float) -> None:
        self.wall.seconds += seconds
        self.settle()

    @property
    def answers(self) -> dict[str, int]:
        """By UID: 0, or the Failure Reason; of the only request that is decided."""
        if not self.told.decided_of:
            return {}
        (requested,) = self.told.decided_of.values()
        report = requested.report
        assert report is not None
        assert requested.decided == self.wall()
        return dict.fromkeys((r.sop_instance_uid for r in report.committed), COMMITTED) | {
            reference.sop_instance_uid: reason for reference, reason in report.failed.items()
        }


type MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[MakeDesk]:
    made: list[Desk] = []

    def make(**commit: Any) -> Desk:
        made.append(Desk(tmp_path, **commit))
        return made[-1]

    yield make
    for desk in made:
        desk.chores.stop(SECONDS)


# -- what is in the spool --------------------------------------------------------------------------


def test_an_instance_is_committed_when_every_destination_has_it(make_desk: MakeDesk) -> None:
    desk = make_desk()
    live = desk.job(instance("a"), instance("b"))
    desk.ask("a", "b")
    takes("archive", ["a", "b"], live)
    takes("pacs", ["a"], live)
    desk.commitments.changed(live)
    desk.settle()
    assert desk.answers == {}
    assert desk.commitments.open_requests == 1

    takes("pacs", ["b"], live)
    desk.commitments.changed(live)
    desk.settle()

    assert desk.answers == {"1.2.a": COMMITTED, "1.2.b": COMMITTED}
    assert desk.commitments.open_requests == 0


def test_only_the_destinations_that_are_named_have_to_have_it(make_desk: MakeDesk) -> None:
    desk = make_desk(to=["archive"])
    takes("archive", ["a"], desk.job(instance("a")))

    desk.ask("a")

    assert desk.answers == {"1.2.a": COMMITTED}


def test_what_is_not_sent_to_a_destination_that_is_named_has_failed(make_desk: MakeDesk) -> None:
    desk = make_desk(to=["archive", "pacs"])
    takes("archive", ["a"], desk.job(instance("a", send_to=("archive",))))

    desk.ask("a")

    assert desk.answers == {"1.2.a": Failure.PROCESSING_FAILURE}


def test_what_is_held_or_skipped_has_failed_at_once(make_desk: MakeDesk) -> None:
    desk = make_desk()
    live = desk.job(instance("a"), instance("b"), instance("c", send_to=()))
    live.held = {"pacs": {"a": "the peer answers A900"}}
    live.skipped = {"b": {"archive": "sop_class_skipped", "pacs": "sop_class_skipped"}}

    desk.ask("a", "b", "c")

    assert desk.answers == dict.fromkeys(["1.2.a", "1.2.b", "1.2.c"], Failure.PROCESSING_FAILURE)


@pytest.mark.parametrize(
    ("restore_record", "taken_by", "answer"),
    [
        ("embedded", ("archive", "pacs"), COMMITTED),
        ("sidecar", ("archive", "pacs"), COMMITTED),
        ("sidecar", ("store", "pacs"), COMMITTED),
        ("sidecar", ("pacs",), Failure.PROCESSING_FAILURE),  # No node keeps a sidecar.
        ("none", ("archive", "pacs"), Failure.PROCESSING_FAILURE),
        ("", ("archive", "pacs"), COMMITTED),  # Of an earlier version: as the configuration says.
    ],
)
def test_what_was_collapsed_is_committed_only_while_it_can_be_restored(
    restore_record: str, taken_by: tuple[str, ...], answer: int, make_desk: MakeDesk
) -> None:
    desk = make_desk()
    frame = instance("a", volume="v.dcm", frame=1, form=Form.ENHANCED.value, send_to=taken_by)
    volume = JobVolume(
        name="v.dcm",
        identity=replace(frame.identity, sop_instance_uid="1.2.v"),
        transfer_syntax="1.2.840.10008.1.2.4.202",
        send_to=taken_by,
        result_bytes=200,
        result_sha256="",
        restore_record=restore_record,
    )
    live = desk.job(frame, volumes=(volume,))
    for destination in taken_by:
        takes(destination, ["v.dcm"], live)

    desk.ask("a")

    assert desk.answers == {"1.2.a": answer}


def test_a_destination_that_skips_an_instance_need_not_have_it(make_desk: MakeDesk) -> None:
    desk = make_desk()
    live = desk.job(instance("a"))
    live.skipped = {"a": {"pacs": "sop_class_skipped"}}
    takes("archive", ["a"], live)

    desk.ask("a")

    assert desk.answers == {"1.2.a": COMMITTED}


def test_a_repeat_counts_as_what_it_repeats(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.job(instance("a", repeat_of="job-0", received=NOON.timestamp() + 5))
    takes("archive", ["a"], first := desk.job(instance("a", send_to=("archive",))))

    desk.ask("a")

    assert first.has("archive", "a")
    assert desk.answers == {"1.2.a": COMMITTED}


def test_what_is_open_or_converted_waits(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.ledger.record([ledger_row("a")])
    desk.open = {"1.2.a"}
    desk.ask("a")
    assert desk.answers == {}

    desk.open = set()
    live = desk.job(instance("a", received=NOON.timestamp() + 60))
    live.held = {"archive": {"a": "no room"}}
    desk.commitments.changed(live)
    desk.settle()

    assert desk.answers == {
        "1.2.a": Failure.PROCESSING_FAILURE
    }  # The newest is what its sender has.


def test_another_sop_class_is_said(make_desk: MakeDesk) -> None:
    desk = make_desk()
    live = desk.job(instance("a"))
    takes("archive", ["a"], live)
    takes("pacs", ["a"], live)

    desk.ask("a", sop_class="1.7")

    assert desk.answers == {"1.2.a": Failure.CLASS_INSTANCE_CONFLICT}


# -- what has left it ------------------------------------------------------------------------------


def ledger_row(name: str, **changes: Any) -> LedgerRow:
    """Of a collapsed instance the archive has the volume."""
    identity = instance(name).identity
    made = replace(row(1), job="job-0", instance=name, identity=identity, **changes)
    taken = replace(made.destinations["archive"], is_collapsed=bool(made.became))
    return replace(made, destinations={**made.destinations, "archive": taken})


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, COMMITTED),
        ({"state": State.DISCARDED}, Failure.PROCESSING_FAILURE),
        ({"state": State.SKIPPED}, Failure.PROCESSING_FAILURE),
        ({"became": "1.2.v", "restore_record": "embedded"}, COMMITTED),
        ({"became": "1.2.v", "restore_record": "sidecar"}, COMMITTED),
        ({"became": "1.2.v", "restore_record": "none"}, Failure.PROCESSING_FAILURE),
        ({"became": "1.2.v"}, COMMITTED),
    ],
)
def test_the_ledger_tells_of_what_has_left_the_spool(
    changes: dict[str, Any], answer: int, make_desk: MakeDesk
) -> None:
    desk = make_desk()
    desk.ledger.record([ledger_row("a", **changes)])

    desk.ask("a")

    assert desk.answers == {"1.2.a": answer}


def test_the_newest_row_decides_and_repeats_are_none(make_desk: MakeDesk) -> None:
    desk = make_desk()
    late, last = datetime(2026, 1, 6, tzinfo=UTC), datetime(2026, 1, 7, tzinfo=UTC)
    desk.ledger.record(
        [
            ledger_row("a", state=State.DISCARDED),
            replace(ledger_row("a", received_at=late), job="job-1"),
            replace(ledger_row("a", received_at=last, state=State.REPEAT), job="job-2"),
        ]
    )

    desk.ask("a")

    assert desk.answers == {"1.2.a": COMMITTED}


@pytest.mark.parametrize(
    ("to", "answer"), [("pacs", COMMITTED), ("archive", Failure.PROCESSING_FAILURE)]
)
def test_who_got_it_as_a_single_frame_need_not_restore_it(
    to: str, answer: int, make_desk: MakeDesk
) -> None:
    desk = make_desk(to=[to])
    made = ledger_row("a", became="1.2.v", restore_record="none")
    single = replace(made.destinations["archive"], is_collapsed=False)
    desk.ledger.record([replace(made, destinations={**made.destinations, "pacs": single})])

    desk.ask("a")

    assert desk.answers == {"1.2.a": answer}


def test_of_what_was_delivered_elsewhere_only_those_named_count(make_desk: MakeDesk) -> None:
    desk = make_desk(to=["pacs"])
    desk.ledger.record([ledger_row("a")])  # The archive has it.

    desk.ask("a")

    assert desk.answers == {"1.2.a": Failure.PROCESSING_FAILURE}


def test_a_ledger_that_is_away_is_asked_again(
    make_desk: MakeDesk, caplog: pytest.LogCaptureFixture
) -> None:
    desk = make_desk()
    desk.ledger.record([ledger_row("a")])
    desk.ledger.is_away = True
    desk.ask("a")
    assert desk.answers == {}
    desk.settle()
    assert caplog.text.count("storage commitment waits for the ledger: no connection") == 1

    desk.ledger.is_away = False
    desk.settle()

    assert desk.answers == {"1.2.a": COMMITTED}


def test_a_request_that_comes_again_while_its_report_is_on_the_way_is_taken_up_after_it(
    make_desk: MakeDesk,
) -> None:
    desk = make_desk()
    desk.ledger.record([ledger_row("a")])
    desk.ask("a")
    (name,) = desk.told.decided_of
    desk.files.decide(name, desk.told.decided_of[name])
    desk.ask("a")
    long_ago = time.time() - 60
    os.utime(desk.layout.requested, (long_ago, long_ago))  # Nothing else has come for long.
    desk.settle()

    del desk.told.decided_of[name]  # The peer knows.
    desk.settle()

    assert desk.answers == {"1.2.a": COMMITTED}


# -- what does not come ----------------------------------------------------------------------------


def test_what_nobody_has_sent_is_unknown_after_a_while(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.ledger.record([ledger_row("a")])
    desk.ask("a", "b")
    desk.later(UNKNOWN_AFTER - 1)
    assert desk.answers == {}

    desk.later(1)

    assert desk.answers == {"1.2.a": COMMITTED, "1.2.b": Failure.NO_SUCH_INSTANCE}


def test_what_is_not_delivered_in_time_has_failed(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.job(instance("a"))
    desk.ask("a")
    desk.later(TIMEOUT - 1)
    assert desk.answers == {}

    desk.later(1)

    assert desk.answers == {"1.2.a": Failure.PROCESSING_FAILURE}


def test_what_was_committed_once_stays_so_in_a_request(make_desk: MakeDesk) -> None:
    desk = make_desk()
    live = desk.job(instance("a", send_to=("archive",)), instance("b", send_to=("archive",)))
    takes("archive", ["a"], live)
    desk.ask("a", "b")
    live.taken.clear()  # It is not looked at again.
    takes("archive", ["b"], live)
    desk.commitments.changed(live)
    desk.settle()

    assert desk.answers == {"1.2.a": COMMITTED, "1.2.b": COMMITTED}


def test_nobody_looks_while_nothing_is_asked_for(make_desk: MakeDesk) -> None:
    desk = make_desk()
    live = desk.job(instance("a"))

    desk.commitments.changed(live)
    desk.settle()

    assert desk.ledger.asked == 0


def test_what_was_decided_before_a_restart_is_handed_on_as_it_was(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.ledger.record([ledger_row("a")])
    desk.ask("a")
    ((name, decided),) = desk.told.decided_of.items()
    desk.files.decide(name, decided)
    desk.told.decided_of.clear()
    desk.ledger = FailingLedger()  # Which knows nothing.

    desk.settle()

    assert desk.told.of_before == {name: decided}
    assert desk.told.decided_of == {}


def test_two_requests_for_one_instance_are_both_answered(make_desk: MakeDesk) -> None:
    desk = make_desk()
    live = desk.job(instance("a", send_to=("archive",)))
    desk.ask("a", transaction="1.8")
    desk.ask("a", transaction="1.9")
    assert desk.commitments.open_requests == 2

    takes("archive", ["a"], live)
    desk.commitments.changed(live)
    desk.settle()

    assert len(desk.told.decided_of) == 2
    assert desk.commitments.open_requests == 0
