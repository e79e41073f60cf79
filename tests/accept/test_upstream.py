"""What pynetdicom does that ``upper_layer`` works around, shown on pynetdicom alone.

Each test states what should be and is expected to fail. One that passes says that a newer pynetdicom
needs the workaround of its name no more: then it is time to take it out.
"""

import threading
from collections.abc import Iterator

import pytest
from pynetdicom import AE, evt
from pynetdicom._validators import validate_ae
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation
from pynetdicom.transport import ThreadedAssociationServer

from tests.accept.raw_peer import (
    COMMAND,
    CT,
    EXPLICIT,
    LAST,
    VERIFICATION,
    RawPeer,
    associate_request,
    echo_command,
    p_data,
    store_command,
)

SECONDS = 1.5


@pytest.fixture
def plain() -> Iterator[tuple[str, int]]:
    """pynetdicom's own acceptor, with short times."""
    entity = AE()
    entity.add_supported_context(VERIFICATION)
    entity.add_supported_context(CT, EXPLICIT)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 0.3
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0)]
    )
    assert isinstance(server, ThreadedAssociationServer)
    assert server.socket is not None
    host, port = server.socket.getsockname()
    yield host, port
    server.shutdown()


@pytest.mark.xfail(reason="PduReader: dul.py reads as many bytes as a PDU announces")
def test_a_pdu_that_is_too_long_is_answered_before_it_is_read(plain: tuple[str, int]) -> None:
    with RawPeer(plain) as peer:
        peer.associate()
        peer.socket.settimeout(SECONDS)
        peer.send(bytes.fromhex("0400fffffff0") + bytes(1000))

        assert peer.read_pdu()[:1] in (b"\x07", b"")


@pytest.mark.xfail(reason="PduReader: a peer that stalls inside a PDU is never dropped")
def test_a_peer_that_stalls_inside_a_pdu_is_dropped(plain: tuple[str, int]) -> None:
    with RawPeer(plain) as peer:
        peer.associate()
        peer.socket.settimeout(SECONDS)
        peer.send(p_data((3, COMMAND | LAST, echo_command()))[:20])

        assert peer.read_pdu()[:1] in (b"\x07", b"")


@pytest.mark.xfail(reason="Messages: decoding drops what follows a message in its PDU")
def test_two_messages_in_one_pdu_are_both_answered(plain: tuple[str, int]) -> None:
    echo = (3, COMMAND | LAST, echo_command())
    with RawPeer(plain) as peer:
        peer.associate()
        peer.socket.settimeout(SECONDS)
        peer.send(p_data(echo, echo))

        assert [peer.read_response().Status for _ in range(2)] == [0, 0]


@pytest.mark.xfail(reason="plain_title: titles that are sent are not accepted")
@pytest.mark.parametrize("title", ["CT\0", "CT\xd6"])
def test_a_title_outside_the_standard_is_read(title: str) -> None:
    is_valid, _ = validate_ae(title)

    assert is_valid


@pytest.mark.xfail(reason="StorageAcse: any application is accepted")
def test_another_application_than_dicom_is_rejected(plain: tuple[str, int]) -> None:
    request = associate_request().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")
    with RawPeer(plain) as peer:
        peer.send(request)

        assert peer.read_pdu()[:1] == b"\x03"


@pytest.mark.xfail(reason="StorageAcse: nothing is said of an asynchronous operations window")
def test_an_operations_window_is_answered_without_being_asked(plain: tuple[str, int]) -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 8
    window.maximum_number_operations_performed = 8
    with RawPeer(plain) as peer:
        accept = peer.associate(associate_request(items=[window]))

    assert accept.user_information is not None
    assert accept.user_information.async_ops_window is not None


@pytest.mark.xfail(reason="PumpedDul: two threads poll for each association")
def test_an_association_is_one_thread(plain: tuple[str, int]) -> None:
    before = threading.active_count()
    with RawPeer(plain) as peer:
        peer.associate()
        more = threading.active_count() - before

    assert more == 1


def test_the_acceptor_of_these_tests_works(plain: tuple[str, int]) -> None:
    """So that the others do not fail for another reason."""
    with RawPeer(plain) as peer:
        peer.associate()
        peer.send(p_data((3, COMMAND | LAST, echo_command())))
        assert peer.read_response().Status == 0
        peer.send(p_data((1, COMMAND | LAST, store_command())) + p_data((1, LAST, b"")))
        assert peer.read_response().Status == 0
        peer.release()
