"""When two datasets count as the same."""

import hashlib
import struct
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from scp.convert.digests import NativeValue, dataset_sha256, digest, normal_as_native
from scp.convert.part10 import open_dicom
from scp.convert.refusals import NotConvertibleError
from tests.convert.images import convert, dataset_bytes, ramp, save, shipped
from tests.convert.test_recode import rich

SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def nested(dataset: Dataset) -> Dataset:
    """With a private sequence, which only its items tell from other values."""
    inner = Dataset()
    inner.CodeValue = "1"
    inner.CodeMeaning = "one"
    block = dataset.private_block(0x0031, "NOBODY KNOWS", create=True)
    block.add_new(0x05, "SQ", [inner, inner])
    block.add_new(0x06, "SQ", [])
    return dataset


@pytest.mark.parametrize("transfer_syntax", SYNTAXES[1:], ids=["implicit", "big", "deflated"])
def test_the_same_dataset_has_the_same_normal_digest_in_every_encoding(
    tmp_path: Path, transfer_syntax: str
) -> None:
    plain = save(nested(rich(ExplicitVRLittleEndian)), tmp_path / "explicit.dcm")
    other = save(nested(rich(transfer_syntax)), tmp_path / "other.dcm")

    assert digest(plain).normal == digest(other).normal
    assert dataset_sha256(plain) != dataset_sha256(other)


def test_length_forms_do_not_count(tmp_path: Path) -> None:
    one = save(nested(rich(ImplicitVRLittleEndian)), tmp_path / "one.dcm")
    dataset = nested(rich(ExplicitVRLittleEndian))
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = True
    two = save(dataset, tmp_path / "two.dcm")

    assert digest(one).normal == digest(two).normal


def test_group_lengths_do_not_count(tmp_path: Path) -> None:
    one = save(rich(ExplicitVRLittleEndian), tmp_path / "one.dcm")
    content = one.read_bytes()
    at = content.index(b"\x08\0\x05\0CS")
    two = tmp_path / "two.dcm"
    two.write_bytes(content[:at] + b"\x08\0\0\0UL\x04\0" + struct.pack("<L", 99) + content[at:])

    assert digest(one).normal == digest(two).normal


ITEM = b"\xfe\xff\0\xe0\0\0\0\0"
DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.mark.parametrize(
    "element",
    [
        b"\x08\0\x40\x11SQ\0\0\x18\0\0\0" + ITEM + DELIMITER + b"%s",
        b"\x09\0\x01\x10OB\0\0\x18\0\0\0" + ITEM + DELIMITER + b"%s",
        b"\x09\0\0\0UN\0\0\x08\0\0\0%s",
    ],
    ids=["behind a delimiter", "looks like items", "where a group length would stand"],
)
def test_bytes_that_only_look_like_structure_count(tmp_path: Path, element: bytes) -> None:
    digests = set()
    for value in (b"12345678", b"87654321"):
        path = save(rich(ExplicitVRLittleEndian), tmp_path / "one.dcm")
        content = path.read_bytes()
        at = content.index(b"\x10\0\x10\0PN")
        path.write_bytes(content[:at] + element % value + content[at:])
        digests.add(digest(path).normal)

    assert len(digests) == 2


@pytest.mark.parametrize("what", ["header", "nested", "pixel", "tag"])
def test_another_value_is_another_dataset(tmp_path: Path, what: str) -> None:
    one = save(rich(ExplicitVRLittleEndian), tmp_path / "one.dcm")
    dataset = rich(ExplicitVRLittleEndian)
    if what == "header":
        dataset.PatientWeight = "71"
    elif what == "nested":
        item = dataset.ReferencedImageSequence[0].PurposeOfReferenceCodeSequence[0]
        item.CodeValue = "113077"
    elif what == "pixel":
        dataset.PixelData = dataset.PixelData[:-1] + b"\x7f"
    else:
        dataset.ImageComments = ""
    two = save(dataset, tmp_path / "two.dcm")

    assert digest(one).normal != digest(two).normal


