"""Compressing and proving on a GPU and the host's cores, every way round: throughput, and host CPU time.

Frames lie in memory, one an instance, and every one is proved by another library than the one that wrote
it. What runs out first on a node is the host's CPU, so MB a second and MB for each CPU second stand side
by side.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import numpy as np

from scp.config.schema import Htj2kSection
from scp.convert.codec_cpu import OpenJpegDecoder, OpenJphDecoder, OpenJphEncoder
from scp.convert.codec_gpu import GpuDecoder, GpuEncoder, Proof
from scp.convert.cuda import gpu_names
from scp.convert.gpu_fallback import GpuVerifier, GpuWithCpuFallback
from scp.convert.gpu_port import Gpu, GpuError
from scp.convert.gpu_thread import GpuLimits, GpuThread
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.convert.ports import FrameEncoder, FrameFormat, Frames

SIZES = ((234, 256, 256), (512, 512, 96), (3328, 4096, 4))
"""Rows, columns, and how many different frames a process has."""
SECONDS = 2.0
PARAMETERS: Final = Htj2kSection()
CPU_BYTES_A_SECOND: Final = 2.5e8
"""Of OpenJPEG on one core."""
_AHEAD: Final = 4
"""Frames of one process that wait for the judge."""
_BATCH: Final = 64

type Prove = Callable[[Frames], bool]
"""Compresses and proves some frames; whether they are right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Who compresses and who proves."""

    encoder: str
    judge: str
    relay: int = 0
    """One more process has the GPU, with so many host threads, and proves what the others wrote. 0: each
    process opens the GPU for itself."""
    or_cpu: bool = False
    """The CPU proves what the GPU is too busy for."""

    def __str__(self) -> str:
        where = f"one process, {self.relay} threads" if self.relay else "each process"
        gpu = where if "gpu" in (self.encoder, self.judge) else "-"
        judge = self.judge + (" or openjpeg" if self.or_cpu else "")
        return f"{self.encoder:8} {judge:16} {gpu:22}"

    @property
    def uses_gpu(self) -> bool:
        return "gpu" in (self.encoder, self.judge)


WAYS = (
    Way(encoder="openjph", judge="openjpeg"),
    Way(encoder="openjph", judge="gpu", relay=1),
    Way(encoder="openjph", judge="gpu", relay=2),
    Way(encoder="openjph", judge="gpu", relay=4),
    Way(encoder="openjph", judge="gpu"),
    Way(encoder="openjph", judge="gpu", or_cpu=True),
    Way(encoder="gpu", judge="openjph"),
    Way(encoder="gpu", judge="openjpeg"),
)


def run(folder: Path) -> None:
    """Print a table; without a GPU its first line alone."""
    cores = len(os.sched_getaffinity(0))
    names = gpu_names()
    print(
        f"{cores} processes, GPU: {', '.join(names) or 'none'}; {SECONDS:g} s each, 12 bits of 16"
    )
    try:
        print(gpu_library(installed_versions()))
    except GpuError as error:
        print(error)
        names = []
    for rows, columns, count in SIZES:
        print(f"{rows}x{columns}")
        print("  writes   proves           GPU in                 frames/s    MB/s  MB/CPU s")
        for way in WAYS:
            if names or not way.uses_gpu:
                frames, elapsed, cpu = _measure(way, cores, (rows, columns, count), folder)
                megabytes = frames * rows * columns * 2 / 1e6
                print(
                    f"  {way} {frames / elapsed:8.0f} {megabytes / elapsed:7.0f} "
                    f"{megabytes / cpu:9.0f}",
                    flush=True,
                )


def _measure(
    way: Way, processes: int, shape: tuple[int, int, int], folder: Path
) -> tuple[int, float, float]:
    """Frames, seconds of the slowest process, CPU seconds of all."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(processes + bool(way.relay))
    answers: Any = spawn.Queue()
    pipes = [spawn.Pipe() for _ in range(processes)] if way.relay else []
    workers = [
        spawn.Process(target=_encode_for_relay, args=(there, shape, folder, barrier, answers))
        for _, there in pipes
    ]
    if way.relay:
        ends = [here for here, _ in pipes]
        workers.append(spawn.Process(target=_judge, args=(way, ends, shape, barrier, answers)))
    else:
        workers = [
            spawn.Process(target=_alone, args=(way, shape, barrier, answers))
            for _ in range(processes)
        ]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    frames, elapsed, cpu = zip(*found, strict=True)
    return sum(frames), max(elapsed), sum(cpu)


class _Meter:
    """Time and CPU time since everyone was ready."""

    def __init__(self, barrier: Any) -> None:
        barrier.wait(60)
        self._cpu, self._started = _cpu_seconds(), time.perf_counter()

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._started

    def answer(self, frames: int) -> tuple[int, float, float]:
        return frames, self.elapsed, _cpu_seconds() - self._cpu


def _cpu_seconds() -> float:
    return time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)


def _alone(way: Way, shape: tuple[int, int, int], barrier: Any, answers: Any) -> None:
    frames, frame_format = material(*shape), format_of(*shape)
    gpu = _gpu_thread(1, or_cpu=way.or_cpu) if way.uses_gpu else None
    encoder: FrameEncoder = OpenJphEncoder()
    if gpu and way.encoder == "gpu":
        encoder = GpuWithCpuFallback(GpuEncoder(gpu), encoder)
    host = OpenJphDecoder() if way.judge == "openjph" else OpenJpegDecoder()
    device = GpuVerifier(GpuDecoder(gpu), host, gpu.distrust) if gpu else None
    done = 0

    def prove(some: Frames) -> None:
        codestreams = encoder.encode(some, frame_format, PARAMETERS)
        if device and way.judge == "gpu":
            assert not any(device.differs(codestreams, some, frame_format))
        else:
            assert np.array_equal(host.decode(codestreams, frame_format), some)

    for _ in range(3):
        prove(frames[:1])
    meter = _Meter(barrier)
    while meter.elapsed < SECONDS:
        prove(frames[done % shape[2] :][:1])
        done += 1
    answers.put(meter.answer(done))
    if gpu:
        assert not gpu.status.failures, gpu.status.last_error
        gpu.close()


def _encode_for_relay(
    judge: Connection, shape: tuple[int, int, int], folder: Path, barrier: Any, answers: Any
) -> None:
    """Codestreams go to the judge as files, as a node's do."""
    frames, frame_format, encoder = material(*shape), format_of(*shape), OpenJphEncoder()
    encoder.encode(frames[:1], frame_format, PARAMETERS)
    meter = _Meter(barrier)
    sent = waiting = 0
    while meter.elapsed < SECONDS:
        number = sent % shape[2]
        (codestream,) = encoder.encode(frames[number : number + 1], frame_format, PARAMETERS)
        path = folder / f"{os.getpid()}-{sent % (_AHEAD + 1)}"
        path.write_bytes(codestream)
        judge.send((str(path), number))
        sent, waiting = sent + 1, waiting + 1
        if waiting == _AHEAD:
            assert judge.recv()
            waiting -= 1
    for _ in range(waiting):
        assert judge.recv()
    judge.send(None)
    answers.put(meter.answer(0))


def _judge(
    way: Way, ends: list[Connection], shape: tuple[int, int, int], barrier: Any, answers: Any
) -> None:
    frames, frame_format = material(*shape), format_of(*shape)
    gpu = _gpu_thread(way.relay, or_cpu=False)
    decoder = GpuDecoder(gpu)
    codestreams = OpenJphEncoder().encode(frames[:2], frame_format, PARAMETERS)
    assert not any(decoder.differs(codestreams, frames[:2], frame_format))
    meter = _Meter(barrier)
    done = 0
    for batch in _batches(ends):
        proofs = [
            Proof(
                codestreams=[Path(path).read_bytes()],
                frames=frames[number : number + 1],
                frame_format=frame_format,
            )
            for _, path, number in batch
        ]
        for (end, _, _), answer in zip(batch, decoder.differs_each(proofs), strict=True):
            end.send(answer == [False])
        done += len(batch)
    answers.put(meter.answer(done))
    gpu.close()


def _batches(ends: list[Connection]) -> Iterator[list[tuple[Connection, str, int]]]:
    """What waits at the same time, until everyone has ended."""
    open_ends = list(ends)
    while open_ends:
        batch: list[tuple[Connection, str, int]] = []
        for end in wait(open_ends):
            assert isinstance(end, Connection)
            while len(batch) < _BATCH and end.poll():
                message = end.recv()
                if message is None:
                    open_ends.remove(end)
                    break
                batch.append((end, *message))
        if batch:
            yield batch


def _gpu_thread(threads: int, *, or_cpu: bool) -> GpuThread:
    def open_gpu() -> Gpu:
        from scp.convert.nvimagecodec import NvImageCodec

        return NvImageCodec(cpu_threads=threads)

    limits = GpuLimits(cpu_bytes_a_second=CPU_BYTES_A_SECOND if or_cpu else None)
    return GpuThread(gpu_library(installed_versions()), open_gpu, limits)


def format_of(rows: int, columns: int, count: int) -> FrameFormat:
    """Of :func:`material`."""
    del count
    return FrameFormat(
        rows=rows,
        columns=columns,
        samples=1,
        bits_allocated=16,
        bits_stored=12,
        is_signed=False,
        colour_transform=False,
    )


def material(rows: int, columns: int, count: int) -> Frames:
    """Smooth shapes under the noise of a scanner, 12 bits: under half its size when compressed."""
    source = np.random.default_rng(7)
    y, x = np.mgrid[0:rows, 0:columns]
    shapes = 2048 + 500 * np.sin(x / 37) + 500 * np.cos(y / 53)
    noise = source.normal(0, 12, (rows, columns))
    frames = np.empty((count, rows, columns, 1), np.uint16)
    for number in range(count):
        frames[number, :, :, 0] = shapes + np.roll(noise, 17 * number + 1, axis=1)
    return frames
