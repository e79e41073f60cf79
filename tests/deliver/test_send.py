"""Plain files and folders sent as they are."""

from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from scp.deliver.ports import Receipt, Verdict
from scp.deliver.send import item_of, send_files
from scp.errors import PeerUnavailableError
from scp.model import Identity
from tests.deliver.files import (
    EXPLICIT,
    closed_folder,
    ct_items,
    dataset_bytes,
    no_decoder,
    save,
)
from tests.deliver.peers import HandPeer


def test_files_and_folders_are_sent_in_order(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "folder", 3)
    (single,) = ct_items(tmp_path / "other", 1)

    with HandPeer() as peer:
        receipts = list(send_files([single.path, tmp_path / "folder"], peer.section(), no_decoder))

    paths = [single.path, *(item.path for item in items)]
    assert [each.instance for each in receipts] == [str(path) for path in paths]
    assert [each.dataset for each in peer.stored] == [dataset_bytes(path) for path in paths]


def test_what_is_no_dicom_file_is_reported_and_the_rest_is_sent(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path, 1)
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "empty").touch()
    (tmp_path / "cut.dcm").write_bytes(item.path.read_bytes()[:150])
    missing = tmp_path / "missing.dcm"

    with HandPeer() as peer:
        receipts = list(send_files([tmp_path, missing], peer.section(), no_decoder))

    verdicts = {Path(each.instance).name: each.verdict for each in receipts}
    held = Verdict.HELD
    assert verdicts == {
        "000.dcm": Verdict.DELIVERED,
        "a.txt": held,
        "cut.dcm": held,
        "empty": held,
        "missing.dcm": held,
    }
    assert len(peer.stored) == 1


def test_a_folder_that_cannot_be_listed_is_reported_and_the_rest_is_sent() -> None:
    with closed_folder() as top, HandPeer() as peer:
        receipts = list(send_files([top], peer.section(), no_decoder))

    assert [(each.instance, each.verdict) for each in receipts] == [
        (str(top / "closed"), Verdict.HELD),
        (str(top / "open" / "000.dcm"), Verdict.DELIVERED),
    ]
    assert receipts[0].detail == "file_unreadable: Permission denied"


def test_nobody_there_is_said_by_an_error(tmp_path: Path) -> None:
    ct_items(tmp_path, 1)

    with HandPeer(on_request="close") as peer, pytest.raises(PeerUnavailableError, match="closed"):
        list(send_files([tmp_path], peer.section(), no_decoder))


@pytest.mark.parametrize("name", ["ExplVR_BigEnd.dcm", "image_dfl.dcm", "rtplan.dcm"])
def test_uids_are_read_in_every_encoding(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    dataset = pydicom.dcmread(path)

    found = item_of(path)

    assert not isinstance(found, Receipt)
    assert found.identity == Identity(
        sop_class_uid=dataset.SOPClassUID,
        sop_instance_uid=dataset.SOPInstanceUID,
        study_instance_uid=dataset.StudyInstanceUID,
        series_instance_uid=dataset.SeriesInstanceUID,
    )
    assert found.transfer_syntax == dataset.file_meta.TransferSyntaxUID


def test_a_wrong_group_length_does_not_move_the_dataset(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path, 1)
    expected = dataset_bytes(item.path)
    content = bytearray(item.path.read_bytes())
    content[140:144] = (7).to_bytes(4, "little")
    item.path.write_bytes(content)

    with HandPeer() as peer:
        (receipt,) = send_files([item.path], peer.section(), no_decoder)

    assert receipt.verdict is Verdict.DELIVERED
    assert peer.stored[0].dataset == expected


def test_a_long_meta_group_is_skipped(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path, 1)
    dataset = pydicom.dcmread(item.path)
    dataset.file_meta.PrivateInformationCreatorUID = pydicom.uid.UID("1.2.3")
    dataset.file_meta.PrivateInformation = bytes(10_000)
    save(dataset, item.path)

    found = item_of(item.path)

    assert not isinstance(found, Receipt)
    assert found.transfer_syntax == EXPLICIT


def test_every_file_of_the_corpus_is_sent_as_it_is_or_reported(corpus: Path) -> None:
    with HandPeer() as peer:
        receipts = list(send_files([corpus], peer.section(), no_decoder))

    sent = [each for each in receipts if each.status]
    assert len(sent) == len(peer.stored) > 100
    for each, stored in zip(sent, peer.stored, strict=True):
        assert Path(each.instance).read_bytes().endswith(stored.dataset)
    for each in receipts:
        assert each.status or each.verdict is Verdict.HELD, each
