"""Destinations on the web: what their sections say, and what is wrong in them."""

from pathlib import Path

import pytest

from scp.config.load import parse
from scp.config.remote import DicomwebDestination, S3Destination
from scp.config.schema import Destination
from scp.config.secrets import Secret
from scp.errors import ConfigError, DeliveryError


def destination(text: str) -> Destination:
    content = f"destinations: {{there: {text}}}\ndefault: {{send_to: [there]}}\n"
    return parse(content.encode(), "c.yaml").destinations["there"]


def fault(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        destination(text)
    (found,) = raised.value.faults
    return found.partition(": ")[2]


def test_a_dicomweb_server_needs_only_its_url() -> None:
    section = destination("{kind: dicomweb, url: 'https://pacs.example/dicom-web/'}")

    assert isinstance(section, DicomwebDestination)
    assert section.place == "https://pacs.example/dicom-web"
    assert not section.transfer_syntax_parameter


def test_an_object_store_needs_only_its_bucket() -> None:
    section = destination("{kind: s3, bucket: ct, prefix: a/b, max_put_bytes: 8MiB}")

    assert isinstance(section, S3Destination)
    assert section.place == f"s3://ct/a/b/{section.template}"
    assert section.max_put_bytes == 8 * 2**20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{kind: dicomweb, url: pacs.example}",
            "destinations.there.url: 'pacs.example' is no URL like https://pacs.example/dicom-web",
        ),
        (
            "{kind: dicomweb, url: 'http://me:secret@pacs'}",
            "destinations.there.url: a URL here has no user, ? or #: name credentials in their own keys",
        ),
        (
            "{kind: dicomweb, url: 'http://pacs', user: me}",
            "destinations.there: user and password belong together",
        ),
        (
            "{kind: dicomweb, url: 'http://pacs', user: me, password: {file: p}, token: {file: t}}",
            "destinations.there: either user and password, or a token",
        ),
        (
            "{kind: dicomweb, url: 'http://pacs', tls: {ca: ca.pem}}",
            "destinations.there: tls needs a URL that begins with https:",
        ),
        (
            "{kind: dicomweb, url: 'https://pacs', tls: {key: key.pem}}",
            "destinations.there.tls: a key needs its certificate",
        ),
        (
            "{kind: dicomweb, url: 'https://pacs', tls: {certficate: c.pem}}",
            "unknown key 'certficate' in destinations.there.tls: did you mean 'certificate'?",
        ),
        (
            "{kind: dicomweb, url: 'http://pacs', token: {file: t, environment: T}}",
            "destinations.there.token: a secret is given by file or by environment, one of them",
        ),
        (
            "{kind: dicomweb, url: 'http://pacs', token: hunter2}",
            "destinations.there.token: no secret stands here: write {file: PATH} or {environment: NAME}",
        ),
        (
            "{kind: s3, bucket: ct, access_key_id: {environment: ID}}",
            "destinations.there: access_key_id and secret_access_key belong together",
        ),
        ("{kind: s3, bucket: c/t}", "destinations.there.bucket: 'c/t' is no name of a bucket"),
        (
            "{kind: s3, bucket: ct, prefix: /a/}",
            "destinations.there.prefix: '/a/' is no prefix like archive/ct, without / at its ends",
        ),
        (
            "{kind: s3, bucket: ct, max_put_bytes: 1MB}",
            "destinations.there.max_put_bytes: must be at least 5242880, not '1MB'",
        ),
        ("{kind: azure, account: me}", "destinations.there: the key 'container' is missing"),
        (
            "{kind: gsc, bucket: ct}",
            "destinations.there: must be folder, dicom, dicomweb, s3, azure or gcs, not 'gsc': "
            "did you mean 'gcs'?",
        ),
    ],
)
def test_what_is_wrong_is_said_at_its_place(text: str, expected: str) -> None:
    assert fault(text) == expected


def test_a_record_beside_an_object_may_go_to_an_object_store_and_to_no_server() -> None:
    text = (
        "enhanced: {restore_record: sidecar}\n"
        "destinations:\n"
        "  store: {kind: s3, bucket: ct1}\n"
        "  server: {kind: dicomweb, url: 'http://pacs'}\n"
        "default: {convert: enhanced, send_to: [%s]}\n"
    )

    assert parse((text % "store").encode(), "c.yaml").default.send_to == ("store",)
    with pytest.raises(ConfigError, match="needs a folder or an object store here"):
        parse((text % "server").encode(), "c.yaml")


def test_a_secret_is_read_when_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    secret = Secret(file=file)
    file.write_text("  first\n")

    assert secret.read() == "first"
    file.write_text("second")
    assert secret.read() == "second"
    monkeypatch.setenv("DCMPRESS_TEST_TOKEN", "third")
    assert Secret(environment="DCMPRESS_TEST_TOKEN").read() == "third"


def test_a_secret_that_is_not_there_is_said_without_it(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    with pytest.raises(DeliveryError, match="cannot be read: No such file or directory"):
        Secret(file=tmp_path / "none").read()
    with pytest.raises(DeliveryError, match="is empty"):
        Secret(file=tmp_path / "empty").read()
    with pytest.raises(DeliveryError, match="DCMPRESS_NO_SUCH is empty"):
        Secret(environment="DCMPRESS_NO_SUCH").read()


def test_a_webhook_may_have_a_key_in_its_url_which_no_fault_shows() -> None:
    def parsed(url: str) -> str | None:
        return parse(f"notices: {{webhook: '{url}'}}".encode(), "c.yaml").notices.webhook

    assert parsed("https://hooks.example/a/?key=s3cret") == "https://hooks.example/a/?key=s3cret"
    with pytest.raises(ConfigError) as raised:
        parsed("ftp://hooks.example/?key=s3cret")
    assert raised.value.faults == [
        "c.yaml:1:20: notices.webhook: no URL like https://hooks.example/dcmpress"
    ]
