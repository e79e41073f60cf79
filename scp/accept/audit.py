"""What the log says of each association, accepted or not: one line, with nothing of patients."""

import logging
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from scp import tls
from scp.accept.contexts import ACCEPTED, Answer
from scp.model import Origin

logger = logging.getLogger(__name__)

MOST_NAME: Final = 64
"""Characters of a user's name; a peer may send 16 KiB."""


@dataclass(slots=True, kw_only=True)
class Account:
    """Of one association; filled in as it goes on."""

    port: int
    address: str
    origin: Origin | None = None
    """None: it never asked."""
    user: str = ""
    instances: int = 0
    """Acknowledged with 0x0000."""
    refused: int = 0
    """Answered otherwise."""
    dataset_bytes: int = 0
    """Of those acknowledged."""
    certificate_names: frozenset[str] = frozenset()
    _certificate: str = ""
    _protocol: str = ""
    _contexts: str = ""
    _began: float = field(default_factory=time.monotonic)

    def secured(self, connection: ssl.SSLSocket) -> None:
        """TLS is spoken: how, and with whom where that is verified."""
        suite = connection.cipher()
        self._protocol = f"{connection.version()} {suite[0] if suite else ''}".strip()
        presented = connection.getpeercert()
        if presented:
            identity = tls.identity_of(presented)
            self._certificate = identity.name
            self.certificate_names = identity.names

    def negotiated(self, answers: Sequence[Answer]) -> None:
        """So many contexts were proposed, and so many of them accepted."""
        accepted = sum(answer.result == ACCEPTED for answer in answers)
        self._contexts = f"{accepted}/{len(answers)}"

    @property
    def seconds(self) -> float:
        """Since the connection came."""
        return time.monotonic() - self._began

    def close(self, ending: str) -> None:
        """Write the line."""
        origin = self.origin
        facts = {
            "calling": origin.calling_ae_title if origin else "",
            "called": origin.called_ae_title if origin else "",
            "address": self.address,
            "port": self.port,
            "tls": self._protocol,
            "certificate": self._certificate,
            "user": _legible(self.user),
            "contexts": self._contexts,
            "instances": self.instances,
            "bytes": self.dataset_bytes,
            "refused": self.refused,
            "seconds": round(self.seconds, 3),
        }
        known = {name: value for name, value in facts.items() if value != ""}
        logger.info("association over: %s", ending, extra=known)


def _legible(name: str) -> str:
    """Of a name that a peer gives, as much as a line takes, and nothing that a terminal would obey."""
    cut = name[:MOST_NAME] + ("..." if len(name) > MOST_NAME else "")
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in cut)
