"""A receiver: accepts associations on the inherited sockets and lands instances in the spool."""

import logging
import os
import signal
import socket
import threading

from scp import telemetry
from scp.accept.commitment import CommitmentService
from scp.accept.descriptors import allow_descriptors, needed_descriptors, shortage
from scp.accept.door import Door
from scp.accept.listener import Listener
from scp.accept.seats import Seats
from scp.buffer.commitments import CommitmentFiles
from scp.buffer.layout import Layout
from scp.buffer.store import SpoolStore
from scp.config.schema import Config, NodeSection
from scp.durable import Disk
from scp.pipeline.commitment_asks import vouching_destinations
from scp.pipeline.notices import NoticeSender, read_needs
from scp.pipeline.processes import Orders

logger = logging.getLogger(__name__)


_CORES_EACH = 8
_MOST = 4


def count_of(node: NodeSection) -> int:
    """How many receivers a node has.

    One keeps up with eight senders on two cores: what waits for the network and the disk runs
    beside Python, which has 0.3 ms of work for an instance of 0.5 MB.
    """
    if node.receivers == "auto":
        return min(_MOST, max(1, (os.cpu_count() or 1) // _CORES_EACH))
    return node.receivers


def main(orders: Orders) -> None:
    """One receiver's life."""
    telemetry.configure(orders.log_format, orders.log_level)
    serve(orders)


def serve(orders: Orders) -> None:
    """Receive until SIGTERM; then finish what is open, up to the configured deadline."""
    stop_read, stop_write = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(stop_write, b"x"))
    table, *inherited = orders.sockets
    notices, *listening = (socket.socket(fileno=each) for each in inherited)
    config = orders.config
    doors = [Door(each, section) for each, section in zip(listening, config.ports, strict=True)]
    allow_descriptors(needed_descriptors(config.limits))
    if (too_few := shortage(config.limits)) is not None:
        logger.warning("%s", too_few)
    layout, disk = Layout(config.node.data), Disk()
    store = SpoolStore(
        layout,
        orders.name,
        disk,
        NoticeSender(notices, orders.name),
        reserve_bytes=config.limits.reserve,
        rules=orders.rules,
        is_alone=count_of(config.node) == 1,
    )
    threading.Thread(target=_listen_for_needs, args=(notices, store), daemon=True).start()
    listener = Listener(
        doors,
        store,
        config.node,
        config.access,
        config.limits,
        commitment_service(config, CommitmentFiles(layout, disk)),
        Seats(table, orders.number),
        is_alone=count_of(config.node) == 1,
    )
    listener.serve([stop_read])
    listener.drain(config.limits.drain_seconds)


def commitment_service(config: Config, files: CommitmentFiles) -> CommitmentService | None:
    """None where nobody may ask for storage commitment, and nobody is asked."""
    is_offered = config.commit.when != "never"
    if not is_offered and not vouching_destinations(config):
        return None
    return CommitmentService(files, config.access, is_offered=is_offered)


def _listen_for_needs(notices: socket.socket, store: SpoolStore) -> None:
    while True:
        needed = read_needs(notices)
        if needed is None:
            return
        store.needs(needed)
