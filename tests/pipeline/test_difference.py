"""What is said of two datasets under one UID, and that no value is ever part of it."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from scp.elements import PIXEL_DATA
from scp.pipeline import difference
from scp.pipeline.difference import difference_of
from tests.material import ct_series, write

_TAGS = st.integers(0x00090010, 0x00090040)
_VALUES = st.binary(max_size=8).map(lambda value: value + b"\0" * (len(value) % 2))


def part10(path: Path, elements: dict[int, bytes], syntax: str = ExplicitVRLittleEndian) -> Path:
    """A file with these elements of VR OB, in ascending order."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = b"\2\0\x10\0UI" + len(uid).to_bytes(2, "little") + uid
    head = b"\0" * 128 + b"DICM\2\0\0\0UL\4\0" + len(meta).to_bytes(4, "little") + meta
    body = b"".join(
        (tag >> 16).to_bytes(2, "little")
        + (tag & 0xFFFF).to_bytes(2, "little")
        + b"OB\0\0"
        + len(value).to_bytes(4, "little")
        + value
        for tag, value in sorted(elements.items())
    )
    path.write_bytes(head + body)
    return path


@given(
    first=st.dictionaries(_TAGS, _VALUES, max_size=12),
    second=st.dictionaries(_TAGS, _VALUES, max_size=12),
    pixels=st.tuples(_VALUES, _VALUES),
)
@settings(max_examples=150, deadline=None)
def test_exactly_the_elements_that_differ_are_counted_and_named(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[int, bytes],
    second: dict[int, bytes],
    pixels: tuple[bytes, bytes],
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    one, other = first | {PIXEL_DATA: pixels[0]}, second | {PIXEL_DATA: pixels[1]}

    found = difference_of(part10(folder / "one", one), part10(folder / "other", other))

    assert found is not None
    differing = sorted(tag for tag in one.keys() | other.keys() if one.get(tag) != other.get(tag))
    assert found.elements == len(differing)
    assert [line[:11] for line in found.listed] == [
        f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in differing
    ]
    assert (found.pixel_data == "different") is (pixels[0] != pixels[1])
    assert found.is_whole
    for tag, line in zip(differing, found.listed, strict=True):
        assert ("only in the first" in line) is (tag not in other)
        assert ("only in the second" in line) is (tag not in one)


def changed(folder: Path) -> tuple[Path, Path]:
    (dataset,) = ct_series(1, 16, 16)
    for name in ("first", "second"):
        (folder / name).mkdir()
    dataset.PatientName = "Secret^Person"
    first = write(dataset, folder / "first")
    dataset.PatientName = "Hidden^Somebody"
    dataset.PatientComments = "Confidential"
    del dataset.Modality
    return first, write(dataset, folder / "second")


def test_tags_and_lengths_are_named_and_no_value(tmp_path: Path) -> None:
    found = difference_of(*changed(tmp_path))

    assert found is not None
    assert found.listed == (
        "(0008,0060) CS 2 bytes, only in the first",
        "(0010,0010) PN 14 bytes, then PN 16 bytes",
        "(0010,4000) LT 12 bytes, only in the second",
    )
    assert (found.elements, found.pixel_data, found.is_whole) == (3, "equal", True)
    assert not any(word in str(found) for word in ("Secret", "Hidden", "Confidential"))


def test_the_list_is_cut_and_the_count_is_not(tmp_path: Path) -> None:
    many = {0x00090000 + number: b"ab" for number in range(16, 16 + 3 * difference.MOST_LISTED)}

    found = difference_of(part10(tmp_path / "one", {}), part10(tmp_path / "other", many))

    assert found is not None
    assert (found.elements, len(found.listed)) == (len(many), difference.MOST_LISTED)


@pytest.mark.parametrize("limit", ["MOST_ELEMENTS", "MOST_BYTES"])
def test_what_is_too_much_to_look_at_is_said_to_be_no_whole_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(difference, limit, 3)

    found = difference_of(*changed(tmp_path))

    assert found is not None
    assert (found.pixel_data, found.is_whole) == ("not compared", False)


def test_what_cannot_be_compared_has_no_difference(tmp_path: Path) -> None:
    whole = part10(tmp_path / "whole", {0x00090010: b"abcd"})
    torn = tmp_path / "torn"
    torn.write_bytes(whole.read_bytes()[:-2])
    deflated = part10(tmp_path / "deflated", {}, DeflatedExplicitVRLittleEndian)

    for other in (torn, deflated, tmp_path / "gone"):
        assert difference_of(whole, other) is None
        assert difference_of(other, whole) is None


def test_a_disk_that_cannot_be_read_is_no_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    one, other = changed(tmp_path)
    monkeypatch.setattr("os.pread", unreadable)

    assert difference_of(one, other) is None


def test_values_that_differ_late_are_found(tmp_path: Path) -> None:
    long = bytes(difference.CHUNK_BYTES + 1)
    one = part10(tmp_path / "one", {PIXEL_DATA: long + b"a"})
    other = part10(tmp_path / "other", {PIXEL_DATA: long + b"b"})

    found = difference_of(one, other)

    assert found is not None
    assert (found.elements, found.pixel_data) == (1, "different")
