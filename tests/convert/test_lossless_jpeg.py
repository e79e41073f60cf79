"""JPEG Lossless of every precision and predictor, as the standard has them and few encoders write them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from scp.convert.decoders import decode_frame
from scp.convert.refusals import NotConvertibleError
from scp.convert.source import SourceImage, open_source
from scp.model import PassReason
from tests.convert.images import OPENJPEG, OPENJPH, convert, decoded, save, shipped
from tests.convert.lossless_jpeg import encode
from tests.convert.streams import compressed

PREDICTORS = range(1, 8)


@pytest.mark.parametrize("precision", range(2, 17))
def test_every_predictor_of_every_precision_is_converted(tmp_path: Path, precision: int) -> None:
    kind = "<u1" if precision <= 8 else "<u2"
    for predictor in PREDICTORS:
        noise = np.random.default_rng(precision).integers(0, 1 << precision, (2, 9, 11, 1))
        noise[1, :4] = (1 << precision) - 1
        words = noise.astype(kind)
        streams = [encode(frame[..., 0], precision, predictor) for frame in words]
        syntax = JPEGLosslessSV1 if predictor == 1 else JPEGLossless
        source = compressed(words, streams, syntax, BitsStored=precision, HighBit=precision - 1)
        target = tmp_path / f"{predictor}.dcm"

        convert(save(source, tmp_path / "source.dcm"), target)

        assert np.array_equal(decoded(target, OPENJPEG), words), predictor
        assert np.array_equal(decoded(target, OPENJPH), words), predictor


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_signed_words_come_back_signed(tmp_path: Path, predictor: int) -> None:
    signed = np.random.default_rng(3).integers(-(2**15), 2**15, (1, 9, 11, 1)).astype("<i2")
    streams = [encode(signed.view("<u2")[0, ..., 0], 16, predictor)]
    source = save(compressed(signed, streams, JPEGLossless), tmp_path / "source.dcm")
    target = tmp_path / "target.dcm"

    convert(source, target)

    assert np.array_equal(decoded(target, OPENJPEG), signed)


COLOUR = open_source(shipped("SC_rgb_jpeg_gdcm.dcm"))


def stream_of(source: SourceImage) -> bytes:
    assert source.spans is not None
    return b"".join(source.file.dataset[start:end] for start, end in source.spans[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\xff"),  # Four components' colours.
        (b"\xff\xc4\0", b"\xff\0\0"),  # No table, and no marker in its place.
    ],
)
def test_a_header_that_would_end_the_process_of_gdcm_never_reaches_it(
    old: bytes, new: bytes
) -> None:
    stream = stream_of(COLOUR)
    assert stream.count(old) == 1

    with pytest.raises(NotConvertibleError) as caught:
        decode_frame(COLOUR.file.transfer_syntax, stream.replace(old, new), COLOUR.attributes)

    assert caught.value.reason == PassReason.DECODER_FAILED


@settings(max_examples=300)
@given(
    damages=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
    ),
    in_the_header=st.booleans(),
    is_cut=st.booleans(),
)
def test_any_damage_is_a_frame_or_a_reason_and_the_process_lives(
    damages: list[tuple[float, int]], in_the_header: bool, is_cut: bool
) -> None:
    stream = bytearray(stream_of(COLOUR))
    size = 80 if in_the_header else len(stream)
    for at, byte in damages:
        stream[int(at * size)] = byte
    if is_cut:
        del stream[int(damages[0][0] * len(stream)) :]

    try:
        frame = decode_frame(COLOUR.file.transfer_syntax, bytes(stream), COLOUR.attributes)
    except NotConvertibleError:
        return
    assert frame.shape == (100, 100, 3)
