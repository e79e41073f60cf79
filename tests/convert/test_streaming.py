"""An instance larger than the memory: whatever is done with it, a few of its frames are there at once."""

import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from scp.convert.decode import decode_for_peer
from scp.convert.digests import digest
from scp.convert.enhanced.collapse import collapse
from scp.convert.enhanced.groups import partition
from scp.convert.enhanced.slices import SourceSlice
from tests.convert.enhanced.series import collapsed, ct, slices
from tests.convert.images import convert, image, save
from tests.convert.peak import peak_growth
from tests.convert.streams import rle

FRAMES, SIDE = 192, 1024
NATIVE_BYTES = FRAMES * SIDE * SIDE
"""Of noise, which no codec makes smaller: what is read, written and decoded is all as large."""
BUDGET = NATIVE_BYTES * 3 // 4
"""A batch of 16 MiB, what it becomes, the windows of mapped files and the codecs are 110 MB of it."""


def noise() -> Any:
    return np.random.default_rng(5).integers(0, 256, (1, SIDE, SIDE, 1)).astype("<u1")


def multiframe(path: Path, syntax: str) -> Path:
    """The same frame again and again, written without ever being in memory as a whole."""
    if syntax == DeflatedExplicitVRLittleEndian:
        return deflated(path, multiframe(path.with_suffix(".plain"), ExplicitVRLittleEndian))
    frame = noise()
    dataset = image(frame, transfer_syntax=syntax)
    dataset.NumberOfFrames = FRAMES
    words = dataset.PixelData
    del dataset.PixelData
    save(dataset, path)
    vrs = {str(ExplicitVRLittleEndian): b"OB", str(ExplicitVRBigEndian): b"OW"}
    vr = vrs.get(syntax, b"")
    with path.open("ab") as file:
        if syntax == RLELossless:
            (stream,) = rle(frame)
            file.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
            file.write(struct.pack("<HHL", 0xFFFE, 0xE000, 0))
            file.writelines([struct.pack("<HHL", 0xFFFE, 0xE000, len(stream)) + stream] * FRAMES)
            file.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
            return path
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        tag = struct.pack(order + "HH", 0x7FE0, 0x0010)
        length = struct.pack(order + "L", NATIVE_BYTES)
        file.write(tag + (vr + b"\0\0" if vr else b"") + length)
        file.writelines([words] * FRAMES)
    return path


def deflated(path: Path, plain: Path) -> Path:
    """Without making it smaller, which would take long."""
    save(image(noise(), transfer_syntax=DeflatedExplicitVRLittleEndian), path)
    meta = path.read_bytes()
    deflate = zlib.compressobj(0, zlib.DEFLATED, -zlib.MAX_WBITS)
    with plain.open("rb") as source, path.open("wb") as file:
        file.write(meta[: 144 + int.from_bytes(meta[140:144], "little")])
        source.seek(140)
        source.seek(144 + int.from_bytes(source.read(4), "little"))
        while piece := source.read(2**20):
            file.write(deflate.compress(piece))
        file.write(deflate.flush())
    plain.unlink()
    return path


def warm_up() -> None:
    """Loads what the work needs, which takes memory once."""


def converted(source: Path, target: Path) -> None:
    result = convert(source, target)
    assert result.frames == FRAMES
    assert result.verified


def decoded(source: Path, target: Path) -> None:
    decode_for_peer(source, target, ExplicitVRLittleEndian, decode_lossy=False)


def digested(source: Path, _: Path) -> None:
    assert digest(source).normal


@pytest.mark.parametrize(
    ("syntax", "work"),
    [
        (ExplicitVRLittleEndian, converted),
        (RLELossless, converted),
        (DeflatedExplicitVRLittleEndian, converted),
        (DeflatedExplicitVRLittleEndian, digested),
        (RLELossless, decoded),
        (ImplicitVRLittleEndian, decoded),
        (ExplicitVRBigEndian, decoded),
        (ExplicitVRBigEndian, digested),
        (RLELossless, digested),
    ],
)
def test_memory_does_not_grow_with_the_number_of_frames(
    tmp_path: Path, syntax: str, work: Callable[[Path, Path], None]
) -> None:
    source = multiframe(tmp_path / "source.dcm", syntax)

    grown = peak_growth(warm_up, work, source, tmp_path / "target.dcm")

    assert grown < BUDGET
    assert {path.name for path in tmp_path.iterdir()} <= {"source.dcm", "target.dcm"}


FRAMES_BYTES = 60 * 2**20


def collapsed_once() -> None:
    """highdicom reads its tables of codes when it first needs them."""
    with tempfile.TemporaryDirectory() as folder:
        collapsed(ct(2), Path(folder))


def collapsed_to(sources: list[SourceSlice], target: Path) -> None:
    (volume,) = partition(sources).volumes
    assert collapse(volume, target, restore_record="embedded").result_bytes > FRAMES_BYTES


def test_memory_does_not_grow_with_the_frames_of_a_collapsed_series(tmp_path: Path) -> None:
    series = ct(48, Rows=SIDE, Columns=SIDE, BitsAllocated=16, BitsStored=12, HighBit=11)
    words = np.random.default_rng(6).integers(0, 4096, (SIDE, SIDE)).astype("<u2").tobytes()
    for dataset in series:
        dataset.PixelData = words
    sources = slices(series, tmp_path)

    grown = peak_growth(collapsed_once, collapsed_to, sources, tmp_path / "enhanced.dcm")

    assert grown < FRAMES_BYTES // 2
