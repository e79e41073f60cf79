"""Who may associate."""

import hmac
import ipaddress
import logging
import re
from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from scp.config.schema import AccessSection, LimitsSection, Peer
from scp.errors import ScpError

logger = logging.getLogger(__name__)

NAMELESS: Final = b"UNKNOWN"
"""Stands for an AE title of blanks."""

NAMED: Final = (1, 2)
WITH_PASSCODE: Final = 2
"""Kinds of user identity: a name; a name and a passcode (PS3.7 Table D.3-14)."""

_FORBIDDEN: Final = re.compile(rb"[^ -\[\]-~]")
"""What an AE title may not hold (PS3.5 6.2): all but printable ASCII, and the backslash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks for an association."""

    calling_ae_title: str
    address: str
    certificate_names: Set[str] = frozenset()
    """Of a verified certificate, in small letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIdentity:
    """Who it says that it acts for (PS3.7 D.3.3.7.1)."""

    kind: int
    primary: bytes
    secondary: bytes
    wants_answer: bool

    @property
    def name(self) -> str:
        """Of the user; empty for tickets, assertions and tokens."""
        return self.primary.decode("utf-8", "replace") if self.kind in NAMED else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What holds for a peer."""

    entry: str
    """Of the list, for counting; empty where it has none of its own."""
    limits: LimitsSection
    called_ae_titles: Set[str] = frozenset()
    """Empty: any."""
    max_associations: int | None = None

    def may_call(self, called_ae_title: str) -> bool:
        return not self.called_ae_titles or called_ae_title in self.called_ae_titles


class AccessList:
    """The section ``access`` of the configuration, ready to be asked."""

    def __init__(self, access: AccessSection, limits: LimitsSection) -> None:
        self._anybody = Standing(entry="", limits=limits) if access.anyone else None
        self._peers = [_entry(index, peer, limits) for index, peer in enumerate(access.peers)]
        self._user_identity = access.user_identity
        self._users = {user.name: user.passcode for user in access.users}

    def standing(self, caller: Caller) -> Standing | None:
        """What holds for it; None: it may not come."""
        address = ipaddress.ip_address(caller.address)
        for peer, network, standing in self._peers:
            if (
                peer.ae_title in (None, caller.calling_ae_title)
                and (network is None or address in network)
                and (
                    peer.certificate_name is None
                    or peer.certificate_name in caller.certificate_names
                )
            ):
                return standing
        return self._anybody

    def may_come_from(self, address: str) -> bool:
        """Whether anybody may from there, whatever it calls itself."""
        if self._anybody is not None:
            return True
        here = ipaddress.ip_address(address)
        return any(network is None or here in network for _, network, _ in self._peers)

    def recognises(self, user: UserIdentity | None) -> bool:
        """Whether an association with this user identity, or with none, may come."""
        if self._user_identity == "ignore":
            return True
        if user is None:
            return self._user_identity != "required"
        if self._user_identity == "refuse" or user.kind not in NAMED:
            return False
        if user.name not in self._users:
            return False
        passcode = self._users[user.name]
        if passcode is None:
            return True
        try:
            expected = passcode.read().encode()
        except ScpError as error:
            logger.error("a user is refused: %s", error)
            return False
        return user.kind == WITH_PASSCODE and hmac.compare_digest(user.secondary, expected)

    @property
    def looks_at_users(self) -> bool:
        """Whether a positive answer about the user means anything."""
        return self._user_identity in ("optional", "required")


def _entry(
    index: int, peer: Peer, limits: LimitsSection
) -> tuple[Peer, ipaddress.IPv4Network | ipaddress.IPv6Network | None, Standing]:
    own = {
        name: value
        for name in ("max_pdu_bytes", "max_instance_bytes", "idle_seconds")
        if (value := getattr(peer, name)) is not None
    }
    standing = Standing(
        entry=f"peers[{index}]",
        limits=limits.model_copy(update=own),
        called_ae_titles=frozenset(peer.called_ae_titles),
        max_associations=peer.max_associations,
    )
    network = None if peer.address is None else ipaddress.ip_network(peer.address, strict=False)
    return peer, network, standing


def plain_address(address: str) -> str:
    """An address as people write it: without scope, IPv4 where it is IPv4 mapped into IPv6."""
    plain = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(plain, "ipv4_mapped", None)
    return str(mapped or plain)


def plain_title(title: bytes) -> bytes:
    """The 16 bytes of an AE title as the standard allows them, whatever a peer put there."""
    return (_FORBIDDEN.sub(b"_", title.strip(b" \0")) or NAMELESS).ljust(16)
