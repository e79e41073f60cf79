"""In doubt the original: a bit, a byte or a number that could mean something else, wherever it is."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from scp.choose.eligibility import ineligible
from scp.choose.image_header import read_image_header
from scp.convert.refusals import NotConvertibleError
from scp.model import PassReason
from tests.convert import lossless_jpeg
from tests.convert.images import OPENJPEG, Array, convert, decoded, image, ramp, save
from tests.convert.streams import compressed, jpeg_2000, jpeg_ls, rle

NATIVE = (
    str(ExplicitVRLittleEndian),
    str(ImplicitVRLittleEndian),
    str(ExplicitVRBigEndian),
    str(DeflatedExplicitVRLittleEndian),
)
COMPRESSED = (
    str(RLELossless), str(JPEGLosslessSV1), str(JPEGLSLossless), str(JPEG2000Lossless),
)  # fmt: skip


def refusal(dataset: Dataset, folder: Path) -> PassReason | None:
    """Why the dataset is not converted; None where it is."""
    source, target = save(dataset, folder / "source.dcm"), folder / "target.dcm"
    try:
        convert(source, target)
    except NotConvertibleError as error:
        assert not target.exists()
        return error.reason
    return None


def coded(words: Array, syntax: str) -> list[bytes]:
    """With all bits of the container, so that none is lost by the way."""
    if syntax == RLELossless:
        return rle(words)
    if syntax == JPEG2000Lossless:
        return jpeg_2000(words)
    unsigned = words.view(f"<u{words.dtype.itemsize}")
    if syntax == JPEGLSLossless:
        return jpeg_ls(unsigned)
    return [lossless_jpeg.encode(frame[..., 0], words.dtype.itemsize * 8, 1) for frame in unsigned]


@settings(max_examples=300)
@given(
    syntax=st.sampled_from((*NATIVE, *COMPRESSED)),
    allocated=st.sampled_from((8, 16)),
    signed=st.booleans(),
    data=st.data(),
)
def test_one_bit_beyond_bits_stored_is_found_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory,
    syntax: str,
    allocated: int,
    signed: bool,
    data: st.DataObject,
) -> None:
    bits = data.draw(st.integers(2, allocated - 1), "bits stored")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    words = np.random.default_rng(9).integers(low, high + 1, (2, 5, 8, 1))
    words = words.astype(f"<{'i' if signed else 'u'}{allocated // 8}")
    place = data.draw(st.integers(0, words.size - 1), "word")
    bit = data.draw(st.integers(bits, allocated - 1), "bit")
    words.reshape(-1).view(f"<u{allocated // 8}")[place] ^= 1 << bit
    stored = {"BitsStored": bits, "HighBit": bits - 1}
    dataset = (
        image(words, bits_stored=bits, transfer_syntax=syntax)
        if syntax in NATIVE
        else compressed(words, coded(words, syntax), syntax, **stored)
    )

    reason = refusal(dataset, tmp_path_factory.mktemp("junk"))

    assert reason == PassReason.UNUSED_BITS_SET


@given(stored=st.integers(0, 20), high=st.integers(0, 20), allocated=st.sampled_from((8, 16)))
def test_the_high_bit_is_the_one_below_bits_stored_or_the_original_is_kept(
    tmp_path_factory: pytest.TempPathFactory, stored: int, high: int, allocated: int
) -> None:
    folder = tmp_path_factory.mktemp("high bit")
    dataset = image(np.zeros((1, 3, 4, 1), f"<u{allocated // 8}"))
    dataset.BitsStored, dataset.HighBit = stored, high

    reason = refusal(dataset, folder)

    expected = None if high == stored - 1 else PassReason.HIGH_BIT
    if not 1 <= stored <= allocated:
        expected = PassReason.BITS_STORED
    assert reason == expected
    chosen = ineligible(read_image_header(folder / "source.dcm"))
    assert (chosen.reason if chosen else None) == expected


@settings(max_examples=200)
@given(
    syntax=st.sampled_from(NATIVE),
    shape=st.sampled_from(((1, 5, 7, 1), (3, 5, 7, 1), (2, 3, 3, 3))),
    kind=st.sampled_from(("<u1", "<u2")),
    surplus=st.integers(-40, 80),
    filled=st.booleans(),
)
def test_there_are_as_many_bytes_as_the_header_says_or_the_original_is_kept(
    tmp_path_factory: pytest.TempPathFactory,
    syntax: str, shape: tuple[int, int, int, int], kind: str, surplus: int, filled: bool,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("length")
    words = (ramp(shape[1], shape[2], shape[0], shape[3]) % 251).astype(kind)
    dataset = image(words, transfer_syntax=syntax)
    frame = words.nbytes // shape[0]
    length = words.nbytes + surplus
    length += length % 2
    surplus = length - words.nbytes
    pad = b"\7" if filled else b"\0"
    dataset.PixelData = dataset.PixelData[: words.nbytes].ljust(length, pad)[:length]
    dataset["PixelData"].VR = "OW" if kind == "<u2" else "OB"

    reason = refusal(dataset, folder)

    if surplus < 0:
        assert reason == PassReason.PIXEL_DATA_SHORT
    elif surplus >= frame or (surplus > 1 and filled):
        assert reason == PassReason.FRAME_COUNT
    else:
        assert reason is None
        assert np.array_equal(decoded(folder / "target.dcm", OPENJPEG), words)


@pytest.mark.parametrize(
    "frames", ["0", "-1", "1.5", "1e3", "2\\3", "three", "99999999999999999999", "2", "4", "1"]
)
@pytest.mark.parametrize("syntax", [*NATIVE, *COMPRESSED])
def test_a_number_of_frames_that_is_none_or_another_keeps_the_original(
    tmp_path: Path, syntax: str, frames: str
) -> None:
    words = ramp(6, 10, 3)
    dataset = (
        image(words, transfer_syntax=syntax)
        if syntax in NATIVE
        else compressed(words, coded(words, syntax), syntax)
    )
    dataset["NumberOfFrames"]._value = frames  # pydicom would not take it otherwise

    reason = refusal(dataset, tmp_path)

    is_number = frames in ("1", "2", "4")
    too_many = PassReason.PIXEL_DATA_SHORT if syntax in NATIVE else PassReason.FRAME_COUNT
    # Three fragments may well be one frame, whose decoder then finds that they are not.
    assert reason in {
        "4": (too_many,),
        "99999999999999999999": (too_many,),
        "1": (PassReason.FRAME_COUNT, PassReason.DECODER_FAILED, PassReason.CODESTREAM_MISMATCH),
    }.get(frames, (PassReason.FRAME_COUNT,))
    chosen = ineligible(read_image_header(tmp_path / "source.dcm"))
    assert (chosen is None) == is_number
