"""Originals that are kept after their job is done: the name of a folder says until when.

``originals/<hour>/<job>,U=<until>,N=<instances>,S=<bytes>/`` holds the files as they were received. The
hour is that of the job's name, so that a job's folders are found without looking at the others; a
job has several where its rules keep for different times. A folder appears whole, and before its job
leaves the spool; there is no other record of it.
"""

import contextlib
import logging
import math
import os
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scp.buffer.jobs import instances_in
from scp.buffer.layout import Layout
from scp.durable import Disk

logger = logging.getLogger(__name__)

FOR_GOOD: Final = math.inf
"""In the place of a time: never deleted by the node."""

_NAME: Final = re.compile(r"([^,]+),U=(\d{8}T\d{6}Z|never),N=(\d+),S=(\d+)")
_MOMENT: Final = "%Y%m%dT%H%M%SZ"
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_HOUR: Final = len("20261125T18")
_SECOND: Final = len("20261125T183000")
"""So much of a job's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One folder of originals."""

    hour: Path
    """Where it lies."""
    name: str
    job: str
    until: float
    """Wall time, seconds since the epoch (UTC); ``FOR_GOOD``."""
    instances: int
    bytes: int

    @property
    def path(self) -> Path:
        return self.hour / self.name


class OriginalFolders:
    """The folders under ``originals``. Not for several threads at once."""

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._layout = layout
        self._disk = disk

    # -- keeping -------------------------------------------------------------------------------

    def keep(self, job: str, source: Path, until: Mapping[str, float]) -> list[Kept]:
        """Give files of a job a second name among the originals; durable on return.

        ``until`` says for how long each file of ``source`` is kept. What is kept already, because
        the node was killed before its job could go, stays as it is. What is new is returned.

        Raises
        ------
        StorageFullError, OSError
            Some are not kept; the job has to stay.
        """
        known = {file.name for kept in self.of(job) for file in instances_in(kept.path)}
        groups: dict[float, list[str]] = {}
        for name, moment in until.items():
            if name not in known:
                whole = FOR_GOOD if moment > _LAST else math.ceil(moment)
                groups.setdefault(whole, []).append(name)
        added = [
            kept
            for moment, names in sorted(groups.items())
            if (kept := self._keep_until(moment, job, source, names)) is not None
        ]
        if added or known:
            # Who made those that are known may have been killed before it had synced their names.
            self._disk.sync_folder(self._bucket(job))
            self._disk.sync_folder(self._layout.originals)
        return added

    def _keep_until(
        self, until: float, job: str, source: Path, names: Collection[str]
    ) -> Kept | None:
        aside = self._layout.originals / f".{uuid.uuid4().hex[:16]}"
        self._disk.make_folder(aside)
        try:
            count = size = 0
            for name in names:
                try:
                    self._disk.link(source / name, aside / name)
                except FileNotFoundError:
                    logger.error("an original of job %s is gone and cannot be kept", job)
                    continue
                count += 1
                size += os.stat(aside / name).st_size
            if not count:
                self._disk.remove_tree(aside)
                return None
            self._disk.sync_folder(aside)
            hour, name = self._bucket(job), f"{job},U={_written(until)},N={count},S={size}"
            self._put(aside, hour / name)
        except BaseException:
            self._disk.remove_tree(aside)
            raise
        return Kept(hour=hour, name=name, job=job, until=until, instances=count, bytes=size)

    def _put(self, aside: Path, path: Path) -> None:
        while True:
            with contextlib.suppress(FileExistsError):
                self._disk.make_folder(path.parent)
            try:
                self._disk.rename(aside, path)
            except FileNotFoundError:
                if not aside.exists():
                    raise
                # What else was in the hour's folder was deleted just now, and the folder with it.
            else:
                return

    # -- looking -------------------------------------------------------------------------------

    def buckets(self) -> list[str]:
        """The names of the folders that :meth:`kept_in` looks into."""
        return sorted(
            entry.name
            for entry in _entries(self._layout.originals)
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        )

    def kept_in(self, bucket: str) -> Iterator[Kept]:
        """What one folder has, by the names alone; what somebody else has put there is left out."""
        hour = self._layout.originals / bucket
        for entry in _entries(hour):
            kept = _read(hour, entry.name)
            if kept is not None:
                yield kept

    def of(self, job: str) -> list[Kept]:
        """What is kept of a job."""
        return [kept for kept in self.kept_in(self._bucket(job).name) if kept.job == job]

    # -- deleting ------------------------------------------------------------------------------

    def drop(self, kept: Kept) -> None:
        """Delete a folder: out of the originals at once and whole, however long the rest takes.

        Power loss may bring it back; then it is due again.
        """
        trash = self._layout.trash / f"{kept.name}.{uuid.uuid4().hex[:8]}"
        with contextlib.suppress(FileNotFoundError):
            self._disk.rename(kept.path, trash)
            self._disk.remove_tree(trash)

    def drop_bucket(self, bucket: str) -> None:
        """Delete the folder of an hour, if there is nothing in it."""
        with contextlib.suppress(OSError):
            self._disk.remove_folder(self._layout.originals / bucket)

    def _bucket(self, job: str) -> Path:
        return self._layout.originals / bucket_of(job)


def closed_at(job: str) -> float | None:
    """When a job was closed, as its name says, to the second: wall time; None where it does not."""
    try:
        return datetime.fromisoformat(f"{job[:_SECOND]}Z").timestamp()
    except ValueError:
        return None


def bucket_of(job: str) -> str:
    """The name of the folder that a job's originals are kept in."""
    return job[:_HOUR]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _written(until: float) -> str:
    if until == FOR_GOOD:
        return "never"
    return datetime.fromtimestamp(until, UTC).strftime(_MOMENT)


def _read(hour: Path, name: str) -> Kept | None:
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    job, until, instances, size = found.groups()
    moment = FOR_GOOD
    if until != "never":
        try:
            moment = datetime.fromisoformat(until).timestamp()
        except ValueError:
            return None
    return Kept(
        hour=hour, name=name, job=job, until=moment, instances=int(instances), bytes=int(size)
    )
