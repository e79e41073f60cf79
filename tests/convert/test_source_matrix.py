"""Every source syntax times every kind of pixel that it may hold, in any fragments and with any table."""

import hashlib
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_ls import encode_pixel_data
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_fragments
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from scp.convert.digests import digest
from tests.convert import lossless_jpeg
from tests.convert.images import (
    OPENJPEG,
    OPENJPH,
    Array,
    convert,
    decoded,
    header_differences,
    image,
    save,
)
from tests.convert.streams import rle

NATIVE = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
RGB = "RGB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How the pixels of one source are written."""

    syntax: str
    bits: int
    wide: bool
    """16 Bits Allocated where 8 would do."""
    signed: bool
    photometric: str
    planar: bool
    words: bool
    """Big endian: bytes in words of 16 bits (PS3.5 A.3)."""
    whole: bool
    """JPEG and JPEG-LS: of the container's precision, though fewer bits are stored."""

    @property
    def samples(self) -> int:
        return 1 if self.photometric in GREY else 3

    @property
    def allocated(self) -> int:
        return 16 if self.wide or self.bits > 8 else 8

    @property
    def precision(self) -> int:
        return self.allocated if self.whole else self.bits


@st.composite
def kinds(draw: st.DrawFn) -> Kind:
    syntax = draw(
        st.sampled_from(
            (*NATIVE, RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)
        )
    )
    is_jpeg = syntax in (JPEGLossless, JPEGLosslessSV1)  # Our own encoder of it knows no colour.
    photometric = draw(st.sampled_from(GREY if is_jpeg else (*GREY, RGB, "YBR_FULL")))
    return Kind(
        syntax=str(syntax),
        bits=draw(st.integers(2, 16)),
        wide=draw(st.booleans()),
        signed=draw(st.booleans()) and photometric in GREY[:2],
        photometric=photometric,
        planar=draw(st.booleans()) and photometric not in GREY,
        words=draw(st.booleans()),
        whole=draw(st.booleans()),
    )


def content(kind: Kind, shape: tuple[int, int, int], what: str) -> Array:
    low, high = 0, (1 << kind.bits) - 1
    if kind.signed:
        low, high = -(1 << kind.bits - 1), (1 << kind.bits - 1) - 1
    full = (*shape, kind.samples)
    generator = np.random.default_rng(11)
    match what:
        case "lowest":
            made = np.full(full, low)
        case "highest":
            made = np.full(full, high)
        case "noise":
            made = generator.integers(low, high + 1, full)
        case _:
            made = generator.choice([low, high], full)
    return made.astype(f"<{'i' if kind.signed else 'u'}{kind.allocated // 8}")


def coded(kind: Kind, frames: Array, predictor: int) -> list[bytes]:
    """By encoders that are not the product's; JPEG and JPEG-LS know no sign (PS3.5 8.2.1, 8.2.3)."""
    if kind.syntax == RLELossless:
        return rle(frames)
    if kind.syntax == JPEG2000Lossless:
        return [_jpeg_2000(frame, kind) for frame in frames]
    if kind.syntax == JPEGLSLossless:
        return [_jpeg_ls(frame, kind) for frame in frames]
    unsigned = frames.view(f"<u{kind.allocated // 8}") & ((1 << kind.precision) - 1)
    return [lossless_jpeg.encode(frame[..., 0], kind.precision, predictor) for frame in unsigned]


def _jpeg_2000(frame: Array, kind: Kind) -> bytes:
    if kind.bits <= 8:
        frame = frame.astype(f"{frame.dtype.kind}1")
    return bytes(
        imagecodecs.jpeg2k_encode(
            frame[..., 0] if kind.samples == 1 else frame,
            level=0,
            codecformat="J2K",
            bitspersample=kind.bits,
            reversible=True,
            mct=kind.photometric == RGB,
        )
    )


def _jpeg_ls(frame: Array, kind: Kind) -> bytes:
    whole = frame.view(f"<u{kind.allocated // 8}")
    stored = (whole & ((1 << kind.precision) - 1)).astype("<u1" if kind.precision <= 8 else "<u2")
    ordered = stored.transpose(2, 0, 1) if kind.planar else stored
    try:
        stream = encode_pixel_data(
            ordered.tobytes(),
            rows=frame.shape[0],
            columns=frame.shape[1],
            samples_per_pixel=kind.samples,
            bits_stored=kind.precision,
            planar_configuration=int(kind.planar),
        )
    except RuntimeError:
        # It makes no room for what grows. This one does, but knows the container's precision only.
        stream = imagecodecs.jpegls_encode(whole[..., 0] if kind.samples == 1 else whole)
    return bytes(stream)


