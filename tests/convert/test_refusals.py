"""Every reason for which an instance is not converted."""

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
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

from scp.convert.decode import decode_for_peer
from scp.convert.decoders import jpeg_header
from scp.convert.digests import digest
from scp.convert.refusals import NotConvertibleError
from scp.convert.source import SourceLimits, has_clean_bits, open_source
from scp.errors import CodecError
from scp.model import PassReason
from tests.convert.images import (
    NOISE,
    OPENJPEG,
    Array,
    convert,
    decoded,
    image,
    pixels,
    ramp,
    save,
    shipped,
)
from tests.convert.streams import compressed, jpeg_2000, jpeg_lossless, jpeg_ls, rle


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target.dcm"


def refusal(source: Path, target: Path) -> PassReason:
    with pytest.raises(NotConvertibleError) as caught:
        convert(source, target)
    assert not target.exists()
    return caught.value.reason


def changed(source: Dataset, **values: object) -> Dataset:
    for keyword, value in values.items():
        if value is None:
            delattr(source, keyword)
        else:
            setattr(source, keyword, value)
    return source


def plain() -> Dataset:
    return image(ramp(), bits_stored=12)


def with_overlay_bit() -> Dataset:
    dataset = plain()
    dataset.add_new(0x60000100, "US", 16)
    dataset.add_new(0x60000102, "US", 12)
    return dataset


def with_signature() -> Dataset:
    dataset = plain()
    dataset.DigitalSignaturesSequence = [Dataset()]
    return dataset


def with_float_pixels() -> Dataset:
    dataset = plain()
    del dataset.PixelData
    dataset.FloatPixelData = bytes(2400)
    return dataset


