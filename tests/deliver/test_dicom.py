"""What is sent to a DICOM node, and what its answers mean."""

import errno
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from scp.config.schema import DicomDestination as Section
from scp.deliver.dicom import DicomDestination
from scp.deliver.ports import DecodeForPeer, Receipt, Verdict
from scp.errors import (
    CodecError,
    ConversionError,
    DeliveryError,
    PeerUnavailableError,
    StorageFullError,
    WorkerLostError,
)
from scp.model import DeliveryItem
from tests.deliver.files import (
    CT,
    EXPLICIT,
    IMPLICIT,
    JPEG_BASELINE,
    RLE,
    ct_items,
    dataset_bytes,
    decoder,
    lossy_item,
    no_decoder,
    rle_item,
)
from tests.deliver.peers import HandPeer, storescp


def deliver(
    section: Section, items: Sequence[DeliveryItem], decode: DecodeForPeer = no_decoder
) -> list[Receipt]:
    return list(DicomDestination("peer", section, decode).deliver(items, lambda: False))


def only(*syntaxes: str) -> Callable[[str, str], bool]:
    return lambda sop_class, syntax: syntax in syntaxes


# -- forms -----------------------------------------------------------------------------------------


def test_the_dataset_on_the_wire_is_the_files_own_bytes(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 3)

    with HandPeer() as peer:
        receipts = deliver(peer.section(), items)

    assert [each.verdict for each in receipts] == [Verdict.DELIVERED] * 3
    assert [each.dataset for each in peer.stored] == [dataset_bytes(each.path) for each in items]
    assert [each.sop_instance_uid for each in peer.stored] == [
        each.identity.sop_instance_uid for each in items
    ]
    assert (peer.associations, peer.released) == (1, 1)


def test_the_wanted_form_goes_first(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=True)

    with HandPeer() as peer:
        (receipt,) = deliver(peer.section(), [item])

    assert receipt.transfer_syntax == peer.stored[0].transfer_syntax == RLE
    assert peer.stored[0].dataset == dataset_bytes(item.path)


def test_each_syntax_is_proposed_in_a_context_of_its_own(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=True)

    with HandPeer() as peer:
        deliver(peer.section(calling_ae_title="ME"), [item])

    assert peer.proposed == [(CT, RLE), (CT, EXPLICIT), (CT, IMPLICIT)]
    assert (peer.called, peer.calling) == ("HAND", "ME")


def test_a_refused_form_is_replaced_by_the_original(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=True)

    with HandPeer(accepts=only(EXPLICIT)) as peer:
        (receipt,) = deliver(peer.section(), [item])

    assert receipt.transfer_syntax == EXPLICIT
    assert peer.stored[0].dataset == dataset_bytes(item.original)


def test_what_the_peer_takes_in_no_form_that_we_have_is_decoded(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=False)

    with HandPeer(accepts=only(EXPLICIT, IMPLICIT)) as peer:
        (receipt,) = deliver(peer.section(), [item], decoder(tmp_path))

    assert receipt.transfer_syntax == peer.stored[0].transfer_syntax == EXPLICIT
    assert peer.stored[0].dataset == dataset_bytes(tmp_path / "000.dcm")
    assert not list(tmp_path.glob("decoded-*"))


def test_a_copy_that_cannot_be_deleted_changes_nothing_of_the_answer(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 2)

    def answer(number: int) -> int:
        copy = tmp_path / f"decoded-{items[number].instance}"
        copy.unlink()
        copy.mkdir()
        return 0x0000

    with HandPeer(answer, only(IMPLICIT)) as peer:
        receipts = deliver(peer.section(), items, decoder(tmp_path))

    assert [each.verdict for each in receipts] == [Verdict.DELIVERED] * 2


def test_a_native_original_is_rewritten_for_a_peer_that_takes_implicit_only(tmp_path: Path) -> None:
    item = ct_items(tmp_path, 1)[0]

    with HandPeer(accepts=only(IMPLICIT)) as peer:
        (receipt,) = deliver(peer.section(), [item], decoder(tmp_path))

    assert receipt.verdict is Verdict.DELIVERED
    assert peer.stored[0].transfer_syntax == IMPLICIT


def test_a_lossy_original_that_is_refused_is_held(tmp_path: Path) -> None:
    with HandPeer(accepts=only(EXPLICIT, IMPLICIT)) as peer:
        (receipt,) = deliver(peer.section(), [lossy_item(tmp_path)], decoder(tmp_path))

    assert receipt.verdict is Verdict.REFUSED
    assert receipt.detail == f"lossy_syntax_refused: {JPEG_BASELINE}"
    assert not peer.stored


def test_a_lossy_original_is_decoded_where_the_destination_allows_it(tmp_path: Path) -> None:
    with HandPeer(accepts=only(EXPLICIT)) as peer:
        section = peer.section(decode_lossy=True)
        (receipt,) = deliver(section, [lossy_item(tmp_path)], decoder(tmp_path))

    assert receipt.verdict is Verdict.DELIVERED
    assert peer.stored[0].transfer_syntax == EXPLICIT


def failing(error: Exception) -> DecodeForPeer:
    def decode(item: DeliveryItem, transfer_syntax: str) -> Path:
        raise error

    return decode


@pytest.mark.parametrize(
    ("error", "verdict", "detail"),
    [
        (ConversionError("not proved"), Verdict.HELD, "decode_failed: not proved"),
        (CodecError("no decoder for it"), Verdict.HELD, "decode_failed: no decoder for it"),
        (WorkerLostError("deadline"), Verdict.TRANSIENT, "decode_failed: deadline"),
        (StorageFullError("disk full"), Verdict.TRANSIENT, "no room to decode: disk full"),
        (OSError(errno.EROFS, "read-only"), Verdict.TRANSIENT, "decode_failed: read-only"),
    ],
)
def test_what_cannot_be_decoded_is_held_or_tried_again(
    tmp_path: Path, error: Exception, verdict: Verdict, detail: str
) -> None:
    compressed = rle_item(tmp_path / "rle", original_is_native=False)
    (native,) = ct_items(tmp_path / "ct", 1)

    with HandPeer(accepts=only(EXPLICIT)) as peer:
        receipts = deliver(peer.section(), [compressed, native], failing(error))

    assert [each.verdict for each in receipts] == [verdict, Verdict.DELIVERED]
    assert receipts[0].detail == detail
    assert (len(peer.stored), peer.associations) == (1, 1)


def test_a_node_that_stops_while_it_decodes_says_nothing_of_the_instance(tmp_path: Path) -> None:
    (native,) = ct_items(tmp_path / "ct", 1)
    compressed = rle_item(tmp_path / "rle", original_is_native=False)
    receipts: list[Receipt] = []

    with HandPeer(accepts=only(EXPLICIT)) as peer:
        decode = failing(PeerUnavailableError("the node stops"))
        destination = DicomDestination("peer", peer.section(), decode)
        with pytest.raises(PeerUnavailableError, match="the node stops"):
            receipts.extend(destination.deliver([native, compressed, native], lambda: False))

    assert [each.instance for each in receipts] == [native.instance]
    assert peer.associations == 1


def test_a_refused_sop_class_is_held_and_the_others_are_delivered(tmp_path: Path) -> None:
    other = ct_items(tmp_path, 1)[0]
    private = replace(other, identity=replace(other.identity, sop_class_uid="1.2.3.4.5"))

    with HandPeer(accepts=lambda sop_class, syntax: sop_class == CT) as peer:
        receipts = deliver(peer.section(), [private, other])

    assert [each.verdict for each in receipts] == [Verdict.REFUSED, Verdict.DELIVERED]
    assert receipts[0].detail.startswith("sop_class_refused")


def test_a_file_that_is_not_in_its_syntax_is_never_sent(tmp_path: Path) -> None:
    item = ct_items(tmp_path, 1)[0]
    mislabelled = replace(item, transfer_syntax=RLE, original_transfer_syntax=RLE)

    with HandPeer() as peer:
        (receipt,) = deliver(peer.section(), [mislabelled])

    assert receipt.verdict is Verdict.HELD
    assert not peer.stored


def test_an_answer_with_another_syntax_than_the_proposed_counts_as_refused(tmp_path: Path) -> None:
    class Swapping(HandPeer):
        def _accept(self, connection, body):  # type: ignore[no-untyped-def]
            swapped = body.replace(EXPLICIT.encode(), b"1.2.840.10008.1.2.9")
            return super()._accept(connection, swapped)

    with Swapping() as peer:
        (receipt,) = deliver(peer.section(), ct_items(tmp_path, 1), decoder(tmp_path))

    assert receipt.transfer_syntax == IMPLICIT
    assert peer.stored[0].transfer_syntax == IMPLICIT


@pytest.mark.parametrize("rows", [32, 1200], ids=["one window", "several windows"])
def test_a_file_that_is_not_what_was_committed_is_not_sent_to_its_end(
    tmp_path: Path, rows: int
) -> None:
    rotten, good = ct_items(tmp_path, 2, rows)
    content = bytearray(rotten.path.read_bytes())
    content[-1] ^= 1
    rotten.path.write_bytes(content)

    with HandPeer() as peer:
        receipts = deliver(peer.section(), [rotten, good])

    assert [each.verdict for each in receipts] == [Verdict.HELD, Verdict.DELIVERED]
    assert receipts[0].detail.startswith("digest_mismatch")
    assert [each.dataset for each in peer.stored] == [dataset_bytes(good.path)]
    assert (peer.associations, peer.released) == (2, 1)


def test_an_original_that_is_not_what_was_received_is_not_sent_instead(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=True)
    received = hashlib.sha256(dataset_bytes(item.original)).hexdigest()
    item = replace(item, original_dataset_sha256=received)

    with HandPeer(accepts=lambda _, syntax: syntax == EXPLICIT) as peer:
        (whole,) = deliver(peer.section(), [item])
        content = bytearray(item.original.read_bytes())
        content[-1] ^= 1
        item.original.write_bytes(content)
        (rotten,) = deliver(peer.section(), [item])

    assert whole.verdict is Verdict.DELIVERED
    assert rotten.verdict is Verdict.HELD
    assert rotten.detail.startswith("digest_mismatch")
    assert len(peer.stored) == 1


def test_the_meta_group_counts_too(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path, 1)
    content = item.path.read_bytes()
    item.path.write_bytes(b"another preamble".ljust(128) + content[128:])

    with HandPeer() as peer:
        (receipt,) = deliver(peer.section(), [item])

    assert receipt.verdict is Verdict.HELD
    assert not peer.stored


def test_what_no_digest_was_committed_of_is_sent(tmp_path: Path) -> None:
    (item,) = ct_items(tmp_path, 1)

    with HandPeer() as peer:
        (receipt,) = deliver(peer.section(), [replace(item, sha256="")])

    assert receipt.verdict is Verdict.DELIVERED


def test_more_contexts_than_one_association_holds_make_several(tmp_path: Path) -> None:
    item = ct_items(tmp_path, 1)[0]
    items = [
        replace(
            item,
            instance=str(number),
            identity=replace(item.identity, sop_class_uid=f"1.2.3.{number}"),
        )
        for number in range(1, 151)
    ]

    with HandPeer() as peer:
        receipts = deliver(peer.section(), items)

    assert [each.instance for each in receipts] == [each.instance for each in items]
    assert all(each.verdict is Verdict.DELIVERED for each in receipts)
    assert peer.associations == 3


def test_uids_that_cannot_be_sent_are_held_and_the_others_are_delivered(tmp_path: Path) -> None:
    item = ct_items(tmp_path, 1)[0]
    long = replace(item, identity=replace(item.identity, sop_class_uid="1." * 40 + "1"))
    odd = replace(item, identity=replace(item.identity, sop_instance_uid="1.2.\xe9"))

    with HandPeer() as peer:
        receipts = deliver(peer.section(), [long, item, odd])

    assert [each.verdict for each in receipts] == [Verdict.HELD, Verdict.DELIVERED, Verdict.HELD]


def test_a_missing_file_costs_only_its_own_instance(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 3)
    items[1].path.unlink()

    with HandPeer() as peer:
        receipts = deliver(peer.section(), items)

    verdicts = [each.verdict for each in receipts]
    assert verdicts == [Verdict.DELIVERED, Verdict.LIMITED, Verdict.DELIVERED]


# -- what the configuration says of a peer ---------------------------------------------------------


def test_only_what_the_configuration_accepts_is_proposed(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=True)

    with HandPeer() as peer:
        (receipt,) = deliver(peer.section(accepts=["native"]), [item])

    assert [syntax for _, syntax in peer.proposed] == [EXPLICIT, IMPLICIT]
    assert receipt.transfer_syntax == EXPLICIT
    assert peer.stored[0].dataset == dataset_bytes(item.original)


def test_a_peer_that_is_to_have_explicit_little_endian_gets_a_decoded_copy_each_time_the_same(
    tmp_path: Path,
) -> None:
    item = rle_item(tmp_path, original_is_native=False)

    with HandPeer() as peer:
        section = peer.section(accepts=["ExplicitVRLittleEndian"])
        receipts = [*deliver(section, [item], decoder(tmp_path))]
        receipts += deliver(section, [item], decoder(tmp_path))

    assert [each.transfer_syntax for each in receipts] == [EXPLICIT, EXPLICIT]
    assert peer.stored[0].dataset == peer.stored[1].dataset


def test_what_the_configuration_accepts_in_no_form_is_refused_without_a_call(
    tmp_path: Path,
) -> None:
    with HandPeer() as peer:
        receipts = deliver(peer.section(accepts=["htj2k"]), ct_items(tmp_path, 2))

    assert [each.verdict for each in receipts] == [Verdict.REFUSED] * 2
    assert receipts[0].detail.startswith("not_accepted: ")
    assert peer.associations == 0


def test_what_a_peer_refused_is_not_proposed_to_it_again(tmp_path: Path) -> None:
    item = rle_item(tmp_path, original_is_native=True)

    with HandPeer(accepts=only(EXPLICIT, IMPLICIT)) as peer:
        destination = DicomDestination("peer", peer.section(), no_decoder)
        for _ in range(2):
            (receipt,) = destination.deliver([item], lambda: False)
            assert receipt.verdict is Verdict.DELIVERED

    syntaxes = [syntax for _, syntax in peer.proposed]
    assert syntaxes == [RLE, EXPLICIT, IMPLICIT, EXPLICIT, IMPLICIT]


def test_a_refused_sop_class_costs_no_association_the_next_time(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 2)

    with HandPeer(accepts=only()) as peer:
        destination = DicomDestination("peer", peer.section(), no_decoder)
        receipts = [r for item in items for r in destination.deliver([item], lambda: False)]

    assert [each.verdict for each in receipts] == [Verdict.REFUSED] * 2
    assert {each.detail.split(":")[0] for each in receipts} == {"sop_class_refused"}
    assert peer.associations == 1


def test_each_sender_is_called_by_its_own_title_on_its_own_association(tmp_path: Path) -> None:
    titles = ["CT1", "CT1", "MR1", "", "no\\title"]
    items = [
        replace(item, calling_ae_title=title)
        for item, title in zip(ct_items(tmp_path, 5), titles, strict=True)
    ]

    with HandPeer() as peer:
        destination = DicomDestination(
            "peer", peer.section(calling_ae_title="sender"), no_decoder, own_title="NODE"
        )
        receipts = list(destination.deliver(items, lambda: False))

    assert [each.verdict for each in receipts] == [Verdict.DELIVERED] * 5
    assert peer.callers == ["CT1", "MR1", "NODE"]


def test_a_sender_that_the_peer_rejects_does_not_keep_the_others_from_being_delivered(
    tmp_path: Path,
) -> None:
    items = [
        replace(item, calling_ae_title=title)
        for item, title in zip(ct_items(tmp_path, 3), ["CT1", "BAD", "MR1"], strict=True)
    ]

    with HandPeer(rejects_callers={"BAD"}) as peer:
        section = peer.section(calling_ae_title="sender")
        receipts = deliver(section, items)

    verdicts = [each.verdict for each in receipts]
    assert verdicts == [Verdict.DELIVERED, Verdict.LIMITED, Verdict.DELIVERED]
    assert receipts[1].detail.endswith("calling AE title not recognised (permanent) as BAD")


def test_a_probe_by_a_title_that_a_peer_of_many_senders_does_not_know_is_an_answer(
    tmp_path: Path,
) -> None:
    with HandPeer(rejects_callers={"DCMPRESS"}) as peer:
        destination = DicomDestination("p", peer.section(calling_ae_title="sender"), no_decoder)
        with pytest.raises(DeliveryError, match="called as DCMPRESS") as raised:
            destination.check()

    assert type(raised.value) is DeliveryError


def test_no_pdu_is_longer_than_configured(tmp_path: Path) -> None:
    with HandPeer() as peer:
        deliver(peer.section(max_pdu=8192), ct_items(tmp_path, 2, rows=256))

    assert max(peer.pdu_lengths) <= 8192
    assert len(peer.pdu_lengths) > 30


# -- answers ---------------------------------------------------------------------------------------


def test_statuses_are_read_from_the_answers_in_order(tmp_path: Path) -> None:
    statuses = [0x0000, 0xB007, 0x0111, 0xA700, 0xC123, 0xA900]

    with HandPeer(answer=statuses.__getitem__) as peer:
        receipts = deliver(peer.section(), ct_items(tmp_path, 6))

    assert [each.status for each in receipts] == [f"{status:04X}" for status in statuses]
    assert peer.associations == 1


@pytest.mark.parametrize(
    ("is_conflict", "verdict"), [(False, Verdict.ALREADY_THERE), (True, Verdict.HELD)]
)
def test_a_duplicate_counts_as_delivered_unless_it_is_a_conflict(
    tmp_path: Path, is_conflict: bool, verdict: Verdict
) -> None:
    (item,) = ct_items(tmp_path, 1)

    with HandPeer(answer=lambda number: 0x0111) as peer:
        (receipt,) = deliver(peer.section(), [replace(item, is_conflict=is_conflict)])

    assert (receipt.verdict, receipt.status) == (verdict, "0111")
    assert receipt.detail.startswith("duplicate_refused") is is_conflict


def test_stopping_ends_after_the_instance_at_hand_and_releases(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 5)

    with HandPeer() as peer:
        destination = DicomDestination("peer", peer.section(), no_decoder)
        receipts = list(destination.deliver(items, lambda: len(peer.stored) >= 2))

    assert len(receipts) == 2
    assert (len(peer.stored), peer.released) == (2, 1)


@pytest.mark.parametrize("how", ["abort", "close", "release", "silence", "nonsense", "stranger"])
def test_an_instance_that_breaks_its_association_does_not_stop_the_others(
    tmp_path: Path, how: str
) -> None:
    items = ct_items(tmp_path, 4)

    with HandPeer(answer=lambda number: how if number == 1 else 0) as peer:
        receipts = deliver(peer.section(answer_seconds=0.5), items)

    verdicts = [each.verdict for each in receipts]
    done = Verdict.DELIVERED
    assert verdicts == [done, Verdict.TRANSIENT, done, done]
    assert peer.associations == 2


def test_a_peer_that_breaks_every_association_is_unavailable(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 6)
    receipts: list[Receipt] = []

    with HandPeer(answer=lambda number: "abort") as peer:
        destination = DicomDestination("peer", peer.section(), no_decoder)
        with pytest.raises(PeerUnavailableError, match="aborted"):
            receipts.extend(destination.deliver(items, lambda: False))

    assert [each.verdict for each in receipts] == [Verdict.TRANSIENT] * 2
    assert len(peer.stored) == 2


def test_breaks_with_answers_between_them_do_not_make_the_peer_unavailable(tmp_path: Path) -> None:
    items = ct_items(tmp_path, 8)

    with HandPeer(answer=lambda number: "abort" if number % 2 else 0) as peer:
        receipts = deliver(peer.section(), items)

    assert [each.verdict for each in receipts] == [Verdict.DELIVERED, Verdict.TRANSIENT] * 4


PRIVATE = "1.2.826.0.1.3680043.9.9999.1"


def of_class(item: DeliveryItem, sop_class: str) -> DeliveryItem:
    return replace(item, identity=replace(item.identity, sop_class_uid=sop_class))


def test_a_sop_class_at_which_the_peer_breaks_off_waits_and_the_others_are_delivered(
    tmp_path: Path,
) -> None:
    items = [
        of_class(each, PRIVATE) if n < 5 else each for n, each in enumerate(ct_items(tmp_path, 8))
    ]

    with HandPeer(breaks_at=frozenset({PRIVATE})) as peer:
        destination = DicomDestination("peer", peer.section(), no_decoder)
        receipts = list(destination.deliver(items, lambda: False))
        assert peer.associations == 3
        # It is known now: the others are not asked for together with it, and it is no outage.
        again = list(destination.deliver(items[4:], lambda: False))
        assert peer.associations == 5
        alone = list(destination.deliver(items[:1], lambda: False))
        peer.breaks_at = frozenset()
        after = list(destination.deliver(items, lambda: False))

    waits, done = Verdict.TRANSIENT, Verdict.DELIVERED
    assert [each.verdict for each in receipts] == [waits] * 5 + [done] * 3
    assert [each.verdict for each in again] == [waits] + [done] * 3
    assert [each.verdict for each in alone] == [waits]
    assert PRIVATE in receipts[0].detail
    assert [each.verdict for each in after] == [done] * 8


def test_a_peer_that_breaks_off_at_every_class_is_unavailable_after_two(tmp_path: Path) -> None:
    items = [of_class(each, f"{PRIVATE}.{n}") for n, each in enumerate(ct_items(tmp_path, 4))]
    receipts: list[Receipt] = []

    with HandPeer(on_request="close") as peer:
        destination = DicomDestination("peer", peer.section(), no_decoder)
        with pytest.raises(PeerUnavailableError, match="closed"):
            receipts.extend(destination.deliver(items, lambda: False))
        with pytest.raises(PeerUnavailableError, match="closed"):
            list(destination.deliver(items[:1], lambda: False))

    assert [each.verdict for each in receipts] == [Verdict.TRANSIENT]
    assert peer.associations == 3 + 1  # Together, the first, the second.


# -- C-ECHO and other people's peers ---------------------------------------------------------------


def test_check_says_that_the_peer_answers(tmp_path: Path, free_port: int) -> None:
    with storescp(tmp_path / "out", free_port) as section:
        line = DicomDestination("peer", section, no_decoder).check()

    assert line.startswith(f"STORESCP@127.0.0.1:{free_port} answers C-ECHO")


def test_check_says_why_nobody_answers(free_port: int) -> None:
    section = Section(kind="dicom", host="127.0.0.1", port=free_port, ae_title="NOBODY")

    with pytest.raises(DeliveryError, match="refused"):
        DicomDestination("peer", section, no_decoder).check()


def test_check_says_that_verification_is_refused() -> None:
    with (
        HandPeer(accepts=lambda sop_class, syntax: False) as peer,
        pytest.raises(DeliveryError, match="no verification"),
    ):
        DicomDestination("peer", peer.section(), no_decoder).check()


def test_dcmtk_keeps_the_bytes_that_were_in_the_file(tmp_path: Path, free_port: int) -> None:
    items = [*ct_items(tmp_path, 20, rows=256), rle_item(tmp_path / "rle", original_is_native=True)]

    with storescp(tmp_path / "out", free_port, "+xa", "+uf") as section:
        receipts = deliver(section, items)

    assert [each.transfer_syntax for each in receipts] == [EXPLICIT] * 20 + [RLE]
    kept = sorted(dataset_bytes(path) for path in (tmp_path / "out").iterdir())
    assert kept == sorted(dataset_bytes(each.path) for each in items)


def test_dcmtk_that_takes_implicit_only_gets_equal_pixels(tmp_path: Path, free_port: int) -> None:
    item = rle_item(tmp_path, original_is_native=False)

    with storescp(tmp_path / "out", free_port, "+xi") as section:
        (receipt,) = deliver(section, [item], decoder(tmp_path))

    assert receipt.transfer_syntax == IMPLICIT
    (path,) = (tmp_path / "out").iterdir()
    native = pydicom.dcmread(tmp_path / "000.dcm")
    assert pydicom.dcmread(path).PixelData == native.PixelData
