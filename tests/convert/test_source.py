"""Every source syntax that is converted."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jpeg_ls import encode_array
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from scp.convert.decoders import jpeg_header
from tests.convert.images import (
    NOISE,
    OPENJPEG,
    Array,
    convert,
    decoded,
    header_differences,
    image,
    pixels,
    ramp,
    save,
    shipped,
)
from tests.convert.streams import compressed, jpeg_2000, jpeg_lossless, jpeg_ls, rle

SHIPPED = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm",
    "MR_small_bigendian.dcm", "MR_small_padded.dcm", "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "image_dfl.dcm", "SC_rgb_rle.dcm",
    "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_16bit_2frame.dcm", "SC_rgb_rle_2frame.dcm",
    "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm",
    "examples_palette.dcm", "examples_jpeg2k.dcm", "examples_overlay.dcm", "examples_rgb_color.dcm",
    "ExplVR_BigEnd.dcm",
]  # fmt: skip
BIG = {"MR_small_expb.dcm", "MR_small_bigendian.dcm", "SC_rgb_small_odd_big_endian.dcm",
       "ExplVR_BigEnd.dcm"}  # fmt: skip


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target.dcm"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_converted_with_equal_pixels_and_header(name: str, target: Path) -> None:
    source = shipped(name)

    convert(source, target)

    assert np.array_equal(decoded(target, OPENJPEG), pixels(source))
    assert header_differences(source, target, raw=name not in BIG) == []


@pytest.mark.parametrize(
    ("kind", "samples"), [("<u1", 1), ("<u2", 1), ("<i2", 1), ("<u1", 3), ("<u2", 3)]
)
@pytest.mark.parametrize(
    "transfer_syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=["implicit", "big_endian", "deflated"],
)
def test_native_encodings_hold_the_same_words(
    tmp_path: Path, target: Path, kind: str, samples: int, transfer_syntax: str
) -> None:
    words = (ramp(7, 9, 3, samples) % (100 if kind == "<u1" else 4096)).astype(kind)
    dataset = image(words, transfer_syntax=transfer_syntax, planar=samples == 3)
    source = save(dataset, tmp_path / "source.dcm")

    convert(source, target)

    assert np.array_equal(decoded(target, OPENJPEG), words)
    assert header_differences(source, target, raw=transfer_syntax != ExplicitVRBigEndian) == []


def test_bytes_in_swapped_words_are_put_in_order(tmp_path: Path, target: Path) -> None:
    words = (ramp(3, 3, 5) % 256).astype("<u1")
    dataset = image(words, transfer_syntax=ExplicitVRBigEndian)
    padded = words.tobytes() + b"\0"
    dataset.PixelData = np.frombuffer(padded, "<u2").astype(">u2").tobytes()
    dataset["PixelData"].VR = "OW"
    source = save(dataset, tmp_path / "source.dcm")

    convert(source, target)

    assert np.array_equal(decoded(target, OPENJPEG), words)


@pytest.mark.parametrize(
    ("encode", "transfer_syntax"),
    [
        (jpeg_lossless, JPEGLosslessSV1),
        (jpeg_2000, JPEG2000Lossless),
        (jpeg_ls, JPEGLSLossless),
        (rle, RLELossless),
    ],
    ids=["jpeg_lossless", "jpeg_2000", "jpeg_ls", "rle"],
)
def test_losslessly_compressed_frames_are_converted(
    tmp_path: Path,
    target: Path,
    encode: Callable[[Array], list[bytes]],
    transfer_syntax: str,
) -> None:
    source = save(compressed(NOISE, encode(NOISE), transfer_syntax), tmp_path / "source.dcm")

    convert(source, target)

    assert np.array_equal(decoded(target, OPENJPEG), NOISE)
    assert header_differences(source, target) == []


@pytest.mark.parametrize("interleave", ["plane", "line", "sample"])
def test_colour_of_jpeg_ls_comes_from_every_interleaving(
    tmp_path: Path, target: Path, interleave: str
) -> None:
    words = np.random.default_rng(1).integers(0, 256, (1, 12, 13, 3)).astype("<u1")
    mode = ["plane", "line", "sample"].index(interleave)
    frame = np.ascontiguousarray(words[0].transpose(2, 0, 1)) if mode == 0 else words[0]
    stream = bytes(encode_array(frame, interleave_mode=mode))
    source = save(compressed(words, [stream], JPEGLSLossless), tmp_path / "source.dcm")

    convert(source, target)

    assert np.array_equal(decoded(target, OPENJPEG), words)


@pytest.mark.parametrize("precision", [12, 16])
def test_signed_words_in_unsigned_streams_get_their_sign_back(
    tmp_path: Path, target: Path, precision: int
) -> None:
    words = (NOISE.astype(int) - 2048).astype("<i2")
    coded = (words.view("<u2") & ((1 << precision) - 1)).astype("<u2")
    streams = jpeg_lossless(coded, precision)
    dataset = compressed(words, streams, JPEGLosslessSV1, BitsStored=12, HighBit=11)
    source = save(dataset, tmp_path / "signed.dcm")

    convert(source, target)

    assert jpeg_header(streams[0]).precision == precision
    assert np.array_equal(decoded(target, OPENJPEG), words)


def test_transformed_colour_of_jpeg_2000_stays_ybr_rct(tmp_path: Path, target: Path) -> None:
    words = np.random.default_rng(1).integers(0, 256, (2, 12, 13, 3)).astype("<u1")
    streams = jpeg_2000(words, mct=True)
    dataset = compressed(words, streams, JPEG2000Lossless, PhotometricInterpretation="YBR_RCT")
    source = save(dataset, tmp_path / "rct.dcm")

    convert(source, target)

    assert dcmread(target).PhotometricInterpretation == "YBR_RCT"
    assert np.array_equal(decoded(target, OPENJPEG), words)


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_fragments_of_a_frame_are_joined(tmp_path: Path, target: Path, table: str) -> None:
    streams = [stream + bytes(len(stream) % 2) for stream in jpeg_2000(NOISE)]
    parts = [[s[:100], s[100:-20], s[-20:]] for s in streams]
    offsets = [sum(len(p) + 24 for p in streams[:index]) for index in range(len(streams))]
    fragments = b"".join(
        struct.pack("<LL", 0xE000FFFE, len(part)) + part for frame in parts for part in frame
    )
    basic = struct.pack(f"<{len(offsets)}L", *offsets) if table == "basic" else b""
    value = struct.pack("<LL", 0xE000FFFE, len(basic)) + basic + fragments
    dataset = compressed(NOISE, streams, JPEG2000Lossless)
    dataset.PixelData = value
    if table == "extended":
        dataset.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
        dataset.ExtendedOffsetTableLengths = struct.pack("<3Q", *map(len, streams))
    source = save(dataset, tmp_path / "fragments.dcm")

    convert(source, target)

    assert np.array_equal(decoded(target, OPENJPEG), NOISE)
    assert "ExtendedOffsetTable" not in dcmread(target)


@pytest.mark.parametrize("option", ["+e1", "+el"])
def test_jpeg_lossless_by_dcmtk_is_converted(
    tmp_path: Path, target: Path, dcmtk: Callable[[str], str], option: str
) -> None:
    native = save(image(NOISE, bits_stored=12), tmp_path / "native.dcm")
    source = tmp_path / "jpeg.dcm"
    subprocess.run([dcmtk("dcmcjpeg"), option, native, source], check=True)

    convert(source, target)

    assert np.array_equal(decoded(target, OPENJPEG), NOISE)
