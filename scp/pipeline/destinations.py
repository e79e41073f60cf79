"""From the configuration's destinations to their queues."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from scp.buffer.layout import Layout
from scp.config.remote import DicomwebDestination as DicomwebSection
from scp.config.schema import Config, FolderDestination
from scp.config.schema import Destination as Section
from scp.config.schema import DicomDestination as DicomSection
from scp.deliver.dicom import DicomDestination
from scp.deliver.dicomweb import DicomwebDestination
from scp.deliver.events import Event
from scp.deliver.folder import FolderDestinationWriter
from scp.deliver.object_store import ObjectStoreWriter
from scp.deliver.policy import Policy
from scp.deliver.ports import DecodeForPeer, Destination
from scp.deliver.queue import DestinationQueue
from scp.deliver.refusals import Refusals
from scp.durable import Disk
from scp.model import DeliveryItem

_FOLDER_LANES: Final = 2
"""One copies and hashes while the other waits for the disk."""

type Decode = Callable[[DeliveryItem, str, bool], Path]
"""An item, the native syntax wanted, and whether a lossy source may be decoded."""


def build_destination(
    name: str,
    section: Section,
    disk: Disk,
    decode: Decode,
    *,
    own_title: str = "DCMPRESS",
    refusals: Refusals | None = None,
) -> Destination:
    """One destination of the kind that its section names.

    ``refusals`` is what its peer is known to refuse; ``own_title`` the node's.
    """
    match section:
        case FolderDestination():
            return FolderDestinationWriter(name, section, disk)
        case DicomSection():
            decoder = _decoder(section, decode)
            return DicomDestination(name, section, decoder, refusals=refusals, own_title=own_title)
        case DicomwebSection():
            return DicomwebDestination(name, section, _decoder(section, decode), refusals=refusals)
    return ObjectStoreWriter(name, section)


def build_queues(
    config: Config, disk: Disk, decode: Decode, report: Callable[[Event], None]
) -> dict[str, DestinationQueue]:
    """A queue, with its threads, for each destination."""
    return {
        name: _queue(config, name, section, disk, decode, report)
        for name, section in config.destinations.items()
    }


def taking_volumes(config: Config) -> frozenset[str]:
    """The destinations that get what a series was collapsed into."""
    return frozenset(n for n, section in config.destinations.items() if section.accepts_collapsed)


def _queue(
    config: Config,
    name: str,
    section: Section,
    disk: Disk,
    decode: Decode,
    report: Callable[[Event], None],
) -> DestinationQueue:
    refusals = Refusals(Layout(config.node.data).refused_by(name), section.place)
    return DestinationQueue(
        name,
        [
            build_destination(
                name, section, disk, decode, own_title=config.node.ae_title, refusals=refusals
            )
            for _ in range(_lanes(section))
        ],
        disk,
        report,
        policy=Policy(
            skips_refused=section.on_refused == "skip",
            skip_sop_classes=section.skip_sop_classes,
            groups_by_sender=isinstance(section, DicomSection) and section.calls_as_sender,
        ),
        on_retry=refusals.forget,
    )


def _lanes(section: Section) -> int:
    """How many deliveries it takes at a time."""
    match section:
        case FolderDestination():
            return _FOLDER_LANES
        case DicomSection():
            return section.max_associations
    return section.max_connections


def _decoder(section: DicomSection | DicomwebSection, decode: Decode) -> DecodeForPeer:
    def decode_for_peer(item: DeliveryItem, transfer_syntax: str) -> Path:
        return decode(item, transfer_syntax, section.decode_lossy)

    return decode_for_peer
