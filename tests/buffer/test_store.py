"""What one association sees of the spool, and what the coordinator is told."""

import json
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from scp.buffer.layout import Layout
from scp.buffer.part10 import open_instance
from scp.buffer.store import SpoolStore
from scp.durable import Disk
from scp.errors import InvalidUidError, StorageFullError, UidMismatchError, UnreadableInstanceError
from scp.model import StoreRequest
from tests.buffer.recorder import HookedDisk
from tests.buffer.spool import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    ORIGIN,
    STUDY,
    Sent,
    ToldNotices,
    acknowledged_files,
    dataset_of,
    element,
    left_in_incoming,
    make_spool,
    make_store,
)

SENT = Sent("1.2.3.1")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_spool(tmp_path / "data", Disk())


def test_the_dataset_is_kept_byte_for_byte_with_who_sent_it(layout: Layout) -> None:
    SENT.send(make_store(layout, Disk()))

    (path,) = acknowledged_files(layout)
    kept = open_instance(path)
    assert dataset_of(path) == SENT.dataset
    assert kept.identity == SENT.identity
    assert kept.origin == ORIGIN
    assert kept.transfer_syntax == EXPLICIT_LITTLE
    assert kept.file_bytes == path.stat().st_size


def test_long_headers_of_many_senders_are_searched_in_bounded_memory(layout: Layout) -> None:
    store, megabytes, senders = make_store(layout, Disk()), 24, 4
    private = element(0x0009, 0x0010, b"LO", "SOMEONE")
    private += element(0x0009, 0x1001, b"OB", bytes(megabytes * 2**20))
    split, step = SENT.dataset.index(element(0x0020, 0x000D, b"UI", STUDY)), 2**16
    many = [Sent(f"1.2.3.{number}") for number in range(senders)]
    all_came = threading.Barrier(senders)

    def send(sent: Sent) -> None:
        incoming = store.begin(sent.request)
        incoming.write(sent.dataset[:split])
        for start in range(0, len(private), step):
            incoming.write(private[start : start + step])
        incoming.write(sent.dataset[split:])
        all_came.wait(20)
        incoming.commit()

    with ThreadPoolExecutor(senders) as pool:
        tracemalloc.start()
        try:
            list(pool.map(send, many))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert len(acknowledged_files(layout)) == senders
    assert peak < 2 * megabytes * 2**20


def test_bytes_may_gather_once_the_series_is_announced(layout: Layout) -> None:
    notices = ToldNotices()
    sent = Sent("1.2.3.4", pixels=bytes(4000))
    incoming = make_store(layout, Disk(), notices).begin(sent.request)
    end = sent.dataset.index(sent.series.encode()) + len(sent.series)

    written = 0
    while not incoming.may_gather:
        assert notices.told == []
        incoming.write(sent.dataset[written : written + 8])
        written += 8

    assert end <= written <= 2 * end + 16
    assert notices.told == [("arriving", sent.key.folder)]
    incoming.abandon()


def test_nothing_stays_in_incoming(layout: Layout) -> None:
    SENT.send(make_store(layout, Disk()))

    assert left_in_incoming(layout) == []


def test_the_next_file_is_made_after_the_answer_only(layout: Layout) -> None:
    made: list[Path] = []
    disk = HookedDisk(lambda operation, path: made.append(path) if operation == "create" else None)
    incoming = make_store(layout, disk).begin(SENT.request)
    (name,) = (layout.incoming / "r0").iterdir()
    incoming.write(SENT.dataset)

    incoming.commit()
    assert not name.exists()
    (landed,) = acknowledged_files(layout)
    assert [path for path in made if path.suffix == ".part"] == [name]
    incoming.tidy()

    assert made[-1].parent == name.parent
    assert dataset_of(landed) == SENT.dataset


def test_the_file_of_a_repeat_is_taken_away_after_the_answer_only(layout: Layout) -> None:
    store = make_store(layout, Disk())
    SENT.send(store)
    (name,) = (layout.incoming / "r0").iterdir()
    repeat = store.begin(SENT.request)
    repeat.write(SENT.dataset)

    repeat.commit()
    assert name.exists()
    repeat.tidy()

    assert not name.exists()
    assert left_in_incoming(layout) == []
    assert len(acknowledged_files(layout)) == 1


def test_one_spare_file_waits_for_the_next_instance(layout: Layout) -> None:
    store = make_store(layout, Disk())
    for number in range(3):
        Sent(f"1.2.4.{number}").send(store)

        (spare,) = (layout.incoming / "r0").iterdir()
        assert spare.stat().st_size == 0

    next_one = store.begin(SENT.request)
    next_one.write(SENT.dataset)
    assert list((layout.incoming / "r0").iterdir()) == [spare]
    inode = spare.stat().st_ino
    next_one.commit()
    assert (layout.growing / SENT.key.folder / SENT.file_name).stat().st_ino == inode


