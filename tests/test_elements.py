"""The walker of top-level elements against pydicom's own reading, and against anything at all."""

import zlib
from io import BytesIO
from struct import pack

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from scp.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    MAX_DEPTH,
    PIXEL_DATA,
    UNDEFINED,
    Element,
    Encoding,
    bounded_inflate,
    element_at,
    encoding_of,
    items_of,
    walk,
)
from scp.errors import MalformedError, TruncatedError
from tests.encodings import SYNTAXES, datasets, deflated, encoded

ENCODINGS = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)
UNCOMPRESSED = SYNTAXES[:3]
DELIMITER = pack("<HHL", 0xFFFE, 0xE0DD, 0)
ITEM_END = pack("<HHL", 0xFFFE, 0xE00D, 0)


def item(content: bytes = b"", *, is_open: bool = False) -> bytes:
    if is_open:
        return pack("<HHL", 0xFFFE, 0xE000, UNDEFINED) + content + ITEM_END
    return pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


def long_element(tag: int, vr: bytes, content: bytes, length: int | None = None) -> bytes:
    written = len(content) if length is None else length
    return pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, written) + content


def short_element(tag: int, vr: bytes, content: bytes) -> bytes:
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(content)) + content


MODALITY = short_element(0x00080060, b"CS", b"CT")
SOP_INSTANCE = short_element(0x00080018, b"UI", b"1.23")


def tags(data: bytes, encoding: Encoding = EXPLICIT_LITTLE) -> list[int]:
    return [element.tag for element in walk(data, encoding)]


# -- against pydicom -------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@given(dataset=datasets())
@settings(max_examples=80)
def test_elements_lie_where_pydicom_finds_them(syntax: str, dataset: Dataset) -> None:
    data = encoded(dataset, syntax)

    found = list(walk(data, encoding_of(syntax)))

    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    expected = list(data_element_generator(BytesIO(data), implicit, little))
    assert [element.tag for element in found] == [raw.tag for raw in expected]
    for element, raw in zip(found, expected, strict=True):
        assert element.vr.decode() == (raw.VR or "" if not implicit else "")
        if raw.VR == "SQ" or element.length == UNDEFINED:
            continue  # pydicom has parsed it and keeps no place.
        assert isinstance(raw, RawDataElement)
        assert element.value == raw.value_tell
        assert data[element.value : element.value_end] == (raw.value or b"")
    assert [element.start for element in found[1:]] == [element.end for element in found[:-1]]
    assert not found or found[-1].end == len(data)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@given(dataset=datasets())
@settings(max_examples=40)
def test_items_lie_where_pydicom_finds_them(syntax: str, dataset: Dataset) -> None:
    data, encoding = encoded(dataset, syntax), encoding_of(syntax)
    for element in walk(data, encoding):
        if dataset[element.tag].VR != "SQ":
            continue

        items = list(items_of(data, encoding, element))

        expected = dataset[element.tag].value
        assert len(items) == len(expected)
        for (start, end), wanted in zip(items, expected, strict=True):
            inner = read_dataset(BytesIO(data[start:end]), encoding.implicit, encoding.little)
            assert encoded(inner, syntax) == encoded(wanted, syntax)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@given(dataset=datasets(), cut=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60)
def test_a_cut_dataset_gives_the_elements_before_the_cut_and_says_that_more_is_missing(
    syntax: str, dataset: Dataset, cut: float
) -> None:
    data, encoding = encoded(dataset, syntax), encoding_of(syntax)
    whole = list(walk(data, encoding))
    end = int(cut * len(data))
    before = [element for element in whole if element.end <= end]
    found: list[Element] = []

    if end == (before[-1].end if before else 0):
        found += walk(data[:end], encoding)
    else:
        with pytest.raises(TruncatedError):
            found.extend(walk(data[:end], encoding))

    assert found == before


# -- against anything ------------------------------------------------------------------------------


@given(
    data=st.binary(max_size=200),
    encoding=st.sampled_from(ENCODINGS),
    may_be_cut=st.booleans(),
    stop_before=st.sampled_from([0x00030000, 0x00200010, 0x1_0000_0000]),
)
@settings(max_examples=300)
def test_any_bytes_are_walked_or_refused(
    data: bytes, encoding: Encoding, may_be_cut: bool, stop_before: int
) -> None:
    end = 0
    try:
        for element in walk(
            data, encoding, stop_before=stop_before, pixel_data_may_be_cut=may_be_cut
        ):
            assert element.start == end < element.value <= element.end
            assert element.tag < stop_before
            if not may_be_cut:
                assert element.end <= len(data)
            end = element.end
            if element.vr == b"SQ" or element.is_undefined_length:
                for start, stop in items_of(data, encoding, element):
                    assert element.value < start <= stop
    except (TruncatedError, MalformedError):
        return


@given(
    dataset=datasets(),
    syntax=st.sampled_from(UNCOMPRESSED),
    where=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255),
)
@settings(max_examples=150)
def test_a_dataset_with_one_byte_replaced_is_walked_or_refused(
    dataset: Dataset, syntax: str, where: float, byte: int
) -> None:
    data = bytearray(encoded(dataset, syntax))
    if data:
        data[int(where * len(data))] = byte

    try:
        for element in walk(data, encoding_of(syntax)):
            assert element.end <= len(data)
            if element.vr == b"SQ" or element.is_undefined_length:
                list(items_of(data, encoding_of(syntax), element))
    except (TruncatedError, MalformedError):
        return


@given(st.binary(max_size=40), st.integers(0, 40), st.sampled_from(ENCODINGS))
def test_any_header_is_read_or_refused(data: bytes, position: int, encoding: Encoding) -> None:
    try:
        element = element_at(data, encoding, position)
    except (TruncatedError, MalformedError):
        return
    assert element.start == position
    assert element.end in (0, element.value + element.length)


