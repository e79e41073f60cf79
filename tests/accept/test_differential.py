"""The same bytes to pynetdicom's own SCP, DCMTK's storescp and the node: the answers, compared.

A script is what a peer sends, step by step. A transcript is what it gets back, in words. Where
another answers differently and that is meant, the table says what and why.
"""

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

import pytest
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.dsutils import decode
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.transport import ThreadedAssociationServer

from tests.accept.raw_peer import (
    ABORT,
    COMMAND,
    CT,
    EXPLICIT,
    IMPLICIT,
    LAST,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    RawPeer,
    associate_request,
    echo_command,
    p_data,
    store_command,
    store_message,
)
from tests.accept.stores import serving
from tests.accept.test_messages import command_set
from tests.deliver.peers import storescp
from tests.e2e.peers import free_port

SECONDS: Final = 10.0
MAX_PDU: Final = 16384
"""Of all three, so that they announce the same."""


def element(group: int, number: int, vr: str, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


DATASET: Final = element(8, 0x16, "UI", CT.encode() + b"\0" * (len(CT) % 2)) + element(
    8, 0x18, "UI", b"2.25.77\0"
)
LONG: Final = DATASET + element(0x10, 0x10, "PN", b"A" * 60_000)
ECHO: Final = p_data((3, COMMAND | LAST, echo_command()))
STORE: Final = store_message(DATASET)
CANCEL: Final = command_set((0x0100, b"\xff\x0f"), (0x0120, b"\7\0"), (0x0800, b"\1\1"))
UNKNOWN_PDU: Final = bytes.fromhex("99000000000400000000")
ANSWER: Final = b""
"""No bytes to send: wait for the next answer."""
ENDS: Final = ("abort", "reject", "release-rp", "closed", "silence")


@pytest.fixture(scope="module")
def implementations(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, tuple[str, int]]]:
    folder, port = tmp_path_factory.mktemp("storescp"), free_port()
    options = ("--fork", "--ignore", "--max-pdu", str(MAX_PDU))
    with contextlib.ExitStack() as stack:
        stack.enter_context(storescp(folder, port, *options))
        node = stack.enter_context(serving(max_pdu_bytes=MAX_PDU))
        yield {
            "node": node.address,
            "pynetdicom": stack.enter_context(pynetdicom_scp()),
            "dcmtk": ("127.0.0.1", port),
        }


