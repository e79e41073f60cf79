"""dcmpress verify: are delivered files still what was delivered?"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from scp.buffer.job import Job
from scp.buffer.jobs import ORIGINAL, RESULTS
from scp.buffer.layout import JOB_FILE, Layout
from scp.cli import output
from scp.cli.configuration import load_config
from scp.cli.manifest import MANIFEST, NOT_DICOM, Manifest, read_manifest
from scp.cli.paths import files_in
from scp.config.schema import Config
from scp.convert.attributes import HTJ2K_LOSSLESS, NATIVE
from scp.convert.copies import collapsed_as_written, examine
from scp.convert.enhanced.record import SIDECAR_SUFFIX
from scp.convert.enhanced.restore import NotRestorableError, is_collapsed, verify_collapsed
from scp.deliver.dicomfile import read_meta
from scp.errors import MalformedError, NodeError
from scp.ledger.open import open_for_reading
from scp.ledger.ports import Ledger, LedgerRow, Search
from scp.model import Form

_MISSING = "transcode has written it, and it is gone"


def verify_files(paths: list[Path], config: Path | None, *, as_json: bool) -> None:
    """Compare each file with the record beside it, of ``transcode`` or of its job, else with the ledger.

    What no record knows as a whole, but carries records or digests of its own, is compared with those.

    Raises
    ------
    NodeError
        A file differs from its record, or has none; or a record has no file.
    """
    loaded = load_config(config)
    records = _Records(_ledger_of(loaded))
    found: list[_Finding] = []
    for path in paths:
        missing = list(records.missing_below(path))
        if path.exists() or not missing:
            found += [records.judge(file) for file in files_in([path])]
        found += [_Finding(path=file, verdict="missing", detail=_MISSING) for file in missing]
    if as_json:
        output.show_json(
            [
                {
                    "path": str(each.path),
                    "verdict": each.verdict,
                    "checked": each.checked,
                    "detail": each.detail,
                }
                for each in found
            ]
        )
    else:
        for each in found:
            print(f"{each.path}: {each.verdict}{': ' + each.detail if each.detail else ''}")
    bad = sum(each.verdict != "good" for each in found)
    if bad:
        raise NodeError(f"{bad} of {len(found)} files are not what was recorded")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    path: Path
    verdict: str
    """``good``, ``different``, ``unknown`` or ``missing``."""
    checked: str = ""
    """``every byte``, ``dataset`` (all but the file meta group, which everybody writes anew),
    ``sources`` (a collapsed object gives back what it was made of), ``pixels``, or nothing."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """What a record beside a file says of the whole of it."""

    sha256: str
    detail: str
    writer: str


class _Records:
    def __init__(self, ledger: Ledger | None) -> None:
        self._ledger = ledger
        self._manifests: dict[Path, Manifest] = {}
        self._jobs: dict[Path, Job | None] = {}

    def judge(self, path: Path) -> _Finding:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        recorded = self._recorded(path.resolve())
        if recorded is not None:
            is_good = recorded.sha256 == digest
            return _Finding(
                path=path,
                verdict="good" if is_good else "different",
                checked="every byte",
                detail=recorded.detail
                if is_good
                else f"its bytes are not those that {recorded.writer} wrote",
            )
        if path.suffix == SIDECAR_SUFFIX and path.with_suffix("").is_file():
            return _judge_frames(path, path.with_suffix(""), path)
        if self._ledger is None:
            if is_collapsed(path):
                return _judge_frames(path, path)
            why = "no record of transcode or of a job beside it, and no node's ledger"
            found = _Finding(path=path, verdict="unknown", detail=why)
        else:
            found = self._judge_by_ledger(self._ledger, path, digest)
        return found if found.verdict != "unknown" else _judge_by_itself(path, found)

    def _judge_by_ledger(self, ledger: Ledger, path: Path, digest: str) -> _Finding:
        rows = ledger.find_results(result_sha256=digest)
        if rows:
            when = rows[0].finished_at.isoformat(timespec="seconds")
            return _Finding(
                path=path, verdict="good", checked="every byte", detail=f"delivered {when}"
            )
        try:
            with path.open("rb") as file:
                meta = read_meta(file.fileno())
        except MalformedError:
            why = "no DICOM file, and its digest is in no record"
            return _Finding(path=path, verdict="unknown", detail=why)
        uid, transfer_syntax = meta.sop_instance_uid, meta.transfer_syntax
        rows = ledger.find_results(sop_instance_uid=uid)
        became = next(iter(ledger.search(Search(uid=uid))), None)
        if is_collapsed(path):
            if ledger.find_results(result_sha256=collapsed_as_written(path)):
                detail = "all but its file meta group is as it was delivered"
                return _Finding(path=path, verdict="good", checked="dataset", detail=detail)
            found = _judge_frames(path, path)
            if became is None or transfer_syntax not in HTJ2K_LOSSLESS:
                return found  # Nothing here tells, or it was decoded, whose header has no record.
            why = f"its bytes are not those that were delivered; {found.detail}"
            return _Finding(path=path, verdict="different", checked="every byte", detail=why)
        if not rows:
            why = "the ledger does not know the instance"
            return _Finding(path=path, verdict="unknown", detail=why)
        return _judge_copy(path, rows)

    def missing_below(self, path: Path) -> Iterator[Path]:
        """What transcode has recorded as written at or below ``path`` and is no file there now."""
        if path.is_file():
            return
        top = path.resolve()
        for folder in sorted({top, *top.parents, *_folders_with_a_record(top)}):
            names = {
                entry.result
                for entry in self._manifest(folder).entries.values()
                if entry.form != NOT_DICOM
            }
            for name in sorted(names):
                result = Path(os.path.normpath(folder / name))
                if result.is_relative_to(top) and not os.path.isfile(result):
                    yield result if result == top else path / result.relative_to(top)

    def _recorded(self, path: Path) -> _Recorded | None:
        for folder in path.parents:
            found = _in_manifest(self._manifest(folder), str(path.relative_to(folder)))
            if found is not None:
                return found
        # results/FORM/NAME and source/NAME, below the job's folder.
        for folder in path.parents[:3]:
            job = self._job(folder)
            if job is not None:
                return _in_job(job, path.relative_to(folder))
        return None

    def _manifest(self, folder: Path) -> Manifest:
        if folder not in self._manifests:
            self._manifests[folder] = read_manifest(folder)
        return self._manifests[folder]

    def _job(self, folder: Path) -> Job | None:
        if folder not in self._jobs:
            try:
                self._jobs[folder] = Job.from_bytes((folder / JOB_FILE).read_bytes())
            except (OSError, NodeError):
                self._jobs[folder] = None
        return self._jobs[folder]


def _in_manifest(manifest: Manifest, name: str) -> _Recorded | None:
    entry = manifest.entries.get(name)
    if entry is not None and not entry.volume:
        detail = f"{entry.form} {entry.reason}".strip()
        return _Recorded(sha256=entry.result_sha256, detail=detail, writer="transcode")
    volume = manifest.volumes.get(name)
    if volume is not None:
        detail = f"enhanced, {volume.frames} frames"
        return _Recorded(sha256=volume.result_sha256, detail=detail, writer="transcode")
    volume = manifest.volumes.get(name.removesuffix(SIDECAR_SUFFIX))
    if volume is not None and volume.sidecar_sha256 and name.endswith(SIDECAR_SUFFIX):
        detail = f"restore record of {volume.frames} frames"
        return _Recorded(sha256=volume.sidecar_sha256, detail=detail, writer="transcode")
    return None


def _in_job(job: Job, path: Path) -> _Recorded | None:
    """What job.json says of one of the files that it commits."""
    writer = f"job {job.name} was committed with"
    form = path.parts[1] if path.parts[0] == RESULTS else ORIGINAL
    for volume in job.volumes:
        if form == Form.ENHANCED and path.name == volume.name:
            return _Recorded(sha256=volume.result_sha256, detail="enhanced", writer=writer)
        if path.name == volume.name + SIDECAR_SUFFIX and volume.sidecar_sha256:
            return _Recorded(sha256=volume.sidecar_sha256, detail="restore record", writer=writer)
    for instance in job.instances:
        if (instance.form, instance.name) == (form, path.name) and instance.result_sha256:
            detail = f"{instance.form} {instance.reason}".strip()
            return _Recorded(sha256=instance.result_sha256, detail=detail, writer=writer)
    return None


def _folders_with_a_record(top: Path) -> Iterator[Path]:
    """Below hidden folders nothing is looked at."""
    for record in top.rglob(MANIFEST):
        if not any(name.startswith(".") for name in record.parent.relative_to(top).parts):
            yield record.parent


def _judge_frames(path: Path, enhanced: Path, sidecar: Path | None = None) -> _Finding:
    """Of a collapsed object that no record knows as a whole: it has recorded its sources itself."""
    try:
        frames = list(verify_collapsed(enhanced, sidecar=sidecar))
    except NotRestorableError as error:
        return _Finding(path=path, verdict="different", checked="sources", detail=str(error))
    faults = [f"frame {each.frame}: {each.fault}" for each in frames if each.fault]
    checked = "sources" if all(each.is_whole for each in frames) else "pixels"
    if faults:
        detail = "; ".join(faults[:3]) + (" ..." if len(faults) > 3 else "")
        return _Finding(path=path, verdict="different", checked=checked, detail=detail)
    what = "pixels and header of all" if checked == "sources" else "the pixels of all"
    detail = "; ".join(
        (
            f"{what} {len(frames)} sources, by the digests that it carries",
            *sorted({each.warning for each in frames} - {""}),
            "no record here tells whether its own header is as it was written",
        )
    )
    return _Finding(path=path, verdict="good", checked=checked, detail=detail)


def _judge_by_itself(path: Path, unknown: _Finding) -> _Finding:
    """Of what no record knows: a single-frame result is compared with the digests that it carries."""
    copy = examine(path)
    if copy is None:
        return replace(unknown, detail=f"{unknown.detail}; it cannot be read as DICOM")
    if copy.carried is None:
        return unknown
    if copy.pixels != copy.carried.pixels:
        why = "its pixels are not those of the digest that it carries"
        return _Finding(path=path, verdict="different", checked="pixels", detail=why)
    if not copy.carried.header or copy.is_coloured_anew:
        detail = "its pixels, by the digest that it carries; nothing tells whether its header is"
        return _Finding(path=path, verdict="good", checked="pixels", detail=detail)
    if copy.header != copy.carried.header:
        why = "its pixels are those of the digests that it carries, its header is not"
        return _Finding(path=path, verdict="different", checked="dataset", detail=why)
    detail = "its header and pixels, by the digests that it carries; no record here knows it"
    return _Finding(path=path, verdict="good", checked="dataset", detail=detail)


def _judge_copy(path: Path, rows: list[LedgerRow]) -> _Finding:
    """Of an instance that the ledger knows with other bytes: is it what was received, in another file?"""
    copy = examine(path)
    if copy is None:
        why = "the instance is known, with other bytes"
        return _Finding(path=path, verdict="different", checked="every byte", detail=why)
    same = {copy.dataset, copy.normal, copy.normal_as_native} - {""}
    for row in rows:
        if row.dataset_sha256 in same or row.normal_sha256 in same:
            detail = "its header and pixels are those that were received; its file is another"
            return _Finding(path=path, verdict="good", checked="dataset", detail=detail)
    same_pixels = [row for row in rows if row.pixel_sha256 and row.pixel_sha256 == copy.pixels]
    if not same_pixels:
        why = "the instance is known, with other bytes, and not with these pixels"
        return _Finding(path=path, verdict="different", checked="every byte", detail=why)
    is_comparable = copy.normal_as_native and any(
        row.source_transfer_syntax in NATIVE for row in same_pixels
    )
    if is_comparable:
        why = "its pixels are those that were received, its header is not"
        return _Finding(path=path, verdict="different", checked="dataset", detail=why)
    detail = (
        "its pixels are those that were received, its bytes not those that were delivered; "
        "no record here tells whether its header is"
    )
    return _Finding(path=path, verdict="good", checked="pixels", detail=detail)


def _ledger_of(config: Config) -> Ledger | None:
    """The node's, where there is one."""
    path = Layout(config.node.data).ledger
    try:
        return open_for_reading(config.ledger, path)
    except NodeError:
        if path.exists() or config.ledger.url:
            raise
        return None
