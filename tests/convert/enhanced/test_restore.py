"""The originals come back out of the object, byte for byte or with equal header and pixels."""

import contextlib
import hashlib
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from scp.convert.decode import decode_for_peer
from scp.convert.digests import digest
from scp.convert.enhanced.collapse import collapse
from scp.convert.enhanced.collapsed import Collapsed
from scp.convert.enhanced.groups import partition
from scp.convert.enhanced.originals import Layout, Surroundings
from scp.convert.enhanced.record import (
    RecordWriter,
    RestoreRecord,
    read_record,
    read_sidecar,
    sidecar,
    sidecar_of,
)
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.restore import NotRestorableError, is_collapsed, restore, verify_collapsed
from scp.convert.enhanced.slices import SourceSlice
from scp.part10 import file_meta_of
from tests.convert.enhanced.series import (
    Series,
    collapsed,
    ct,
    eight_bits,
    encoded,
    implicit,
    mr,
    pet,
    repeated,
    slices,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """A collapsed object, and what it gives back."""

    content: bytes
    record: tuple[int, int]
    """Where the restore record begins, and its length."""
    files: dict[str, bytes]
    """By SOP Instance UID."""


def _big_endian(series: Series) -> Series:
    for dataset in series:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    return series


def _big_endian_bytes(series: Series) -> Series:
    """Bytes in words of 16 bits; an odd frame's last one shares its word with the padding."""
    for dataset in series:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    return series


def _with_trailing_elements(series: Series) -> Series:
    for dataset in series:
        dataset.add_new(0x7FE10010, "LO", "AFTER THE PIXELS")
        dataset.add_new(0x7FE11001, "OB", b"1234")
        dataset.DataSetTrailingPadding = b"\0" * 126
    return series


NATIVE: dict[str, Callable[[], Series]] = {
    "CT": ct,
    "MR": mr,
    "PET, signed": pet,
    "implicit VR": lambda: implicit(mr()),
    "big endian": lambda: _big_endian(ct()),
    "bytes": lambda: eight_bits(4, 20, 30),
    "odd frames": lambda: eight_bits(4, 33, 35),
    "odd frames, big endian": lambda: _big_endian_bytes(eight_bits(4, 33, 35)),
    "elements after the pixels": lambda: _with_trailing_elements(ct()),
    "over time": lambda: repeated(mr, 2, TemporalPositionIdentifier=lambda t, _: t + 1),
    "a private element of nobody": lambda: _with_orphan(ct()),
    "more padding than there must be": lambda: _padded(ct(), bytes(6)),
    "padding that is no zero": lambda: _padded(eight_bits(4, 33, 35), b"\7"),
}


def _padded(series: Series, padding: bytes) -> Series:
    for dataset in series:
        words = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
        dataset.PixelData = dataset.PixelData[:words] + padding
    return series


def _with_orphan(series: Series) -> Series:
    for dataset in series:
        dataset.add_new(0x00431001, "LO", "nobody's")
    return series


def _by_uid(sources: list[SourceSlice]) -> dict[str, SourceSlice]:
    return {
        str(dcmread(source.path, stop_before_pixels=True).SOPInstanceUID): source
        for source in sources
    }


def _made(sources: list[SourceSlice], folder: Path) -> tuple[Path, Collapsed]:
    (volume,) = partition(sources).volumes
    target = folder / "enhanced.dcm"
    return target, collapse(volume, target, restore_record="embedded")


def assert_gives_back(enhanced: Path, sources: list[SourceSlice], out: Path) -> None:
    """Every source once, byte for byte."""
    restored = list(restore(enhanced, out))
    originals = _by_uid(sources)
    assert len(restored) == len(sources)
    for each in restored:
        assert each.path is not None
        assert (each.is_byte_identical, each.warning, each.fault) == (True, "", "")
        assert each.path.read_bytes() == originals.pop(each.sop_instance_uid).path.read_bytes()


@pytest.mark.parametrize("make", NATIVE.values(), ids=NATIVE.keys())
def test_native_files_come_back_byte_for_byte(tmp_path: Path, make: Callable[[], Series]) -> None:
    sources = slices(make(), tmp_path / "in")
    target, _ = _made(sources, tmp_path)

    assert_gives_back(target, sources, tmp_path / "out")


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian])
def test_compressed_files_come_back_with_equal_header_and_pixels(
    tmp_path: Path, syntax: str
) -> None:
    (tmp_path / "in").mkdir()
    paths: list[Path] = []
    for number, dataset in enumerate(ct()):
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        else:
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        paths.append(tmp_path / "in" / f"{number}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    sources = encoded(paths, tmp_path / "in")
    target, _ = _made(sources, tmp_path)

    originals = _by_uid(sources)
    for each in restore(target, tmp_path / "out"):
        assert each.path is not None
        assert not each.is_byte_identical
        before, after = dcmread(originals[each.sop_instance_uid].path), dcmread(each.path)
        assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert np.array_equal(before.pixel_array, after.pixel_array)
        del before.PixelData, after.PixelData
        assert before == after


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_object_that_was_decoded_for_a_peer_gives_its_originals_back(
    tmp_path: Path, syntax: str
) -> None:
    sources = slices(ct(), tmp_path / "in")
    target, _ = _made(sources, tmp_path)
    copy = tmp_path / "decoded.dcm"
    decode_for_peer(target, copy, syntax, decode_lossy=False)

    assert_gives_back(copy, sources, tmp_path / "out")
    assert is_collapsed(copy)
    assert [frame.fault for frame in verify_collapsed(copy)] == [""] * 5
    assert all(frame.is_whole for frame in verify_collapsed(copy))


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian]
)
def test_an_object_that_a_peer_compressed_otherwise_gives_its_originals_back(
    tmp_path: Path, syntax: str
) -> None:
    sources = slices(ct(), tmp_path / "in")
    target, _ = _made(sources, tmp_path)
    copy = tmp_path / "copy.dcm"
    decode_for_peer(target, copy, ExplicitVRLittleEndian, decode_lossy=False)
    image = dcmread(copy)
    if syntax == DeflatedExplicitVRLittleEndian:
        image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    else:
        image.compress(syntax, generate_instance_uid=False)
    image.save_as(copy, enforce_file_format=True)

    assert_gives_back(copy, sources, tmp_path / "out")


