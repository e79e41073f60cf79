"""The main job: a modality sends, the node compresses, two PACS and a folder get the result."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ImplicitVRLittleEndian

from tests.deliver.peers import storescp
from tests.e2e.judges import (
    RPCL,
    assert_converted,
    dataset_bytes,
    pixels,
    quiet_pydicom,
    transfer_syntax,
)
from tests.e2e.node import RunningNode, until
from tests.e2e.peers import echoscu, free_port, pynetdicom_archive, storescu
from tests.material import colour_image, ct_series, mr_series, write_all

pytestmark = pytest.mark.xdist_group("e2e main job")

NATIVE = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


@dataclass(frozen=True)
class Hospital:
    """A node that has received and delivered everything."""

    node: RunningNode
    sent: list[Path]
    compressed: Path
    """Came as JPEG-LS; the others native."""
    old_pacs: Path
    """What DCMTK's storescp, which takes native syntaxes only, has."""
    new_pacs: Path
    """What a PACS has that takes HTJ2K."""

    def delivered(self, sent: Path) -> Path:
        return self.node.delivered(pydicom.dcmread(sent, stop_before_pixels=True))

    def in_old_pacs(self, sent: Path) -> Path:
        (found,) = self.old_pacs.glob(f"*.{uid_of(sent)}")
        return found

    def in_new_pacs(self, sent: Path) -> Path:
        return self.new_pacs / f"{uid_of(sent)}.dcm"


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def as_implicit(path: Path) -> Path:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    ct = write_all(ct_series(6, 160, 160), folder / "ct")
    mr = [as_implicit(path) for path in write_all(mr_series(4, 96, 128), folder / "mr")]
    colour = write_all([colour_image(90, 120, planar=True)], folder / "us")
    compressed = Path(str(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)))
    with ExitStack() as stack:
        old = stack.enter_context(storescp(folder / "old", free_port()))
        new_port = stack.enter_context(pynetdicom_archive(folder / "new", RPCL))
        node = RunningNode(
            folder / "node",
            {
                "destinations": {
                    "old": {**old.model_dump(), "answer_seconds": 20.0},
                    "new": {
                        "kind": "dicom",
                        "host": "127.0.0.1",
                        "port": new_port,
                        "ae_title": "PYNETDICOM",
                    },
                },
                "default": {"send_to": ["archive", "old", "new"]},
            },
        ).start()
        stack.callback(node.close)
        storescu(node.port, ct)
        storescu(node.port, mr, "--propose-implicit", "--required")
        storescu(node.port, colour)
        node.send([compressed])
        node.wait_for(delivered=12, pending=0, converted=12)
        yield Hospital(node, [*ct, *mr, *colour], compressed, folder / "old", folder / "new")


def test_the_folder_has_every_instance_once_with_equal_pixels_and_header(
    hospital: Hospital,
) -> None:
    for sent in hospital.sent:
        assert_converted(sent, hospital.delivered(sent))

    assert len(hospital.node.archived()) == 12


def test_what_came_compressed_is_compressed_anew(hospital: Hospital) -> None:
    assert_converted(hospital.compressed, hospital.delivered(hospital.compressed))


def test_colour_is_declared_as_what_the_codestream_holds(hospital: Hospital) -> None:
    colour = pydicom.dcmread(hospital.delivered(hospital.sent[-1]))

    assert colour.PhotometricInterpretation == "YBR_RCT"
    assert colour.PlanarConfiguration == 0


def test_files_are_named_by_their_uids(hospital: Hospital) -> None:
    dataset = pydicom.dcmread(hospital.sent[0], stop_before_pixels=True)

    names = {path.relative_to(hospital.node.archive) for path in hospital.node.archived()}

    assert names >= {
        Path(dataset.StudyInstanceUID, dataset.SeriesInstanceUID, f"{dataset.SOPInstanceUID}.dcm")
    }
    assert not [name for name in names if "~" in name.name or name.name.startswith(".")]


def test_a_pacs_that_refuses_htj2k_gets_native_copies(hospital: Hospital) -> None:
    for sent in [*hospital.sent, hospital.compressed]:
        copy = hospital.in_old_pacs(sent)
        assert transfer_syntax(copy) in NATIVE
        with quiet_pydicom():
            expected, got = pydicom.dcmread(sent), pydicom.dcmread(copy)
            assert (pixels(expected) == pixels(got)).all()

    assert len(list(hospital.old_pacs.iterdir())) == 12


def test_a_pacs_that_takes_htj2k_gets_the_bytes_of_the_folder(hospital: Hospital) -> None:
    for sent in [*hospital.sent, hospital.compressed]:
        copy = hospital.in_new_pacs(sent)
        assert transfer_syntax(copy) == RPCL
        assert dataset_bytes(copy) == dataset_bytes(hospital.delivered(sent))


def test_the_result_says_who_sent_it(hospital: Hospital) -> None:
    meta = pydicom.dcmread(hospital.delivered(hospital.sent[0]), stop_before_pixels=True).file_meta

    assert meta.SendingApplicationEntityTitle == "MODALITY"
    assert meta.ReceivingApplicationEntityTitle == "DCMPRESS"


def test_c_echo_is_answered(hospital: Hospital) -> None:
    assert echoscu(hospital.node.port) == 0


def test_nothing_is_left_in_the_spool(hospital: Hospital) -> None:
    until(lambda: not hospital.node.left_in_spool(), lambda: str(hospital.node.left_in_spool()))


def test_the_ledger_names_every_destination(hospital: Hospital) -> None:
    status = hospital.node.status()

    assert status["delivered"] == status["received"] == 12
    assert set(status["destinations"]) == {"archive", "old", "new"}
    assert all(each["pending"] == 0 for each in status["destinations"].values())