REFUSED: dict[str, tuple[Callable[[], Dataset], PassReason]] = {
    "no pixels": (lambda: changed(plain(), PixelData=None), PassReason.NO_PIXEL_DATA),
    "float pixels": (with_float_pixels, PassReason.FLOAT_PIXEL_DATA),
    "signature": (with_signature, PassReason.DIGITAL_SIGNATURE),
    "no rows": (lambda: changed(plain(), Rows=None), PassReason.PIXEL_ATTRIBUTE_MISSING),
    "zero columns": (lambda: changed(plain(), Columns=0), PassReason.PIXEL_ATTRIBUTE_MISSING),
    "no photometric": (
        lambda: changed(plain(), PhotometricInterpretation=None),
        PassReason.PIXEL_ATTRIBUTE_MISSING,
    ),
    "32 bits": (lambda: changed(plain(), BitsAllocated=32), PassReason.BITS_ALLOCATED),
    "17 stored": (lambda: changed(plain(), BitsStored=17), PassReason.BITS_STORED),
    "0 stored": (lambda: changed(plain(), BitsStored=0), PassReason.BITS_STORED),
    "high bit": (lambda: changed(plain(), HighBit=15), PassReason.HIGH_BIT),
    "photometric": (
        lambda: changed(plain(), PhotometricInterpretation="ARGB"),
        PassReason.PHOTOMETRIC_INTERPRETATION,
    ),
    "ybr_rct native": (
        lambda: image(ramp(samples=3), photometric="YBR_RCT"),
        PassReason.PHOTOMETRIC_INTERPRETATION,
    ),
    "signed palette": (
        lambda: changed(plain(), PixelRepresentation=1, PhotometricInterpretation="PALETTE COLOR"),
        PassReason.SIGNED_COLOUR,
    ),
    "overlay": (with_overlay_bit, PassReason.OVERLAY_IN_PIXEL_DATA),
    "junk above": (lambda: image(NOISE, bits_stored=11), PassReason.UNUSED_BITS_SET),
    "not extended": (
        lambda: image(NOISE.astype("<i2"), bits_stored=12), PassReason.UNUSED_BITS_SET,
    ),
    "short": (
        lambda: changed(plain(), PixelData=bytes(1198)), PassReason.PIXEL_DATA_SHORT,
    ),
    "a frame too many": (
        lambda: changed(plain(), PixelData=bytes(2400)), PassReason.FRAME_COUNT,
    ),
    "data behind": (
        lambda: changed(plain(), PixelData=bytes(1200) + b"data"), PassReason.FRAME_COUNT,
    ),
    "no frames": (lambda: changed(plain(), NumberOfFrames=0), PassReason.FRAME_COUNT),
    "no planar": (
        lambda: changed(image(ramp(samples=3)), PlanarConfiguration=None),
        PassReason.PIXEL_ATTRIBUTE_MISSING,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_htj2k_cannot_hold_is_refused_with_its_reason(
    name: str, tmp_path: Path, target: Path
) -> None:
    make, reason = REFUSED[name]
    source = save(make(), tmp_path / "source.dcm")

    assert refusal(source, target) == reason


@pytest.mark.parametrize(
    ("transfer_syntax", "reason"),
    [
        ("1.2.840.10008.1.2.4.202", PassReason.ALREADY_HTJ2K),
        ("1.2.840.10008.1.2.4.203", PassReason.ALREADY_HTJ2K),
        ("1.2.840.10008.1.2.4.50", PassReason.LOSSY_SOURCE),
        ("1.2.840.10008.1.2.4.91", PassReason.LOSSY_SOURCE),
        ("1.2.840.10008.1.2.4.102", PassReason.VIDEO_OR_REFERENCED),
        ("1.2.840.10008.1.2.4.94", PassReason.VIDEO_OR_REFERENCED),
        ("1.2.840.10008.1.2.4.53", PassReason.UNKNOWN_TRANSFER_SYNTAX),
    ],
)
def test_a_transfer_syntax_is_refused_with_its_reason(
    transfer_syntax: str, reason: PassReason, tmp_path: Path, target: Path
) -> None:
    dataset = compressed(NOISE, [b"not looked at"] * 3, transfer_syntax)
    source = save(dataset, tmp_path / "source.dcm")

    assert refusal(source, target) == reason


def with_icon(*, is_compressed: bool) -> Dataset:
    """Compressed by RLE, as its icon is or not."""
    icon = image(ramp(8, 8).astype("<u1"))
    if is_compressed:
        icon = compressed(ramp(8, 8).astype("<u1"), rle(ramp(8, 8).astype("<u1")), RLELossless)
        icon["PixelData"].is_undefined_length = True
    del icon.file_meta
    dataset = compressed(ramp(), rle(ramp()), RLELossless)
    dataset.IconImageSequence = [icon]
    return dataset


def test_an_icon_that_is_compressed_too_has_no_place_in_another_transfer_syntax(
    tmp_path: Path, target: Path
) -> None:
    source = save(with_icon(is_compressed=True), tmp_path / "source.dcm")

    assert refusal(source, target) == PassReason.HEADER_NOT_EXPRESSIBLE
    with pytest.raises(NotConvertibleError, match="an icon is compressed"):
        decode_for_peer(source, target, ExplicitVRLittleEndian, decode_lossy=False)
    assert not target.exists()


def test_an_icon_that_is_not_compressed_stays_as_it_is(tmp_path: Path, target: Path) -> None:
    source = save(with_icon(is_compressed=False), tmp_path / "source.dcm")

    convert(source, target)

    assert dcmread(target).IconImageSequence == dcmread(source).IconImageSequence


def test_half_a_word_in_swapped_order_is_no_byte(tmp_path: Path, target: Path) -> None:
    dataset = image(ramp(3, 3, 5).astype("<u1"), transfer_syntax=ExplicitVRBigEndian)
    dataset["PixelData"].VR = "OW"
    source = save(dataset, tmp_path / "source.dcm")
    whole = source.read_bytes()
    source.write_bytes(whole[:-46].removesuffix(b"\0\0\0\x2e") + b"\0\0\0\x2d" + whole[-46:-1])

    assert refusal(source, target) == PassReason.UNREADABLE


def test_padding_behind_the_pixels_is_not_kept_but_no_obstacle(
    tmp_path: Path, target: Path
) -> None:
    dataset = plain()
    dataset.PixelData += bytes(6)
    source = save(dataset, tmp_path / "source.dcm")

    convert(source, target)

    assert np.array_equal(pixels(target), ramp())


def test_a_cut_file_has_short_pixel_data(tmp_path: Path, target: Path) -> None:
    source = save(plain(), tmp_path / "source.dcm")
    source.write_bytes(source.read_bytes()[:-100])

    assert refusal(source, target) == PassReason.PIXEL_DATA_SHORT


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM", bytes(5000)])
def test_what_is_no_dicom_file_is_unreadable(tmp_path: Path, target: Path, content: bytes) -> None:
    source = tmp_path / "source.dcm"
    source.write_bytes(content)

    assert refusal(source, target) == PassReason.UNREADABLE


def test_an_attribute_that_comes_twice_is_unreadable(tmp_path: Path, target: Path) -> None:
    source = save(plain(), tmp_path / "source.dcm")
    content = source.read_bytes()
    rows = content.index(b"\x28\0\x10\0US\x02\0")
    source.write_bytes(content[:rows] + content[rows : rows + 10] * 2 + content[rows + 10 :])

    assert refusal(source, target) == PassReason.UNREADABLE


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"Rows": 22}, PassReason.CODESTREAM_MISMATCH),
        ({"Columns": 33}, PassReason.CODESTREAM_MISMATCH),
        ({"PixelRepresentation": 1}, PassReason.CODESTREAM_MISMATCH),
        ({"BitsStored": 8, "BitsAllocated": 8, "HighBit": 7}, PassReason.CODESTREAM_MISMATCH),
        ({"BitsStored": 11, "HighBit": 10}, PassReason.UNUSED_BITS_SET),
        ({"NumberOfFrames": 2}, PassReason.FRAME_COUNT),
        ({"NumberOfFrames": 4}, PassReason.FRAME_COUNT),
    ],
)
def test_a_codestream_that_contradicts_the_header_is_refused(
    more: dict[str, int], reason: PassReason, tmp_path: Path, target: Path
) -> None:
    dataset = compressed(NOISE, jpeg_2000(NOISE), JPEG2000Lossless, **more)
    source = save(dataset, tmp_path / "source.dcm")

    assert refusal(source, target) == reason


