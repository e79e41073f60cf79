"""Reading a file's elements without reading the file."""

import zlib
from pathlib import Path

import pytest

from scp.elements import PIXEL_DATA
from scp.errors import MalformedError, TruncatedError
from scp.header import open_header
from tests.choose.images import EXPLICIT, RLE, image, raw_element, raw_file

MEGABYTE = 2**20
MODALITY = raw_element(0x00080060, "CS", b"CT")
UNDEFINED = b"\xff\xff\xff\xff"
ITEM = b"\xfe\xff\x00\xe0"
ITEM_END = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def tags_of(source: Path | bytes) -> list[int]:
    with open_header(source) as header:
        return [element.tag for element in header.elements()]


@pytest.fixture(params=["path", "bytes"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """Gives the content to the reader as a file, or as bytes."""

    def hold(content: bytes) -> Path | bytes:
        if request.param == "bytes":
            return content
        path = tmp_path / "instance.dcm"
        path.write_bytes(content)
        return path

    return hold


def test_elements_after_large_ones_are_found(held) -> None:  # type: ignore[no-untyped-def]
    content = raw_file(
        raw_element(0x00091010, "OB", bytes(3 * MEGABYTE)),
        raw_element(0x00280010, "US", b"\x04\0"),
        raw_element(PIXEL_DATA, "OW", bytes(3 * MEGABYTE)),
        raw_element(0xFFFCFFFC, "OB", b"\0\0"),
    )

    assert tags_of(held(content)) == [0x00091010, 0x00280010, PIXEL_DATA, 0xFFFCFFFC]


def test_elements_after_large_encapsulated_pixel_data_are_found(held) -> None:  # type: ignore[no-untyped-def]
    fragment = ITEM + (100_000).to_bytes(4, "little") + bytes(100_000)
    pixel_data = b"\xe0\x7f\x10\x00OB\0\0" + UNDEFINED + ITEM + bytes(4) + 3 * fragment
    content = raw_file(
        MODALITY,
        pixel_data + SEQUENCE_END,
        raw_element(0xFFFCFFFC, "OB", b"\0\0"),
        transfer_syntax=RLE,
    )

    assert tags_of(held(content)) == [0x00080060, PIXEL_DATA, 0xFFFCFFFC]


def test_a_sequence_larger_than_what_is_read_at_first_is_walked(held) -> None:  # type: ignore[no-untyped-def]
    item = ITEM + UNDEFINED + raw_element(0x00080060, "CS", b"MR") + ITEM_END
    sequence = b"\x08\x00\x40\x11SQ\0\0" + UNDEFINED + 20_000 * item + SEQUENCE_END
    content = raw_file(MODALITY, sequence, raw_element(0x00280010, "US", b"\x04\0"))

    assert tags_of(held(content)) == [0x00080060, 0x00081140, 0x00280010]


def test_pixel_data_that_is_cut_is_still_there(held) -> None:  # type: ignore[no-untyped-def]
    content = image()[:-10]

    assert tags_of(held(content))[-1] == PIXEL_DATA


def test_a_deflated_dataset_is_inflated(held) -> None:  # type: ignore[no-untyped-def]
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = compressor.compress(MODALITY) + compressor.flush()
    content = raw_file(deflated, transfer_syntax="1.2.840.10008.1.2.1.99")

    assert tags_of(held(content)) == [0x00080060]


def test_values_are_read_where_they_lie(held) -> None:  # type: ignore[no-untyped-def]
    content = raw_file(
        MODALITY,
        raw_element(0x00091010, "OB", bytes(MEGABYTE)),
        raw_element(0x00100010, "PN", b"DOE^JOHN"),
    )

    with open_header(held(content)) as header:
        values = [header.value(element, 8) for element in header.elements()]

    assert values == [b"CT", bytes(8), b"DOE^JOHN"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"DICM",
        bytes(132),
        bytes(128) + b"DICM",
        raw_file(MODALITY)[:140],
        raw_file(MODALITY, transfer_syntax="  "),
    ],
)
def test_what_is_no_dicom_file_is_malformed_or_truncated(content: bytes) -> None:
    with pytest.raises((MalformedError, TruncatedError)), open_header(content):
        pass


@pytest.mark.parametrize("cut", [1, 9, 13, 19])
def test_a_file_that_ends_inside_an_element_is_truncated(cut: int) -> None:
    content = raw_file(MODALITY, raw_element(0x00100010, "PN", b"DOE^JOHN    "))

    with pytest.raises(TruncatedError):
        tags_of(content[:-cut])


def test_the_file_meta_information_is_text_by_tag() -> None:
    with open_header(image()) as header:
        assert header.transfer_syntax == EXPLICIT
        assert header.meta.sop_instance_uid == "1.2.3.4"


@pytest.mark.parametrize("sequences", [1, 200])
def test_what_may_be_walked_is_bounded(held, sequences: int) -> None:  # type: ignore[no-untyped-def]
    items = MEGABYTE // sequences // 8
    sequence = b"\x08\0\x15\x11SQ\0\0" + UNDEFINED + items * (ITEM + bytes(4)) + SEQUENCE_END
    content = held(raw_file(sequences * sequence, MODALITY))

    with open_header(content, 2 * MEGABYTE) as header:
        assert len(list(header.elements())) == sequences + 1
    with (
        open_header(content, MEGABYTE // 2) as header,
        pytest.raises((MalformedError, TruncatedError)),
    ):
        list(header.elements())


def test_what_is_passed_over_by_its_length_counts_for_nothing(held) -> None:  # type: ignore[no-untyped-def]
    private = raw_element(0x00091010, "OB", bytes(MEGABYTE))
    pixels = raw_element(PIXEL_DATA, "OW", bytes(MEGABYTE))
    content = held(raw_file(10 * private, pixels, MODALITY))

    with open_header(content, MEGABYTE // 16) as header:
        assert len(list(header.elements())) == 12
