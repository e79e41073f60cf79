"""The file-system calls behind the promises."""

import ctypes
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scp.durable import (
    PROBE_SECONDS,
    Disk,
    StrPath,
    free_bytes,
    lock_folder_alone,
    lock_folder_shared,
    withdraw_closing,
)
from scp.errors import DiskFailedError, StorageFullError

SECONDS = 10.0


def test_a_new_file_must_not_exist(tmp_path: Path) -> None:
    disk = Disk()
    (tmp_path / "there").write_bytes(b"old")

    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "there")

    assert (tmp_path / "there").read_bytes() == b"old"


def test_a_file_takes_every_kind_of_buffer(tmp_path: Path) -> None:
    with Disk().create(tmp_path / "file") as file:
        file.write(b"one ")
        file.write(bytearray(b"two "))
        file.write(memoryview(b"three"))
        file.write(b"")
        file.sync()

    assert (tmp_path / "file").read_bytes() == b"one two three"


def test_a_write_that_the_system_cuts_short_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr("scp.durable.os.write", lambda fd, data: write(fd, data[:3]))
    monkeypatch.setattr("scp.durable.os.writev", lambda fd, pieces: write(fd, pieces[0][:3]))

    with Disk().create(tmp_path / "file") as file:
        file.write(b"0123", memoryview(b"45678"), bytearray(b"9"))

    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_appending_keeps_what_is_there(tmp_path: Path) -> None:
    disk = Disk()
    for line in (b"one\n", b"two\n"):
        with disk.append_to(tmp_path / "lines") as file:
            file.write(line)

    assert (tmp_path / "lines").read_bytes() == b"one\ntwo\n"


def test_a_file_may_be_closed_twice(tmp_path: Path) -> None:
    file = Disk().create(tmp_path / "file")

    file.close()
    file.close()


class WithoutRename(Disk):
    """On a file system that does not rename without replacing."""

    def _rename_new(self, source: StrPath, target: StrPath) -> bool:
        return False


@pytest.mark.parametrize("disk", [Disk(), WithoutRename()], ids=["renames", "links"])
def test_a_file_is_moved_to_a_name_that_nobody_has(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "source").write_text("new")

    disk.move(tmp_path / "source", str(tmp_path / "target"))

    assert (tmp_path / "target").read_text() == "new"
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("disk", [Disk(), WithoutRename()], ids=["renames", "links"])
def test_a_name_that_is_taken_is_not_replaced(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "source").write_text("new")
    (tmp_path / "target").write_text("old")

    with pytest.raises(FileExistsError):
        disk.move(tmp_path / "source", tmp_path / "target")

    assert (tmp_path / "target").read_text() == "old"
    assert (tmp_path / "source").read_text() == "new"
    assert disk.is_healthy