def test_associations_that_tidy_at_once_leave_one_spare_file(layout: Layout) -> None:
    store = make_store(layout, Disk())
    many = [Sent(f"1.2.3.{number}") for number in range(3)]
    arrived = [store.begin(sent.request) for sent in many]
    for sent, incoming in zip(many, arrived, strict=True):
        incoming.write(sent.dataset)
        incoming.commit()

    for incoming in arrived:
        incoming.tidy()

    (spare,) = (layout.incoming / "r0").iterdir()
    assert spare.stat().st_size == 0
    assert len(acknowledged_files(layout)) == 3


def test_a_spare_file_that_is_abandoned_goes(layout: Layout) -> None:
    store = make_store(layout, Disk())
    SENT.send(store)

    store.begin(SENT.request).abandon()

    assert list((layout.incoming / "r0").iterdir()) == []


def test_the_coordinator_hears_of_an_instance_as_soon_as_its_header_is_there(
    layout: Layout,
) -> None:
    notices = ToldNotices()
    incoming = make_store(layout, Disk(), notices).begin(SENT.request)
    folder = SENT.key.folder

    for byte in SENT.dataset[:-1]:
        incoming.write(bytes([byte]))
    assert notices.told == [("arriving", folder)]
    incoming.write(SENT.dataset[-1:])
    incoming.commit()

    assert notices.told == [("arriving", folder), ("landed", folder, SENT.file_name)]
    assert dataset_of(layout.growing / folder / SENT.file_name) == SENT.dataset


def test_an_instance_that_is_abandoned_leaves_nothing(layout: Layout) -> None:
    notices = ToldNotices()
    incoming = make_store(layout, Disk(), notices).begin(SENT.request)
    incoming.write(SENT.dataset)

    incoming.abandon()
    incoming.abandon()

    assert list((layout.incoming / "r0").iterdir()) == []
    assert list(layout.growing.iterdir()) == []
    assert [kind for kind, *_ in notices.told] == ["arriving", "given_up"]


def test_a_long_instance_is_given_up_when_the_room_goes(layout: Layout) -> None:
    store = make_store(layout, Disk())
    incoming = store.begin(SENT.request)
    incoming.write(bytes(2**20))
    store.needs(2**62)

    with pytest.raises(StorageFullError):
        incoming.write(bytes(2**23))

    incoming.abandon()
    assert left_in_incoming(layout) == []


def test_the_same_dataset_again_is_one_instance(layout: Layout) -> None:
    notices = ToldNotices()
    store = make_store(layout, Disk(), notices)
    SENT.send(store)
    (first,) = acknowledged_files(layout)
    number = first.stat().st_ino

    SENT.send(store)

    assert acknowledged_files(layout) == [first]
    assert first.stat().st_ino == number
    assert left_in_incoming(layout) == []
    assert [kind for kind, *_ in notices.told] == ["arriving", "landed", "arriving", "repeated"]


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_repeat_takes_the_place_of_its_twin_where_another_receiver_may_have_lost_that(
    layout: Layout, is_alone: bool
) -> None:
    renamed: list[Path] = []

    def note(operation: str, path: Path) -> None:
        if operation == "rename" and path.suffix == ".dcm":
            renamed.append(path)

    store = SpoolStore(
        layout,
        "r0",
        HookedDisk(note),
        ToldNotices(),
        reserve_bytes=0,
        rules="rules-1",
        is_alone=is_alone,
    )

    SENT.send(store)
    SENT.send(store)

    (path,) = acknowledged_files(layout)
    assert renamed == ([] if is_alone else [path])


def test_the_same_bytes_in_another_transfer_syntax_are_another_dataset(layout: Layout) -> None:
    store = make_store(layout, Disk())
    SENT.send(store)
    request = StoreRequest(
        origin=ORIGIN,
        sop_class_uid=CT_IMAGE,
        sop_instance_uid=SENT.uid,
        transfer_syntax="1.2.840.10008.1.2.4.70",
    )
    incoming = store.begin(request)
    incoming.write(SENT.dataset)

    incoming.commit()

    assert len(acknowledged_files(layout)) == 2


def test_the_same_dataset_from_another_peer_is_kept_beside_it_for_the_rules_to_see(
    layout: Layout,
) -> None:
    store = make_store(layout, Disk())
    SENT.send(store)
    called_otherwise = replace(SENT.request, origin=replace(ORIGIN, called_ae_title="RESEARCH"))
    for _ in range(2):
        incoming = store.begin(called_otherwise)
        incoming.write(SENT.dataset)

        incoming.commit()

    assert len(acknowledged_files(layout)) == 2


def test_a_dataset_whose_twin_on_disk_is_damaged_is_kept_beside_it(layout: Layout) -> None:
    store = make_store(layout, Disk())
    SENT.send(store)
    (path,) = acknowledged_files(layout)
    path.write_bytes(b"damaged")

    SENT.send(store)

    stem = SENT.identity.file_stem
    assert dataset_of(path.with_name(f"{stem}~2.dcm")) == SENT.dataset