@pytest.mark.parametrize(
    ("streams", "transfer_syntax"),
    [(jpeg_lossless, JPEGLosslessSV1), (jpeg_2000, JPEG2000Lossless), (rle, RLELossless)],
)
def test_a_broken_frame_is_refused(
    streams: Callable[[Array], list[bytes]], transfer_syntax: str, tmp_path: Path, target: Path
) -> None:
    broken = [stream[:90] for stream in streams(NOISE)]
    source = save(compressed(NOISE, broken, transfer_syntax), tmp_path / "source.dcm")

    assert refusal(source, target) == PassReason.DECODER_FAILED


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(b"", PassReason.UNUSED_BITS_SET), (b"\xff\xd0", PassReason.DECODER_FAILED)],
    ids=["lost", "marker"],
)
def test_a_damaged_jpeg_lossless_frame_is_refused(
    tmp_path: Path, target: Path, damage: bytes, reason: PassReason
) -> None:
    """Of two bytes lost both decoders make words that are too large; at a marker one stops."""
    stream = jpeg_lossless(NOISE[:1])[0]
    middle = len(stream) // 2
    damaged = stream[:middle] + damage + stream[middle + 2 :]
    dataset = compressed(NOISE[:1], [damaged], JPEGLosslessSV1, BitsStored=12, HighBit=11)
    source = save(dataset, tmp_path / "source.dcm")

    assert refusal(source, target) == reason


def test_a_header_that_asks_for_gigabytes_never_reaches_a_decoder(
    tmp_path: Path, target: Path
) -> None:
    stream = jpeg_2000(NOISE[:1])[0]
    bomb = stream[:8] + struct.pack(">LL", 60_000, 60_000) + stream[16:]
    source = save(compressed(NOISE[:1], [bomb], JPEG2000Lossless), tmp_path / "source.dcm")

    assert refusal(source, target) == PassReason.CODESTREAM_MISMATCH


def test_near_lossless_behind_a_lossless_label_is_lossy(tmp_path: Path, target: Path) -> None:
    streams = jpeg_ls(NOISE, near=3)
    source = save(compressed(NOISE, streams, JPEGLSLossless), tmp_path / "source.dcm")

    assert refusal(source, target) == PassReason.LOSSY_SOURCE


def test_the_irreversible_wavelet_behind_a_lossless_label_is_lossy(
    tmp_path: Path, target: Path
) -> None:
    streams = jpeg_2000(NOISE, reversible=False)
    source = save(compressed(NOISE, streams, JPEG2000Lossless), tmp_path / "source.dcm")

    assert refusal(source, target) == PassReason.LOSSY_SOURCE


def test_a_colour_transform_behind_a_ybr_full_label_is_a_mismatch(
    tmp_path: Path, target: Path
) -> None:
    words = np.zeros((1, 12, 13, 3), "<u1")
    dataset = compressed(
        words, jpeg_2000(words, mct=True), JPEG2000Lossless, PhotometricInterpretation="YBR_FULL"
    )
    source = save(dataset, tmp_path / "source.dcm")

    assert refusal(source, target) == PassReason.CODESTREAM_MISMATCH


