"""Memory of all processes together while a long series passes through, and what is larger than memory."""

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import FileDataset
from pydicom.uid import UID, MultiFrameGrayscaleWordSecondaryCaptureImageStorage, RLELossless

from scp.cli.demo_material import ct_series, uid, write
from scripts.benchmarks import peers
from scripts.benchmarks.measure import PeakMemory, pss_bytes

COUNT = 2000
LONG, SIDE, AT_ONCE = 5000, 1024, 250
FRAMES = 4096
"""Of 2 MiB each: 8 GiB."""
_DIFFERENT = 8
"""Images that are made; the rest of a series shows them again at other places."""
_SECONDS = 1800.0
_UNLIMITED = {"max_frames": LONG, "max_bytes": "16GiB"}


def run(folder: Path) -> None:
    """The peak of the sum of PSS."""
    peers.ct_files(folder / "ct", COUNT)
    print(f"{COUNT} CT: sum of PSS over the process tree")
    for convert, most in (("htj2k", 700), ("enhanced", 600)):
        _measure(
            folder / convert,
            convert,
            most,
            lambda port: _send(port, folder / "ct"),
            COUNT,
        )
    shutil.rmtree(folder / "ct")


def run_large(folder: Path) -> None:
    """What takes minutes, and 30 GB of disk."""
    print(f"{LONG} images of {SIDE}x{SIDE}, 16 bits: sum of PSS over the process tree")
    for convert in ("htj2k", "enhanced"):
        _measure(
            folder / convert,
            convert,
            600,
            lambda port: _send_in_parts(port, folder / "part"),
            LONG,
            enhanced=_UNLIMITED,
            series={"quiet_seconds": 20},
        )
    whole = _multiframe(folder / "multiframe.dcm")
    print(f"one instance of {FRAMES} frames, 8 GiB, {whole.stat().st_size / 2**30:.1f} GiB in RLE")
    _measure(folder / "multiframe", "htj2k", 600, lambda port: _send(port, whole), 1)


def _measure(
    here: Path, convert: str, most: int, send: Callable[[int], None], count: int, **sections: Any
) -> None:
    rule = {"name": "all", "match": {}, "convert": convert, "send_to": ["archive"]}
    with peers.node(here, rules=[rule], **sections) as (port, process, archive):
        idle = pss_bytes(process)
        memory = PeakMemory(process)
        send(port)
        peers.wait_until_delivered(here, count, _SECONDS)
        peak = memory.stop()
        status = peers.status(here) or {}
        made = sorted(path.stat().st_size for path in archive.rglob("*.dcm"))
    shutil.rmtree(here)
    print(
        f"  {convert:8}  idle {idle / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB (must be <= {most}); "
        f"{status['converted']} of {count} converted, {len(made)} files of {sum(made) / 1e6:.0f} MB"
    )


def _send(port: int, what: Path) -> None:
    subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-m", "scp.cli.main", "send", "--to", f"DCMPRESS@127.0.0.1:{port}", what],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _send_in_parts(port: int, folder: Path) -> None:
    """The sender's files take room for a part of the series only."""
    images = list(ct_series(_DIFFERENT, SIDE, SIDE))
    for first in range(0, LONG, AT_ONCE):
        folder.mkdir()
        for number in range(first, first + AT_ONCE):
            write(_slice(images[number % _DIFFERENT], number), folder)
        _send(port, folder)
        shutil.rmtree(folder)


def _slice(image: FileDataset, number: int) -> FileDataset:
    image.SOPInstanceUID = uid(f"long {number}")
    image.file_meta.MediaStorageSOPInstanceUID = UID(image.SOPInstanceUID)
    image.InstanceNumber = str(number + 1)
    image.ImagePositionPatient = [-250, -250, number * 0.5]
    image.SliceLocation = str(number * 0.5)
    return image


def _multiframe(path: Path) -> Path:
    """One instance of 8 GiB; compressed, because native pixel data ends at 4 GiB."""
    images = list(ct_series(_DIFFERENT, SIDE, SIDE))
    frames = [_rle(image.PixelData) for image in images]
    lengths = [len(frames[number % _DIFFERENT]) for number in range(FRAMES)]
    offsets = np.cumsum([0, *(8 + length for length in lengths[:-1])])
    dataset = images[0]
    dataset.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.NumberOfFrames = FRAMES
    del dataset.PixelData
    dataset.ExtendedOffsetTable = struct.pack(f"<{FRAMES}Q", *map(int, offsets))
    dataset.ExtendedOffsetTableLengths = struct.pack(f"<{FRAMES}Q", *lengths)
    dataset.save_as(path, enforce_file_format=True)
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
        file.write(struct.pack("<HHL", 0xFFFE, 0xE000, 0))
        for number in range(FRAMES):
            file.write(struct.pack("<HHL", 0xFFFE, 0xE000, lengths[number]))
            file.write(frames[number % _DIFFERENT])
        file.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
    return path


def _rle(words: bytes) -> bytes:
    """Two segments, the high bytes first (PS3.5 Annex G)."""
    high, low = (bytes(imagecodecs.packbits_encode(words[byte::2])) for byte in (1, 0))
    high += bytes(len(high) % 2)
    low += bytes(len(low) % 2)
    return struct.pack("<16L", 2, 64, 64 + len(high), *[0] * 13) + high + low
