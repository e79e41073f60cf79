"""OUT of ``dcmpress transcode``: results appear complete and durable, then the record says so."""

import contextlib
import filecmp
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from scp.cli.manifest import MANIFEST, NOT_DICOM, Entry, VolumeEntry, encode, read_manifest
from scp.cli.transcode_work import Work, common_folder, has_size
from scp.convert.alike import is_dataset, is_of_same_patient, is_same_image, sources_of
from scp.convert.enhanced.collapsed import Collapsed
from scp.convert.enhanced.record import sidecar_of
from scp.durable import Disk
from scp.errors import StorageFullError
from scp.model import Form, PassReason
from scp.pipeline.collapser import shares
from scp.pipeline.tasks import Outcome

_CHANGED = "it changed or vanished while it was converted; run the command again"
_ANOTHER_CHANGED = (
    "another file of its series changed while it was converted; run the command again"
)

_SYNC_SECONDS: Final = 1.0
"""Of lines that a power loss may cost; what they told is found out again from the results."""


class Output:
    """One folder and its record. What fails, fails alone, and leaves nothing there."""

    def __init__(self, target: Path, disk: Disk, advance: Callable[[Entry], None]) -> None:
        self._target = target
        self._disk = disk
        self._advance = advance
        """Told of every file that is done with."""
        disk.make_durable_folder(target)
        known = read_manifest(target)
        self.entries = known.entries
        self._volumes = known.volumes
        self.failed: list[str] = []
        self._manifest = disk.append_to(target / MANIFEST)
        self._may_be_torn = os.fstat(self._manifest.descriptor).st_size > 0
        """Whether the manifest may end in the middle of a line."""
        disk.sync_folder(target)  # The record's name.
        self._synced_at = time.monotonic()

    def sync(self) -> None:
        self._manifest.sync()
        self._synced_at = time.monotonic()

    def close(self) -> None:
        self._manifest.close()

    def is_done(self, name: str, state: os.stat_result) -> bool:
        """Whether the file of that size and time was done before, and its result is still there."""
        known = self.entries.get(name)
        if known is None or (known.source_bytes, known.source_mtime_ns) != (
            state.st_size,
            state.st_mtime_ns,
        ):
            return False
        if known.form == NOT_DICOM:
            return True
        volume = self._volumes.get(known.volume)
        if volume is None:
            return has_size(self._target / known.source, known.result_bytes)
        path = self._target / volume.volume
        has_sidecar = not volume.sidecar_sha256 or sidecar_of(path).is_file()
        return has_size(path, volume.result_bytes) and has_sidecar

    def volumes_of(self, series_instance_uid: str) -> frozenset[str] | None:
        """What the series was collapsed into before, by UID; None: nothing."""
        found = (
            volume.sop_instance_uid
            for volume in self._volumes.values()
            if volume.source_series_instance_uid == series_instance_uid
        )
        return frozenset(found) or None

    def not_dicom(self, name: str, state: os.stat_result) -> None:
        self._record(
            Entry(
                source=name,
                source_bytes=state.st_size,
                source_mtime_ns=state.st_mtime_ns,
                modality="",
                form=NOT_DICOM,
            )
        )

    def fail(self, source: Path, error: OSError | StorageFullError) -> None:
        why = (isinstance(error, OSError) and error.strerror) or error
        self.failed.append(f"{source}: {why}")

    def single(self, work: Work, outcome: Outcome, not_collapsed: str = "") -> None:
        """Take what lies aside, or a copy of the source, as the file's result."""
        try:
            self._single(work, outcome, not_collapsed)
        except (OSError, StorageFullError) as error:
            self.fail(work.source, error)
        finally:
            with contextlib.suppress(OSError):
                work.aside.unlink()

    def _single(self, work: Work, outcome: Outcome, not_collapsed: str) -> None:
        if outcome.reason == PassReason.NO_ROOM:
            raise StorageFullError(f"no room on the disk of {self._target}: {outcome.detail}")
        if not (outcome.is_converted or outcome.source_missing):
            # Its folder may have gone with the frames that became a volume somewhere else.
            self._disk.make_durable_folder(work.target.parent)
            shutil.copyfile(work.source, work.aside)
        if outcome.source_missing or not work.is_unchanged:
            self.failed.append(f"{work.source}: {_CHANGED}")
            return
        size = work.aside.stat().st_size
        result_sha256 = outcome.result_sha256 if outcome.is_converted else _sha256(work.aside)
        if outcome.result_sha256 not in ("", result_sha256):
            # Not what the worker has read; one that was lost has digested nothing.
            self.failed.append(f"{work.source}: {_CHANGED}")
            return
        if not work.is_recorded and not _may_replace(
            work.target, work.aside, outcome.dataset_sha256
        ):
            self.failed.append(f"{work.target} is there and was not made from {work.source}")
            return
        self._publish(work.aside, work.target, is_ours=work.is_recorded)
        self._record(
            replace(
                _entry(work, outcome),
                not_collapsed=not_collapsed,
                result_bytes=size,
                result_sha256=result_sha256,
            )
        )

    def volume(
        self,
        series_instance_uid: str,
        aside: Path,
        made: Collapsed,
        outcomes: Mapping[Work, Outcome],
    ) -> None:
        """Take what lies aside as the result of all files in it, at the deepest folder of them all."""
        members = {work.name: work for work in outcomes}
        frames = [(members[name], number) for name, number in made.frames]
        try:
            self._volume(series_instance_uid, aside, made, frames, outcomes)
        except (OSError, StorageFullError) as error:
            for work, _ in frames:
                self.fail(work.source, error)
        finally:
            for work, _ in frames:
                with contextlib.suppress(OSError):
                    work.aside.unlink()
                with contextlib.suppress(OSError):
                    work.target.parent.rmdir()  # Where nothing else came to lie in it.

    def _volume(
        self,
        series_instance_uid: str,
        aside: Path,
        made: Collapsed,
        frames: list[tuple[Work, int]],
        outcomes: Mapping[Work, Outcome],
    ) -> None:
        changed = {work for work, _ in frames if not work.is_unchanged}
        if changed:
            self.failed += [
                f"{work.source}: {_CHANGED if work in changed else _ANOTHER_CHANGED}"
                for work, _ in frames
            ]
            return
        folder = common_folder(work.target.parent for work, _ in frames)
        target = folder / f"{made.sop_instance_uid}.dcm"
        name = str(target.relative_to(self._target))
        beside = sidecar_of(target)
        is_ours = name in self._volumes
        if not is_ours and not _may_replace_volume(target, aside, made.sidecar):
            there = target if target.exists() else beside
            self.failed += [
                f"{work.source}: {there} is there and was not made from its series"
                for work, _ in frames
            ]
            return
        sidecar_sha256 = ""
        if made.sidecar is not None:  # First, so that no volume is there without it.
            sidecar_sha256 = _sha256(made.sidecar)
            self._publish(made.sidecar, beside, is_ours=is_ours)
        self._publish(aside, target, is_ours=is_ours)
        volume = VolumeEntry(
            volume=name,
            sop_instance_uid=made.sop_instance_uid,
            source_series_instance_uid=series_instance_uid,
            frames=len(frames),
            result_bytes=made.result_bytes,
            result_sha256=made.result_sha256,
            sidecar_sha256=sidecar_sha256,
        )
        parts = shares(made.result_bytes, len(frames))
        entries = [
            replace(
                _entry(work, outcomes[work]),
                form=Form.ENHANCED.value,
                reason="",
                result_bytes=part,
                result_sha256=made.result_sha256,
                volume=name,
                frame=number,
            )
            for (work, number), part in zip(frames, parts, strict=True)
        ]
        self._volumes[name] = volume
        self._record(*entries, volume)

    def _publish(self, aside: Path, target: Path, *, is_ours: bool) -> None:
        """Give a file its name, durably; what no record knows, with the same bytes, stays."""
        if not is_ours and target.exists() and filecmp.cmp(aside, target, shallow=False):
            return
        self._disk.sync_path(aside)
        self._disk.rename(aside, target)
        self._disk.sync_folder(target.parent)

    def _record(self, *lines: Entry | VolumeEntry) -> None:
        torn, self._may_be_torn = self._may_be_torn, True
        self._manifest.write(b"\n" * torn + encode(*lines))
        self._may_be_torn = False
        if time.monotonic() - self._synced_at >= _SYNC_SECONDS:
            self.sync()
        for line in lines:
            if isinstance(line, Entry):
                self.entries[line.source] = line
                self._advance(line)


