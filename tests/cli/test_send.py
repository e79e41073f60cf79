"""dcmpress send: whom it calls, and under which title."""

import json
import os
import ssl
from pathlib import Path

import pytest
import yaml

from scp.tls import server_context
from tests.certificates import Authority
from tests.cli.conftest import Dcmpress
from tests.deliver.peers import HandPeer
from tests.deliver.places import BUCKET, credentials, object_store, objects_in
from tests.deliver.web_peer import WebPeer
from tests.material import ct_series, write_all


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_all(ct_series(1, 16, 16, seed=961), tmp_path / "in")[0]


def config_for(port: int, folder: Path) -> Path:
    config = folder / "dcmpress.yaml"
    config.write_text(
        "destinations:\n"
        f"  pacs: {{kind: dicom, host: 127.0.0.1, port: {port}, ae_title: PACS,\n"
        "         calling_ae_title: SITE}\n"
        "default: {send_to: [pacs]}\n"
    )
    return config


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--to", "A@h:99999"], "--to A@h:99999: 99999 is no port: give one from 1 to 65535\n"),
        (["--to", "A@h:123456"], "--to A@h:123456: 123456 is no port: give one from 1 to"),
        (["--to", "A@h:0"], "--to A@h:0: 0 is no port: give one from 1 to 65535\n"),
        (["--to", "A@h:dicom"], "--to A@h:dicom: write it like PACS@10.0.0.9:104"),
        (["--to", "A@h:\u0661"], "--to A@h:\u0661: write it like PACS@10.0.0.9:104"),
        (["--to", "A@h:"], "--to A@h:: write it like PACS@10.0.0.9:104"),
        (["--to", "A@h"], "--to A@h: write it like PACS@10.0.0.9:104"),
        (["--to", "A@:104"], "--to A@:104: write it like PACS@10.0.0.9:104"),
        (["--to", "A@::1:104"], "--to A@::1:104: write it like PACS@10.0.0.9:104, an IPv6 address"),
        (["--to", "A@B@h:104"], "--to A@B@h:104: write it like PACS@10.0.0.9:104"),
        (["--to", "@h:104"], "--to @h:104: '' is no AE title: 1 to 16 printable"),
        (["--to", f"{'x' * 17}@h:104"], f"--to {'x' * 17}@h:104: '{'x' * 17}' is no AE title"),
        (["--to", "A\\B@h:104"], "--to A\\B@h:104: 'A\\\\B' is no AE title"),
        (
            ["--to", "A@h:104", "--from", "SEVENTEEN_LETTERS"],
            "--from: 'SEVENTEEN_LETTERS' is no AE",
        ),
        (["--to", "A@h:104", "--from", ""], "--from: '' is no AE title"),
        (["--to", "A@h:104", "--from", "A\\B"], "--from: 'A\\\\B' is no AE title"),
    ],
)
def test_what_cannot_be_called_is_a_usage_error_of_one_sentence(
    options: list[str], fault: str, file: Path, dcmpress: Dcmpress
) -> None:
    said = dcmpress("send", *options, file, code=2)

    assert said.startswith(fault)
    assert said.count("\n") == 1


