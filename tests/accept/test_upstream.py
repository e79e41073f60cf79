"""What pynetdicom does that ``upper_layer`` works around, shown on pynetdicom alone.

Each test states what should be and is expected to fail, by the exception that it names. One that passes,
or fails by another, says that a newer pynetdicom needs the workaround of its name no more: then it is
time to take it out.
"""

import logging
import runpy
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom._validators import validate_ae
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket, ThreadedAssociationServer

from scp import tls
from tests.accept.raw_peer import (
    ABORT,
    COMMAND,
    CT,
    EXPLICIT,
    IMPLICIT,
    LAST,
    VERIFICATION,
    RawPeer,
    associate_request,
    echo_command,
    p_data,
    store_command,
)
from tests.certificates import Authority

SECONDS: Final = 1.0
"""How long something that should happen is waited for."""
LONG_SECONDS: Final = 30.0
"""The times of an acceptor where none of them is to run out."""

ACCEPT, REJECT = b"\x02", b"\x03"
ENDED = (ABORT[:1], b"")
ECHO = (3, COMMAND | LAST, echo_command())


@dataclass(frozen=True, slots=True)
class Acceptor:
    """pynetdicom's own, as it runs."""

    server: ThreadedAssociationServer
    associations: list[Association] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        assert self.server.socket is not None
        host, port = self.server.socket.getsockname()
        return host, port

    def opened(self, event: evt.Event) -> None:
        """Keep what pynetdicom may forget to close."""
        self.associations.append(event.assoc)
        assert event.assoc.dul.socket is not None
        assert event.assoc.dul.socket.socket is not None
        self.connections.append(event.assoc.dul.socket.socket)

    def close(self) -> None:
        """Wait for all its threads; its peers have to be closed before."""
        self.server.shutdown()
        for association in self.associations:
            association.join(LONG_SECONDS)
            association.dul.join(LONG_SECONDS)
        for connection in self.connections:
            connection.close()
        assert not any(one.is_alive() or one.dul.is_alive() for one in self.associations)


@contextmanager
def accepting(
    *handlers: Any,
    seconds: float = LONG_SECONDS,
    context: ssl.SSLContext | None = None,
) -> Iterator[Acceptor]:
    """Run pynetdicom's acceptor with these handlers, times and TLS."""
    entity = AE()
    entity.add_supported_context(VERIFICATION)
    entity.add_supported_context(CT, [EXPLICIT, IMPLICIT])
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = seconds
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, lambda _: 0), *handlers],
        ssl_context=context,
    )
    assert isinstance(server, ThreadedAssociationServer)
    acceptor = Acceptor(server)
    server.bind(evt.EVT_CONN_OPEN, acceptor.opened)
    try:
        yield acceptor
    finally:
        acceptor.close()


@pytest.fixture
def plain() -> Iterator[Acceptor]:
    with accepting() as acceptor:
        yield acceptor


