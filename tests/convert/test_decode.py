"""Native copies for peers that refuse a transfer syntax."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from scp.convert.decode import decode_for_peer
from scp.convert.digests import digest
from scp.convert.refusals import NotConvertibleError
from scp.model import PassReason
from tests.convert.images import (
    Array,
    codestreams,
    convert,
    dataset_bytes,
    header_differences,
    image,
    pixels,
    ramp,
    save,
    shipped,
)
from tests.convert.test_recode import rich

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
LOSSLESS = [
    "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
    "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_jpeg_gdcm.dcm", "examples_jpeg2k.dcm",
    "rtdose_rle.dcm", "SC_rgb_rle_32bit_2frame.dcm",
]  # fmt: skip
LOSSY = [
    "JPEG-lossy.dcm", "JPGExtended.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_16.dcm",
    "JPEGLSNearLossless_08.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_gdcm_KY.dcm",
]  # fmt: skip

TWELVE_BITS = ("JPEG-lossy.dcm", "JPGExtended.dcm")
"""Nothing that pydicom knows decodes these."""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "native.dcm"


def noise(samples: int = 1) -> Array:
    return np.random.default_rng(5).integers(0, 4096, (3, 15, 17, samples)).astype("<u2")


@pytest.mark.parametrize("transfer_syntax", NATIVE, ids=["explicit", "implicit"])
@pytest.mark.parametrize("samples", [1, 3])
def test_our_own_htj2k_comes_back_as_it_was(
    tmp_path: Path, target: Path, transfer_syntax: str, samples: int
) -> None:
    source = save(image(noise(samples), bits_stored=12), tmp_path / "source.dcm")
    convert(source, tmp_path / "htj2k.dcm")

    decode_for_peer(tmp_path / "htj2k.dcm", target, transfer_syntax, decode_lossy=False)

    assert dcmread(target).file_meta.TransferSyntaxUID == transfer_syntax
    assert digest(target).normal == digest(source).normal


@pytest.mark.parametrize("transfer_syntax", NATIVE, ids=["explicit", "implicit"])
@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_file_is_decoded(name: str, target: Path, transfer_syntax: str) -> None:
    source = shipped(name)

    decode_for_peer(source, target, transfer_syntax, decode_lossy=False)

    assert np.array_equal(pixels(target), pixels(source))
    assert header_differences(source, target) == []
    photometric = dcmread(source).PhotometricInterpretation
    assert dcmread(target).PhotometricInterpretation == photometric.replace("YBR_RCT", "RGB")


@pytest.mark.parametrize("transfer_syntax", NATIVE, ids=["explicit", "implicit"])
@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm", "image_dfl.dcm", "rtdose.dcm",
     "rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm", "liver_1frame.dcm"],
)  # fmt: skip
def test_a_native_file_is_copied_in_the_other_encoding(
    name: str, target: Path, transfer_syntax: str
) -> None:
    source = shipped(name)

    decode_for_peer(source, target, transfer_syntax, decode_lossy=False)

    assert dcmread(target).file_meta.TransferSyntaxUID == transfer_syntax
    assert digest(target).normal == digest(source).normal


@pytest.mark.parametrize(
    ("transfer_syntax", "wanted"),
    [
        (ExplicitVRBigEndian, ExplicitVRLittleEndian),
        (DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian),
    ],
)
def test_a_rich_header_is_copied_in_the_other_encoding(
    tmp_path: Path, target: Path, transfer_syntax: str, wanted: str
) -> None:
    source = save(rich(transfer_syntax), tmp_path / "source.dcm")

    decode_for_peer(source, target, wanted, decode_lossy=False)

    raw = transfer_syntax != ExplicitVRBigEndian
    assert header_differences(source, target, raw=raw) == []
    assert np.array_equal(pixels(target), pixels(source))


def test_an_explicit_file_stays_byte_for_byte(tmp_path: Path, target: Path) -> None:
    source = save(rich(ExplicitVRLittleEndian), tmp_path / "source.dcm")

    decode_for_peer(source, target, ExplicitVRLittleEndian, decode_lossy=False)

    assert target.read_bytes() == source.read_bytes()


def test_the_native_original_is_copied_rather_than_decoded(tmp_path: Path, target: Path) -> None:
    original = save(image(ramp(), bits_stored=12), tmp_path / "original.dcm")
    htj2k = tmp_path / "htj2k.dcm"
    convert(original, htj2k)
    htj2k.write_bytes(htj2k.read_bytes().replace(b"\xff\x4f\xff\x51", b"\xff\x4f\xff\x52"))

    decode_for_peer(htj2k, target, ExplicitVRLittleEndian, decode_lossy=False, original=original)

    assert dataset_bytes(target) == dataset_bytes(original)


def test_a_damaged_original_is_not_copied_and_a_damaged_source_not_decoded(
    tmp_path: Path, target: Path
) -> None:
    original = save(image(ramp(), bits_stored=12), tmp_path / "original.dcm")
    htj2k = tmp_path / "htj2k.dcm"
    convert(original, htj2k)
    received = dataset_bytes(original)
    committed = sha256(htj2k.read_bytes()).hexdigest()

    def decode() -> bytes:
        decode_for_peer(
            htj2k,
            target,
            ExplicitVRLittleEndian,
            decode_lossy=False,
            original=original,
            sha256=committed,
            original_dataset_sha256=sha256(received).hexdigest(),
        )
        return dataset_bytes(target)

    damage(original)
    assert decode() == received  # Decoded, for the original says something else now.
    damage(htj2k)
    with pytest.raises(NotConvertibleError, match="not the one that was committed"):
        decode()
    assert not target.exists()


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_original_of_another_instance_is_not_taken(tmp_path: Path, target: Path) -> None:
    dataset = image(ramp(), bits_stored=12)
    convert(save(dataset, tmp_path / "one.dcm"), tmp_path / "htj2k.dcm")
    dataset.SOPInstanceUID = "2.25.77"
    other = save(dataset, tmp_path / "other.dcm")

    decode_for_peer(
        tmp_path / "htj2k.dcm", target, ExplicitVRLittleEndian, decode_lossy=False, original=other
    )

    assert dcmread(target).SOPInstanceUID == "2.25.1001"


@pytest.mark.parametrize("name", LOSSY)
def test_a_lossy_file_is_decoded_only_where_that_is_wanted(name: str, target: Path) -> None:
    with pytest.raises(NotConvertibleError) as caught:
        decode_for_peer(shipped(name), target, ExplicitVRLittleEndian, decode_lossy=False)

    assert caught.value.reason == PassReason.LOSSY_SOURCE
    assert not target.exists()


@pytest.mark.parametrize("name", LOSSY)
def test_a_decoded_lossy_file_says_that_it_was_lossy(name: str, target: Path) -> None:
    source = shipped(name)

    decode_for_peer(source, target, ExplicitVRLittleEndian, decode_lossy=True)

    result = dcmread(target)
    assert result.LossyImageCompression == "01"
    assert [d for d in header_differences(source, target) if "00282110" not in d] == []
    if name not in TWELVE_BITS:
        assert np.abs(pixels(target).astype(int) - pixels(source)).max() <= 1


@pytest.mark.parametrize(
    "name",
    ["examples_ybr_color.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_small_odd_jpeg.dcm",
     "SC_jpeg_no_color_transform.dcm"],
)  # fmt: skip
def test_colour_of_lossy_jpeg_comes_as_rgb(name: str, target: Path) -> None:
    decode_for_peer(shipped(name), target, ImplicitVRLittleEndian, decode_lossy=True)

    result = dcmread(target)
    reference = dcmread(shipped(name))
    assert result.PhotometricInterpretation == "RGB"
    assert result.pixel_array.shape == reference.pixel_array.shape


def test_a_damaged_frame_is_not_passed_on(tmp_path: Path, target: Path) -> None:
    convert(save(image(noise(), bits_stored=12), tmp_path / "source.dcm"), tmp_path / "htj2k.dcm")
    content = (tmp_path / "htj2k.dcm").read_bytes()
    frame = codestreams(tmp_path / "htj2k.dcm")[1]
    (tmp_path / "htj2k.dcm").write_bytes(
        content.replace(frame, frame[:80] + bytes(len(frame) - 80))
    )

    with pytest.raises(NotConvertibleError):
        decode_for_peer(tmp_path / "htj2k.dcm", target, ExplicitVRLittleEndian, decode_lossy=False)
    assert not target.exists()


@pytest.mark.parametrize("transfer_syntax", ["1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.2", ""])
def test_only_the_little_endian_native_syntaxes_are_made(
    target: Path, transfer_syntax: str
) -> None:
    with pytest.raises(NotConvertibleError):
        decode_for_peer(shipped("CT_small.dcm"), target, transfer_syntax, decode_lossy=False)
