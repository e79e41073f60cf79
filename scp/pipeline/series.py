"""Conversion of series from Python, by the processes of a node: workers, and GPUs where there are some.

    with SeriesConverter() as converter:
        converter.transcode(sorted(Path("SER00001").iterdir()), Path("htj2k"))
        converter.collapse(sorted(Path("SER00001").iterdir()), Path("enhanced"))

Sources are never changed, and nothing is reported as converted that was not proved.
"""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from scp.config.schema import CodecSection, Config, EnhancedSection, Htj2kSection
from scp.config.schema import Outcome as Otherwise
from scp.convert.enhanced.collapsed import Collapsed
from scp.convert.enhanced.slices import SourceSlice
from scp.errors import NodeError, StorageFullError, UsageError
from scp.model import Form, PassReason
from scp.pipeline.batch import Batch
from scp.pipeline.tasks import Answer, Collapse, CollapseTask, ConvertTask, Lost, Outcome, Task

_READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What became of one instance."""

    source: Path
    target: Path | None
    """Its HTJ2K form, proved; None where the original has to do."""
    reason: str
    """A :class:`scp.model.PassReason` where there is no ``target``."""
    outcome: Outcome
    """Digests, transfer syntax, who encoded and who proved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapsedSeries:
    """What became of a series: every source is in one volume, or left out."""

    volumes: tuple[tuple[Path, Collapsed], ...]
    """Each file, and what it is."""
    left_out: dict[Path, str]
    """Sources that are in none, each with its reason: a PassReason or a CollapseReason."""


class SeriesConverter:
    """Worker processes that wait for series; close it, or use it as a context.

    They die with the thread that made them (prctl(2), PR_SET_PDEATHSIG).

    Parameters
    ----------
    codec, htj2k, enhanced
        Sections of a node's configuration.
    """

    def __init__(
        self,
        *,
        codec: CodecSection | None = None,
        htj2k: Htj2kSection | None = None,
        enhanced: EnhancedSection | None = None,
    ) -> None:
        # A worker that may be asked to collapse loads what it needs for that beforehand.
        default = Otherwise(convert=Form.ENHANCED, send_to=())
        self._batch = Batch(
            Config(
                codec=codec or CodecSection(),
                htj2k=htj2k or Htj2kSection(),
                enhanced=enhanced or EnhancedSection(),
                destinations={},
                default=default,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._batch.stop()

    def wait_until_ready(self, seconds: float = _READY_SECONDS) -> None:
        """Until every process has loaded its libraries and every GPU is open; for measurements.

        Raises
        ------
        NodeError
            They are not in time.
        """
        if not self._batch.wait_until_ready(seconds):
            raise NodeError(f"the workers are not ready after {seconds:g} s")

    def transcode(self, files: Iterable[Path], folder: Path) -> list[Converted]:
        """Write the HTJ2K form of each file into ``folder``, under its name; in the order of ``files``.

        Raises
        ------
        UsageError
            Two files have one name, or a result would overwrite its source.
        StorageFullError
            There is no room for the results.
        """
        sources = list(files)
        _check(sources, folder)
        folder.mkdir(parents=True, exist_ok=True)
        tasks = _tasks(sources, folder, is_for_volume=False)
        return [_converted(task, answer) for task, answer in self._done(tasks)]

    def collapse(self, files: Iterable[Path], folder: Path) -> CollapsedSeries:
        """Write the Legacy Converted Enhanced objects of a series into ``folder``: ``volume-1.dcm`` ...

        Raises
        ------
        UsageError, StorageFullError
            As ``transcode``.
        """
        sources = list(files)
        _check(sources, folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".frames-", dir=folder) as aside:
            tasks = _tasks(sources, Path(aside), is_for_volume=True)
            converted = [_converted(task, answer) for task, answer in self._done(tasks)]
            frames = [each for each in converted if each.outcome.can_be_frame]
            left_out = {
                each.source: each.reason for each in converted if not each.outcome.can_be_frame
            }
            slices = tuple(map(_slice_of, frames))
            if not slices:
                return CollapsedSeries(volumes=(), left_out=left_out)
            ((_, answer),) = self._done([CollapseTask(slices=slices, folder=folder)])
        if isinstance(answer, Lost):
            answers = {each.path: answer.reason for each in slices}
            return CollapsedSeries(volumes=(), left_out=left_out | answers)
        assert isinstance(answer, Collapse)
        refused = {Path(each.name): str(each.reason) for each in answer.refused}
        return CollapsedSeries(volumes=answer.volumes, left_out=left_out | refused)

    def _done[T: Task](self, tasks: Sequence[T]) -> list[tuple[T, Answer | Lost]]:
        answers: dict[int, Answer | Lost] = {}
        self._batch.run(enumerate(tasks), answers.__setitem__)
        return [(task, answers[number]) for number, task in enumerate(tasks)]


def _check(sources: Sequence[Path], folder: Path) -> None:
    names: set[str] = set()
    # Each folder once: to ask for every file took a good part of what small ones cost.
    inside = {
        parent for parent in {s.parent for s in sources} if parent.resolve() == folder.resolve()
    }
    for source in sources:
        if source.name in names:
            raise UsageError(f"two files are called {source.name}: give each a folder of its own")
        names.add(source.name)
        if source.parent in inside:
            raise UsageError(f"{source} lies in {folder}: results may not mix with sources")


def _tasks(sources: Iterable[Path], folder: Path, *, is_for_volume: bool) -> list[ConvertTask]:
    return [
        ConvertTask(source=each, target=folder / each.name, is_for_volume=is_for_volume)
        for each in sources
    ]


def _converted(task: ConvertTask, answer: Answer | Lost) -> Converted:
    outcome = answer
    if isinstance(answer, Lost):
        outcome = Outcome(reason=answer.reason, detail=answer.detail)
    assert isinstance(outcome, Outcome)
    if outcome.reason == PassReason.NO_ROOM:
        raise StorageFullError(f"no room for the result of {task.source}: {outcome.detail}")
    reason = PassReason.UNREADABLE if outcome.source_missing else outcome.reason
    return Converted(
        source=task.source,
        target=task.target if outcome.is_converted else None,
        reason=str(reason),
        outcome=outcome,
    )


def _slice_of(converted: Converted) -> SourceSlice:
    return SourceSlice(
        name=str(converted.source),
        path=converted.source,
        encoded=converted.target or converted.source,
        transfer_syntax=converted.outcome.transfer_syntax,
        dataset_sha256=converted.outcome.dataset_sha256,
        pixel_sha256=converted.outcome.pixel_sha256,
        encoded_sha256=converted.outcome.result_sha256,
    )
