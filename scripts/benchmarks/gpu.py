"""GPUs: who encodes and who proves at what cost; series beside NVIDIA's tools, mammograms beside the CPU.

What runs out first on a node is the host's CPU, so MB a second and MB for each second of it stand side by
side. NVIDIA's tools work on datasets in memory and verify nothing; ours read files, prove every frame and
write files, in worker processes of this one that have started before.
"""

import contextlib
import importlib.util
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom

from scp.cli.demo_material import mr_series, radiograph, uid, write
from scp.config.schema import CodecSection, Htj2kSection
from scp.convert.codec_cpu import OpenJpegDecoder, OpenJphDecoder, OpenJphEncoder
from scp.convert.codec_gpu import GpuDecoder, GpuEncoder
from scp.convert.cuda import gpu_names
from scp.convert.gpu_backend import open_gpu
from scp.convert.gpu_port import Gpu, GpuError
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.convert.ports import FrameFormat, Frames
from scp.pipeline.series import SeriesConverter
from scripts.benchmarks import peers
from scripts.benchmarks.measure import cpu_seconds

SIZES: Final = ((234, 256, 64), (512, 512, 32), (3328, 4096, 4))
"""Rows, columns, and how many frames go to the device at once."""
PARAMETERS: Final = Htj2kSection()
MR, CT, MAMMOGRAMS, DIFFERENT = 38, 400, 40, 4
MR_ROUNDS, CT_ROUNDS = 15, 5
"""After a first one, which is cold; what takes milliseconds is measured more often."""
_RPCL = "1.2.840.10008.1.2.4.202"
_TOOLS = "nvidia.nvimgcodec.tools.dicom"


def run(folder: Path) -> None:
    """Print tables; without a GPU what the CPU does alone, without NVIDIA's tools ours alone."""
    cores = len(os.sched_getaffinity(0))
    names = gpu_names()
    print(f"{cores} cores, GPU: {', '.join(names) or 'none'}")
    try:
        print(gpu_library(installed_versions()))
    except GpuError as error:
        print(error)
        names = []
    place = _in_memory(folder)
    try:
        # First, so that no library of the table has left threads in this process.
        _series(place, has_gpu=bool(names))
        _codecs(has_gpu=bool(names))
        _throughput(place, cores, len(names))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _in_memory(folder: Path) -> Path:
    """Where files cost no disk, which is not what is measured; else the folder itself."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own name in it
    if not memory.is_dir() or shutil.disk_usage(memory).free < 6e9:
        return folder
    place = memory / f"dcmpress-bench-{os.getpid()}"
    place.mkdir()
    return place


# -- codecs ----------------------------------------------------------------------------------------


def _codecs(*, has_gpu: bool) -> None:
    """One thread of the host, and the GPU as a node's process has it; frames in memory."""
    gpu = open_gpu(0) if has_gpu else None
    for rows, columns, count in SIZES:
        print(f"{rows}x{columns}, 12 bits of 16:       MB/s  MB/host CPU s")
        _codecs_of(gpu, material(rows, columns, count), format_of(rows, columns))
    if gpu is not None:
        gpu.close()


def _codecs_of(gpu: Gpu | None, frames: Frames, form: FrameFormat) -> None:
    encoder, openjpeg, openjph = OpenJphEncoder(), OpenJpegDecoder(), OpenJphDecoder()
    some = frames[: max(1, len(frames) // 8)]
    codestreams = encoder.encode(frames, form, PARAMETERS)
    part = codestreams[: len(some)]
    _rate("OpenJPH encodes", some, lambda: encoder.encode(some, form, PARAMETERS))
    _rate("OpenJPEG decodes", some, lambda: openjpeg.decode(part, form))
    _rate("OpenJPH decodes", some, lambda: openjph.decode(part, form))
    if gpu is None:
        return
    of_gpu, decoder = GpuEncoder(gpu), GpuDecoder(gpu)

    def prove() -> None:
        assert not any(decoder.differs(codestreams, frames, form))

    _rate("GPU encodes", frames, lambda: of_gpu.encode(frames, form, PARAMETERS))
    _rate("GPU decodes and compares", frames, prove)


def _rate(what: str, frames: Frames, work: Callable[[], object]) -> None:
    work()
    cpu, started, done = time.process_time(), time.perf_counter(), 0
    while time.perf_counter() - started < 0.5:
        work()
        done += 1
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    megabytes = done * frames.nbytes / 1e6
    print(f"  {what:26} {megabytes / seconds:8.0f} {megabytes / cpu:8.0f}", flush=True)


# -- series, beside NVIDIA's tools -----------------------------------------------------------------


@dataclass
class _Times:
    """Milliseconds of each round, by what was done."""

    of: dict[str, list[float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def measure(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.of.setdefault(what, []).append(1000 * (time.perf_counter() - started))

    def median(self, what: str) -> float:
        """Without the first round, which is cold."""
        return statistics.median(self.of[what][1:])


def _series(place: Path, *, has_gpu: bool) -> None:
    (place / "mr").mkdir()
    works = {
        f"{MR} MR 234x256": (
            [write(one, place / "mr") for one in mr_series(MR, 234, 256)],
            MR_ROUNDS,
        ),
        f"{CT} CT 512x512": (peers.ct_files(place / "ct", CT), CT_ROUNDS),
    }
    with SeriesConverter() as converter:
        converter.wait_until_ready()
        for name, (files, rounds) in works.items():
            _one_series(name, files, rounds, place, converter, has_gpu=has_gpu)


def _one_series(
    name: str,
    files: list[Path],
    rounds: int,
    place: Path,
    converter: SeriesConverter,
    *,
    has_gpu: bool,
) -> None:
    times = _Times()
    for _ in range(1 + rounds):
        if has_gpu and importlib.util.find_spec(_TOOLS) is not None:
            _theirs(files, place / "theirs", times)
        out = place / "ours"
        with times.measure("transcode: ours, files to files, proved"):
            converted = converter.transcode(files, out / "single")
        assert all(each.target for each in converted)
        with times.measure("enhanced: ours, files to file, proved"):
            collapsed = converter.collapse(files, out / "enhanced")
        assert len(collapsed.volumes) == 1
        assert not collapsed.left_out
    print(f"{name}, median of {rounds} after a first round, ms:")
    for what in times.of:
        print(f"  {what:48} {times.median(what):8.1f}", flush=True)
    for kind, least in (("transcode", 2), ("enhanced", 1.5)):
        ours = next(what for what in times.of if what.startswith(f"{kind}: ours"))
        for what in times.of:
            if what.startswith(f"{kind}: NVIDIA"):
                ratio = times.median(what) / times.median(ours)
                print(f"  {what} / ours {ratio:.2f} (must be >= {least})")
    _check(files, out)
    shutil.rmtree(out)


def _theirs(files: list[Path], out: Path, times: _Times) -> None:
    """As its example calls them, on datasets that it may change; and from files to files."""
    tools: Any = importlib.import_module(f"{_TOOLS}.convert_htj2k")
    multi: Any = importlib.import_module(f"{_TOOLS}.convert_multiframe")
    out.mkdir(exist_ok=True)

    def enhanced(datasets: Sequence[pydicom.Dataset]) -> Any:
        (made,) = multi.convert_to_enhanced_dicom([list(datasets)], transfer_syntax_uid=_RPCL)
        return made

    # Their functions change what they are given, so each has datasets of its own.
    datasets = [pydicom.dcmread(file) for file in files]
    with times.measure("transcode: NVIDIA's function, in memory"):
        tools.transcode_datasets_to_htj2k(datasets)
    datasets = [pydicom.dcmread(file) for file in files]
    with times.measure("enhanced: NVIDIA's function, in memory"):
        enhanced(datasets)
    with times.measure("transcode: NVIDIA's, files to files"):
        for file, made in zip(
            files,
            tools.transcode_datasets_to_htj2k([pydicom.dcmread(file) for file in files]),
            strict=True,
        ):
            made.save_as(out / file.name)
    with times.measure("enhanced: NVIDIA's, files to file"):
        enhanced([pydicom.dcmread(file) for file in files]).save_as(out / "volume.dcm")
    shutil.rmtree(out)


def _check(files: list[Path], out: Path) -> None:
    """By pydicom's own decoder, once more."""
    for file in files[:: max(1, len(files) // 10)]:
        source = pydicom.dcmread(file)
        single = pydicom.dcmread(out / "single" / file.name)
        assert np.array_equal(single.pixel_array, source.pixel_array)
    volume = pydicom.dcmread(out / "enhanced" / "volume-1.dcm")
    assert int(volume.NumberOfFrames) == len(files)


# -- throughput ------------------------------------------------------------------------------------


def _throughput(place: Path, cores: int, gpus: int) -> None:
    """Of all workers, files in memory to files in memory; every frame is proved."""
    files = {
        f"{MAMMOGRAMS} of 3328x4096": _mammograms(place / "mammograms"),
        f"{CT} CT 512x512": sorted((place / "ct").iterdir()),
    }
    ways = [("cpu", cores)]
    if gpus:
        ways += [("auto", cores), ("auto", cores + cores // 4), ("gpu", cores)]
    alone: dict[str, tuple[float, float]] = {}
    for backend, workers in ways:
        codec = CodecSection.model_validate({"backend": backend, "workers": workers})
        with SeriesConverter(codec=codec) as converter:
            converter.wait_until_ready()
            for name, sources in files.items():
                seconds, cpu, proved = _convert(converter, sources, place / "out")
                megabytes = sum(file.stat().st_size for file in sources) / 1e6
                first = alone.setdefault(name, (seconds, cpu))
                print(
                    f"{name}, backend {backend:4}, {workers:2} workers: {seconds:6.2f} s "
                    f"{megabytes / seconds:6.0f} MB/s {megabytes / cpu:5.0f} MB/host CPU s; "
                    f"beside the CPU alone {first[0] / seconds:.2f} and {first[1] / cpu:.2f}; "
                    f"proved by {proved}",
                    flush=True,
                )


def _convert(
    converter: SeriesConverter, files: list[Path], out: Path
) -> tuple[float, float, dict[str, int]]:
    """Seconds and CPU seconds of the best of three rounds, and how many each library proved."""
    best, proved = (float("inf"), 0.0), dict[str, int]()
    for _ in range(3):
        before, started = cpu_seconds(os.getpid()), time.perf_counter()
        converted = converter.transcode(files, out)
        seconds, cpu = time.perf_counter() - started, cpu_seconds(os.getpid()) - before
        assert all(each.target and each.outcome.verified_by for each in converted)
        if seconds < best[0]:
            best, proved = (seconds, cpu), {}
            for each in converted:
                name = each.outcome.verified_by
                proved[name] = proved.get(name, 0) + 1
        shutil.rmtree(out)
    return *best, proved


def _mammograms(folder: Path) -> list[Path]:
    folder.mkdir()
    files = []
    for seed in range(DIFFERENT):
        dataset = radiograph(3328, 4096, seed)
        for copy in range(MAMMOGRAMS // DIFFERENT):
            dataset.SOPInstanceUID = uid(seed, "copy", copy)
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            files.append(write(dataset, folder))
    return files


def format_of(rows: int, columns: int) -> FrameFormat:
    """Of :func:`material`."""
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
