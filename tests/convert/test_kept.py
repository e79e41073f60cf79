"""What stands beside the pixels stays what it was, whatever encoding it came in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from tests.convert.images import (
    OPENJPEG,
    convert,
    decoded,
    header_differences,
    image,
    ramp,
    save,
    words,
)
from tests.convert.streams import compressed, jpeg_2000, rle

WORDS = ramp(6, 10, 2)
SIGNED = (WORDS.astype(int) - 2048).astype("<i2")
SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG 2000": JPEG2000Lossless,
}


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def icon(dataset: Dataset, big: bool) -> None:
    """Its pixels are native also where those of the image are not (PS3.5 A.4)."""
    small = _item(
        SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", Rows=3, Columns=5,
        BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0,
    )  # fmt: skip
    small.PixelData = bytes(range(15)) + b"\0"
    small["PixelData"].VR = "OB"
    dataset.IconImageSequence = [small]


def lossy_history(dataset: Dataset, big: bool) -> None:
    """Native now, but not what the detector saw (PS3.3 C.7.6.1.1.5)."""
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = ["10.5", "3"]
    dataset.LossyImageCompressionMethod = ["ISO_10918_1", "ISO_15444_1"]
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.DerivationDescription = "lossy, twice"


def encrypted(dataset: Dataset, big: bool) -> None:
    dataset.EncryptedAttributesSequence = [
        _item(
            EncryptedContentTransferSyntaxUID=ExplicitVRLittleEndian,
            EncryptedContent=bytes(range(256)),
        )
    ]


def overlay_planes(dataset: Dataset, big: bool) -> None:
    """With data of their own, in two groups; a curve beside them."""
    for group in (0x6000, 0x601E):
        dataset.add_new(group << 16 | 0x10, "US", 6)
        dataset.add_new(group << 16 | 0x11, "US", 10)
        dataset.add_new(group << 16 | 0x40, "CS", "G")
        dataset.add_new(group << 16 | 0x50, "SS", [1, -1])
        dataset.add_new(group << 16 | 0x100, "US", 1)
        dataset.add_new(group << 16 | 0x102, "US", 0)
        plane = words(np.array([1, 2, 3, 0xFF00], "<u2"), big=big)
        dataset.add_new(group << 16 | 0x3000, "OW", plane)
    dataset.add_new(0x50003000, "OW", words(np.array([7, 8], "<u2"), big=big))


def padding(dataset: Dataset, big: bool) -> None:
    """Of the pixels' own sign (PS3.5 7.5)."""
    is_signed = dataset.PixelRepresentation == 1
    for keyword, value in (
        ("PixelPaddingValue", -2000 if is_signed else 63536),
        ("PixelPaddingRangeLimit", -1900 if is_signed else 63636),
        ("SmallestImagePixelValue", -2048 if is_signed else 0),
        ("LargestImagePixelValue", 2047 if is_signed else 65535),
    ):
        setattr(dataset, keyword, value)
        dataset[keyword].VR = "SS" if is_signed else "US"


def references(dataset: Dataset, big: bool) -> None:
    """Whose UIDs are not ours to change, this instance's own first."""
    dataset.SOPInstanceUID = "2.25.4711"
    dataset.SourceImageSequence = [
        _item(ReferencedSOPClassUID=dataset.SOPClassUID, ReferencedSOPInstanceUID="2.25.4710")
    ]


KEPT = (icon, lossy_history, encrypted, overlay_planes, padding, references)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("put", KEPT)
def test_what_stands_beside_the_pixels_is_the_same(
    tmp_path: Path, put: Callable[[Dataset, bool], None], syntax: str, signed: bool
) -> None:
    frames = SIGNED if signed else WORDS
    uid = SYNTAXES[syntax]
    streams = {"RLE": rle, "JPEG 2000": jpeg_2000}.get(syntax)
    dataset = (
        image(frames, transfer_syntax=uid)
        if streams is None
        else compressed(frames, streams(frames), uid)
    )
    put(dataset, syntax == "big endian")
    source, target = save(dataset, tmp_path / "source.dcm"), tmp_path / "target.dcm"

    convert(source, target)

    assert header_differences(source, target, raw=syntax != "big endian") == []
    assert np.array_equal(decoded(target, OPENJPEG), frames)
    before, after = dcmread(source), dcmread(target)
    for element in before:
        if element.tag.group not in (0x7FE0, 0x0002) and not element.tag.is_private:
            # Of implicit curves pydicom says "OB or OW".
            assert after[element.tag].VR in element.VR, element.tag


def test_an_icon_stays_native_and_of_defined_length(tmp_path: Path) -> None:
    dataset = image(WORDS)
    icon(dataset, False)
    source, target = save(dataset, tmp_path / "source.dcm"), tmp_path / "target.dcm"

    convert(source, target)

    (small,) = dcmread(target).IconImageSequence
    assert not small["PixelData"].is_undefined_length
    assert small.PixelData == bytes(range(15)) + b"\0"


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian", "deflated"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("segmented", [False, True])
def test_a_palette_is_not_applied_but_kept(
    tmp_path: Path, syntax: str, bits: int, segmented: bool
) -> None:
    big = syntax == "big endian"
    indices = (WORDS % 200).astype(f"<u{bits // 8}")
    dataset = image(indices, photometric="PALETTE COLOR", transfer_syntax=SYNTAXES[syntax])
    name = (
        "Segmented{}PaletteColorLookupTableData" if segmented else "{}PaletteColorLookupTableData"
    )
    for number, colour in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        dataset[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        keyword = name.format(colour)
        table = np.arange(256, dtype="<u2") * 256 + number
        setattr(dataset, keyword, words(table, big=big))
        dataset[keyword].VR = "OW"
    source, target = save(dataset, tmp_path / "source.dcm"), tmp_path / "target.dcm"

    convert(source, target)

    result = dcmread(target)
    assert header_differences(source, target, raw=not big) == []
    assert result.PhotometricInterpretation == "PALETTE COLOR"
    assert result.PixelRepresentation == 0
    assert result[name.format("Blue")].value[:4] == b"\2\0\2\1"
    assert np.array_equal(decoded(target, OPENJPEG), indices)


def test_what_described_the_old_fragments_is_gone(tmp_path: Path) -> None:
    streams = jpeg_2000(WORDS)
    dataset = compressed(WORDS, streams, JPEG2000Lossless)
    dataset.EncapsulatedPixelDataValueTotalLength = sum(map(len, streams))
    source, target = save(dataset, tmp_path / "source.dcm"), tmp_path / "target.dcm"

    convert(source, target)

    result = dcmread(target)
    assert [tag for tag in result.keys() if tag.group == 0x7FE0] == [0x7FE00010]  # noqa: SIM118
