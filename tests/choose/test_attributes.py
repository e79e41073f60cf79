"""Reading what rules match on."""

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement

from scp.choose.attributes import Attribute, Attributes, read_attributes, wanted
from scp.config.schema import Rule
from tests.choose.images import image, raw_element, raw_file, with_elements
from tests.encodings import deflated

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "encapsulated": "1.2.840.10008.1.2.4.70",
}
PRIVATE = "0019,xx0C:MAKER 1"


def read(source: Path | bytes, *keys: str) -> dict[str, tuple[str, ...]]:
    found = found_in(source, *keys)
    return {key: attribute.values for key, attribute in found.found}


def found_in(source: Path | bytes, *keys: str) -> Attributes:
    condition: dict[str, Any] = {"exists": True}
    rule = Rule(name="a", match=dict.fromkeys(keys, condition), send_to=())  # type: ignore[arg-type]
    return read_attributes(source, wanted([rule]))


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=list(SYNTAXES))
def test_values_are_read_in_every_encoding(syntax: str) -> None:
    content = image(
        syntax,
        PatientName="Doe^John",
        SliceThickness="2.50",
        SeriesNumber="7",
        RecommendedDisplayFrameRateInFloat=0.1,
        SmallestImagePixelValue=3,
        FrameIncrementPointer=0x00181063,
        TableOfYBreakPoints=5,
        PatientComments="a\\b",
    )

    values = read(
        content,
        "ImageType",
        "PatientName",
        "SliceThickness",
        "SeriesNumber",
        "Rows",
        "RecommendedDisplayFrameRateInFloat",
        "SmallestImagePixelValue",
        "FrameIncrementPointer",
        "TableOfYBreakPoints",
        "PatientComments",
        "PixelData",
        "PatientID",
    )

    assert values == {
        "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "PatientName": ("Doe^John",),
        "SliceThickness": ("2.50",),
        "SeriesNumber": ("7",),
        "Rows": ("4",),
        "RecommendedDisplayFrameRateInFloat": ("0.1",),
        "SmallestImagePixelValue": ("3",),
        "FrameIncrementPointer": ("0018,1063",),
        "TableOfYBreakPoints": ("5.0",),
        "PatientComments": ("a\\b",),
        "PixelData": (),
    }


@pytest.mark.parametrize(
    ("keyword", "is_number"),
    [("Rows", True), ("SliceThickness", True), ("SeriesNumber", True), ("AccessionNumber", False)],
)
def test_numeric_attributes_are_marked(keyword: str, is_number: bool) -> None:
    content = image(SliceThickness="1", SeriesNumber="1", AccessionNumber="1")

    attribute = found_in(content, keyword).get(keyword)

    assert attribute is not None
    assert attribute.is_number is is_number


def test_signed_values_follow_the_pixel_representation() -> None:
    signed = image(PixelRepresentation=1, SmallestImagePixelValue=-5)

    assert read(signed, "SmallestImagePixelValue") == {"SmallestImagePixelValue": ("-5",)}


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "山田^太郎"),
        ("GB18030", "王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    ],
)
def test_text_is_decoded_by_its_character_set(character_set: Any, name: str) -> None:
    content = image(SpecificCharacterSet=character_set, PatientName=name, InstitutionName="a")

    assert read(content, "PatientName", "InstitutionName") == {
        "PatientName": (name,),
        "InstitutionName": ("a",),
    }


@pytest.mark.parametrize("character_set", [b"ISO_IR 192", b"NO SUCH SET ", b"\\ISO 2022 IR 87"])
def test_text_that_cannot_be_decoded_is_still_text(character_set: bytes) -> None:
    content = raw_file(
        raw_element(0x00080005, "CS", character_set),
        raw_element(0x00100010, "PN", b"\xff\x1b$B\xff\xff\xfe "),
    )

    assert len(read(content, "PatientName")["PatientName"]) == 1


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=list(SYNTAXES))
def test_a_private_attribute_is_found_by_its_creator(syntax: str) -> None:
    content = with_elements(
        DataElement(0x00190010, "LO", "OTHER"),
        DataElement(0x0019100C, "LO", "wrong"),
        DataElement(0x00190042, "LO", "MAKER 1"),
        DataElement(0x0019420C, "LO", ["a", "b"]),
        transfer_syntax=syntax,
    )

    assert read(content, PRIVATE) == {PRIVATE: ("a", "b")}


def test_a_private_attribute_of_another_creator_is_absent() -> None:
    content = with_elements(
        DataElement(0x00190010, "LO", "OTHER"), DataElement(0x0019100C, "LO", "x")
    )

    assert read(content, PRIVATE) == {}


