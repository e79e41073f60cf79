"""The commands that speak to a node or to a peer."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from tests.cli.conftest import Dcmpress
from tests.deliver.peers import HandPeer, storescp
from tests.e2e.judges import assert_converted, dataset_bytes
from tests.e2e.node import RunningNode
from tests.e2e.peers import free_port
from tests.material import colour_image, ct_series, write_all

pytestmark = pytest.mark.xdist_group("cli node")

COUNTERS = (
    "received",
    "converted",
    "passed_through",
    "delivered",
    "pending",
    "held",
    "skipped",
    "discarded",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A node that delivered three instances."""
    folder = tmp_path_factory.mktemp("served")
    node = RunningNode(folder / "node", {}).start()
    node.send(write_all(ct_series(3, 32, 32, seed=951), folder / "ct"))
    node.settle()
    yield node
    node.close()


def parsed(said: str, end: str) -> Any:
    """The JSON document that comes before the error message."""
    return json.loads(said[: said.rindex(end) + 1])


# -- status ----------------------------------------------------------------------------------------


def test_status_has_the_counters_as_integers(served: RunningNode, dcmpress: Dcmpress) -> None:
    status = json.loads(dcmpress("status", "-c", served.config_file, "--json"))

    assert {type(status[name]) for name in COUNTERS} == {int}
    assert status["received"] == status["delivered"] + status["pending"]
    assert status["running"] is True
    assert status["port"] == served.port
    assert "archive" in status["destinations"]


def test_status_for_people_is_a_table(served: RunningNode, dcmpress: Dcmpress) -> None:
    said = dcmpress("status", "-c", served.config_file)

    assert "DCMPRESS (running)" in said
    for name in (*COUNTERS, "archive", "idle"):
        assert name in said


def test_nothing_is_held(served: RunningNode, dcmpress: Dcmpress) -> None:
    assert dcmpress("held", "-c", served.config_file) == "nothing is held\n"
    assert json.loads(dcmpress("held", "-c", served.config_file, "--json")) == []


# -- send ------------------------------------------------------------------------------------------


