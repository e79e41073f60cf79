"""The routing header of a received dataset, and the file that the spool makes of it."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from scp.buffer import part10
from scp.buffer.part10 import (
    IdentityReader,
    check_identity,
    check_request,
    file_head,
    open_instance,
    read_identity,
    same_instance,
)
from scp.errors import (
    InvalidUidError,
    TruncatedError,
    UidMismatchError,
    UnreadableInstanceError,
)
from scp.model import Identity, Origin, StoreRequest
from tests.buffer.spool import CT_IMAGE, EXPLICIT_LITTLE, ORIGIN, Sent, element
from tests.encodings import SYNTAXES, datasets, deflated, encoded

EVERY_SYNTAX = pytest.mark.parametrize("syntax", SYNTAXES)
IDENTITY = Identity(
    sop_class_uid=CT_IMAGE,
    sop_instance_uid="1.2.3.4",
    study_instance_uid="1.2.3",
    series_instance_uid="1.2.3.5",
)
DEFLATED = "1.2.840.10008.1.2.1.99"


def with_identity(dataset: Dataset, identity: Identity = IDENTITY) -> Dataset:
    dataset.SOPClassUID = identity.sop_class_uid
    dataset.SOPInstanceUID = identity.sop_instance_uid
    dataset.StudyInstanceUID = identity.study_instance_uid
    dataset.SeriesInstanceUID = identity.series_instance_uid
    return dataset


def with_traps() -> Dataset:
    """Other identities in sequences before and between the real one, in every kind of sequence."""
    trap = with_identity(
        Dataset(),
        Identity(
            sop_class_uid="9.1",
            sop_instance_uid="9.2",
            study_instance_uid="9.3",
            series_instance_uid="9.4",
        ),
    )
    deeper = Dataset()
    deeper.ReferencedSeriesSequence = [trap]
    deeper.is_undefined_length_sequence_item = True
    dataset = with_identity(Dataset())
    for number, keyword in enumerate(
        ("LanguageCodeSequence", "ReferencedStudySequence", "DerivationCodeSequence")
    ):
        setattr(dataset, keyword, [trap, deeper])
        dataset[keyword].is_undefined_length = bool(number % 2)
    dataset.private_block(0x0009, "TRAP", create=True).add_new(1, "SQ", [trap, deeper])
    return dataset


def trap_in_un() -> bytes:
    """A private sequence as a sender writes it that does not know its VR: UN, implicit inside."""
    inner = b"".join(
        pack("<HHL", tag >> 16, tag & 0xFFFF, 4) + b"9.99"
        for tag in (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
    )
    item = pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + pack("<HHL", 0xFFFE, 0xE00D, 0)
    end = pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return pack("<HH2sHL", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + item + end


# -- the routing header ----------------------------------------------------------------------------


@EVERY_SYNTAX
@given(dataset=datasets())
@settings(max_examples=40)
def test_the_identity_is_found_among_any_elements(syntax: str, dataset: Dataset) -> None:
    data = encoded(with_identity(dataset), syntax)

    assert read_identity(data, syntax) == IDENTITY


def outcome(read: Callable[[], Identity]) -> Identity | type[Exception]:
    try:
        return read()
    except (TruncatedError, UnreadableInstanceError) as error:
        return type(error)


def asked_for(syntax: str) -> StoreRequest:
    return StoreRequest(
        origin=ORIGIN,
        sop_class_uid=CT_IMAGE,
        sop_instance_uid=IDENTITY.sop_instance_uid,
        transfer_syntax=syntax,
    )


@EVERY_SYNTAX
@given(dataset=datasets(), data=st.data())
@settings(max_examples=60)
def test_whatever_came_before_the_identity_is_that_of_the_dataset(
    syntax: str, dataset: Dataset, data: st.DataObject
) -> None:
    usual = encoded(with_identity(dataset), syntax) + element(0x0020, 0x0013, b"IS", "1 ")
    reader, request = IdentityReader(), asked_for(syntax)
    for _ in range(3):
        assert reader.read(usual, request) == IDENTITY

    changed = bytearray(usual)
    for place in data.draw(st.lists(st.integers(0, len(usual) - 1), max_size=3)):
        changed[place] = data.draw(st.integers(0, 255))
    cut = changed[: data.draw(st.integers(0, len(usual)))]

    for other in (changed, cut, usual):
        expected = outcome(lambda: read_identity(other, syntax))  # noqa: B023 - called at once
        assert outcome(lambda: reader.read(other, request)) == expected  # noqa: B023


def test_instances_that_lie_like_others_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, request = IdentityReader(), asked_for(EXPLICIT_LITTLE)
    first, second = Sent("1.2.3.4"), Sent("1.2.3.5")
    for _ in range(2):
        assert reader.read(first.dataset, request) == first.identity

    monkeypatch.setattr(part10, "walk", lambda *_, **__: pytest.fail("it was walked"))

    assert reader.read(second.dataset, request) == second.identity


def test_what_is_remembered_of_instances_is_bounded() -> None:
    reader, sent = IdentityReader(), Sent("1.2.3.4")
    many = b"".join(element(0x0009, number, b"LO", "") for number in range(0x1000, 0x1400))
    start = sent.dataset.index(element(0x0020, 0x000D, b"UI", "1.2.826.0.1.1"))

    for number in range(1000):
        request = replace(asked_for(EXPLICIT_LITTLE), sop_class_uid=f"1.2.{number}")
        for _ in range(2):
            reader.read(sent.dataset, request)
    for number in range(1000):  # Of which none comes twice.
        reader.read(
            sent.dataset, replace(asked_for(EXPLICIT_LITTLE), sop_class_uid=f"1.3.{number}")
        )
    for _ in range(3):
        fat = sent.dataset[:start] + many + sent.dataset[start:]
        assert reader.read(fat, asked_for(EXPLICIT_LITTLE)) == sent.identity

    assert len(reader._known) <= 64
    assert len(reader._missed) <= 64
    assert request.sop_class_uid in {kind[1] for kind in reader._known}
    assert CT_IMAGE not in {kind[1] for kind in reader._known}


@EVERY_SYNTAX
def test_uids_in_sequences_are_not_those_of_the_instance(syntax: str) -> None:
    assert read_identity(encoded(with_traps(), syntax), syntax) == IDENTITY


def test_uids_in_a_private_sequence_of_unknown_vr_are_not_those_of_the_instance() -> None:
    sent = Sent("1.2.3.4")
    start = sent.dataset.index(element(0x0020, 0x000D, b"UI", "1.2.826.0.1.1"))
    data = sent.dataset[:start] + trap_in_un() + sent.dataset[start:]

    assert read_identity(data, EXPLICIT_LITTLE) == sent.identity
    assert read_identity(deflated(data), DEFLATED) == sent.identity


@EVERY_SYNTAX
def test_a_dataset_cut_at_any_byte_has_its_own_identity_or_needs_more(syntax: str) -> None:
    data = encoded(with_traps(), syntax)
    found = 0
    for cut in range(len(data)):
        try:
            assert read_identity(data[:cut], syntax) == IDENTITY
            found += 1
        except TruncatedError:
            assert not found, "found with less, and not with more"


@EVERY_SYNTAX
@given(dataset=datasets(), where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@settings(max_examples=60)
def test_a_dataset_with_a_byte_replaced_is_read_or_refused(
    syntax: str, dataset: Dataset, where: float, byte: int
) -> None:
    data = bytearray(encoded(with_identity(dataset), syntax))
    data[int(where * len(data))] = byte
    try:
        read_identity(data, syntax)
    except (TruncatedError, UnreadableInstanceError):
        return


@EVERY_SYNTAX
@given(dataset=datasets(), where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@settings(max_examples=60)
def test_a_file_is_read_as_its_dataset_was_when_it_came(
    tmp_path_factory: pytest.TempPathFactory,
    syntax: str,
    dataset: Dataset,
    where: float,
    byte: int,
) -> None:
    data = bytearray(encoded(with_identity(dataset), syntax))
    if where:
        data[int(where * len(data))] = byte
    path = tmp_path_factory.getbasetemp() / f"as-it-came-{syntax}.dcm"
    path.write_bytes(file_head(asked_for(syntax)) + data)

    def refusing(read: Callable[[], Identity]) -> Identity | None:
        try:
            return read()
        except (TruncatedError, UnreadableInstanceError):
            return None

    came = refusing(lambda: read_identity(data, syntax))
    assert refusing(lambda: open_instance(path).identity) == came


def items_without_end(tag: int) -> bytes:
    """A sequence of 16 MiB of empty items, in a private or a public element."""
    start = pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"SQ", 0, 0xFFFFFFFF)
    return start + pack("<HHL", 0xFFFE, 0xE000, 0) * 2**21 + pack("<HHL", 0xFFFE, 0xE0DD, 0)


@pytest.mark.parametrize(
    ("before", "is_read"),
    [
        (element(0x0009, 0x1001, b"OB", bytes(60 * 2**20)), True),
        (items_without_end(0x00091001), False),
        (items_without_end(0x00081115), False),
        (element(0x0009, 0x1001, b"LO", "") * 25_000, False),
        (element(0x0009, 0x1001, b"LO", "") * 2**21, False),
    ],
)
def test_a_header_of_any_length_is_read_or_refused_in_bounded_memory(
    tmp_path: Path, before: bytes, is_read: bool
) -> None:
    sent = Sent("1.2.3.4")
    start = sent.dataset.index(element(0x0020, 0x000D, b"UI", "1.2.826.0.1.1"))
    path = tmp_path / "x.dcm"
    path.write_bytes(file_head(sent.request) + sent.dataset[:start] + before + sent.dataset[start:])

    tracemalloc.start()
    try:
        found = open_instance(path).identity
    except UnreadableInstanceError:
        found = None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert (found == sent.identity) is is_read
    assert peak < 16 * 2**20


@given(data=st.binary(max_size=100), syntax=st.sampled_from([*SYNTAXES, "1.2.3", ""]))
@settings(max_examples=300)
def test_any_bytes_are_refused(data: bytes, syntax: str) -> None:
    with pytest.raises((TruncatedError, UnreadableInstanceError)):
        read_identity(data, syntax)


@pytest.mark.parametrize(
    "uid", ["", " ", "1.2/3", "../1", "1.2\\1.3", "1.2a", "1 .2", "1.2\n", "1" * 129, "ä"]
)
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_uid_with_other_characters_than_digits_and_dots_is_none(keyword: str, uid: str) -> None:
    tags = {"SOPInstanceUID": 0x00080018, "StudyInstanceUID": 0x0020000D}
    values = {0x00080016: CT_IMAGE, 0x00080018: "1.2", 0x0020000D: "1.3", 0x0020000E: "1.4"}
    values[tags.get(keyword, 0x0020000E)] = uid
    data = b"".join(
        element(tag >> 16, tag & 0xFFFF, b"UI", value.encode("latin-1"))
        for tag, value in values.items()
    )

    with pytest.raises(UnreadableInstanceError):
        read_identity(data, EXPLICIT_LITTLE)


@pytest.mark.parametrize("uid", ["..", ".", "0", "1..2", "01.2", "1" * 128])
def test_a_uid_of_digits_and_dots_is_taken_as_it_is(uid: str) -> None:
    sent = Sent(uid)

    assert read_identity(sent.dataset, EXPLICIT_LITTLE).sop_instance_uid == uid


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0\0", b" \0"])
def test_padding_is_no_part_of_a_uid(padding: bytes) -> None:
    data = b"".join(
        pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"UI", len(value + padding)) + value + padding
        for tag, value in (
            (0x00080016, b"1.1"),
            (0x00080018, b"1.2"),
            (0x0020000D, b"1.3"),
            (0x0020000E, b"1.4"),
        )
    )

    assert read_identity(data, EXPLICIT_LITTLE) == Identity(
        sop_class_uid="1.1",
        sop_instance_uid="1.2",
        study_instance_uid="1.3",
        series_instance_uid="1.4",
    )


def test_of_a_uid_that_comes_twice_the_first_counts_however_much_is_there() -> None:
    first = Sent("1.2.3.4").dataset.partition(element(0x7FE0, 0x0010, b"OW", Sent("").pixels))[0]

    for data in (first, first + Sent("9.9", series="9.8").dataset):
        assert read_identity(data, EXPLICIT_LITTLE) == Sent("1.2.3.4").identity


def test_a_deflate_bomb_costs_little_and_is_refused() -> None:
    prefix = element(0x0008, 0x0018, b"UI", "1.2")
    bomb = deflated(prefix + element(0x0009, 0x1001, b"OB", bytes(100 * 2**20)), level=9)

    with pytest.raises((TruncatedError, UnreadableInstanceError)):
        read_identity(bomb, DEFLATED)


def test_sequences_without_end_are_refused() -> None:
    opening = pack("<HH2sHL", 0x0009, 0x1001, b"SQ", 0, 0xFFFFFFFF)
    opening += pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)

    with pytest.raises(UnreadableInstanceError):
        read_identity(opening * 10_000, EXPLICIT_LITTLE)


# -- the command -----------------------------------------------------------------------------------


def _request(
    uid: str = "1.2.3.4", sop_class: str = CT_IMAGE, syntax: str = EXPLICIT_LITTLE
) -> StoreRequest:
    return StoreRequest(
        origin=ORIGIN,
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        transfer_syntax=syntax,
    )


def test_a_command_and_its_dataset_name_the_same_instance_and_class() -> None:
    check_identity(_request(), IDENTITY)

    for request in (_request(uid="1.2.3.5"), _request(sop_class="1.2.840.10008.5.1.4.1.1.4")):
        with pytest.raises(UidMismatchError):
            check_identity(request, IDENTITY)


def test_a_command_without_a_uid_is_refused() -> None:
    check_request(_request(uid=".."))

    for uid in ("", "a", "1/2"):
        with pytest.raises(InvalidUidError):
            check_request(_request(uid=uid))


@pytest.mark.parametrize(
    "uid",
    [
        pytest.param("", id="empty"),
        pytest.param("1." * 4096, id="8 kB"),
        pytest.param("1" * 129, id="too long"),
        pytest.param("1.2\n", id="a line end"),
        pytest.param("1.2\0", id="a null"),
        pytest.param("1.\xb2", id="a digit of another alphabet"),
        pytest.param("explicit", id="a word"),
    ],
)
def test_a_command_whose_class_or_syntax_is_no_uid_is_not_understood(uid: str) -> None:
    check_request(_request(sop_class="1" * 128, syntax="1" * 128))

    for request in (_request(sop_class=uid), _request(syntax=uid)):
        with pytest.raises(UnreadableInstanceError) as refused:
            check_request(request)
        # That has a status of its own, which is only about the instance's UID.
        assert not isinstance(refused.value, InvalidUidError)


# -- the file --------------------------------------------------------------------------------------

_TITLES = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"),
    min_size=1,
    max_size=16,
)


@given(
    calling=_TITLES,
    called=_TITLES,
    address=st.sampled_from(["10.0.0.7", "::1", "fe80::1:2", ""]),
    uid=st.from_regex(r"[0-9.]{1,64}", fullmatch=True),
)
def test_who_sent_an_instance_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, calling: str, called: str, address: str, uid: str
) -> None:
    origin = Origin(calling_ae_title=calling, called_ae_title=called, peer_address=address)
    request = StoreRequest(
        origin=origin, sop_class_uid=CT_IMAGE, sop_instance_uid=uid, transfer_syntax=EXPLICIT_LITTLE
    )
    path = tmp_path_factory.mktemp("file") / "x.dcm"
    path.write_bytes(file_head(request) + Sent(uid).dataset)

    found = open_instance(path)

    assert found.origin == origin
    assert found.identity == Sent(uid).identity


def test_pydicom_reads_the_file_and_its_group_length() -> None:
    sent = Sent("1.2.3.4")

    dataset = dcmread(BytesIO(file_head(sent.request) + sent.dataset))

    meta = dataset.file_meta
    assert meta.MediaStorageSOPClassUID == CT_IMAGE
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.TransferSyntaxUID == EXPLICIT_LITTLE
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert meta.SendingApplicationEntityTitle == "CT1"
    assert meta.ReceivingApplicationEntityTitle == "DCMPRESS"
    assert meta.SourcePresentationAddress == "dicom://10.0.0.7"
    assert meta.FileMetaInformationGroupLength == len(file_head(sent.request)) - 144
    assert len(str(meta.ImplementationVersionName)) <= 16


@pytest.mark.parametrize(
    "content",
    [b"", b"DICM", bytes(128) + b"DICM", b"x" * 1000, file_head(_request()) + b"\x08\0\x18\0UI"],
)
def test_a_file_that_is_none_of_ours_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(content)

    with pytest.raises(UnreadableInstanceError):
        open_instance(path)


def test_a_dataset_that_begins_with_a_meta_group_of_its_own_keeps_it(tmp_path: Path) -> None:
    sent = Sent("1.2.3.4")
    inner = element(0x0002, 0x0000, b"UL", b"\4\0\0\0") + element(0x0002, 0x0010, b"UI", "1.2.9")
    path = tmp_path / "x.dcm"
    path.write_bytes(file_head(sent.request) + inner + sent.dataset)

    found = open_instance(path)

    assert found.transfer_syntax == EXPLICIT_LITTLE
    assert found.identity == sent.identity


def test_two_files_are_the_same_by_transfer_syntax_and_dataset_alone(tmp_path: Path) -> None:
    sent = Sent("1.2.3.4", pixels=bytes(3_000_000))
    other = Origin(calling_ae_title="OTHER", called_ae_title="X", peer_address="10.0.0.8")
    files = {
        "one": file_head(sent.request) + sent.dataset,
        "same": file_head(sent.request) + sent.dataset,
        "other peer": file_head(
            StoreRequest(
                origin=other,
                sop_class_uid=CT_IMAGE,
                sop_instance_uid=sent.uid,
                transfer_syntax=EXPLICIT_LITTLE,
            )
        )
        + sent.dataset,
        "syntax": file_head(
            StoreRequest(
                origin=ORIGIN,
                sop_class_uid=CT_IMAGE,
                sop_instance_uid=sent.uid,
                transfer_syntax="1.2.840.10008.1.2.4.70",
            )
        )
        + sent.dataset,
        "longer": file_head(sent.request) + sent.dataset + b"\0",
        "last byte": file_head(sent.request) + sent.dataset[:-1] + b"\1",
        "damaged": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    same = [name for name in files if same_instance(tmp_path / "one", tmp_path / name)]

    assert same == ["one", "same"]
