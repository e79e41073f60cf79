"""Series and jobs on their way through the folders."""

import contextlib
import os
from pathlib import Path

import pytest

from scp.buffer.job import Job, JobInstance
from scp.buffer.jobs import JobFolders, drop_empty_jobs, instances_in, sweep
from scp.buffer.layout import Layout
from scp.durable import Disk, lock_folder_shared
from scp.errors import NodeError, StorageFullError
from tests.buffer.recorder import HookedDisk
from tests.buffer.spool import ORIGIN, Sent, make_spool, make_store
from tests.pipeline.parts import no_room_for

FIRST = Sent("1.2.3.1")
SECOND = Sent("1.2.3.2")
SERIES = FIRST.key.folder


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_spool(tmp_path / "data", Disk())


@pytest.fixture
def folders(layout: Layout) -> JobFolders:
    return JobFolders(layout, Disk())


def _send(layout: Layout, *many: Sent) -> None:
    store = make_store(layout, Disk())
    for sent in many:
        sent.send(store)


def _closed(layout: Layout, folders: JobFolders, *many: Sent) -> str:
    _send(layout, *many)
    job = folders.close(many[0].key.folder)
    assert job is not None
    return job


def _record(job: str, *many: Sent, form: str = "original") -> Job:
    return Job(
        name=job,
        study_instance_uid=FIRST.key.study_instance_uid,
        series_instance_uid=FIRST.key.series_instance_uid,
        created=1.0,
        rules="rules-1",
        instances=tuple(
            JobInstance(
                name=sent.file_name,
                identity=sent.identity,
                origin=ORIGIN,
                received=1.0,
                source_transfer_syntax="1.2.840.10008.1.2.1",
                source_bytes=1,
                rule="default",
                form=form,
                send_to=("archive",),
            )
            for sent in many
        ),
    )


def test_closing_freezes_the_series_into_a_job(layout: Layout, folders: JobFolders) -> None:
    job = _closed(layout, folders, FIRST, SECOND)

    assert folders.growing() == []
    assert folders.jobs() == [job]
    names = [path.name for path in instances_in(folders.source(job))]
    assert names == [FIRST.file_name, SECOND.file_name]
    file = folders.series_file(folders.source(job))
    assert file.series_instance_uid == FIRST.series
    assert file.rules == "rules-1"


def test_a_series_that_is_gone_cannot_be_closed(folders: JobFolders) -> None:
    assert folders.close(SERIES) is None
    assert folders.jobs() == []


def test_after_closing_the_series_may_grow_again(layout: Layout, folders: JobFolders) -> None:
    _closed(layout, folders, FIRST)

    _send(layout, SECOND)

    assert folders.growing() == [SERIES]
    assert len(folders.jobs()) == 1


def test_one_instance_taken_out_is_a_job_with_its_series_file(
    layout: Layout, folders: JobFolders
) -> None:
    _send(layout, FIRST, SECOND)

    job = folders.take_each(SERIES, [FIRST.file_name])[FIRST.file_name]

    assert [path.name for path in instances_in(folders.source(job))] == [FIRST.file_name]
    assert folders.series_file(folders.source(job)) == folders.series_file(layout.growing / SERIES)
    assert [path.name for path in instances_in(layout.growing / SERIES)] == [SECOND.file_name]


def test_one_instance_is_taken_out_of_a_series_whose_file_is_lost(
    layout: Layout, folders: JobFolders
) -> None:
    _send(layout, FIRST)
    (layout.growing / SERIES / "series.json").unlink()

    job = folders.take_each(SERIES, [FIRST.file_name])[FIRST.file_name]

    assert folders.series_file(folders.source(job)).series_instance_uid == ""


def test_one_instance_is_taken_out_of_a_series_whose_file_has_every_name_it_may_have(
    layout: Layout, folders: JobFolders, tmp_path: Path
) -> None:
    _send(layout, FIRST)
    most = 65_000
    with contextlib.suppress(OSError):
        for number in range(most):
            os.link(layout.growing / SERIES / "series.json", tmp_path / str(number))

    job = folders.take_each(SERIES, [FIRST.file_name])[FIRST.file_name]

    assert [path.name for path in instances_in(folders.source(job))] == [FIRST.file_name]


