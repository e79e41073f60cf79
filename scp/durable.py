"""Every file-system call that a promise rests on, in one place, so that a test can record them.

The rules behind it: a file's content survives power loss once the file was fsynced, a name once its
folder was. An fsync that failed is never repeated, because the kernel may have marked the lost pages
clean (Rebello et al., USENIX ATC 2020): the disk counts as unhealthy until a fresh file was synced.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable
from ctypes import CDLL, get_errno
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scp.errors import DiskFailedError, StorageFullError

PROBE_SECONDS = 10.0
"""How long an unhealthy disk is left alone before a fresh file is tried on it."""

CLOSING_SECONDS = 2.0
"""How long a folder is left alone whose closing is announced."""
_CLOSING_LOOK_SECONDS = 0.001
_CLOSING = stat.S_ISVTX
"""The mark of a folder that is about to be closed. Who locks it looks at its state in any case, so it
costs no call; on a folder that its own user alone may write to it means nothing else."""

_HERE = -100
_NO_REPLACE = 1
"""AT_FDCWD of fcntl.h and RENAME_NOREPLACE of linux/fs.h."""
_NOT_KNOWN = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
"""Of such a rename: to the file system, the kernel, or who filters its calls."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
"""Of the disk, or of the system for one more open file: later there may be."""


type StrPath = Path | str
"""Where the receive path goes, a string: taking paths apart and joining them costs a tenth of it."""


