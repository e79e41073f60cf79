"""Certificates and keys are tried, wherever a configuration names some, when it is checked."""

from pathlib import Path

import pytest

from scp.config.load import load
from scp.errors import ConfigError
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "certificates").mkdir()
    return Authority(tmp_path / "certificates")


def config_with(folder: Path, ca: Path, certificate: Path, key: Path) -> Path:
    ours = f"certificate: {certificate}, key: {key}"
    path = folder / "c.yaml"
    path.write_text(
        f"listeners: [{{port: 0, tls: {{{ours}}}}}]\n"
        "access: {peers: [{ae_title: CT1, report_to: "
        f"{{host: h, port: 1, tls: {{ca: {ca}, {ours}}}}}}}]}}\n"
        "destinations:\n"
        "  archive: {kind: folder, path: ./archive}\n"
        f"  pacs: {{kind: dicom, host: h, port: 1, ae_title: A, tls: {{ca: {ca}, {ours}}}}}\n"
        f"  web: {{kind: dicomweb, url: 'https://h', tls: {{ca: {ca}}}}}\n"
        f"  bucket: {{kind: s3, bucket: abc, ca: {ca}}}\n"
        f"ledger: {{url: 'postgresql://h/d', tls: {{ca: {ca}}}}}\n"
        f"notices: {{webhook: 'https://h', ca: {ca}}}\n"
    )
    return path


def test_good_ones_are_no_fault(tmp_path: Path, authority: Authority) -> None:
    load(config_with(tmp_path, authority.file, *authority.issue()), with_files=True)


def test_each_that_cannot_be_used_is_said_at_its_place(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue(days=-1)
    gone = tmp_path / "gone.pem"
    path = config_with(tmp_path, gone, certificate, key)

    load(path)  # Who only asks needs no certificates.
    with pytest.raises(ConfigError) as raised:
        load(path, with_files=True)

    expired, missing = f"{certificate} has expired", f"{gone} cannot be read: No such file"
    said = [fault.removeprefix(f"{path}:").split(": ", 2) for fault in raised.value.faults]
    assert [(place.split(":")[0], key, text[:40]) for place, key, text in said] == [
        ("1", "listeners[0].tls.certificate", expired[:40]),
        ("2", "access.peers[0].report_to.tls.ca", missing[:40]),
        ("2", "access.peers[0].report_to.tls.certificate", expired[:40]),
        ("5", "destinations.pacs.tls.ca", missing[:40]),
        ("5", "destinations.pacs.tls.certificate", expired[:40]),
        ("6", "destinations.web.tls.ca", missing[:40]),
        ("7", "destinations.bucket.ca", missing[:40]),
        ("8", "ledger.tls.ca", missing[:40]),
        ("9", "notices.ca", missing[:40]),
    ]


def test_a_secret_that_cannot_be_read_is_said_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "good").write_text("secret\n")
    path = tmp_path / "c.yaml"
    path.write_text(
        "destinations:\n"
        "  archive: {kind: folder, path: ./archive}\n"
        f"  web: {{kind: dicomweb, url: 'https://h', token: {{file: {tmp_path}/gone}}}}\n"
        f"  other: {{kind: dicomweb, url: 'https://h', token: {{file: {tmp_path}/good}}}}\n"
        "  third: {kind: dicomweb, url: 'https://h', token: {environment: ONLY_THE_NODE_HAS_IT}}\n"
        f"ledger: {{url: 'postgresql://h/d', password: {{file: {tmp_path}/empty}}}}\n"
    )

    load(path)  # Who only asks needs no secrets.
    with pytest.raises(ConfigError) as raised:
        load(path, with_files=True)

    assert [fault.removeprefix(f"{path}:") for fault in raised.value.faults] == [
        f"3:57: destinations.web.token.file: the secret in {tmp_path}/gone cannot be read: "
        "No such file or directory",
        f"6:52: ledger.password.file: the secret in {tmp_path}/empty is empty",
    ]