def test_a_known_private_number_is_one_in_implicit_vr() -> None:
    key = "0019,xx02:GEMS_ACQU_01"
    content = with_elements(
        DataElement(0x00190010, "LO", "GEMS_ACQU_01"),
        DataElement(0x00191002, "SL", 888),
        transfer_syntax=SYNTAXES["implicit"],
    )

    assert read(content, key) == {key: ("888",)}


def test_an_attribute_without_value_is_there() -> None:
    assert read(image(PatientID=""), "PatientID") == {"PatientID": ()}


def test_an_attribute_inside_a_sequence_is_not_found() -> None:
    item = b"\xfe\xff\x00\xe0\x0a\0\0\0" + raw_element(0x00080060, "CS", b"MR")
    content = raw_file(raw_element(0x00081140, "SQ", item), raw_element(0x00100020, "LO", b"ID"))

    assert read(content, "Modality", "PatientID", "ReferencedImageSequence") == {
        "PatientID": ("ID",),
        "ReferencedImageSequence": (),
    }


def test_the_first_of_two_elements_counts() -> None:
    content = raw_file(raw_element(0x00080060, "CS", b"CT"), raw_element(0x00080060, "CS", b"MR"))

    assert read(content, "Modality") == {"Modality": ("CT",)}


def test_attributes_of_equal_instances_are_equal() -> None:
    first = found_in(image(SOPInstanceUID="1.2.9"), "Modality", "ImageType")
    second = found_in(image(SOPInstanceUID="1.2.8"), "ImageType", "Modality")

    assert first == second
    assert hash(first) == hash(second)


def test_a_path_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(image())

    assert read(path, "Modality") == read(image(), "Modality") == {"Modality": ("CT",)}


def test_without_anything_wanted_the_file_is_not_opened(tmp_path: Path) -> None:
    assert found_in(tmp_path / "none.dcm") == Attributes()


def test_what_follows_the_last_wanted_attribute_is_not_looked_at() -> None:
    content = raw_file(raw_element(0x00080060, "CS", b"CT"), b"\x10\x00\x10\x00no element")

    assert read(content, "Modality") == {"Modality": ("CT",)}


def test_a_file_that_cannot_be_read_has_no_attributes() -> None:
    attributes = found_in(b"no DICOM file", "Modality")

    assert attributes == Attributes(is_readable=False)
    assert attributes.get("Modality") is None


def test_an_attribute_is_found_by_its_key() -> None:
    assert found_in(image(), "Modality").get("Modality") == Attribute(("CT",))


KEYS = ("Modality", "PatientName", "Rows", "FrameIncrementPointer", "SmallestImagePixelValue")


@given(st.binary(max_size=300), st.sampled_from([*SYNTAXES.values(), "1.2.3"]))
def test_any_dataset_gives_an_answer(dataset: bytes, syntax: str) -> None:
    content = raw_file(dataset, transfer_syntax=syntax)

    assert isinstance(found_in(content, *KEYS, PRIVATE), Attributes)


@given(st.data(), st.sampled_from(["implicit", "explicit", "big endian", "encapsulated"]))
def test_any_damage_gives_an_answer(data: st.DataObject, syntax: str) -> None:
    content = bytearray(image(SYNTAXES[syntax], PatientName="A^B", SpecificCharacterSet="GBK"))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))

    assert isinstance(found_in(bytes(content), *KEYS, PRIVATE), Attributes)


def test_every_file_of_the_corpus_gives_an_answer(corpus: Path) -> None:
    unreadable = [
        path
        for path in sorted(corpus.rglob("*.dcm"))
        if not found_in(path, *KEYS, PRIVATE).is_readable
    ]

    assert len(unreadable) < 20


@pytest.mark.parametrize("kind", ["elements", "items", "deflated items", "deflated pixels"])
def test_what_a_hostile_header_costs_is_bounded(kind: str) -> None:
    """All receiving waits for the thread that reads for the rules."""
    megabytes = 48
    rows = raw_element(0x00280010, "US", b"\1\0")
    items = struct.pack("<HH2sHL", 0x0021, 0x1001, b"SQ", 0, 0xFFFFFFFF)
    items += b"\xfe\xff\0\xe0\0\0\0\0" * (megabytes * 2**17)
    if kind == "elements":
        content = raw_file(raw_element(0x00210010, "LO", b"") * (megabytes * 2**17), rows)
    elif kind == "items":
        content = raw_file(items)
    else:
        dataset = items if kind == "deflated items" else rows + bytes(megabytes * 2**20)
        content = raw_file(deflated(dataset), transfer_syntax=SYNTAXES["deflated"])
    tracemalloc.start()
    started = time.process_time()

    read(content, "Rows")

    assert time.process_time() - started < 2.0  # Of the order of 0.1; it was 4 and more.
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()
