"""What came as HTJ2K may become a frame as it is, once two decoders and our parser agree about it."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    RLELossless,
)

from scp.convert.received import prove_received
from scp.convert.refusals import NotConvertibleError
from scp.model import PassReason
from tests.convert.images import Array, convert, image, ramp, save


def encoded(frame: Array, **options: Any) -> bytes:
    return bytes(imagecodecs.htj2k_encode(frame, tlm=True, tilepart=1, **options))


def htj2k(
    words: Array,
    *,
    bits_stored: int = 12,
    syntax: str = HTJ2KLosslessRPCL,
    codestream: bytes | None = None,
) -> Dataset:
    """As another product writes it: the precision of the words, not of Bits Stored."""
    dataset = image(words, bits_stored=bits_stored)
    frames = [codestream or encoded(frame) for frame in words[..., 0]]
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def refused(path: Path) -> PassReason:
    with pytest.raises(NotConvertibleError) as refusal:
        prove_received(path)
    return refusal.value.reason


@pytest.mark.parametrize("progression", ["RPCL", "LRCP"])
def test_what_this_product_wrote_is_proved_with_its_label(tmp_path: Path, progression: str) -> None:
    native = save(image(ramp(), bits_stored=12), tmp_path / "native.dcm")
    made = convert(native, tmp_path / "htj2k.dcm", progression=progression)

    proved = prove_received(tmp_path / "htj2k.dcm")

    assert (proved.pixel_sha256, proved.transfer_syntax) == (
        made.pixel_sha256,
        made.transfer_syntax,
    )
    assert "openjpeg" in proved.decoders.lower()
    assert "openjph" in proved.decoders.lower()


def test_a_codestream_of_more_bits_than_are_stored_keeps_only_the_plain_label(
    tmp_path: Path,
) -> None:
    path = save(htj2k(ramp()), tmp_path / "a.dcm")

    assert prove_received(path).transfer_syntax == HTJ2KLossless


def test_what_is_no_frame_by_itself_stays_what_it_is(tmp_path: Path) -> None:
    lossy = save(htj2k(ramp(), syntax=HTJ2K), tmp_path / "lossy.dcm")
    several = save(htj2k(ramp(frames=2)), tmp_path / "several.dcm")
    rle = image(ramp())
    rle.compress(RLELossless, generate_instance_uid=False)

    assert refused(lossy) == PassReason.ALREADY_HTJ2K
    assert refused(several) == PassReason.ALREADY_HTJ2K
    assert refused(save(rle, tmp_path / "rle.dcm")) == PassReason.ALREADY_HTJ2K


def test_a_codestream_that_loses_something_in_spite_of_its_label_is_refused(
    tmp_path: Path,
) -> None:
    words = ramp()
    lossy = encoded(words[0, ..., 0], level=0.01, reversible=False)
    path = save(htj2k(words, codestream=lossy), tmp_path / "a.dcm")

    assert refused(path) == PassReason.CODESTREAM_MISMATCH


def test_junk_in_unused_bits_is_refused(tmp_path: Path) -> None:
    words = ramp()
    words[0, 3, 4] = 0x1001
    path = save(htj2k(words), tmp_path / "a.dcm")

    assert refused(path) == PassReason.UNUSED_BITS_SET


def test_an_unsigned_codestream_of_signed_pixels_is_refused(tmp_path: Path) -> None:
    dataset = htj2k(ramp())
    dataset.PixelRepresentation = 1

    assert refused(save(dataset, tmp_path / "a.dcm")) == PassReason.CODESTREAM_MISMATCH


def test_a_codestream_that_is_cut_is_refused(tmp_path: Path) -> None:
    whole = encoded(ramp()[0, ..., 0])
    path = save(htj2k(ramp(), codestream=whole[: len(whole) // 2]), tmp_path / "a.dcm")

    assert refused(path) == PassReason.DECODER_FAILED


def test_a_codestream_that_two_decoders_read_differently_is_refused(tmp_path: Path) -> None:
    """Damage within the coded data, which neither need notice."""
    whole = encoded(ramp()[0, ..., 0])
    reasons, details = set(), set()
    for at in range(len(whole) * 2 // 3, len(whole) - 2, 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        path = save(htj2k(ramp(), codestream=bytes(damaged)), tmp_path / "a.dcm")
        try:
            prove_received(path)
        except NotConvertibleError as error:
            reasons.add(error.reason)
            details.add(error.detail)

    assert "OpenJPEG and OpenJPH disagree about a frame" in details
    assert PassReason.DECODER_FAILED in reasons


def test_a_frame_in_two_fragments_is_refused(tmp_path: Path) -> None:
    dataset = htj2k(ramp())
    dataset.PixelData = encapsulate([encoded(ramp()[0, ..., 0])], fragments_per_frame=2)

    assert refused(save(dataset, tmp_path / "a.dcm")) == PassReason.CODESTREAM_MISMATCH


def test_signed_words_are_what_the_digest_is_of(tmp_path: Path) -> None:
    words = ramp().astype(np.int16) - 2048
    native = save(image(words, bits_stored=12), tmp_path / "native.dcm")
    made = convert(native, tmp_path / "htj2k.dcm")

    assert prove_received(tmp_path / "htj2k.dcm").pixel_sha256 == made.pixel_sha256