def test_what_is_taken_out_together_syncs_what_it_shares_once(layout: Layout) -> None:
    many = [Sent(f"1.2.3.{number}") for number in range(5)]
    _send(layout, *many)
    synced: list[Path] = []
    disk = HookedDisk(lambda what, path: synced.append(path) if what == "sync_folder" else None)
    folders = JobFolders(layout, disk)

    taken = folders.take_each(SERIES, [sent.file_name for sent in many])

    assert [*taken] == [sent.file_name for sent in many]
    assert len({*taken.values()}) == len(many)
    assert synced.count(layout.jobs) == 1
    assert synced.count(layout.growing / SERIES) == 1
    for name, job in taken.items():
        assert [path.name for path in instances_in(folders.source(job))] == [name]
        assert folders.folder(job) in synced
        assert folders.source(job) in synced


def test_what_finds_no_room_behind_others_is_left_where_it_grows(layout: Layout) -> None:
    _send(layout, FIRST, SECOND)
    folders = JobFolders(layout, HookedDisk(no_room_for("rename", SECOND.file_name)))

    taken = folders.take_each(SERIES, [FIRST.file_name, SECOND.file_name])

    assert [*taken] == [FIRST.file_name]
    assert folders.jobs() == [*taken.values()]
    assert [path.name for path in instances_in(layout.growing / SERIES)] == [SECOND.file_name]


@pytest.mark.parametrize("what", ["make_folder", "rename"])
def test_without_room_for_the_first_nothing_is_taken_out_and_no_job_is_left(
    layout: Layout, what: str
) -> None:
    _send(layout, FIRST, SECOND)
    folders = JobFolders(layout, HookedDisk(no_room_for(what, "")))

    with pytest.raises(StorageFullError):
        folders.take_each(SERIES, [FIRST.file_name, SECOND.file_name])

    assert folders.jobs() == []
    assert len(instances_in(layout.growing / SERIES)) == 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"opened": 1}', b"null"])
def test_a_damaged_series_file_loses_nothing_but_itself(
    layout: Layout, folders: JobFolders, content: bytes
) -> None:
    _send(layout, FIRST)
    (layout.growing / SERIES / "series.json").write_bytes(content)

    assert folders.series_file(layout.growing / SERIES).series_instance_uid == ""
    assert folders.close(SERIES) is not None


def test_a_commit_is_read_back_and_names_its_results(layout: Layout, folders: JobFolders) -> None:
    job = _closed(layout, folders, FIRST)
    assert folders.load(folders.folder(job)) is None
    folders.make_results(job, "htj2k")
    folders.make_results(job, "htj2k")
    result = folders.result(job, "htj2k", FIRST.file_name)
    result.write_bytes(b"result")
    record = _record(job, FIRST, form="htj2k")

    folders.commit(record)

    assert folders.load(folders.folder(job)) == record
    assert result == folders.folder(job) / "results" / "htj2k" / FIRST.file_name
    assert folders.result(job, "original", FIRST.file_name) == (
        folders.source(job) / FIRST.file_name
    )


def test_a_commit_without_its_result_is_none(layout: Layout, folders: JobFolders) -> None:
    job = _closed(layout, folders, FIRST)

    with pytest.raises(FileNotFoundError):
        folders.commit(_record(job, FIRST, form="htj2k"))

    assert folders.load(folders.folder(job)) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", b'{"format": 2}', b"\xff\xfe"])
def test_a_commit_that_cannot_be_understood_says_so(
    layout: Layout, folders: JobFolders, content: bytes
) -> None:
    job = _closed(layout, folders, FIRST)
    (folders.folder(job) / "job.json").write_bytes(content)

    with pytest.raises(NodeError):
        folders.load(folders.folder(job))


def test_results_of_a_commit_that_never_came_are_dropped(
    layout: Layout, folders: JobFolders
) -> None:
    job = _closed(layout, folders, FIRST)
    folders.make_results(job, "htj2k")

    folders.drop_results(job)
    folders.drop_results(job)

    assert sorted(os.listdir(folders.folder(job))) == ["source"]


def test_a_held_job_keeps_everything_and_why(layout: Layout, folders: JobFolders) -> None:
    job = _closed(layout, folders, FIRST)
    record = _record(job, FIRST)
    folders.commit(record)

    folders.hold(job, {"pacs": {"refused": 1}})

    assert folders.jobs() == []
    assert folders.held() == [job]
    assert folders.reasons(job) == {"pacs": {"refused": 1}}
    assert folders.load(folders.held_folder(job)) == record


