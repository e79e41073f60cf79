"""Associations over TLS: DCMTK, pynetdicom, and peers that do it wrong."""

import logging
import os
import socket
import ssl
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from pynetdicom import AE

from scp import tls
from scp.config.network import ListenerSection, ListenerTls
from scp.tls import ClientCertificate
from tests.accept.raw_peer import ABORT, RawPeer, associate_request, store_message
from tests.accept.stores import Node, eventually, serving
from tests.accept.test_peers import FindProgram, dataset_bytes
from tests.certificates import Authority
from tests.material import ct_series, write_all


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def strangers(tmp_path: Path) -> Authority:
    """An authority that nobody here believes."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    return Authority(folder)


def port(authority: Authority, client_certificate: ClientCertificate = "none") -> ListenerSection:
    certificate, key = authority.issue()
    pair = ListenerTls(
        certificate=certificate,
        key=key,
        ca=None if client_certificate == "none" else authority.file,
        client_certificate=client_certificate,
    )
    return ListenerSection(port=0, tls=pair)


class TlsPeer(RawPeer):
    """A raw peer that sends through TLS."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(address)
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")


def trusting(authority: Authority, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    certificate, key = pair or (None, None)
    return tls.client_context(ca=authority.file, certificate=certificate, key=key, check_host=True)


def storescu(
    program: str, node: Node, sent: Sequence[Path], *options: str | Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, "-v", *options, *map(str, node.address), *sent],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def test_storescu_sends_without_a_certificate_where_none_is_asked_for(
    dcmtk: FindProgram, authority: Authority, tmp_path: Path
) -> None:
    sent = write_all(ct_series(3, 256, 256), tmp_path)

    with serving(ports=[port(authority)]) as node:
        run = storescu(dcmtk("storescu"), node, sent, "--anonymous-tls", "+cf", authority.file)

    assert run.returncode == 0, run.stderr
    assert sorted(bytes(kept.data) for kept in node.store.kept) == sorted(map(dataset_bytes, sent))


@pytest.mark.parametrize("asked", ["optional", "required"])
def test_storescu_sends_with_a_certificate(
    dcmtk: FindProgram, authority: Authority, tmp_path: Path, asked: ClientCertificate
) -> None:
    sent = write_all(ct_series(3, 256, 256), tmp_path)
    certificate, key = authority.issue("ct1.example")

    with serving(ports=[port(authority, asked)]) as node:
        run = storescu(
            dcmtk("storescu"), node, sent, "+tls", key, certificate, "+cf", authority.file
        )

    assert run.returncode == 0, run.stderr
    assert sorted(bytes(kept.data) for kept in node.store.kept) == sorted(map(dataset_bytes, sent))


def test_storescu_without_the_certificate_that_is_required_sends_nothing(
    dcmtk: FindProgram, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sent = write_all(ct_series(1, 16, 16), tmp_path)

    with serving(ports=[port(authority, "required")]) as node:
        run = storescu(dcmtk("storescu"), node, sent, "--anonymous-tls", "+cf", authority.file)
        assert eventually(lambda: node.listener.open_associations == 0)

    assert run.returncode != 0
    assert node.store.opened == []
    assert "no TLS: peer did not return a certificate" in caplog.text


def test_storescu_with_a_certificate_of_a_stranger_sends_nothing(
    dcmtk: FindProgram,
    authority: Authority,
    strangers: Authority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    sent = write_all(ct_series(1, 16, 16), tmp_path)
    certificate, key = strangers.issue("ct1.example")

    with serving(ports=[port(authority, "optional")]) as node:
        run = storescu(
            dcmtk("storescu"), node, sent, "+tls", key, certificate, "+cf", authority.file
        )
        assert eventually(lambda: node.listener.open_associations == 0)

    assert run.returncode != 0
    assert node.store.opened == []
    assert "no TLS: the peer's certificate: " in caplog.text


def test_pynetdicom_sends_over_tls(authority: Authority) -> None:
    sender = AE()
    sender.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    context = trusting(authority, authority.issue("ct1.example"))

    with serving(ports=[port(authority, "required")]) as node:
        association = sender.associate(*node.address, tls_args=(context, "localhost"))
        statuses = [association.send_c_store(dataset).Status for dataset in ct_series(3, 64, 64)]
        association.release()

    assert statuses == [0, 0, 0]
    assert len(node.store.kept) == 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_instance_larger_than_any_record_arrives_whole(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    data = bytes(range(251)) * 500
    context = trusting(authority)
    context.minimum_version = context.maximum_version = version

    with serving(ports=[port(authority)]) as node, TlsPeer(node.address, context) as peer:
        peer.associate()
        for _ in range(5):
            peer.send(store_message(data))
            assert peer.read_response().Status == 0
        peer.release()

    assert [bytes(kept.data) for kept in node.store.kept] == [data] * 5


def test_a_version_older_than_the_profile_is_not_spoken(authority: Authority) -> None:
    old = trusting(authority)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")

    with serving(ports=[port(authority)]) as node, pytest.raises(ssl.SSLError):
        TlsPeer(node.address, old)


def test_a_peer_that_stalls_in_the_handshake_holds_up_nobody_and_is_dropped(
    authority: Authority,
) -> None:
    with serving(ports=[port(authority)], handshake_seconds=1.5) as node:
        stalled = [RawPeer(node.address) for _ in range(5)]
        for peer in stalled:
            peer.send(b"\x16\x03\x01")
        with TlsPeer(node.address, trusting(authority)) as prompt:
            prompt.associate()
            prompt.release()
        for peer in stalled:
            with peer:
                assert peer.read_until_closed() == []
        assert eventually(lambda: node.listener.open_associations == 0)


def test_a_peer_that_shakes_hands_and_then_says_nothing_is_dropped(authority: Authority) -> None:
    with (
        serving(ports=[port(authority)], handshake_seconds=0.5) as node,
        TlsPeer(node.address, trusting(authority)) as peer,
    ):
        assert peer.read_until_closed() == []


@pytest.mark.parametrize("where", [0, 3, 40, -1])
def test_a_peer_that_stalls_inside_a_pdu_is_dropped_on_tls_too(
    authority: Authority, where: int
) -> None:
    with (
        serving(ports=[port(authority)], pdu_seconds=0.3, idle_seconds=0.3) as node,
        TlsPeer(node.address, trusting(authority)) as peer,
    ):
        peer.associate()
        peer.send(store_message(bytes(1000))[:where])
        assert peer.read_pdu() == ABORT
        assert eventually(lambda: node.store.closed)

    assert node.store.kept == []


# The module ssl leaves a socket that was reset to be collected, and says that it was not closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.0"])
def test_a_peer_that_only_looks_whether_the_port_is_open_is_one_line_in_the_log(
    authority: Authority, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    caplog.set_level(logging.INFO)

    with serving(ports=[port(authority)]) as node:
        for _ in range(20):
            with RawPeer(node.address) as gone:
                gone.send(said)
                at_once = struct.pack("ii", 1, 0)
                gone.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        assert eventually(lambda: caplog.text.count("association over: ") == 20)

    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_what_is_no_tls_ends_the_connection_and_nothing_else(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    with serving(ports=[port(authority)]) as node:
        with RawPeer(node.address) as plain:
            plain.send(associate_request())
            plain.read_until_closed()
        with TlsPeer(node.address, trusting(authority)) as good:
            good.associate()
            good.release()

    assert "no TLS: wrong version number" in caplog.text


def test_stopping_ends_a_handshake_and_an_association_on_tls(authority: Authority) -> None:
    with (
        serving(ports=[port(authority)]) as node,
        RawPeer(node.address) as shaking,
        TlsPeer(node.address, trusting(authority)) as idle,
    ):
        idle.associate()
        assert eventually(lambda: len(node.listener._open) == 2)
        node.listener.stop()
        node.thread.join(10)

        assert node.listener.drain(0) == 2
        assert idle.read_pdu() == ABORT
        assert shaking.read_until_closed() == []


def test_a_certificate_is_renewed_without_a_restart(authority: Authority) -> None:
    section = port(authority)
    assert section.tls is not None
    assert section.tls.key is not None

    def presented(node: Node) -> bytes:
        with TlsPeer(node.address, trusting(authority)) as peer:
            assert isinstance(peer.socket, ssl.SSLSocket)
            return peer.socket.getpeercert(binary_form=True) or b""

    with (
        serving(ports=[section]) as node,
        TlsPeer(node.address, trusting(authority)) as open_before,
    ):
        open_before.associate()
        old = presented(node)
        certificate, key = authority.issue()
        certificate.rename(section.tls.certificate)
        key.rename(section.tls.key)
        new = presented(node)
        open_before.release()

    assert old != new
    assert ssl.DER_cert_to_PEM_cert(new) in section.tls.certificate.read_text()


def test_plain_and_tls_ports_are_served_at_once(authority: Authority) -> None:
    with serving(ports=[ListenerSection(port=0), port(authority)]) as node:
        plain, secure = node.addresses
        with RawPeer(plain) as first, TlsPeer(secure, trusting(authority)) as second:
            for peer in (first, second):
                peer.associate()
                peer.send(store_message(b"data"))
                assert peer.read_response().Status == 0
                peer.release()

    assert len(node.store.kept) == 2
