"""TLS towards peers: who is believed, and what is said where nobody can be."""

import socket
import ssl
import threading
from pathlib import Path

import pytest

from scp.config.network import RequestorTls
from scp.config.schema import DicomDestination as Section
from scp.deliver.dicom import DicomDestination
from scp.deliver.ports import Verdict
from scp.errors import PeerRejectedError, PeerUnavailableError
from scp.tls import server_context
from tests.certificates import Authority
from tests.deliver.files import ct_items, dataset_bytes, no_decoder
from tests.deliver.peers import HandPeer


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "certificates").mkdir()
    return Authority(tmp_path / "certificates")


def context(
    authority: Authority, name: str = "localhost", *, wants_ours: bool = False
) -> ssl.SSLContext:
    certificate, key = authority.issue(name)
    return server_context(
        certificate=certificate,
        key=key,
        ca=authority.file if wants_ours else None,
        client_certificate="required" if wants_ours else "none",
    )


def section_of(peer: HandPeer, **tls: object) -> Section:
    written = {key: str(value) if isinstance(value, Path) else value for key, value in tls.items()}
    return peer.section(host="localhost", tls=written)


def deliver(section: Section, folder: Path) -> None:
    items = ct_items(folder, 3, rows=256)
    receipts = list(DicomDestination("p", section, no_decoder).deliver(items, lambda: False))
    assert [each.verdict for each in receipts] == [Verdict.DELIVERED] * 3


def test_instances_go_through_tls_byte_for_byte(tmp_path: Path, authority: Authority) -> None:
    with HandPeer(tls=context(authority)) as peer:
        deliver(section_of(peer, ca=authority.file), tmp_path)

    sent = [dataset_bytes(path) for path in sorted(tmp_path.glob("*.dcm"))]
    assert [each.dataset for each in peer.stored] == sent
    assert peer.released == 1


def test_a_peer_that_asks_for_a_certificate_gets_ours(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("dcmpress")

    with HandPeer(tls=context(authority, wants_ours=True)) as peer:
        deliver(section_of(peer, ca=authority.file, certificate=certificate, key=key), tmp_path)

    assert len(peer.stored) == 3


def test_a_peer_whose_certificate_nobody_signed_is_not_sent_to(
    tmp_path: Path, authority: Authority
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")

    peer = HandPeer(tls=context(authority))
    with peer, pytest.raises(PeerRejectedError, match="certificate is not believed"):
        deliver(section_of(peer, ca=other.file), tmp_path)

    assert peer.associations == 0


def test_a_certificate_of_another_host_is_taken_only_where_the_site_says_so(
    tmp_path: Path, authority: Authority
) -> None:
    with HandPeer(tls=context(authority, "pacs.example")) as peer:
        with pytest.raises(PeerRejectedError, match="certificate is not believed"):
            deliver(section_of(peer, ca=authority.file), tmp_path)
        deliver(section_of(peer, ca=authority.file, check_host=False), tmp_path)


def test_a_peer_that_speaks_no_tls_is_not_sent_to(tmp_path: Path, authority: Authority) -> None:
    with HandPeer(on_request="close") as peer:
        peer.faults = _Ignored()  # It takes the handshake for a PDU of no known type.
        with pytest.raises((PeerRejectedError, PeerUnavailableError), match="TLS: no handshake"):
            deliver(section_of(peer, ca=authority.file), tmp_path)

    assert not peer.stored


class _Ignored(list[BaseException]):
    def append(self, fault: BaseException) -> None:
        pass


def test_a_peer_that_hangs_up_in_the_handshake_is_away_and_has_not_refused(
    tmp_path: Path, authority: Authority
) -> None:
    """As whatever stands before a server that is down does, and what is sent must not be held for that."""
    with socket.create_server(("localhost", 0)) as front:
        section = Section(
            kind="dicom",
            host="localhost",
            port=front.getsockname()[1],
            ae_title="PACS",
            tls=RequestorTls(ca=authority.file),
        )
        hanging_up = threading.Thread(target=lambda: _hang_up(front.accept()[0]))
        hanging_up.start()
        with pytest.raises(PeerUnavailableError, match="TLS: no handshake"):
            DicomDestination("p", section, no_decoder).check()
        hanging_up.join()


def test_a_peer_that_wants_tls_and_is_not_asked_for_it_is_recognised() -> None:
    alert = bytes((0x15, 3, 1, 0, 2, 2, 70))  # As OpenSSL answers what is no handshake.
    with socket.create_server(("localhost", 0)) as front:
        port = front.getsockname()[1]
        section = Section(kind="dicom", host="localhost", port=port, ae_title="PACS")
        complaining = threading.Thread(target=lambda: _hang_up(front.accept()[0], alert))
        complaining.start()
        with pytest.raises(PeerUnavailableError, match="answers in TLS: give its section a tls"):
            DicomDestination("p", section, no_decoder).check()
        complaining.join()


def _hang_up(connection: socket.socket, last: bytes = b"") -> None:
    with connection:
        connection.recv(1 << 16)  # All of it, so that the end comes and no reset.
        connection.sendall(last)


def test_a_certificate_of_ours_that_is_gone_is_a_sentence(
    tmp_path: Path, authority: Authority
) -> None:
    with HandPeer(tls=context(authority)) as peer:
        section = section_of(peer, ca=authority.file, certificate=tmp_path / "none.pem")
        with pytest.raises(PeerRejectedError, match=r"TLS: .*none\.pem"):
            deliver(section, tmp_path)


def test_a_peer_that_falls_silent_behind_tls_is_given_up_in_time(
    tmp_path: Path, authority: Authority
) -> None:
    with HandPeer(tls=context(authority), on_request="silence") as peer:
        section = section_of(peer, ca=authority.file).model_copy(update={"answer_seconds": 0.3})
        with pytest.raises(PeerUnavailableError, match="timeout"):
            deliver(section, tmp_path)
