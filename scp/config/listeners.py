"""What the listeners of a configuration have to do with each other, and with peers."""

from collections.abc import Iterator
from typing import Any

from scp.config.faults import dotted
from scp.config.network import ListenerSection
from scp.config.yaml_tree import Fault, Tree


def faults_of_listeners(given: dict[str, Any], tree: Tree) -> Iterator[Fault]:
    """Ports that are named twice, names that no port can see; ``given`` may hold anything."""
    listeners = given.get("listeners")
    listeners = listeners if isinstance(listeners, list) else []
    yield from _names_that_nobody_sees(given.get("access"), listeners, tree)
    if not listeners:
        return
    node = given.get("node")
    for key in ("bind", "port"):
        if isinstance(node, dict) and key in node:
            message = f"node.{key}: listeners say where the node listens: take this out"
            yield Fault(*tree.place(("node", key), of_key=True), message)
    taken: dict[tuple[str, str], int] = {}
    for index, listener in enumerate(listeners):
        if not isinstance(listener, dict) or not isinstance(port := listener.get("port"), str):
            continue
        bind = str(listener.get("bind", ListenerSection.model_fields["bind"].default))
        first = taken.setdefault((bind, port), index)
        if first != index and port != "0":
            place = ("listeners", index, "port")
            message = f"{dotted(place)}: the port is listeners[{first}]'s already"
            yield Fault(*tree.place(place), message)


def _names_that_nobody_sees(access: Any, listeners: list[Any], tree: Tree) -> Iterator[Fault]:
    sections = [each["tls"] for each in listeners if isinstance(each, dict) and "tls" in each]
    if any(isinstance(pair, dict) and "client_certificate" in pair for pair in sections):
        return
    peers = access.get("peers") if isinstance(access, dict) else None
    for index, peer in enumerate(peers if isinstance(peers, list) else ()):
        if isinstance(peer, dict) and "certificate_name" in peer:
            place = ("access", "peers", index, "certificate_name")
            message = f"{dotted(place)}: no listener asks for certificates: client_certificate"
            yield Fault(*tree.place(place, of_key=True), message)
