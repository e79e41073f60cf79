"""The file meta group of files of every make, true and lying."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.elements import Buffer
from scp.errors import MalformedError, TruncatedError
from scp.model import Origin
from scp.part10 import FileMeta, file_meta_of, read_file_meta

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
DATASET = b"\x08\0\x16\0UI\4\x001.2\0"


def element(number: int, vr: bytes, value: bytes, group: int = 2) -> bytes:
    value += (b" " if vr == b"AE" else b"\0") * (len(value) % 2)
    if vr in (b"OB", b"UR"):
        return pack("<HH2sHL", group, number, vr, 0, len(value)) + value
    return pack("<HH2sH", group, number, vr, len(value)) + value


def file(
    *more: bytes, syntax: str = EXPLICIT, dataset: bytes = DATASET, length: int | None = None
) -> bytes:
    """A file with a group length, true unless given."""
    group = element(0x0003, b"UI", b"1.2.3") + element(0x0010, b"UI", syntax.encode())
    group += b"".join(more)
    written = len(group) if length is None else length
    return bytes(128) + b"DICM" + element(0, b"UL", pack("<L", written)) + group + dataset


def dataset_of(content: bytes, meta: FileMeta) -> bytes:
    return content[meta.dataset_start :]


def test_the_group_is_read_and_where_the_dataset_begins() -> None:
    content = file(element(0x0012, b"UI", b"1.2.9"))

    meta = file_meta_of(content)

    assert meta.transfer_syntax == EXPLICIT
    assert meta.sop_instance_uid == "1.2.3"
    assert meta.sop_class_uid == ""
    assert [e.tag for e in meta.elements] == [0x00020000, 0x00020003, 0x00020010, 0x00020012]
    assert dataset_of(content, meta) == DATASET


def test_who_sent_a_file_is_read_from_either_title_and_any_form_of_address() -> None:
    source, sending = element(0x0016, b"AE", b"SOURCE"), element(0x0017, b"AE", b"SENDING")
    called = element(0x0018, b"AE", b"CALLED")

    for address, host in (
        (b"dicom://10.0.0.7:104", "10.0.0.7"),
        (b"dicom://10.0.0.7", "10.0.0.7"),
        (b"dicom://[fe80::1]:104", "fe80::1"),
        (b"dicom://[::1]", "::1"),
        (b"pacs.example:104", "pacs.example"),
        (b"", ""),
    ):
        meta = file_meta_of(file(source, sending, called, element(0x0026, b"UR", address)))
        assert meta.origin == Origin(
            calling_ae_title="SENDING", called_ae_title="CALLED", peer_address=host
        )
    assert file_meta_of(file(source)).origin.calling_ae_title == "SOURCE"
    assert file_meta_of(file()).origin.calling_ae_title == ""


@pytest.mark.parametrize("length", [0, 7, 14, 38, 39, 1000, 2**32 - 1])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_group_length_that_lies_does_not_move_the_dataset(syntax: str, length: int) -> None:
    content = file(element(0x0012, b"UI", b"1.2.9"), syntax=syntax, length=length)

    assert dataset_of(content, file_meta_of(content)) == DATASET


def test_without_a_group_length_the_group_ends_where_another_begins() -> None:
    content = bytes(128) + b"DICM" + element(0x0010, b"UI", EXPLICIT.encode()) + DATASET

    assert dataset_of(content, file_meta_of(content)) == DATASET


@pytest.mark.parametrize(
    "start",
    [
        b"\2\0\x12\0UI\4\x001.2\0",  # a whole element of the group
        b"\2\0garbage",
        b"\2\0\xff\xff",
        b"\2\0",
        b"\2",
    ],
)
def test_a_deflated_dataset_may_look_like_the_meta_group(start: bytes) -> None:
    content = file(syntax=DEFLATED, dataset=start + DATASET)

    assert dataset_of(content, file_meta_of(content)) == start + DATASET


def test_a_meta_group_at_the_start_of_the_dataset_belongs_to_the_dataset() -> None:
    inner = element(0, b"UL", pack("<L", 4)) + element(0x0010, b"UI", b"1.2.9")
    content = file(dataset=inner + DATASET)

    meta = file_meta_of(content)

    assert meta.transfer_syntax == EXPLICIT
    assert dataset_of(content, meta) == inner + DATASET


def test_a_file_may_end_with_its_meta_group() -> None:
    for content in (file(dataset=b""), file(dataset=b"", length=9)):
        assert file_meta_of(content).dataset_start == len(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"DICM",
        bytes(132),
        bytes(128) + b"DICM",
        bytes(128) + b"DICM" + DATASET,
        bytes(128) + b"DICM" + element(0x0003, b"UI", b"1.2.3") + DATASET,
        file(syntax=""),
        bytes(128) + b"DICM\2\0\x10\0\x04\0\0\x001.2\0",
        bytes(128) + b"DICM" + pack("<HH2sHL", 2, 1, b"OB", 0, 0xFFFFFFFF),
    ],
)
def test_what_is_no_dicom_file_is_malformed(content: bytes) -> None:
    with pytest.raises(MalformedError):
        file_meta_of(content)


def test_a_file_cut_inside_its_meta_group_is_never_misread() -> None:
    content = file(element(0x0016, b"AE", b"SOURCE"), element(0x0026, b"UR", b"dicom://10.0.0.7"))
    whole = file_meta_of(content)

    for cut in range(len(content)):
        try:
            found = file_meta_of(content[:cut], is_whole=False)
        except (TruncatedError, MalformedError):
            assert cut < whole.dataset_start
        else:
            assert cut >= whole.dataset_start
            assert found == whole


@given(st.binary(max_size=120))
def test_any_bytes_after_the_preamble_are_read_or_refused(data: bytes) -> None:
    content = bytes(128) + b"DICM" + data
    try:
        meta = file_meta_of(content)
    except (TruncatedError, MalformedError):
        return
    assert 132 < meta.dataset_start <= len(content)


def test_a_group_of_many_kilobytes_is_read_in_two_steps() -> None:
    content = file(element(0x0100, b"UI", b"1.2"), element(0x0102, b"OB", bytes(100_000)))
    asked: list[int] = []

    def read(offset: int, length: int) -> Buffer:
        asked.append(length)
        return content[offset : offset + length]

    assert dataset_of(content, read_file_meta(read)) == DATASET
    assert len(asked) == 2


def test_a_group_without_end_is_given_up() -> None:
    content = file(element(0x0102, b"OB", bytes(3_000_000)))

    with pytest.raises(TruncatedError):
        read_file_meta(lambda offset, length: content[offset : offset + length])
