"""What peers ask and destinations report of storage commitment is durable, and bounded."""

import errno
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from scp.buffer import commitments
from scp.buffer.commitments import Asked, CommitmentFiles, Requested
from scp.buffer.jobs import sweep
from scp.buffer.layout import Layout
from scp.commitment import CommitmentReport, CommitmentRequest, Reference
from scp.durable import Disk
from scp.errors import StorageFullError, UnknownTransactionError
from scp.model import Origin
from tests.buffer.recorder import HookedDisk

PACS = Origin(calling_ae_title="PACS", called_ae_title="DCMPRESS", peer_address="10.0.0.9")
ORIGIN = Origin(calling_ae_title="CT1", called_ae_title="DCMPRESS", peer_address="10.0.0.1")
FIRST, SECOND = Reference("1.1", "1.2"), Reference("1.1", "1.3")
REQUEST = CommitmentRequest(transaction_uid="1.9", references=(FIRST, SECOND))
REPORT = CommitmentReport(transaction_uid="1.9", committed=(FIRST,), failed={SECOND: 0x0112})
ASKED = Asked(
    destination="pacs",
    ae_title="PACS",
    transaction_uid="1.9",
    asked=5.0,
    items=(("job", "a.dcm", FIRST), ("job", "b.dcm", SECOND)),
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "data")
    made.make(Disk())
    return made


@pytest.fixture
def files(layout: Layout) -> CommitmentFiles:
    return CommitmentFiles(layout, Disk(), wall=lambda: 7.0)


def test_a_request_and_its_decision_are_kept_until_the_peer_was_told(
    files: CommitmentFiles,
) -> None:
    files.take_request(ORIGIN, REQUEST)
    (name,) = files.requests()
    asked = files.requested(name)
    assert asked == Requested(origin=ORIGIN, request=REQUEST, received=7.0)

    decided = Requested(origin=ORIGIN, request=REQUEST, received=7.0, report=REPORT, decided=9.0)
    files.decide(name, decided)
    assert files.requested(name) == decided

    files.drop_request(name)
    assert files.requests() == []


def test_the_same_request_again_is_one_and_another_under_its_transaction_is_refused(
    files: CommitmentFiles,
) -> None:
    files.take_request(ORIGIN, REQUEST)
    files.take_request(ORIGIN, REQUEST)
    assert len(files.requests()) == 1

    other = CommitmentRequest(transaction_uid="1.9", references=(FIRST,))
    with pytest.raises(UnknownTransactionError):
        files.take_request(ORIGIN, other)

    stranger = Origin(calling_ae_title="MR1", called_ae_title="DCMPRESS", peer_address="10.0.0.2")
    files.take_request(stranger, other)
    assert len(files.requests()) == 2


def test_what_is_asked_again_after_its_decision_is_not_dropped_with_it(
    files: CommitmentFiles,
) -> None:
    files.take_request(ORIGIN, REQUEST)
    (name,) = files.requests()
    decided = Requested(origin=ORIGIN, request=REQUEST, received=7.0, report=REPORT, decided=9.0)
    files.decide(name, decided)

    files.take_request(ORIGIN, REQUEST)
    files.drop_request(name)

    assert files.requested(name) == Requested(origin=ORIGIN, request=REQUEST, received=7.0)


@pytest.mark.parametrize("bound", ["MAX_REQUESTS", "MAX_REQUESTED_BYTES"])
def test_more_than_the_bound_is_refused_until_some_are_answered(
    bound: str, files: CommitmentFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitments, bound, 1)
    files.take_request(ORIGIN, REQUEST)

    with pytest.raises(StorageFullError):
        files.take_request(ORIGIN, CommitmentRequest(transaction_uid="1.8", references=(FIRST,)))
    files.take_request(ORIGIN, REQUEST)

    assert len(files.requests()) == 1


def test_a_report_is_taken_for_what_was_asked_and_for_nothing_else(files: CommitmentFiles) -> None:
    with pytest.raises(UnknownTransactionError):
        files.take_report(ORIGIN, REPORT)
    files.ask(ASKED)
    before = files.changed()

    files.take_report(PACS, REPORT)
    files.take_report(PACS, REPORT)

    assert files.answers() == [REPORT]
    assert files.all_asked() == [ASKED]
    assert files.changed() != before

    files.drop_asked("1.9")
    assert (files.answers(), files.all_asked()) == ([], [])
    with pytest.raises(UnknownTransactionError):
        files.take_report(PACS, REPORT)


def test_a_report_of_another_than_the_one_that_was_asked_is_refused(files: CommitmentFiles) -> None:
    files.ask(ASKED)

    with pytest.raises(
        UnknownTransactionError, match=r"CT1 at 10\.0\.0\.1 reports for pacs, of which PACS"
    ):
        files.take_report(ORIGIN, REPORT)

    assert files.answers() == []


def test_what_was_asked_before_titles_were_kept_is_answered_by_anybody(
    files: CommitmentFiles, layout: Layout
) -> None:
    files.ask(ASKED)
    (path,) = layout.asked.iterdir()
    content = json.loads(path.read_bytes())
    del content["ae_title"]
    path.write_text(json.dumps(content))

    files.take_report(ORIGIN, REPORT)

    assert files.answers() == [REPORT]
    assert files.all_asked() == [replace(ASKED, ae_title="")]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1}'])
def test_a_damaged_file_is_ignored_and_said(
    content: bytes, files: CommitmentFiles, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in (layout.requested, layout.asked, layout.answers):
        (folder / "damaged.json").write_bytes(content)

    assert files.requested("damaged.json") is None
    assert files.all_asked() == []
    assert files.answers() == []
    assert len([r for r in caplog.records if "ignored" in r.getMessage()]) == 3


def test_a_request_is_on_the_disk_before_it_is_answered(layout: Layout) -> None:
    operations: list[str] = []
    disk = HookedDisk(lambda operation, path: operations.append(operation))
    CommitmentFiles(layout, disk).take_request(ORIGIN, REQUEST)

    assert operations == ["create", "write", "sync_file", "rename", "sync_folder"]


def test_a_full_disk_refuses_a_request_and_keeps_nothing(layout: Layout) -> None:
    disk = HookedDisk(no_room)
    files = CommitmentFiles(layout, disk)

    with pytest.raises(StorageFullError):
        files.take_request(ORIGIN, REQUEST)

    assert list(layout.requested.iterdir()) == []


def test_what_was_never_renamed_is_swept_at_the_start(layout: Layout) -> None:
    for folder in (layout.requested, layout.asked, layout.answers):
        (folder / ".half.json.1234").write_text("{")

    sweep(layout, Disk(), receivers=[])

    assert [*layout.requested.iterdir(), *layout.asked.iterdir(), *layout.answers.iterdir()] == []


def no_room(operation: str, path: Path) -> None:
    if operation == "write":
        raise OSError(errno.ENOSPC, "No space left on device")


def test_many_ask_at_once_and_each_is_kept(files: CommitmentFiles) -> None:
    requests = [
        CommitmentRequest(transaction_uid=f"1.{number}", references=(FIRST,))
        for number in range(20)
    ]
    threads = [
        threading.Thread(target=files.take_request, args=(ORIGIN, each))
        for each in (*requests, *requests)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = [files.requested(name) for name in files.requests()]
    assert {each.request for each in found if each} == set(requests)