def _may_replace(target: Path, aside: Path, dataset_sha256: str) -> bool:
    """Whether nothing is lost with what lies there, which no record knows.

    A run that died before it came to its record, or whose record was lost with the power, left such
    results. Another encoder, or the same with another setting, gives the same image other bytes; a run
    that lost a worker has left the source as it was, of which the digest is given.
    """
    if not target.exists() or filecmp.cmp(aside, target, shallow=False):
        return True
    return target.is_file() and (is_dataset(target, dataset_sha256) or is_same_image(aside, target))


def _may_replace_volume(target: Path, aside: Path, sidecar: Path | None) -> bool:
    """As :func:`_may_replace`, of an object and its record: of the same sources and patient, all whole."""
    if target.exists() and not filecmp.cmp(aside, target, shallow=False):
        ours = sources_of(aside, sidecar)
        if not ours or not target.is_file() or sources_of(target) != ours:
            return False
        # Of a patient that was corrected since the sources' digests do not tell.
        if not is_of_same_patient(aside, target):
            return False
    beside = sidecar_of(target)
    if sidecar is not None and beside.exists() and not filecmp.cmp(sidecar, beside, shallow=False):
        ours = sources_of(aside, sidecar)
        return bool(ours) and beside.is_file() and sources_of(aside, beside) == ours
    return True


def _entry(work: Work, outcome: Outcome) -> Entry:
    return Entry(
        source=work.name,
        source_bytes=work.size,
        source_mtime_ns=work.mtime_ns,
        modality=work.modality,
        form=(Form.HTJ2K if outcome.is_converted else Form.ORIGINAL).value,
        reason=outcome.reason,
        dataset_sha256=outcome.dataset_sha256,
        pixel_sha256=outcome.pixel_sha256,
        verified_by=outcome.verified_by,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
