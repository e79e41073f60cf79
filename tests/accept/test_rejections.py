"""Who is turned away is told why, and the log says who came and what became of it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.pdu_items import UserIdentitySubItemAC
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from scp import tls
from scp.config.network import ListenerSection, ListenerTls, User
from scp.config.schema import AccessSection, Peer
from scp.config.secrets import Secret
from scp.errors import StorageFullError
from tests.accept.raw_peer import CT, EXPLICIT, RawPeer, associate_request, store_message
from tests.accept.stores import MemoryStore, Node, eventually, serving
from tests.accept.test_tls import TlsPeer
from tests.certificates import Authority


def answer_to(address: tuple[str, int], request: bytes) -> tuple[int, int, int] | None:
    """Result, source and reason of the rejection; None where there is none."""
    with RawPeer(address) as peer:
        peer.send(request)
        encoded = peer.read_pdu()
        if encoded[:1] == b"\2":
            return None
        rejection = A_ASSOCIATE_RJ()
        rejection.decode(encoded)
        assert rejection.result is not None
        assert rejection.source is not None
        assert rejection.reason_diagnostic is not None
        return rejection.result, rejection.source, rejection.reason_diagnostic


def audits(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The lines about associations, without their times."""
    names = (
        *("calling", "called", "address", "tls", "certificate", "user"),
        *("contexts", "instances", "bytes", "refused"),
    )
    return [
        {"ending": record.getMessage().partition("association over: ")[2]}
        | {name: vars(record)[name] for name in names if name in vars(record)}
        for record in caplog.records
        if record.getMessage().startswith("association over: ")
    ]


def identity(name: bytes, passcode: bytes | None = None, *, kind: int = 0) -> Any:
    item = UserIdentityNegotiation()
    item.user_identity_type = kind or (1 if passcode is None else 2)
    item.primary_field = name
    item.secondary_field = passcode or b""
    item.positive_response_requested = True
    return item


def test_another_application_than_dicom_is_rejected_for_good() -> None:
    request = associate_request().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")

    with serving() as node:
        assert answer_to(node.address, request) == (1, 1, 2)


def test_a_peer_may_call_only_what_its_entry_says() -> None:
    access = AccessSection(peers=(Peer(ae_title="CT1", called_ae_titles=("RESEARCH",)),))

    with serving(access=access) as node:
        answers = [
            answer_to(node.address, associate_request(calling=calling, called=called))
            for calling, called in [("CT1", "RESEARCH"), ("CT1", "CLINIC"), ("CT2", "CLINIC")]
        ]

    assert answers == [None, (1, 1, 7), None]


def test_what_an_entry_of_the_list_says_holds_for_its_peers_alone() -> None:
    small = Peer(ae_title="SMALL", max_pdu_bytes=4096, max_instance_bytes=100, idle_seconds=0.3)

    with (
        serving(access=AccessSection(peers=(small,)), idle_seconds=30) as node,
        RawPeer(node.address) as peer,
        RawPeer(node.address) as other,
    ):
        announced = [
            each.associate(associate_request(calling=title)).user_information
            for each, title in ((peer, "SMALL"), (other, "OTHER"))
        ]
        statuses = []
        for each in (peer, other):
            each.send(store_message(bytes(200)))
            statuses.append(each.read_response().Status)
        assert peer.read_pdu()[0] == 7
        other.release()

    assert [each and each.maximum_length for each in announced] == [4096, 131072]
    assert statuses == [0xA700, 0]


def test_a_user_identity_is_refused_where_the_configuration_says_so() -> None:
    with serving(access=AccessSection(user_identity="refuse")) as node:
        assert answer_to(node.address, associate_request(items=[identity(b"anna")])) == (1, 2, 1)
        assert answer_to(node.address, associate_request()) is None


def test_a_user_is_recognised_by_name_and_passcode_and_told_so(tmp_path: Path) -> None:
    (tmp_path / "passcode").write_text("secret")
    users = (User(name="otto", passcode=Secret(file=tmp_path / "passcode")),)

    with serving(access=AccessSection(user_identity="required", users=users)) as node:
        rejected = [
            answer_to(node.address, associate_request(items=items))
            for items in ([], [identity(b"otto")], [identity(b"otto", b"wrong")])
        ]
        with RawPeer(node.address) as peer:
            accept = peer.associate(associate_request(items=[identity(b"otto", b"secret")]))
            peer.release()

    assert rejected == [(1, 2, 1)] * 3
    assert accept.user_information is not None
    answered = accept.user_information.user_identity
    assert isinstance(answered, UserIdentitySubItemAC)
    assert answered.server_response == b""


def test_an_address_has_no_more_associations_than_it_may() -> None:
    with serving(max_associations_per_address=2) as node:
        with RawPeer(node.address) as first, RawPeer(node.address) as second:
            first.associate()
            second.associate()
            too_many = answer_to(node.address, associate_request())
            first.release()
        assert eventually(lambda: node.listener.open_associations == 0)
        again = answer_to(node.address, associate_request())

    assert (too_many, again) == ((2, 3, 2), None)