def test_a_decoded_object_with_one_other_pixel_loses_that_frame_only(tmp_path: Path) -> None:
    target, _ = _made(slices(ct(), tmp_path / "in"), tmp_path)
    copy = tmp_path / "decoded.dcm"
    decode_for_peer(target, copy, ExplicitVRLittleEndian, decode_lossy=False)
    image = dcmread(copy)
    words = bytearray(image.PixelData)
    words[len(words) // 2] ^= 1  # In the third of five.
    image.PixelData = bytes(words)
    image.save_as(copy)

    restored = list(restore(copy, tmp_path / "out"))

    assert [each.path is not None for each in restored] == [True, True, False, True, True]
    assert "not those that were recorded" in restored[2].fault


def test_files_that_share_the_uid_of_their_meta_groups_come_back_each_under_its_own(
    tmp_path: Path,
) -> None:
    series = ct()
    uids = [str(dataset.SOPInstanceUID) for dataset in series]
    sources = slices(series, tmp_path / "in")
    for source in sources:  # Of one length, so that nothing else of the file changes.
        content = source.path.read_bytes()
        own = content.index(b"UI", 132)
        uid = str(dcmread(source.path).SOPInstanceUID).encode()
        same = uids[0].encode().ljust(len(uid), b"\0")[: len(uid)]
        source.path.write_bytes(content.replace(uid, same, 1))
        assert own < content.index(uid)
    target, _ = _made(sources, tmp_path)

    restored = list(restore(target, tmp_path / "out"))

    assert sorted(each.sop_instance_uid for each in restored) == sorted(uids)
    assert [each.fault for each in restored] == [""] * 5


def test_the_sidecar_does_what_the_embedded_record_does(tmp_path: Path) -> None:
    sources = slices(ct(), tmp_path / "in")
    (volume,) = partition(sources).volumes
    target = tmp_path / "enhanced.dcm"
    made = collapse(volume, target, restore_record="sidecar")

    assert made.sidecar == sidecar_of(target)
    assert made.sidecar.stat().st_size > made.record_bytes > 0
    restored = list(restore(target, tmp_path / "out"))
    assert all(each.is_byte_identical for each in restored)
    moved = made.sidecar.rename(tmp_path / "elsewhere")
    with pytest.raises(NotRestorableError, match="no restore record"):
        next(restore(target, tmp_path / "again"))
    assert len(list(restore(target, tmp_path / "again", sidecar=moved))) == 5


def test_the_sidecar_of_another_object_is_not_taken(tmp_path: Path) -> None:
    target, _ = collapsed(ct(5), tmp_path / "one", record="sidecar")
    other, _ = collapsed(ct(4), tmp_path / "other", record="sidecar")

    with pytest.raises(NotRestorableError, match="another object"):
        next(restore(target, tmp_path / "out", sidecar=sidecar_of(other)))


def test_without_a_record_there_are_only_digests(tmp_path: Path) -> None:
    target, made = collapsed(ct(), tmp_path, record="none")

    assert made.record_bytes == 0
    assert is_collapsed(target)
    assert [frame.fault for frame in verify_collapsed(target)] == [""] * 5
    with pytest.raises(NotRestorableError):
        next(restore(target, tmp_path / "out"))


def test_the_block_is_declared_to_identify_the_patient(tmp_path: Path) -> None:
    image = dcmread(collapsed(ct(), tmp_path)[0])

    (item,) = image.PrivateDataElementCharacteristicsSequence
    assert item.BlockIdentifyingInformationStatus == "UNSAFE"
    block = image.private_block(item.PrivateGroupReference, item.PrivateCreatorReference)
    assert 1 in block


def _edit(target: Path, **values: str) -> None:
    image = dcmread(target)
    for keyword, value in values.items():
        setattr(image, keyword, value)
    dcmwrite(target, image)


def test_a_patient_who_is_another_now_is_a_warning(tmp_path: Path) -> None:
    target, _ = collapsed(ct(), tmp_path)
    _edit(target, PatientName="Corrected^Name", AccessionNumber="A1")

    restored = list(restore(target, tmp_path / "out"))

    assert all(each.is_byte_identical for each in restored)
    for each in restored:
        assert "PatientName" in each.warning
        assert "AccessionNumber" in each.warning
        assert "PatientID" not in each.warning
        assert "Corrected" not in each.warning


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Other^Name"), ("PatientID", "OTHER"), ("IssuerOfPatientID", "ELSEWHERE"),
        ("PatientBirthDate", "19000101"), ("PatientSex", "F"), ("StudyInstanceUID", "2.25.99"),
        ("AccessionNumber", "A99"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["native", "rle"])
@pytest.mark.parametrize("record", ["embedded", "sidecar"])
def test_whatever_identifies_the_patient_otherwise_is_named(
    tmp_path: Path, keyword: str, value: str, syntax: str, record: RestoreRecord
) -> None:
    series = ct(2)
    if syntax == RLELossless:
        for dataset in series:
            dataset.compress(RLELossless)
    target, _ = collapsed(series, tmp_path, record=record)
    _edit(target, **{keyword: value})

    for each in restore(target, tmp_path / "out"):
        assert each.path is not None
        assert each.warning.endswith(f": {keyword}")
        assert value not in each.warning


def test_an_object_written_again_by_another_program_still_gives_its_sources(
    tmp_path: Path,
) -> None:
    target, _ = collapsed(ct(), tmp_path)
    _edit(target)

    assert all(each.is_byte_identical for each in restore(target, tmp_path / "out"))


def _damage(target: Path, at: int) -> None:
    with target.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 0x40,)))


