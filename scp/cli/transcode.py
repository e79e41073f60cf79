"""dcmpress transcode: the node's conversion for files that are already there."""

import contextlib
import filecmp
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from scp.choose.attributes import Wanted, read_attributes
from scp.choose.header import open_header
from scp.cli.configuration import load_config
from scp.cli.manifest import MANIFEST, NOT_DICOM, Entry, encode, read_manifest
from scp.cli.paths import check_named, files_in
from scp.cli.transcode_report import Style, report
from scp.config.schema import Config
from scp.durable import Disk
from scp.errors import MalformedError, NodeError, StorageFullError, TruncatedError, UsageError
from scp.model import Form, PassReason
from scp.pipeline.batch import Batch
from scp.pipeline.tasks import Answer, ConvertTask, Lost, Outcome

_MODALITY = Wanted(public={0x00080060: "Modality"}, stop_before=0x00080061)
_CHANGED = "it changed or vanished while it was converted; run the command again"


def transcode_files(source: Path, target: Path, path: Path | None, *, style: Style) -> None:
    """Convert IN into OUT; what OUT's record says is done is not done again."""
    config = load_config(path)
    check_named(source)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file: OUT is a folder")
    root = source if source.is_dir() else source.parent
    inside, outside = target.resolve(), root.resolve()
    if inside == outside or (source.is_dir() and inside.is_relative_to(outside)):
        raise UsageError(f"{target} lies in {root}: results may not mix with sources")
    started = time.monotonic()
    run = _Run(config, root, target)
    try:
        run.convert(list(files_in([source])))
    finally:
        run.close()
    seconds = time.monotonic() - started
    report(run.entries.values(), run.failed, run.resumed, seconds, style)
    if run.failed:
        raise NodeError(f"{len(run.failed)} files failed")


@dataclass(frozen=True, slots=True)
class _Work:
    source: Path
    name: str
    target: Path
    aside: Path
    size: int
    mtime_ns: int
    modality: str
    is_recorded: bool
    """What lies at ``target`` is an earlier result of ours, which this one replaces."""


