"""Destinations are asked to vouch for what they took; what they do not vouch for waits for a person."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from scp.accept.commitment import MAX_DATASET_BYTES
from scp.buffer.commitments import Asked, CommitmentFiles
from scp.commitment import CommitmentReport, Reference, encode_report
from scp.deliver import receipts
from scp.deliver.breaker import Backoff
from scp.errors import UnknownTransactionError
from scp.model import Origin
from scp.pipeline.commitment_asks import ITEMS_A_TRANSACTION, CommitmentAsks
from scp.pipeline.live import Live
from tests.buffer.recorder import HookedDisk
from tests.e2e.peers import free_port
from tests.pipeline.conftest import MakeParts
from tests.pipeline.jobs import takes
from tests.pipeline.parts import SECONDS, HandClock, Parts, archive, no_room_for
from tests.vouching_pacs import VouchingPacs, vouching_pacs

PACS = Origin(calling_ae_title="PACS", called_ae_title="D", peer_address="127.0.0.1")
COLLECTED = 2.1
DAY = 86400.0


class Site:
    """A PACS that has to vouch for what it takes, jobs that it took, and who asks it."""

    def __init__(self, make_parts: MakeParts, folder: Path, port: int, **commitment: Any) -> None:
        self.disk = HookedDisk()
        pacs = {
            "kind": "dicom",
            "host": "127.0.0.1",
            "port": port,
            "ae_title": "PACS",
            "commitment": {"timeout": "1d", **commitment},
        }
        self.parts: Parts = make_parts(
            disk=self.disk, destinations={"archive": archive(folder), "pacs": pacs}
        )
        self.files = CommitmentFiles(self.parts.layout, self.disk)
        self.wall, self.now = HandClock(time.time()), HandClock()
        self.jobs: dict[str, Live] = {}
        self.said: list[tuple[str, str, dict[str, str]]] = []
        self.asks = self.started()

    def started(self, items_a_transaction: int = ITEMS_A_TRANSACTION) -> CommitmentAsks:
        return CommitmentAsks(
            self.parts.config,
            self.files,
            self.disk,
            self.parts.inbox,
            self.parts.chores,
            self.jobs,
            self._vouched,
            backoff=Backoff(random=lambda: 0.0),
            items_a_transaction=items_a_transaction,
            wait_seconds=0.5,
            wall=self.wall,
            now=self.now,
        )

    def _vouched(self, live: Live, destination: str, refused: Mapping[str, str]) -> None:
        self.said.append((live.job.name, destination, dict(refused)))

    def job(self, name: str = "job-1", count: int = 2) -> Live:
        """A job that the PACS has taken and does not vouch for yet."""
        job = self.parts.job(name, count=count, send_to=("pacs",))
        live = Live(job=job, folder=self.parts.folders.folder(name), vouching=self.asks.vouching)
        takes("pacs", [instance.name for instance in job.instances], live)
        self.jobs[name] = live
        return live

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            wait([self.parts.inbox.fileno()], 0.05)
            self.parts.inbox.run_posted()
            self.asks.tick()

    def asked_of(self, pacs: VouchingPacs) -> Dataset:
        """The next request that it gets."""
        self.until(lambda: not pacs.asked.empty())
        return pacs.asked.get()

    def report(self, asked: Dataset) -> None:
        """The PACS vouches for all that it was asked for, on an association of its own."""
        references = tuple(
            Reference(str(each.ReferencedSOPClassUID), str(each.ReferencedSOPInstanceUID))
            for each in asked.ReferencedSOPSequence
        )
        report = CommitmentReport(transaction_uid=str(asked.TransactionUID), committed=references)
        self.files.take_report(PACS, report)

    def collect(self) -> None:
        """So much time passes that what was delivered is asked for."""
        self.now.seconds += COLLECTED
        self.asks.tick()


type MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(make_parts: MakeParts, tmp_path: Path) -> MakeSite:
    def make(port: int, **commitment: Any) -> Site:
        return Site(make_parts, tmp_path, port, **commitment)

    return make


@pytest.fixture
def pacs() -> Iterator[VouchingPacs]:
    """One that reports on the association that asks."""
    with vouching_pacs() as running:
        running.reports = "here"
        yield running


def uids(live: Live) -> list[str]:
    return [instance.identity.sop_instance_uid for instance in live.job.instances]


def names(live: Live) -> list[str]:
    return [instance.name for instance in live.job.instances]


def test_a_job_goes_on_when_its_destination_vouches_for_all_of_it(
    make_site: MakeSite, pacs: VouchingPacs
) -> None:
    site = make_site(pacs.port)
    live = site.job()

    assert site.asks.asks(live, "pacs")
    site.collect()
    site.until(lambda: site.said)

    assert site.said == [("job-1", "pacs", {})]
    assert all(live.has("pacs", name) for name in names(live))
    known = json.loads(live.vouched_path("pacs").read_bytes())
    assert known == dict.fromkeys(names(live), site.wall())
    assert (site.files.all_asked(), site.files.answers()) == ([], [])
    assert not site.asks.asks(live, "pacs")
    assert site.asks.unanswered == 0


def test_nobody_else_is_asked(make_site: MakeSite, pacs: VouchingPacs) -> None:
    site = make_site(pacs.port)

    assert not site.asks.asks(site.job(), "archive")


def test_jobs_that_are_delivered_together_are_asked_for_together(
    make_site: MakeSite, pacs: VouchingPacs
) -> None:
    site = make_site(pacs.port)
    lives = [site.job(f"job-{number}") for number in range(3)]
    for live in lives:
        assert site.asks.asks(live, "pacs")
        site.now.seconds += 0.5
        site.asks.tick()
    assert pacs.asked.empty()

    site.collect()
    site.until(lambda: len(site.said) == 3)

    asked = site.asked_of(pacs)
    assert {str(item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence} == {
        uid for live in lives for uid in uids(live)
    }
    assert pacs.asked.empty()


def referenced(asked: Dataset) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence]


def test_what_is_asked_for_together_is_bounded_whatever_is_delivered_together(
    make_site: MakeSite, pacs: VouchingPacs
) -> None:
    site = make_site(pacs.port)
    site.asks = site.started(items_a_transaction=3)
    large, small = site.job("job-1", count=7), site.job("job-2", count=1)
    pacs.refuses = {uids(large)[6]}
    for live in (large, small):
        assert site.asks.asks(live, "pacs")

    site.collect()
    site.until(lambda: len(site.said) == 4)

    asked = [referenced(pacs.asked.get(timeout=SECONDS)) for _ in range(3)]
    assert [len(each) for each in asked] == [3, 3, 2]
    assert [uid for each in asked for uid in each] == uids(large) + uids(small)
    refused = {names(large)[6]: "commitment_failed: 0112"}
    assert site.said == [("job-1", "pacs", {})] * 2 + [
        ("job-1", "pacs", refused),
        ("job-2", "pacs", {}),
    ]
    assert [large.has("pacs", name) for name in names(large)] == [True] * 6 + [False]
    assert len(json.loads(large.vouched_path("pacs").read_bytes())) == 6
    assert not site.asks.asks(large, "pacs")
    assert site.files.all_asked() == []
    assert pacs.asked.empty()


def asked_in_two(make_site: MakeSite, pacs: VouchingPacs) -> tuple[Site, Live, list[Dataset]]:
    """A job of two instances, each asked for in a transaction of its own, of a PACS that is silent."""
    pacs.reports = "never"
    site = make_site(pacs.port)
    site.asks = site.started(items_a_transaction=1)
    live = site.job(count=2)
    assert site.asks.asks(live, "pacs")
    site.collect()
    return site, live, [site.asked_of(pacs) for _ in range(2)]


def test_a_job_waits_for_the_last_of_its_transactions(
    make_site: MakeSite, pacs: VouchingPacs
) -> None:
    site, live, (first, last) = asked_in_two(make_site, pacs)

    site.report(first)
    site.until(lambda: site.said)
    assert site.asks.asks(live, "pacs")
    site.collect()
    assert site.asks.unanswered == 1

    site.report(last)
    site.until(lambda: len(site.said) == 2)
    assert not site.asks.asks(live, "pacs")
    assert pacs.asked.empty()


def test_a_report_that_is_seen_twice_while_it_is_written_down_counts_once(
    make_site: MakeSite, pacs: VouchingPacs
) -> None:
    site, _, (first, last) = asked_in_two(make_site, pacs)
    is_writing, may_write = threading.Event(), threading.Event()

    def hook(operation: str, path: Path) -> None:
        if "vouched" in path.name:
            is_writing.set()
            may_write.wait(SECONDS)

    site.disk.hook = hook
    site.report(first)
    site.until(is_writing.is_set)
    site.report(last)
    site.asks.tick()
    may_write.set()
    site.until(lambda: not site.files.all_asked())
    site.parts.finish_chores()

    assert site.said == [("job-1", "pacs", {})] * 2


def test_a_report_on_a_whole_transaction_is_one_that_we_would_take() -> None:
    failed = {Reference(f"{n:064}", f"{n:064}"): 0x0110 for n in range(ITEMS_A_TRANSACTION)}
    report = CommitmentReport(transaction_uid="1" * 64, failed=failed)

    assert len(encode_report(report, ExplicitVRLittleEndian)) < 400_000 < MAX_DATASET_BYTES


def test_a_death_between_the_transactions_of_a_job_leaves_none_of_it_unasked(
    make_site: MakeSite, pacs: VouchingPacs
) -> None:
    site, live, (first, last) = asked_in_two(make_site, pacs)
    site.files.drop_asked(str(last.TransactionUID))  # As if it had never been written.
    pacs.reports = "here"

    site.asks = site.started(items_a_transaction=1)
    assert site.asks.asks(live, "pacs")
    site.collect()
    site.until(lambda: site.said)
    assert site.asks.asks(live, "pacs")  # As whoever waits for the job does then.
    site.collect()
    site.until(lambda: len(site.said) == 2)

    again, new = (site.asked_of(pacs) for _ in range(2))
    assert again.TransactionUID == first.TransactionUID
    assert referenced(new) == referenced(last)
    assert not site.asks.asks(live, "pacs")


def test_what_is_refused_is_held_and_the_rest_is_there(
    make_site: MakeSite, pacs: VouchingPacs
) -> None:
    site = make_site(pacs.port)
    live = site.job(count=3)
    lost, *others = names(live)
    pacs.refuses = {uids(live)[0]}

    site.asks.asks(live, "pacs")
    site.collect()
    site.until(lambda: site.said)

    reason = "commitment_failed: 0112"
    assert site.said == [("job-1", "pacs", {lost: reason})]
    assert [name for name in others if live.has("pacs", name)] == others
    assert lost not in live.taken or "pacs" not in live.taken[lost]
    held = receipts.load(live.receipts_path("pacs")).held
    assert {name: receipt.detail for name, receipt in held.items()} == {lost: reason}


def test_what_a_report_does_not_name_is_held(make_site: MakeSite, pacs: VouchingPacs) -> None:
    site = make_site(pacs.port)
    live = site.job()
    pacs.forgets = {uids(live)[1]}

    site.asks.asks(live, "pacs")
    site.collect()
    site.until(lambda: site.said)

    why = "commitment_failed: the report does not name it"
    assert site.said == [("job-1", "pacs", {names(live)[1]: why})]


def test_a_destination_that_never_reports_leaves_all_to_a_person(
    make_site: MakeSite, pacs: VouchingPacs
) -> None:
    pacs.reports = "never"
    site = make_site(pacs.port)
    live = site.job()
    site.asks.asks(live, "pacs")
    site.collect()
    site.asked_of(pacs)

    site.wall.seconds += DAY
    site.until(lambda: site.said)

    why = "commitment_timeout: no report came"
    assert site.said == [("job-1", "pacs", dict.fromkeys(names(live), why))]
    with pytest.raises(UnknownTransactionError):
        site.files.take_report(PACS, CommitmentReport(transaction_uid="1.2"))


def test_a_destination_that_is_away_is_asked_again_for_the_same(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    pacs = VouchingPacs()
    pacs.port = free_port()
    pacs.reports = "here"
    site = make_site(pacs.port)
    site.asks.asks(site.job(), "pacs")
    site.collect()
    site.until(lambda: "next try in 1 s: no connection" in caplog.text)
    (asked,) = site.files.all_asked()
    site.now.seconds += 1.0
    site.until(lambda: "next try in 2 s: no connection" in caplog.text)

    pacs.start()
    try:
        site.now.seconds += 2.0
        site.until(lambda: site.said)
        assert site.asked_of(pacs).TransactionUID == asked.transaction_uid
    finally:
        pacs.close()
    assert site.said == [("job-1", "pacs", {})]


def test_a_destination_that_says_no_until_the_time_is_over_is_named_with_its_answer(
    make_site: MakeSite, pacs: VouchingPacs, caplog: pytest.LogCaptureFixture
) -> None:
    pacs.status = 0x0110
    site = make_site(pacs.port)
    live = site.job(count=1)
    site.asks.asks(live, "pacs")
    site.collect()
    site.until(lambda: "cannot be asked for storage commitment" in caplog.text)

    site.wall.seconds += DAY
    site.until(lambda: site.said)

    why = "commitment_timeout: the peer answers N-ACTION with 0110"
    assert site.said == [("job-1", "pacs", {names(live)[0]: why})]


def test_a_full_disk_asks_nobody_and_is_tried_again(
    make_site: MakeSite, pacs: VouchingPacs, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(pacs.port)
    live = site.job()
    site.disk.hook = no_room_for("write", ".json")
    site.asks.asks(live, "pacs")
    site.collect()
    site.until(lambda: "cannot be asked for: " in caplog.text)
    assert pacs.asked.empty()

    site.disk.hook = lambda *_: None
    site.collect()
    site.until(lambda: site.said)

    assert site.said == [("job-1", "pacs", {})]


def test_a_report_that_cannot_be_written_down_is_taken_up_again(
    make_site: MakeSite, pacs: VouchingPacs, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(pacs.port)
    live = site.job()
    site.disk.hook = no_room_for("write", "vouched-pacs.json")
    site.asks.asks(live, "pacs")
    site.collect()
    site.until(lambda: "cannot be written down" in caplog.text)
    assert site.said == []

    site.disk.hook = lambda *_: None
    site.until(lambda: site.said)

    assert site.said == [("job-1", "pacs", {})]
    assert site.asks.unanswered == 0


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_job_whose_folder_is_harmed_keeps_no_other_from_going_on(
    make_site: MakeSite, pacs: VouchingPacs, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    site = make_site(pacs.port)
    harmed, other = site.job("job-1"), site.job("job-2")
    if harm == "gone":
        shutil.rmtree(harmed.folder)
    else:
        harmed.vouched_path("pacs").write_bytes(b"{")
    for live in (harmed, other):
        site.asks.asks(live, "pacs")

    site.collect()
    site.until(lambda: len(site.said) == 2)

    assert sorted(site.said) == [("job-1", "pacs", {}), ("job-2", "pacs", {})]
    assert all(other.has("pacs", name) for name in names(other))
    assert json.loads(other.vouched_path("pacs").read_bytes()).keys() == set(names(other))
    assert "of job job-1 is not on record" in caplog.text
    assert site.files.all_asked() == []
    assert site.asks.unanswered == 0


def test_what_was_asked_before_a_restart_is_waited_for_and_asked_again(
    make_site: MakeSite, pacs: VouchingPacs
) -> None:
    pacs.reports = "never"
    site = make_site(pacs.port)
    live = site.job()
    site.asks.asks(live, "pacs")
    site.collect()
    first = site.asked_of(pacs)

    site.asks = site.started()
    assert site.asks.unanswered == 1
    assert site.asks.asks(live, "pacs")  # It is recovered, and its destination is asked already.
    pacs.reports = "here"
    site.collect()
    site.until(lambda: site.said)

    assert site.asked_of(pacs).TransactionUID == first.TransactionUID
    assert pacs.asked.empty()


def test_what_was_asked_of_a_destination_that_left_is_forgotten(make_site: MakeSite) -> None:
    site = make_site(1)
    site.files.ask(
        Asked(
            destination="left",
            ae_title="PACS",
            transaction_uid="1.9",
            asked=0.0,
            items=(("job-1", "a.dcm", Reference("1.1", "1.2")),),
        )
    )

    site.asks = site.started()

    assert site.asks.unanswered == 0
    assert site.files.all_asked() == []


def test_a_report_that_nobody_waits_for_any_more_is_forgotten(make_site: MakeSite) -> None:
    site = make_site(1)
    asked = Asked(
        destination="pacs",
        ae_title="PACS",
        transaction_uid="1.9",
        asked=0.0,
        items=(("job-1", "a.dcm", Reference("1.1", "1.2")),),
    )
    site.files.ask(asked)  # After the start: nobody knows it.
    site.files.take_report(PACS, CommitmentReport(transaction_uid="1.9"))

    site.until(lambda: not site.files.answers())

    assert site.files.all_asked() == []


def test_a_job_that_is_gone_when_its_report_comes_changes_nothing(
    make_site: MakeSite, pacs: VouchingPacs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pacs.reports = "never"
    site = make_site(pacs.port)
    live = site.job()
    site.asks.asks(live, "pacs")
    site.collect()
    site.asked_of(pacs)
    (asked,) = site.files.all_asked()
    site.jobs.clear()
    report = CommitmentReport(
        transaction_uid=asked.transaction_uid, committed=tuple(asked.references)
    )

    site.files.take_report(PACS, report)
    site.until(lambda: "pacs vouches for 2 instances, not for 0" in caplog.text)

    assert site.said == []
    assert site.files.all_asked() == []
