"""What reconcile finds at real peers: nothing while all is there, and exactly what was taken away."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from tests.deliver.files import EXPLICIT
from tests.e2e.conftest import StartNode
from tests.e2e.judges import RPCL
from tests.e2e.node import command, until
from tests.e2e.orthanc import dicomweb_plugin, orthanc
from tests.material import ct_series, write_all


@pytest.mark.timeout(300)
def test_a_folder_a_dicom_node_and_a_dicomweb_server_are_asked_what_they_have(
    node: StartNode, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"Plugins": [dicomweb_plugin()], "DicomAlwaysAllowFind": True}
    with orthanc(tmp_path / "orthanc", **settings) as peer:
        archive = {"kind": "folder", "path": str(tmp_path / "node" / "archive")}
        pacs = {"kind": "dicom", "host": "127.0.0.1", "port": peer.port, "ae_title": "ORTHANC"}
        web = {"kind": "dicomweb", "url": peer.dicomweb}
        places = {"archive": archive, "pacs": pacs, "web": web}
        running = node({"destinations": places, "default": {"send_to": list(places)}})
        paths = write_all(ct_series(3, 32, 32, seed=931), tmp_path / "ct")
        running.send(paths)
        running.wait_for(delivered=3, pending=0)
        until(lambda: not running.left_in_spool(), "the ledger has not got it")
        for name in places:
            assert "has everything of 1 study" in running.command("reconcile", name)

        lost, kept, _ = [pydicom.dcmread(path) for path in paths]
        name = peer.instances()[str(lost.SOPInstanceUID)]
        url = f"http://127.0.0.1:{peer.web_port}/instances/{name}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()
        running.delivered(lost).unlink()

        for name in places:
            done = command("reconcile", name, "--json", "-c", str(running.config_file))
            assert done.returncode == 1, done.stderr
            assert "1 objects that the ledger calls delivered are not at" in done.stderr
            assert json.loads(done.stdout) == [
                {
                    "difference": "missing",
                    "study_instance_uid": str(kept.StudyInstanceUID),
                    "series_instance_uid": str(kept.SeriesInstanceUID),
                    "sop_instance_uid": str(lost.SOPInstanceUID),
                    "sources": 1,
                }
            ]
        long_ago = running.command("reconcile", "pacs", "--until", "2020-01-01")
        assert "has everything of 0 studies" in long_ago
        done = command("reconcile", "pac", "-c", str(running.config_file))
        assert (done.returncode, "did you mean 'pacs'" in done.stderr) == (2, True)


@pytest.mark.timeout(300)
def test_a_collapsed_series_is_looked_for_under_its_new_uid(
    node: StartNode, tmp_path: Path
) -> None:
    running = node({"default": {"convert": "enhanced", "send_to": ["archive"]}})
    paths = write_all(ct_series(4, 32, 32, seed=932), tmp_path / "ct")
    running.send(paths)
    running.wait_for(delivered=4, pending=0)
    until(lambda: not running.left_in_spool(), "the ledger has not got it")
    (volume,) = running.archived()
    assert "has everything of 1 study" in running.command("reconcile", "archive")
    uid = str(pydicom.dcmread(volume, stop_before_pixels=True).SOPInstanceUID)

    (running.archive / "original.dcm").write_bytes(paths[0].read_bytes())
    volume.unlink()

    done = command("reconcile", "archive", "--json", "-c", str(running.config_file))
    found = {each["sop_instance_uid"]: each for each in json.loads(done.stdout)}
    assert (found[uid]["difference"], found[uid]["sources"]) == ("missing", 4)
    original = str(pydicom.dcmread(paths[0]).SOPInstanceUID)
    assert found[original]["difference"] == "original"
    assert len(found) == 2


class CountingArchive:
    """Stores, and tells by C-FIND how many instances each series has, but not which."""

    def __init__(self) -> None:
        self.series: dict[str, list[str]] = {}
        entity = AE("COUNTS")
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), [RPCL, EXPLICIT])
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        self.server = server

    def _store(self, event: evt.Event) -> int:
        dataset = event.dataset
        kept = self.series.setdefault(str(dataset.SeriesInstanceUID), [])
        kept.append(str(dataset.SOPInstanceUID))
        return 0x0000

    def _find(self, event: evt.Event) -> Iterator[tuple[int, pydicom.Dataset | None]]:
        asked = event.identifier
        if asked.QueryRetrieveLevel == "IMAGE":
            yield 0xA900, None
            return
        for series, instances in self.series.items():
            found = pydicom.Dataset()
            found.QueryRetrieveLevel = "SERIES"
            found.SeriesInstanceUID = series
            found.NumberOfSeriesRelatedInstances = len(instances)
            yield 0xFF00, found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("convert", ["htj2k", "enhanced"])
def test_a_node_that_tells_no_instances_is_asked_how_many_each_series_has(
    node: StartNode, tmp_path: Path, convert: str
) -> None:
    archive = CountingArchive()
    try:
        port = archive.server.server_address[1]
        pacs = {"kind": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "COUNTS"}
        running = node(
            {
                "destinations": {"pacs": pacs | {"accepts_collapsed": True}},
                "default": {"convert": convert, "send_to": ["pacs"]},
            }
        )
        running.send(write_all(ct_series(3, 32, 32, seed=934), tmp_path / "ct"))
        running.wait_for(delivered=3, pending=0)
        until(lambda: not running.left_in_spool(), "the ledger has not got it")
        assert "has everything of 1 study" in running.command("reconcile", "pacs")

        ((series, instances),) = archive.series.items()
        instances.append("2.25.1")
        assert "it has 1 objects more" in running.command("reconcile", "pacs")
        del instances[:2]

        done = command("reconcile", "pacs", "--json", "-c", str(running.config_file))
        (found,) = json.loads(done.stdout) if convert == "htj2k" else [{}]
        if convert == "htj2k":
            assert (done.returncode, found["difference"], found["sources"]) == (1, "fewer", 1)
            assert found["series_instance_uid"] == series
        else:
            assert (done.returncode, archive.series) == (1, {series: []})
    finally:
        archive.server.shutdown()
