"""Peers are told what was decided: once it is written down, until they know, or for so long."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from scp.buffer.commitments import CommitmentFiles
from scp.buffer.layout import Layout
from scp.commitment import CommitmentReport, CommitmentRequest, Reference
from scp.deliver.breaker import Backoff
from scp.model import Origin
from scp.pipeline.commitment_reports import Reports
from scp.pipeline.threads import Chores, Inbox
from scp.tls import server_context
from tests.buffer.recorder import HookedDisk
from tests.certificates import Authority
from tests.commitment_peer import Modality, modality
from tests.e2e.peers import free_port
from tests.pipeline.parts import SECONDS, HandClock, config_for, no_room_for

CT = "1.2.840.10008.5.1.4.1.1.2"
GOOD, BAD = Reference(CT, "1.2.3.1"), Reference(CT, "1.2.3.2")
ORIGIN = Origin(calling_ae_title="CT1", called_ae_title="DCMPRESS", peer_address="127.0.0.1")
TIMEOUT = 3600.0


class Desk:
    """Requests that are decided, and what tells their peers, with the test as its loop."""

    def __init__(self, folder: Path, **peers: dict[str, Any]) -> None:
        access = {
            "peers": [{"ae_title": title, "report_to": to} for title, to in peers.items()] or []
        }
        self.config = config_for(folder, access=access, commit={"timeout": "1h"})
        layout = Layout(self.config.node.data)
        self.disk = HookedDisk()
        layout.make(self.disk)
        self.files = CommitmentFiles(layout, self.disk)
        self.wall, self.now = HandClock(), HandClock()
        self.inbox = Inbox()
        self.chores = Chores(self.inbox)
        self.reports = self.started()

    def started(self) -> Reports:
        return Reports(
            self.config,
            self.files,
            self.inbox,
            self.chores,
            backoff=Backoff(random=lambda: 0.0),
            wall=self.wall,
            now=self.now,
        )

    def decide(self, transaction: str = "1.9", title: str = "CT1") -> str:
        """A request that came and is decided now: one is committed, one is not."""
        origin = replace(ORIGIN, calling_ae_title=title)
        request = CommitmentRequest(transaction_uid=transaction, references=(GOOD, BAD))
        self.files.take_request(origin, request)
        (name,) = [n for n in self.files.requests() if not self.reports.has(n)]
        requested = self.files.requested(name)
        assert requested is not None
        report = CommitmentReport(
            transaction_uid=transaction, committed=(GOOD,), failed={BAD: 0x0112}
        )
        self.reports.decided(name, replace(requested, report=report, decided=self.wall()))
        return name

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            wait([self.inbox.fileno()], 0.05)
            self.inbox.run_posted()
            self.reports.tick()

    def until_told(self) -> None:
        self.until(lambda: not self.reports.unreported)
        assert self.files.requests() == []


type MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[MakeDesk]:
    """``make_desk(CT1=where)``; what it made is ended after the test."""
    made: list[Desk] = []

    def make(**peers: dict[str, Any]) -> Desk:
        made.append(Desk(tmp_path, **peers))
        return made[-1]

    yield make
    for desk in made:
        desk.chores.stop(SECONDS)


def at(port: int, **more: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, **more}


def test_a_peer_is_told_and_its_request_forgotten(make_desk: MakeDesk) -> None:
    with modality() as peer:
        desk = make_desk(CT1=at(peer.port))
        desk.decide()
        desk.until_told()

        assert peer.report("1.9") == ({"1.2.3.1"}, {"1.2.3.2": 0x0112})
    assert desk.reports.given_up == 0


def test_a_peer_is_told_through_tls_where_it_wants_that(
    make_desk: MakeDesk, tmp_path: Path
) -> None:
    (tmp_path / "certificates").mkdir()
    authority = Authority(tmp_path / "certificates")
    theirs, their_key = authority.issue()
    ours, our_key = authority.issue("dcmpress")
    context = server_context(
        certificate=theirs, key=their_key, ca=authority.file, client_certificate="required"
    )
    tls = {"ca": str(authority.file), "certificate": str(ours), "key": str(our_key)}
    with modality(tls=context) as peer:
        desk = make_desk(CT1={"host": "localhost", "port": peer.port, "tls": tls})
        desk.decide()
        desk.until_told()

        assert peer.report("1.9") == ({"1.2.3.1"}, {"1.2.3.2": 0x0112})


def test_a_peer_whose_certificate_is_not_believed_is_not_told(
    make_desk: MakeDesk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "certificates").mkdir()
    (tmp_path / "other").mkdir()
    certificate, key = Authority(tmp_path / "certificates").issue()
    stranger = Authority(tmp_path / "other")
    context = server_context(certificate=certificate, key=key, ca=None, client_certificate="none")
    with modality(tls=context) as peer:
        desk = make_desk(
            CT1={"host": "localhost", "port": peer.port, "tls": {"ca": str(stranger.file)}}
        )
        desk.decide()
        desk.until(lambda: "cannot be told" in caplog.text)

        assert peer.reports.empty()
    assert "the peer's certificate is not believed" in caplog.text
    assert desk.reports.unreported == 1


def test_a_peer_that_is_away_is_tried_again_ever_more_rarely(
    make_desk: MakeDesk, caplog: pytest.LogCaptureFixture
) -> None:
    peer = Modality("CT1")
    peer.port = free_port()
    desk = make_desk(CT1=at(peer.port))
    desk.decide()
    for tries, seconds in enumerate((1, 2, 4), 1):
        desk.until(lambda: caplog.text.count("cannot be told") == tries)  # noqa: B023
        assert f"next try in {seconds} s: no connection" in caplog.text
        desk.now.seconds += seconds - 0.01
        desk.reports.tick()
        assert desk.reports.unreported == 1
        desk.now.seconds += 0.01

    desk.until(lambda: caplog.text.count("cannot be told") == 4)
    peer.listen()
    try:
        desk.now.seconds += 8
        desk.until_told()
        assert peer.report("1.9") == ({"1.2.3.1"}, {"1.2.3.2": 0x0112})
    finally:
        peer.close()


def test_a_peer_that_answers_with_a_failure_is_told_again(
    make_desk: MakeDesk, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([0x0110])
    with modality() as peer:
        peer.answer = lambda: next(answers, 0x0000)
        desk = make_desk(CT1=at(peer.port))
        desk.decide()
        desk.until(lambda: "answers N-EVENT-REPORT with 0110" in caplog.text)
        desk.now.seconds += 1
        desk.until_told()

        assert peer.report("1.9") == ({"1.2.3.1"}, {"1.2.3.2": 0x0112})


def test_a_peer_that_cannot_be_told_for_so_long_is_given_up(
    make_desk: MakeDesk, caplog: pytest.LogCaptureFixture
) -> None:
    desk = make_desk(CT1=at(free_port()))
    desk.decide()
    desk.until(lambda: "cannot be told" in caplog.text)

    desk.wall.seconds += TIMEOUT
    desk.now.seconds += 300
    desk.until_told()

    assert desk.reports.given_up == 1
    assert "CT1 is not told of its storage commitment, given up: no connection" in caplog.text


def test_a_peer_that_left_the_configuration_is_waited_for(
    make_desk: MakeDesk, caplog: pytest.LogCaptureFixture
) -> None:
    desk = make_desk()
    name = desk.decide()

    desk.until(lambda: "it has no report_to in access.peers any more" in caplog.text)

    assert desk.reports.has(name)
    assert desk.files.requests() == [name]


def test_nobody_is_told_before_it_is_written_down(
    make_desk: MakeDesk, caplog: pytest.LogCaptureFixture
) -> None:
    with modality() as peer:
        desk = make_desk(CT1=at(peer.port))
        desk.files.take_request(
            ORIGIN, CommitmentRequest(transaction_uid="1.9", references=(GOOD,))
        )
        (name,) = desk.files.requests()
        requested = desk.files.requested(name)
        assert requested is not None
        desk.disk.hook = no_room_for("write", name)
        report = CommitmentReport(transaction_uid="1.9", committed=(GOOD,))
        desk.reports.decided(name, replace(requested, report=report, decided=desk.wall()))
        desk.until(lambda: "cannot be written down" in caplog.text)
        assert peer.reports.empty()

        desk.disk.hook = lambda *_: None
        desk.now.seconds += 5
        desk.until_told()

        assert peer.report("1.9") == ({"1.2.3.1"}, {})


def test_a_decision_of_before_a_restart_is_told_as_it_was(make_desk: MakeDesk) -> None:
    with modality() as peer:
        peer.close()
        desk = make_desk(CT1=at(peer.port))
        name = desk.decide()
        desk.until(lambda: (known := desk.files.requested(name)) and known.report)
        desk.reports = desk.started()
        peer.listen()
        requested = desk.files.requested(name)
        assert requested is not None

        desk.reports.add(name, requested)
        desk.until_told()

        assert peer.report("1.9") == ({"1.2.3.1"}, {"1.2.3.2": 0x0112})


def test_a_peer_that_asked_again_meanwhile_is_told_again(make_desk: MakeDesk) -> None:
    with modality() as peer:
        desk = make_desk(CT1=at(peer.port))
        name = desk.decide()
        desk.until(lambda: (known := desk.files.requested(name)) is None or known.report)
        request = CommitmentRequest(transaction_uid="1.9", references=(GOOD, BAD))
        desk.files.take_request(ORIGIN, request)

        desk.until(lambda: not desk.reports.unreported)

        known = desk.files.requested(name)
        assert known is not None
        assert known.report is None  # The coordinator finds it, and decides anew.


def test_a_peer_is_told_of_one_thing_at_a_time_and_keeps_no_other_waiting(
    make_desk: MakeDesk,
) -> None:
    going_on, most = threading.Event(), []
    with modality("CT1") as slow, modality("MR1") as quick:
        lock = threading.Lock()

        def hang() -> int:
            with lock:
                most.append(1)
                assert going_on.wait(SECONDS)
            return 0x0000

        slow.answer = hang
        desk = make_desk(CT1=at(slow.port), MR1=at(quick.port))
        desk.decide("1.1")
        desk.decide("1.2")
        desk.until(lambda: most)
        desk.decide("1.3", "MR1")
        desk.until(lambda: desk.reports.unreported == 2)

        assert quick.report("1.3")[0] == {"1.2.3.1"}
        assert len(most) == 1
        going_on.set()
        desk.until_told()

        assert slow.report("1.1")[0] == slow.report("1.2")[0] == {"1.2.3.1"}