class _Run:
    """One run over one tree. What fails, fails alone, and leaves nothing at OUT."""

    def __init__(self, config: Config, root: Path, target: Path) -> None:
        self._root = root
        self._target = target
        self._disk = Disk()
        self._disk.make_durable_folder(target)
        self.entries = read_manifest(target)
        self.failed: list[str] = []
        self.resumed = 0
        self._before = self._after = 0
        self._unfinished: set[Path] = set()
        """Files aside that a worker may be writing."""
        self._manifest = self._disk.append_to(target / MANIFEST)
        self._may_be_torn = os.fstat(self._manifest.descriptor).st_size > 0
        """Whether the manifest may end in the middle of a line."""
        self._batch = Batch(config)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[ratio]}"),
            TimeRemainingColumn(),
            disable=not sys.stderr.isatty(),
            transient=True,
        )

    def convert(self, files: list[Path]) -> None:
        sizes = sum(map(_size, files))
        with self._bar as bar:
            self._row = bar.add_task("transcode", total=sizes, ratio="")
            self._batch.run(self._tasks(files), self._done)
        self._manifest.sync()

    def close(self) -> None:
        self._batch.stop()
        self._manifest.close()
        for aside in self._unfinished:
            with contextlib.suppress(OSError):
                aside.unlink()

    def _tasks(self, files: list[Path]) -> Iterator[tuple[_Work, ConvertTask]]:
        for source in files:
            try:
                work = self._work(source)
            except (OSError, StorageFullError) as error:
                self._fail(source, error)
                continue
            if work is not None:
                self._unfinished.add(work.aside)
                yield work, ConvertTask(source=source, target=work.aside)

    def _work(self, source: Path) -> _Work | None:
        """What is to be done about a file; None: nothing."""
        state = source.stat()
        name = str(source.relative_to(self._root))
        known = self.entries.get(name)
        target = self._target / name
        if (
            known is not None
            and (known.source_bytes, known.source_mtime_ns) == (state.st_size, state.st_mtime_ns)
            and (known.form == NOT_DICOM or _has_size(target, known.result_bytes))
        ):
            self.resumed += 1
            self._bar.advance(self._row, state.st_size)
            return None
        if not _is_dicom(source):
            self._record(_entry(name, state, "", NOT_DICOM))
            return None
        self._disk.make_durable_folder(target.parent)
        work = _Work(
            source=source,
            name=name,
            target=target,
            aside=target.with_name(f".{target.name}.part"),
            size=state.st_size,
            mtime_ns=state.st_mtime_ns,
            modality=_modality(source),
            is_recorded=known is not None and known.form != NOT_DICOM,
        )
        work.aside.unlink(missing_ok=True)
        return work

    def _done(self, work: _Work, answer: Answer | Lost) -> None:
        try:
            self._finish(work, answer)
        except (OSError, StorageFullError) as error:
            self._fail(work.source, error)
        finally:
            self._unfinished.discard(work.aside)
            with contextlib.suppress(OSError):
                work.aside.unlink()

    def _fail(self, source: Path, error: OSError | StorageFullError) -> None:
        why = (isinstance(error, OSError) and error.strerror) or error
        self.failed.append(f"{source}: {why}")

    def _finish(self, work: _Work, answer: Answer | Lost) -> None:
        outcome = Outcome(reason=answer.reason) if isinstance(answer, Lost) else answer
        assert isinstance(outcome, Outcome)
        if outcome.reason == PassReason.NO_ROOM:
            raise StorageFullError(f"no room on the disk of {self._target}: {outcome.detail}")
        if not (outcome.is_converted or outcome.source_missing):
            shutil.copyfile(work.source, work.aside)
        if outcome.source_missing or not _is_unchanged(work):
            self.failed.append(f"{work.source}: {_CHANGED}")
            return
        size = work.aside.stat().st_size
        result_sha256 = outcome.result_sha256 if outcome.is_converted else _sha256(work.aside)
        if outcome.result_sha256 not in ("", result_sha256):
            # Not what the worker has read; one that was lost has digested nothing.
            self.failed.append(f"{work.source}: {_CHANGED}")
            return
        if work.target.exists() and not work.is_recorded:
            # The same bytes are those of a run that died before it came to its record.
            if not filecmp.cmp(work.aside, work.target, shallow=False):
                self.failed.append(f"{work.target} is there and was not made from {work.source}")
                return
        else:
            self._disk.sync_path(work.aside)
            self._disk.rename(work.aside, work.target)
            self._disk.sync_folder(work.target.parent)
        self._record(
            Entry(
                source=work.name,
                source_bytes=work.size,
                source_mtime_ns=work.mtime_ns,
                modality=work.modality,
                form=Form.HTJ2K if outcome.is_converted else Form.ORIGINAL,
                reason=outcome.reason,
                result_bytes=size,
                dataset_sha256=outcome.dataset_sha256,
                pixel_sha256=outcome.pixel_sha256,
                result_sha256=result_sha256,
                verified_by=outcome.verified_by,
            )
        )

    def _record(self, entry: Entry) -> None:
        line = encode(entry)
        torn, self._may_be_torn = self._may_be_torn, True
        self._manifest.write(b"\n" + line if torn else line)
        self._may_be_torn = False
        self.entries[entry.source] = entry
        if entry.form != NOT_DICOM:
            self._before += entry.source_bytes
            self._after += entry.result_bytes
        ratio = f"{self._before / self._after:.2f}:1" if self._after else ""
        self._bar.update(self._row, advance=entry.source_bytes, ratio=ratio)


def _entry(name: str, state: os.stat_result, modality: str, form: str) -> Entry:
    return Entry(
        source=name,
        source_bytes=state.st_size,
        source_mtime_ns=state.st_mtime_ns,
        modality=modality,
        form=form,
    )


def _size(path: Path) -> int:
    """In bytes, for the progress bar."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _has_size(result: Path, size: int) -> bool:
    """Whether a result is there and not cut short; ``dcmpress verify`` reads it all."""
    try:
        state = result.stat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size == size


def _is_unchanged(work: _Work) -> bool:
    try:
        state = work.source.stat()
    except FileNotFoundError:
        return False
    return (state.st_size, state.st_mtime_ns) == (work.size, work.mtime_ns)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_dicom(path: Path) -> bool:
    try:
        with open_header(path):
            return True
    except (MalformedError, TruncatedError):
        return False


def _modality(path: Path) -> str:
    found = read_attributes(path, _MODALITY).get("Modality")
    return found.values[0] if found is not None and found.values else ""
