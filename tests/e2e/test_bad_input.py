"""What peers send that they should not: a clear status or reason each, and the node goes on."""

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from scp.errors import MalformedError, TruncatedError
from scp.part10 import file_meta_of
from tests.accept.raw_peer import (
    COMMAND,
    CT,
    EXPLICIT,
    LAST,
    RawPeer,
    associate_request,
    p_data,
    store_command,
)
from tests.convert.hostile import HOSTILE
from tests.e2e.judges import assert_converted, dataset_bytes, quiet_pydicom
from tests.e2e.ledger import row_of, rows_under
from tests.e2e.node import RunningNode
from tests.material import ct_series, write, write_all

pytestmark = pytest.mark.xdist_group("shared node")

CANNOT_UNDERSTAND = 0xC000
MISMATCH = 0xA900
INVALID_INSTANCE = 0x0117


def store(
    node: RunningNode, data: bytes, uid: str, sop_class: str = CT, syntax: str = EXPLICIT
) -> int:
    """C-STORE of these bytes under this UID; the status."""
    with quiet_pydicom(), RawPeer(("127.0.0.1", node.port)) as peer:
        peer.associate(associate_request([(sop_class, (syntax,))]))
        peer.send(p_data((1, COMMAND | LAST, store_command(uid, sop_class))))
        *pieces, last = [data[at : at + 2**16] for at in range(0, len(data), 2**16)] or [data]
        for piece in pieces:
            peer.send(p_data((1, 0, piece)))
        peer.send(p_data((1, LAST, last)))
        status = int(peer.read_response().Status)
        peer.release()
    return status


@pytest.fixture
def ct(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A good file that no other test has."""
    seed = 3000 + crc32(request.node.name.encode()) % 100_000
    (path,) = write_all(ct_series(1, 32, 32, seed=seed), tmp_path)
    return path


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def with_uids(path: Path, **uids: str) -> bytes:
    """The dataset with other UIDs, which may be none."""
    with quiet_pydicom():
        dataset = pydicom.dcmread(path)
        for keyword, uid in uids.items():
            setattr(dataset, keyword, uid)
        return encoded(dataset)


def encoded(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


# -- refused ---------------------------------------------------------------------------------------


def test_what_is_no_dataset_is_not_understood(shared_node: RunningNode) -> None:
    assert store(shared_node, b"This is no DICOM. " * 100, "2.25.1") == CANNOT_UNDERSTAND
    assert store(shared_node, b"", "2.25.1") == CANNOT_UNDERSTAND
    assert shared_node.arriving_bytes() == 0


def test_a_dataset_cut_before_its_series_is_not_understood(
    shared_node: RunningNode, ct: Path
) -> None:
    data = dataset_bytes(ct)

    status = store(shared_node, data[:300], uid_of(ct))

    assert status == CANNOT_UNDERSTAND


def test_another_uid_in_the_command_is_a_mismatch(shared_node: RunningNode, ct: Path) -> None:
    assert store(shared_node, dataset_bytes(ct), "2.25.4711") == MISMATCH


def test_another_class_in_the_command_is_a_mismatch(shared_node: RunningNode, ct: Path) -> None:
    mr = "1.2.840.10008.5.1.4.1.1.4"

    assert store(shared_node, dataset_bytes(ct), uid_of(ct), sop_class=mr) == MISMATCH


@pytest.mark.parametrize("uid", ["1.2/../../3", "", "1.2.three", "1.2\\3"])
def test_a_uid_that_is_none_is_invalid(shared_node: RunningNode, ct: Path, uid: str) -> None:
    data = with_uids(ct, SOPInstanceUID=uid)

    assert store(shared_node, data, uid) == INVALID_INSTANCE


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_series_that_would_lead_elsewhere_is_not_understood(
    shared_node: RunningNode, ct: Path, keyword: str
) -> None:
    data = with_uids(ct, **{keyword: "../../../../tmp/elsewhere"})

    assert store(shared_node, data, uid_of(ct)) == CANNOT_UNDERSTAND


# -- delivered -------------------------------------------------------------------------------------


def test_uids_of_dots_stay_in_their_folder(shared_node: RunningNode, ct: Path) -> None:
    uid = ".." + uid_of(ct)[4:20]
    data = with_uids(ct, SOPInstanceUID=uid, StudyInstanceUID="..", SeriesInstanceUID="...")
    before = set(shared_node.archived())

    status = store(shared_node, data, uid)

    shared_node.settle()
    assert status == 0
    (new,) = set(shared_node.archived()) - before
    assert len(new.relative_to(shared_node.archive).parts) == 3
    assert new.resolve().is_relative_to(shared_node.archive.resolve())


def test_uids_of_nested_items_are_not_taken_for_the_real_ones(
    shared_node: RunningNode, ct: Path
) -> None:
    dataset = pydicom.dcmread(ct)
    false = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(false, keyword, "1.2.3.4.5.6")
    # Before (0008,0018), so that a search for the first match would find these.
    dataset.LanguageCodeSequence = [false]
    dataset.save_as(ct)

    shared_node.send([ct])

    shared_node.settle()
    assert_converted(ct, shared_node.delivered(dataset))


def test_a_wrong_group_length_changes_nothing(shared_node: RunningNode, ct: Path) -> None:
    wrong = b"\x08\x00\x00\x00UL\x04\x00\xff\xff\xff\x7f"
    data = wrong + dataset_bytes(ct)

    status = store(shared_node, data, uid_of(ct))

    shared_node.settle()
    assert status == 0
    assert_converted(ct, shared_node.delivered(pydicom.dcmread(ct)))


def passed(node: RunningNode, path: Path, data: bytes, **how: Any) -> str:
    """Send; it must be delivered byte for byte; the reason why it was not converted."""
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    status = store(node, data, uid_of(path), **how)
    node.settle()
    assert status == 0
    assert dataset_bytes(node.delivered(dataset)) == data
    return row_of(node, path).reason or ""


def test_pixel_data_that_is_too_short_is_passed(
    shared_node: RunningNode, tmp_path: Path, ct: Path
) -> None:
    dataset = pydicom.dcmread(ct)
    dataset.PixelData = dataset.PixelData[:-64]

    assert passed(shared_node, ct, encoded(dataset)) == "pixel_data_short"


def test_a_dataset_cut_in_its_pixel_data_is_passed(shared_node: RunningNode, ct: Path) -> None:
    assert passed(shared_node, ct, dataset_bytes(ct)[:-500]) in ("pixel_data_short", "unreadable")


def test_an_unknown_transfer_syntax_is_passed(shared_node: RunningNode, ct: Path) -> None:
    reason = passed(shared_node, ct, dataset_bytes(ct), syntax="1.2.3.4.5.6.7")

    assert reason == "unknown_transfer_syntax"


def compressed(name: str, folder: Path, seed: int) -> tuple[Path, pydicom.FileDataset]:
    """One of pydicom's compressed files under a UID of its own."""
    dataset = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, f"2.25.{seed}{len(keyword)}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path)
    return path, dataset


@pytest.mark.parametrize(
    "name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"]
)
def test_a_broken_codestream_is_passed(shared_node: RunningNode, tmp_path: Path, name: str) -> None:
    path, dataset = compressed(name, tmp_path, seed=700 + len(name))
    pixels = bytearray(dataset.PixelData)
    noise = np.random.default_rng(1).integers(0, 256, len(pixels) - 200, dtype=np.uint8)
    pixels[150:-50] = noise.tobytes()
    dataset.PixelData = bytes(pixels)
    dataset.save_as(path)

    reason = passed(
        shared_node,
        path,
        dataset_bytes(path),
        sop_class=str(dataset.SOPClassUID),
        syntax=str(dataset.file_meta.TransferSyntaxUID),
    )

    assert reason in ("decoder_failed", "codestream_mismatch", "unused_bits_set")