def test_a_name_that_is_no_destination_is_answered_with_those_that_are(
    file: Path, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    config = config_for(104, tmp_path)

    said = dcmpress("send", "--to", "pasc", file, "-c", config, code=2)

    assert (
        said == "--to pasc: neither AET@HOST:PORT nor a destination of the configuration (pacs)\n"
    )


def test_a_title_for_a_configured_destination_is_checked_too(
    file: Path, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    config = config_for(104, tmp_path)

    said = dcmpress("send", "--to", "pacs", "--from", "x" * 17, file, "-c", config, code=2)

    assert said.startswith("--from: ")


@pytest.mark.parametrize(
    ("options", "calling"),
    [([], "SITE"), (["--from", "ME"], "ME"), (["--from", "DCMPRESS"], "DCMPRESS")],
)
def test_a_configured_destination_is_called_under_its_title_or_the_given_one(
    options: list[str], calling: str, file: Path, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    with HandPeer() as peer:
        config = config_for(peer.port, tmp_path)
        dcmpress("send", "--to", "pacs", *options, file, "-c", config)

    assert (peer.called, peer.calling) == ("PACS", calling)


def test_every_kind_of_destination_is_sent_to(
    file: Path, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    config = tmp_path / "dcmpress.yaml"
    with WebPeer() as server, object_store() as store:
        keys = {name: {"file": str(at["file"])} for name, at in credentials(tmp_path).items()}
        destinations = {
            "archive": {"kind": "folder", "path": str(tmp_path / "archive")},
            "server": {"kind": "dicomweb", "url": server.url},
            "store": {"kind": "s3", "bucket": BUCKET, "endpoint": store, **keys},
        }
        config.write_text(
            yaml.safe_dump({"destinations": destinations, "default": {"send_to": ["archive"]}})
        )
        for name in destinations:
            assert dcmpress("send", "--to", name, file, "-c", config) == "1 delivered\n"
        said = dcmpress("send", "--to", "store", "--from", "ME", file, "-c", config, code=2)
        objects = list(objects_in(store).values())

    archived = [path.read_bytes() for path in (tmp_path / "archive").rglob("*.dcm")]
    assert archived == objects == [content for (content,) in server.stored.values()]
    assert archived == [file.read_bytes()]
    assert said == "--from: store is no DICOM node, and asks for no AE title\n"


@pytest.mark.timeout(20)
def test_what_is_no_file_is_left_out_of_a_folder_and_not_waited_for(
    file: Path, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    os.mkfifo(file.parent / "pipe")
    (file.parent / "link to a folder").symlink_to(".")
    (file.parent / "link to nothing").symlink_to("none")

    with HandPeer() as peer:
        said = dcmpress("send", "--to", f"A@127.0.0.1:{peer.port}", file.parent, code=1)

    assert said == (
        f"{file.parent / 'link to nothing'}: file_unreadable: No such file or directory\n"
        "1 delivered, 1 held\n"
        f"{file.parent / 'pipe'} is left out: it is a FIFO\n"
        "dcmpress: 1 files were not taken\n"
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_a_peer_has_taken_before_it_went_away_is_said(
    options: list[str], dcmpress: Dcmpress, tmp_path: Path
) -> None:
    write_all(ct_series(5, 16, 16, seed=962), tmp_path / "in")

    with HandPeer(answer=lambda number: 0 if number < 2 else "close") as peer:
        to = f"PACS@127.0.0.1:{peer.port}"
        said = dcmpress("send", "--to", to, tmp_path / "in", *options, code=1)

    shown, _, failure = said.rpartition("dcmpress: ")
    assert failure == "the peer closed the connection\n"
    if options:
        assert json.loads(shown)["counts"] == {"delivered": 2, "transient": 2}
    else:
        assert shown.endswith("2 delivered, 2 transient\n")


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "certificates").mkdir()
    return Authority(tmp_path / "certificates")


def wants_ours(authority: Authority, name: str = "localhost") -> ssl.SSLContext:
    """Of a node that asks for a certificate."""
    certificate, key = authority.issue(name)
    return server_context(
        certificate=certificate, key=key, ca=authority.file, client_certificate="required"
    )


def test_files_go_through_tls(file: Path, dcmpress: Dcmpress, authority: Authority) -> None:
    certificate, key = authority.issue("ours")
    options = ["--ca", authority.file, "--certificate", certificate, "--key", key]
    with HandPeer(tls=wants_ours(authority)) as peer:
        said = dcmpress("send", "--to", f"A@localhost:{peer.port}", "--tls", *options, file)

    assert said == "1 delivered\n"
    assert len(peer.stored) == 1


def test_a_node_that_is_not_the_one_called_gets_nothing_unless_that_is_said(
    file: Path, dcmpress: Dcmpress, authority: Authority
) -> None:
    certificate, key = authority.issue("ours")
    options = ["--ca", authority.file, "--certificate", certificate, "--key", key]
    with HandPeer(tls=wants_ours(authority, "elsewhere")) as peer:
        to = f"A@localhost:{peer.port}"
        said = dcmpress("send", "--to", to, *options, file, code=1)
        assert peer.stored == []
        dcmpress("send", "--to", to, *options, "--any-host", file)

    assert "the peer's certificate is not believed" in said
    assert len(peer.stored) == 1


def test_who_is_not_known_to_the_system_is_not_believed_without_a_ca(
    file: Path, dcmpress: Dcmpress, authority: Authority
) -> None:
    with HandPeer(tls=wants_ours(authority)) as peer:
        said = dcmpress("send", "--to", f"A@localhost:{peer.port}", "--tls", file, code=1)

    assert "the peer's certificate is not believed" in said
    assert peer.stored == []


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--to", "A@h:104", "--key", "k"], "--key: a key needs its certificate"),
        (["--to", "A@h:104", "--ca", "~/ca.pem"], "--ca: ~ is not expanded here"),
        (["--to", "pacs", "--tls"], "--tls: pacs is a destination, and its configuration says"),
        (["--to", "pacs", "--any-host"], "--tls: pacs is a destination, and its configuration"),
    ],
)
def test_options_of_tls_that_do_not_fit_are_a_usage_error(
    options: list[str], fault: str, file: Path, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    said = dcmpress("send", *options, file, "-c", config_for(104, tmp_path), code=2)

    assert said.startswith(fault)
    assert said.count("\n") == 1


def test_a_certificate_that_is_not_there_is_said(file: Path, dcmpress: Dcmpress) -> None:
    with HandPeer() as peer:
        to = f"A@localhost:{peer.port}"
        said = dcmpress("send", "--to", to, "--certificate", "gone.pem", file, code=1)

    assert "gone.pem cannot be read: No such file or directory" in said
