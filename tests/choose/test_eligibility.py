"""What is transcoded, and the reason for what is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from scp.choose.eligibility import EXPLANATIONS, TABLE, Refusal, ineligible
from scp.choose.image_header import ImageHeader, read_image_header
from scp.model import PassReason
from tests.choose.images import (
    EXPLICIT,
    JPEG_LOSSLESS,
    NATIVE,
    RLE,
    image,
    raw_element,
    raw_file,
    with_elements,
)

LOSSLESS = (RLE, JPEG_LOSSLESS, *(f"1.2.840.10008.1.2.4.{last}" for last in (57, 80, 90)))
J2K = "1.2.840.10008.1.2.4.90"
COLOUR: dict[str, Any] = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
}
EIGHT_BITS: dict[str, Any] = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def reason_of(content: bytes) -> PassReason | None:
    return reason_in(read_image_header(content))


def reason_in(header: ImageHeader) -> PassReason | None:
    refusal = ineligible(header)
    return None if refusal is None else refusal.reason


def overlay(
    group: int = 0x6000, *, bits_allocated: int = 1, bit_position: int = 0, has_data: bool = True
) -> list[DataElement]:
    elements = [
        DataElement(group << 16 | 0x0010, "US", 4),
        DataElement(group << 16 | 0x0011, "US", 4),
        DataElement(group << 16 | 0x0100, "US", bits_allocated),
        DataElement(group << 16 | 0x0102, "US", bit_position),
    ]
    if has_data:
        elements.append(DataElement(group << 16 | 0x3000, "OW", b"\0\0"))
    return elements


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS])
def test_native_and_losslessly_compressed_images_are_eligible(syntax: str) -> None:
    assert reason_of(image(syntax)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"BitsStored": 8, "HighBit": 7},
        {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1},
        {"BitsStored": 1, "HighBit": 0},
        {**EIGHT_BITS, "PixelRepresentation": 1},
        {**EIGHT_BITS, "PhotometricInterpretation": "MONOCHROME1"},
        {**EIGHT_BITS, "PhotometricInterpretation": "PALETTE COLOR"},
        {**EIGHT_BITS, **COLOUR},
        {**COLOUR},
        {**EIGHT_BITS, **COLOUR, "PlanarConfiguration": 1},
        {**EIGHT_BITS, **COLOUR, "PhotometricInterpretation": "YBR_FULL"},
        {"NumberOfFrames": 2},
        {"NumberOfFrames": ""},
        {"LossyImageCompression": "01"},
    ],
)
def test_every_kind_of_pixel_that_htj2k_holds_is_eligible(changes: dict[str, Any]) -> None:
    assert reason_of(image(**changes)) is None


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (PassReason.NO_PIXEL_DATA, {"PixelData": None}),
        (PassReason.FLOAT_PIXEL_DATA, {"PixelData": None, "FloatPixelData": bytes(64)}),
        (PassReason.FLOAT_PIXEL_DATA, {"PixelData": None, "DoubleFloatPixelData": bytes(128)}),
        (PassReason.FLOAT_PIXEL_DATA, {"FloatPixelData": bytes(64)}),
        (PassReason.DIGITAL_SIGNATURE, {"DigitalSignaturesSequence": [Dataset()]}),
        (PassReason.DIGITAL_SIGNATURE, {"MACParametersSequence": [Dataset()]}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"SamplesPerPixel": None}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"SamplesPerPixel": 4}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"PhotometricInterpretation": None}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"Rows": 0}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"Columns": None}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"BitsAllocated": None}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"BitsStored": None}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"HighBit": None}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"PixelRepresentation": None}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {"PixelRepresentation": 2}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {**COLOUR, "PlanarConfiguration": None}),
        (PassReason.PIXEL_ATTRIBUTE_MISSING, {**COLOUR, "PlanarConfiguration": 2}),
        *(
            (PassReason.BITS_ALLOCATED, {"BitsAllocated": bits, "BitsStored": 1, "HighBit": 0})
            for bits in (1, 12, 24, 32, 40, 64)
        ),
        (PassReason.BITS_STORED, {"BitsStored": 17, "HighBit": 16}),
        (PassReason.BITS_STORED, {"BitsStored": 0}),
        (PassReason.HIGH_BIT, {"HighBit": 15}),
        (PassReason.SIGNED_COLOUR, {**COLOUR, "PixelRepresentation": 1}),
        (
            PassReason.SIGNED_COLOUR,
            {"PhotometricInterpretation": "PALETTE COLOR", "PixelRepresentation": 1},
        ),
        *(
            (PassReason.PHOTOMETRIC_INTERPRETATION, {**COLOUR, "PhotometricInterpretation": name})
            for name in (
                "YBR_FULL_422",
                "YBR_PARTIAL_422",
                "YBR_PARTIAL_420",
                "YBR_RCT",
                "YBR_ICT",
                "ARGB",
                "MONOCHROME2",
                "NONSENSE",
            )
        ),
        (PassReason.PHOTOMETRIC_INTERPRETATION, {"PhotometricInterpretation": "RGB"}),
        (PassReason.FRAME_COUNT, {"NumberOfFrames": 0}),
        (PassReason.FRAME_COUNT, {"NumberOfFrames": -1}),
    ],
)
def test_what_is_not_eligible_has_its_reason(reason: PassReason, changes: dict[str, Any]) -> None:
    assert reason_of(image(**changes)) is reason


@pytest.mark.parametrize(
    ("reason", "syntaxes"),
    [
        (PassReason.ALREADY_HTJ2K, "4.201 4.202 4.203"),
        (
            PassReason.LOSSY_SOURCE,
            "4.50 4.51 4.52 4.53 4.55 4.59 4.64 4.81 4.91 4.93 4.111 4.112",
        ),
        (
            PassReason.VIDEO_OR_REFERENCED,
            "4.100 4.101 4.101.1 4.102 4.103 4.104 4.105 4.106 4.106.1 4.107 4.108"
            " 4.94 4.95 4.204 4.205 7.1 7.2 7.3",
        ),
        (
            PassReason.UNKNOWN_TRANSFER_SYNTAX,
            "4.58 4.65 4.92 4.110 8.1 1.98 99.1",
        ),
    ],
)
def test_a_transfer_syntax_is_refused_with_its_reason(reason: PassReason, syntaxes: str) -> None:
    uids = [f"1.2.840.10008.1.2.{last}" for last in syntaxes.split()]
    header = read_image_header(image(RLE))

    reasons = {uid: reason_in(replace(header, transfer_syntax=uid)) for uid in uids}

    assert reasons == dict.fromkeys(uids, reason)


@pytest.mark.parametrize(
    ("last", "changes", "reason"),
    [
        (201, {}, None),
        (202, {}, None),
        (203, {}, PassReason.ALREADY_HTJ2K),
        (202, {"NumberOfFrames": 2}, PassReason.ALREADY_HTJ2K),
        (202, COLOUR, PassReason.ALREADY_HTJ2K),
        (202, {"HighBit": 15}, PassReason.HIGH_BIT),
    ],
)
def test_a_frame_that_came_as_htj2k_may_be_part_of_a_volume(
    last: int, changes: dict[str, Any], reason: PassReason | None
) -> None:
    header = read_image_header(image(RLE, **changes))
    header = replace(header, transfer_syntax=f"1.2.840.10008.1.2.4.{last}")

    refusal = ineligible(header, is_for_volume=True)

    assert (refusal and refusal.reason) is reason


def test_a_private_transfer_syntax_is_unknown() -> None:
    content = raw_file(raw_element(0x7FE00010, "OB", b"\0\0"), transfer_syntax="1.2.276.0.99")

    assert reason_of(content) is PassReason.UNKNOWN_TRANSFER_SYNTAX


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.204"])
def test_a_reference_to_pixels_elsewhere_is_not_taken_for_one_without(syntax: str) -> None:
    content = image(syntax, PixelData=None, PixelDataProviderURL="https://pixels.example/1")

    assert reason_of(content) is PassReason.VIDEO_OR_REFERENCED


def test_rct_is_eligible_only_in_jpeg_2000() -> None:
    rct = {**EIGHT_BITS, **COLOUR, "PhotometricInterpretation": "YBR_RCT"}

    assert reason_of(image(J2K, **rct)) is None
    assert reason_of(image(RLE, **rct)) is PassReason.PHOTOMETRIC_INTERPRETATION


def test_compressed_colour_needs_no_planar_configuration() -> None:
    assert reason_of(image(J2K, **{**EIGHT_BITS, **COLOUR, "PlanarConfiguration": None})) is None


@pytest.mark.parametrize(
    ("elements", "is_refused"),
    [
        (overlay(), False),
        (overlay(0x601E), False),
        (overlay(0x6001), False),
        (overlay(bits_allocated=16, bit_position=12, has_data=False), True),
        (overlay(0x6002, bits_allocated=16, bit_position=12, has_data=False), True),
        (overlay(bits_allocated=16), True),
        (overlay(bit_position=12), True),
        (overlay(has_data=False), True),
        (overlay()[:2] + overlay()[4:], False),
        (overlay() + overlay(0x6002, bit_position=15), True),
        ([DataElement(0x60000022, "LO", "description")], False),
    ],
)
def test_an_overlay_in_unused_bits_is_not_lost(
    elements: list[DataElement], is_refused: bool
) -> None:
    reason = reason_of(with_elements(*elements))

    assert reason == (PassReason.OVERLAY_IN_PIXEL_DATA if is_refused else None)


def test_an_instance_larger_than_is_converted_is_refused() -> None:
    header = read_image_header(image(NumberOfFrames=3))

    assert header.native_bytes == 96
    assert ineligible(header, max_native_bytes=96) is None
    refusal = ineligible(header, max_native_bytes=95)
    assert refusal is not None
    assert refusal.reason is PassReason.FRAME_TOO_LARGE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no DICOM file",
        image()[:200],
        image(RLE)[:-10],
        raw_file(raw_element(0x00280010, "US", b"\4\0"), raw_element(0x00280010, "US", b"\5\0")),
        raw_file(b"\x08\x00\x60\x00\x00\x00\x00\x00"),
    ],
)
def test_what_cannot_be_read_is_refused(content: bytes) -> None:
    assert reason_of(content) is PassReason.UNREADABLE


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00280010, "US", b"\4\0\4\0"),
        (0x00280010, "US", b""),
        (0x00280010, "DS", b"4 "),
        (0x00280008, "IS", b"1\\2 "),
    ],
)
def test_an_attribute_of_another_type_is_as_if_absent(tag: int, vr: str, value: bytes) -> None:
    header = read_image_header(raw_file(raw_element(tag, vr, value)))

    assert header.rows is None
    assert header.number_of_frames in (None, 1)


def test_pixel_data_inside_a_sequence_is_no_pixel_data() -> None:
    icon = Dataset()
    icon.Rows = icon.Columns = 1
    icon.PixelData = b"\0\0"
    icon["PixelData"].VR = "OW"

    content = image(PixelData=None, IconImageSequence=[icon])

    assert reason_of(content) is PassReason.NO_PIXEL_DATA


@pytest.mark.parametrize("syntax", [*NATIVE, RLE])
def test_the_header_says_how_the_pixels_are_written(syntax: str, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(image(syntax, NumberOfFrames=2, frames=2))

    assert read_image_header(path) == ImageHeader(
        transfer_syntax=syntax,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        number_of_frames=2,
        rows=4,
        columns=4,
        bits_allocated=16,
        bits_stored=12,
        high_bit=11,
        pixel_representation=0,
        has_pixel_data=True,
    )


def test_the_table_explains_every_reason_in_its_order() -> None:
    assert [row.reason for row in TABLE] == list(PassReason)
    assert all(text.endswith(".") for text in EXPLANATIONS.values())


def test_a_refusal_quotes_nothing_that_a_sender_could_have_put_there() -> None:
    header = read_image_header(image())

    refusal = ineligible(replace(header, photometric_interpretation="DOE"))

    assert isinstance(refusal, Refusal)
    assert "DOE" not in refusal.detail


@given(st.binary(max_size=300), st.sampled_from([*NATIVE, *LOSSLESS, "1.2.3"]))
def test_any_dataset_gives_an_answer(dataset: bytes, syntax: str) -> None:
    ineligible(read_image_header(raw_file(dataset, transfer_syntax=syntax)))


@given(st.binary(max_size=300))
def test_any_bytes_are_unreadable(content: bytes) -> None:
    assert reason_of(content) is PassReason.UNREADABLE


@given(st.data(), st.sampled_from([*NATIVE, *LOSSLESS]))
def test_any_damage_gives_an_answer(data: st.DataObject, syntax: str) -> None:
    content = bytearray(image(syntax))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))

    ineligible(read_image_header(bytes(content[: data.draw(st.integers(0, len(content)))])))


def test_every_file_of_the_corpus_gives_an_answer(corpus: Path) -> None:
    reasons = {
        path: reason_of(path.read_bytes()) for path in sorted(corpus.rglob("*")) if path.is_file()
    }

    assert sum(reason is None for reason in reasons.values()) > 300
    for path, reason in reasons.items():
        assert reason_in(read_image_header(path)) == reason


def test_explicit_is_what_images_here_are_written_in() -> None:
    assert read_image_header(image()).transfer_syntax == EXPLICIT
