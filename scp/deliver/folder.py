"""Delivery to a folder: whole files that nothing replaces, durable before a receipt is given."""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from scp.config.schema import FolderDestination
from scp.config.templates import TEMPORARY
from scp.deliver.naming import PathTemplate, numbered, values_of
from scp.deliver.ports import Receipt, Verdict
from scp.durable import Disk, DurableFile, free_bytes
from scp.errors import DeliveryError, PeerUnavailableError, StorageFullError
from scp.model import DeliveryItem

_CHUNK: Final = 1 << 20
_FILES_A_SYNC: Final = 32
"""Their folder is synced once for all of them."""
_SECONDS_A_SYNC: Final = 0.5
_KNOWN_FOLDERS: Final = 4096

_NO_HARD_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_NAME_FAULTS: Final = (
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENXIO,
    errno.EACCES,
    errno.EPERM,
)
"""Of one instance's name, as long as the destination's own folder can be written."""


class _SpoiledError(DeliveryError):
    """A file of the spool is not what was committed; a person has to look at it."""


class FolderDestinationWriter:
    """One folder, as :class:`scp.deliver.ports.Destination`.

    A file appears under its name complete. A name that is taken by the same bytes means already
    there; by others, the file gets ``~2`` (``~3``, ...) before its extension. A name that cannot be
    had, or a file that is longer than the file system allows, makes a LIMITED receipt; a full or
    unwritable disk raises PeerUnavailableError.
    """

    def __init__(
        self,
        name: str,
        section: FolderDestination,
        disk: Disk,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._root = section.path
        self._template = PathTemplate(section.template)
        self._disk = disk
        self._now = now
        self._ready: set[Path] = set()
        self._buffer = memoryview(bytearray(_CHUNK))

    def deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        receipts: list[Receipt] = []
        folders: dict[Path, None] = {}
        since = self._now()
        failure: OSError | StorageFullError | None = None
        for item in items:
            if should_stop():
                break
            try:
                receipts.append(self._store(item, folders))
            except (OSError, StorageFullError) as error:
                failure = error
                break
            if len(receipts) >= _FILES_A_SYNC or self._now() - since >= _SECONDS_A_SYNC:
                yield from self._durable(receipts, folders)
                receipts, folders, since = [], {}, self._now()
        yield from self._durable(receipts, folders)
        if failure is not None:
            raise self._unavailable(failure) from failure

    def check(self) -> str:
        """Make the folder where missing and a file in it."""
        try:
            self._prepare(self._root)
            file = self._temporary(self._root)
            try:
                file.write(b"dcmpress")
                file.sync()
            finally:
                file.close()
                self._disk.unlink(file.path)
            free = free_bytes(self._root)
        except (OSError, StorageFullError) as error:
            raise self._unavailable(error) from error
        return f"{self._root} is writable, {free / 1e9:.1f} GB free"

    def _unavailable(self, error: OSError | StorageFullError) -> PeerUnavailableError:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return PeerUnavailableError(f"the folder cannot be written: {why}")

    def _durable(self, receipts: list[Receipt], folders: dict[Path, None]) -> list[Receipt]:
        try:
            for folder in folders:
                self._disk.sync_folder(folder)
        except (OSError, StorageFullError) as error:
            raise self._unavailable(error) from error
        return receipts

    # -- one instance --------------------------------------------------------------------------

    def _store(self, item: DeliveryItem, folders: dict[Path, None]) -> Receipt:
        """Give the instance its file; durable once ``folders`` were synced."""
        try:
            source = os.open(item.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return _receipt(item, Verdict.LIMITED, f"file_unreadable: {error.strerror}")
        try:
            final = wanted = self._root / self._template.path_for(
                values_of(self._template, item, source)
            )
            self._prepare(final.parent)
            folders[final.parent] = None
            if item.sidecar is not None:
                final = self._store_sidecar(item, item.sidecar, source, wanted)
            if self._same_bytes(source, final):
                self._disk.sync_path(final)
                return _receipt(item, Verdict.ALREADY_THERE)
            return self._write(item, source, final, wanted)
        except _SpoiledError as error:
            return _receipt(item, Verdict.HELD, f"digest_mismatch: {error}")
        except DeliveryError as error:
            return _receipt(item, Verdict.LIMITED, str(error))
        except StorageFullError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno != errno.EFBIG:
                raise
            return _receipt(item, Verdict.LIMITED, f"file_refused: {cause.strerror}")
        except OSError as error:
            if error.errno not in _NAME_FAULTS or not self._is_writable():
                raise
            return _receipt(item, Verdict.LIMITED, f"name_refused: {error.strerror}")
        finally:
            os.close(source)

    def _store_sidecar(self, item: DeliveryItem, sidecar: Path, source: int, wanted: Path) -> Path:
        """Comes first, so that no object is there without it; returns the name left for its object.

        Both are numbered alike, for the sidecar is found by the name of its object.
        """
        try:
            record = os.open(sidecar, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(error) from error
        try:
            if item.sidecar_sha256 and self._digest(record) != item.sidecar_sha256:
                raise _SpoiledError("the restore record is not the one that was committed")
            number, name = 1, wanted
            while not (
                (not os.path.lexists(name) or self._same_bytes(source, name))
                and self._store_beside(record, name.with_name(name.name + sidecar.suffix))
            ):
                number += 1
                name = wanted.with_name(numbered(wanted.name, number))
            return name
        finally:
            os.close(record)

    def _store_beside(self, record: int, target: Path) -> bool:
        """Whether the sidecar lies there, as it did before or from now on."""
        if os.path.lexists(target):
            is_there = self._same_bytes(record, target)
            if is_there:
                self._disk.sync_path(target)
            return is_there
        with self._temporary(target.parent) as file:
            try:
                self._copy(record, file)
                file.sync()
                return self._take(Path(file.path), target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    self._disk.unlink(file.path)

    def _is_writable(self) -> bool:
        try:
            self.check()
        except PeerUnavailableError:
            return False
        return True

    def _write(self, item: DeliveryItem, source: int, final: Path, wanted: Path) -> Receipt:
        with self._temporary(final.parent) as file:
            try:
                digest = self._copy(source, file)
                if item.sha256 and digest != item.sha256:
                    return _receipt(
                        item,
                        Verdict.HELD,
                        "digest_mismatch: the file is not the one that was committed",
                    )
                file.sync()
                named = self._name(source, Path(file.path), final)
                if named is None:
                    return _receipt(item, Verdict.ALREADY_THERE)
                detail = "" if named == wanted else "conflict: another file has its name"
                return _receipt(item, Verdict.DELIVERED, detail)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    self._disk.unlink(file.path)

    def _copy(self, source: int, file: DurableFile) -> str:
        """Copy all bytes; return their SHA-256, which costs a fraction of the fsync that follows.

        Through our memory and :class:`Disk`, so that the digest is of what was written.
        """
        digest = hashlib.sha256()
        offset = 0
        while chunk := self._chunk(source, offset):
            digest.update(chunk)
            file.write(chunk)
            offset += len(chunk)
        return digest.hexdigest()

    def _digest(self, source: int) -> str:
        digest = hashlib.sha256()
        offset = 0
        while chunk := self._chunk(source, offset):
            digest.update(chunk)
            offset += len(chunk)
        return digest.hexdigest()

    def _chunk(self, source: int, offset: int) -> memoryview:
        try:
            return self._buffer[: os.preadv(source, [self._buffer], offset)]
        except OSError as error:
            raise _unreadable(error) from error

    # -- names ---------------------------------------------------------------------------------

    def _name(self, source: int, temporary: Path, final: Path) -> Path | None:
        """Give the written file its name, numbered where taken; None when it is there already."""
        number, candidate = 1, final
        while not self._take(temporary, candidate):
            if self._same_bytes(source, candidate):
                self._disk.sync_path(candidate)
                return None
            number += 1
            candidate = final.with_name(numbered(final.name, number))
        return candidate

    def _take(self, temporary: Path, name: Path) -> bool:
        """Move the file to a name that nobody has; False when somebody has it."""
        try:
            self._disk.link(temporary, name)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            return self._take_without_links(temporary, name)
        return True

    def _take_without_links(self, temporary: Path, name: Path) -> bool:
        """The same on file systems without hard links: an empty file reserves the name.

        One that a crash left is reused, because no DICOM file is empty.
        """
        try:
            self._disk.create(name).close()
        except FileExistsError:
            if name.stat().st_size:
                return False
        self._disk.rename(temporary, name)
        return True

    def _same_bytes(self, source: int, path: Path) -> bool:
        """Whether ``path`` is a file of the same content."""
        try:
            other = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            size, state = os.fstat(source).st_size, os.fstat(other)
            if not stat.S_ISREG(state.st_mode) or state.st_size != size:
                return False
            for offset in range(0, size, _CHUNK):
                if self._chunk(source, offset) != os.pread(other, _CHUNK, offset):
                    return False
            return True
        finally:
            os.close(other)

    # -- folders -------------------------------------------------------------------------------

    def _prepare(self, folder: Path) -> None:
        """Have the folder, durably, and without what a crash left in it.

        A folder that is there already may have been made by a process that died before it could
        sync the name, so each is synced in its parent once.
        """
        if folder in self._ready and folder.is_dir():
            return
        if folder == self._root:
            self._disk.make_durable_folder(folder.parent)
        else:
            self._prepare(folder.parent)
        with contextlib.suppress(FileExistsError):
            self._disk.make_folder(folder)
        self._disk.sync_folder(folder.parent)
        with os.scandir(folder) as entries:
            leftovers = [entry.path for entry in entries if entry.name.startswith(TEMPORARY)]
        for leftover in leftovers:
            self._sweep(Path(leftover))
        if len(self._ready) >= _KNOWN_FOLDERS:
            self._ready.clear()
        self._ready.add(folder)

    def _temporary(self, folder: Path) -> DurableFile:
        """A new file under a hidden name, locked so that no other writer sweeps it."""
        file = self._disk.create(folder / f"{TEMPORARY}{uuid.uuid4().hex[:12]}.tmp")
        with contextlib.suppress(OSError):
            fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def _sweep(self, leftover: Path) -> None:
        """Remove a file that a dead writer left; the lock of a living one protects its file.

        What cannot be locked or removed, another user's for one, stays and harms nobody.
        """
        with contextlib.suppress(OSError):
            descriptor = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._disk.unlink(leftover)
            finally:
                os.close(descriptor)


def _unreadable(error: OSError) -> DeliveryError:
    return DeliveryError(f"file_unreadable: {error.strerror}")


def _receipt(item: DeliveryItem, verdict: Verdict, detail: str = "") -> Receipt:
    syntax = item.transfer_syntax if verdict.is_done else ""
    return Receipt(
        instance=item.instance, verdict=verdict, status="", detail=detail, transfer_syntax=syntax
    )
