"""A receiver: accepts associations on the inherited sockets and lands instances in the spool."""

import logging
import os
import signal
import socket
import threading

from scp import telemetry
from scp.accept.door import Door
from scp.accept.listener import Listener
from scp.buffer.layout import Layout
from scp.buffer.store import SpoolStore
from scp.durable import Disk
from scp.pipeline.notices import NoticeSender, read_needs
from scp.pipeline.processes import Orders, read_orders

logger = logging.getLogger(__name__)


def main() -> None:
    orders = read_orders()
    telemetry.configure(orders.log_format, orders.log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(orders)


def serve(orders: Orders) -> None:
    """Receive until SIGTERM; then finish what is open, up to the configured deadline."""
    stop_read, stop_write = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(stop_write, b"x"))
    notices, *listening = (socket.socket(fileno=number) for number in orders.sockets)
    config = orders.config
    doors = [Door(each, section) for each, section in zip(listening, config.ports, strict=True)]
    store = SpoolStore(
        Layout(config.node.data),
        orders.name,
        Disk(),
        NoticeSender(notices, orders.name),
        reserve_bytes=config.limits.reserve,
        rules=orders.rules,
    )
    threading.Thread(target=_listen_for_needs, args=(notices, store), daemon=True).start()
    listener = Listener(doors, store, config.node, config.access, config.limits)
    listener.serve([stop_read])
    listener.drain(config.limits.drain_seconds)


def _listen_for_needs(notices: socket.socket, store: SpoolStore) -> None:
    while True:
        needed = read_needs(notices)
        if needed is None:
            return
        store.needs(needed)


if __name__ == "__main__":
    main()