@pytest.mark.parametrize(
    ("sop_class", "uid", "error"),
    [
        (CT_IMAGE, "1.2.3.2", UidMismatchError),
        ("1.2.840.10008.5.1.4.1.1.4", SENT.uid, UidMismatchError),
    ],
)
def test_a_command_that_names_another_instance_than_the_dataset_is_refused(
    layout: Layout, sop_class: str, uid: str, error: type[Exception]
) -> None:
    notices = ToldNotices()
    request = StoreRequest(
        origin=ORIGIN,
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        transfer_syntax=EXPLICIT_LITTLE,
    )
    incoming = make_store(layout, Disk(), notices).begin(request)
    incoming.write(SENT.dataset)

    with pytest.raises(error):
        incoming.commit()
    incoming.abandon()

    assert acknowledged_files(layout) == []
    assert list((layout.incoming / "r0").iterdir()) == []
    assert [kind for kind, *_ in notices.told] == ["arriving", "given_up"]


@pytest.mark.parametrize(
    "uid", ["", "1.2/3", "../../etc/passwd", "1.2\\3", "1.2.x", "\0", "1.2.3\n"]
)
def test_a_command_whose_uid_is_none_is_refused_before_anything_is_written(
    layout: Layout, uid: str
) -> None:
    request = StoreRequest(
        origin=ORIGIN, sop_class_uid=CT_IMAGE, sop_instance_uid=uid, transfer_syntax=EXPLICIT_LITTLE
    )
    store = make_store(layout, Disk())

    with pytest.raises(InvalidUidError):
        store.begin(request)

    assert list((layout.incoming / "r0").iterdir()) == []


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [(CT_IMAGE, ""), (CT_IMAGE, "1." * 4096), ("", EXPLICIT_LITTLE), ("1." * 4096, "1.2")],
)
def test_a_class_or_syntax_that_is_no_uid_is_refused_before_anything_is_written(
    layout: Layout, sop_class: str, syntax: str
) -> None:
    request = StoreRequest(
        origin=ORIGIN, sop_class_uid=sop_class, sop_instance_uid=SENT.uid, transfer_syntax=syntax
    )
    store = make_store(layout, Disk())

    with pytest.raises(UnreadableInstanceError):
        store.begin(request)

    assert list((layout.incoming / "r0").iterdir()) == []


@pytest.mark.parametrize(
    "dataset",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="not DICOM"),
        pytest.param(SENT.dataset[:80], id="cut"),
        pytest.param(element(0x0008, 0x0018, b"UI", SENT.uid), id="no series"),
        pytest.param(b"\0" * 3_000_000, id="zeros"),
    ],
)
def test_a_dataset_that_does_not_parse_to_its_series_is_refused_at_its_end(
    layout: Layout, dataset: bytes
) -> None:
    incoming = make_store(layout, Disk()).begin(SENT.request)
    for start in range(0, len(dataset), 100_000):
        incoming.write(dataset[start : start + 100_000])

    with pytest.raises(UnreadableInstanceError):
        incoming.commit()
    incoming.abandon()

    assert list((layout.incoming / "r0").iterdir()) == []
    assert list(layout.growing.iterdir()) == []


def test_uids_of_dots_alone_never_become_a_path(layout: Layout) -> None:
    sent = Sent("..", series="....")

    sent.send(make_store(layout, Disk()))

    (path,) = acknowledged_files(layout)
    assert path == layout.growing / sent.key.folder / sent.file_name


def test_a_header_of_many_megabytes_is_read_to_its_end(layout: Layout) -> None:
    class LongHeader(Sent):
        @property
        def dataset(self) -> bytes:
            whole = super().dataset
            start = whole.index(element(0x0020, 0x000D, b"UI", "1.2.826.0.1.1"))
            return whole[:start] + element(0x0009, 0x1001, b"OB", bytes(5_000_000)) + whole[start:]

    sent = LongHeader("1.2.3.1")

    sent.send(make_store(layout, Disk()))

    (path,) = acknowledged_files(layout)
    assert dataset_of(path) == sent.dataset


def test_without_room_above_the_reserve_nothing_begins(layout: Layout) -> None:
    store = make_store(layout, Disk())
    assert store.has_room()

    store.needs(2**62)

    assert not store.has_room()
    with pytest.raises(StorageFullError):
        store.begin(SENT.request)
    store.needs(0)
    SENT.send(store)


def test_the_folder_of_a_series_says_when_and_under_which_rules_it_began(layout: Layout) -> None:
    SENT.send(make_store(layout, Disk()))

    content = json.loads((layout.growing / SENT.key.folder / "series.json").read_bytes())
    assert content["study_instance_uid"] == SENT.key.study_instance_uid
    assert content["series_instance_uid"] == SENT.key.series_instance_uid
    assert content["rules"] == "rules-1"
    assert content["opened"].endswith("+00:00")