def test_a_released_job_is_back_at_work_without_its_reasons(
    layout: Layout, folders: JobFolders
) -> None:
    job = _closed(layout, folders, FIRST)
    folders.hold(job, {"pacs": {"refused": 1}})

    folders.release(job)

    assert folders.held() == []
    assert folders.jobs() == [job]
    assert sorted(os.listdir(folders.folder(job))) == ["source"]


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{"])
def test_reasons_that_are_lost_are_none(
    layout: Layout, folders: JobFolders, content: bytes | None
) -> None:
    job = _closed(layout, folders, FIRST)
    folders.hold(job, {"pacs": {"refused": 1}})
    reason = folders.held_folder(job) / "reason.json"
    reason.unlink() if content is None else reason.write_bytes(content)

    assert folders.reasons(job) == {}


@pytest.mark.parametrize("is_held", [False, True])
def test_a_finished_job_lies_in_the_trash(
    layout: Layout, folders: JobFolders, is_held: bool
) -> None:
    job = _closed(layout, folders, FIRST)
    if is_held:
        folders.hold(job, {})

    trash = folders.finish(job, from_held=is_held)

    assert trash.parent == layout.trash
    assert (trash / "source" / FIRST.file_name).exists()
    assert folders.jobs() == folders.held() == []
    assert not folders.finish(job).exists()


def test_the_sweep_deletes_what_only_the_dead_could_need(layout: Layout) -> None:
    _send(layout, FIRST)
    for receiver in ("r0", "r1"):
        (layout.incoming / receiver).mkdir(exist_ok=True)
        (layout.incoming / receiver / "7.part").write_bytes(b"half")
    (layout.encoded / "3.dcm").write_bytes(b"cache")
    (layout.trash / "job.1234").mkdir()
    (layout.growing / ".series.0123").mkdir()
    (layout.held / ".file").write_bytes(b"")

    sweep(layout, Disk(), receivers=["r0"])

    assert os.listdir(layout.incoming) == ["r1"]
    assert os.listdir(layout.growing) == [SERIES]
    for folder in (layout.encoded, layout.trash, layout.held):
        assert os.listdir(folder) == []


def test_a_closing_that_the_dead_had_announced_keeps_no_instance_waiting(
    layout: Layout, folders: JobFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    _send(layout, FIRST)
    lock = lock_folder_shared(layout.growing / SERIES)
    assert lock is not None
    assert folders.close(SERIES, was_cut=True) is None
    os.close(lock)

    def waits(seconds: float) -> None:
        raise AssertionError("an instance waits")

    monkeypatch.setattr("scp.durable.time.sleep", waits)

    sweep(layout, Disk(), receivers=["r0"])
    _send(layout, SECOND)

    assert len(instances_in(layout.growing / SERIES)) == 2


def test_a_series_that_was_cut_is_marked_no_longer(layout: Layout, folders: JobFolders) -> None:
    _send(layout, FIRST)
    mode = (layout.growing / SERIES).stat().st_mode
    lock = lock_folder_shared(layout.growing / SERIES)
    assert lock is not None
    assert folders.close(SERIES, was_cut=True) is None
    os.close(lock)

    job = folders.close(SERIES, was_cut=True)

    assert job is not None
    assert folders.source(job).stat().st_mode == mode


def test_only_jobs_without_commit_and_instances_are_dropped(
    layout: Layout, folders: JobFolders
) -> None:
    full = _closed(layout, folders, FIRST)
    committed = _closed(layout, folders, SECOND)
    folders.commit(_record(committed))
    (folders.source(committed) / SECOND.file_name).unlink()
    (layout.jobs / "never-renamed-in").mkdir()
    (layout.jobs / "nothing-taken" / "source").mkdir(parents=True)
    (layout.jobs / "nothing-taken" / "source" / "series.json").write_bytes(b"{}")

    drop_empty_jobs(layout, Disk())

    assert folders.jobs() == sorted([full, committed])


def test_instances_come_in_order_of_arrival(layout: Layout, folders: JobFolders) -> None:
    many = [Sent(f"1.2.3.{i}") for i in (5, 3, 9, 1)]
    _send(layout, *many)
    source = layout.growing / SERIES
    for age, sent in enumerate(many):
        os.utime(source / sent.file_name, ns=(0, 10**9 * age))

    assert [path.name for path in instances_in(source)] == [sent.file_name for sent in many]
