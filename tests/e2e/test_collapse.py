"""A rule that says ``enhanced``: one object of a series, delivered, counted, and undone again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

from scp.convert.decode import decode_for_peer
from scp.ledger.ports import State
from scp.ledger.sql import SqlLedger
from scp.model import CollapseReason, Form
from tests.e2e.judges import RPCL, dataset_bytes, pixels, quiet_pydicom, transfer_syntax
from tests.e2e.node import RunningNode, Tree, command
from tests.e2e.peers import pynetdicom_archive
from tests.material import colour_image, ct_series, mr_series, write_all

LEGACY_CT = "1.2.840.10008.5.1.4.1.1.2.2"
FRAMES = 6


def volumes_to(*destinations: str, **sections: Tree) -> Tree:
    return {
        "rules": [{"name": "volumes", "match": {"Modality": ["CT", "MR"]}, "convert": "enhanced",
                   "send_to": list(destinations)}],
        **sections,
    }  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    running = RunningNode(tmp_path / "node", volumes_to("archive")).start()
    yield running
    running.close()


def the_volume(node: RunningNode) -> Path:
    found = [path for path in node.archived() if "1.2.840.10008.5.1.4.1.1" in sop_class(path)]
    (volume,) = [path for path in found if sop_class(path) == LEGACY_CT]
    return volume


def sop_class(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID)


def assert_frames_are(volume: Path, sources: list[Path]) -> None:
    """Every source is one frame, pixel for pixel, and no frame is anything else."""
    with quiet_pydicom():
        collapsed = pydicom.dcmread(volume)
        by_uid = {str((d := pydicom.dcmread(path)).SOPInstanceUID): d for path in sources}
        frames = pixels(collapsed)
        groups = collapsed.PerFrameFunctionalGroupsSequence
        assert len(frames) == len(groups) == len(sources)
        for frame, group in zip(frames, groups, strict=True):
            origin = group.ConversionSourceAttributesSequence[0].ReferencedSOPInstanceUID
            np.testing.assert_array_equal(frame, pixels(by_uid.pop(str(origin))))
    assert not by_uid


def test_a_series_becomes_one_object_that_gives_its_originals_back(
    node: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(FRAMES, 64, 64, seed=71), tmp_path / "ct")

    node.send(paths)

    status = node.wait_for(delivered=FRAMES, pending=0, converted=FRAMES)
    assert status["not_collapsed"] == {}
    (volume,) = node.archived()
    assert (sop_class(volume), transfer_syntax(volume)) == (LEGACY_CT, RPCL)
    assert_frames_are(volume, paths)
    assert "good" in node.command("verify", str(volume))
    changed = tmp_path / "changed.dcm"
    content = volume.read_bytes()
    assert content.count(b"Compressed without loss") == 1
    changed.write_bytes(content.replace(b"Compressed without loss", b"Compressed without Loss"))
    assert "are not those that were delivered" in node.command("verify", str(changed), code=1)
    image = pydicom.dcmread(volume)
    image.file_meta.ImplementationVersionName = "SOME PACS"
    image.save_as(changed)
    assert "all but its file meta group" in node.command("verify", str(changed))
    decode_for_peer(volume, changed, ExplicitVRLittleEndian, decode_lossy=False)
    assert "pixels and header of all" in node.command("verify", str(changed))
    assert command("restore", str(volume), str(tmp_path / "restored")).returncode == 0
    for path in paths:
        uid = pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
        assert dataset_bytes(tmp_path / "restored" / f"{uid}.dcm") == dataset_bytes(path)


def test_the_ledger_says_what_each_instance_became(node: RunningNode, tmp_path: Path) -> None:
    node.send(write_all(ct_series(FRAMES, 32, 32, seed=72), tmp_path / "ct"))
    node.wait_for(delivered=FRAMES, pending=0)
    node.settle()

    ledger = SqlLedger.open_for_reading(node.data / "ledger.sqlite")
    rows = ledger.recent(100)
    ledger.close()

    volume = pydicom.dcmread(the_volume(node), stop_before_pixels=True)
    assert {row.became for row in rows} == {str(volume.SOPInstanceUID)}
    assert sorted(row.frame for row in rows) == list(range(1, FRAMES + 1))
    assert {(row.state, row.form) for row in rows} == {(State.DELIVERED, Form.ENHANCED)}
    assert sum(row.result_bytes for row in rows) == the_volume(node).stat().st_size


def test_a_restore_record_may_lie_beside_the_object(tmp_path: Path) -> None:
    config = volumes_to("archive", enhanced={"restore_record": "sidecar"})
    node = RunningNode(tmp_path / "node", config).start()
    paths = write_all(ct_series(FRAMES, 32, 32, seed=79), tmp_path / "ct")

    node.send(paths)
    node.wait_for(delivered=FRAMES, pending=0)
    volume, sidecar = node.archived()
    alone = tmp_path / "alone.dcm"
    alone.write_bytes(volume.read_bytes())

    assert sidecar.name == f"{volume.name}.restore"
    assert node.command("verify", str(volume.parent)).count(": good") == 2
    nobody = command(
        "verify", str(volume), str(sidecar), "--json"
    )  # No ledger: another data folder.
    assert {each["checked"] for each in json.loads(nobody.stdout)} == {"sources"}
    assert command("restore", str(volume), str(tmp_path / "restored")).returncode == 0
    for path in paths:
        uid = pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
        assert dataset_bytes(tmp_path / "restored" / f"{uid}.dcm") == dataset_bytes(path)
    assert command("restore", str(alone), str(tmp_path / "none")).returncode == 1
    node.close()


def test_what_cannot_be_collapsed_is_transcoded_for_a_reason(
    node: RunningNode, tmp_path: Path
) -> None:
    series = list(ct_series(FRAMES, 32, 32, seed=73))
    series[2].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    paths = write_all(series, tmp_path / "ct")

    node.send(paths)

    status = node.wait_for(delivered=FRAMES, pending=0, converted=FRAMES)
    assert status["not_collapsed"] == {CollapseReason.LOCALIZER: 1}
    assert len(node.archived()) == 2
    assert_frames_are(the_volume(node), [paths[number] for number in (0, 1, 3, 4, 5)])


def test_a_late_slice_is_delivered_by_itself_also_after_a_restart(
    node: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(FRAMES, 32, 32, seed=74), tmp_path / "ct")
    node.send(paths[:4])
    node.wait_for(delivered=4, pending=0)

    node.send(paths[4:5])
    node.wait_for(delivered=5, pending=0)
    node.settle()
    node.restart()
    node.send(paths[5:])

    status = node.wait_for(delivered=FRAMES, pending=0)
    assert status["not_collapsed"] == {CollapseReason.LATE_INSTANCE: 2}
    assert_frames_are(the_volume(node), paths[:4])
    assert len(node.archived()) == 3


def test_after_a_kill_the_same_object_is_delivered(tmp_path: Path) -> None:
    paths = write_all(ct_series(FRAMES, 64, 64, seed=75), tmp_path / "ct")
    contents = []
    for name, is_killed in (("killed", True), ("quiet", False)):
        node = RunningNode(tmp_path / name, volumes_to("archive")).start()
        node.send(paths)
        if is_killed:
            node.kill9()
            node.start()
        node.wait_for(delivered=FRAMES, pending=0)
        (volume,) = node.archived()
        contents.append((volume.name, volume.read_bytes()))
        node.close()

    assert contents[0] == contents[1]


def test_a_peer_that_knows_no_volumes_gets_single_frames_and_the_other_the_volume(
    tmp_path: Path,
) -> None:
    with only_ct_images(tmp_path / "pacs") as port:
        pacs = {"kind": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "PACS"}
        config = volumes_to("archive", "pacs")
        config["destinations"] = {"pacs": pacs}
        node = RunningNode(tmp_path / "node", config).start()
        try:
            node.send(write_all(ct_series(FRAMES, 32, 32, seed=80), tmp_path / "ct"))

            node.wait_for(delivered=FRAMES, pending=0)
            assert len(node.archived()) == 1
            assert len(list((tmp_path / "pacs").iterdir())) == FRAMES
        finally:
            node.close()


@contextmanager
def only_ct_images(folder: Path) -> Iterator[int]:
    """A PACS that has never heard of Legacy Converted Enhanced objects; its port."""
    folder.mkdir()

    def keep(event: evt.Event) -> int:
        assert isinstance(event.request, C_STORE)
        (folder / str(event.request.AffectedSOPInstanceUID)).touch()
        return 0x0000

    entity = AE("PACS")
    entity.add_supported_context(CTImageStorage, [ExplicitVRLittleEndian])
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_two_destinations_get_volumes_of_their_own(tmp_path: Path) -> None:
    pacs_folder = tmp_path / "pacs"
    with pynetdicom_archive(pacs_folder) as port:
        pacs = {"kind": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "PACS"}
        pacs["accepts_collapsed"] = True
        config = volumes_to("archive", "pacs")
        config["destinations"] = {"pacs": pacs}
        node = RunningNode(tmp_path / "node", config).start()
        cts = write_all(ct_series(FRAMES, 32, 32, seed=76), tmp_path / "ct")
        mrs = write_all(mr_series(3, 32, 32, seed=77), tmp_path / "mr")
        others = write_all([colour_image(20, 30, seed=78)], tmp_path / "us")

        node.send([*cts, *mrs, *others])

        node.wait_for(delivered=FRAMES + 4, pending=0)
        assert len(node.archived()) == 3
        assert_frames_are(the_volume(node), cts)
        received = [pydicom.dcmread(path, force=True) for path in pacs_folder.iterdir()]
        # It takes no HTJ2K: each volume is decoded for it, and verified.
        assert sorted(int(each.NumberOfFrames) for each in received) == [3, FRAMES]
        node.close()
