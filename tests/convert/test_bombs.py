"""Small files that ask for much: each is refused before it has it."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from scp.convert.digests import digest
from scp.convert.refusals import NotConvertibleError
from scp.convert.source import SourceLimits, open_source
from scp.model import PassReason
from tests.convert.images import NOISE, convert, image, ramp, save
from tests.convert.peak import peak_growth
from tests.convert.streams import compressed, jpeg_2000, jpeg_lossless
from tests.convert.test_streaming import warm_up

BUDGET = 96 * 2**20


def _rle_bomb() -> Dataset:
    """Each two bytes are 128 zeros: 8 MiB that become half a gigabyte."""
    words = np.zeros((1, 16, 16, 1), "<u1")
    segment = b"\x81\0" * 2**22
    return compressed(words, [struct.pack("<16L", 1, 64, *[0] * 14) + segment], RLELossless)


def _jpeg_2000_bomb() -> Dataset:
    stream = jpeg_2000(NOISE[:1])[0]
    lie = stream[:8] + struct.pack(">LL", 60_000, 60_000) + stream[16:]
    return compressed(NOISE[:1], [lie], JPEG2000Lossless)


def _jpeg_bomb() -> Dataset:
    stream = jpeg_lossless(NOISE[:1])[0]
    at = stream.index(b"\xff\xc3") + 5
    lie = stream[:at] + struct.pack(">HH", 65_500, 65_500) + stream[at + 4 :]
    return compressed(NOISE[:1], [lie], JPEGLosslessSV1)


def _huge_frame() -> Dataset:
    """The dataset and its frame agree about gigapixels."""
    dataset = _jpeg_bomb()
    dataset.Rows = dataset.Columns = 65_500
    return dataset


def _offset_table() -> Dataset:
    """An entry of the table costs a reader ten times what it costs the sender."""
    dataset = compressed(NOISE[:1], jpeg_2000(NOISE[:1]), JPEG2000Lossless)
    frame = dataset.PixelData[12:]
    table = bytes(2**25)
    dataset.PixelData = struct.pack("<LL", 0xE000FFFE, len(table)) + table + frame
    return dataset


BOMBS: dict[str, tuple[Callable[[], Dataset], PassReason]] = {
    "RLE": (_rle_bomb, PassReason.DECODER_FAILED),
    "JPEG 2000": (_jpeg_2000_bomb, PassReason.CODESTREAM_MISMATCH),
    "JPEG": (_jpeg_bomb, PassReason.CODESTREAM_MISMATCH),
    "a huge frame": (_huge_frame, PassReason.FRAME_TOO_LARGE),
    "an offset table": (_offset_table, PassReason.FRAME_COUNT),
}


def refused(source: Path, reason: PassReason) -> None:
    target = source.with_name("target.dcm")
    with pytest.raises(NotConvertibleError) as caught:
        convert(source, target)
    assert caught.value.reason == reason
    assert not target.exists()
    assert digest(source).dataset


@pytest.mark.parametrize("name", BOMBS)
def test_a_frame_that_would_become_gigabytes_never_does(tmp_path: Path, name: str) -> None:
    make, reason = BOMBS[name]
    source = save(make(), tmp_path / "source.dcm")

    assert peak_growth(warm_up, refused, source, reason) < BUDGET


def test_a_dataset_of_millions_of_elements_is_not_taken_apart(tmp_path: Path) -> None:
    source = save(image(ramp(), bits_stored=12), tmp_path / "source.dcm")
    with source.open("ab") as file:
        file.write(struct.pack("<HH2sH", 0x7FE1, 0x1001, b"LO", 0) * 2**20)

    assert peak_growth(warm_up, refused, source, PassReason.UNREADABLE) < BUDGET


def _inflating(source: Path, reason: PassReason) -> None:
    with pytest.raises(NotConvertibleError) as caught:
        open_source(source, SourceLimits(inflated_bytes=2**27), source.parent)
    assert caught.value.reason == reason


def test_what_deflated_to_almost_nothing_is_not_inflated_in_memory(tmp_path: Path) -> None:
    zeros = np.zeros((1, 16_384, 8192, 1), "<u1")
    source = save(
        image(zeros, transfer_syntax=DeflatedExplicitVRLittleEndian), tmp_path / "source.dcm"
    )
    assert source.stat().st_size < 2**20

    grown = peak_growth(warm_up, _inflating, source, PassReason.FRAME_TOO_LARGE)

    assert grown < BUDGET
    assert list(tmp_path.iterdir()) == [source]


def test_no_room_to_inflate_is_said(tmp_path: Path) -> None:
    source = save(
        image(ramp(), bits_stored=12, transfer_syntax=DeflatedExplicitVRLittleEndian),
        tmp_path / "source.dcm",
    )

    with pytest.raises(NotConvertibleError) as caught:
        open_source(source, scratch=tmp_path / "gone")

    assert caught.value.reason == PassReason.NO_ROOM
    assert digest(source, tmp_path / "gone").dataset == digest(source).dataset