def test_send_to_a_node_says_what_was_taken(
    served: RunningNode, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    paths = write_all(ct_series(3, 32, 32, seed=952), tmp_path)

    said = dcmpress("send", "--to", f"DCMPRESS@127.0.0.1:{served.port}", "--from", "ME", tmp_path)

    assert said == "3 delivered\n"
    served.settle()
    for path in paths:
        delivered = served.delivered(pydicom.dcmread(path))
        assert_converted(path, delivered)
        assert pydicom.dcmread(delivered).file_meta.SendingApplicationEntityTitle == "ME"


def test_send_says_in_json_what_was_not_sent(
    served: RunningNode, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    write_all(ct_series(1, 32, 32, seed=953), tmp_path)
    (tmp_path / "notes.txt").write_text("no DICOM")
    to = f"DCMPRESS@127.0.0.1:{served.port}"

    said = dcmpress("send", "--to", to, "--json", tmp_path, code=1)

    document = parsed(said, "}")
    assert document["counts"] == {"delivered": 1, "held": 1}
    (refused,) = document["refused"]
    assert refused["path"] == str(tmp_path / "notes.txt")
    assert refused["detail"].startswith("not_dicom")
    assert said.endswith("dcmpress: 1 files were not taken\n")


def test_send_to_dcmtk_sends_the_bytes(dcmpress: Dcmpress, tmp_path: Path) -> None:
    (path,) = write_all([colour_image(40, 50, seed=954)], tmp_path / "in")
    port = free_port()

    with storescp(tmp_path / "out", port):
        said = dcmpress("send", "--to", f"STORESCP@127.0.0.1:{port}", path)

    assert said == "1 delivered\n"
    (stored,) = (tmp_path / "out").iterdir()
    assert dataset_bytes(stored) == dataset_bytes(path)


def test_send_to_a_destination_of_the_configuration(
    dcmpress: Dcmpress, tmp_path: Path, served: RunningNode
) -> None:
    write_all(ct_series(1, 32, 32, seed=955), tmp_path / "in")
    with HandPeer() as peer:
        config = tmp_path / "dcmpress.yaml"
        config.write_text(
            "destinations:\n"
            f"  pacs: {{kind: dicom, host: 127.0.0.1, port: {peer.port}, ae_title: PACS}}\n"
            "default: {send_to: [pacs]}\n"
        )

        assert dcmpress("send", "--to", "pacs", tmp_path / "in", "-c", config) == "1 delivered\n"

    assert (peer.called, peer.calling) == ("PACS", "DCMPRESS")
    assert "neither AET@HOST:PORT" in dcmpress(
        "send", "--to", "nobody", tmp_path / "in", "-c", config, code=2
    )


def test_send_names_what_the_peer_refused(dcmpress: Dcmpress, tmp_path: Path) -> None:
    first, second = write_all(ct_series(2, 32, 32, seed=956), tmp_path)

    with HandPeer(answer=lambda number: 0xC123 if number else 0x0000) as peer:
        said = dcmpress("send", "--to", f"P@127.0.0.1:{peer.port}", first, second, code=1)

    assert f"{second}: C123" in said
    assert "1 delivered" in said


def test_send_to_nobody_fails(dcmpress: Dcmpress, tmp_path: Path) -> None:
    (path,) = write_all(ct_series(1, 32, 32, seed=957), tmp_path)

    said = dcmpress("send", "--to", f"NOBODY@127.0.0.1:{free_port()}", path, code=1)

    assert "refused" in said
    assert "Traceback" not in said


# -- verify ----------------------------------------------------------------------------------------


def test_verify_knows_what_the_node_delivered(
    served: RunningNode, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    served.settle()
    delivered = served.archived()
    spoiled = tmp_path / "spoiled.dcm"
    content = bytearray(delivered[0].read_bytes())
    content[-50] ^= 1
    spoiled.write_bytes(content)
    stranger = write_all(ct_series(1, 32, 32, seed=958), tmp_path / "stranger")[0]
    text = tmp_path / "notes.txt"
    text.write_text("no DICOM")
    copied = tmp_path / "renamed.dcm"
    shutil.copy(delivered[1], copied)

    good = dcmpress("verify", served.archive, "-c", served.config_file)
    said = dcmpress(
        "verify", spoiled, stranger, text, copied, "-c", served.config_file, "--json", code=1
    )

    assert good.count(": good: delivered ") == len(delivered)
    verdicts = {Path(entry["path"]): entry["verdict"] for entry in parsed(said, "]")}
    assert verdicts == {
        spoiled: "different",
        stranger: "unknown",
        text: "unknown",
        copied: "good",
    }


def test_verify_knows_what_was_delivered_behind_the_meta_group_of_a_peer(
    served: RunningNode, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    """Every PACS writes its own, and some give back what was decoded."""
    served.settle()
    delivered = served.archived()[0]
    copies = {name: tmp_path / f"{name}.dcm" for name in ("meta", "native", "implicit", "header")}
    image = pydicom.dcmread(delivered)
    image.file_meta.ImplementationVersionName = "SOME PACS"
    image.save_as(copies["meta"])
    image.PatientComments = "somebody's"
    image.save_as(copies["header"])
    del image.PatientComments
    image.decompress(generate_instance_uid=False)
    image.save_as(copies["native"])
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    image.save_as(copies["implicit"])
    copies["pixels"] = tmp_path / "pixels.dcm"
    image.PixelData = bytes([image.PixelData[0] ^ 1]) + image.PixelData[1:]
    image.save_as(copies["pixels"])

    said = dcmpress("verify", *copies.values(), "-c", served.config_file, "--json", code=1)

    found = {Path(e["path"]).stem: (e["verdict"], e["checked"]) for e in parsed(said, "]")}
    assert found == {
        "meta": ("good", "dataset"),
        "native": ("good", "dataset"),
        "implicit": ("good", "dataset"),
        "header": ("different", "dataset"),
        "pixels": ("different", "every byte"),
    }


# -- doctor ----------------------------------------------------------------------------------------


def test_doctor_finds_that_a_running_node_works(served: RunningNode, dcmpress: Dcmpress) -> None:
    findings = json.loads(dcmpress("doctor", "-c", served.config_file, "--json"))

    works = {finding["part"]: finding["works"] for finding in findings}
    assert works == {
        "libraries": True,
        "codecs": True,
        "GPU": None,
        "disk": True,
        "room": True,
        "open files": True,
        "clock": True,
        "ledger": True,
        "port": True,
        "destination archive": True,
    }
    (port,) = [finding["detail"] for finding in findings if finding["part"] == "port"]
    assert port.startswith("the node runs; ")


def test_doctor_names_what_does_not_work(dcmpress: Dcmpress, tmp_path: Path) -> None:
    file = tmp_path / "afile"
    file.write_text("in the way")
    config = tmp_path / "dcmpress.yaml"
    config.write_text(
        f"node: {{port: {free_port()}, bind: 127.0.0.1, data: {tmp_path / 'data'}}}\n"
        "limits: {reserve: 1MB}\n"
        "destinations:\n"
        f"  gone: {{kind: dicom, host: 127.0.0.1, port: {free_port()}, ae_title: GONE}}\n"
        f"  blocked: {{kind: folder, path: {file}}}\n"
        "default: {send_to: [gone]}\n"
    )

    said = dcmpress("doctor", "-c", config, code=1)

    assert "DOES NOT WORK" in said
    assert said.endswith("dcmpress: does not work: destination gone, destination blocked\n")
    assert not list((tmp_path / "data" / "spool" / "incoming").iterdir())
