"""One thread has the GPU; many callers share it, and none of them waits for what will not come."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from scp.config.schema import Htj2kSection
from scp.convert.gpu_port import EncodeSettings, Gpu, GpuUnavailableError
from scp.convert.gpu_thread import GpuLimits, GpuThread
from tests.accept.stores import eventually
from tests.convert.gpus import (
    FaultyGpu,
    Hang,
    SoftwareGpu,
    all_missing,
    format_of,
    missing,
    raising,
    right,
    short,
)
from tests.convert.images import ENCODER, NOISE, Array

FORMAT = format_of(NOISE, 12)
CODESTREAMS = ENCODER.encode(NOISE, FORMAT, Htj2kSection())
FRAMES = list(NOISE)
SETTINGS = EncodeSettings(
    precision=12, decompositions=5, code_block=64, progression="RPCL", colour_transform=False
)
CUDA_ERROR = RuntimeError("CUDA error 700")


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """GPU threads that are closed at the end of the test."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.opened: list[Gpu] = []
        self._threads: list[GpuThread] = []
        self._hangs: list[Hang] = []

    def hang(self) -> Hang:
        self._hangs.append(Hang())
        return self._hangs[-1]

    def thread(self, *gpus: SoftwareGpu | Exception, deadline: float = 30.0) -> GpuThread:
        """Each time it is opened, the next GPU."""
        remaining = iter(gpus)

        def open_gpu() -> Gpu:
            gpu = next(remaining)
            if isinstance(gpu, Exception):
                raise gpu
            self.opened.append(gpu)
            return gpu

        limits = GpuLimits(deadline_seconds=deadline, retry_seconds=30.0, longest_retry_seconds=100)
        self._threads.append(GpuThread("software gpu 1.0", open_gpu, limits, self.clock))
        return self._threads[-1]

    def close(self) -> None:
        for hang in self._hangs:
            hang.released.set()
        for thread in self._threads:
            thread.close()
        assert eventually(lambda: not any(t.name == "gpu" for t in threading.enumerate()))


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_answers_are_those_of_the_gpu(bench: Bench) -> None:
    thread = bench.thread(SoftwareGpu())

    encoded = thread.encode(FRAMES, SETTINGS)
    decoded = thread.decode(CODESTREAMS)
    changed: Array = NOISE.copy()
    changed[2, 0, 0] ^= 1

    assert encoded == SoftwareGpu().encode(FRAMES, SETTINGS)
    assert np.array_equal(np.array(decoded), NOISE)
    assert thread.differing(CODESTREAMS, list(changed)) == [False, False, True]
    assert thread.status.frames == 9


def test_nothing_is_opened_before_there_is_work(bench: Bench) -> None:
    thread = bench.thread(SoftwareGpu())

    assert thread.encode([], SETTINGS) == []
    assert bench.opened == []
    assert thread.status.is_in_use