def _frame_of(target: Path, index: int) -> int:
    """Where the frame's codestream begins."""
    content = target.read_bytes()
    start = content.rindex(b"\xe0\x7f\x10\x00OB")
    for _ in range(index + 1):
        start = content.index(b"\xff\x4f\xff\x51", start + 1)
    return start


def test_a_damaged_frame_costs_no_other_frame(tmp_path: Path) -> None:
    target, _ = collapsed(ct(), tmp_path)
    _damage(target, _frame_of(target, 2) + 700)

    restored = list(restore(target, tmp_path / "out"))

    assert [each.frame for each in restored if each.fault] == [3]
    assert restored[2].path is None
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert [frame.frame for frame in verify_collapsed(target) if frame.fault] == [3]


@pytest.mark.parametrize(("at", "fault"), [(3, "dataset"), (32 + 3, "pixels")])
def test_what_differs_from_its_recorded_digest_is_not_written(
    tmp_path: Path, at: int, fault: str
) -> None:
    target, _ = collapsed(ct(), tmp_path)
    image = dcmread(target)
    digests = image.private_block(0x0099, "DCMPRESS COLLAPSED")[0x02]
    changed = bytearray(digests.value)
    changed[2 * 64 + at] ^= 1
    digests.value = bytes(changed)
    dcmwrite(target, image)

    restored = list(restore(target, tmp_path / "out"))

    assert [each.frame for each in restored if fault in each.fault] == [3]
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert [checked.frame for checked in verify_collapsed(target) if checked.fault] == [3]