@pytest.fixture
def _as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what ``quiet_pynetdicom`` may have set in this process."""
    shipped = runpy.run_path(str(_config.__file__))
    monkeypatch.setattr(_config, "LOG_HANDLER_LEVEL", shipped["LOG_HANDLER_LEVEL"])


@pytest.mark.xfail(
    raises=TimeoutError, reason="PduReader: dul.py reads as many bytes as a PDU announces"
)
def test_a_pdu_that_is_too_long_is_answered_before_it_is_read(plain: Acceptor) -> None:
    with RawPeer(plain.address) as peer:
        peer.associate()
        peer.socket.settimeout(SECONDS)
        peer.send(bytes.fromhex("0400fffffff0") + bytes(1000))

        assert peer.read_pdu()[:1] in ENDED


@pytest.mark.xfail(
    raises=TimeoutError, reason="PduReader: a peer that stalls inside a PDU is never dropped"
)
def test_a_peer_that_stalls_inside_a_pdu_is_dropped() -> None:
    with accepting(seconds=0.3) as plain, RawPeer(plain.address) as peer:
        peer.associate()
        peer.socket.settimeout(SECONDS)
        peer.send(p_data(ECHO)[:20])

        assert peer.read_pdu()[:1] in ENDED


@pytest.mark.xfail(
    raises=TimeoutError, reason="Messages: decoding drops what follows a message in its PDU"
)
def test_two_messages_in_one_pdu_are_both_answered(plain: Acceptor) -> None:
    with RawPeer(plain.address) as peer:
        peer.associate()
        peer.socket.settimeout(SECONDS)
        peer.send(p_data(ECHO, ECHO))

        assert [peer.read_response().Status for _ in range(2)] == [0, 0]


@pytest.mark.xfail(
    raises=AssertionError, reason="plain_title: titles that are sent are not accepted"
)
@pytest.mark.parametrize("title", ["CT\0", "CT\xd6"])
def test_a_title_outside_the_standard_is_read(title: str) -> None:
    is_valid, _ = validate_ae(title)

    assert is_valid


@pytest.mark.xfail(raises=AssertionError, reason="StorageAcse: any application is accepted")
def test_another_application_than_dicom_is_rejected(plain: Acceptor) -> None:
    request = associate_request().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")
    with RawPeer(plain.address) as peer:
        peer.send(request)

        assert peer.read_pdu()[:1] == REJECT


@pytest.mark.xfail(
    raises=AssertionError,
    reason="StorageAcse: nothing is said of an asynchronous operations window",
)
def test_an_operations_window_is_answered_without_being_asked(plain: Acceptor) -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 8
    window.maximum_number_operations_performed = 8
    with RawPeer(plain.address) as peer:
        accept = peer.associate(associate_request(items=[window]))

    assert accept.user_information is not None
    assert accept.user_information.async_ops_window is not None


@pytest.mark.xfail(raises=AssertionError, reason="PumpedDul: two threads poll for each association")
def test_an_association_is_one_thread(plain: Acceptor) -> None:
    before = threading.active_count()
    with RawPeer(plain.address) as peer:
        peer.associate()
        more = threading.active_count() - before

    assert more == 1


@pytest.mark.xfail(
    raises=AssertionError, reason="PumpedDul: who aborts waits for the thread that polls"
)
def test_an_association_is_aborted_although_its_peer_stalls(plain: Acceptor) -> None:
    with RawPeer(plain.address) as peer:
        peer.associate()
        peer.send(bytes.fromhex("040000001000"))  # and nothing of the PDU that it announces
        (association,), (connection,) = plain.associations, plain.connections
        while select.select([connection], [], [], 0)[0]:
            time.sleep(0.01)  # until the thread that polls has read it, and waits for more
        aborting = threading.Thread(target=association.abort)
        aborting.start()
        aborting.join(SECONDS)
        is_over = not aborting.is_alive()
    aborting.join(LONG_SECONDS)

    assert is_over


@pytest.mark.xfail(raises=AssertionError, reason="plain_title: titles that are sent end everything")
@pytest.mark.parametrize("title", [bytes(16), b" " * 16])
def test_a_peer_without_a_name_is_accepted(title: bytes) -> None:
    request = associate_request(calling="RAW").replace(b"RAW".ljust(16), title)
    with accepting(seconds=1) as plain, RawPeer(plain.address) as peer:
        peer.send(request)

        assert peer.read_pdu()[:1] == ACCEPT


@pytest.mark.xfail(
    raises=AssertionError, reason="positive_answer: given to some kinds of users alone"
)
def test_a_user_that_was_recognised_by_name_is_told() -> None:
    user = UserIdentityNegotiation()
    user.user_identity_type = 1
    user.primary_field = b"someone"
    user.positive_response_requested = True
    recognises = (evt.EVT_USER_ID, lambda _: (True, b""))
    with accepting(recognises) as plain, RawPeer(plain.address) as peer:
        accept = peer.associate(associate_request(items=[user]))

    assert accept.user_information is not None
    assert accept.user_information.user_identity is not None


@pytest.mark.xfail(raises=AssertionError, reason="StorageAcse: contexts are copied deeply")
def test_associations_share_what_is_supported(plain: Acceptor) -> None:
    with RawPeer(plain.address) as peer:
        peer.associate()
        supported = plain.associations[0].acceptor.supported_contexts

    assert {id(one) for one in supported} == {id(one) for one in plain.server.contexts}


@pytest.mark.xfail(
    raises=AssertionError, reason="read_request, put_answers: UIDs are checked often"
)
def test_a_uid_is_checked_once(plain: Acceptor, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = [(CT, (EXPLICIT, IMPLICIT))] * 120
    request = associate_request(contexts)
    is_valid = UID.is_valid.fget  # type: ignore[attr-defined]
    checked: list[UID] = []

    def check(uid: UID) -> bool:
        checked.append(uid)
        return bool(is_valid(uid))

    monkeypatch.setattr(UID, "is_valid", property(check))
    with RawPeer(plain.address) as peer:
        peer.send(request)
        answer = peer.read_pdu()

    assert answer[:1] == ACCEPT
    # In a context of the request three, in that of the answer one.
    assert sum(uid in (CT, EXPLICIT, IMPLICIT) for uid in checked) <= 4 * len(contexts)


@pytest.mark.xfail(
    raises=TimeoutError, reason="StorageAssociation: hands are shaken by who accepts"
)
def test_a_peer_that_stalls_in_its_tls_handshake_keeps_nobody_waiting(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(*authority.issue())
    theirs = tls.client_context(ca=authority.file, certificate=None, key=None, check_host=True)
    with accepting(context=ours) as plain, RawPeer(plain.address), RawPeer(plain.address) as peer:
        peer.socket.settimeout(SECONDS)
        peer.socket = theirs.wrap_socket(peer.socket, server_hostname="localhost")

        peer.associate()


@pytest.mark.xfail(raises=TypeError, reason="Listener: the server binds its port itself")
def test_a_socket_that_listens_can_be_handed_over() -> None:
    ThreadedAssociationServer(AE(), ("127.0.0.1", 0), "ANY", [], bind_and_activate=False)  # type: ignore[call-arg]


@pytest.mark.xfail(raises=AssertionError, reason="PumpedDul: established before the peer is told")
def test_an_association_is_established_when_the_accept_is_sent() -> None:
    sent: list[bool] = []
    when_established: list[bool] = []
    is_established = threading.Event()

    def hold(event: evt.Event) -> None:
        if (
            event.action == "AE-6"
        ):  # it was asked for: here pynetdicom's polling thread sends nothing
            is_established.wait(SECONDS)

    def established(_: evt.Event) -> None:
        when_established.append(any(sent))
        is_established.set()

    handlers: Sequence[Any] = (
        (evt.EVT_FSM_TRANSITION, hold),
        (evt.EVT_PDU_SENT, lambda event: sent.append(isinstance(event.pdu, A_ASSOCIATE_AC))),
        (evt.EVT_ESTABLISHED, established),
    )
    with accepting(*handlers) as plain, RawPeer(plain.address) as peer:
        peer.associate()
        assert is_established.wait(LONG_SECONDS)

    assert when_established == [True]


@pytest.mark.xfail(raises=AssertionError, reason="_await_close: we close before the peer does")
def test_the_peer_closes_first(plain: Acceptor) -> None:
    with RawPeer(plain.address) as peer:
        peer.associate()
        peer.release()
        peer.socket.settimeout(SECONDS)
        try:
            is_closed = peer.read_pdu() == b""
        except TimeoutError:
            is_closed = False

    assert not is_closed


@pytest.mark.xfail(raises=AssertionError, reason="PduReader: timers measure wall time")
def test_a_clock_that_is_set_ends_no_association(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = Timer(LONG_SECONDS)
    timer.start()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)

    assert not timer.expired


@pytest.mark.xfail(raises=AssertionError, reason="_close: what the peer has reset is never closed")
def test_a_connection_that_the_peer_has_reset_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        connection, _ = server.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
    with connection:
        connection.settimeout(LONG_SECONDS)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)

        AssociationSocket(Association(AE(), "acceptor"), client_socket=connection).close()

        assert connection.fileno() == -1


class CountingSocket(socket.socket):
    """Counts how often it was read."""

    reads = 0

    def recv(self, *arguments: int) -> bytes:
        self.reads += 1
        return super().recv(*arguments)


@pytest.mark.xfail(raises=AssertionError, reason="PduReader: a PDU is read 4 KiB at a time")
def test_a_pdu_that_has_come_is_read_at_once() -> None:
    near, far = socket.socketpair()
    with CountingSocket(fileno=near.detach()) as connection, far:
        far.settimeout(LONG_SECONDS)
        far.sendall(bytes(2**16))
        handed = AssociationSocket(Association(AE(), "acceptor"), client_socket=connection)

        assert len(handed.recv(2**16)) == 2**16
        assert connection.reads <= 4


@pytest.mark.xfail(
    raises=TimeoutError, reason="Messages: a message is held in memory without a bound"
)
def test_a_command_without_an_end_is_aborted(plain: Acceptor) -> None:
    with RawPeer(plain.address) as peer:
        peer.associate()
        peer.socket.settimeout(SECONDS)
        for _ in range(64):
            peer.send(p_data((3, COMMAND, bytes(2**14))))

        assert peer.read_pdu()[:1] in ENDED


@pytest.mark.xfail(raises=KeyError, reason="Messages: an unknown command ends the thread")
def test_an_unknown_command_is_aborted(plain: Acceptor, monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda thread: died.append(thread.exc_value))
    field_of_echo, unknown = bytes.fromhex("020000003000"), bytes.fromhex("020000003077")
    assert echo_command().count(field_of_echo) == 1
    with RawPeer(plain.address) as peer:
        peer.associate()
        peer.send(p_data((3, COMMAND | LAST, echo_command().replace(field_of_echo, unknown))))
        assert peer.read_pdu()[:1] in ENDED
    plain.associations[0].dul.join(LONG_SECONDS)

    for failure in died:
        assert failure is not None
        raise failure


@pytest.mark.xfail(raises=AssertionError, reason="quiet_pynetdicom: each module logs at INFO")
@pytest.mark.usefixtures("_as_it_comes")
def test_an_association_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pynetdicom")
    with accepting() as plain, RawPeer(plain.address) as peer:
        peer.associate()
        peer.release()

    assert len(caplog.messages) <= 1


@pytest.mark.xfail(raises=AssertionError, reason="quiet_pynetdicom: handlers log identifiers")
@pytest.mark.usefixtures("_as_it_comes")
def test_an_instance_is_not_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pynetdicom")
    with accepting() as plain, RawPeer(plain.address) as peer:
        peer.associate()
        peer.send(p_data((1, COMMAND | LAST, store_command("2.25.7777"))))
        peer.send(p_data((1, LAST, b"")))
        assert peer.read_response().Status == 0

    assert "2.25.7777" not in caplog.text


def test_the_acceptor_of_these_tests_works(plain: Acceptor) -> None:
    """So that the others do not fail for another reason."""
    with RawPeer(plain.address) as peer:
        peer.associate()
        peer.send(p_data(ECHO))
        assert peer.read_response().Status == 0
        peer.send(p_data((1, COMMAND | LAST, store_command())) + p_data((1, LAST, b"")))
        assert peer.read_response().Status == 0
        peer.release()
