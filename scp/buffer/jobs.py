"""The folders of closed series: close, commit, hold, finish. Each step is safe to be cut anywhere."""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scp.buffer.job import Job
from scp.buffer.layout import (
    CUT_FILE,
    GIVEN_UP_FILE,
    INSTANCE_ENDING,
    JOB_FILE,
    REASON_FILE,
    SERIES_FILE,
    Layout,
)
from scp.durable import Disk, lock_folder_alone, withdraw_closing
from scp.errors import NodeError, StorageFullError

SOURCE = "source"
RESULTS = "results"
ORIGINAL = "original"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFile:
    """What series.json says of a growing series."""

    study_instance_uid: str
    series_instance_uid: str
    opened: float
    """Wall time, seconds since the epoch."""
    rules: str


class JobFolders:
    """Moves series and jobs through their folders. The coordinator's; not for several threads at once."""

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._layout = layout
        self._disk = disk

    # -- growing series ------------------------------------------------------------------------

    def growing(self) -> list[str]:
        """The folder names of series that still grow."""
        return _folders(self._layout.growing)

    def series_file(self, folder: Path) -> SeriesFile:
        """Read series.json; a lost one gives empty UIDs, for nothing may be lost with it."""
        try:
            content = json.loads((folder / SERIES_FILE).read_bytes())
            return SeriesFile(
                study_instance_uid=content["study_instance_uid"],
                series_instance_uid=content["series_instance_uid"],
                opened=datetime.fromisoformat(content["opened"]).timestamp(),
                rules=content["rules"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return SeriesFile(
                study_instance_uid="", series_instance_uid="", opened=time.time(), rules=""
            )

    def close(self, series: str, *, was_cut: bool = False) -> str | None:
        """Freeze a series into a new job; None while an association is landing an instance in it.

        The rename is what closes: after it nobody can land in the folder, and only then is it listed.
        One that is to be cut waits for no pause: nobody who comes from now on lands in it, and the
        caller tries again soon.
        """
        folder = self._layout.growing / series
        lock = lock_folder_alone(folder, announced=was_cut)
        if lock is None:
            return None
        try:
            with self._new_jobs(series, 1) as (job,):
                if was_cut:
                    self._disk.create(self._layout.jobs / job / CUT_FILE).close()
                self._disk.rename(folder, self._layout.jobs / job / SOURCE)
                self._disk.sync_folder(self._layout.jobs / job)
                self._disk.sync_folder(self._layout.growing)
        finally:
            withdraw_closing(lock)
            os.close(lock)
        return job

    def take_each(self, series: str, names: Collection[str]) -> dict[str, str]:
        """Move instances out of their growing series, each into a job of its own; names to jobs.

        What is gone is left out, and so is what finds no room behind others that were moved. The
        folders that all have in common are synced once.

        Raises
        ------
        StorageFullError
            Nothing was moved; or the disk failed, and what was moved may not be durable.
        """
        source = self._layout.growing / series
        names = [name for name in names if (source / name).exists()]
        if not names:
            return {}
        taken: dict[str, str] = {}
        with self._new_jobs(series, len(names)) as made:
            for job in made:
                folder = self._layout.jobs / job / SOURCE
                self._disk.make_folder(folder)
                self._disk.sync_folder(folder.parent)
                # It may be lost, and ext4 gives a file 65,000 names at most.
                with contextlib.suppress(OSError):
                    self._disk.link(source / SERIES_FILE, folder / SERIES_FILE)
            for name, job in zip(names, made, strict=True):
                try:
                    self._disk.rename(source / name, self._layout.jobs / job / SOURCE / name)
                except StorageFullError:
                    if not taken:
                        raise
                    break
                taken[name] = job
            for job in taken.values():
                self._disk.sync_folder(self._layout.jobs / job / SOURCE)
            self._disk.sync_folder(source)
        for job in made[len(taken) :]:
            _drop_if_empty(self._layout.jobs / job, self._disk)
        return taken

    # -- jobs ----------------------------------------------------------------------------------

    def jobs(self) -> list[str]:
        return _folders(self._layout.jobs)

    def folder(self, job: str) -> Path:
        return self._layout.jobs / job

    def source(self, job: str) -> Path:
        return self._layout.jobs / job / SOURCE

    def was_cut(self, job: str) -> bool:
        """Whether the series was closed by a limit, so that more of it may come."""
        return (self._layout.jobs / job / CUT_FILE).exists()

    def result(self, job: str, form: str, name: str) -> Path:
        """The file that is delivered: under ``results/``, or the source itself."""
        folder = self._layout.jobs / job
        return folder / SOURCE / name if form == ORIGINAL else folder / RESULTS / form / name

    def make_results(self, job: str, form: str) -> Path:
        results = self._layout.jobs / job / RESULTS
        for folder in (results, results / form):
            with contextlib.suppress(FileExistsError):
                self._disk.make_folder(folder)
        return results / form

    def drop_results(self, job: str) -> None:
        """Delete what was made before a commit that never came, and what was to be held after it."""
        self._disk.remove_tree(self._layout.jobs / job / RESULTS)
        for receipts in (self._layout.jobs / job).glob("receipts-*"):
            self._disk.unlink(receipts)

    def commit(self, job: Job, synced: Collection[str] = ()) -> None:
        """Make the results durable, then the commit: the single point after which nothing is made again.

        The content of the results named in ``synced`` is on the disk already; their names are not.
        """
        folder = self._layout.jobs / job.name
        forms = {form for form, _ in job.results}
        for form, name in sorted(job.results):
            if name not in synced:
                self._disk.sync_path(folder / RESULTS / form / name)
        for form in sorted(forms):
            self._disk.sync_folder(folder / RESULTS / form)
        if forms:
            self._disk.sync_folder(folder / RESULTS)
            self._disk.sync_folder(folder)
        self._disk.publish_json(folder / JOB_FILE, job.to_json())

    def load(self, folder: Path) -> Job | None:
        """The commit of a job, None when it has none yet.

        Raises
        ------
        NodeError
            It cannot be understood.
        """
        try:
            content = (folder / JOB_FILE).read_bytes()
        except FileNotFoundError:
            return None
        job = Job.from_bytes(content)
        if job.name != folder.name:
            raise NodeError(f"job.json is damaged: it is that of {job.name}")
        return job

    def finish(self, job: str, *, from_held: bool = False) -> Path:
        """Move a job that the ledger has into the trash; returns its folder there.

        The caller deletes that after :meth:`sync_finished`: a job of which a part is deleted must not
        come back.
        """
        source = (self._layout.held if from_held else self._layout.jobs) / job
        target = self._layout.trash / f"{job}.{uuid.uuid4().hex[:8]}"
        with contextlib.suppress(FileNotFoundError):
            self._disk.rename(source, target)
        return target

    def sync_finished(self, *, from_held: bool = False) -> None:
        """Have it last what :meth:`finish` moved."""
        self._disk.sync_folder(self._layout.held if from_held else self._layout.jobs)

    # -- held ----------------------------------------------------------------------------------

    def held(self) -> list[str]:
        return _folders(self._layout.held)

    def held_folder(self, job: str) -> Path:
        return self._layout.held / job

    def reasons(self, job: str) -> dict[str, Any]:
        """Why a job is held: destination to reason to the number of instances."""
        try:
            content = json.loads((self._layout.held / job / REASON_FILE).read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def hold(self, job: str, reasons: dict[str, Any]) -> None:
        """Set a job aside for a person, with why."""
        folder = self._layout.jobs / job
        self._disk.publish_json(folder / REASON_FILE, reasons)
        self._move(folder, self._layout.held / job)

    def give_up(self, job: str, reason: str) -> None:
        """Note durably that a person gives a held job up."""
        self._disk.publish_json(self._layout.held / job / GIVEN_UP_FILE, {"reason": reason})

    def given_up(self, job: str) -> str:
        """Why a held job was given up; empty where it was not."""
        try:
            return str(json.loads((self._layout.held / job / GIVEN_UP_FILE).read_bytes())["reason"])
        except (OSError, ValueError, LookupError, TypeError):
            return ""

    def release(self, job: str) -> None:
        """Put a held job back to work."""
        self._move(self._layout.held / job, self._layout.jobs / job)
        with contextlib.suppress(OSError, StorageFullError):
            self._disk.unlink(self._layout.jobs / job / REASON_FILE)

    def _move(self, source: Path, target: Path) -> None:
        self._disk.rename(source, target)
        self._disk.sync_folder(target.parent)
        self._disk.sync_folder(source.parent)

    @contextlib.contextmanager
    def _new_jobs(self, series: str, count: int) -> Iterator[list[str]]:
        """Jobs to move something into; where that fails, those are no more into which nothing came."""
        made: list[str] = []
        try:
            for _ in range(count):
                stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
                job = f"{stamp}-{series[:8]}-{uuid.uuid4().hex[:4]}"
                self._disk.make_folder(self._layout.jobs / job)
                made.append(job)
            self._disk.sync_folder(self._layout.jobs)
            yield made
        except (OSError, StorageFullError):
            for job in made:
                with contextlib.suppress(OSError):
                    _drop_if_empty(self._layout.jobs / job, self._disk)
            raise


def instances_in(folder: Path) -> list[Path]:
    """The instances in a series or source folder, in order of arrival."""
    with os.scandir(folder) as entries:
        found = [
            (entry.stat().st_mtime_ns, entry.name)
            for entry in entries
            if entry.name.endswith(INSTANCE_ENDING) and not entry.name.startswith(".")
        ]
    return [folder / name for _, name in sorted(found)]


def sweep(layout: Layout, disk: Disk, *, receivers: Iterable[str]) -> None:
    """Delete what only a process that is dead could need; for a start, under the lock.

    Incoming files of the named receivers were never acknowledged, or have their durable name already;
    caches and trash are nobody's; hidden names were never renamed to what they should become.
    What is left is then made durable: who moved it may have been killed before it synced the folders.
    """
    doomed = [layout.incoming / receiver for receiver in receivers]
    doomed += [*layout.encoded.iterdir(), *layout.trash.iterdir()]
    commitments = (layout.requested, layout.asked, layout.answers)
    for folder in (layout.growing, layout.jobs, layout.held, layout.originals, *commitments):
        doomed += folder.glob(".*")
    for entry in doomed:
        disk.remove_tree(entry)
    for job in _folders(layout.jobs):
        if (source := layout.jobs / job / SOURCE).is_dir():
            disk.sync_folder(source)
        disk.sync_folder(layout.jobs / job)
    for series in _folders(layout.growing):
        withdraw_closing(layout.growing / series)
        disk.sync_folder(layout.growing / series)
    for folder in (layout.held, layout.jobs, layout.growing):
        disk.sync_folder(folder)


def drop_empty_jobs(layout: Layout, disk: Disk) -> None:
    """Delete jobs whose series was never renamed in."""
    for job in _folders(layout.jobs):
        if not (layout.jobs / job / JOB_FILE).exists():
            _drop_if_empty(layout.jobs / job, disk)


def _drop_if_empty(job: Path, disk: Disk) -> None:
    source = job / SOURCE
    if not source.is_dir() or not instances_in(source):
        disk.remove_tree(job)


def _folders(parent: Path) -> list[str]:
    with os.scandir(parent) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