def encapsulated(dataset: Dataset, streams: list[bytes], cuts: list[float], table: str) -> None:
    """Each frame in as many fragments as there are cuts, and one more."""
    fragments: list[bytes] = []
    offsets: list[int] = []
    position = 0
    for stream in streams:
        even = stream + bytes(len(stream) % 2)
        # The end of a frame stays in one piece: without a table its marker is all there is.
        ends = [*sorted({int(cut * (len(even) - 6)) // 2 * 2 for cut in cuts} - {0}), len(even)]
        offsets.append(position)
        for start, end in zip([0, *ends], ends, strict=False):
            fragments.append(even[start:end])
            position += 8 + end - start
    basic = struct.pack(f"<{len(offsets)}L", *offsets) if table == "basic" else b""
    items = (struct.pack("<LL", 0xE000FFFE, len(item)) + item for item in (basic, *fragments))
    dataset.PixelData = b"".join(items)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    if table == "extended":
        dataset.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
        dataset.ExtendedOffsetTableLengths = struct.pack(
            f"<{len(streams)}Q", *(len(stream) for stream in streams)
        )


def written(kind: Kind, frames: Array, predictor: int, cuts: list[float], table: str) -> Dataset:
    dataset = image(
        frames,
        bits_stored=kind.bits,
        photometric=kind.photometric,
        transfer_syntax=kind.syntax,
        planar=kind.planar,
    )
    if kind.syntax in NATIVE:
        if kind.syntax == ExplicitVRBigEndian and kind.allocated == 8 and kind.words:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
            dataset["PixelData"].VR = "OW"
        return dataset
    # An RLE frame is one fragment (PS3.5 A.4.2).
    encapsulated(
        dataset,
        coded(kind, frames, predictor),
        [] if kind.syntax == RLELossless else cuts,
        table,
    )
    return dataset


@settings(max_examples=400)
@given(
    kind=kinds(),
    what=st.sampled_from(("lowest", "highest", "noise", "both")),
    frames=st.sampled_from((1, 1, 2, 3)),
    rows=st.sampled_from((1, 2, 3, 5, 17)),
    columns=st.sampled_from((1, 3, 4, 16, 33)),
    predictor=st.integers(2, 7),
    cuts=st.lists(st.floats(0, 1), max_size=3),
    table=st.sampled_from(("basic", "extended", "none")),
)
def test_whatever_the_source_the_words_and_the_header_are_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    kind: Kind, what: str, frames: int, rows: int, columns: int, predictor: int,
    cuts: list[float], table: str,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("matrix")
    words = content(kind, (frames, rows, columns), what)
    if kind.syntax == JPEGLosslessSV1:
        predictor = 1
    source = save(written(kind, words, predictor, cuts, table), folder / "source.dcm")
    target = folder / "target.dcm"

    result = convert(source, target)

    assert np.array_equal(decoded(target, OPENJPEG), words)
    assert np.array_equal(decoded(target, OPENJPH), words)
    assert result.pixel_sha256 == hashlib.sha256(words.tobytes()).hexdigest()
    assert result.source == digest(source)
    assert header_differences(source, target, raw=kind.syntax != ExplicitVRBigEndian) == []
    header = dcmread(target, stop_before_pixels=True)
    assert header.PhotometricInterpretation == kind.photometric.replace(RGB, "YBR_RCT")
    assert header.get("PlanarConfiguration", 0) == 0


def _noise(kind: str, low: int, high: int, samples: int) -> Array:
    shape = (3, 40, 34, samples)
    return np.random.default_rng(23).integers(low, high, shape).astype(kind)


IMAGES = {
    "8 bits": _noise("<u1", 0, 256, 1),
    "12 bits": _noise("<u2", 0, 4096, 1),
    "16 bits": _noise("<u2", 0, 65536, 1),
    "signed": _noise("<i2", -32768, 32768, 1),
    "colour": _noise("<u1", 0, 256, 3),
}
ENCODERS = {
    "JPEG Lossless, predictor 1": ("dcmcjpeg", "+e1"),
    "JPEG Lossless, predictor 6": ("dcmcjpeg", "+el", "+sv", "6"),
    "JPEG-LS": ("dcmcjpls", "+el"),
    "RLE": ("dcmcrle",),
    "JPEG Lossless by GDCM": ("gdcmconv", "--jpeg"),
    "JPEG-LS by GDCM": ("gdcmconv", "--jpegls"),
    "JPEG 2000 by GDCM": ("gdcmconv", "--j2k"),
    "RLE by GDCM": ("gdcmconv", "--rle"),
}
FRAGMENTS = {
    "a fragment a frame": (),
    "fragments": ("+fs", "1"),
    "no table": ("-ot",),
    "fragments, no table": ("+fs", "1", "-ot"),
}


@pytest.mark.parametrize("content", IMAGES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_other_programs_compress_is_converted(
    tmp_path: Path, dcmtk: Callable[[str], str], encoder: str, content: str
) -> None:
    words = IMAGES[content]
    bits = 12 if content == "12 bits" else words.dtype.itemsize * 8
    native = save(image(words, bits_stored=bits), tmp_path / "native.dcm")
    program, *options = ENCODERS[encoder]
    is_dcmtk = program != "gdcmconv"
    for name, more in FRAGMENTS.items():
        if (name != "a fragment a frame" and not is_dcmtk) or ("+fs" in more and "rle" in program):
            continue
        source, target = tmp_path / f"{name}.dcm", tmp_path / f"{name} as htj2k.dcm"
        subprocess.run(
            [dcmtk(program), *options, *more, native, source], check=True, capture_output=True
        )
        compressed = dcmread(source)
        assert compressed.file_meta.TransferSyntaxUID.is_compressed
        if "+fs" in more:
            assert len(list(generate_fragments(compressed.PixelData))) > 4

        convert(source, target)

        assert np.array_equal(decoded(target, OPENJPEG), words), name
        assert header_differences(source, target) == [], name
