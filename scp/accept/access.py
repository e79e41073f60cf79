"""Who may associate."""

import ipaddress
import re
from typing import Final

from scp.config.schema import AccessSection

NAMELESS: Final = b"UNKNOWN"
"""Stands for an AE title of blanks."""

_FORBIDDEN: Final = re.compile(rb"[^ -\[\]-~]")
"""What an AE title may not hold (PS3.5 6.2): all but printable ASCII, and the backslash."""


class AccessList:
    """The section ``access`` of the configuration, ready to be asked."""

    def __init__(self, access: AccessSection) -> None:
        self._anyone = access.anyone
        self._peers = [
            (peer.ae_title, peer.address and ipaddress.ip_network(peer.address, strict=False))
            for peer in access.peers
        ]

    def admits(self, calling_ae_title: str, peer_address: str) -> bool:
        """Whether anyone may come, or a peer of the list has both this title and this address."""
        if self._anyone:
            return True
        address = ipaddress.ip_address(peer_address)
        return any(
            (not title or title == calling_ae_title) and (not network or address in network)
            for title, network in self._peers
        )


def plain_address(address: str) -> str:
    """An address as people write it: without scope, IPv4 where it is IPv4 mapped into IPv6."""
    plain = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(plain, "ipv4_mapped", None)
    return str(mapped or plain)


def plain_title(title: bytes) -> bytes:
    """The 16 bytes of an AE title as the standard allows them, whatever a peer put there."""
    return (_FORBIDDEN.sub(b"_", title.strip(b" \0")) or NAMELESS).ljust(16)
