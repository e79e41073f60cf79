"""A thread that uses a GPU, for any number of callers: batches, a deadline, and a way back.

Frames of different series that wait at the same time go to the device together, large ones first, for which
a GPU is worth most. A call that fails or does not return costs its callers nothing but the time: the CPU is
to do it, and the GPU is left alone for a while and opened anew. A thread that hangs in a library cannot be
ended; it is abandoned, and the GPU stays out of use in this process until it comes back.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from scp.convert.gpu_port import EncodeSettings, Frame, Gpu, GpuError, GpuUnavailableError
from scp.elements import Buffer

logger = logging.getLogger(__name__)

_REFUSALS: Final = 3
"""Batches in a row of which not one frame was done: nvImageCodec tells a CUDA error in no other way."""
_FRAME_COST: Final = 2**20
"""Bytes that a GPU decodes and compares in the time that a frame without any costs it (H200)."""
_MEMORY: Final = 0.8
"""The weight of what was known before against a new measurement."""
_FORGETTING: Final = 0.98
"""How much faster the GPU is taken to be after each work sent away: so it is asked again."""
_FAILURES: Final = 3
"""In a row; after most CUDA errors only a new process helps."""

type _Kind = Literal["encode", "decode", "differing"]
_KINDS: Final[tuple[_Kind, ...]] = ("encode", "decode", "differing")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuLimits:
    """When a GPU is given up, and for how long."""

    deadline_seconds: float = 60.0
    """Of one batch; the first includes opening the device."""
    batch_bytes: int = 2**27
    """Native bytes of the frames, or bytes of the codestreams, that go to the device together."""
    retry_seconds: float = 30.0
    """After a failure; twice as long after each further one."""
    longest_retry_seconds: float = 900.0
    cpu_bytes_a_second: float | None = None
    """What a core of the host does instead. Work that it would have done before the GPU comes to it is sent
    away; small frames are, before large ones. None: all work waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuStatus:
    """What became of the work so far."""

    name: str
    """Library and version."""
    is_in_use: bool
    """Whether the next work goes to the GPU."""
    wants_new_process: bool
    """It hangs, or failed again and again: this process will not get it back."""
    frames: int
    """Done by the GPU."""
    refused: int
    """Given back undone by the library, one by one."""
    batches: int
    failures: int
    """Calls that raised, were wrong or never returned."""
    hangs: int
    sent_away: int
    """Calls that the CPU was to do because the GPU was busy."""
    last_error: str
    retry_seconds: float
    """Until it is tried again; 0 where it is in use or nobody knows."""


@dataclass(slots=True, eq=False)
class _Work:
    kind: _Kind
    settings: EncodeSettings | None
    codestreams: list[Buffer]
    frames: list[Frame]
    is_in_place: bool = False
    answers: list[Any] = field(default_factory=list)
    error: str = ""
    done: threading.Event = field(default_factory=threading.Event)
    """Its caller's alone: with one for all, every batch would wake every caller, and they wait for each
    other's turn longer than for the GPU."""

    @property
    def count(self) -> int:
        return len(self.frames) or len(self.codestreams)

    @property
    def size(self) -> int:
        return sum(frame.nbytes for frame in self.frames) or sum(map(len, self.codestreams))

    @property
    def cost(self) -> int:
        """In bytes of a large frame, of which each frame costs some more, however small."""
        return self.size + self.count * _FRAME_COST

    @property
    def frame_size(self) -> float:
        return self.size / self.count

    def goes_with(self, other: "_Work") -> bool:
        return (self.kind, self.settings) == (other.kind, other.settings)


