"""From a closed series to its commit: what job.json says, and what happens when it cannot be written."""

import errno
import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from scp.buffer.job import Job
from scp.ledger.ports import State
from scp.model import Form, PassReason
from tests.buffer.recorder import HookedDisk
from tests.material import ct_series, write, write_all
from tests.pipeline.conftest import MakeFront
from tests.pipeline.front import Front
from tests.pipeline.parts import no_room_for

AGAIN_SECONDS = 5.0
HTJ2K = Form.HTJ2K.value


def slices(folder: Path, count: int = 1, seed: int = 0) -> list[Path]:
    return write_all(ct_series(count, 16, 16, seed=seed), folder)


def blocked(front: Front) -> Front:
    """With a destination that is down, so that a job stays where its commit put it."""
    Path(front.config.node.data.parent / "archive").touch()
    return front


def committed(front: Front) -> Job:
    """Close the only series and wait for its commit; what the disk says of it."""
    front.close_quiet()
    front.until(lambda: front.dispatch.live)
    (name,) = front.folders.jobs()
    job = front.folders.load(front.folders.folder(name))
    assert job is not None
    return job


# -- what the commit says --------------------------------------------------------------------------


def test_a_commit_names_every_instance_in_order_of_arrival_with_digests_of_what_is_there(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = blocked(make_front())
    sent = slices(tmp_path / "ct", 4)[::-1]
    for path in sent:
        front.receive(path)

    job = committed(front)

    uids = [each.identity.sop_instance_uid for each in job.instances]
    assert uids == [str(pydicom.dcmread(path).SOPInstanceUID) for path in sent]
    assert (job.study_instance_uid, job.series_instance_uid) == (
        job.instances[0].identity.study_instance_uid,
        job.instances[0].identity.series_instance_uid,
    )
    assert {each.form for each in job.instances} == {HTJ2K}
    assert "openjph" in job.encoder.lower()
    for each in job.instances:
        result = front.folders.result(job.name, each.form, each.name)
        assert hashlib.sha256(result.read_bytes()).hexdigest() == each.result_sha256
        assert result.stat().st_size == each.result_bytes
        assert front.folders.result(job.name, "original", each.name).exists()
    assert list(front.layout.encoded.iterdir()) == []
    assert (front.committer.instances_in_work, front.committer.bytes_in_work) == (0, 0)


def test_what_was_passed_has_digests_and_its_reason(make_front: MakeFront, tmp_path: Path) -> None:
    front = blocked(make_front())
    dataset = pydicom.dcmread(slices(tmp_path / "ct")[0])
    dataset.PixelData = dataset.PixelData[:-2]
    short = write(dataset, tmp_path)
    front.receive(short)

    (instance,) = committed(front).instances

    assert (instance.form, instance.reason) == ("original", PassReason.PIXEL_DATA_SHORT)
    source = front.folders.result(front.folders.jobs()[0], "original", instance.name)
    assert hashlib.sha256(source.read_bytes()).hexdigest() == instance.result_sha256
    assert instance.dataset_sha256
    assert instance.remark


def test_what_a_worker_never_came_to_digest_is_digested_by_the_commit(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = blocked(make_front())
    front.crew.freeze()
    front.receive(*slices(tmp_path / "ct"))
    for _ in range(4):  # Two workers for the conversion, two for its digests.
        front.miss_deadline()

    (instance,) = committed(front).instances

    assert (instance.reason, instance.dataset_sha256) == (PassReason.DEADLINE, "")
    source = front.folders.result(front.folders.jobs()[0], "original", instance.name)
    assert hashlib.sha256(source.read_bytes()).hexdigest() == instance.result_sha256


def test_a_second_encoding_of_the_same_dataset_is_a_repeat_of_the_same_job(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = blocked(make_front())
    (explicit,) = slices(tmp_path / "explicit")
    dataset = pydicom.dcmread(explicit)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    implicit = tmp_path / "implicit.dcm"
    dataset.save_as(implicit, implicit_vr=True, little_endian=True, enforce_file_format=True)
    front.receive(explicit, implicit)

    job = committed(front)

    first, second = job.instances
    assert (first.repeat_of, second.repeat_of) == ("", job.name)
    assert (first.is_conflict, second.is_conflict) == (False, False)
    assert [item.instance for item in front.dispatch.live[job.name].items_for("archive")] == [
        first.name
    ]


def test_other_pixels_under_the_same_uid_are_a_conflict_and_both_are_sent(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = blocked(make_front())
    (path,) = slices(tmp_path / "ct")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(len(dataset.PixelData))
    front.receive(path, write(dataset, tmp_path))

    job = committed(front)

    assert [each.is_conflict for each in job.instances] == [False, True]
    assert len(front.dispatch.live[job.name].items_for("archive")) == 2


def conflicting(folder: Path) -> tuple[Path, Path]:
    """Two slices under one UID with other pixels."""
    (path,) = slices(folder / "ct")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(len(dataset.PixelData))
    return path, write(dataset, folder)


def test_with_newest_only_the_last_under_a_uid_is_sent_and_the_others_are_skipped(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(series={"conflict": "newest"})
    first, second = conflicting(tmp_path)
    front.receive(first, second)

    front.close_quiet()
    front.until(lambda: sum(front.states().values()) == 2)

    assert front.states() == {State.SKIPPED: 1, State.DELIVERED: 1}
    last, earlier = front.ledger.recent(9)
    assert (earlier.state, earlier.is_conflict, earlier.form) == (State.SKIPPED, True, None)
    assert earlier.note.startswith("uid_conflict: ")
    assert (last.state, last.is_conflict) == (State.DELIVERED, False)
    assert front.counters().is_balanced


def test_with_newest_the_last_counts_also_where_it_is_the_first_one_again(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(series={"conflict": "newest"})
    first, second = conflicting(tmp_path)
    again = pydicom.dcmread(first)
    again.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    implicit = tmp_path / "implicit.dcm"
    again.save_as(implicit, implicit_vr=True, little_endian=True, enforce_file_format=True)
    front.receive(first, second, implicit)

    front.close_quiet()
    front.until(lambda: sum(front.states().values()) == 3)

    assert [row.state for row in front.ledger.recent(9)][::-1] == [
        State.REPEAT,
        State.SKIPPED,
        State.DELIVERED,
    ]


def test_with_newest_what_comes_after_a_delivery_is_delivered_too(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(series={"conflict": "newest"})
    for path in conflicting(tmp_path):
        front.receive(path)
        front.close_quiet()
        front.settle()
        front.until(lambda: not front.dispatch.live and not front.committer.instances_in_work)

    assert front.states() == {State.DELIVERED: 2}


@pytest.mark.parametrize("is_one_job", [True, False], ids=["in one job", "in the next job"])
def test_with_hold_the_first_is_delivered_and_the_next_waits_for_a_person(
    make_front: MakeFront, tmp_path: Path, *, is_one_job: bool
) -> None:
    front = make_front(series={"conflict": "hold"})
    first, second = conflicting(tmp_path)
    front.receive(first)
    if not is_one_job:
        front.close_quiet()
        front.until(lambda: front.states() == {State.DELIVERED: 1})
    front.receive(second)

    front.close_quiet()
    front.until(lambda: front.dispatch.held)

    ((name, live),) = front.dispatch.held.items()
    assert [list(held.values()) for held in live.held.values()] == [["uid_conflict"]]
    assert (live.instances_held, front.counters().held) == (1, 1)
    assert front.counters().is_balanced
    assert len(front.archived()) == 1

    # It came again: still another one than what was delivered, whether the first is held or not.
    front.receive(second)
    front.close_quiet()
    front.until(lambda: len(front.dispatch.held) == 2)
    assert len(front.archived()) == 1

    front.dispatch.retry([name])
    front.until(lambda: len(front.archived()) == 2)
    (other,) = front.dispatch.held
    front.dispatch.discard(other, "the sender was wrong")
    front.until(lambda: front.states() == {State.DELIVERED: 2, State.DISCARDED: 1})
    front.settle()
    assert front.counters().is_balanced


def test_what_was_to_be_held_by_a_commit_that_never_came_is_forgotten(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(series={"conflict": "hold"})
    front.receive(*conflicting(tmp_path))
    front.close_quiet()
    front.until(lambda: front.dispatch.held)
    (name,) = front.dispatch.held
    held = front.folders.held_folder(name)
    front.close()
    (held / "job.json").unlink()
    held.rename(front.layout.jobs / name)

    again = make_front(series={"conflict": "deliver"})
    again.intake.recover_job(name)

    again.until(lambda: again.states() == {State.DELIVERED: 2})


def test_a_job_without_instances_leaves_nothing(make_front: MakeFront, tmp_path: Path) -> None:
    front = make_front()
    (path,) = slices(tmp_path / "ct")
    front.receive(path)
    (series,) = front.folders.growing()
    next((front.layout.growing / series).glob("*.dcm")).unlink()

    front.close_quiet()

    assert [*front.layout.growing.iterdir(), *front.layout.jobs.iterdir()] == []
    assert front.committer.instances_in_work == 0


# -- when it cannot be written ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        ("make_folder", "results"),
        ("rename", ".dcm"),
        ("create", "job.json"),
        ("rename", "job.json"),
    ],
    ids=" ".join,
)
def test_without_room_for_the_results_originals_are_committed_as_soon_as_there_is_any(
    make_front: MakeFront,
    tmp_path: Path,
    operation: tuple[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = HookedDisk()
    front = make_front(disk=disk)
    front.receive(*slices(tmp_path / "ct", 2))
    disk.hook = no_room_for(*operation)
    front.close_quiet()
    front.until(lambda: front.timers.wait(1e9) < 1e9)
    assert front.committer.instances_in_work == 2
    # What was made takes no room from what is to be written.
    (job,) = front.folders.jobs()
    assert [path.name for path in front.folders.folder(job).iterdir()] == ["source"]
    assert list(front.layout.encoded.iterdir()) == []
    assert front.counters(front.committer.instances_in_work).pending == 2

    if operation[1] == "job.json":
        front.later(AGAIN_SECONDS)  # Still none.
        front.until(lambda: front.timers.wait(1e9) < 1e9)
    disk.hook = lambda *_: None
    front.later(AGAIN_SECONDS)

    front.until(lambda: front.states() == {State.DELIVERED: 2})
    assert caplog.text.count("could not be committed") == 1
    assert front.ledger.totals().reasons == {PassReason.NO_ROOM: 2}
    rows = front.ledger.recent(9)
    assert {row.form for row in rows} == {Form.ORIGINAL}
    assert all(row.result_sha256 for row in rows)
    front.settle()
    assert front.folders.jobs() == []


def test_a_sync_that_fails_is_never_trusted_with_the_conversion(
    make_front: MakeFront, tmp_path: Path
) -> None:
    """The kernel may have dropped the pages: the original, which was synced long ago, goes out."""
    disk = HookedDisk()
    front = make_front(disk=disk)
    front.receive(*slices(tmp_path / "ct"))
    failed: list[Path] = []

    def fail_once(operation: str, path: Path) -> None:
        if operation == "sync_folder" and path.name == HTJ2K and not failed:
            failed.append(path)
            raise OSError(errno.EIO, "Input/output error")

    disk.hook = fail_once
    front.close_quiet()
    front.until(lambda: failed and front.timers.wait(1e9) < 1e9)
    front.later(AGAIN_SECONDS)

    front.until(lambda: front.states() == {State.DELIVERED: 1})
    assert front.ledger.totals().reasons == {PassReason.NO_ROOM: 1}


def test_conversions_that_were_deleted_are_made_again(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = blocked(make_front())
    front.receive(*slices(tmp_path / "ct", 3))
    front.until(lambda: len(list(front.layout.encoded.iterdir())) == 3)
    front.until(lambda: not front.crew.pool.busy)
    # One, so that some can still be moved and then have to be made again, too.
    next(front.layout.encoded.iterdir()).unlink()

    job = committed(front)

    assert Counter(each.form for each in job.instances) == {HTJ2K: 3}
    assert not any(each.is_conflict or each.repeat_of for each in job.instances)
    for each in job.instances:
        result = front.folders.result(job.name, each.form, each.name)
        assert hashlib.sha256(result.read_bytes()).hexdigest() == each.result_sha256
    assert list(front.layout.encoded.iterdir()) == []


def test_a_cache_folder_that_was_deleted_costs_the_conversions_only(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front()
    front.receive(*slices(tmp_path / "ct", 2))
    front.until(lambda: len(list(front.layout.encoded.iterdir())) == 2)
    front.until(lambda: not front.crew.pool.busy)
    shutil.rmtree(front.layout.encoded)

    front.finish()

    assert front.ledger.totals().converted == 2


def test_one_job_that_cannot_be_committed_keeps_no_other_waiting(
    make_front: MakeFront, tmp_path: Path
) -> None:
    disk = HookedDisk()
    front = make_front(disk=disk)
    front.receive(*slices(tmp_path / "first", seed=1))
    front.close_quiet()
    (bad,) = front.folders.jobs()

    def hook(operation: str, path: Path) -> None:
        if operation == "create" and path.parent.name == bad:
            raise OSError(errno.ENOSPC, "No space left on device")

    disk.hook = hook
    front.receive(*slices(tmp_path / "second", seed=2))
    front.close_quiet()

    front.until(lambda: front.states() == {State.DELIVERED: 1})
    assert front.committer.instances_in_work == 1
    disk.hook = lambda *_: None
    front.until(lambda: front.timers.wait(1e9) < 1e9)
    front.later(AGAIN_SECONDS)
    front.until(lambda: front.states() == {State.DELIVERED: 2})
