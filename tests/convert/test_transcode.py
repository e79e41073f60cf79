"""What transcoding keeps, what it changes, and what the proof catches."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import parse_basic_offsets

from scp.config.schema import Htj2kSection
from scp.convert.codestream import earns_rpcl, parse_codestream
from scp.convert.digests import digest
from scp.convert.ports import FrameFormat
from scp.convert.transcode import transcode
from tests.convert.images import (
    ENCODER,
    OPENJPEG,
    OPENJPH,
    Array,
    codestreams,
    convert,
    dataset_bytes,
    decoded,
    header_differences,
    image,
    pixels,
    ramp,
    save,
)

RPCL, PLAIN = "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.201"
KINDS = {
    "u8": ("<u1", 8, 1, None),
    "u12": ("<u2", 12, 1, None),
    "u16": ("<u2", 16, 1, "MONOCHROME1"),
    "s8": ("<i1", 8, 1, None),
    "s12": ("<i2", 12, 1, None),
    "s16": ("<i2", 16, 1, None),
    "rgb8": ("<u1", 8, 3, "RGB"),
    "rgb12": ("<u2", 12, 3, "RGB"),
    "rgb16": ("<u2", 16, 3, "RGB"),
    "ybr8": ("<u1", 8, 3, "YBR_FULL"),
    "palette": ("<u1", 8, 1, "PALETTE COLOR"),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(image(ramp(), bits_stored=12), tmp_path / "source.dcm")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target.dcm"


def made(kind: str, content: str, shape: tuple[int, int, int]) -> Array:
    dtype, bits, samples, _ = KINDS[kind]
    signed = "i" in dtype
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    source = np.random.default_rng(7)
    full = (*shape, samples)
    if content == "zeros":
        return np.zeros(full, dtype)
    if content == "extremes":
        return source.choice([low, high], full).astype(dtype)
    return source.integers(low, high + 1, full).astype(dtype)


@settings(max_examples=150)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    content=st.sampled_from(("zeros", "noise", "extremes")),
    frames=st.sampled_from((1, 1, 3)),
    rows=st.sampled_from((1, 3, 5, 64, 65)),
    columns=st.sampled_from((1, 5, 64, 65, 513)),
    planar=st.booleans(),
)
def test_pixels_and_header_are_equal_afterwards(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str, content: str, frames: int, rows: int, columns: int, planar: bool,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("property")
    _, bits, samples, photometric = KINDS[kind]
    words = made(kind, content, (frames, rows, columns))
    dataset = image(
        words, bits_stored=bits, photometric=photometric, planar=planar and samples == 3
    )
    source, target = save(dataset, folder / "source.dcm"), folder / "target.dcm"

    result = convert(source, target)

    assert result.transfer_syntax == RPCL
    assert result.verified
    assert np.array_equal(decoded(target, OPENJPEG), words)
    assert np.array_equal(decoded(target, OPENJPH), words)
    assert header_differences(source, target) == []
    assert result.pixel_sha256 == hashlib.sha256(words.tobytes()).hexdigest()


@pytest.mark.parametrize("columns", [2049, 4100])
def test_a_wide_frame_earns_the_label_with_more_decompositions(
    tmp_path: Path, target: Path, columns: int
) -> None:
    words = made("u12", "noise", (1, 9, columns))
    source = save(image(words, bits_stored=12), tmp_path / "wide.dcm")

    result = convert(source, target)

    assert result.transfer_syntax == RPCL
    assert np.array_equal(pixels(target), words)


def test_the_bytes_around_the_pixel_data_are_those_of_the_source(
    source: Path, target: Path
) -> None:
    before = dataset_bytes(source)

    convert(source, target)

    after = dataset_bytes(target)
    at = before.index(b"\xe0\x7f\x10\x00OW")
    assert after[:at] == before[:at]
    assert after[at : at + 12] == b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
    assert after.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")


def test_elements_behind_the_pixel_data_stay(tmp_path: Path, target: Path) -> None:
    dataset = image(ramp(), bits_stored=12)
    dataset.add_new(0xFFFCFFFC, "OB", bytes(10))
    source = save(dataset, tmp_path / "padded.dcm")

    convert(source, target)

    assert dataset_bytes(target).endswith(b"\xfc\xff\xfc\xffOB\0\0\x0a\0\0\0" + bytes(10))


def test_the_file_meta_group_keeps_everything_but_the_transfer_syntax(
    tmp_path: Path, target: Path
) -> None:
    dataset = image(ramp(), bits_stored=12)
    dataset.file_meta.SourceApplicationEntityTitle = "CT1"
    dataset.file_meta.SendingApplicationEntityTitle = "CT1"
    dataset.file_meta.ReceivingApplicationEntityTitle = "DCMPRESS"
    dataset.file_meta.SourcePresentationAddress = "dicom://10.0.0.7:104"
    source = save(dataset, tmp_path / "origin.dcm")

    convert(source, target)

    one, other = dcmread(source).file_meta, dcmread(target).file_meta
    assert other.TransferSyntaxUID == RPCL
    for element in one:
        if element.tag not in (0x00020000, 0x00020010):
            assert other[element.tag] == element
    assert target.read_bytes()[144 + other.FileMetaInformationGroupLength :][:2] == b"\x08\0"


def test_rgb_becomes_ybr_rct_interleaved(tmp_path: Path, target: Path) -> None:
    words = made("rgb8", "noise", (2, 9, 7))
    source = save(image(words, planar=True), tmp_path / "rgb.dcm")

    convert(source, target)

    result = dcmread(target)
    assert result.PhotometricInterpretation == "YBR_RCT"
    assert result.PlanarConfiguration == 0
    assert all(parse_codestream(each).colour_transform for each in codestreams(target))
    assert np.array_equal(pixels(target), words)


def test_ybr_full_stays_without_a_colour_transform(tmp_path: Path, target: Path) -> None:
    words = made("ybr8", "noise", (1, 9, 7))
    source = save(image(words, photometric="YBR_FULL"), tmp_path / "ybr.dcm")

    convert(source, target)

    assert dcmread(target).PhotometricInterpretation == "YBR_FULL"
    assert not parse_codestream(codestreams(target)[0]).colour_transform


def test_a_group_length_grows_with_the_element_that_changes(tmp_path: Path, target: Path) -> None:
    source = save(image(made("rgb8", "noise", (1, 4, 4))), tmp_path / "plain.dcm")
    content = source.read_bytes()
    at = content.index(b"\x28\0\x02\0US")
    group = content[at : content.index(b"\xe0\x7f\x10\0OB")]
    element = b"\x28\0\0\0UL\x04\0" + struct.pack("<L", len(group))
    source.write_bytes(content[:at] + element + content[at:])

    convert(source, target)

    result = target.read_bytes()
    start = result.index(element[:8]) + 12
    promised = struct.unpack_from("<L", result, start - 4)[0]
    assert result[start + promised :][:6] == b"\xe0\x7f\x10\0OB"


def test_the_group_length_of_the_pixel_data_is_true_afterwards(
    tmp_path: Path, target: Path
) -> None:
    source = save(image(ramp(), bits_stored=12), tmp_path / "plain.dcm")
    content = source.read_bytes()
    at = content.index(b"\xe0\x7f\x10\0OW")
    element = b"\xe0\x7f\0\0UL\x04\0" + struct.pack("<L", len(content) - at)
    source.write_bytes(content[:at] + element + content[at:])

    convert(source, target)

    result = target.read_bytes()
    start = result.index(element[:8]) + 12
    assert struct.unpack_from("<L", result, start - 4)[0] == len(result) - start


def test_every_frame_is_one_even_fragment_that_the_table_finds(
    tmp_path: Path, target: Path
) -> None:
    source = save(image(ramp(frames=5), bits_stored=12), tmp_path / "frames.dcm")

    convert(source, target)

    value = dcmread(target).PixelData
    offsets = parse_basic_offsets(value)
    first = 8 + 4 * 5
    assert len(offsets) == 5
    for offset in offsets:
        tag, length = struct.unpack_from("<LL", value, first + offset)
        assert tag == 0xE000FFFE
        assert length % 2 == 0
        assert value[first + offset + 8 :][:4] == b"\xff\x4f\xff\x51"


def test_beyond_32_bits_an_extended_offset_table_finds_the_frames(
    tmp_path: Path, target: Path
) -> None:
    words = ramp(frames=4)
    source = save(image(words, bits_stored=12), tmp_path / "frames.dcm")

    transcode(source, target, Htj2kSection(), ENCODER, OPENJPEG, extended_above=100)

    result = dcmread(target)
    assert parse_basic_offsets(result.PixelData) == []
    lengths = struct.unpack("<4Q", result.ExtendedOffsetTableLengths)
    offsets = struct.unpack("<4Q", result.ExtendedOffsetTable)
    for offset, length in zip(offsets, lengths, strict=True):
        fragment = result.PixelData[8 + offset + 8 :][:length]
        assert fragment.startswith(b"\xff\x4f")
        assert fragment.endswith(b"\xff\xd9")
    assert np.array_equal(pixels(target), words)


def test_frames_of_several_batches_are_converted_and_proved(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scp.convert.source.BATCH_BYTES", 3000)
    words = ramp(frames=7)
    source = save(image(words, bits_stored=12), tmp_path / "frames.dcm")

    result = convert(source, target)

    assert result.frames == 7
    assert result.pixel_sha256 == hashlib.sha256(words.tobytes()).hexdigest()
    assert np.array_equal(pixels(target), words)


def test_another_progression_gets_the_plain_lossless_label(source: Path, target: Path) -> None:
    result = convert(source, target, progression="LRCP")

    assert result.transfer_syntax == PLAIN
    assert dcmread(target).file_meta.TransferSyntaxUID == PLAIN


def test_the_label_is_earned_by_the_bytes_in_the_file(source: Path, target: Path) -> None:
    result = convert(source, target)

    form = FrameFormat(
        rows=20, columns=30, samples=1, bits_allocated=16, bits_stored=12, is_signed=False,
        colour_transform=False,
    )  # fmt: skip
    assert result.transfer_syntax == dcmread(target).file_meta.TransferSyntaxUID == RPCL
    assert earns_rpcl(parse_codestream(codestreams(target)[0]), form)


def test_the_result_tells_digests_names_and_times(source: Path, target: Path) -> None:
    result = convert(source, target)

    assert result.result_sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert result.result_bytes == target.stat().st_size
    assert (result.encoder, result.decoder) == (ENCODER.name, OPENJPEG.name)
    assert result.source == digest(source)
    assert result.encode_seconds > 0
    assert result.verify_seconds > 0


def test_the_same_source_gives_the_same_bytes(source: Path, target: Path, tmp_path: Path) -> None:
    convert(source, target)
    convert(source, tmp_path / "again.dcm")

    assert target.read_bytes() == (tmp_path / "again.dcm").read_bytes()


def test_the_source_file_is_left_as_it_is(source: Path, target: Path) -> None:
    before = source.read_bytes()

    convert(source, target)

    assert source.read_bytes() == before


def test_without_a_verifier_nothing_is_claimed(source: Path, target: Path) -> None:
    result = convert(source, target, None)

    assert not result.verified
    assert result.decoder == ""
