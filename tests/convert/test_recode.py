"""Headers in another encoding: every value byte as it was, and honest refusals."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from scp.convert.header import code_string, edited, recoded
from scp.convert.refusals import NotConvertibleError
from scp.elements import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, walk
from scp.model import PassReason
from tests.convert.images import (
    convert,
    header_differences,
    image,
    ramp,
    save,
    shipped,
    words,
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target.dcm"


def rich(transfer_syntax: str) -> Dataset:
    """A header with what is easily lost: private elements, nesting, ambiguous VRs, odd values."""
    big = transfer_syntax == ExplicitVRBigEndian
    dataset = image(ramp().astype("<i2"), transfer_syntax=transfer_syntax)
    dataset.SmallestImagePixelValue = -3
    dataset.PixelPaddingValue = -2000
    dataset["SmallestImagePixelValue"].VR = "SS"
    dataset["PixelPaddingValue"].VR = "SS"
    dataset.PatientWeight = "70.50 "
    dataset.FrameIncrementPointer = 0x00181063
    dataset.add_new(0x00189073, "FD", 1.25)
    dataset.add_new(0x00281101, "US", [256, 0, 16])
    dataset.add_new(0x00281201, "OW", words(np.array([1, 2, 3], "<u2"), big=big))
    known = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    known.add_new(0x08, "CS", "IMAGE NUM 4")
    known.add_new(0x10, "OB", bytes(range(10)))
    unknown = dataset.private_block(0x0031, "NOBODY KNOWS", create=True)
    unknown.add_new(0x01, "UN", b"\x01\x02\x03\x04")
    unknown.add_new(0x02, "OB", bytes(70_000))
    deep = Dataset()
    deep.CodeValue = "113076"
    deep.add_new(0x00280103, "US", 0)
    deep.add_new(0x00280106, "US", 65000)
    middle = Dataset()
    middle.PurposeOfReferenceCodeSequence = [deep, Dataset()]
    dataset.ReferencedImageSequence = [middle]
    dataset.RequestAttributesSequence = []
    return dataset


@pytest.mark.parametrize("undefined", [False, True], ids=["defined", "undefined"])
@pytest.mark.parametrize(
    "transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=["implicit", "big"]
)
def test_a_rich_header_becomes_explicit_with_the_same_values(
    tmp_path: Path, target: Path, transfer_syntax: str, undefined: bool
) -> None:
    dataset = rich(transfer_syntax)
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
    source = save(dataset, tmp_path / "source.dcm")

    convert(source, target)

    assert header_differences(source, target, raw=transfer_syntax != ExplicitVRBigEndian) == []
    result = dcmread(target)
    assert result["PixelPaddingValue"].VR == "SS"
    assert result.PixelPaddingValue == -2000
    inner = result.ReferencedImageSequence[0].PurposeOfReferenceCodeSequence[0]
    assert inner["SmallestImagePixelValue"].value == 65000
    assert result.PatientWeight == 70.5
    assert result.FrameIncrementPointer == 0x00181063


def test_the_vr_of_private_elements_is_known_or_un(tmp_path: Path, target: Path) -> None:
    source = save(rich(ImplicitVRLittleEndian), tmp_path / "source.dcm")

    convert(source, target)

    content = target.read_bytes()
    assert b"\x29\0\x10\0LO" in content
    assert b"\x29\0\x08\x10CS" in content
    assert b"\x31\0\x01\x10UN\0\0\x04\0\0\0\x01\x02\x03\x04" in content
    assert b"\x31\0\x02\x10UN\0\0" + struct.pack("<L", 70_000) in content


def test_characters_are_not_decoded(tmp_path: Path, target: Path) -> None:
    dataset = image(ramp(), transfer_syntax=ImplicitVRLittleEndian)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    source = save(dataset, tmp_path / "source.dcm")
    content = source.read_bytes().replace(b"ISO_IR 100", b"NO_SUCH 99")
    source.write_bytes(content.replace(b"\xdcbung", b"\xff\xfe\x80\xdcg"))

    convert(source, target)

    assert b"\xff\xfe\x80\xdcg" in target.read_bytes()


def implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def to_explicit(data: bytes) -> bytes:
    view = memoryview(data)
    elements = list(walk(view, IMPLICIT_LITTLE))
    return recoded(view, elements, IMPLICIT_LITTLE, EXPLICIT_LITTLE, signed=False)


def test_a_value_too_long_for_its_vr_is_refused() -> None:
    with pytest.raises(NotConvertibleError) as caught:
        to_explicit(implicit(0x00081030, b"a" * 65536))

    assert caught.value.reason == PassReason.HEADER_NOT_EXPRESSIBLE
    assert to_explicit(implicit(0x00081030, b"a" * 65534))[4:6] == b"LO"


def test_a_sequence_that_is_none_is_refused() -> None:
    with pytest.raises(NotConvertibleError) as caught:
        to_explicit(implicit(0x00081140, b"no items at all."))

    assert caught.value.reason == PassReason.HEADER_NOT_EXPRESSIBLE


def test_a_big_endian_value_of_a_broken_length_is_refused() -> None:
    data = memoryview(b"\0\x28\0\x10US\0\x03abc")

    with pytest.raises(NotConvertibleError):
        recoded(data, list(walk(data, EXPLICIT_BIG)), EXPLICIT_BIG, EXPLICIT_LITTLE, signed=False)


def test_group_lengths_are_true_in_the_new_encoding() -> None:
    group = implicit(0x00081030, b"text") + implicit(0x00082112, b"")
    data = implicit(0x00080000, struct.pack("<L", len(group))) + group + implicit(0x00100010, b"")

    result = to_explicit(data)

    assert result[:8] == b"\x08\0\0\0UL\x04\0"
    assert result[12 + struct.unpack_from("<L", result, 8)[0] :][:4] == b"\x10\0\x10\0"


def test_what_stands_where_a_group_length_would_is_kept() -> None:
    data = implicit(0x00210000, b"ab") + implicit(0x00211001, b"cd")

    assert b"\x21\0\0\0UN\0\0\x02\0\0\0ab" in to_explicit(data)


def test_bytes_behind_the_delimiter_of_a_sequence_are_not_dropped() -> None:
    item = b"\xfe\xff\0\xe0\x0a\0\0\0" + implicit(0x00080100, b"ab")
    hidden = item + b"\xfe\xff\xdd\xe0\0\0\0\0" + b"0123456789abcdef"
    assert to_explicit(implicit(0x00400275, item))

    with pytest.raises(NotConvertibleError) as caught:
        to_explicit(implicit(0x00400275, hidden))

    assert caught.value.reason == PassReason.HEADER_NOT_EXPRESSIBLE


def test_a_public_tag_nobody_knows_becomes_un() -> None:
    assert to_explicit(implicit(0x00087FFE, b"abcd"))[4:6] == b"UN"


def test_a_private_sequence_of_undefined_length_becomes_sq() -> None:
    item = (
        b"\xfe\xff\0\xe0\xff\xff\xff\xff"
        + implicit(0x00080100, b"ab")
        + (b"\xfe\xff\x0d\xe0\0\0\0\0")
    )
    data = b"\x31\0\x03\x10\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"

    result = to_explicit(data)

    assert result[:12] == b"\x31\0\x03\x10SQ\0\0\xff\xff\xff\xff"
    assert b"\x08\0\0\x01SH\x02\0ab" in result


def test_explicit_to_implicit_and_back_is_the_same_header(tmp_path: Path) -> None:
    source = save(image(ramp(), bits_stored=12), tmp_path / "source.dcm")
    content = memoryview(source.read_bytes())[144 + 66 :]
    start = bytes(content).index(b"\x08\0\x05\0CS")
    header = content[start : bytes(content).index(b"\xe0\x7f\x10\0")]
    elements = list(walk(header, EXPLICIT_LITTLE))

    there = recoded(header, elements, EXPLICIT_LITTLE, IMPLICIT_LITTLE, signed=False)
    view = memoryview(there)
    back = recoded(
        view, list(walk(view, IMPLICIT_LITTLE)), IMPLICIT_LITTLE, EXPLICIT_LITTLE, signed=False
    )

    known = bytes(header).replace(b"\x19\0\x01\x10FD\x10\0", b"\x19\0\x01\x10UN\0\0\x10\0\0\0")
    known = known.replace(b"\x19\0\x02\x10LO\x0e\0", b"\x19\0\x02\x10UN\0\0\x0e\0\0\0")
    assert back == known


def test_an_element_is_set_added_or_dropped_and_the_rest_stays() -> None:
    header = b"\x28\0\x02\0US\x02\0\x03\0\x28\0\x04\0CS\x04\0RGB \x28\0\x10\0US\x02\0\x08\0"

    result = edited(
        header, {0x00280004: code_string("YBR_RCT"), 0x00280006: code_string("A"), 0x00280010: None}
    )

    assert bytes(result) == (
        b"\x28\0\x02\0US\x02\0\x03\0\x28\0\x04\0CS\x08\0YBR_RCT \x28\0\x06\0CS\x02\0A "
    )


def test_nothing_to_change_is_the_header_itself() -> None:
    header = b"anything"

    assert edited(header, {}) is header


def test_pydicom_reads_the_same_header_of_its_own_implicit_files(target: Path) -> None:
    source = shipped("MR_small_implicit.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = dcmread(source)

    convert(source, target)

    assert np.array_equal(dcmread(target).pixel_array, before.pixel_array)
    assert header_differences(source, target) == []
