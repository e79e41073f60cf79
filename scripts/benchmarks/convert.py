"""Conversion alone, files to files, beside what its codecs cost and beside the converters that many use."""

import itertools
import multiprocessing
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pydicom

from scp.config.schema import Htj2kSection
from scp.convert.codec_cpu import OpenJpegDecoder, OpenJphEncoder
from scp.convert.source import open_source
from scp.convert.transcode import transcode
from scp.pipeline.processes import keep_freed_memory
from scripts.benchmarks import peers
from scripts.benchmarks.measure import settle

COUNT, ROUNDS, PROCESSES = 400, 3, 2


def run(folder: Path) -> None:
    """Everyone with two processes; ours verifies every frame, the peers verify nothing."""
    files = peers.ct_files(folder / "ct", COUNT)
    total = sum(file.stat().st_size for file in files)
    times: dict[str, list[float]] = {}
    spawn = multiprocessing.get_context("spawn")
    # Each as a node's worker is.
    with ProcessPoolExecutor(PROCESSES, spawn, initializer=keep_freed_memory) as pool:
        shares = [files[number::PROCESSES] for number in range(PROCESSES)]
        # Their libraries are loaded, as those of a node's workers are.
        list(pool.map(_transcode, [share[:4] for share in shares], _folders(folder, "warm")))
        works: dict[str, Callable[[str], float]] = {
            "codecs alone": lambda name: max(pool.map(_codecs, shares)),
            "dcmpress": lambda name: _timed(
                lambda: list(pool.map(_transcode, shares, _folders(folder, name)))
            ),
            "gdcmconv --j2k": lambda name: _each(files, folder / name, "gdcmconv", "--j2k"),
            "dcmcjpls": lambda name: _each(files, folder / name, "dcmcjpls"),
        }
        for number, (what, work) in itertools.product(range(ROUNDS), works.items()):
            settle(2 * total)
            times.setdefault(what, []).append(work(f"out-{number}"))
            sizes = _bytes(folder / f"out-{number}")
            shutil.rmtree(folder / f"out-{number}", ignore_errors=True)
            print(f"  round {number + 1}: {what} {times[what][-1]:.2f} s, {sizes / 1e6:.0f} MB")
    medians = {what: statistics.median(found) for what, found in times.items()}
    ours = medians["dcmpress"]
    print(f"{COUNT} CT ({total / 1e6:.0f} MB), {PROCESSES} processes, median of {ROUNDS}:")
    print(f"  codecs alone     {medians['codecs alone']:.2f} s: HTJ2K, and OpenJPEG as the proof")
    print(f"  dcmpress         {ours:.2f} s: read, HTJ2K, proof, write")
    print(f"  codecs/dcmpress  {medians['codecs alone'] / ours:.2f} (must be >= 0.6)")
    for what, least in (("gdcmconv --j2k", 5), ("dcmcjpls", 3)):
        print(
            f"  {what:15}  {medians[what]:.2f} s, {medians[what] / ours:.1f}x (must be >= {least})"
        )


def _folders(folder: Path, name: str) -> list[Path]:
    found = [folder / name / str(number) for number in range(PROCESSES)]
    for each in found:
        each.mkdir(parents=True)
    return found


def _transcode(files: list[Path], target: Path) -> None:
    encoder, verifier = OpenJphEncoder(), OpenJpegDecoder()
    for file in files:
        transcode(file, target / file.name, Htj2kSection(), encoder, verifier)


def _codecs(files: list[Path]) -> float:
    """Seconds to encode and decode what lies in memory."""
    encoder, verifier = OpenJphEncoder(), OpenJpegDecoder()
    loaded = []
    for file in files:
        image = open_source(file, None)
        loaded += [(batch, image.frame_format) for batch in image.batches()]
    started = time.perf_counter()
    for batch, frame_format in loaded:
        verifier.decode(encoder.encode(batch, frame_format, Htj2kSection()), frame_format)
    return time.perf_counter() - started


def _each(files: list[Path], target: Path, *command: str) -> float:
    """One process a file, which is how these programs are used, so many at a time."""
    target.mkdir(parents=True)
    program = peers.program(command[0])
    lines = "\n".join(f"{file}\n{target / file.name}" for file in files)
    seconds = _timed(
        lambda: subprocess.run(  # noqa: S603 - a benchmark's peer
            ["/usr/bin/xargs", "-P", str(PROCESSES), "-n", "2", program, *command[1:]],
            input=lines.encode(),
            check=True,
        )
    )
    compressed = pydicom.dcmread(target / files[0].name, stop_before_pixels=True)
    assert compressed.file_meta.TransferSyntaxUID.is_compressed
    return seconds


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