class DurableFile:
    """A file open for writing. Not durable before :meth:`sync` and a sync of its folder."""

    def __init__(self, disk: "Disk", path: StrPath, descriptor: int) -> None:
        self._disk = disk
        self.path = path
        self.descriptor = descriptor

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Append all of the pieces, 1024 at most."""
        self._disk.write(self, *pieces)

    def sync(self) -> None:
        """Return once everything written is on the disk; at most once after a failure."""
        self._disk.sync_file(self)

    def close(self) -> None:
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Disk:
    """The calls themselves. Safe to use from several threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failed_at: float | None = None
        self.has_failed = False
        """Whether a write or an fsync has ever failed here: names of that time are not to be trusted."""
        # Not in every C library.
        self._renameat2 = getattr(CDLL(None, use_errno=True), "renameat2", None)

    @property
    def is_healthy(self) -> bool:
        """False after a failed write or fsync, until :meth:`probe` succeeded."""
        return self._failed_at is None

    # -- files ---------------------------------------------------------------------------------

    def create(self, path: StrPath) -> DurableFile:
        """Make a new file that must not exist."""
        return DurableFile(self, path, self._open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def append_to(self, path: Path) -> DurableFile:
        """Open a file for appending, made if missing."""
        return DurableFile(self, path, self._open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY))

    def write(self, file: DurableFile, *pieces: bytes | bytearray | memoryview) -> None:
        try:
            left = sum(map(len, pieces)) - os.writev(file.descriptor, pieces)
            if left:
                rest = memoryview(b"".join(pieces))[-left:]
                while rest:
                    rest = rest[os.write(file.descriptor, rest) :]
        except OSError as error:
            self.judge("write", error)
            raise

    def sync_file(self, file: DurableFile) -> None:
        try:
            os.fsync(file.descriptor)
        except OSError as error:
            self.judge("fsync", error, is_sync=True)
            raise

    def sync_path(self, path: Path) -> None:
        """Sync the content of a file that another process wrote and closed."""
        with DurableFile(self, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
            self.sync_file(file)

    # -- names ---------------------------------------------------------------------------------

    def sync_folder(self, folder: StrPath, descriptor: int | None = None) -> None:
        """Sync the names in a folder; by a descriptor that the caller has open, if there is one."""
        opened = None
        if descriptor is None:
            # Apart from the fsync: a folder that cannot be opened has lost nothing.
            with self._watched("open of a folder"):
                opened = descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            self.judge("fsync of a folder", error, is_sync=True)
            raise
        finally:
            if opened is not None:
                os.close(opened)

    def link(self, source: StrPath, target: StrPath) -> None:
        """Give a file a second name; FileExistsError when the name is taken."""
        try:
            os.link(source, target)
        except OSError as error:
            self.judge("link", error)
            raise

    def unlink(self, path: StrPath) -> None:
        try:
            os.unlink(path)
        except OSError as error:
            self.judge("unlink", error)
            raise

    def rename(self, source: StrPath, target: StrPath) -> None:
        with self._watched("rename"):
            os.rename(source, target)

    def move(self, source: StrPath, target: StrPath) -> None:
        """Rename to a name that nobody has; FileExistsError when it is taken.

        Receiving costs less with it than with a link whose source is unlinked later: it leaves one
        folder less to be written.
        """
        if not self._rename_new(source, target):
            self.link(source, target)
            with contextlib.suppress(OSError, StorageFullError):  # A start sweeps it.
                self.unlink(source)

    def _rename_new(self, source: StrPath, target: StrPath) -> bool:
        """False where the system or the file system, as NFS, cannot rename without replacing."""
        if self._renameat2 is None:
            return False
        names = os.fsencode(source), os.fsencode(target)
        if self._renameat2(_HERE, names[0], _HERE, names[1], _NO_REPLACE) == 0:
            return True
        number = get_errno()
        if number in _NOT_KNOWN:
            return False
        error = OSError(number, os.strerror(number), str(target))
        self.judge("rename", error)
        raise error

    def make_folder(self, folder: Path) -> None:
        """Make one folder; FileExistsError when the name is taken."""
        with self._watched("mkdir"):
            os.mkdir(folder)

    def remove_folder(self, folder: Path) -> None:
        """Delete an empty folder; OSError when it is not."""
        with self._watched("rmdir"):
            os.rmdir(folder)

    def remove_tree(self, path: Path) -> None:
        """Delete what nothing needs any more, a folder or a file; what resists stays for the next start."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)

    # -- put together --------------------------------------------------------------------------

    def make_durable_folder(self, folder: Path) -> None:
        """Make the folder and its parents where missing, each name synced in its parent."""
        if folder.is_dir():
            return
        self.make_durable_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            self.make_folder(folder)
        self.sync_folder(folder.parent)

    def publish(self, path: Path, content: bytes) -> None:
        """Put ``content`` under ``path`` such that a crash leaves the old or the new whole."""
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with self.create(aside) as file:
                file.write(content)
                file.sync()
            self.rename(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise
        self.sync_folder(path.parent)

    def publish_json(self, path: Path, content: dict[str, Any]) -> None:
        self.publish(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")

    def probe(self, folder: Path) -> bool:
        """Whether the disk is healthy; an unhealthy one is tried again after a while."""
        if self._failed_at is None:
            return True
        if self._now() - self._failed_at < PROBE_SECONDS:
            return False
        aside = folder / f".probe.{uuid.uuid4().hex[:8]}"
        try:
            with self.create(aside) as file:
                file.write(b"dcmpress")
                file.sync()
            self.sync_folder(folder)
        except (OSError, StorageFullError):
            self._failed_at = self._now()
            return False
        finally:
            with contextlib.suppress(OSError):
                os.unlink(aside)
        self._failed_at = None
        return True

    def _open(self, path: StrPath, flags: int) -> int:
        try:
            return os.open(path, flags | os.O_CLOEXEC, 0o640)
        except OSError as error:
            self.judge("open", error)
            raise

    def _watched(self, what: str, *, is_sync: bool = False) -> "_Watched":
        return _Watched(self, what, is_sync)

    def judge(self, what: str, error: OSError, *, is_sync: bool = False) -> None:
        """Raise what an error of the system means, if it means anything to the node.

        Of an fsync every error means that data is lost, also where only the room for it is (thin
        volumes, NFS).
        """
        if error.errno in _NO_ROOM and not is_sync:
            raise StorageFullError(f"{what}: {error.strerror}") from error
        if is_sync or error.errno in (errno.EIO, errno.EROFS):
            self._failed_at = self._now()
            self.has_failed = True
            raise DiskFailedError(f"{what}: {error.strerror}") from error


class _Watched:
    """Hands errors to :meth:`Disk.judge`. What receiving calls catches them itself: this takes 1 us."""

    __slots__ = ("_disk", "_is_sync", "_what")

    def __init__(self, disk: Disk, what: str, is_sync: bool) -> None:
        self._disk = disk
        self._what = what
        self._is_sync = is_sync

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            self._disk.judge(self._what, error, is_sync=self._is_sync)


def lock_folder_shared(folder: StrPath) -> int | None:
    """Open ``folder`` and lock it against being closed; None when it is gone or was replaced.

    Where its closing is announced, who comes now leaves it alone for up to :data:`CLOSING_SECONDS`;
    what is announced and never done keeps nobody out. The caller closes the descriptor, which gives
    the lock back.
    """
    patience = CLOSING_SECONDS
    while True:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        held = os.fstat(descriptor)
        try:
            same = os.path.samestat(os.stat(folder), held)
        except FileNotFoundError:
            same = False
        if not same:
            os.close(descriptor)
            return None
        if not held.st_mode & _CLOSING or patience <= 0:
            return descriptor
        os.close(descriptor)
        patience = _await_close(folder, held, patience)


def _await_close(folder: StrPath, announced: os.stat_result, patience: float) -> float:
    """Wait, without a lock, until the folder is closed or no longer to be; returns what is left."""
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(_CLOSING_LOOK_SECONDS)
        try:
            now = os.stat(folder)
        except FileNotFoundError:
            return left
        if not os.path.samestat(now, announced) or not now.st_mode & _CLOSING:
            return left
    return 0.0


def lock_folder_alone(folder: Path, *, announced: bool = False) -> int | None:
    """Lock ``folder`` against anyone else; None when someone holds it or it is gone.

    Shared locks that follow each other without a pause would keep it for ever. With ``announced``
    those who hold it are the last until :func:`withdraw_closing`, and the next try succeeds.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if announced:
            _set_closing(descriptor, is_closing=True)
        os.close(descriptor)
        return None
    return descriptor


def withdraw_closing(folder: StrPath | int) -> None:
    """Say of a folder, or of one that is open as a descriptor, that nobody is about to close it."""
    _set_closing(folder, is_closing=False)


def _set_closing(folder: StrPath | int, *, is_closing: bool) -> None:
    mode = os.stat(folder).st_mode
    if bool(mode & _CLOSING) != is_closing:
        # Not every file system has it: there whoever closes has to be lucky.
        with contextlib.suppress(OSError):
            os.chmod(folder, stat.S_IMODE(mode) ^ _CLOSING)


def free_bytes(folder: Path) -> int:
    """What an ordinary user may still write to the folder's file system."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize
