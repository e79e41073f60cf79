"""From a closed series to its volumes: whose they are, what stays single-frame, and what is left."""

import hashlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from scp.buffer.job import Job
from scp.buffer.jobs import ORIGINAL
from scp.config.schema import Htj2kSection
from scp.convert.codec_cpu import OpenJphEncoder
from scp.convert.digests import dataset_sha256
from scp.convert.enhanced.record import sidecar_of
from scp.convert.enhanced.restore import restore
from scp.convert.transcode import transcode
from scp.ledger.ports import State
from scp.model import CollapseReason, Form, PassReason
from tests.buffer.recorder import HookedDisk
from tests.material import ct_series, write_all
from tests.pipeline.conftest import MakeFront
from tests.pipeline.front import Front
from tests.pipeline.jobs import takes
from tests.pipeline.parts import archive, config_for
from tests.pipeline.workers import crew_of

COUNT = 4
HTJ2K, ENHANCED = Form.HTJ2K.value, Form.ENHANCED.value


def slices(folder: Path, count: int = COUNT) -> list[Path]:
    return write_all(ct_series(count, 16, 16, seed=5), folder)


def htj2k_slices(folder: Path, count: int = COUNT) -> list[Path]:
    """As another node delivers them."""
    folder.mkdir(parents=True)
    targets = [folder / path.name for path in slices(folder / "native", count)]
    for target in targets:
        transcode(folder / "native" / target.name, target, Htj2kSection(), OpenJphEncoder(), None)
    return targets


def volumes_to(*destinations: str, called: str = "*") -> dict[str, Any]:
    match = {"called_ae_title": called}
    return {
        "name": f"volumes of {called}",
        "match": match,
        "convert": "enhanced",
        "send_to": list(destinations),
    }


@pytest.fixture
def front(make_front: MakeFront) -> Front:
    return make_front(rules=[volumes_to("archive")])


def two_archives(folder: Path) -> dict[str, Any]:
    return {"archive": archive(folder), "second": {"kind": "folder", "path": str(folder / "b")}}


def converted_ahead(front: Front, paths: list[Path]) -> None:
    """Receive them, until the workers have nothing more to do before the series is closed."""
    front.receive(*paths)
    front.until(lambda: len(list(front.layout.encoded.glob("*.dcm"))) == len(paths))
    front.until(lambda: not front.crew.pool.busy)


def collapsing(front: Front, paths: list[Path]) -> None:
    """Up to a worker that has the series and hangs."""
    converted_ahead(front, paths)
    front.crew.freeze()
    front.close_quiet()
    front.until(lambda: front.crew.pool.busy)


def kill_worker(front: Front) -> None:
    replaced = front.crew.pool.replaced
    front.crew.kill()
    front.until(lambda: front.crew.pool.replaced > replaced)


def the_job(front: Front) -> Job:
    (job,) = front.finish()
    assert_nothing_is_left(front)
    return job


def assert_nothing_is_left(front: Front) -> None:
    front.settle()
    assert list(front.layout.encoded.iterdir()) == []
    assert front.folders.jobs() == []
    assert (front.committer.instances_in_work, front.committer.bytes_in_work) == (0, 0)


def reasons(job: Job) -> Counter[str]:
    return Counter(each.not_collapsed for each in job.instances)


def forms(job: Job) -> Counter[str]:
    return Counter(each.form for each in job.instances)


# -- what becomes a volume -------------------------------------------------------------------------


def test_the_bytes_of_a_volume_are_shared_among_its_frames(front: Front, tmp_path: Path) -> None:
    front.receive(*slices(tmp_path / "ct", 7))

    job = the_job(front)

    (volume,) = job.volumes
    (file,) = (tmp_path / "archive").rglob("*.dcm")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == volume.result_sha256
    assert file.stat().st_size == volume.result_bytes
    assert sum(each.result_bytes for each in job.instances) == volume.result_bytes
    assert sorted(each.frame for each in job.instances) == list(range(1, 8))
    assert {each.volume for each in job.instances} == {volume.name}
    assert {each.result_sha256 for each in job.instances} == {volume.result_sha256}
    totals = front.ledger.totals()
    assert (totals.result_bytes, totals.converted) == (volume.result_bytes, 7)
    assert totals.states[State.DELIVERED] == 7


def test_what_cannot_be_a_frame_is_delivered_by_itself(front: Front, tmp_path: Path) -> None:
    series = list(ct_series(COUNT, 16, 16, seed=5))
    series[1].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    front.receive(*write_all(series, tmp_path / "ct"))

    job = the_job(front)

    assert reasons(job) == {"": COUNT - 1, CollapseReason.LOCALIZER: 1}
    assert forms(job) == {ENHANCED: COUNT - 1, HTJ2K: 1}
    assert len(front.archived()) == 2
    assert front.ledger.totals().not_collapsed == {CollapseReason.LOCALIZER: 1}


def test_two_datasets_of_one_uid_are_both_delivered_by_themselves(
    front: Front, tmp_path: Path
) -> None:
    paths = slices(tmp_path / "ct")
    other = pydicom.dcmread(paths[0])
    other.PixelData = bytes(len(other.PixelData))
    front.receive(*paths, *write_all([other], tmp_path / "other"))

    job = the_job(front)

    assert reasons(job) == {"": COUNT - 1, CollapseReason.DUPLICATE_UID: 2}
    assert front.states() == {State.DELIVERED: COUNT + 1}
    assert len(front.archived()) == 3


def test_what_is_held_for_a_conflict_is_no_frame_and_the_volume_does_not_wait(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=[volumes_to("archive")], series={"conflict": "hold"})
    paths = slices(tmp_path / "ct")
    dataset = pydicom.dcmread(paths[0])
    dataset.PixelData = bytes(len(dataset.PixelData))
    other = tmp_path / "other.dcm"
    dataset.save_as(other)
    front.receive(*paths, other)

    front.close_quiet()
    front.until(lambda: front.dispatch.held)

    ((_, live),) = front.dispatch.held.items()
    assert len(live.job.volumes) == 1
    assert [i.volume for i in live.job.instances if i.hold_reason] == [""]
    assert (live.instances_held, live.states[State.DELIVERED]) == (1, len(paths))


def test_a_repeat_is_no_frame(front: Front, tmp_path: Path) -> None:
    paths = slices(tmp_path / "ct")
    implicit = pydicom.dcmread(paths[0])
    implicit.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    implicit.save_as(
        tmp_path / "again.dcm", implicit_vr=True, little_endian=True, enforce_file_format=True
    )
    front.receive(*paths, tmp_path / "again.dcm")

    job = the_job(front)

    assert (forms(job), reasons(job)) == ({ENHANCED: COUNT, HTJ2K: 1}, {"": COUNT + 1})
    assert front.states() == {State.DELIVERED: COUNT, State.REPEAT: 1}


# -- what came as HTJ2K ----------------------------------------------------------------------------


def test_a_series_that_came_as_htj2k_becomes_a_volume_of_its_codestreams(
    front: Front, tmp_path: Path
) -> None:
    paths = htj2k_slices(tmp_path / "ct")
    front.receive(*paths)

    job = the_job(front)

    (volume,) = job.volumes
    assert (forms(job), reasons(job)) == ({ENHANCED: COUNT}, {"": COUNT})
    assert {each.reason for each in job.instances} == {""}
    assert all("openjph" in each.verified_by.lower() for each in job.instances)
    (file,) = (tmp_path / "archive").rglob("*.dcm")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == volume.result_sha256
    assert all(each.is_byte_identical for each in restore(file, tmp_path / "out"))
    assert sorted(dataset_sha256(path) for path in (tmp_path / "out").iterdir()) == sorted(
        map(dataset_sha256, paths)
    )
    assert front.ledger.totals().converted == COUNT


def test_native_and_htj2k_instances_of_a_series_are_one_volume(
    front: Front, tmp_path: Path
) -> None:
    native, others = slices(tmp_path / "a"), htj2k_slices(tmp_path / "b")
    front.receive(native[0], *others[1:3], native[3])

    job = the_job(front)

    assert (forms(job), len(job.volumes)) == ({ENHANCED: COUNT}, 1)
    assert len(front.archived()) == 1


def test_what_came_as_htj2k_and_is_no_frame_is_delivered_as_it_came(
    front: Front, tmp_path: Path
) -> None:
    paths = htj2k_slices(tmp_path / "ct")
    localizer = pydicom.dcmread(paths[1])
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer.save_as(paths[1])
    front.receive(*paths)

    job = the_job(front)

    assert reasons(job) == {"": COUNT - 1, CollapseReason.LOCALIZER: 1}
    assert forms(job) == {ENHANCED: COUNT - 1, ORIGINAL: 1}
    (single,) = (each for each in job.instances if each.form == ORIGINAL)
    assert (single.reason, single.source_bytes) == (PassReason.ALREADY_HTJ2K, single.result_bytes)
    (file,) = (tmp_path / "archive").rglob(f"{localizer.SOPInstanceUID}.dcm")
    assert dataset_sha256(file) == dataset_sha256(paths[1])
    totals = front.ledger.totals()
    assert (totals.converted, totals.passed_through) == (COUNT - 1, 1)


def test_a_destination_without_volumes_gets_what_came_as_htj2k_as_it_came(
    make_front: MakeFront, tmp_path: Path
) -> None:
    destinations = two_archives(tmp_path)
    destinations["second"]["accepts_collapsed"] = False
    front = make_front(rules=[volumes_to("archive", "second")], destinations=destinations)
    paths = htj2k_slices(tmp_path / "ct")
    front.receive(*paths)

    job = the_job(front)

    assert {form.form for each in job.instances for form in each.forms} == {ORIGINAL}
    assert len(front.archived()) == 1
    assert sorted(map(dataset_sha256, (tmp_path / "b").rglob("*.dcm"))) == sorted(
        map(dataset_sha256, paths)
    )
    assert front.states() == {State.DELIVERED: COUNT}


def test_without_a_rule_for_volumes_what_came_as_htj2k_is_not_looked_at(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front()
    front.receive(*htj2k_slices(tmp_path / "ct"))

    job = the_job(front)

    assert forms(job) == {ORIGINAL: COUNT}
    assert {each.reason for each in job.instances} == {PassReason.ALREADY_HTJ2K}
    assert {each.verified_by for each in job.instances} == {""}


# -- destinations ----------------------------------------------------------------------------------


def test_instances_with_other_destinations_become_another_volume(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(
        rules=[volumes_to("archive", called="A"), volumes_to("archive", "second")],
        destinations=two_archives(tmp_path),
    )
    paths = slices(tmp_path / "ct", 6)
    front.receive(*paths[:2], called="A")
    front.receive(*paths[2:], called="B")

    job = the_job(front)

    assert Counter(v.send_to for v in job.volumes) == {("archive",): 1, ("archive", "second"): 1}
    assert sorted(Counter(each.volume for each in job.instances).values()) == [2, 4]
    assert len(front.archived()) == 2
    assert len(list((tmp_path / "b").rglob("*.dcm"))) == 1
    assert front.states() == {State.DELIVERED: 6}


def test_the_same_series_to_one_place_and_to_another_is_a_volume_for_each(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(
        rules=[volumes_to("archive", called="A"), volumes_to("second", called="B")],
        destinations=two_archives(tmp_path),
    )
    paths = slices(tmp_path / "ct")
    front.receive(*paths, called="A")
    front.receive(*paths, called="B")

    job = the_job(front)

    assert len({volume.name for volume in job.volumes}) == 2
    assert len({volume.identity.sop_instance_uid for volume in job.volumes}) == 1
    (first,), (second,) = front.archived(), list((tmp_path / "b").rglob("*.dcm"))
    assert first == second.name
    assert front.states() == {State.DELIVERED: 2 * COUNT}


def test_the_order_of_destinations_makes_no_second_volume(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(
        rules=[volumes_to("archive", "second", called="A"), volumes_to("second", "archive")],
        destinations=two_archives(tmp_path),
    )
    paths = slices(tmp_path / "ct")
    front.receive(*paths[::2], called="A")
    front.receive(*paths[1::2], called="B")

    assert len(the_job(front).volumes) == 1
    assert len(front.archived()) == 1


# -- one volume of a series, or none ---------------------------------------------------------------


def test_of_a_series_that_was_cut_nothing_is_collapsed(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=[volumes_to("archive")], limits={"max_open_instances": COUNT - 1})
    front.receive(*slices(tmp_path / "ct"))
    front.intake.close_due(time.monotonic())

    job = the_job(front)

    assert (reasons(job), forms(job)) == (
        {CollapseReason.SERIES_WAS_CUT: COUNT},
        {HTJ2K: COUNT},
    )
    assert len(front.archived()) == COUNT


def test_what_comes_after_the_volume_is_delivered_by_itself(front: Front, tmp_path: Path) -> None:
    paths = slices(tmp_path / "ct", 6)
    front.receive(*paths[:4])
    assert len(the_job(front).volumes) == 1

    front.receive(*paths[4:])

    job = the_job(front)
    assert (reasons(job), job.volumes) == ({CollapseReason.LATE_INSTANCE: 2}, ())
    assert len(front.archived()) == 3


def test_one_slice_that_comes_after_the_volume_is_late_and_not_alone(
    front: Front, tmp_path: Path
) -> None:
    paths = slices(tmp_path / "ct", 5)
    front.receive(*paths[:4])
    the_job(front)

    front.receive(paths[4])

    assert reasons(the_job(front)) == {CollapseReason.LATE_INSTANCE: 1}


def test_the_same_series_again_is_the_same_object_again(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=[volumes_to("archive")], series={"resend_window_seconds": 0})
    paths = slices(tmp_path / "ct")
    front.receive(*paths)
    first = the_job(front)

    front.receive(*reversed(paths))

    again = the_job(front)
    assert forms(again) == {ENHANCED: COUNT}
    assert again.volumes == first.volumes
    assert len(front.archived()) == 1


def test_the_same_series_and_more_is_no_second_volume(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=[volumes_to("archive")], series={"resend_window_seconds": 0})
    paths = slices(tmp_path / "ct", 6)
    front.receive(*paths[:4])
    the_job(front)

    front.receive(*paths)

    job = the_job(front)
    assert (reasons(job), job.volumes) == ({CollapseReason.LATE_INSTANCE: 6}, ())


def test_the_rest_of_a_series_that_was_cut_is_no_volume_either(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=[volumes_to("archive")], limits={"max_open_instances": COUNT - 1})
    paths = slices(tmp_path / "ct", COUNT + 3)
    front.receive(*paths[:COUNT])
    front.intake.close_due(time.monotonic())
    front.receive(*paths[COUNT:])

    # The second is closed by quiet, the first perhaps not committed by then.
    jobs = front.finish()

    assert [reasons(job)[CollapseReason.SERIES_WAS_CUT] for job in jobs] == [COUNT, 3]
    assert_nothing_is_left(front)


def test_the_rest_of_a_series_that_was_cut_long_ago_is_no_volume_either(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(
        rules=[volumes_to("archive")],
        limits={"max_open_instances": COUNT - 1},
        series={"resend_window_seconds": 0},
    )
    paths = slices(tmp_path / "ct", COUNT + 3)
    front.receive(*paths[:COUNT])
    front.intake.close_due(time.monotonic())
    the_job(front)

    front.receive(*paths[COUNT:])

    assert reasons(the_job(front)) == {CollapseReason.SERIES_WAS_CUT: 3}


def test_a_series_that_was_cut_is_a_volume_when_all_of_it_comes_again(
    make_front: MakeFront, tmp_path: Path
) -> None:
    paths = slices(tmp_path / "ct")
    front = make_front(
        rules=[volumes_to("archive")],
        limits={"max_open_bytes": 4 * paths[0].stat().st_size - 1},
        series={"resend_window_seconds": 0},
    )
    front.receive(*paths)
    front.intake.close_due(time.monotonic())
    assert reasons(the_job(front)) == {CollapseReason.SERIES_WAS_CUT: COUNT}

    front.receive(*paths)
    front.close_quiet()

    assert forms(the_job(front)) == {ENHANCED: COUNT}


def test_what_comes_while_the_volume_is_being_committed_is_late_too(
    make_front: MakeFront, tmp_path: Path
) -> None:
    may_commit = threading.Event()
    reached: list[Path] = []

    def wait(operation: str, path: Path) -> None:
        if operation == "rename" and path.name == "job.json":
            reached.append(path)
            assert may_commit.wait(20)

    disk = HookedDisk()
    front = make_front(disk=disk, rules=[volumes_to("archive")])
    paths = slices(tmp_path / "ct", 6)
    front.receive(*paths[:4])
    disk.hook = wait
    front.close_quiet()
    front.until(lambda: reached)
    try:
        front.receive(*paths[4:])
        front.close_quiet()
        front.until(lambda: not front.crew.pool.busy and not front.crew.pool.queued)
    finally:
        may_commit.set()

    first, second = front.finish()

    assert (len(first.volumes), reasons(second)) == (1, {CollapseReason.LATE_INSTANCE: 2})
    assert_nothing_is_left(front)


def test_nothing_to_collapse_leaves_the_series_to_those_who_come_later(
    front: Front, tmp_path: Path
) -> None:
    paths = slices(tmp_path / "ct")
    front.receive(paths[0])
    assert reasons(the_job(front)) == {CollapseReason.SINGLE_SLICE: 1}

    front.receive(*paths[1:])

    assert forms(the_job(front)) == {ENHANCED: COUNT - 1}


# -- when something dies or is taken away ----------------------------------------------------------


def test_a_series_that_takes_two_workers_with_it_stays_single_frame(
    front: Front, tmp_path: Path
) -> None:
    collapsing(front, slices(tmp_path / "ct"))
    kill_worker(front)
    kill_worker(front)

    job = the_job(front)

    assert (reasons(job), forms(job)) == ({CollapseReason.WORKER_LOST: COUNT}, {HTJ2K: COUNT})
    assert front.ledger.totals().not_collapsed == {CollapseReason.WORKER_LOST: COUNT}
    assert len(front.archived()) == COUNT


def test_after_the_death_of_one_worker_another_collapses_over_what_it_left(
    front: Front, tmp_path: Path
) -> None:
    collapsing(front, slices(tmp_path / "ct"))
    folder = front.layout.encoded / "volumes-0"
    folder.mkdir()
    (folder / "volume-1.dcm").write_bytes(b"half of it")
    kill_worker(front)

    job = the_job(front)

    assert (reasons(job), forms(job)) == ({"": COUNT}, {ENHANCED: COUNT})
    assert len(front.archived()) == 1


def test_a_series_that_misses_its_deadline_stays_single_frame(front: Front, tmp_path: Path) -> None:
    collapsing(front, slices(tmp_path / "ct"))
    front.miss_deadline()
    front.miss_deadline()

    assert reasons(the_job(front)) == {CollapseReason.DEADLINE: COUNT}


def test_volumes_that_were_deleted_before_the_commit_are_made_again(
    make_front: MakeFront, tmp_path: Path
) -> None:
    disk = HookedDisk()
    front = make_front(disk=disk, rules=[volumes_to("archive")])
    emptied: list[Path] = []

    def empty(operation: str, path: Path) -> None:
        if operation == "make_folder" and path.name == ENHANCED and not emptied:
            emptied.extend(front.layout.encoded.iterdir())
            shutil.rmtree(front.layout.encoded)

    front.receive(*slices(tmp_path / "ct"))
    disk.hook = empty

    job = the_job(front)

    assert emptied
    assert (forms(job), len(front.archived())) == ({ENHANCED: COUNT}, 1)


def test_without_room_for_the_volume_originals_are_committed(
    make_front: MakeFront, tmp_path: Path
) -> None:
    disk = HookedDisk()
    front = make_front(disk=disk, rules=[volumes_to("archive")])
    front.receive(*slices(tmp_path / "ct"))

    def full(operation: str, path: Path) -> None:
        if operation == "make_folder" and path.name == ENHANCED:
            raise OSError(28, "No space left on device")

    disk.hook = full
    front.close_quiet()
    front.until(lambda: front.timers.wait(1e9) < 1e9)
    front.later(5.0)

    job = the_job(front)

    assert (forms(job), job.volumes) == ({Form.ORIGINAL: COUNT}, ())
    assert front.ledger.totals().reasons == {PassReason.NO_ROOM: COUNT}
    assert len(front.archived()) == COUNT


# -- the restore record beside it ------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[tuple[Front, HookedDisk]]:
    """With a worker that keeps restore records beside the objects."""
    config = config_for(
        tmp_path, rules=[volumes_to("archive")], enhanced={"restore_record": "sidecar"}
    )
    disk = HookedDisk()
    with crew_of(config) as crew:
        front = Front(config, crew, disk=disk)
        yield front, disk
        front.close()


def test_no_volume_is_committed_without_its_restore_record(
    beside: tuple[Front, HookedDisk], tmp_path: Path
) -> None:
    front, disk = beside
    deleted: list[Path] = []

    def delete(operation: str, path: Path) -> None:
        if operation == "make_folder" and path.name == ENHANCED and not deleted:
            deleted.extend(front.layout.encoded.rglob("*.restore"))
            deleted[0].unlink()

    front.receive(*slices(tmp_path / "ct"))
    disk.hook = delete

    job = the_job(front)

    assert deleted
    assert [volume.has_sidecar for volume in job.volumes] == [True]
    (volume,) = (tmp_path / "archive").rglob("*.dcm")
    assert sidecar_of(volume).is_file()


def test_a_volume_whose_restore_record_was_lost_is_given_up_for_its_originals(
    beside: tuple[Front, HookedDisk], tmp_path: Path
) -> None:
    front, _ = beside
    (tmp_path / "archive").touch()  # It is down.
    front.receive(*slices(tmp_path / "ct"))
    front.close_quiet()
    front.until(lambda: front.dispatch.live)
    (name,) = front.dispatch.live
    next(front.folders.folder(name).rglob("*.restore")).unlink()
    live = front.dispatch.live.pop(name)
    for queue in front.queues.values():
        assert queue.stop(20)

    assert front.dispatch.recover_jobs() == []

    recovered = front.dispatch.live[name].job
    assert len(live.job.volumes) == 1
    assert (forms(recovered), recovered.volumes) == ({Form.ORIGINAL: COUNT}, ())
    assert {each.reason for each in recovered.instances} == {PassReason.RESULT_LOST}


def test_who_has_a_volume_that_was_lost_since_gets_no_originals(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=[volumes_to("archive", "second")], destinations=two_archives(tmp_path))
    (tmp_path / "b").touch()  # It is down.
    front.receive(*slices(tmp_path / "ct"))
    front.close_quiet()
    front.until(lambda: front.archived())
    front.until(lambda: all(len(live.unfinished) == 1 for live in front.dispatch.live.values()))
    (name,) = front.dispatch.live
    next((front.folders.folder(name) / "results").rglob("volume-1*")).unlink()
    front.dispatch.live.pop(name)
    for queue in front.queues.values():
        assert queue.stop(20)

    assert front.dispatch.recover_jobs() == []

    live = front.dispatch.live[name]
    assert forms(live.job) == {Form.ORIGINAL: COUNT}
    assert live.waiting_for("archive") == []
    assert len(live.waiting_for("second")) == COUNT
    assert {each.lost_volume for each in live.job.instances} == {"volume-1.dcm"}
    (volume,) = {volume.identity.sop_instance_uid for volume in live.job.lost_volumes}
    takes("second", live.waiting_for("second"), live)
    rows = list(live.rows())
    assert {row.state for row in rows} == {State.DELIVERED}
    assert {row.became for row in rows} == {volume}
    assert sorted(row.frame for row in rows) == list(range(1, COUNT + 1))
    assert {row.restore_record for row in rows} == {"embedded"}
    assert {
        name: taken.is_collapsed for row in rows for name, taken in row.destinations.items()
    } == {"archive": True, "second": False}