# -- what it knows of DICOM ------------------------------------------------------------------------


def test_every_kind_of_buffer_is_walked() -> None:
    for buffer in (MODALITY, bytearray(MODALITY), memoryview(MODALITY)):
        assert tags(bytes(buffer)) == [0x00080060]
        assert [element.tag for element in walk(buffer, EXPLICIT_LITTLE)] == [0x00080060]


def test_the_walk_stops_before_a_tag_without_looking_at_the_rest() -> None:
    data = SOP_INSTANCE + MODALITY + b"garbage that is no element"

    assert [e.tag for e in walk(data, EXPLICIT_LITTLE, stop_before=0x00080060)] == [0x00080018]


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("vr", [b"SQ", b"UN"])
def test_what_is_inside_an_undefined_length_sequence_is_not_outside(
    vr: bytes, is_open: bool
) -> None:
    # Inside a sequence of VR UN the encoding is implicit (PS3.5 6.2.2).
    inner = pack("<HHL", 0x0008, 0x0018, 4) + b"9.99" if vr == b"UN" else SOP_INSTANCE
    nested = long_element(0x00081140, vr, item(inner, is_open=is_open) + DELIMITER, UNDEFINED)

    assert tags(nested + MODALITY) == [0x00081140, 0x00080060]


def test_a_sequence_of_vr_un_is_implicit_all_the_way_down() -> None:
    inner = pack("<HHL", 0x0008, 0x0018, 4) + b"9.99"
    deep = pack("<HHL", 0x0009, 0x1002, UNDEFINED) + item(inner, is_open=True) + DELIMITER
    nested = long_element(0x00091001, b"UN", item(deep, is_open=True) + DELIMITER, UNDEFINED)
    data = nested + MODALITY

    first, second = walk(data, EXPLICIT_LITTLE)

    assert (first.end, second.tag) == (len(nested), 0x00080060)
    ((start, end),) = items_of(data, EXPLICIT_LITTLE, first)
    assert data[start:end] == deep


def test_pixel_data_of_undefined_length_is_a_row_of_fragments() -> None:
    fragments = item() + item(b"\xfe\xff\x0d\xe0\0\0\0\0") + item(b"12") + DELIMITER
    data = long_element(PIXEL_DATA, b"OB", fragments, UNDEFINED)

    (element,) = walk(data, EXPLICIT_LITTLE)

    assert element.end == len(data)
    assert [end - start for start, end in items_of(data, EXPLICIT_LITTLE, element)] == [0, 8, 2]


def test_pixel_data_that_is_cut_is_yielded_where_that_is_asked_for() -> None:
    data = MODALITY + long_element(PIXEL_DATA, b"OW", b"\1\2", 1000)

    assert tags(MODALITY) == [0x00080060]
    with pytest.raises(TruncatedError):
        tags(data)
    *_, pixels = walk(data, EXPLICIT_LITTLE, pixel_data_may_be_cut=True)
    assert pixels.end == pixels.value + 1000


def test_a_value_representation_of_the_future_has_a_long_length() -> None:
    data = long_element(0x00091001, b"ZZ", b"1234") + MODALITY

    assert tags(data) == [0x00091001, 0x00080060]


@pytest.mark.parametrize("vr", [b"\0\0", b"cs", b"??", b"4\0"])
def test_what_is_no_value_representation_is_no_element(vr: bytes) -> None:
    with pytest.raises(MalformedError):
        tags(short_element(0x00080060, vr, b"CT"))


def test_sequences_as_deep_as_the_limit_are_walked_and_deeper_ones_refused() -> None:
    assert len(tags(_nested(MAX_DEPTH // 2))) == 1

    for depth in (MAX_DEPTH + 1, 20_000):
        with pytest.raises(MalformedError, match="deep"):
            tags(_nested(depth))


def test_a_sequence_of_a_million_empty_items_ends() -> None:
    data = long_element(0x00081140, b"SQ", item() * 200_000 + DELIMITER, UNDEFINED)

    assert tags(data) == [0x00081140]


def test_unknown_and_private_transfer_syntaxes_are_explicit() -> None:
    assert encoding_of("1.2.3.4") == EXPLICIT_LITTLE
    assert encoding_of("1.2.840.10008.1.2.4.90") == EXPLICIT_LITTLE
    assert encoding_of("1.2.840.10008.1.2") == IMPLICIT_LITTLE
    assert encoding_of("1.2.840.10008.1.2.2") == EXPLICIT_BIG


# -- inflating -------------------------------------------------------------------------------------


def test_no_more_is_inflated_than_asked_for() -> None:
    bomb = deflated(bytes(200 * 2**20), level=9)
    assert len(bomb) < 2**18

    assert bounded_inflate(bomb, 1000) == bytes(1000)


@given(raw=st.binary(max_size=100), cut=st.integers(0, 100), limit=st.integers(1, 200))
@example(raw=b"", cut=0, limit=1)
def test_the_start_of_a_deflate_stream_gives_the_start_of_its_bytes(
    raw: bytes, cut: int, limit: int
) -> None:
    assert raw[:limit].startswith(bounded_inflate(deflated(raw)[:cut], limit))
    assert bounded_inflate(deflated(raw), limit) == raw[:limit]


@given(st.binary(max_size=100))
def test_what_is_no_deflate_stream_is_malformed(data: bytes) -> None:
    try:
        inflated = bounded_inflate(data, 1000)
    except MalformedError:
        return
    assert inflated == zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, 1000)


def _nested(depth: int) -> bytes:
    opening = pack("<HH2sHL", 0x0009, 0x1001, b"SQ", 0, UNDEFINED)
    opening += pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
    return opening * depth + (ITEM_END + DELIMITER) * depth
