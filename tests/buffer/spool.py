"""A spool to test on: requests, datasets, a store, and what it told the coordinator."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack

from scp.buffer.layout import Layout
from scp.buffer.store import Landed, SpoolStore
from scp.durable import Disk
from scp.model import Identity, Origin, SeriesKey, StoreRequest

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
ORIGIN = Origin(calling_ae_title="CT1", called_ae_title="DCMPRESS", peer_address="10.0.0.7")
STUDY = "1.2.826.0.1.1"


@dataclass(frozen=True, slots=True)
class Sent:
    """One instance as a sender has it."""

    uid: str
    series: str = f"{STUDY}.1"
    pixels: bytes = b"\1\2" * 50

    @property
    def dataset(self) -> bytes:
        return b"".join(
            (
                element(0x0008, 0x0016, b"UI", CT_IMAGE),
                element(0x0008, 0x0018, b"UI", self.uid),
                element(0x0020, 0x000D, b"UI", STUDY),
                element(0x0020, 0x000E, b"UI", self.series),
                element(0x7FE0, 0x0010, b"OW", self.pixels),
            )
        )

    @property
    def request(self) -> StoreRequest:
        return StoreRequest(
            origin=ORIGIN,
            sop_class_uid=CT_IMAGE,
            sop_instance_uid=self.uid,
            transfer_syntax=EXPLICIT_LITTLE,
        )

    @property
    def identity(self) -> Identity:
        return Identity(
            sop_class_uid=CT_IMAGE,
            sop_instance_uid=self.uid,
            study_instance_uid=STUDY,
            series_instance_uid=self.series,
        )

    @property
    def key(self) -> SeriesKey:
        return self.identity.series

    @property
    def file_name(self) -> str:
        return f"{self.identity.file_stem}.dcm"

    def send(self, store: SpoolStore, acknowledged: Callable[[], None] = lambda: None) -> None:
        """What an association does with it; tells when it is acknowledged, and tidies after that."""
        incoming = store.begin(self.request)
        try:
            data = self.dataset
            incoming.write(data[:40])
            incoming.write(data[40:])
            incoming.commit()
        except BaseException:
            incoming.abandon()
            raise
        acknowledged()
        incoming.tidy()


def element(group: int, number: int, vr: bytes, value: str | bytes) -> bytes:
    """One element in Explicit VR Little Endian, padded to even length."""
    raw = value.encode() if isinstance(value, str) else value
    raw += (b"\0" if vr in (b"UI", b"OB", b"UN") else b" ") * (len(raw) % 2)
    if vr in (b"OB", b"OW", b"UN", b"SQ"):
        return pack("<HH2sHL", group, number, vr, 0, len(raw)) + raw
    return pack("<HH2sH", group, number, vr, len(raw)) + raw


@dataclass(slots=True)
class ToldNotices:
    """Remembers what the coordinator was told, in order."""

    told: list[tuple[str, ...]] = field(default_factory=list)

    def arriving(self, series: str) -> None:
        self.told.append(("arriving", series))

    def landed(self, landed: Landed) -> None:
        self.told.append(("landed", landed.series, landed.name))

    def given_up(self, series: str) -> None:
        self.told.append(("given_up", series))

    def repeated(self, series: str) -> None:
        self.told.append(("repeated", series))


def make_spool(data: Path, disk: Disk) -> Layout:
    """A new data folder's layout."""
    data.mkdir(exist_ok=True)
    layout = Layout(data)
    layout.make(disk)
    return layout


def make_store(
    layout: Layout, disk: Disk, notices: ToldNotices | None = None, *, receiver: str = "r0"
) -> SpoolStore:
    return SpoolStore(
        layout, receiver, disk, notices or ToldNotices(), reserve_bytes=0, rules="rules-1"
    )


def left_in_incoming(layout: Layout, receiver: str = "r0") -> list[str]:
    """What lies there beside the empty spare files that wait for the next instances."""
    return sorted(
        path.name
        for path in (layout.incoming / receiver).iterdir()
        if path.suffix != ".part" or path.stat().st_size
    )


def acknowledged_files(layout: Layout) -> list[Path]:
    """Every instance that the spool answers for."""
    return sorted(
        [
            *layout.growing.glob("[!.]*/[!.]*.dcm"),
            *layout.jobs.glob("[!.]*/source/[!.]*.dcm"),
            *layout.held.glob("[!.]*/source/[!.]*.dcm"),
        ]
    )


def dataset_of(path: Path) -> bytes:
    """The dataset that a file of the spool holds, by its group length."""
    content = path.read_bytes()
    assert content[128:132] == b"DICM", f"{path} is damaged"
    return content[144 + int.from_bytes(content[140:144], "little") :]