def test_an_entry_of_the_list_has_no_more_associations_than_it_may() -> None:
    access = AccessSection(peers=(Peer(ae_title="CT1", max_associations=1),))
    ct1, other = (associate_request(calling=title) for title in ("CT1", "OTHER"))

    with serving(access=access) as node:
        with RawPeer(node.address) as first:
            first.associate(ct1)
            while_open = [answer_to(node.address, request) for request in (ct1, other)]
            first.release()
        assert eventually(lambda: node.listener.open_associations == 0)
        afterwards = answer_to(node.address, ct1)

    assert while_open == [(2, 3, 2), None]
    assert afterwards is None


def test_a_peer_beyond_all_places_is_rejected_when_it_has_waited() -> None:
    with (
        serving(max_associations=2, busy_seconds=0.3) as node,
        RawPeer(node.address) as first,
        RawPeer(node.address) as second,
    ):
        first.associate()
        second.associate()
        with ThreadPoolExecutor(5) as pool:
            answers = list(
                pool.map(lambda _: answer_to(node.address, associate_request()), range(5))
            )
        first.send(store_message(b"data"))
        assert first.read_response().Status == 0
        first.release()
        first.socket.close()
        assert eventually(lambda: node.listener.open_associations == 1)
        afterwards = answer_to(node.address, associate_request())

    assert answers == [(2, 3, 2)] * 5
    assert afterwards is None


def test_one_line_says_who_came_and_what_became_of_it(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    access = AccessSection(
        anyone=False,
        peers=(Peer(ae_title="CT1"),),
        user_identity="optional",
        users=(User(name="anna"),),
    )
    store = MemoryStore()
    contexts = ((CT, (EXPLICIT,)), ("1.2.840.10008.5.1.4.1.2.2.1", (EXPLICIT,)))

    with serving(store, access=access) as node:
        with RawPeer(node.address) as peer:
            peer.associate(associate_request(contexts, calling="CT1", items=[identity(b"anna")]))
            for error in (None, StorageFullError("full")):
                store.commit_error = error
                peer.send(store_message(b"data", instance="2.25.9"))
                peer.read_response()
            peer.release()
        assert eventually(lambda: len(audits(caplog)) == 1)
        answer_to(node.address, associate_request(calling="CT2"))
        assert eventually(lambda: len(audits(caplog)) == 2)
        with RawPeer(node.address) as peer:
            peer.send(b"GET / HTTP/1.1")
            peer.read_until_closed()
        assert eventually(lambda: len(audits(caplog)) == 3)

    here = {"called": "ANY", "address": "127.0.0.1"}
    nothing = {"instances": 0, "bytes": 0, "refused": 0}
    first, second, third = audits(caplog)
    assert first == {
        "ending": "released",
        "calling": "CT1",
        **here,
        "user": "anna",
        "contexts": "1/2",
        "instances": 1,
        "bytes": 4,
        "refused": 1,
    }
    assert second == {
        "ending": "rejected: calling AE title not recognised",
        "calling": "CT2",
        **here,
        **nothing,
    }
    assert third["ending"].startswith("aborted: a PDU of ")
    assert not any("2.25.9" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("M\u00fcller", "M\u00fcller"),
        ("a\n\x1b[2Jb\u202ec", "a\ufffd\ufffd[2Jb\ufffdc"),
        (16_000 * "u", 64 * "u" + "..."),
    ],
)
def test_the_line_takes_of_a_users_name_what_is_legible(
    caplog: pytest.LogCaptureFixture, name: str, said: str
) -> None:
    caplog.set_level(logging.INFO)

    with serving() as node:
        answer_to(node.address, associate_request(items=[identity(name.encode())]))
        assert eventually(lambda: len(audits(caplog)) == 1)

    assert audits(caplog)[0]["user"] == said


def test_the_line_names_the_certificate_that_a_peer_is_recognised_by(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    authority = Authority(tmp_path)
    certificate, key = authority.issue()
    pair = ListenerTls(
        certificate=certificate, key=key, ca=authority.file, client_certificate="required"
    )
    access = AccessSection(
        anyone=False, peers=(Peer(ae_title="CT1", certificate_name="CT1.example"),)
    )

    def sent(node: Node, name: str) -> int:
        theirs, their_key = authority.issue(name)
        context = tls.client_context(
            ca=authority.file, certificate=theirs, key=their_key, check_host=True
        )
        with TlsPeer(node.address, context) as peer:
            peer.send(associate_request(calling="CT1"))
            answer = peer.read_pdu()[0]
        assert eventually(lambda: node.listener.open_associations == 0)
        return answer

    with serving(access=access, ports=[ListenerSection(port=0, tls=pair)]) as node:
        answers = [sent(node, name) for name in ("ct1.example", "ct2.example")]

    assert answers == [2, 3]
    good, bad = audits(caplog)
    assert (good["certificate"], bad["certificate"]) == ("ct1.example", "ct2.example")
    assert good["tls"].startswith("TLSv1.3 TLS_AES_")
    assert bad["ending"] == "rejected: calling AE title not recognised"
