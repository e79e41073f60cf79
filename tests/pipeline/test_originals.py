"""Originals are kept as the rules say, counted, never deleted early, and gone in the end."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scp.buffer.jobs import instances_in
from scp.buffer.originals import FOR_GOOD, Kept
from scp.ledger.ports import State
from scp.pipeline.live import Live
from scp.pipeline.offline import answer_offline
from scp.pipeline.watch import Watch
from tests.buffer.recorder import HookedDisk
from tests.pipeline.conftest import MakeParts
from tests.pipeline.jobs import takes
from tests.pipeline.parts import Parts, archive, no_room_for, pacs

JOB = "20261125T184824123456Z-0a1b2c3d-4e5f"
OTHER = "20261125T184824123456Z-0a1b2c3d-0000"
DAY = 86400.0
MONTH = {"plus": "30d"}


def done(parts: Parts, name: str = JOB, **changes: Any) -> Live:
    """A job of which the archive has everything."""
    job = parts.job(name, **changes)
    live = Live(job=job, folder=parts.folders.folder(name), vouching=parts.dispatch.vouching)
    takes("archive", [instance.name for instance in job.instances], live)
    parts.dispatch.live[name] = live
    return live


def record(parts: Parts, live: Live, discarded: str = "") -> None:
    parts.recorder.record(live, discarded)
    parts.until(lambda: live.job.name not in parts.dispatch.live)
    parts.settle()


def all_kept(parts: Parts) -> list[Kept]:
    kept = parts.kept
    return [each for bucket in kept.buckets() for each in kept.kept_in(bucket)]


def names_kept(parts: Parts) -> list[str]:
    return sorted(file.name for kept in all_kept(parts) for file in instances_in(kept.path))


# -- what is kept ----------------------------------------------------------------------------------


def test_without_a_word_originals_go_with_their_job(make_parts: MakeParts) -> None:
    parts = make_parts()
    live = done(parts)

    record(parts, live)

    assert all_kept(parts) == []
    assert not live.folder.exists()
    assert parts.originals.describe()["instances"] == 0


def test_originals_outlast_their_job_as_they_were_received(make_parts: MakeParts) -> None:
    parts = make_parts(delete_originals=MONTH)
    live = done(parts, count=3)
    received = {path.name: path.read_bytes() for path in instances_in(live.folder / "source")}

    record(parts, live)

    (kept,) = all_kept(parts)
    assert {path.name: path.read_bytes() for path in kept.path.iterdir()} == received
    assert 0 <= kept.until - (parts.wall() + 30 * DAY) <= 1
    assert not live.folder.exists()
    assert list(parts.layout.trash.iterdir()) == []
    assert parts.originals.describe() == {
        "instances": 3,
        "bytes": sum(map(len, received.values())),
        "kept_for_good": 0,
        "oldest": datetime(2026, 11, 25, 18, 48, 24, tzinfo=UTC).timestamp(),
        "next_deletion": kept.until,
        "is_counted": False,
    }
    assert parts.counters().pending == 0
    assert parts.states() == {State.DELIVERED: 3}


def test_a_rule_may_say_otherwise(make_parts: MakeParts) -> None:
    rules = [
        {"name": "for ever", "delete_originals": {"after": "never"}, "send_to": ["archive"]},
        {"name": "at once", "delete_originals": {"after": "delivered"}, "send_to": ["archive"]},
        {"name": "as the others", "send_to": ["archive"]},
    ]
    parts = make_parts(rules=rules, delete_originals=MONTH)
    live = done(parts, count=5)
    named = ["for ever", "at once", "as the others", "default", "a rule that is gone"]
    instances = live.job.instances
    job = replace(
        live.job,
        instances=tuple(replace(i, rule=rule) for i, rule in zip(instances, named, strict=True)),
    )
    live = Live(job=job, folder=live.folder)
    takes("archive", [instance.name for instance in instances], live)
    parts.dispatch.live[JOB] = live

    record(parts, live)

    by_until = {kept.until == FOR_GOOD: kept for kept in all_kept(parts)}
    assert [path.name for path in by_until[True].path.iterdir()] == [instances[0].name]
    assert sorted(path.name for path in by_until[False].path.iterdir()) == sorted(
        instance.name for instance in instances[2:]
    )
    assert parts.originals.describe()["kept_for_good"] == 1


def test_what_a_person_gave_up_and_repeats_are_not_kept(make_parts: MakeParts) -> None:
    parts = make_parts(delete_originals={"after": "never"})
    live = done(parts, count=3)
    first, second, third = live.job.instances
    job = replace(live.job, instances=(first, second, replace(third, repeat_of="job-0")))
    live = Live(job=job, folder=live.folder)
    takes("archive", [first.name], live)
    parts.dispatch.live[JOB] = live

    record(parts, live, discarded="of another patient")

    assert names_kept(parts) == [first.name]
    assert parts.states() == {State.DELIVERED: 1, State.DISCARDED: 1, State.REPEAT: 1}


def test_what_no_rule_sends_anywhere_is_kept_like_the_rest(make_parts: MakeParts) -> None:
    parts = make_parts(delete_originals=MONTH)
    live = done(parts, send_to=())

    record(parts, live)

    assert parts.states() == {State.SKIPPED: 1}
    assert len(names_kept(parts)) == 1


def test_what_nobody_has_vouched_for_is_kept_for_good(
    make_parts: MakeParts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    destinations = {"archive": archive(tmp_path), "pacs": {**pacs(104), "commitment": {}}}
    parts = make_parts(
        destinations=destinations, delete_originals={"after": "committed", "plus": "1h"}
    )
    parts.dispatch.vouching = frozenset({"pacs"})
    live = done(parts, count=2, send_to=("archive", "pacs"))
    first, second = (instance.name for instance in live.job.instances)
    takes("pacs", [first], live)
    live.vouch("pacs", [first], [], datetime.now(UTC))
    live.skipped[second] = {"pacs": "transfer_syntax_refused"}

    record(parts, live)

    by_name = {path.name: kept.until for kept in all_kept(parts) for path in kept.path.iterdir()}
    assert by_name[second] == FOR_GOOD
    assert 0 <= by_name[first] - (parts.wall() + 3600) <= 1
    assert "nobody has vouched for 1 instances" in caplog.text


# -- after a kill ----------------------------------------------------------------------------------


def killed_before_the_job_went(make_parts: MakeParts, **sections: Any) -> tuple[Parts, Live]:
    """The ledger has a job, and its folder is still there; another node starts on that."""
    parts = make_parts(disk=HookedDisk(no_room_for("rename", "trash")), **sections)
    live = done(parts, count=2)
    parts.folders.finish = lambda *_, **__: (_ for _ in ()).throw(OSError(5, "killed"))  # type: ignore[method-assign]
    record(parts, live)
    parts.close()
    return parts, live


def test_a_job_that_a_kill_left_behind_goes_once_its_originals_are_kept(
    make_parts: MakeParts,
) -> None:
    _, live = killed_before_the_job_went(make_parts)
    assert live.folder.exists()
    parts = make_parts(delete_originals=MONTH)

    parts.dispatch.recover_jobs()

    assert names_kept(parts) == sorted(i.name for i in live.job.instances)
    assert not live.folder.exists()
    assert parts.originals.describe()["instances"] == 2


def test_the_time_of_what_is_kept_already_stays(make_parts: MakeParts) -> None:
    _, live = killed_before_the_job_went(make_parts, delete_originals=MONTH)
    parts = make_parts(delete_originals={"plus": "1d"})
    (kept,) = all_kept(parts)

    parts.dispatch.recover_jobs()

    assert all_kept(parts) == [kept]
    assert not live.folder.exists()


def test_without_readable_receipts_the_job_stays(
    make_parts: MakeParts, caplog: pytest.LogCaptureFixture
) -> None:
    _, live = killed_before_the_job_went(make_parts)
    live.receipts_path("archive").mkdir()
    parts = make_parts(delete_originals=MONTH)

    parts.dispatch.recover_jobs()

    assert live.folder.exists()
    assert "is done and left in" in caplog.text


def test_a_job_whose_originals_find_no_room_is_cleared_away_when_there_is_some(
    make_parts: MakeParts, caplog: pytest.LogCaptureFixture
) -> None:
    disk = HookedDisk()
    parts = make_parts(disk=disk, delete_originals=MONTH)
    live = done(parts)
    disk.hook = no_room_for("link", "")

    record(parts, live)
    assert live.folder.exists()
    assert (all_kept(parts), parts.recorder.left_behind) == ([], 1)
    disk.hook = lambda *_: None
    parts.later(60.0)
    parts.settle()

    assert not live.folder.exists()
    assert len(names_kept(parts)) == 1
    assert parts.recorder.left_behind == 0
    assert "is left behind for now: link: No space left on device" in caplog.text


# -- their end -------------------------------------------------------------------------------------


def begin(parts: Parts) -> None:
    parts.originals.begin()
    parts.settle()


def pass_time(parts: Parts, seconds: float, step: float = 600.0) -> None:
    """Let time pass in steps, as timers do."""
    while seconds > 0:
        parts.later(min(step, seconds))
        parts.settle()
        seconds -= step


def test_originals_are_deleted_when_their_time_has_come_and_not_before(
    make_parts: MakeParts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    parts = make_parts(delete_originals={"plus": "1h"})
    begin(parts)
    record(parts, done(parts, count=2))
    pass_time(parts, 1800)
    record(parts, done(parts, OTHER))

    pass_time(parts, 1790)
    assert parts.originals.describe()["instances"] == 3
    pass_time(parts, 100)

    assert [kept.job for kept in all_kept(parts)] == [OTHER]
    assert parts.originals.describe()["instances"] == 1
    assert "2 originals were kept long enough and are deleted" in caplog.messages
    pass_time(parts, 1800)
    assert (parts.kept.buckets(), list(parts.layout.trash.iterdir())) == ([], [])


def test_many_that_are_due_together_all_go(make_parts: MakeParts, tmp_path: Path) -> None:
    parts = make_parts()
    (tmp_path / "a.dcm").write_bytes(b"original")
    for number in range(50):
        parts.kept.keep(f"{JOB[:-2]}{number:02d}", tmp_path, {"a.dcm": parts.wall() + 3600})
    begin(parts)
    assert parts.originals.describe()["instances"] == 50

    pass_time(parts, 3599)
    assert parts.originals.describe()["instances"] == 50
    pass_time(parts, 120, step=60)
    parts.until(lambda: not parts.kept.buckets())

    assert parts.originals.describe()["instances"] == 0


def test_what_was_kept_before_a_start_is_counted_and_ends_in_time(make_parts: MakeParts) -> None:
    before = make_parts(delete_originals={"plus": "1h"})
    record(before, done(before, count=2))
    before.close()
    parts = make_parts()  # Nothing is kept from now on.
    assert parts.originals.describe()["instances"] == 0

    begin(parts)
    assert parts.originals.describe()["instances"] == 2
    pass_time(parts, 3700)

    assert parts.kept.buckets() == []


def test_what_a_person_has_deleted_is_counted_no_more_within_an_hour(
    make_parts: MakeParts,
) -> None:
    parts = make_parts(delete_originals={"after": "never"})
    begin(parts)
    record(parts, done(parts, count=2))
    for kept in all_kept(parts):
        parts.disk.remove_tree(kept.path)

    pass_time(parts, 3700)

    assert parts.originals.describe()["instances"] == 0


def test_a_clock_set_ahead_deletes_nothing(make_parts: MakeParts) -> None:
    parts = make_parts(delete_originals=MONTH)
    begin(parts)
    record(parts, done(parts))

    parts.wall.seconds += 365 * DAY
    pass_time(parts, 3700)

    assert len(names_kept(parts)) == 1


def test_a_folder_that_cannot_be_deleted_is_tried_again(
    make_parts: MakeParts, caplog: pytest.LogCaptureFixture
) -> None:
    disk = HookedDisk()
    parts = make_parts(disk=disk, delete_originals={"plus": "1h"})
    record(parts, done(parts))
    begin(parts)

    def is_read_only(operation: str, path: Path) -> None:
        if operation == "rename" and path.parent.name == "trash":
            raise OSError(30, "Read-only file system")

    disk.hook = is_read_only
    pass_time(parts, 3700)
    assert len(names_kept(parts)) == 1
    assert "cannot be deleted" in caplog.text
    disk.hook = lambda *_: None
    pass_time(parts, 200, step=60)

    assert names_kept(parts) == []


def test_low_space_is_told_of_with_what_originals_take(
    make_parts: MakeParts, caplog: pytest.LogCaptureFixture
) -> None:
    parts = make_parts(delete_originals={"after": "never"}, notices={"low_space": "1000TiB"})
    record(parts, done(parts))
    watch = Watch(
        parts.config, parts.layout, parts.disk, parts.dispatch, parts.queues, parts.originals
    )

    watch.tick(0.0)

    assert "originals that are kept take some of it, and are not deleted before" in caplog.text
    facts = [each.facts for each in watch.conditions()]
    assert [each["kept_originals_bytes"] for each in facts] == [parts.originals.kept_bytes]
    assert parts.originals.kept_bytes > 0


# -- while the node is down ------------------------------------------------------------------------


def test_a_node_that_is_down_tells_what_is_kept(make_parts: MakeParts) -> None:
    parts = make_parts(delete_originals={"after": "never"})
    record(parts, done(parts, count=2))
    parts.close()

    answer = answer_offline(parts.config, parts.layout, {"command": "status"})

    assert answer["originals"]["instances"] == 2
    assert answer["originals"]["kept_for_good"] == 2
    assert answer["originals"]["is_counted"] is True
    assert answer["pending"] == 0
