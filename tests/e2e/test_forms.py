"""One job, peers as they are: the volume, single frames in HTJ2K or Explicit VR, the latter by STOW too."""

from pathlib import Path

import numpy as np
import pydicom

from tests.conftest import peer_program
from tests.deliver.peers import storescp
from tests.deliver.web_peer import WebPeer
from tests.e2e.judges import RPCL, pixels, quiet_pydicom, transfer_syntax
from tests.e2e.node import RunningNode, Tree, until
from tests.e2e.peers import free_port, pynetdicom_archive
from tests.material import ct_series, write_all

EXPLICIT = "1.2.840.10008.1.2.1"
LEGACY_CT = "1.2.840.10008.5.1.4.1.1.2.2"


def pacs(port: int, **keys: object) -> Tree:
    return {"kind": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "ANY-SCP", **keys}


def sop_class(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID)


def test_each_peer_gets_its_form_of_one_job(tmp_path: Path) -> None:
    peer_program("storescp")
    sources = write_all(ct_series(5, 64, 64, seed=71), tmp_path / "ct")
    explicit_port = free_port()
    everything = tmp_path / "a"
    with (
        pynetdicom_archive(everything, RPCL) as a,
        pynetdicom_archive(tmp_path / "b", RPCL) as b,
        storescp(tmp_path / "c", explicit_port, "+xe"),
        WebPeer() as web,
    ):
        config: Tree = {
            "destinations": {
                "a": pacs(a, accepts_collapsed=True),
                "b": pacs(b, accepts=["htj2k"]),
                "c": pacs(explicit_port, accepts=["native"]),
                "d": {"kind": "dicomweb", "url": web.url, "accepts": ["ExplicitVRLittleEndian"]},
            },
            "default": {"convert": "enhanced", "send_to": ["a", "b", "c", "d"]},
        }
        node = RunningNode(tmp_path / "node", config).start()
        try:
            node.send(sources)
            node.wait_for(delivered=5, pending=0)
        finally:
            node.close()

    (volume,) = everything.iterdir()
    assert (sop_class(volume), transfer_syntax(volume)) == (LEGACY_CT, RPCL)
    by_uid = {str((d := pydicom.dcmread(path)).SOPInstanceUID): d for path in sources}
    (tmp_path / "d").mkdir()
    for uid, (file,) in web.stored.items():
        (tmp_path / "d" / uid).write_bytes(file)
    for folder, syntax in (("b", RPCL), ("c", EXPLICIT), ("d", EXPLICIT)):
        files = [path for path in (tmp_path / folder).iterdir() if path.is_file()]
        assert {transfer_syntax(path) for path in files} == {syntax}
        assert len(files) == 5
        with quiet_pydicom():
            for path in files:
                got = pydicom.dcmread(path)
                np.testing.assert_array_equal(pixels(got), pixels(by_uid[str(got.SOPInstanceUID)]))


def test_a_peer_that_takes_no_volumes_holds_them_until_somebody_decides(tmp_path: Path) -> None:
    sources = write_all(ct_series(3, 32, 32, seed=72), tmp_path / "ct")
    port = free_port()
    with storescp(tmp_path / "c", port, "-xf", str(only_ct(tmp_path)), "OnlyCT"):
        config: Tree = {
            "destinations": {
                "holds": pacs(port, accepts_collapsed=True),
                "skips": pacs(port, accepts_collapsed=True, on_refused="skip"),
            },
            "default": {"convert": "enhanced", "send_to": ["holds", "skips"]},
        }
        node = RunningNode(tmp_path / "node", config).start()
        try:
            node.send(sources)
            until(lambda: node.status()["held"] == 3, node.log)
            (job,) = node.held()
            skipped = node.status()["destinations"]["skips"]["skipped"]
        finally:
            node.close()

    (reason,) = job["reasons"]["holds"]
    assert reason.startswith("sop_class_refused")
    assert list(job["reasons"]) == ["holds"]
    assert skipped == {"sop_class_refused": 1}


def only_ct(folder: Path) -> Path:
    """An association profile of DCMTK: CT Image Storage, native, and verification."""
    file = folder / "profile.cfg"
    file.write_text(
        "[[TransferSyntaxes]]\n[Native]\nTransferSyntax1 = LocalEndianExplicit\n"
        "TransferSyntax2 = LittleEndianImplicit\n"
        "[[PresentationContexts]]\n[CT]\nPresentationContext1 = CTImageStorage\\Native\n"
        "PresentationContext2 = VerificationSOPClass\\Native\n"
        "[[Profiles]]\n[OnlyCT]\nPresentationContexts = CT\n"
    )
    return file
