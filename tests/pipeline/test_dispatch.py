"""What a person does with held jobs, and that nothing is given up that nobody gave up."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scp.deliver.events import Finished
from scp.errors import NodeError, StorageFullError
from scp.ledger.ports import State
from tests.buffer.recorder import HookedDisk
from tests.deliver.peers import HandPeer
from tests.pipeline.conftest import MakeParts
from tests.pipeline.jobs import come_again
from tests.pipeline.parts import Parts, archive, no_room_for, pacs

BOTH = ("archive", "pacs")


@dataclass
class Site:
    """A folder that may be down, and a PACS that refuses everything for good until it is told not to."""

    parts: Parts
    peer: HandPeer
    blocker: Path

    def let_archive_work(self) -> None:
        self.blocker.unlink()

    def let_pacs_accept(self) -> None:
        self.peer.answer = lambda number: 0x0000


@pytest.fixture
def site(make_parts: MakeParts, tmp_path: Path) -> Iterator[Site]:
    with HandPeer(answer=lambda number: 0xA900) as peer:
        parts = make_parts(destinations={"archive": archive(tmp_path), "pacs": pacs(peer.port)})
        yield Site(parts, peer, tmp_path / "archive")
        parts.close()


# -- one destination holds its share while another still works -------------------------------------


def test_retry_of_a_job_in_work_tries_also_the_destination_that_had_given_up(site: Site) -> None:
    parts, dispatch = site.parts, site.parts.dispatch
    site.blocker.touch()
    live = parts.start(parts.job(count=2, send_to=BOTH))
    parts.until(lambda: live.unfinished == {"archive"})
    assert [each["instances"] for each in dispatch.held_jobs("job-1")] == [2]

    site.let_pacs_accept()
    site.let_archive_work()
    assert dispatch.retry([]) == ["job-1"]

    parts.until(lambda: not dispatch.live)
    assert parts.states() == {State.DELIVERED: 2}
    assert len(parts.archived()) == 2
    assert len(site.peer.stored) == 4
    again = come_again(live.job.instances[0])
    assert parts.accounts.find_repeat(*again, BOTH) == ("job-1", False)


def test_retry_does_not_give_up_what_a_destination_that_left_should_have(
    make_parts: MakeParts, tmp_path: Path
) -> None:
    parts = make_parts()
    (tmp_path / "archive").touch()
    live = parts.start(parts.job(send_to=("archive", "left")))
    parts.until(lambda: parts.queues["archive"].snapshot().last_error)

    (tmp_path / "archive").unlink()
    parts.dispatch.retry([])

    parts.until(lambda: parts.dispatch.held)
    assert live.taken.keys() == {live.job.instances[0].name}
    assert live.held == {
        "left": {live.job.instances[0].name: "destination_left_configuration"},
    }
    assert parts.states() == {}
    assert (parts.counters().held, parts.counters().discarded) == (1, 0)


def test_what_a_destination_forgot_to_answer_is_held_and_not_recorded(site: Site) -> None:
    parts = site.parts
    site.blocker.touch()
    live = parts.start(parts.job(count=2))

    parts.dispatch.take(Finished(job="job-1", destination="archive", delivered=0, held={}))

    assert live.held == {
        "archive": dict.fromkeys((i.name for i in live.job.instances), "not_taken")
    }
    assert list(parts.dispatch.held) == ["job-1"]
    assert parts.states() == {}


def test_reports_of_jobs_that_are_gone_change_nothing(site: Site) -> None:
    parts = site.parts

    parts.dispatch.take(Finished(job="job-0", destination="pacs", delivered=1, held={"a": "b"}))

    assert not parts.dispatch.live | parts.dispatch.held


# -- retry -----------------------------------------------------------------------------------------


def test_retry_with_one_unknown_name_tries_none(site: Site) -> None:
    parts = site.parts
    parts.held(parts.job(send_to=["pacs"]))

    with pytest.raises(NodeError, match="no job job-2 is held or waits"):
        parts.dispatch.retry(["job-1", "job-2"])

    assert list(parts.dispatch.held) == ["job-1"]
    assert len(site.peer.stored) == 1


def test_retry_of_all_releases_what_is_held_beside_what_waits(site: Site) -> None:
    parts, dispatch = site.parts, site.parts.dispatch
    site.blocker.touch()
    parts.held(parts.job("job-1", send_to=["pacs"]))
    parts.start(parts.job("job-2", send_to=["archive"]))
    parts.until(lambda: parts.queues["archive"].snapshot().last_error)

    site.let_archive_work()
    site.let_pacs_accept()
    assert sorted(dispatch.retry([])) == ["job-1", "job-2"]

    parts.until(lambda: not dispatch.live and not dispatch.held)
    assert parts.states() == {State.DELIVERED: 2}


def test_a_destination_that_took_its_share_does_not_get_it_again_by_retry(site: Site) -> None:
    parts = site.parts
    parts.held(parts.job(send_to=BOTH))
    (name,) = parts.archived()
    before = next(path for path in site.blocker.rglob(name)).stat().st_ino

    site.let_pacs_accept()
    parts.dispatch.retry(["job-1"])

    parts.until(lambda: not parts.dispatch.live)
    (row,) = parts.ledger.recent(9)
    assert sorted(row.destinations) == ["archive", "pacs"]
    assert next(path for path in site.blocker.rglob("*.dcm")).stat().st_ino == before


def test_a_job_that_cannot_be_released_stays_held_and_the_person_is_told(
    make_parts: MakeParts,
) -> None:
    disk = HookedDisk()
    parts = make_parts(disk=disk)
    parts.held(parts.job(send_to=["left"]))
    disk.hook = no_room_for("rename", "job-1")

    with pytest.raises(StorageFullError):
        parts.dispatch.retry(["job-1"])

    assert list(parts.dispatch.held) == ["job-1"]
    assert parts.folders.held() == ["job-1"]
    assert parts.counters().held == 1


def test_a_job_that_cannot_be_set_aside_is_tried_again(make_parts: MakeParts) -> None:
    disk = HookedDisk(no_room_for("create", "reason.json"))
    parts = make_parts(disk=disk)
    parts.start(parts.job(send_to=["left"]))
    assert parts.counters().held == 1
    assert parts.folders.jobs() == ["job-1"]

    disk.hook = lambda *_: None
    parts.later(5.0)

    assert parts.folders.held() == ["job-1"]
    assert parts.dispatch.held_jobs("job-1")[0]["instances"] == 1


# -- discard ---------------------------------------------------------------------------------------


def test_discard_counts_and_notes_only_what_was_not_delivered(site: Site) -> None:
    parts = site.parts
    site.peer.answer = lambda number: 0xA900 if number else 0x0000
    live = parts.held(parts.job(count=2, send_to=BOTH))

    assert parts.dispatch.discard("job-1", "the PACS has it") == 1

    parts.until(lambda: not parts.dispatch.live)
    rows = {row.instance: row for row in parts.ledger.recent(9)}
    first, second = (rows[instance.name] for instance in live.job.instances)
    assert (first.state, first.note) == (State.DELIVERED, "")
    assert (second.state, second.note) == (State.DISCARDED, "the PACS has it")
    assert list(second.destinations) == ["archive"]
    assert parts.folders.held() == []


def test_what_is_discarded_is_on_the_disk_before_that_is_said(make_parts: MakeParts) -> None:
    disk = HookedDisk()
    parts = make_parts(disk=disk)
    parts.held(parts.job(send_to=["left"]))
    disk.hook = no_room_for("create", "given-up.json")

    with pytest.raises(StorageFullError):
        parts.dispatch.discard("job-1", "a mistake")

    assert list(parts.dispatch.held) == ["job-1"]
    assert parts.folders.given_up("job-1") == ""


@pytest.mark.parametrize("reason", ["", " \n"])
def test_without_a_reason_nothing_is_discarded(site: Site, reason: str) -> None:
    parts = site.parts
    parts.held(parts.job(send_to=["pacs"]))

    with pytest.raises(NodeError, match="say why"):
        parts.dispatch.discard("job-1", reason)

    assert list(parts.dispatch.held) == ["job-1"]


def test_a_job_in_work_cannot_be_discarded(site: Site) -> None:
    parts = site.parts
    site.blocker.touch()
    parts.start(parts.job())

    with pytest.raises(NodeError, match=r"job-1 is not held: it waits for [a-z, ]*archive"):
        parts.dispatch.discard("job-1", "a mistake")
    with pytest.raises(NodeError, match="no job job-9 is held"):
        parts.dispatch.discard("job-9", "a mistake")

    assert list(parts.dispatch.live) == ["job-1"]


# -- a job whose commit cannot be understood -------------------------------------------------------


def test_an_unreadable_job_is_counted_shown_and_neither_discarded_nor_lost_by_retry(
    make_parts: MakeParts,
) -> None:
    parts = make_parts()
    parts.job(count=3)
    commit = parts.folders.folder("job-1") / "job.json"
    commit.write_text("{")

    assert parts.dispatch.recover_jobs() == []

    (shown,) = parts.dispatch.held_jobs(None)
    assert (shown["instances"], shown["reasons"]) == (3, {"": {"job_unreadable": 3}})
    assert Path(shown["folder"]).is_dir()
    with pytest.raises(NodeError, match="cannot be read"):
        parts.dispatch.discard("job-1", "no use")
    parts.dispatch.retry([])
    assert parts.folders.held() == ["job-1"]
    assert parts.counters().held == parts.counters().received == 3


def test_an_unreadable_job_that_was_mended_is_delivered_by_retry(make_parts: MakeParts) -> None:
    parts = make_parts()
    job = parts.job(count=3)
    (parts.folders.folder("job-1") / "job.json").write_text("{")
    parts.dispatch.recover_jobs()

    (parts.folders.held_folder("job-1") / "job.json").write_text(json.dumps(job.to_json()))
    parts.dispatch.retry(["job-1"])

    parts.until(lambda: not parts.dispatch.live)
    assert parts.states() == {State.DELIVERED: 3}
    assert parts.dispatch.unreadable == {}


def test_a_commit_that_the_disk_cannot_read_holds_its_own_job_only(make_parts: MakeParts) -> None:
    parts = make_parts()
    parts.job("job-1")
    parts.job("job-2")
    # Reading it fails by an error of the system, as on a bad block.
    commit = parts.folders.folder("job-1") / "job.json"
    commit.unlink()
    commit.mkdir()

    parts.dispatch.recover_jobs()

    parts.until(lambda: parts.states() == {State.DELIVERED: 1})
    assert parts.dispatch.unreadable == {"job-1": 1}


# -- a destination that has to vouch -----------------------------------------------------------------


def test_what_a_destination_took_is_asked_for_also_where_it_refused_some(site: Site) -> None:
    parts, dispatch = site.parts, site.parts.dispatch
    dispatch.vouching = frozenset({"pacs"})
    dispatch.asks = lambda live, destination: bool(live.unvouched(destination))
    site.peer.answer = lambda number: 0xA900 if number == 2 else 0x0000
    live = parts.start(parts.job(count=3, send_to=("pacs",)))
    parts.until(lambda: live.asked == {"pacs"})
    refused = set(live.held["pacs"])

    assert len(refused) == 1
    with pytest.raises(NodeError, match="it waits for pacs"):
        dispatch.discard("job-1", "not wanted")

    live.vouch("pacs", live.unvouched("pacs"), [], datetime.now(UTC))
    dispatch.vouched(live, "pacs", {})

    assert set(dispatch.held["job-1"].held["pacs"]) == refused
    assert dispatch.discard("job-1", "not wanted") == 1
    parts.settle()
    assert parts.states() == {State.DELIVERED: 2, State.DISCARDED: 1}


def test_what_is_taken_while_the_rest_is_asked_for_is_asked_for_next(site: Site) -> None:
    parts, dispatch = site.parts, site.parts.dispatch
    dispatch.vouching = frozenset({"pacs"})
    dispatch.asks = lambda live, destination: bool(live.unvouched(destination))
    site.peer.answer = lambda number: 0xA900 if number == 1 else 0x0000
    live = parts.start(parts.job(count=2, send_to=("pacs",)))
    parts.until(lambda: live.asked == {"pacs"})
    (first,) = live.unvouched("pacs")

    site.let_pacs_accept()
    dispatch.retry(["job-1"])
    parts.until(lambda: len(live.unvouched("pacs")) == 2 and not live.unfinished)
    live.vouch("pacs", [first], [], datetime.now(UTC))
    dispatch.vouched(live, "pacs", {})

    assert live.asked == {"pacs"}
    live.vouch("pacs", live.unvouched("pacs"), [], datetime.now(UTC))
    dispatch.vouched(live, "pacs", {})
    parts.settle()
    assert parts.states() == {State.DELIVERED: 2}
