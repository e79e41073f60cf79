"""pydicom opens the results by the registered plugin, and gets the very words."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels, pixel_array
from pydicom.uid import HTJ2KLossless, HTJ2KLosslessRPCL

from scp.convert import pydicom_plugin
from scp.convert.codec_cpu import OpenJphDecoder
from tests.convert.images import NOISE, Array, convert, image, save

MANY: Array = np.random.default_rng(8).integers(0, 4096, (7, 33, 18, 1)).astype("<u2")
DECODERS = [get_decoder(uid) for uid in (HTJ2KLossless, HTJ2KLosslessRPCL)]


@pytest.fixture
def registered() -> Iterator[None]:
    pydicom_plugin.register()
    yield
    pydicom_plugin.unregister()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames the decoder was asked for at a time."""
    calls: list[int] = []

    class Counting(pydicom_plugin.Decoder):
        def decode(self, codestreams, frame_format):  # type: ignore[no-untyped-def]
            calls.append(len(codestreams))
            return super().decode(codestreams, frame_format)

    counting = Counting(OpenJphDecoder(), None)
    monkeypatch.setattr(pydicom_plugin, "shared_decoder", lambda process: counting)
    return calls


def converted(tmp_path: Path, frames: Array, **attributes: object) -> Path:
    source = save(image(frames, **attributes), tmp_path / "source.dcm")  # type: ignore[arg-type]
    target = tmp_path / "result.dcm"
    convert(source, target)
    return target


@pytest.mark.parametrize(
    ("frames", "bits"),
    [
        (MANY, 12),
        (MANY[:1], 12),
        (MANY.astype("<i2") - 2048, 12),
        ((MANY // 16).astype("<u1"), 8),
        (MANY // 64, 6),
        (np.random.default_rng(2).integers(0, 256, (4, 20, 31, 3)).astype("<u1"), 8),
    ],
    ids=["unsigned", "one frame", "signed", "bytes", "few bits", "colour"],
)
@pytest.mark.usefixtures("registered")
def test_pixel_array_is_what_went_in(tmp_path: Path, frames: Array, bits: int) -> None:
    path = converted(tmp_path, frames, bits_stored=bits)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        array = dcmread(path).pixel_array
        same = pixel_array(dcmread(path), raw=True, decoding_plugin=pydicom_plugin.LABEL)

    assert array.dtype == frames.dtype
    assert np.array_equal(array.reshape(frames.shape), frames)
    assert np.array_equal(same.reshape(frames.shape), frames)


@pytest.mark.usefixtures("registered")
def test_frames_are_decoded_many_at_a_time(tmp_path: Path, asked: list[int]) -> None:
    path = converted(tmp_path, MANY, bits_stored=12)

    dcmread(path).pixel_array.sum()

    assert asked == [1, 6]


@pytest.mark.usefixtures("registered")
def test_the_batch_is_bounded(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pydicom_plugin, "BATCH_BYTES", 2 * MANY[0].nbytes)
    path = converted(tmp_path, MANY, bits_stored=12)

    array = dcmread(path).pixel_array

    assert asked == [1, 2, 2, 2]
    assert np.array_equal(array, MANY[..., 0])


@pytest.mark.usefixtures("registered")
def test_frames_may_be_asked_for_one_by_one_in_any_order(tmp_path: Path, asked: list[int]) -> None:
    path = converted(tmp_path, MANY, bits_stored=12)
    order = [5, 0, 6, 6]

    by_index = [pixel_array(path, index=index) for index in order]
    from_file = list(iter_pixels(path, indices=order))
    from_memory = list(iter_pixels(dcmread(path), indices=order))

    for frames in (by_index, from_file, from_memory):
        assert np.array_equal(np.array(frames), MANY[order, ..., 0])
    assert sum(asked) >= 3 * len(order)


@pytest.mark.usefixtures("registered")
def test_a_damaged_frame_is_an_error_and_no_other_frame(tmp_path: Path) -> None:
    path = converted(tmp_path, MANY, bits_stored=12)
    data = path.read_bytes()
    ends = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xd9"]
    cut = ends[3] - 300
    path.write_bytes(data[:cut] + bytes(300) + data[ends[3] :])

    with pytest.raises(RuntimeError):
        dcmread(path).pixel_array.sum()


@pytest.mark.usefixtures("registered")
def test_colours_that_were_transformed_are_said_to_be_rgb(tmp_path: Path) -> None:
    frames: Array = np.random.default_rng(2).integers(0, 256, (3, 20, 31, 3)).astype("<u1")
    dataset = dcmread(converted(tmp_path, frames))
    assert dataset.PhotometricInterpretation == "YBR_RCT"

    array, properties = get_decoder(HTJ2KLosslessRPCL).as_array(dataset)

    assert properties["photometric_interpretation"] == "RGB"
    assert np.array_equal(array, frames)


def test_registering_twice_is_registering_once() -> None:
    before = [decoder.available_plugins for decoder in DECODERS]

    pydicom_plugin.register()
    pydicom_plugin.register()

    assert all(pydicom_plugin.LABEL in decoder.available_plugins for decoder in DECODERS)
    pydicom_plugin.unregister()
    pydicom_plugin.unregister()
    assert [decoder.available_plugins for decoder in DECODERS] == before


def test_importing_registers_nothing() -> None:
    assert all(pydicom_plugin.LABEL not in decoder.available_plugins for decoder in DECODERS)


def test_a_word_that_needs_more_than_the_header_says_goes_to_the_next_plugin(
    tmp_path: Path,
) -> None:
    path = converted(tmp_path, NOISE, bits_stored=12)
    dataset = dcmread(path)
    dataset.PixelRepresentation = 1

    pydicom_plugin.register()
    with pytest.raises(RuntimeError, match="signed False"):
        pixel_array(dataset, decoding_plugin=pydicom_plugin.LABEL)
    pydicom_plugin.unregister()
