"""Receiving while the node is busy, and one instance that is larger than a receiver may be."""

import shutil
import statistics
import struct
import threading
import time
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID, MultiFrameGrayscaleWordSecondaryCaptureImageStorage

from scp.cli.demo_material import ct_series, radiograph, uid, write
from scripts.benchmarks import peers
from scripts.benchmarks.measure import process_of, settle

_SLICES, _DIFFERENT = 5000, 100
"""Instances of the series that converts, and how many different images it shows."""
_SENDERS, _COUNT = 8, 200
_AT_ONCE = {
    "name": "radiographs",
    "match": {"Modality": "DX"},
    "deliver": "at_once",
    "send_to": ["archive"],
}
_RADIOGRAPHS = 20
_FRAMES = 4096
"""Of 512 KiB each: 2 GiB."""
_MIB = 2**20


def busy(folder: Path) -> None:
    """Eight associations and radiographs, beside a series of 5,000 slices that converts."""
    _long_series(folder / "long")
    senders = [[folder / f"busy-{number}"] for number in range(_SENDERS)]
    for number, (place,) in enumerate(senders):
        peers.ct_files(place, _COUNT, seed=100 + number)
    radiographs = [
        write(radiograph(seed=number), _made(folder / "dx")) for number in range(_RADIOGRAPHS)
    ]
    here = folder / "node"
    waiting = {
        "name": "wait",
        "match": {"PatientID": "NOBODY", "instances": {"ge": 1}},
        "send_to": ["archive"],
    }
    with peers.node(here, rules=[_AT_ONCE, waiting], series={"quiet_seconds": 2}) as (
        port,
        _,
        archive,
    ):
        settle(folder, _MIB * 1024)
        idle = peers.storescus(port, senders)
        peers.wait_until_delivered(here, _SENDERS * _COUNT)
        shutil.rmtree(archive)
        peers.storescu(port, folder / "long")
        delays: list[float] = []
        prober = threading.Thread(target=_probe, args=(port, radiographs, archive, delays))
        prober.start()
        loaded = peers.storescus(port, [[place] for (place,) in _again(senders)])
        prober.join()
        state = peers.status(here)
        assert state is not None
        waits = state["pending"]
        peers.wait_until_delivered(here, 2 * _SENDERS * _COUNT + _SLICES + _RADIOGRAPHS)
    shutil.rmtree(here)
    p95 = statistics.quantiles(delays, n=20)[-1]
    print(
        f"{_SENDERS} associations x {_COUNT} CT while {_SLICES} slices convert ({waits} waited in the end):"
    )
    print(f"  idle {idle:.2f} s, busy {loaded:.2f} s")
    print(f"  rate of receiving, busy / idle  {idle / loaded:.2f} (must be >= 0.7)")
    print(
        f"  {_RADIOGRAPHS} radiographs at once, sender's start to file: median "
        f"{statistics.median(delays):.2f} s, p95 {p95:.2f} s (must be < 3)"
    )


def large(folder: Path) -> None:
    """One instance of 2 GiB."""
    file = _large_file(folder / "large.dcm")
    here = folder / "node"
    rule = {"name": "all", "match": {}, "convert": "original", "send_to": ["archive"]}
    with peers.node(here, rules=[rule], series={"quiet_seconds": 600}) as (port, process, _):
        receiver = process_of(process, "scp.pipeline.receiver")
        Path(f"/proc/{receiver}/clear_refs").write_text("5")  # the peak begins here
        before = _kib(receiver, "VmRSS")
        seconds = peers.storescu(port, file)
        grown = (_kib(receiver, "VmHWM") - before) / 1024
    shutil.rmtree(here)
    file.unlink()
    print(f"one instance of 2 GiB: {seconds:.1f} s, {2 * 1024 / seconds:.0f} MiB/s")
    print(f"  peak of the receiver's RSS above idle  {grown:.1f} MiB (must be < 64)")


def _probe(port: int, files: list[Path], archive: Path, delays: list[float]) -> None:
    """Send a radiograph again and again, and note how long it takes to its destination."""
    for file in files:
        started = time.perf_counter()
        peers.storescu(port, file)
        name = f"{dcmread(file, stop_before_pixels=True).SOPInstanceUID}.dcm"
        while not any(archive.rglob(name)):
            time.sleep(0.02)
        delays.append(time.perf_counter() - started)


def _long_series(folder: Path) -> None:
    """A long series quickly: a few images, each under many UIDs and at many places."""
    folder.mkdir()
    for number, dataset in enumerate(ct_series(_DIFFERENT, seed=99)):
        for copy in range(_SLICES // _DIFFERENT):
            _rename(dataset, "long", number, copy)
            dataset.InstanceNumber = copy * _DIFFERENT + number + 1
            write(dataset, folder)


def _again(senders: list[list[Path]]) -> list[list[Path]]:
    """The same images under new UIDs, so that they are no repeats."""
    for (place,) in senders:
        for file in list(place.iterdir()):
            dataset = dcmread(file)
            _rename(dataset, "again", dataset.SOPInstanceUID)
            file.unlink()
            write(dataset, place)
    return senders


def _rename(dataset: FileDataset, *parts: object) -> None:
    dataset.SOPInstanceUID = UID(uid(*parts))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


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


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _kib(process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