class GpuThread:
    """A :class:`scp.convert.gpu_port.Gpu` that fails cleanly; all methods are thread-safe.

    Parameters
    ----------
    name
        Of the library, for job records.
    open_gpu
        Opens the device; called on the thread, at the first work and again after each failure.
    clock
        Seconds; decides when a failed GPU is tried again.
    """

    def __init__(
        self,
        name: str,
        open_gpu: Callable[[], Gpu],
        limits: GpuLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._open_gpu = open_gpu
        self._limits = limits or GpuLimits()
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: deque[_Work] = deque()
        self._running: list[_Work] = []
        self._deadline = 0.0
        self._thread: threading.Thread | None = None
        self._hanging: threading.Thread | None = None
        self._retry_at = clock()
        self._is_closed = False
        self._refusals = self._failures_in_a_row = 0
        self._frames = self._refused = self._batches = self._failures = self._hangs = 0
        self._last_error = ""
        self._sent_away = 0
        self._seconds_per_cost = dict.fromkeys(_KINDS, 0.0)

    @property
    def status(self) -> GpuStatus:
        with self._changed:
            return GpuStatus(
                name=self.name,
                is_in_use=not self._why_out_of_use(),
                wants_new_process=self._is_hanging() or self._failures_in_a_row >= _FAILURES,
                frames=self._frames,
                refused=self._refused,
                batches=self._batches,
                failures=self._failures,
                hangs=self._hangs,
                sent_away=self._sent_away,
                last_error=self._last_error,
                retry_seconds=max(0.0, self._retry_at - self._clock()),
            )

    @property
    def load(self) -> float:
        """Works in hand and waiting; infinite while it is out of use."""
        with self._changed:
            works = len(self._running) + len(self._queue)
            return float("inf") if self._why_out_of_use() else works

    def encode(self, frames: Sequence[Frame], settings: EncodeSettings) -> list[bytes | None]:
        """See :class:`scp.convert.gpu_port.Gpu`.

        Raises
        ------
        GpuUnavailableError
            Nothing was done, and the GPU may be out of use for a while.
        """
        return self._do(_Work("encode", settings, [], list(frames)))

    def encode_in_place(
        self, frames: Sequence[Frame], settings: EncodeSettings
    ) -> list[int | bytes | None]:
        """As ``encode``, but where a codestream is no longer than its frame it is written over that.

        Then its size is answered.
        """
        return self._do(_Work("encode", settings, [], list(frames), is_in_place=True))

    def decode(self, codestreams: Sequence[Buffer]) -> list[Frame | None]:
        """See :class:`scp.convert.gpu_port.Gpu`; raises as ``encode`` does."""
        return self._do(_Work("decode", None, list(codestreams), []))

    def differing(
        self, codestreams: Sequence[Buffer], frames: Sequence[Frame]
    ) -> list[bool | None]:
        """See :class:`scp.convert.gpu_port.Gpu`; raises as ``encode`` does."""
        return self._do(_Work("differing", None, list(codestreams), list(frames)))

    def distrust(self, why: str) -> None:
        """Take the GPU out of use as after a failure: what it said was wrong."""
        with self._changed:
            self._fail(why)

    def close(self) -> None:
        """Finish the batch in hand, refuse the rest, give the device back; leave a thread that hangs."""
        with self._changed:
            self._is_closed = True
            self._refuse(self._queue, "closed")
            self._changed.notify_all()
            thread = self._thread
        if thread:
            thread.join(self._limits.deadline_seconds)

    def _do(self, work: _Work) -> list[Any]:
        if not work.count:
            return []
        with self._changed:
            if why := self._why_out_of_use() or self._why_busy(work):
                raise GpuUnavailableError(why)
            self._queue.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gpu", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        while not work.done.wait(self._patience()):
            with self._changed:
                if self._running and self._patience() <= 0:
                    self._abandon()
        if work.error:
            raise GpuUnavailableError(work.error)
        return work.answers

    def _patience(self) -> float:
        """Seconds of real time until the batch in hand is overdue."""
        if not self._running:
            return self._limits.deadline_seconds
        return max(0.0, self._deadline - time.monotonic())

    def _why_out_of_use(self) -> str:
        if self._is_closed:
            return "closed"
        if self._is_hanging():
            return "the GPU hangs"
        if self._clock() < self._retry_at:
            return f"the GPU is left alone for a while: {self._last_error}"
        return ""

    def _why_busy(self, work: _Work) -> str:
        cpu = self._limits.cpu_bytes_a_second
        if cpu is None or work.kind == "decode":
            return ""
        until = sum(self._seconds(each) for each in (*self._running, *self._queue, work))
        if until <= work.size / cpu:
            return ""
        self._sent_away += 1
        self._seconds_per_cost[work.kind] *= _FORGETTING
        return "the GPU is busy"

    def _seconds(self, work: _Work) -> float:
        """What the GPU is expected to take for it; 0 while nothing is known."""
        return work.cost * self._seconds_per_cost[work.kind]

    def _is_hanging(self) -> bool:
        return self._hanging is not None and self._hanging.is_alive()

    def _abandon(self) -> None:
        self._hanging = self._thread
        self._hangs += 1
        self._fail(f"no answer after {self._limits.deadline_seconds:g} s")

    def _fail(self, why: str) -> None:
        """Give up what is in hand and queued; the thread, if it still can, closes the device and ends."""
        self._failures += 1
        self._failures_in_a_row += 1
        self._last_error = why
        self._refusals = 0
        longer = 2.0 ** min(self._failures_in_a_row - 1, 16)
        pause = min(self._limits.retry_seconds * longer, self._limits.longest_retry_seconds)
        self._retry_at = self._clock() + pause
        self._thread = None
        self._refuse(self._running, why)
        self._refuse(self._queue, why)
        self._changed.notify_all()
        logger.warning("gpu failed, not used for %.0f s: %s", pause, why)

    def _refuse(self, works: deque[_Work] | list[_Work], why: str) -> None:
        for work in works:
            work.error = why
            work.done.set()
        works.clear()

    def _run(self) -> None:
        gpu: Gpu | None = None
        try:
            while batch := self._next_batch():
                try:
                    gpu = gpu or self._open_gpu()
                    started = time.monotonic()
                    answers = _answers(gpu, batch)
                    seconds = time.monotonic() - started
                except Exception as error:
                    self._raised(error)
                    return
                if not self._finish(batch, answers, seconds):
                    return
        finally:
            if gpu:
                with contextlib.suppress(Exception):
                    gpu.close()

    def _next_batch(self) -> list[_Work]:
        """What goes to the device together; empty when the thread is to end."""
        with self._changed:
            while self._is_current() and not self._queue and not self._is_closed:
                self._changed.wait()
            if not self._is_current() or not self._queue:
                return []
            waiting = sorted(self._queue, key=lambda work: -work.frame_size)
            batch, size = waiting[:1], waiting[0].size
            for work in waiting[1:]:
                if work.goes_with(batch[0]) and size + work.size <= self._limits.batch_bytes:
                    size += work.size
                    batch.append(work)
            for work in batch:
                self._queue.remove(work)
            self._running = batch[:]
            self._deadline = time.monotonic() + self._limits.deadline_seconds
            return batch

    def _is_current(self) -> bool:
        """Whether the calling thread is not abandoned."""
        return self._thread is threading.current_thread()

    def _raised(self, error: Exception) -> None:
        with self._changed:
            if self._is_current():
                self._fail(f"{type(error).__name__}: {error}")

    def _finish(self, batch: list[_Work], answers: list[Any], seconds: float) -> bool:
        """Hand the answers out; whether the thread goes on."""
        with self._changed:
            if not self._is_current():
                return False
            done = sum(answer is not None for answer in answers)
            if self._batches:  # the first also loads what the library needs
                now = seconds / sum(work.cost for work in batch)
                kind = batch[0].kind
                before = self._seconds_per_cost[kind] or now
                self._seconds_per_cost[kind] = _MEMORY * before + (1 - _MEMORY) * now
            self._batches += 1
            self._frames += done
            self._refused += len(answers) - done
            self._refusals = 0 if done else self._refusals + 1
            if done:
                self._failures_in_a_row = 0
            start = 0
            for work in batch:
                work.answers = answers[start : start + work.count]
                work.done.set()
                start += work.count
            self._running = []
            if self._refusals == _REFUSALS:
                self._fail(f"{_REFUSALS} batches in a row came back undone")
                return False
            return True


def _answers(gpu: Gpu, batch: list[_Work]) -> list[Any]:
    first = batch[0]
    codestreams = [codestream for work in batch for codestream in work.codestreams]
    frames = [frame for work in batch for frame in work.frames]
    answers: list[Any]
    if first.kind == "encode" and first.settings is not None:
        # Taken from the GPU here, because its memory serves for the next batch too.
        places = [frame if work.is_in_place else None for work in batch for frame in work.frames]
        encoded = gpu.encode(frames, first.settings)
        answers = [_taken(each, place) for each, place in zip(encoded, places, strict=False)]
    elif first.kind == "decode":
        answers = list(gpu.decode(codestreams))
    else:
        answers = list(gpu.differing(codestreams, frames))
    if len(answers) != sum(work.count for work in batch):
        raise GpuError(f"{len(answers)} answers")
    return answers


def _taken(codestream: Buffer | None, place: Frame | None) -> int | bytes | None:
    if codestream is None:
        return None
    if place is None or len(codestream) > place.nbytes:
        return bytes(codestream)
    place.reshape(-1).view(np.uint8)[: len(codestream)] = np.frombuffer(codestream, np.uint8)
    return len(codestream)