def test_what_is_not_there_cannot_be_moved(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Disk().move(tmp_path / "missing", tmp_path / "target")


def test_a_rename_that_the_kernel_refuses_as_unknown_becomes_a_link(tmp_path: Path) -> None:
    def unknown(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    disk = Disk()
    disk._renameat2 = unknown
    (tmp_path / "source").write_text("new")

    disk.move(tmp_path / "source", tmp_path / "target")

    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize(
    ("number", "error", "is_healthy"),
    [
        (errno.ENOSPC, StorageFullError, True),
        (errno.EIO, DiskFailedError, False),
        (errno.EROFS, DiskFailedError, False),
    ],
)
def test_a_rename_that_fails_means_what_any_other_call_means(
    tmp_path: Path, number: int, error: type[Exception], is_healthy: bool
) -> None:
    def fail(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    disk = Disk()
    disk._renameat2 = fail

    with pytest.raises(error):
        disk.move(tmp_path / "source", tmp_path / "target")

    assert disk.is_healthy is is_healthy


def test_publishing_replaces_the_whole_and_leaves_nothing_aside(tmp_path: Path) -> None:
    disk = Disk()
    disk.publish_json(tmp_path / "job.json", {"a": 1})

    disk.publish_json(tmp_path / "job.json", {"b": 2})

    assert (tmp_path / "job.json").read_text() == '{\n "b": 2\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


@pytest.mark.parametrize("call", ["writev", "fsync", "rename"])
def test_publishing_that_fails_leaves_the_old_and_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    disk = Disk()
    disk.publish(tmp_path / "job.json", b"old")
    monkeypatch.setattr(f"scp.durable.os.{call}", _failing(errno.ENOSPC))

    with pytest.raises(StorageFullError):
        disk.publish(tmp_path / "job.json", b"new")

    assert (tmp_path / "job.json").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_folder_that_cannot_be_opened_for_want_of_descriptors_is_no_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    disk = Disk()
    monkeypatch.setattr("scp.durable.os.open", _failing(number))

    with pytest.raises(StorageFullError) as refused:
        disk.sync_folder(tmp_path)

    assert not isinstance(refused.value, DiskFailedError)
    assert disk.is_healthy
    assert not disk.has_failed


def test_a_folder_that_is_gone_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    disk = Disk()

    with pytest.raises(FileNotFoundError):
        disk.sync_folder(tmp_path / "gone")

    assert disk.is_healthy


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_no_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    disk = Disk()
    monkeypatch.setattr("scp.durable.os.writev", _failing(number))

    with disk.create(tmp_path / "file") as file, pytest.raises(StorageFullError) as refused:
        file.write(b"x")

    assert not isinstance(refused.value, DiskFailedError)
    assert disk.is_healthy


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["writev", "fsync"])
def test_a_failed_call_makes_the_disk_unhealthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    disk = Disk()
    monkeypatch.setattr(f"scp.durable.os.{call}", _failing(number))

    with pytest.raises(DiskFailedError):
        disk.publish(tmp_path / "file", b"x")

    assert not disk.is_healthy


def test_an_unhealthy_disk_is_tried_with_a_fresh_file_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    disk = Disk(lambda: now)
    with monkeypatch.context() as failing:
        failing.setattr("scp.durable.os.fsync", _failing(errno.EIO))
        with pytest.raises(DiskFailedError):
            disk.sync_folder(tmp_path)
        assert not disk.probe(tmp_path)
        now = PROBE_SECONDS
        assert not disk.probe(tmp_path)

    now = 2 * PROBE_SECONDS - 1
    assert not disk.probe(tmp_path)
    now = 2 * PROBE_SECONDS
    assert disk.probe(tmp_path)

    assert disk.is_healthy
    assert list(tmp_path.iterdir()) == []


def test_a_healthy_disk_is_not_written_to_by_a_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scp.durable.os.open", _failing(errno.EIO))

    assert Disk().probe(tmp_path)


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    disk = Disk()

    with pytest.raises(FileNotFoundError):
        disk.rename(tmp_path / "missing", tmp_path / "new")

    assert disk.is_healthy


def test_folders_are_made_with_their_parents_and_synced_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[StrPath] = []

    class Noting(Disk):
        def sync_folder(self, folder: StrPath, descriptor: int | None = None) -> None:
            synced.append(folder)

    Noting().make_durable_folder(tmp_path / "a" / "b" / "c")

    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_removing_a_tree_takes_files_too_and_never_follows_a_link(tmp_path: Path) -> None:
    disk = Disk()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "tree" / "deep").mkdir(parents=True)

    for name in ("link", "file", "tree", "missing"):
        disk.remove_tree(tmp_path / name)

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").exists()


def test_a_shared_lock_keeps_the_folder_from_being_locked_alone(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    first, second = lock_folder_shared(folder), lock_folder_shared(folder)
    assert first is not None
    assert second is not None

    assert lock_folder_alone(folder) is None
    os.close(first)
    assert lock_folder_alone(folder) is None
    os.close(second)

    alone = lock_folder_alone(folder)
    assert alone is not None
    os.close(alone)


def test_a_folder_that_is_gone_cannot_be_locked(tmp_path: Path) -> None:
    assert lock_folder_shared(tmp_path / "missing") is None
    assert lock_folder_alone(tmp_path / "missing") is None


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_was_renamed_away_before_the_lock_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()

    def rename_first(descriptor: int, operation: int) -> None:
        folder.rename(tmp_path / "closed")
        if is_replaced:
            folder.mkdir()

    monkeypatch.setattr("scp.durable.fcntl.flock", rename_first)
    before = len(os.listdir("/proc/self/fd"))

    assert lock_folder_shared(folder) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_comes_to_a_folder_whose_closing_is_announced_waits_until_it_is_gone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    holder = lock_folder_shared(folder)
    assert holder is not None
    assert lock_folder_alone(folder, announced=True) is None

    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(lock_folder_shared, folder)
        os.close(holder)
        alone = None
        while alone is None:  # For a moment the one who comes holds it, and sees the mark.
            alone = lock_folder_alone(folder, announced=True)
        assert not coming.done()
        folder.rename(tmp_path / "closed")
        os.close(alone)

        assert coming.result(SECONDS) is None


def test_a_closing_that_is_withdrawn_lets_others_in_again(tmp_path: Path) -> None:
    mode = tmp_path.stat().st_mode
    holder = lock_folder_shared(tmp_path)
    assert holder is not None
    assert lock_folder_alone(tmp_path, announced=True) is None

    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(lock_folder_shared, tmp_path)
        withdraw_closing(holder)
        second = coming.result(SECONDS)

    assert second is not None
    assert tmp_path.stat().st_mode == mode
    for descriptor in (holder, second):
        os.close(descriptor)


def test_a_closing_that_was_announced_and_never_comes_keeps_nobody_out_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scp.durable.CLOSING_SECONDS", 0.05)
    holder = lock_folder_shared(tmp_path)
    assert holder is not None
    assert lock_folder_alone(tmp_path, announced=True) is None

    second = lock_folder_shared(tmp_path)

    assert second is not None
    for descriptor in (holder, second):
        os.close(descriptor)


def test_free_bytes_are_those_of_an_ordinary_user(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)

    assert 0 < free_bytes(tmp_path) <= state.f_blocks * state.f_frsize


def _failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail
