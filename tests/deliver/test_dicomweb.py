"""STOW-RS: what each answer means, how one logs in, which form is sent."""

import base64
import contextlib
import hashlib
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
import trustme
from pydicom.uid import RLELossless

from scp.config.remote import DicomwebDestination as Section
from scp.deliver.dicomweb import DicomwebDestination, client_of
from scp.deliver.ports import DecodeForPeer, Receipt, Verdict
from scp.deliver.qido import has_instance, instances_of
from scp.deliver.refusals import ALONE_SECONDS, Refusals
from scp.deliver.web import LONGEST_PAUSE
from scp.errors import DeliveryError, PeerRejectedError, PeerUnavailableError
from scp.model import DeliveryItem
from tests.deliver.files import (
    EXPLICIT,
    RLE,
    ct_items,
    dataset_bytes,
    decoder,
    item_for,
    lossy_item,
    no_decoder,
    rle_item,
    save,
)
from tests.deliver.web_peer import Answer, WebPeer


def section_of(peer: WebPeer, **more: Any) -> Section:
    values = {"answer_seconds": 10.0, "connect_seconds": 10.0, **more}
    return Section.model_validate({"kind": "dicomweb", "url": peer.url, **values})


def deliver(
    peer: WebPeer, items: list[DeliveryItem], decode: DecodeForPeer = no_decoder, **more: Any
) -> list[Receipt]:
    destination = DicomwebDestination("web", section_of(peer, **more), decode)
    return list(destination.deliver(items, lambda: False))


def always(answer: Answer) -> Callable[[int], Answer]:
    return lambda number: answer


def encoded_items(folder: Path, count: int) -> list[DeliveryItem]:
    """Slices that came in RLE."""
    items = []
    for native in ct_items(folder, count):
        dataset = pydicom.dcmread(native.path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        items.append(item_for(save(dataset, folder / f"rle-{native.instance}")))
    return items


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "verdict", "status"),
    [
        ("stored", Verdict.DELIVERED, "0000"),
        ("xml", Verdict.DELIVERED, "0000"),
        ("silent", Verdict.DELIVERED, ""),
        ("warning B000", Verdict.WARNING, "B000"),
        ("warning B007", Verdict.WARNING, "B007"),
        ("reason 0111", Verdict.ALREADY_THERE, "0111"),
        ("reason B00E", Verdict.ALREADY_THERE, "B00E"),
        ("reason A700", Verdict.TRANSIENT, "A700"),
        ("reason A900", Verdict.REFUSED, "A900"),
        ("reason 0122", Verdict.REFUSED, "0122"),
        ("reason 0110", Verdict.LIMITED, "0110"),
        ("reason C000", Verdict.LIMITED, "C000"),
        ("reason 0000", Verdict.LIMITED, "0000"),
        ("unnamed 0110", Verdict.LIMITED, "0110"),
        ("nothing", Verdict.LIMITED, ""),
        ("page", Verdict.LIMITED, ""),
        (400, Verdict.LIMITED, ""),
        (413, Verdict.REFUSED, ""),
        (500, Verdict.LIMITED, ""),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_what_an_answer_means_for_each_instance(
    answer: Answer, verdict: Verdict, status: str, count: int, tmp_path: Path
) -> None:
    with WebPeer(answer=always(answer)) as peer:
        receipts = deliver(peer, ct_items(tmp_path, count))

    assert [(r.verdict, r.status) for r in receipts] == [(verdict, status)] * count
    assert all(r.detail or r.verdict is Verdict.DELIVERED for r in receipts)


def test_409_without_a_word_is_already_there_when_a_search_finds_it(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path, 1)
    with WebPeer() as peer:
        deliver(peer, [item])
        peer.answer = always("page")

        (receipt,) = deliver(peer, [item])
        (conflict,) = deliver(peer, [replace(item, is_conflict=True)])

    assert receipt.verdict is Verdict.ALREADY_THERE
    assert conflict.verdict is Verdict.HELD
    assert conflict.detail == "duplicate_refused: the server answers 409"


def test_409_without_a_word_of_a_server_that_cannot_be_searched_is_already_there(
    tmp_path: Path,
) -> None:
    with WebPeer(answer=always("page"), searches=False) as peer:
        (receipt,) = deliver(peer, ct_items(tmp_path, 1))

    assert receipt.verdict is Verdict.ALREADY_THERE


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_a_server_that_lets_nobody_in_rejects_everything(status: int, tmp_path: Path) -> None:
    with (
        WebPeer(answer=always(status)) as peer,
        pytest.raises(PeerRejectedError, match=str(status)),
    ):
        deliver(peer, ct_items(tmp_path, 3))


@pytest.mark.parametrize("answer", ["close", "half", 429, 503])
def test_a_server_that_answers_nobody_is_left_alone_soon(answer: Answer, tmp_path: Path) -> None:
    receipts: list[Receipt] = []
    with WebPeer(answer=always(answer)) as peer:
        destination = DicomwebDestination("web", section_of(peer), no_decoder)
        with pytest.raises(PeerUnavailableError):
            receipts.extend(destination.deliver(ct_items(tmp_path, 5), lambda: False))
        assert len(peer.requests) == 3

    assert peer.stored == {}


NOON = "Mon, 05 Jan 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("said", "date", "seconds"),
    [
        ("120", None, 120.0),
        ("0", None, 0.0),
        ("9" * 400, None, LONGEST_PAUSE),
        ("Mon, 05 Jan 2026 12:02:00 GMT", NOON, 120.0),
        ("Mon, 05 Jan 2026 11:00:00 GMT", NOON, 0.0),
        ("Mon, 05 Jan 2099 12:02:00 GMT", "", LONGEST_PAUSE),
        ("Mon, 99 Jan 2026", NOON, 0.0),
        ("-5", None, 0.0),
        ("soon", None, 0.0),
        ("\xb2", None, 0.0),
    ],
)
def test_a_server_says_when_to_come_again(
    said: str, date: str | None, seconds: float, tmp_path: Path
) -> None:
    with WebPeer(answer=always(503), retry_after=said, date=date) as peer:
        with pytest.raises(PeerUnavailableError, match="answers 503") as raised:
            deliver(peer, ct_items(tmp_path, 2))
        with pytest.raises(DeliveryError) as probed:
            DicomwebDestination("web", section_of(peer), no_decoder).check()

    assert raised.value.retry_after == seconds
    # Who does not say may only have no search: what is sent is to be tried all the same.
    assert isinstance(probed.value, PeerUnavailableError) == (seconds > 0)
    assert getattr(probed.value, "retry_after", 0.0) == seconds


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_says_when_to_come_again_is_asked_nothing_more(
    status: int, count: int, tmp_path: Path
) -> None:
    receipts: list[Receipt] = []
    with WebPeer(answer=always(status), retry_after="60") as peer:
        destination = DicomwebDestination("web", section_of(peer), no_decoder)
        with pytest.raises(PeerUnavailableError, match="wants to be left alone for 60 s"):
            receipts.extend(destination.deliver(ct_items(tmp_path, count), lambda: False))

    assert len(peer.requests) == 1
    assert [(r.verdict, r.offers) for r in receipts] == [(Verdict.TRANSIENT, 1)] * count


def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with WebPeer(answer=always("silence")) as peer:
        receipts: list[Receipt] = []
        destination = DicomwebDestination("web", section_of(peer, answer_seconds=0.3), no_decoder)
        with pytest.raises(PeerUnavailableError, match="timeout"):
            receipts.extend(destination.deliver(ct_items(tmp_path, 2), lambda: False))

    assert [r.verdict for r in receipts] == [Verdict.TRANSIENT] * 2


def test_one_instance_that_breaks_the_connection_does_not_keep_the_others(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 4)

    def answer(number: int) -> Answer:
        return "half" if number in (0, 2) else "stored"  # All together, then the second alone.

    with WebPeer(answer=answer) as peer:
        receipts = deliver(peer, items)

    done, lost = Verdict.DELIVERED, Verdict.TRANSIENT
    assert [r.verdict for r in receipts] == [done, lost, done, done]
    assert len(peer.stored) == 3


# -- how often it was sent -------------------------------------------------------------------------


def test_what_was_sent_with_others_and_then_alone_was_sent_twice(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 3)

    with WebPeer(answer=lambda number: "stored" if number else "close") as peer:
        receipts = deliver(peer, items)

    uids = [item.identity.sop_instance_uid for item in items]
    assert [r.offers for r in receipts] == [peer.offered[uid] for uid in uids] == [2, 2, 2]


def test_each_form_that_was_sent_counts(tmp_path: Path) -> None:
    items = encoded_items(tmp_path, 2)

    with WebPeer(refuses=lambda syntax: syntax == RLE) as peer:
        receipts = deliver(peer, items, decoder(tmp_path))

    # Together and refused; then alone, as nobody knew that when they were sent.
    uids = [item.identity.sop_instance_uid for item in items]
    assert [r.offers for r in receipts] == [peer.offered[uid] for uid in uids] == [2, 2]


def test_what_was_sent_with_others_has_a_receipt_also_where_the_server_is_left_alone_then(
    tmp_path: Path,
) -> None:
    items = ct_items(tmp_path, 5)
    receipts: list[Receipt] = []

    with WebPeer(answer=always("close")) as peer:
        destination = DicomwebDestination("web", section_of(peer), no_decoder)
        with pytest.raises(PeerUnavailableError):
            receipts.extend(destination.deliver(items, lambda: False))

    uids = [item.identity.sop_instance_uid for item in items]
    assert [r.verdict for r in receipts] == [Verdict.TRANSIENT] * 5
    assert [r.offers for r in receipts] == [peer.offered[uid] for uid in uids] == [2, 2, 1, 1, 1]


def test_what_was_sent_with_others_has_a_receipt_also_where_the_node_stops_then(
    tmp_path: Path,
) -> None:
    with WebPeer(answer=always("close")) as peer:
        destination = DicomwebDestination("web", section_of(peer), no_decoder)
        receipts = list(destination.deliver(ct_items(tmp_path, 2), lambda: bool(peer.requests)))

    assert [(r.verdict, r.offers) for r in receipts] == [(Verdict.TRANSIENT, 1)] * 2


# -- what is sent ----------------------------------------------------------------------------------


def test_instances_are_sent_together_up_to_a_size(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 5)
    size = items[0].path.stat().st_size

    with WebPeer() as peer:
        deliver(peer, items, max_request_bytes=2 * size + 100)

    assert [len(parts) for parts in peer.requests] == [2, 2, 1]


def test_the_same_uid_is_not_sent_twice_in_one_request(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 2)

    with WebPeer() as peer:
        receipts = deliver(peer, [items[0], items[1], items[0]])

    assert len(receipts) == 3
    assert [len(parts) for parts in peer.requests] == [2, 1]


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [(False, "application/dicom"), (True, f"application/dicom; transfer-syntax={EXPLICIT}")],
)
def test_parts_name_their_transfer_syntax_where_that_is_wanted(
    parameter: bool, expected: str, tmp_path: Path
) -> None:
    with WebPeer() as peer:
        deliver(peer, ct_items(tmp_path, 2), transfer_syntax_parameter=parameter)

    assert peer.requests == [[expected, expected]]


def test_a_syntax_that_is_refused_is_replaced_by_the_original(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=True)

    with WebPeer(refuses=lambda syntax: syntax == RLE) as peer:
        (receipt,) = deliver(peer, [item])

    assert (receipt.verdict, receipt.transfer_syntax) == (Verdict.DELIVERED, EXPLICIT)
    assert peer.stored[item.identity.sop_instance_uid] == [item.original.read_bytes()]


def test_an_original_that_is_not_what_was_received_is_not_sent_instead(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=True)
    received = hashlib.sha256(dataset_bytes(item.original)).hexdigest()
    item = replace(item, original_dataset_sha256=received)

    with WebPeer(refuses=lambda syntax: syntax == RLE) as peer:
        (whole,) = deliver(peer, [item])
        content = bytearray(item.original.read_bytes())
        content[-1] ^= 1
        item.original.write_bytes(content)
        (rotten,) = deliver(peer, [item])

    assert whole.verdict is Verdict.DELIVERED
    assert rotten.verdict is Verdict.HELD
    assert rotten.detail.startswith("digest_mismatch")
    assert len(peer.stored[item.identity.sop_instance_uid]) == 1


def test_a_syntax_that_came_so_is_decoded_and_not_offered_again(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=False)
    copies = tmp_path / "copies"
    copies.mkdir()
    with WebPeer(refuses=lambda syntax: syntax == RLE) as peer:
        destination = DicomwebDestination("web", section_of(peer), decoder(copies))

        receipts = [*destination.deliver([item], lambda: False)]
        receipts += destination.deliver([item], lambda: False)

    assert [r.transfer_syntax for r in receipts] == [EXPLICIT] * 2
    assert len(peer.requests) == 3
    assert list(copies.iterdir()) == []


def test_what_one_lane_finds_refused_is_not_sent_by_another_until_a_person_asks_for_it(
    tmp_path: Path,
) -> None:
    items = [rle_item(tmp_path, original_is_native=True)]
    with WebPeer(refuses=lambda syntax: syntax == RLE) as peer:
        refusals = Refusals(tmp_path / "refused", "web")
        lanes = [
            DicomwebDestination("web", section_of(peer), no_decoder, refusals=refusals)
            for _ in range(2)
        ]
        sent = []
        for lane in (*lanes, lanes[0]):
            (receipt,) = lane.deliver(items, lambda: False)
            sent.append((receipt.verdict, receipt.transfer_syntax, receipt.offers))
        after = DicomwebDestination(
            "web", section_of(peer), no_decoder, refusals=Refusals(tmp_path / "refused", "web")
        )
        (again,) = after.deliver(items, lambda: False)  # As after a restart.
        peer.refuses = lambda syntax: False
        refusals.forget()
        (last,) = lanes[1].deliver(items, lambda: False)

    assert sent == [(Verdict.DELIVERED, EXPLICIT, 2), *[(Verdict.DELIVERED, EXPLICIT, 1)] * 2]
    assert (again.transfer_syntax, again.offers) == (EXPLICIT, 1)
    assert last.transfer_syntax == RLE


def test_what_was_refused_in_every_form_is_sent_again_after_a_while(tmp_path: Path) -> None:
    clock = [1_000_000.0]
    (item,) = ct_items(tmp_path, 1)
    with WebPeer(refuses=lambda syntax: True) as peer:
        refusals = Refusals(None, "web", wall=lambda: clock[0])
        destination = DicomwebDestination("web", section_of(peer), no_decoder, refusals=refusals)
        (first,) = destination.deliver([item], lambda: False)
        peer.refuses = lambda syntax: False
        (soon,) = destination.deliver([item], lambda: False)
        asked = len(peer.requests)
        clock[0] += ALONE_SECONDS
        receipts = [*destination.deliver([item], lambda: False)]
        clock[0] += 1.0
        receipts += destination.deliver([item], lambda: False)

    assert [first.verdict, soon.verdict] == [Verdict.REFUSED] * 2
    assert asked == 1
    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED] * 2


def test_a_lossy_original_that_is_refused_is_not_decoded_unasked(tmp_path: Path) -> None:
    item = lossy_item(tmp_path)
    with WebPeer(refuses=lambda syntax: syntax != EXPLICIT) as peer:
        (refused,) = deliver(peer, [item], decoder(tmp_path))
        (decoded,) = deliver(peer, [item], decoder(tmp_path), decode_lossy=True)

    assert refused.verdict is Verdict.REFUSED
    assert refused.detail.startswith("lossy_syntax_refused")
    assert (decoded.verdict, decoded.transfer_syntax) == (Verdict.DELIVERED, EXPLICIT)


def test_a_server_that_accepts_native_only_gets_copies_several_in_a_request(
    tmp_path: Path,
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    items = encoded_items(tmp_path, 3)
    with WebPeer() as peer:
        receipts = deliver(peer, items, decoder(copies), accepts=["native"])

    assert [(r.verdict, r.transfer_syntax) for r in receipts] == [(Verdict.DELIVERED, EXPLICIT)] * 3
    assert [len(parts) for parts in peer.requests] == [3]
    assert list(copies.iterdir()) == []


@pytest.mark.parametrize("answer", ["stored", "close", 500, 401])
@pytest.mark.parametrize("count", [1, 2])
def test_no_copy_is_left_whatever_the_server_answers(
    answer: Answer, count: int, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    with WebPeer(answer=always(answer)) as peer, contextlib.suppress(DeliveryError):
        deliver(peer, encoded_items(tmp_path, count), decoder(copies), accepts=["native"])

    assert peer.requests
    assert list(copies.iterdir()) == []


def test_an_instance_alone_is_decoded_once(tmp_path: Path) -> None:
    decode = decoder(tmp_path)
    decoded: list[str] = []

    def counted(item: DeliveryItem, transfer_syntax: str) -> Path:
        decoded.append(transfer_syntax)
        return decode(item, transfer_syntax)

    with WebPeer() as peer:
        deliver(peer, encoded_items(tmp_path, 1), counted, accepts=["ExplicitVRLittleEndian"])

    assert decoded == [EXPLICIT]


def test_nothing_is_decoded_for_a_server_that_is_down(tmp_path: Path) -> None:
    with WebPeer() as peer:
        pass

    with pytest.raises(PeerUnavailableError):
        deliver(peer, encoded_items(tmp_path, 2), no_decoder, accepts=["native"])


def test_what_the_configuration_does_not_accept_is_not_sent(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=True)
    with WebPeer() as peer:
        (original,) = deliver(peer, [item], accepts=["original"])
        (nothing,) = deliver(peer, [item], accepts=["htj2k"])

    assert (original.verdict, original.transfer_syntax) == (Verdict.DELIVERED, EXPLICIT)
    assert nothing.verdict is Verdict.REFUSED
    assert nothing.detail == "not_accepted: `accepts` names none of its transfer syntaxes"
    assert len(peer.requests) == 1


def test_what_no_form_of_is_taken_is_refused(tmp_path: Path) -> None:
    with WebPeer(refuses=lambda syntax: True) as peer:
        receipts = deliver(peer, ct_items(tmp_path, 2))

    assert [r.verdict for r in receipts] == [Verdict.REFUSED] * 2
    assert receipts[0].detail.startswith("transfer_syntax_refused")


def test_memory_is_bounded_whatever_is_sent(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 1, rows=4096)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        reader = threading.Thread(target=_read_everything, args=(listener,))
        reader.start()
        section = Section(kind="dicomweb", url=f"http://127.0.0.1:{listener.getsockname()[1]}/web")
        destination = DicomwebDestination("web", section, no_decoder)
        tracemalloc.start()
        try:
            receipts = list(destination.deliver(items, lambda: False))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            reader.join(10)

    assert items[0].path.stat().st_size > 2**25
    assert receipts[0].detail == "the server answers 413"
    assert peak < 2**22


def _read_everything(listener: socket.socket) -> None:
    """Take one request, and refuse it when all of it is there."""
    connection, _ = listener.accept()
    with connection:
        buffer = bytearray(2**16)
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(2**12)
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        left -= len(head.partition(b"\r\n\r\n")[2])
        while left:
            left -= connection.recv_into(buffer)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")


# -- logging in ------------------------------------------------------------------------------------


def test_a_user_logs_in_with_a_password_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    pair = base64.b64encode(b"gateway:s3cret").decode()
    with WebPeer(authorization=f"Basic {pair}") as peer:
        receipts = deliver(
            peer,
            ct_items(tmp_path, 2),
            user="gateway",
            password={"file": tmp_path / "password"},
        )

    assert [r.verdict for r in receipts] == [Verdict.DELIVERED] * 2


def test_a_token_is_read_anew_for_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    items = ct_items(tmp_path, 1)
    with WebPeer(authorization="Bearer new") as peer:
        destination = DicomwebDestination(
            "web", section_of(peer, token={"file": token}), no_decoder
        )
        with pytest.raises(PeerRejectedError, match="401"):
            list(destination.deliver(items, lambda: False))
        token.write_text("new")

        (receipt,) = destination.deliver(items, lambda: False)

    assert receipt.verdict is Verdict.DELIVERED


def test_a_secret_that_is_missing_makes_everything_wait(tmp_path: Path) -> None:
    with WebPeer() as peer:
        (receipt,) = deliver(peer, ct_items(tmp_path, 1), token={"file": tmp_path / "none"})

    assert receipt.verdict is Verdict.TRANSIENT
    assert receipt.detail.startswith("the secret in ")
    assert peer.requests == []


class Certificates:
    """An authority, and PEM files of what it signed."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.server)
        authority.configure_trust(self.server)
        client = authority.issue_cert("gateway.example", common_name="gateway")
        self.certificate, self.key = folder / "client.pem", folder / "client.key"
        for blob in client.cert_chain_pems:
            blob.write_to_path(str(self.certificate), append=True)
        client.private_key_pem.write_to_path(str(self.key))
        self.key.chmod(0o600)


def test_a_client_certificate_opens_a_server_that_asks_for_one(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificates.server.verify_mode = ssl.CERT_REQUIRED
    items = ct_items(tmp_path, 2)
    with WebPeer(tls=certificates.server) as peer:
        tls = {"ca": certificates.ca}
        with pytest.raises(PeerUnavailableError):
            deliver(peer, items, tls=tls)

        receipts = deliver(
            peer,
            items,
            tls={**tls, "certificate": certificates.certificate, "key": certificates.key},
        )

    assert [r.verdict for r in receipts] == [Verdict.DELIVERED] * 2


def test_a_server_whose_certificate_is_not_trusted_gets_nothing(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with WebPeer(tls=certificates.server) as peer:
        with pytest.raises(PeerUnavailableError, match=r"(?i)certificate"):
            deliver(peer, ct_items(tmp_path, 1))
        assert peer.requests == []


# -- searching -------------------------------------------------------------------------------------


def test_a_server_is_asked_which_instances_it_has(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 3)
    with WebPeer() as peer:
        deliver(peer, items)
        client = client_of(section_of(peer))

        found = list(instances_of(client, items[0].identity.study_instance_uid))

        uids = {item.identity.sop_instance_uid for item in items}
        assert set(found) == uids
        assert all(has_instance(client, uid) for uid in uids)
        assert not has_instance(client, "1.2.3")
        peer.searches = False
        with pytest.raises(DeliveryError, match="501"):
            has_instance(client, "1.2.3")
        client.close()


def test_a_server_that_gives_less_at_a_time_than_was_asked_for_is_asked_on(tmp_path: Path) -> None:
    with WebPeer(page=3) as peer:
        peer.stored.update({f"1.2.{number}": [b""] for number in range(8)})
        client = client_of(section_of(peer))

        found = list(instances_of(client, "1.2"))

        assert sorted(found) == sorted(peer.stored)
        client.close()
