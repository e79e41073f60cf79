"""The receiver's side of the spool: make one instance durable, then say so."""

import contextlib
import errno
import itertools
import json
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from scp.buffer import part10
from scp.buffer.layout import INSTANCE_ENDING, NAMED_FILE, SERIES_FILE, Layout
from scp.durable import Disk, DurableFile, StrPath, free_bytes, lock_folder_shared
from scp.errors import (
    DiskFailedError,
    StorageFullError,
    TruncatedError,
    UnreadableInstanceError,
)
from scp.model import Identity, Origin, SeriesKey, StoreRequest

_ROOM_SECONDS = 0.2
"""How long one look at the free space serves."""
_LOOK_BYTES = 2**23
"""Of an instance, until it is looked again whether there is room for more of it."""
_GRAIN = 2**15
"""Of a file: writes that end at a multiple of it cost the page cache and the fsync a tenth less."""
_EARLY_HEADER = 2**16
"""Up to here the routing header is looked for while the instance arrives; later, at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """An instance that is durable in its series' folder."""

    series: str
    """The folder's name."""
    name: str
    """The file's."""
    request: StoreRequest
    identity: Identity
    file_bytes: int
    received: float
    """Wall time, seconds since the epoch (UTC)."""


class Notices(Protocol):
    """Tells the coordinator what happens in the folders. Hints: the folders stay the truth."""

    def arriving(self, series: str) -> None:
        """An association is in the middle of an instance of this series."""
        ...

    def landed(self, landed: "Landed") -> None:
        """The instance is durable; ends what :meth:`arriving` began."""
        ...

    def given_up(self, series: str) -> None:
        """It will not land; ends what :meth:`arriving` began."""
        ...

    def repeated(self, series: str) -> None:
        """The same dataset was there already; ends what :meth:`arriving` began."""
        ...