@contextlib.contextmanager
def pynetdicom_scp() -> Iterator[tuple[str, int]]:
    entity = AE()
    entity.maximum_pdu_size = MAX_PDU
    entity.add_supported_context(VERIFICATION)
    entity.add_supported_context(CT, [EXPLICIT, IMPLICIT])
    entity.acse_timeout = entity.network_timeout = SECONDS
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0)]
    )
    assert isinstance(server, ThreadedAssociationServer)
    assert server.socket is not None
    host, port = server.socket.getsockname()
    try:
        yield host, port
    finally:
        server.shutdown()


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a peer does after it has sent ``request``, and what each of the three has to answer."""

    steps: Sequence[bytes] = ()
    """What to send, and in between where to wait for an :data:`ANSWER`."""
    request: bytes | None = field(default_factory=associate_request)
    """None: there is none."""
    expected: Sequence[str]
    differs: dict[str, tuple[Sequence[str], str]] = field(default_factory=dict)
    """What another implementation answers, and why the node does not; nothing: it is not asked."""


def words(pdu: bytes) -> str:
    match pdu[0]:
        case 2:
            return accepted(pdu)
        case 3:
            return f"reject {pdu[7]} {pdu[8]} {pdu[9]}"
        case 5:
            return "release-rq"
        case 6:
            return "release-rp"
        case 7:
            return "abort by user" if pdu[8] == 0 else f"abort by provider {pdu[9]}"
    return pdu.hex()


def accepted(pdu: bytes) -> str:
    """Results of the contexts, and what was negotiated besides."""
    accept = A_ASSOCIATE_AC()
    accept.decode(pdu)
    contexts = sorted(accept.presentation_context, key=lambda item: item.context_id or 0)
    results = [str(item.result) for item in contexts]
    information = accept.user_information
    assert information is not None
    assert information.maximum_length == MAX_PDU
    more = []
    if information.async_ops_window is not None:
        window = information.async_ops_window
        more.append(
            f"window {window.maximum_number_operations_invoked}"
            f"/{window.maximum_number_operations_performed}"
        )
    more += [
        f"role {item.scu_role}/{item.scp_role}" for item in information.role_selection.values()
    ]
    more += ["extended" for _ in information.ext_neg]
    more += ["identity"] if information.user_identity is not None else []
    return " ".join(["accept", *results, *more])


def transcript(address: tuple[str, int], script: Script) -> list[str]:
    """What comes back until an end that either side has made."""
    with RawPeer(address) as peer:
        heard = []
        if script.request is not None:
            peer.send(script.request)
            heard.append(next_words(peer))
        for step in script.steps:
            if heard and heard[-1].startswith(ENDS):
                return heard
            if step == ANSWER:
                heard.append(next_words(peer))
                continue
            with contextlib.suppress(ConnectionError):  # what made it end is still to be read
                peer.send(step)
        while not heard or not heard[-1].startswith(ENDS):
            heard.append(next_words(peer))
        return heard


def next_words(peer: RawPeer) -> str:
    """Of the next PDU, or of the next response, which may come in several."""
    command = b""
    while True:
        try:
            pdu = peer.read_pdu()
        except ConnectionResetError:
            return "closed"
        except TimeoutError:
            return "silence"
        if not pdu:
            return "closed"
        if pdu[0] != 4:
            return words(pdu)
        command += pdu[12:]
        if pdu[11] & LAST:
            response = decode(BytesIO(command), True, True)
            return (
                f"{response.CommandField:04X} to {response.MessageIDBeingRespondedTo}: "
                f"{response.Status:04X}"
            )


def item(kind: type[Any], **values: object) -> Any:
    made = kind()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def pieces(content: bytes, kind: int, every: int) -> bytes:
    """P-DATA-TF PDUs of so many bytes of a message each."""
    starts = range(0, len(content), every)
    return b"".join(
        p_data((1, kind | (LAST if start == starts[-1] else 0), content[start : start + every]))
        for start in starts
    )


STORED, ECHOED = "8001 to 7: 0000", "8030 to 9: 0000"
ACCEPT, RELEASED, BY_USER = "accept 0 0", "release-rp", "abort by user"
REASON: Final = "pynetdicom's state machine, which we keep, gives no reason"
WINDOW = item(
    AsynchronousOperationsWindowNegotiation,
    maximum_number_operations_invoked=8,
    maximum_number_operations_performed=8,
)
EXTENDED = item(
    SOPClassExtendedNegotiation,
    sop_class_uid=UID(CT),
    service_class_application_information=b"\2\0\3\0\0\0",
)
COMMON = item(
    SOPClassCommonExtendedNegotiation,
    sop_class_uid=UID(CT),
    service_class_uid=UID("1.2.840.10008.4.2"),
)
ROLE = item(SCP_SCU_RoleSelectionNegotiation, sop_class_uid=UID(CT), scu_role=True, scp_role=False)
IDENTITY = item(
    UserIdentityNegotiation,
    user_identity_type=2,
    primary_field=b"user",
    secondary_field=b"secret",
    positive_response_requested=True,
)
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
OTHER_VERSION = bytearray(associate_request())
OTHER_VERSION[6:8] = b"\0\2"
EVEN_ID = associate_request().replace(b"\1\0\0\0\x30", b"\2\0\0\0\x30", 1)
"""Of its first context, before the abstract syntax."""

SCRIPTS: Final = {
    "a store": Script(steps=[STORE, ANSWER, RELEASE_RQ], expected=[ACCEPT, STORED, RELEASED]),
    "a message in one PDU": Script(
        steps=[
            p_data((1, COMMAND | LAST, store_command()), (1, LAST, DATASET)),
            ANSWER,
            RELEASE_RQ,
        ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "many PDVs in a PDU": Script(
        steps=[
            p_data(
                *((1, COMMAND, store_command()[:30]), (1, COMMAND | LAST, store_command()[30:])),
                *((1, 0, DATASET[:10]), (1, 0, DATASET[10:20]), (1, LAST, DATASET[20:])),
            ),
            ANSWER,
            RELEASE_RQ,
        ],
        expected=[ACCEPT, STORED, RELEASED],
        differs={"dcmtk": ((), "signal 11 ends release 3.6.7")},
    ),
    "a command and data in single bytes": Script(
        steps=[
            pieces(store_command(), COMMAND, 1) + pieces(DATASET, 0, 1),
            ANSWER,
            RELEASE_RQ,
        ],
        expected=[ACCEPT, STORED, RELEASED],
        differs={"dcmtk": ([ACCEPT, BY_USER], "it wants fragments of even length: we take any")},
    ),
    "a command and data two bytes at a time": Script(
        steps=[
            pieces(store_command(), COMMAND, 2) + pieces(DATASET, 0, 2),
            ANSWER,
            RELEASE_RQ,
        ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "an empty last PDV": Script(
        steps=[
            p_data((1, COMMAND | LAST, store_command()), (1, 0, DATASET)) + p_data((1, LAST, b"")),
            ANSWER,
            RELEASE_RQ,
        ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "two messages in a PDU": Script(
        steps=[
            p_data((3, COMMAND | LAST, echo_command()), (3, COMMAND | LAST, echo_command())),
            ANSWER,
            RELEASE_RQ,
        ],
        expected=[ACCEPT, ECHOED, ECHOED, RELEASED],
        differs={"pynetdicom": ([ACCEPT, ECHOED, RELEASED], "it loses the second")},
    ),
    "echoes between stores": Script(
        steps=[STORE, ANSWER, ECHO, ANSWER, STORE, ANSWER, ECHO, ANSWER, RELEASE_RQ],
        expected=[ACCEPT, STORED, ECHOED, STORED, ECHOED, RELEASED],
    ),
    "a cancel request": Script(
        steps=[p_data((1, COMMAND | LAST, CANCEL)), STORE, ANSWER, RELEASE_RQ],
        expected=[ACCEPT, STORED, RELEASED],
        differs={
            "dcmtk": ([ACCEPT, BY_USER], "a late C-CANCEL is no reason to lose the association")
        },
    ),
    "the longest PDU": Script(
        steps=[
            p_data((1, COMMAND | LAST, store_command())) + pieces(LONG, 0, MAX_PDU - 6),
            ANSWER,
            RELEASE_RQ,
        ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "a PDU longer than was announced": Script(
        steps=[
            p_data((1, COMMAND | LAST, store_command())) + pieces(LONG, 0, MAX_PDU + 90),
            ANSWER,
            RELEASE_RQ,
        ],
        expected=[ACCEPT, "abort by provider 6"],
        differs={
            "pynetdicom": ([ACCEPT, STORED, RELEASED], "it has no bound"),
            "dcmtk": ([ACCEPT, BY_USER], "whoever aborts: a provider can say why"),
        },
    ),
    "a peer that takes short PDUs": Script(
        request=associate_request(max_pdu=64),
        steps=[STORE, ANSWER, RELEASE_RQ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "a peer that takes PDUs of any length": Script(
        request=associate_request(max_pdu=0),
        steps=[STORE, ANSWER, RELEASE_RQ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "a release at once": Script(steps=[RELEASE_RQ], expected=[ACCEPT, RELEASED]),
    "a release response that nobody asked for": Script(
        steps=[RELEASE_RP],
        expected=[ACCEPT, "abort by provider 0"],
        differs={"dcmtk": ([ACCEPT, "abort by provider 2"], REASON)},
    ),
    "a release and at once the response to another": Script(
        steps=[RELEASE_RQ + RELEASE_RP],
        expected=[ACCEPT, RELEASED],
        differs={"pynetdicom": ((), "an exception ends its thread")},
    ),
    "a release twice": Script(
        steps=[RELEASE_RQ + RELEASE_RQ],
        expected=[ACCEPT, RELEASED],
        differs={"pynetdicom": ((), "an exception ends its thread")},
    ),
    "an abort": Script(steps=[ABORT], expected=[ACCEPT, "closed"]),
    "an abort inside of an instance": Script(
        steps=[p_data((1, COMMAND | LAST, store_command()), (1, 0, DATASET[:20])) + ABORT],
        expected=[ACCEPT, "closed"],
    ),
    "a release inside of an instance": Script(
        steps=[p_data((1, COMMAND | LAST, store_command()), (1, 0, DATASET[:20])) + RELEASE_RQ],
        expected=[ACCEPT, RELEASED],
    ),
    "an operations window": Script(
        request=associate_request(items=[WINDOW]),
        steps=[RELEASE_RQ],
        expected=[ACCEPT + " window 1/1", RELEASED],
        differs={
            name: ([ACCEPT, RELEASED], "silence means 1/1 too (PS3.7 D.3.3.3): we say it")
            for name in ("pynetdicom", "dcmtk")
        },
    ),
    "extended negotiation": Script(
        request=associate_request(items=[EXTENDED]),
        steps=[STORE, ANSWER, RELEASE_RQ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "common extended negotiation": Script(
        request=associate_request(items=[COMMON]),
        steps=[STORE, ANSWER, RELEASE_RQ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "a role": Script(
        request=associate_request(items=[ROLE]),
        steps=[STORE, ANSWER, RELEASE_RQ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "a user identity": Script(
        request=associate_request(items=[IDENTITY]),
        steps=[STORE, ANSWER, RELEASE_RQ],
        expected=[ACCEPT, STORED, RELEASED],
    ),
    "classes and syntaxes that nobody has": Script(
        request=associate_request(
            [("1.2.3.4", (IMPLICIT,)), (CT, ("1.2.3.5",)), (CT, (EXPLICIT,))]
        ),
        steps=[RELEASE_RQ],
        expected=["accept 0 0 0", RELEASED],
        differs={
            name: (["accept 3 4 0", RELEASED], "they know a list; we keep what is private as it is")
            for name in ("pynetdicom", "dcmtk")
        },
    ),
    "a service that is none of storage": Script(
        request=associate_request([(FIND, (IMPLICIT,)), (CT, (EXPLICIT,))]),
        steps=[RELEASE_RQ],
        expected=["accept 3 0", RELEASED],
    ),
    "another application": Script(
        request=associate_request().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"),
        steps=[RELEASE_RQ],
        expected=["reject 1 1 2"],
        differs={"pynetdicom": ([ACCEPT, RELEASED], "it accepts any")},
    ),
    "another protocol version": Script(request=bytes(OTHER_VERSION), expected=["reject 1 2 2"]),
    "a context of an even ID": Script(
        request=EVEN_ID,
        expected=[BY_USER],
        differs={
            "pynetdicom": ((), "a ValueError ends its thread"),
            "dcmtk": ([ACCEPT, "silence"], "PS3.8 9.3.2.2 has odd ones only"),
        },
    ),
    "data before an association": Script(request=None, steps=[ECHO], expected=[BY_USER]),
    "a release before an association": Script(request=None, steps=[RELEASE_RQ], expected=[BY_USER]),
    "an unknown PDU": Script(
        steps=[UNKNOWN_PDU],
        expected=[ACCEPT, "abort by provider 0"],
        differs={"dcmtk": ([ACCEPT, BY_USER], "AA-8 is an abort by the provider")},
    ),
    "a second request": Script(
        steps=[associate_request()],
        expected=[ACCEPT, "abort by provider 0"],
        differs={"dcmtk": ([ACCEPT, "abort by provider 2"], REASON)},
    ),
    "a context that was not proposed": Script(
        steps=[p_data((9, COMMAND | LAST, echo_command()))],
        expected=[ACCEPT, "abort by provider 6"],
        differs={
            name: ([ACCEPT, BY_USER], "a provider can say why") for name in ("pynetdicom", "dcmtk")
        },
    ),
    "data without a command": Script(
        steps=[p_data((1, LAST, DATASET))],
        expected=[ACCEPT, BY_USER],
        differs={
            "pynetdicom": (
                [ACCEPT, "abort by provider 0"],
                "either is right: the message is wrong, no PDU",
            )
        },
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_answers_are_those_of_others_but_for_what_is_meant(
    implementations: dict[str, tuple[str, int]], name: str
) -> None:
    script = SCRIPTS[name]
    for implementation, address in implementations.items():
        expected, _ = script.differs.get(implementation, (script.expected, ""))
        if expected:
            assert transcript(address, script) == list(expected), implementation