def test_what_waits_at_the_same_time_goes_to_the_device_together(bench: Bench) -> None:
    busy = bench.hang()
    gpu = FaultyGpu(busy)
    thread = bench.thread(gpu)
    singles = [(NOISE[:1] // (number + 1), SETTINGS) for number in range(5)]
    others = [(NOISE[:2], replace(SETTINGS, precision=16)), *singles]

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(thread.encode, FRAMES, SETTINGS)
        assert busy.entered.wait(10)
        waiting = []
        for number, (frames, settings) in enumerate(others, 1):
            waiting.append(pool.submit(thread.encode, list(frames), settings))
            assert eventually(lambda queued=number: len(thread._queue) == queued)  # type: ignore[misc]
        busy.released.set()
        answers = [each.result(10) for each in waiting]

    assert gpu.batches == [3, 2, 5], "equal settings share a call, in the order of arrival"
    alone = SoftwareGpu()
    assert first.result() == alone.encode(FRAMES, SETTINGS)
    assert answers == [alone.encode(list(frames), settings) for frames, settings in others]


def test_large_frames_go_first_and_small_ones_with_them(bench: Bench) -> None:
    busy = bench.hang()
    gpu = FaultyGpu(busy)
    thread = bench.thread(gpu)
    large: Array = np.concatenate([NOISE[:1]] * 4, axis=1)
    works = [(NOISE[:1], SETTINGS), (NOISE[:2], replace(SETTINGS, precision=16)), (large, SETTINGS)]

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(thread.encode, FRAMES, SETTINGS)
        assert busy.entered.wait(10)
        waiting = []
        for number, (frames, settings) in enumerate(works, 1):
            waiting.append(pool.submit(thread.encode, list(frames), settings))
            assert eventually(lambda queued=number: len(thread._queue) == queued)  # type: ignore[misc]
        busy.released.set()
        answers = [each.result(10) for each in (first, *waiting)]

    assert gpu.batches == [3, 2, 2], "the large one, the small one of its kind, then the others"
    assert [len(answer) for answer in answers] == [3, 1, 2, 1]


def test_a_frame_that_failed_alone_leaves_the_gpu_in_use(bench: Bench) -> None:
    thread = bench.thread(FaultyGpu(missing(0)))

    answers = thread.encode(FRAMES, SETTINGS)

    assert [each is None for each in answers] == [True, False, False]
    assert thread.status.is_in_use
    assert (thread.status.frames, thread.status.refused) == (2, 1)


@pytest.mark.parametrize(
    "gpu",
    [
        FaultyGpu(raising(CUDA_ERROR)),
        FaultyGpu(raising(MemoryError("no memory"))),
        FaultyGpu(short),
    ],
    ids=["cuda error", "out of memory", "too few answers"],
)
def test_a_gpu_that_fails_is_left_alone_and_opened_again_later(
    bench: Bench, gpu: FaultyGpu
) -> None:
    thread = bench.thread(gpu, SoftwareGpu())

    with pytest.raises(GpuUnavailableError):
        thread.encode(FRAMES, SETTINGS)
    with pytest.raises(GpuUnavailableError, match="left alone"):
        thread.encode(FRAMES, SETTINGS)

    assert eventually(lambda: gpu.is_closed)
    before = thread.status
    assert (before.is_in_use, before.failures) == (False, 1)
    assert before.last_error
    bench.clock.now += 31
    assert thread.status.is_in_use
    assert None not in thread.encode(FRAMES, SETTINGS)
    assert len(bench.opened) == 2


def test_each_failure_in_a_row_doubles_the_pause_up_to_a_limit(bench: Bench) -> None:
    no_device = RuntimeError("no device")
    thread = bench.thread(*[no_device] * 4, SoftwareGpu())

    for pause in (30, 60, 100, 100):
        with pytest.raises(GpuUnavailableError, match="no device"):
            thread.encode(FRAMES, SETTINGS)
        bench.clock.now += pause - 1
        assert not thread.status.is_in_use
        bench.clock.now += 1
        assert thread.status.is_in_use

    assert thread.status.wants_new_process
    thread.encode(FRAMES, SETTINGS)
    assert not thread.status.wants_new_process


def test_batches_that_come_back_undone_in_a_row_are_a_failure(bench: Bench) -> None:
    thread = bench.thread(FaultyGpu(all_missing, right, all_missing, all_missing, all_missing))

    for _ in range(5):
        thread.encode(FRAMES, SETTINGS)

    assert (thread.status.is_in_use, thread.status.refused) == (False, 12)


def test_callers_behind_a_failure_are_sent_away_at_once(bench: Bench) -> None:
    busy = bench.hang()

    def then_fail(answers: list[object]) -> list[object]:
        busy(answers)
        raise CUDA_ERROR

    thread = bench.thread(FaultyGpu(then_fail))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(thread.encode, FRAMES, SETTINGS)
        assert busy.entered.wait(10)
        second = pool.submit(thread.decode, CODESTREAMS)
        assert eventually(lambda: len(thread._queue) == 1)
        busy.released.set()

        for each in (first, second):
            with pytest.raises(GpuUnavailableError):
                each.result(10)


def test_a_gpu_that_hangs_is_abandoned_until_it_comes_back(bench: Bench) -> None:
    hang = bench.hang()
    hanging = FaultyGpu(hang)
    thread = bench.thread(hanging, SoftwareGpu(), deadline=0.1)

    with pytest.raises(GpuUnavailableError, match="no answer"):
        thread.encode(FRAMES, SETTINGS)

    assert (thread.status.hangs, thread.status.wants_new_process) == (1, True)
    bench.clock.now += 1000
    with pytest.raises(GpuUnavailableError, match="hangs"):
        thread.encode(FRAMES, SETTINGS)
    hang.released.set()
    assert eventually(lambda: thread.status.is_in_use)
    assert hanging.is_closed
    assert None not in thread.encode(FRAMES, SETTINGS)


def test_opening_that_hangs_is_abandoned_too(bench: Bench) -> None:
    released = threading.Event()

    def open_gpu() -> Gpu:
        released.wait()
        return SoftwareGpu()

    thread = GpuThread("hanging", open_gpu, GpuLimits(deadline_seconds=0.1))

    with pytest.raises(GpuUnavailableError, match="no answer"):
        thread.encode(FRAMES, SETTINGS)

    released.set()
    thread.close()


def test_a_gpu_that_is_distrusted_is_left_alone(bench: Bench) -> None:
    thread = bench.thread(SoftwareGpu())
    thread.encode(FRAMES, SETTINGS)

    thread.distrust("it lied")

    assert not thread.status.is_in_use
    assert thread.status.last_error == "it lied"


def test_closing_gives_the_device_back_and_refuses_what_comes_later(bench: Bench) -> None:
    gpu = SoftwareGpu()
    thread = bench.thread(gpu)
    thread.encode(FRAMES, SETTINGS)

    thread.close()

    assert gpu.is_closed
    with pytest.raises(GpuUnavailableError, match="closed"):
        thread.encode(FRAMES, SETTINGS)


def test_batches_keep_to_their_size(bench: Bench) -> None:
    busy = bench.hang()
    gpu = FaultyGpu(busy)
    limits = GpuLimits(batch_bytes=2 * NOISE[0].nbytes)
    thread = GpuThread(gpu.name, lambda: gpu, limits)
    submit: Callable[[], object] = lambda: thread.encode(FRAMES[:1], SETTINGS)  # noqa: E731

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(submit)]
        assert busy.entered.wait(10)
        running += [pool.submit(submit) for _ in range(5)]
        assert eventually(lambda: len(thread._queue) == 5)
        busy.released.set()
    thread.close()

    assert gpu.batches == [1, 2, 2, 1]


def test_work_that_the_cpu_does_sooner_is_sent_away_and_no_failure() -> None:
    gpu = SoftwareGpu()
    thread = GpuThread(gpu.name, lambda: gpu, GpuLimits(cpu_bytes_a_second=1e12))
    answered = []

    for _ in range(20):
        try:
            answered.append(len(thread.encode(FRAMES, SETTINGS)))
        except GpuUnavailableError:
            answered.append(0)

    assert answered[:2] == [3, 3], "nothing is known of its speed at first"
    assert answered[2] == 0
    assert thread.status.is_in_use
    assert thread.status.sent_away == answered.count(0)
    thread.decode(CODESTREAMS)
    thread.close()


def test_a_gpu_that_was_too_busy_is_asked_again() -> None:
    """With each work sent away it is taken to be a little faster."""
    gpu = SoftwareGpu()
    thread = GpuThread(gpu.name, lambda: gpu, GpuLimits(cpu_bytes_a_second=1e10))
    for _ in range(2):
        thread.encode(FRAMES, SETTINGS)

    def is_asked() -> bool:
        with contextlib.suppress(GpuUnavailableError):
            thread.encode(FRAMES, SETTINGS)
        return len(gpu.batches) > 2

    assert eventually(is_asked)
    assert thread.status.sent_away > 0
    thread.close()


def test_a_gpu_that_is_faster_than_the_cpu_gets_all_of_it() -> None:
    gpu = SoftwareGpu()
    thread = GpuThread(gpu.name, lambda: gpu, GpuLimits(cpu_bytes_a_second=1.0))

    for _ in range(20):
        thread.encode(FRAMES, SETTINGS)

    assert thread.status.sent_away == 0
    thread.close()
