"""A disk that is full, or fails: a clear refusal, nothing left behind, and the node goes on."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scp.buffer.layout import Layout
from scp.buffer.store import Landed, SpoolStore
from scp.durable import PROBE_SECONDS, Disk
from scp.errors import DiskFailedError, StorageFullError
from tests.buffer.recorder import HookedDisk
from tests.buffer.spool import (
    Sent,
    ToldNotices,
    acknowledged_files,
    dataset_of,
    left_in_incoming,
    make_spool,
    make_store,
)

FIRST = Sent("1.2.3.1")
SECOND = Sent("1.2.3.2")


class FailingDisk(HookedDisk):
    """Fails where it is told to, and counts the tries."""

    def __init__(self) -> None:
        self.time = 0.0
        self.error = 0
        self.operation = ""
        self.part = ""
        self.failed: list[Path] = []
        super().__init__(self._fail, now=lambda: self.time)

    def fail(self, error: int, operation: str, part: str = "") -> None:
        self.error, self.operation, self.part = error, operation, part

    def heal(self) -> None:
        self.error = 0

    def _fail(self, operation: str, path: Path) -> None:
        if self.error and operation == self.operation and self.part in path.name:
            self.failed.append(path)
            raise OSError(self.error, os.strerror(self.error), str(path))


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def layout(tmp_path: Path, disk: FailingDisk) -> Layout:
    return make_spool(tmp_path / "data", disk)


@pytest.fixture
def notices() -> ToldNotices:
    return ToldNotices()


@pytest.fixture
def store(layout: Layout, disk: FailingDisk, notices: ToldNotices) -> SpoolStore:
    return make_store(layout, disk, notices)


SYNCS = pytest.mark.parametrize(
    ("operation", "part"),
    [
        pytest.param("sync_file", ".part", id="of the instance"),
        pytest.param("sync_file", "series.json", id="of series.json"),
        pytest.param("sync_folder", f".{FIRST.key.folder}", id="of the new folder"),
        pytest.param("sync_folder", "growing", id="of its parent"),
        pytest.param("sync_folder", FIRST.key.folder, id="of the series folder"),
    ],
)


@SYNCS
def test_an_fsync_that_fails_refuses_the_instance_and_is_not_retried(
    store: SpoolStore, disk: FailingDisk, notices: ToldNotices, operation: str, part: str
) -> None:
    disk.fail(errno.EIO, operation, part)

    with pytest.raises(DiskFailedError):
        FIRST.send(store)

    assert len(disk.failed) == 1
    assert not disk.is_healthy
    assert [kind for kind, *_ in notices.told] == ["arriving", "given_up"]


@SYNCS
def test_after_a_failure_nothing_begins_until_a_fresh_file_was_synced(
    store: SpoolStore, layout: Layout, disk: FailingDisk, operation: str, part: str
) -> None:
    disk.fail(errno.EIO, operation, part)
    with pytest.raises(DiskFailedError):
        FIRST.send(store)
    disk.heal()

    assert not store.has_room()
    with pytest.raises(StorageFullError):
        store.begin(SECOND.request)
    disk.time += PROBE_SECONDS
    assert store.has_room()
    FIRST.send(store)
    SECOND.send(store)

    assert {dataset_of(p) for p in acknowledged_files(layout)} == {FIRST.dataset, SECOND.dataset}
    assert left_in_incoming(layout) == []


def test_a_probe_that_fails_too_leaves_the_disk_alone_for_as_long_again(
    store: SpoolStore, layout: Layout, disk: FailingDisk
) -> None:
    disk.fail(errno.EIO, "sync_file")
    with pytest.raises(DiskFailedError):
        FIRST.send(store)
    disk.time += PROBE_SECONDS

    assert not store.has_room()
    disk.heal()
    disk.time += PROBE_SECONDS - 1
    assert not store.has_room()
    disk.time += 1
    assert store.has_room()

    assert list((layout.incoming / "r0").iterdir()) == []


def test_an_instance_that_lands_while_the_disk_fails_elsewhere_is_not_acknowledged(
    layout: Layout, disk: FailingDisk
) -> None:
    store = make_store(layout, disk)
    FIRST.send(store)
    incoming = store.begin(SECOND.request)
    incoming.write(SECOND.dataset)
    disk.fail(errno.EIO, "sync_file")
    with pytest.raises(DiskFailedError):
        disk.publish(layout.data / "other", b"")
    disk.heal()

    with pytest.raises(DiskFailedError):
        incoming.commit()
    incoming.abandon()


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("create", ".part"),
        ("write", ".part"),
        ("make_folder", FIRST.key.folder),
        ("create", "series.json"),
        ("write", "series.json"),
        ("sync_file", "series.json"),
        ("rename", FIRST.key.folder),
        ("move", ".dcm"),
    ],
)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_refuses_and_leaves_no_instance_behind(
    store: SpoolStore, layout: Layout, disk: FailingDisk, operation: str, part: str, error: int
) -> None:
    disk.fail(error, operation, part)

    with pytest.raises(StorageFullError) as refused:
        FIRST.send(store)

    assert not isinstance(refused.value, DiskFailedError)
    assert disk.is_healthy
    assert acknowledged_files(layout) == []
    assert [p.name for p in layout.growing.iterdir() if p.name.startswith(".")] == []
    assert list((layout.incoming / "r0").iterdir()) == []
    disk.heal()
    FIRST.send(store)
    assert len(acknowledged_files(layout)) == 1


def test_a_repeat_after_a_failed_fsync_takes_the_name_of_its_twin(
    store: SpoolStore, layout: Layout, disk: FailingDisk, notices: ToldNotices
) -> None:
    FIRST.send(store)
    disk.fail(errno.EIO, "sync_folder", SECOND.key.folder)
    with pytest.raises(DiskFailedError):
        SECOND.send(store)
    disk.heal()
    disk.time += PROBE_SECONDS
    twin = layout.growing / SECOND.key.folder / SECOND.file_name
    lost = twin.stat().st_ino
    steps: list[str] = []
    disk.hook = lambda operation, path: steps.append(f"{operation} {path.name}")

    SECOND.send(store)

    assert twin.stat().st_ino != lost
    assert dataset_of(twin) == SECOND.dataset
    replaced = steps.index(f"rename {SECOND.file_name}")
    assert f"sync_folder {SECOND.key.folder}" in steps[replaced:]
    assert len(acknowledged_files(layout)) == 2
    assert left_in_incoming(layout) == []
    assert notices.told[-1] == ("repeated", SECOND.key.folder)


def test_a_failure_that_is_long_over_is_still_remembered_for_names(
    layout: Layout, disk: FailingDisk
) -> None:
    store = make_store(layout, disk)
    FIRST.send(store)
    disk.fail(errno.EIO, "write", "other")
    with pytest.raises(DiskFailedError):
        disk.publish(layout.data / "other", b"x")
    disk.heal()
    disk.time += PROBE_SECONDS
    (twin,) = acknowledged_files(layout)
    before = twin.stat().st_ino

    FIRST.send(store)

    assert disk.is_healthy
    assert twin.stat().st_ino != before


def test_an_incoming_name_that_cannot_be_removed_does_not_refuse_what_is_durable(
    store: SpoolStore, layout: Layout, disk: FailingDisk, notices: ToldNotices
) -> None:
    disk.fail(errno.EIO, "unlink")

    FIRST.send(store)

    assert len(acknowledged_files(layout)) == 1
    assert [kind for kind, *_ in notices.told] == ["arriving", "landed"]


def test_a_name_that_cannot_be_marked_as_durable_is_synced_again(
    store: SpoolStore, layout: Layout, disk: FailingDisk
) -> None:
    disk.fail(errno.ENOSPC, "create", ".named")

    FIRST.send(store)
    SECOND.send(store)

    assert len(acknowledged_files(layout)) == 2
    assert len(disk.failed) == 2


def test_too_many_open_files_refuse_the_instance_and_not_the_disk(
    store: SpoolStore, layout: Layout, disk: FailingDisk
) -> None:
    disk.fail(errno.EMFILE, "create", ".part")

    with pytest.raises(StorageFullError):
        store.begin(FIRST.request)

    assert disk.is_healthy


def test_a_disk_that_cannot_be_looked_at_has_no_room(store: SpoolStore, layout: Layout) -> None:
    shutil.rmtree(layout.spool)

    assert not store.has_room()
    with pytest.raises(StorageFullError):
        store.begin(FIRST.request)


def test_an_instance_is_abandoned_although_its_file_cannot_be_closed(
    store: SpoolStore, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = store.begin(FIRST.request)
    incoming.write(FIRST.dataset)
    close = os.close

    def fail(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr("scp.durable.os.close", fail)
        incoming.abandon()

    assert left_in_incoming(layout) == []


def test_a_coordinator_that_is_gone_refuses_the_instance_and_leaves_the_association_standing(
    layout: Layout, disk: FailingDisk
) -> None:
    class Gone(ToldNotices):
        def arriving(self, series: str) -> None:
            return

        def landed(self, landed: Landed) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def given_up(self, series: str) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    incoming = make_store(layout, disk, Gone()).begin(FIRST.request)
    incoming.write(FIRST.dataset)

    with pytest.raises(StorageFullError):
        incoming.commit()
    incoming.abandon()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield folder
    finally:
        # Lazily: a store keeps its spare file open for as long as its process lives.
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_really_full_refuses_and_takes_again_what_then_fits(
    tiny_disk: Path,
) -> None:
    disk = Disk()
    layout = make_spool(tiny_disk, disk)
    store = make_store(layout, disk)
    sent = [Sent(f"1.2.3.{i}", pixels=bytes([i, 0]) * 60_000) for i in range(20)]
    kept = []

    for one in sent:
        try:
            one.send(store)
            kept.append(one)
        except StorageFullError:
            break
    assert 4 < len(kept) < 10
    assert {dataset_of(p) for p in acknowledged_files(layout)} == {s.dataset for s in kept}
    assert left_in_incoming(layout) == []

    acknowledged_files(layout)[0].unlink()
    sent[10].send(store)

    assert disk.is_healthy
    assert sent[10].dataset in {dataset_of(p) for p in acknowledged_files(layout)}


def test_a_disk_without_inodes_refuses_and_leaves_nothing_behind(tiny_disk: Path) -> None:
    disk = Disk()
    layout = make_spool(tiny_disk, disk)
    store = make_store(layout, disk)
    kept = 0

    with pytest.raises(StorageFullError):  # noqa: PT012 - which of them is refused is not ours to say
        for i in range(200):
            Sent(f"1.2.3.{i}", series=f"1.2.{i}").send(store)
            kept += 1

    assert 20 < kept < 100
    assert len(acknowledged_files(layout)) == kept
    assert list((layout.incoming / "r0").iterdir()) == []
    assert [p for p in layout.growing.iterdir() if p.name.startswith(".")] == []