def test_a_damaged_record_costs_what_comes_after_and_says_so(tmp_path: Path) -> None:
    target, made = collapsed(ct(40), tmp_path)
    start = target.read_bytes().index(b"\xfd7zXZ\0")
    _damage(target, start + made.record_bytes // 2)

    restored = list(restore(target, tmp_path / "out"))

    lost = [each.frame for each in restored if each.path is None]
    assert 0 < len(lost) < 40
    assert lost == list(range(lost[0], 41))
    assert all("the restore record is damaged" in each.fault for each in restored[lost[0] - 1 :])
    assert all(each.is_byte_identical for each in restored[: lost[0] - 1])
    assert len(list((tmp_path / "out").iterdir())) == 40 - len(lost)


def test_a_record_that_is_damaged_from_its_beginning_gives_nothing(tmp_path: Path) -> None:
    target, _ = collapsed(ct(), tmp_path)
    _damage(target, target.read_bytes().index(b"\xfd7zXZ\0") + 8)

    with pytest.raises(NotRestorableError, match="damaged"):
        list(restore(target, tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("is_changed", [True, False], ids=["changed", "check sum alone"])
@pytest.mark.parametrize("is_compressed", [True, False], ids=["rle", "native"])
def test_a_record_whose_check_sum_is_wrong_is_not_believed(
    tmp_path: Path, is_compressed: bool, is_changed: bool
) -> None:
    series = ct(3, PatientID="RIGHT")
    if is_compressed:
        for dataset in series:
            dataset.compress(RLELossless)
    target, _ = collapsed(series, tmp_path, record="sidecar")
    content = sidecar_of(target).read_bytes()
    start = content.index(b"\xfd7zXZ\0")
    plain = lzma.decompress(content[start:])
    assert plain.count(b"RIGHT") == 3
    record = bytearray(
        lzma.compress(
            plain.replace(b"RIGHT", b"WRONG") if is_changed else plain, check=lzma.CHECK_CRC32
        )
    )
    index = 4 * (1 + int.from_bytes(record[-8:-4], "little"))
    record[-12 - index - 1] ^= 1
    sidecar_of(target).write_bytes(content[:start] + record)

    written: list[Path] = []
    with contextlib.suppress(NotRestorableError):
        written += [each.path for each in restore(target, tmp_path / "out") if each.path]

    # Without the digest of a native dataset nothing else tells what the header was.
    expected = 0 if is_compressed or is_changed else 2
    assert len(written) == len(list((tmp_path / "out").iterdir())) == expected
    assert any(checked.fault for checked in verify_collapsed(target))


@pytest.fixture(scope="module", params=["native", "compressed"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Good:
    folder = tmp_path_factory.mktemp("good")
    series = ct(3)
    if request.param == "compressed":
        for dataset in series:
            dataset.compress(RLELossless)
    target, made = collapsed(series, folder)
    files = {
        each.sop_instance_uid: each.path.read_bytes()
        for each in restore(target, folder / "out")
        if each.path
    }
    content = target.read_bytes()
    return Good(
        content=content,
        record=(content.index(b"\xfd7zXZ\0"), made.record_bytes),
        files=files,
    )


@settings(max_examples=120)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_bit_of_the_record_never_makes_another_file_and_is_told(
    good: Good, tmp_path_factory: pytest.TempPathFactory, at: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    start, length = good.record
    content = bytearray(good.content)
    content[start + int(at * length)] ^= 1 << bit
    target = folder / "enhanced.dcm"
    target.write_bytes(content)

    said = ""
    try:
        for each in restore(target, folder / "out"):
            said += each.fault
            assert (each.path is None) == bool(each.fault)
    except NotRestorableError as error:
        said = str(error)
    found = {path.stem: path.read_bytes() for path in (folder / "out").iterdir()}
    assert found.items() <= good.files.items()
    assert said or found == good.files
    assert any(checked.fault for checked in verify_collapsed(target))


def test_nothing_that_is_there_already_is_replaced(tmp_path: Path) -> None:
    target, _ = collapsed(ct(), tmp_path)
    first = list(restore(target, tmp_path / "out"))
    assert first[1].path is not None
    first[1].path.write_bytes(b"somebody's")

    again = list(restore(target, tmp_path / "out"))

    assert all("cannot be written" in each.fault for each in again)
    assert first[1].path.read_bytes() == b"somebody's"


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", ""])
def test_a_uid_that_is_none_does_not_become_a_path(tmp_path: Path, name: str) -> None:
    series = ct(2)
    target, _ = collapsed(series, tmp_path, record="sidecar")
    own = str(dcmread(target).SOPInstanceUID)
    record = RecordWriter()
    for around in read_record(read_sidecar(sidecar_of(target).read_bytes(), own), 2):
        uid = file_meta_of(around.before).sop_instance_uid.encode()
        hostile = around.before.replace(uid, name.encode().ljust(len(uid), b"\0"))
        # Of a source that was compressed, whose header nothing vouches for but the record itself.
        before = hostile[:-12]
        record.add(Surroundings(layout=Layout.COMPRESSED, before=before, after=b""))
    sidecar_of(target).write_bytes(sidecar(own, record.finish()))

    restored = list(restore(target, tmp_path / "out"))

    assert [each.path for each in restored] == [
        tmp_path / "out" / "frame-1.dcm",
        tmp_path / "out" / "frame-2.dcm",
    ]


@pytest.mark.parametrize("content", [b"", b"no DICOM", None])
def test_other_files_are_not_ours(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.dcm"
    if content is None:
        ct(1)[0].save_as(path)
    else:
        path.write_bytes(content)

    assert not is_collapsed(path)
    with pytest.raises(NotRestorableError):
        next(restore(path, tmp_path / "out"))


def test_the_recorded_digests_are_those_of_what_was_received(tmp_path: Path) -> None:
    sources = slices(ct(), tmp_path / "in")
    target, _ = _made(sources, tmp_path)

    for checked, each in zip(
        verify_collapsed(target), restore(target, tmp_path / "out"), strict=True
    ):
        source = _by_uid(sources)[each.sop_instance_uid]
        whole = dcmread(source.path)
        assert checked.digests.pixels == hashlib.sha256(whole.PixelData).hexdigest()
        assert checked.digests.dataset == digest(source.path).dataset == source.dataset_sha256


def test_the_record_costs_little(tmp_path: Path) -> None:
    _, made = collapsed(ct(40), tmp_path)

    assert made.record_bytes / 40 < 150


def test_what_changed_since_it_was_encoded_is_not_collapsed(tmp_path: Path) -> None:
    sources = slices(ct(), tmp_path / "in")
    (volume,) = partition(sources).volumes
    _damage(sources[1].encoded, sources[1].encoded.stat().st_size - 200)

    with pytest.raises(NotCollapsedError, match="proof_failed"):
        collapse(volume, tmp_path / "enhanced.dcm", restore_record="embedded")
    assert not (tmp_path / "enhanced.dcm").exists()