def test_a_value_moved_into_an_item_is_another_dataset(tmp_path: Path) -> None:
    inside, outside = rich(ExplicitVRLittleEndian), rich(ExplicitVRLittleEndian)
    item = Dataset()
    item.StudyDescription = "text"
    inside.ReferencedStudySequence = [item]
    outside.ReferencedStudySequence = [Dataset()]
    outside.StudyDescription = "text"

    one = save(inside, tmp_path / "one.dcm")
    two = save(outside, tmp_path / "two.dcm")

    assert digest(one).normal != digest(two).normal


def test_the_dataset_digest_is_of_the_bytes_after_the_meta_group(tmp_path: Path) -> None:
    path = save(rich(ExplicitVRLittleEndian), tmp_path / "one.dcm")

    assert dataset_sha256(path) == hashlib.sha256(dataset_bytes(path)).hexdigest()
    assert digest(path).dataset == dataset_sha256(path)


def test_the_meta_group_does_not_count(tmp_path: Path) -> None:
    dataset = rich(ExplicitVRLittleEndian)
    one = save(dataset, tmp_path / "one.dcm")
    dataset.file_meta.SourceApplicationEntityTitle = "ANOTHER"
    two = save(dataset, tmp_path / "two.dcm")

    assert digest(one) == digest(two)


def test_a_dataset_that_cannot_be_read_has_one_digest(tmp_path: Path) -> None:
    path = save(rich(ExplicitVRLittleEndian), tmp_path / "one.dcm")
    path.write_bytes(path.read_bytes()[:600])

    assert digest(path).normal == digest(path).dataset


def test_a_broken_deflated_dataset_has_one_digest(tmp_path: Path) -> None:
    path = save(rich(DeflatedExplicitVRLittleEndian), tmp_path / "one.dcm")
    content = path.read_bytes()
    path.write_bytes(content[: -len(dataset_bytes(path))] + b"\xff" * 50)

    assert digest(path).normal == digest(path).dataset == hashlib.sha256(b"\xff" * 50).hexdigest()


def test_what_is_no_dicom_file_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "text.dcm"
    path.write_bytes(b"nothing" * 50)

    with pytest.raises(NotConvertibleError):
        digest(path)


def test_transcoding_gives_the_digests_along_the_way(tmp_path: Path) -> None:
    for name in ("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm", "MR_small_RLE.dcm",
                 "SC_rgb_small_odd.dcm", "image_dfl.dcm"):  # fmt: skip
        result = convert(shipped(name), tmp_path / name)

        assert result.source == digest(shipped(name)), name


def test_fragments_count_with_their_transfer_syntax(tmp_path: Path) -> None:
    rle = shipped("MR_small_RLE.dcm")
    other = tmp_path / "other.dcm"
    content = rle.read_bytes()
    other.write_bytes(content.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.6\0", 1))

    assert ramp().size
    assert dataset_sha256(rle) == dataset_sha256(other)
    assert digest(rle).normal != digest(other).normal


@pytest.mark.parametrize("columns", [1, 254, 255, 256, 257])
def test_a_native_value_in_pieces_has_the_digest_of_the_whole(tmp_path: Path, columns: int) -> None:
    """Also of odd length, and around the length from which a value counts as its digest."""
    words = bytes(number % 251 for number in range(257 * columns))
    dataset = nested(rich(ExplicitVRLittleEndian))
    dataset.add_new(0x7FE00010, "OW", words + b"\0" * (len(words) % 2))
    dataset.DataSetTrailingPadding = b"\0\0"
    path = save(dataset, tmp_path / "native.dcm")
    file = open_dicom(path)
    value = NativeValue()

    for start in range(0, len(words), 1000):
        value.add(memoryview(words[start : start + 1000]))

    assert value.words_sha256 == hashlib.sha256(words).hexdigest()
    assert normal_as_native(file, file.walk(), value) == digest(path).normal