class SpoolStore:
    """Instances on their way into the spool. One for each receiver; used by its many associations."""

    def __init__(
        self,
        layout: Layout,
        receiver: str,
        disk: Disk,
        notices: Notices,
        *,
        reserve_bytes: int,
        rules: str,
        is_alone: bool = True,
    ) -> None:
        self._layout = layout
        self._disk = disk
        self._notices = notices
        self._reserve_bytes = reserve_bytes
        self._rules = rules
        self._is_alone = is_alone
        self._incoming = layout.incoming / receiver
        self._growing = str(layout.growing)
        self._spare: deque[DurableFile] = deque()
        self.identities = part10.IdentityReader()
        self._numbers = itertools.count()
        self._needed_bytes = 0
        self._room_at = 0.0
        self._room = 0
        self._room_lock = threading.Lock()
        self._reading = threading.Lock()
        disk.make_durable_folder(self._incoming)

    def begin(self, request: StoreRequest) -> "SpoolIncoming":
        """Start one instance.

        Raises
        ------
        StorageFullError
            There is no room, or the disk is unhealthy.
        InvalidUidError
            The command's SOP Instance UID is none.
        """
        part10.check_request(request)
        if not self.has_room():
            raise StorageFullError("no room above the reserve, or the disk failed")
        try:
            file = self._spare.popleft()
        except IndexError:
            file = self._create()
        return SpoolIncoming(self, request, file)

    def has_room(self) -> bool:
        """Whether the disk is healthy and has more than the reserve and the work at hand need."""
        with self._room_lock:
            now = time.monotonic()
            if now - self._room_at >= _ROOM_SECONDS:
                self._room_at = now
                try:
                    self._room = free_bytes(self._incoming) - self._reserve_bytes
                except OSError:
                    self._room = 0  # Failed, or taken away: there is none.
            enough = self._room > self._needed_bytes
        return enough and self._disk.probe(self._incoming)

    def needs(self, needed_bytes: int) -> None:
        """Learn from the coordinator what open and queued work may still write."""
        self._needed_bytes = needed_bytes

    def association_opened(self, origin: Origin) -> None:
        """Nothing to do: the spool knows instances only."""

    def association_closed(self, origin: Origin) -> None:
        """Nothing to do."""

    # -- for SpoolIncoming -----------------------------------------------------------------------

    def land(
        self,
        incoming: StrPath,
        state: os.stat_result,
        request: StoreRequest,
        identity: Identity,
    ) -> bool:
        """Give a synced file its durable name in its series' folder, and tell the coordinator.

        False: the same dataset was there already, and the file may keep its name.
        """
        key = identity.series
        series = key.folder
        folder = f"{self._growing}/{series}"
        while True:
            lock = lock_folder_shared(folder)
            if lock is None:
                self._make_series(Path(folder), key)
                continue
            try:
                name, is_new = self._name(incoming, folder, identity.file_stem)
                # Also for a repeat: the twin's name may have been linked and not yet synced.
                self._disk.sync_folder(folder, lock)
                self._sync_name_of(folder)
                if not self._disk.is_healthy:
                    # What another association could not sync may be what this one relies on.
                    raise DiskFailedError("the disk failed while the instance landed")
                # Told under the lock, so that the series is not closed before it is known.
                if is_new:
                    self._notices.landed(
                        Landed(
                            series=series,
                            name=name,
                            request=request,
                            identity=identity,
                            file_bytes=state.st_size,
                            received=state.st_mtime,
                        )
                    )
                else:
                    self._notices.repeated(series)
            finally:
                os.close(lock)
            return is_new

    def tidy(self, repeated: StrPath | None) -> None:
        """Have a file ready for the next instance, and take away the one of a repeat.

        After the answer, while the sender prepares the next: on ext4 the first change to a folder
        after an fsync takes 0.4 to 0.7 ms, as long as the fsync itself. What cannot be unlinked is
        swept at the next start.
        """
        with contextlib.suppress(OSError, StorageFullError):
            if repeated is not None:
                self._disk.unlink(repeated)
            if not self._spare:
                self._spare.append(self._create())

    def _create(self) -> DurableFile:
        while True:
            try:
                return self._disk.create(f"{self._incoming}/{next(self._numbers)}.part")
            except FileExistsError:
                continue
            except OSError as error:
                raise DiskFailedError(f"spool: {error.strerror}") from error

    def arriving(self, series: str) -> None:
        self._notices.arriving(series)

    def given_up(self, series: str) -> None:
        self._notices.given_up(series)

    def read_identity(self, incoming: StrPath) -> Identity:
        """Find the routing header in what was written; for one that has too much before it."""
        with self._reading:  # One at a time: it may take 20 MiB.
            return part10.open_instance(incoming).identity

    def _name(self, incoming: StrPath, folder: str, stem: str) -> tuple[str, bool]:
        number = 1
        while True:
            name = stem + (f"~{number}" if number > 1 else "") + INSTANCE_ENDING
            try:
                self._disk.move(incoming, f"{folder}/{name}")
                return name, True
            except FileExistsError:
                pass
            try:
                if part10.same_instance(incoming, f"{folder}/{name}"):
                    if self._disk.has_failed or not self._is_alone:
                        # The twin's name may be one that an fsync lost, perhaps in another
                        # receiver, which no later one brings back: put a new one in its place.
                        self._disk.rename(incoming, f"{folder}/{name}")
                    return name, False
            except FileNotFoundError:
                continue  # Taken out of the series meanwhile: the name is free again.
            number += 1

    def _sync_name_of(self, folder: str) -> None:
        """Sync the series' own name, unless that was done: who renamed it in may not have come to it."""
        marker = f"{folder}/{NAMED_FILE}"
        if os.path.exists(marker):
            return
        self._disk.sync_folder(self._growing)
        with contextlib.suppress(FileExistsError, StorageFullError):
            self._disk.create(marker).close()

    def _make_series(self, folder: Path, key: SeriesKey) -> None:
        """Make the folder aside, whole and synced, and rename it in; whoever comes second gives way."""
        aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        self._disk.make_folder(aside)
        try:
            content = {
                "study_instance_uid": key.study_instance_uid,
                "series_instance_uid": key.series_instance_uid,
                "opened": datetime.now(UTC).isoformat(),
                "rules": self._rules,
            }
            with self._disk.create(aside / SERIES_FILE) as file:
                file.write(json.dumps(content).encode())
                file.sync()
            self._disk.sync_folder(aside)
            self._disk.rename(aside, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            self._disk.remove_tree(aside)


class SpoolIncoming:
    """One instance on its way in (see :class:`scp.accept.ports.IncomingInstance`)."""

    def __init__(self, store: SpoolStore, request: StoreRequest, file: DurableFile) -> None:
        self._store = store
        self._request = request
        self._file = file
        self._identity: Identity | None = None
        self._announced: str | None = None
        self._is_new = False
        self._head = bytearray()
        self._try_at = 1
        self.may_gather = False
        """The series is announced, or will not be before the end."""
        self._rest = part10.file_head(request)
        self._size = len(self._rest)
        self._look_at = _LOOK_BYTES

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the dataset; what goes beyond a whole grain waits for more.

        Raises
        ------
        StorageFullError
            There is no room for more, or the disk is unhealthy.
        """
        self._examine(pieces)
        last = pieces[-1]
        cut = len(last) - self._size % _GRAIN
        if cut > 0:
            self._file.write(self._rest, *pieces[:-1], last[:cut])
            self._rest = bytes(last[cut:])
        else:
            self._file.write(self._rest, *pieces)
            self._rest = b""

    def commit(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Return once the instance is durable under its series; the order is the spool's protocol."""
        try:
            self._examine(pieces)
            self._file.write(self._rest, *pieces)
            identity = self._identity or self._store.read_identity(self._file.path)
            part10.check_identity(self._request, identity)
            self._announce(identity)
            self._file.sync()
            state = os.fstat(self._file.descriptor)
            self._file.close()
            path = self._file.path
            self._is_new = self._store.land(path, state, self._request, identity)
            self._announced = None
        except OSError as error:
            raise DiskFailedError(f"spool: {error.strerror}") from error

    def tidy(self) -> None:
        """Do what need not be waited for."""
        self._store.tidy(None if self._is_new else self._file.path)

    def abandon(self) -> None:
        """Forget everything."""
        with contextlib.suppress(OSError):  # A file system may say there what a write has lost.
            self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._file.path)
        announced, self._announced = self._announced, None
        if announced is not None:
            with contextlib.suppress(OSError):  # The coordinator is gone: so is what it knew.
                self._store.given_up(announced)

    def _examine(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Look for room, and for the routing header so that the series is known to be arriving."""
        self._size += sum(map(len, pieces))
        if self._size >= self._look_at:
            self._look_at = self._size + _LOOK_BYTES
            if not self._store.has_room():
                raise StorageFullError("no room above the reserve, or the disk failed")
        if self.may_gather or not pieces:
            return
        if not self._head and self._has_looked(pieces[0]):
            return  # As nearly always: the first piece holds it, and nothing need be copied.
        for piece in pieces:
            self._head += piece
        if len(self._head) >= self._try_at:
            self._has_looked(self._head)

    def _has_looked(self, head: bytes | bytearray | memoryview) -> bool:
        """Look for the routing header; False: more bytes are needed for it."""
        try:
            self._identity = self._store.identities.read(head, self._request)
        except TruncatedError:
            self._try_at = 2 * len(head)
            if self._try_at <= _EARLY_HEADER:
                return False
        except UnreadableInstanceError:
            pass  # Said at the end, when the message was read.
        self._head = bytearray()
        self.may_gather = True
        if self._identity is not None:
            self._announce(self._identity)
        return True

    def _announce(self, identity: Identity) -> None:
        if self._announced is None:
            self._announced = identity.series.folder
            self._store.arriving(self._announced)
