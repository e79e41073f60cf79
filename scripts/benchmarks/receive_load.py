"""Receiving while the node is busy, and one instance that is larger than a receiver may be."""

import shutil
import statistics
import struct
import threading
import time
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage

from scp.cli.demo_material import ct_series, radiograph, write
from scripts.benchmarks import peers
from scripts.benchmarks.measure import process_of, settle

_SLICES = 5000
"""Instances of the series that converts."""
_SENDERS, _COUNT, _ROUNDS = 8, 200, 3
_RADIOGRAPHS, _DIFFERENT = 20, 2
_AT_ONCE = {
    "name": "radiographs",
    "match": {"Modality": "DX"},
    "deliver": "at_once",
    "send_to": ["archive"],
}
_FRAMES = 4096
"""Of 512 KiB each: 2 GiB."""
_MIB = 2**20


def busy(folder: Path) -> None:
    """Eight associations and radiographs, beside a series of 5,000 slices that converts."""
    long = peers.ct_copies(folder / "long", _SLICES, seed=99)
    senders = [
        peers.ct_copies(folder / f"busy-{number}", _COUNT, seed=100 + number)
        for number in range(_SENDERS)
    ]
    places = [[files[0].parent] for files in senders]
    radiographs = _radiographs(folder / "dx")
    here = folder / "node"
    rules = [
        _AT_ONCE,
        {
            "name": "long",
            "match": {"SeriesInstanceUID": str(dcmread(long[0]).SeriesInstanceUID)},
            "quiet_seconds": 2,
            "send_to": ["archive"],
        },
        # Cannot be decided while a series is open, so that nothing else is converted meanwhile.
        {"name": "wait", "match": {"instances": {"ge": 1}}, "send_to": ["archive"]},
    ]
    with peers.node(here, rules=rules, series={"quiet_seconds": 600}) as (port, _, archive):
        idle, senders = _receive(port, places, senders)
        peers.storescu(port, folder / "long")
        delays: list[float] = []
        prober = threading.Thread(target=_probe, args=(port, radiographs, archive, delays))
        prober.start()
        loaded, _ = _receive(port, places, senders)
        during, state = len(delays), peers.status(here)
        prober.join()
        assert state is not None
        queued = state["workers"]["queued"]
    shutil.rmtree(here)
    print(
        f"{_SENDERS} associations x {_COUNT} CT while {_SLICES} slices convert "
        f"({queued} still waited in the end), {_ROUNDS} times:"
    )
    print(f"  idle {idle:.2f} s, busy {loaded:.2f} s")
    print(f"  rate of receiving, busy / idle  {idle / loaded:.2f} (must be >= 0.7)")
    print(
        f"  {_RADIOGRAPHS} radiographs at once, {during} of them while the others send, sender's "
        f"start to file: median {statistics.median(delays):.2f} s, "
        f"p95 {statistics.quantiles(delays, n=20)[-1]:.2f} s (must be < 3)"
    )


def large(folder: Path) -> None:
    """One instance of 2 GiB."""
    file = _large_file(folder / "large.dcm")
    here = folder / "node"
    rule = {"name": "all", "match": {}, "convert": "original", "send_to": ["archive"]}
    with peers.node(here, rules=[rule], series={"quiet_seconds": 600}) as (port, process, _):
        receiver = process_of(process, "receiver")
        Path(f"/proc/{receiver}/clear_refs").write_text("5")  # the peak begins here
        before = _kib(receiver, "VmRSS")
        seconds = peers.storescu(port, file)
        grown = (_kib(receiver, "VmHWM") - before) / 1024
    shutil.rmtree(here)
    file.unlink()
    print(f"one instance of 2 GiB: {seconds:.1f} s, {2 * 1024 / seconds:.0f} MiB/s")
    print(f"  peak of the receiver's RSS above idle  {grown:.1f} MiB (must be < 64)")


def _receive(
    port: int, places: list[list[Path]], senders: list[list[Path]]
) -> tuple[float, list[list[Path]]]:
    """All senders at once, several times; the median, and the files under their next UIDs."""
    seconds = []
    for _ in range(_ROUNDS):
        settle(_MIB * 3072)  # For each: what converts meanwhile takes memory, too.
        seconds.append(peers.storescus(port, places))
        senders = [[_renamed(file) for file in files] for files in senders]
    return statistics.median(seconds), senders


def _renamed(file: Path) -> Path:
    """The same image as another instance, so that it is no repeat."""
    (renamed,) = peers.copies(file, [int(file.stem[-6:]) + _COUNT])
    return renamed


def _radiographs(folder: Path) -> list[Path]:
    folder.mkdir()
    return [
        copy
        for number in range(_DIFFERENT)
        for copy in peers.copies(
            write(radiograph(seed=number), folder), range(_RADIOGRAPHS // _DIFFERENT)
        )
    ]


def _probe(port: int, files: list[Path], archive: Path, delays: list[float]) -> None:
    """Send one radiograph after another, and note how long each takes to its destination."""
    for file in files:
        image = dcmread(file, stop_before_pixels=True)
        target = archive / image.StudyInstanceUID / image.SeriesInstanceUID / file.name
        started = time.perf_counter()
        peers.storescu(port, file)
        while not target.exists():
            time.sleep(0.02)
        delays.append(time.perf_counter() - started)


def _large_file(path: Path) -> Path:
    """2 GiB of a multi-frame image; the pixels are a hole in the file."""
    (dataset,) = ct_series(1)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    dataset.NumberOfFrames = _FRAMES
    del dataset.PixelData
    dataset.save_as(path, enforce_file_format=True)
    length = _FRAMES * dataset.Rows * dataset.Columns * 2
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, length))
        file.truncate(file.tell() + length)
    return path


def _kib(process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
