"""dcmpress transcode: the node's conversion for files that are already there."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from scp.cli.configuration import load_config
from scp.cli.manifest import NOT_DICOM, Entry
from scp.cli.paths import check_named, files_in
from scp.cli.transcode_output import Output
from scp.cli.transcode_report import Style, report
from scp.cli.transcode_work import Series, Sorter, Work, is_dicom, modality_of
from scp.config.schema import Config
from scp.convert.enhanced.slices import SourceSlice
from scp.durable import Disk
from scp.errors import NodeError, StorageFullError, UsageError
from scp.model import CollapseReason, Form, PassReason
from scp.pipeline.batch import Batch
from scp.pipeline.tasks import Answer, Collapse, CollapseTask, ConvertTask, Lost, Outcome

type _Frames = dict[Work, Outcome]
"""Files of one series that were converted, each on its own."""


def transcode_files(source: Path, target: Path, path: Path | None, *, style: Style) -> None:
    """Convert IN into OUT as the rules say; what OUT's record says is done is not done again."""
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
    report(run.output.entries.values(), run.output.failed, run.resumed, seconds, style)
    if run.output.failed:
        raise NodeError(f"{len(run.output.failed)} files failed")


class _Run:
    """One run over one tree."""

    def __init__(self, config: Config, root: Path, target: Path) -> None:
        self._root = root
        self._target = target
        self._disk = Disk()
        self.output = Output(target, self._disk, self._advance)
        self._sorter = Sorter(config)
        self.resumed = 0
        self._before = self._after = 0
        self._unfinished: set[Path] = set()
        """Files and folders aside that a worker may be writing."""
        self._batch = Batch(config)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(),
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
            for batch in self._sorter.series():
                self._convert_series(batch)
        self.output.sync()

    def close(self) -> None:
        self._batch.stop()
        self.output.close()
        for aside in self._unfinished:
            self._disk.remove_tree(aside)

    def _tasks(self, files: list[Path]) -> Iterator[tuple[Work, ConvertTask]]:
        for source in files:
            try:
                work = self._work(source)
                form = None if work is None else self._sorter.form_of(work)
            except (OSError, StorageFullError) as error:
                self.output.fail(source, error)
                continue
            if work is not None and form is not None:
                yield work, self._task(work, form)

    def _work(self, source: Path) -> Work | None:
        """What is to be done about a file; None: nothing."""
        state = source.stat()
        name = str(source.relative_to(self._root))
        target = self._target / name
        if self.output.is_done(name, state):
            self.resumed += 1
            self._bar.advance(self._row, state.st_size)
            return None
        if not is_dicom(source):
            self.output.not_dicom(name, state)
            return None
        self._disk.make_durable_folder(target.parent)
        known = self.output.entries.get(name)
        work = Work(
            source=source,
            name=name,
            target=target,
            aside=target.with_name(f".{target.name}.part"),
            size=state.st_size,
            mtime_ns=state.st_mtime_ns,
            modality=modality_of(source),
            is_recorded=known is not None and known.form != NOT_DICOM and not known.volume,
        )
        work.aside.unlink(missing_ok=True)
        return work

    def _task(self, work: Work, form: Form) -> ConvertTask:
        self._unfinished.add(work.aside)
        return ConvertTask(
            source=work.source,
            target=None if form is Form.ORIGINAL else work.aside,
            is_for_volume=form is Form.ENHANCED,
        )

    def _done(self, work: Work, answer: Answer | Lost, not_collapsed: str = "") -> None:
        outcome = Outcome(reason=answer.reason) if isinstance(answer, Lost) else answer
        assert isinstance(outcome, Outcome)
        self.output.single(work, outcome, not_collapsed)
        self._unfinished.discard(work.aside)

    # -- series that rules want to be objects --------------------------------------------------

    def _convert_series(self, batch: list[Series]) -> None:
        """Frames first, each on its own, then the objects; what is part of none stays single-frame."""
        frames: list[_Frames] = [{} for _ in batch]

        def converted(of: tuple[int, Work], answer: Answer | Lost) -> None:
            number, work = of
            is_frame = isinstance(answer, Outcome) and answer.can_be_frame
            if is_frame and batch[number].forms[work] is Form.ENHANCED:
                assert isinstance(answer, Outcome)
                frames[number][work] = answer
            else:
                self._done(work, answer)

        self._batch.run(
            (
                ((number, work), self._task(work, form))
                for number, series in enumerate(batch)
                for work, form in series.forms.items()
            ),
            converted,
        )
        aside = self._target / ".dcmpress-volumes"
        self._unfinished.add(aside)
        self._batch.run(
            (
                (number, self._collapse_task(batch[number].uid, found, aside / str(number)))
                for number, found in enumerate(frames)
                if found
            ),
            lambda number, answer: self._collapsed(batch[number].uid, frames[number], answer),
        )
        self._disk.remove_tree(aside)
        self._unfinished.discard(aside)

    def _collapse_task(self, series: str, frames: _Frames, folder: Path) -> CollapseTask:
        slices = tuple(
            SourceSlice(
                name=work.name,
                path=work.source,
                encoded=work.aside if outcome.is_converted else work.source,
                transfer_syntax=outcome.transfer_syntax,
                dataset_sha256=outcome.dataset_sha256,
                pixel_sha256=outcome.pixel_sha256,
                encoded_sha256=outcome.result_sha256,
            )
            for work, outcome in frames.items()
        )
        return CollapseTask(slices=slices, folder=folder, only=self.output.volumes_of(series))

    def _collapsed(self, series: str, frames: _Frames, answer: Answer | Lost) -> None:
        if isinstance(answer, Lost):
            is_late = answer.reason == PassReason.DEADLINE
            lost = CollapseReason.DEADLINE if is_late else CollapseReason.WORKER_LOST
            refused = dict.fromkeys((work.name for work in frames), lost)
        else:
            assert isinstance(answer, Collapse)
            refused = {each.name: each.reason for each in answer.refused}
            for path, made in answer.volumes:
                self.output.volume(series, path, made, frames)
        for work, outcome in frames.items():
            if work.name in refused:
                self._done(work, outcome, refused[work.name])
            self._unfinished.discard(work.aside)

    def _advance(self, entry: Entry) -> None:
        if entry.form != NOT_DICOM:
            self._before += entry.source_bytes
            self._after += entry.result_bytes
        ratio = f"{self._before / self._after:.2f}:1" if self._after else ""
        self._bar.update(self._row, advance=entry.source_bytes, ratio=ratio)


def _size(path: Path) -> int:
    """In bytes, for the progress bar."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
