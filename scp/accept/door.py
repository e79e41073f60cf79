"""One port that peers come in by, and what holds for those who do."""

import socket
import ssl

from scp import tls
from scp.config.network import ListenerSection


class Door:
    """A bound socket and its section of the configuration.

    Parameters
    ----------
    listening
        Bound and listening; several receivers may share it.
    section
        Of this socket.

    Raises
    ------
    CertificateError
        What its section ``tls`` names cannot be used.
    """

    def __init__(self, listening: socket.socket, section: ListenerSection) -> None:
        self.socket = listening
        self.port: int = listening.getsockname()[1]
        self._titles = frozenset(section.ae_titles)
        self._context = _fresh_context(section)

    def answers_to(self, called_ae_title: str) -> bool:
        """Whether this is one of the AE titles that peers may call here."""
        return not self._titles or called_ae_title in self._titles

    def tls_context(self) -> ssl.SSLContext | None:
        """For one connection; None: it is plain."""
        return None if self._context is None else self._context.current()


def _fresh_context(section: ListenerSection) -> tls.FreshContext | None:
    pair = section.tls
    if pair is None:
        return None
    return tls.FreshContext(
        lambda: tls.server_context(
            certificate=pair.certificate,
            key=pair.key,
            ca=pair.ca,
            client_certificate=pair.client_certificate,
        ),
        [file for file in (pair.certificate, pair.key, pair.ca) if file is not None],
    )
