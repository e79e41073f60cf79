"""Orthanc sends a series through the node, and Orthanc gets one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.e2e.judges import COUPLED, RPCL, assert_converted, differing_elements, pixels
from tests.e2e.node import RunningNode
from tests.e2e.orthanc import Orthanc, dicomweb_plugin, orthanc
from tests.material import colour_image, ct_series, write_all


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    plugin = [dicomweb_plugin()]
    with orthanc(tmp_path_factory.mktemp("orthanc") / "data", Plugins=plugin) as running:
        yield running


@pytest.fixture(scope="module")
def node(pacs: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    destination = {
        "kind": "dicom",
        "host": "127.0.0.1",
        "port": pacs.port,
        "ae_title": "ORTHANC",
    }
    running = RunningNode(
        tmp_path_factory.mktemp("node"),
        {
            "destinations": {
                "pacs": destination,
                "web": {"kind": "dicomweb", "url": pacs.dicomweb},
            },
            "rules": [
                {"name": "pacs", "match": {"called_ae_title": "TOPACS"}, "send_to": ["pacs"]},
                {
                    "name": "web",
                    "match": {"called_ae_title": "TOWEB"},
                    "send_to": ["web", "archive"],
                },
            ],
        },
    ).start()
    yield running
    running.close()


def test_what_orthanc_sends_is_compressed(node: RunningNode, pacs: Orthanc, tmp_path: Path) -> None:
    paths = write_all([*ct_series(5, 64, 64, seed=901), colour_image()], tmp_path)
    before = node.status()["delivered"]

    report = pacs.send([pacs.import_file(path) for path in paths], node.port)

    assert report["FailedInstancesCount"] == 0
    node.wait_for(delivered=before + len(paths), pending=0)
    for path in paths:
        assert_converted(path, node.delivered(pydicom.dcmread(path)))


def test_orthanc_has_every_pixel_and_every_element_of_what_was_sent_to_it(
    node: RunningNode, pacs: Orthanc, tmp_path: Path
) -> None:
    paths = write_all(ct_series(5, 64, 64, seed=902), tmp_path)
    before = node.status()["delivered"]

    node.send(paths, ae_title="TOPACS")

    node.wait_for(delivered=before + len(paths), pending=0)
    stored = pacs.instances()
    for path in paths:
        sent = pydicom.dcmread(path)
        got = pydicom.dcmread(pacs.save(stored[str(sent.SOPInstanceUID)], tmp_path / "got.dcm"))
        np.testing.assert_array_equal(pixels(got), pixels(sent))
        assert differing_elements(sent, got) <= COUPLED


def test_htj2k_by_stow_rs_is_found_by_qido_rs_and_comes_back_by_wado_rs_with_every_byte(
    node: RunningNode, pacs: Orthanc, tmp_path: Path
) -> None:
    paths = write_all(ct_series(4, 64, 64, seed=903), tmp_path)
    before = node.status()["delivered"]

    node.send(paths, ae_title="TOWEB")

    node.wait_for(delivered=before + len(paths), pending=0)
    for path in paths:
        sent = pydicom.dcmread(path)
        study, series, uid = sent.StudyInstanceUID, sent.SeriesInstanceUID, sent.SOPInstanceUID
        (found,) = pacs.search(f"/studies/{study}/series/{series}/instances?SOPInstanceUID={uid}")
        assert found["00080018"]["Value"] == [uid]
        place = f"/studies/{study}/series/{series}/instances/{uid}"
        (tmp_path / "got.dcm").write_bytes(pacs.retrieve(place))
        assert_converted(path, tmp_path / "got.dcm")
        got, delivered = (
            pydicom.dcmread(tmp_path / "got.dcm"),
            pydicom.dcmread(node.delivered(sent)),
        )
        assert got.file_meta.TransferSyntaxUID == RPCL
        assert got.SOPInstanceUID == uid
        assert got.PixelData == delivered.PixelData
        stored = pacs.save(pacs.instances()[str(uid)], tmp_path / "stored.dcm")
        assert stored.read_bytes() == node.delivered(sent).read_bytes()
