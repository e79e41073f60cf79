"""JPEG Lossless of every precision and predictor, as the standard has them and few encoders write them."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from tests.convert.images import OPENJPEG, OPENJPH, convert, decoded, save
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
