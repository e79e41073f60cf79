"""Certificates and keys: what is wrong with them is said, and a change of the files is followed."""

import contextlib
import errno
import os
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from scp import tls
from scp.errors import CertificateError
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def what_is_wrong(
    certificate: Path, key: Path | None, *, is_server: bool = True
) -> tuple[str, str]:
    with pytest.raises(CertificateError) as raised:
        tls.examine(certificate, key, is_server=is_server)
    return raised.value.part, str(raised.value)


@pytest.mark.parametrize("is_server", [True, False])
def test_a_good_pair_says_who_it_is_for(authority: Authority, is_server: bool) -> None:
    certificate, key = authority.issue("pacs.example", days=20)

    identity = tls.examine(certificate, key, is_server=is_server)

    assert identity.name == "pacs.example"
    assert identity.names == {"pacs.example"}
    assert 19 * 86400 < identity.not_after - os.stat(key).st_mtime <= 20 * 86400


def test_a_key_may_lie_in_the_file_of_its_certificate(authority: Authority) -> None:
    certificate, key = authority.issue()
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    certificate.chmod(0o600)

    assert tls.examine(certificate, None).name == "localhost"


@pytest.mark.parametrize("is_server", [True, False])
def test_an_expired_certificate_is_named(authority: Authority, is_server: bool) -> None:
    certificate, key = authority.issue(days=-1)

    assert what_is_wrong(certificate, key, is_server=is_server) == (
        "certificate",
        f"{certificate} has expired: renew it",
    )


def test_a_key_of_another_certificate_is_named(authority: Authority) -> None:
    certificate, _ = authority.issue()
    _, other = authority.issue()

    assert what_is_wrong(certificate, other) == (
        "key",
        f"{other} is not the key of {certificate}",
    )


def test_a_key_that_everybody_may_read_is_named(authority: Authority) -> None:
    certificate, key = authority.issue()
    key.chmod(0o644)

    assert what_is_wrong(certificate, key) == (
        "key",
        f"{key} can be read by anyone on this machine: chmod o= {key}",
    )


def test_an_encrypted_key_is_named_and_nobody_is_asked(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue()
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked],
        check=True,
        capture_output=True,
        timeout=30,
    )
    locked.chmod(stat.S_IRUSR)

    part, message = what_is_wrong(certificate, locked)

    assert part == "key"
    assert message == f"{locked} is encrypted, and nobody is there to type a passphrase: decrypt it"


@pytest.mark.parametrize("content", [None, b"", b"no PEM"])
def test_files_without_what_they_should_hold_are_named(
    authority: Authority, tmp_path: Path, content: bytes | None
) -> None:
    certificate, key = authority.issue()
    wrong = tmp_path / "wrong.pem"
    if content is not None:
        wrong.touch(mode=0o600)
        wrong.write_bytes(content)

    with pytest.raises(CertificateError) as raised:
        tls.examine_authorities(wrong)

    assert raised.value.part == "ca"
    assert what_is_wrong(wrong, key)[0] == "certificate"
    assert what_is_wrong(certificate, wrong)[0] == "key"
    why = "cannot be read: No such file" if content is None else "holds no key in PEM"
    assert f"{wrong} {why}" in what_is_wrong(certificate, wrong)[1]


def test_authorities_are_good_while_one_of_them_is(authority: Authority) -> None:
    tls.examine_authorities(authority.file)


def context_of(authority: Authority, certificate: Path, key: Path) -> tls.FreshContext:
    return tls.FreshContext(
        lambda: tls.server_context(
            certificate=certificate, key=key, ca=authority.file, client_certificate="optional"
        ),
        [certificate, key, authority.file],
    )


def test_a_changed_file_is_read_again(authority: Authority) -> None:
    certificate, key = authority.issue()
    fresh = context_of(authority, certificate, key)
    first = fresh.current()
    assert fresh.current() is first
    for new, old in zip(authority.issue(), (certificate, key), strict=True):
        new.rename(old)

    second = fresh.current()

    assert second is not first
    assert fresh.current() is second


def shaken(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None
) -> ssl.SSLObject:
    """The client's end of a connection that has ended in order."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, session=session)
    for step in (
        *(theirs.do_handshake, ours.do_handshake) * 3,
        *(lambda: ours.write(b"x"), lambda: theirs.read(1)),
        *(theirs.unwrap, ours.unwrap, theirs.unwrap),
    ):
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLSyscallError):
            step()
    return theirs


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_of_before_a_change_of_certificates_is_not_resumed(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    certificate, key = authority.issue()
    fresh = context_of(authority, certificate, key)
    client = tls.client_context(
        ca=authority.file, certificate=certificate, key=key, check_host=False
    )
    client.minimum_version = client.maximum_version = version
    session = shaken(fresh.current(), client, None).session
    again = shaken(fresh.current(), client, session).session_reused

    for new, old in zip(authority.issue(), (certificate, key), strict=True):
        new.rename(old)

    assert again is (version == ssl.TLSVersion.TLSv1_2), "else this test shows nothing"
    assert not shaken(fresh.current(), client, session).session_reused


def test_a_file_that_is_replaced_while_it_is_read_leaves_the_old_ones_in_use(
    tmp_path: Path,
) -> None:
    file = tmp_path / "certificate"
    made = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)]

    def build() -> ssl.SSLContext:
        if not made:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return made.pop()

    fresh = tls.FreshContext(build, [file])
    first = fresh.current()
    file.write_bytes(b"new")

    assert fresh.current() is first


def test_files_that_do_not_fit_leave_the_old_ones_in_use(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = authority.issue()
    fresh = context_of(authority, certificate, key)
    first = fresh.current()
    new_certificate, new_key = authority.issue()

    new_certificate.rename(certificate)
    between = [fresh.current() for _ in range(3)]
    new_key.rename(key)
    renewed = fresh.current()

    assert between == [first] * 3
    assert renewed is not first
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [
        "certificates were changed and cannot be used, the old ones stay: "
        f"{key} is not the key of {certificate}"
    ]


def test_only_what_the_profile_names_is_spoken(authority: Authority) -> None:
    certificate, key = authority.issue()

    contexts = [
        tls.server_context(certificate=certificate, key=key, ca=None, client_certificate="none"),
        tls.client_context(ca=authority.file, certificate=None, key=None, check_host=True),
        tls.client_context(ca=None, certificate=certificate, key=key, check_host=False),
    ]

    for context in contexts:
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        names = {suite["name"] for suite in context.get_ciphers()}
        of_1_2 = {name for name in names if not name.startswith("TLS_")}
        assert of_1_2 == set(tls.SUITES_OF_TLS_1_2)