def test_an_offset_table_that_points_beside_the_fragments_is_refused(
    tmp_path: Path, target: Path
) -> None:
    dataset = compressed(NOISE, jpeg_2000(NOISE), JPEG2000Lossless)
    value = bytearray(dataset.PixelData)
    value[12:16] = struct.pack("<L", 10)
    dataset.PixelData = bytes(value)
    source = save(dataset, tmp_path / "source.dcm")

    assert refusal(source, target) == PassReason.FRAME_COUNT


def test_native_pixels_behind_a_compressed_label_are_a_mismatch(
    tmp_path: Path, target: Path
) -> None:
    source = save(plain(), tmp_path / "source.dcm")
    content = source.read_bytes()
    label = str(ExplicitVRLittleEndian).encode()
    source.write_bytes(content.replace(label, b"1.2.840.10008.1.2.5", 1))

    assert refusal(source, target) == PassReason.CODESTREAM_MISMATCH


def test_a_frame_above_the_limit_is_too_large(tmp_path: Path) -> None:
    source = save(plain(), tmp_path / "source.dcm")

    with pytest.raises(NotConvertibleError) as caught:
        open_source(source, SourceLimits(frame_bytes=1199))

    assert caught.value.reason == PassReason.FRAME_TOO_LARGE


def test_a_deflated_dataset_above_the_limit_is_too_large(tmp_path: Path) -> None:
    dataset = image(
        np.zeros((1, 500, 500, 1), "<u2"), transfer_syntax=DeflatedExplicitVRLittleEndian
    )
    source = save(dataset, tmp_path / "source.dcm")

    with pytest.raises(NotConvertibleError) as caught:
        open_source(source, SourceLimits(inflated_bytes=400_000))

    assert caught.value.reason == PassReason.FRAME_TOO_LARGE


@pytest.mark.parametrize(
    ("words", "bits", "clean"),
    [
        ([0, 4095], 12, True), ([0, 4096], 12, False), ([65535], 16, True),
        ([-2048, 2047], 12, True), ([-2049, 0], 12, False), ([2048], 12, False),
    ],
)  # fmt: skip
def test_clean_bits_are_the_extension_of_the_stored_ones(
    words: list[int], bits: int, clean: bool
) -> None:
    signed = bits == 12 and (min(words) < 0 or max(words) == 2048)

    assert has_clean_bits(np.array(words, "<i2" if signed else "<u2"), bits) is clean


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda\0\2", b"\xff\xd8\0\0\0\0"])
def test_what_is_no_jpeg_is_a_codec_error(data: bytes) -> None:
    with pytest.raises(CodecError):
        jpeg_header(data)


def test_a_jpeg_of_comments_is_not_read_to_its_end() -> None:
    with pytest.raises(CodecError, match="no scan begins"):
        jpeg_header(b"\xff\xd8" + b"\xff\xfe\0\2" * 2**19)


@settings(max_examples=150)
@given(
    name=st.sampled_from(
        ("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm", "MR_small_RLE.dcm",
         "MR_small_jp2klossless.dcm", "SC_rgb_small_odd.dcm")
    ),
    at=st.floats(0, 1),
    near_the_start=st.booleans(),
    damage=st.binary(min_size=1, max_size=4),
    cut=st.booleans(),
)  # fmt: skip
def test_a_damaged_file_is_converted_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    name: str, at: float, near_the_start: bool, damage: bytes, cut: bool,
) -> None:  # fmt: skip
    content = shipped(name).read_bytes()
    size = min(len(content), 3000) if near_the_start else len(content)
    place = 132 + int(at * (size - 132))
    source = tmp_path_factory.mktemp("damaged") / "source.dcm"
    source.write_bytes(content[:place] + damage + content[place if cut else place + len(damage) :])
    native, target = source.with_name("native.dcm"), source.with_name("target.dcm")

    with contextlib.suppress(NotConvertibleError):
        digest(source)
    with contextlib.suppress(NotConvertibleError):
        decode_for_peer(source, native, ImplicitVRLittleEndian, decode_lossy=True)
    with contextlib.suppress(NotConvertibleError):
        convert(source, target)
        assert decoded(target, OPENJPEG).size
