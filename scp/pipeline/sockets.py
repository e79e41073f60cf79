"""The ports of a node: had by the supervisor, inherited by the receivers."""

import logging
import socket

from scp import tls
from scp.config.network import ListenerSection
from scp.errors import CertificateError, NodeError

logger = logging.getLogger(__name__)


def bind(section: ListenerSection) -> socket.socket:
    """Have the port, without listening.

    Raises
    ------
    NodeError
        Somebody else has it, or it may not be had.
    """
    family = socket.AF_INET6 if ":" in section.bind else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((section.bind, section.port))
    except OSError as error:
        listener.close()
        raise NodeError(
            f"port {section.port} on {section.bind} cannot be had: {error.strerror}; "
            "stop what uses it, or choose another with port:"
        ) from error
    return listener


def check_certificates(section: ListenerSection) -> None:
    """See that a listener can shake hands at all.

    A certificate that has expired is an error in the log only: some peers do not mind, and other
    ports are to answer all the same.

    Raises
    ------
    CertificateError
        A file cannot be read or used.
    """
    pair = section.tls
    if pair is None:
        return
    tls.server_context(
        certificate=pair.certificate,
        key=pair.key,
        ca=pair.ca,
        client_certificate=pair.client_certificate,
    )
    try:
        tls.examine(pair.certificate, pair.key)
        if pair.ca is not None:
            tls.examine_authorities(pair.ca)
    except CertificateError as error:
        logger.error("TLS on port %d: %s", section.port, error)