def test_a_codestream_of_another_image_is_passed(shared_node: RunningNode, tmp_path: Path) -> None:
    path, dataset = compressed("MR_small_jp2klossless.dcm", tmp_path, seed=801)
    dataset.Rows = dataset.Rows * 2
    dataset.save_as(path)

    reason = passed(
        shared_node,
        path,
        dataset_bytes(path),
        sop_class=str(dataset.SOPClassUID),
        syntax=str(dataset.file_meta.TransferSyntaxUID),
    )

    assert reason == "codestream_mismatch"


def test_what_lies_is_delivered_as_it_is_or_was_never_acknowledged(
    shared_node: RunningNode,
) -> None:
    sent: dict[str, tuple[str, bytes]] = {}
    for number, (name, (make, _)) in enumerate(HOSTILE.items()):
        uid = f"2.25.9{number:03}"
        content = make().replace(b"2.25.1001", uid.encode())
        try:
            meta = file_meta_of(content)
        except (MalformedError, TruncatedError):
            continue  # A dataset on the wire has no file meta group.
        if meta.transfer_syntax == DeflatedExplicitVRLittleEndian:
            continue  # Its UIDs cannot be replaced.
        data = content[meta.dataset_start :]

        status = store(shared_node, data, uid, syntax=meta.transfer_syntax)

        assert status in (0, CANNOT_UNDERSTAND), name
        if status == 0:
            sent[uid] = (name, data)
    shared_node.settle()
    rows = {row.identity.sop_instance_uid: row for row in rows_under(shared_node, sent)}
    assert len(sent) > len(HOSTILE) * 3 // 4
    for uid, (name, data) in sent.items():
        (path,) = shared_node.archive.rglob(f"{uid}.dcm")
        assert dataset_bytes(path) == data, name
        assert rows[uid].reason == HOSTILE[name][1].value, name


def test_after_all_that_the_node_converts_as_before(
    shared_node: RunningNode, tmp_path: Path
) -> None:
    (dataset,) = ct_series(1, 32, 32, seed=399)
    path = write(dataset, tmp_path)

    shared_node.send([path])

    shared_node.settle()
    assert_converted(path, shared_node.delivered(dataset))
