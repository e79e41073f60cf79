"""What children that are forked do in tests: as their name says."""

import os
import signal
import socket
import sys
import time

from scp.errors import NodeError
from scp.pipeline.processes import Orders


def main(orders: Orders) -> None:
    """Says something on its socket, where it has one."""
    if orders.sockets:
        peer = socket.socket(fileno=orders.sockets[0])
        handler = "default" if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else "parent's"
        peer.sendall(f"{os.read(0, 1)!r} {handler}".encode())
    match orders.name:
        case "raises":
            raise RuntimeError("of the child")
        case "says why":
            raise NodeError("the disk is full")
        case "has done all":
            sys.exit()
        case "leaves":
            sys.exit(3)
        case "waits":
            time.sleep(600)
