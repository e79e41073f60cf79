"""TLS as DICOM asks for it, for both sides of an association.

PS3.15 B.12, the profile of BCP 195 (RFC 8996 and 9325): TLS 1.2 or 1.3, forward secrecy, AES-GCM.
"""

import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from scp.errors import CertificateError

logger = logging.getLogger(__name__)

type ClientCertificate = Literal["none", "optional", "required"]

SUITES_OF_TLS_1_2: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""RFC 9325 4.2. TLS 1.3 has suites of its own, all of which are good (RFC 9325 4.3)."""

_VERIFY_MODES: Final[dict[ClientCertificate, ssl.VerifyMode]] = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}

_OTHERS_MODE: Final = 0o007
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
"""Of OpenSSL's X509_STORE_CTX_get_error(3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a certificate is for, and until when."""

    name: str
    """The common name, else the first name of another kind; empty where there is none."""
    names: frozenset[str]
    """The common name and all DNS names, in small letters."""
    not_after: float
    """Seconds since the epoch."""


def server_context(
    *, certificate: Path, key: Path | None, ca: Path | None, client_certificate: ClientCertificate
) -> ssl.SSLContext:
    """What a listener shakes hands with.

    Parameters
    ----------
    key
        None: it lies in the same file as the certificate.

    Raises
    ------
    CertificateError
        A file cannot be read or used; expiry is not looked at.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    # No tickets, which would hold in any context of the same key. What TLS 1.2 resumes by session ID it
    # resumes in the context that it began in, and a renewed certificate, or an authority that was taken
    # out, makes another (FreshContext): it counts at once.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    _present(context, certificate, key)
    if ca is not None:
        _trust(context, ca)
    context.verify_mode = _VERIFY_MODES[client_certificate]
    return context


def client_context(
    *, ca: Path | None, certificate: Path | None, key: Path | None, check_host: bool
) -> ssl.SSLContext:
    """What a requestor shakes hands with; the peer's certificate is always verified.

    Parameters
    ----------
    ca
        None: the authorities that the system trusts.
    certificate, key
        What to present when the peer asks; ``key`` as of :func:`server_context`.
    check_host
        Whether the certificate must name the host that is connected to.

    Raises
    ------
    CertificateError
        As of :func:`server_context`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    context.check_hostname = check_host
    if certificate is not None:
        _present(context, certificate, key)
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, ca)
    return context


def examine(certificate: Path, key: Path | None, *, is_server: bool = True) -> Identity:
    """Try the pair in a handshake with itself: it fits, is valid today and for this side.

    Raises
    ------
    CertificateError
        It is not.
    """
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if is_server else ssl.PROTOCOL_TLS_SERVER)
    _restrict(ours)
    _present(ours, certificate, key)
    _trust(theirs, certificate)
    for context in (ours, theirs):
        context.check_hostname = False
    theirs.verify_mode = ssl.CERT_REQUIRED
    ours.verify_mode = ssl.CERT_NONE
    if not is_server:
        # A server has to present something, and nobody looks at it here.
        _present(theirs, certificate, key)
    try:
        presented = _shake_hands(ours, theirs, is_server=is_server)
    except ssl.SSLCertVerificationError as error:
        raise CertificateError("certificate", _why_not(certificate, error)) from error
    except ssl.SSLError as error:
        raise CertificateError(
            "certificate", f"{certificate} cannot be used: {_reason(error)}"
        ) from error
    return identity_of(presented)


def examine_authorities(ca: Path) -> None:
    """See that something is there that can be trusted.

    Raises
    ------
    CertificateError
        The file cannot be read, or all of it has expired.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _trust(context, ca)
    authorities = context.get_ca_certs()
    now = time.time()
    expired = [each for each in authorities if _not_after(each) < now]
    if expired and len(expired) == context.cert_store_stats()["x509"]:
        raise CertificateError("ca", f"{ca}: every certificate in it has expired")


def identity_of(presented: Mapping[str, Any]) -> Identity:
    """Of what ``SSLSocket.getpeercert`` gives of a verified certificate."""
    common = [
        value
        for relative in presented.get("subject", ())
        for kind, value in relative
        if kind == "commonName"
    ]
    others = presented.get("subjectAltName", ())
    names = [*common, *(value for kind, value in others if kind == "DNS")]
    return Identity(
        name=next(iter([*names, *(str(value) for _, value in others)]), ""),
        names=frozenset(name.lower() for name in names),
        not_after=_not_after(presented),
    )


class FreshContext:
    """A context that follows its files: who renews a certificate restarts nothing.

    Used by several threads. Files that cannot be used, such as a certificate whose new key is not
    there yet, change nothing until they are changed again.

    Parameters
    ----------
    build
        Raises CertificateError, at the first time too.
    files
        Whose change makes it build anew.
    """

    def __init__(self, build: Callable[[], ssl.SSLContext], files: Sequence[Path]) -> None:
        self._build = build
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._look()
        self._context = build()

    def current(self) -> ssl.SSLContext:
        """For one connection."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._renew()
            return self._context

    def _renew(self) -> None:
        try:
            self._context = self._build()
        except (CertificateError, OSError) as error:  # One may be replaced while it is read.
            logger.error(
                "certificates were changed and cannot be used, the old ones stay: %s", error
            )
        else:
            logger.info("certificates read again: %s", ", ".join(map(str, self._files)))

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_state_of(file) for file in self._files]


def _state_of(file: Path) -> tuple[int, int, int] | None:
    try:
        state = os.stat(file)
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(SUITES_OF_TLS_1_2))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _present(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    key = certificate if key is None else key
    for part, file in (("certificate", certificate), ("key", key)):
        _check_readable(part, file)
    if key.stat().st_mode & _OTHERS_MODE:
        raise CertificateError(
            "key", f"{key} can be read by anyone on this machine: chmod o= {key}"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except ssl.SSLError as error:
        raise CertificateError(
            "certificate", f"{certificate} holds no certificate in PEM"
        ) from error
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _EncryptedError as error:
        message = f"{key} is encrypted, and nobody is there to type a passphrase: decrypt it"
        raise CertificateError("key", message) from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message = f"{key} is not the key of {certificate}"
        elif error.reason is None or "PEM" in error.reason:
            message = f"{key} holds no key in PEM"
        else:
            message = f"{certificate} and {key} cannot be used: {_reason(error)}"
        raise CertificateError("key", message) from error


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    _check_readable("ca", ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise CertificateError("ca", f"{ca} holds no certificate in PEM") from error
    # So that a peer's own certificate may be what is trusted.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


def _check_readable(part: str, file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise CertificateError(part, f"{file} cannot be read: {error.strerror}") from error


def _shake_hands(
    ours: ssl.SSLContext, theirs: ssl.SSLContext, *, is_server: bool
) -> dict[str, Any]:
    """Both ends in memory; returns what the other end sees of us."""
    to_them, to_us = ssl.MemoryBIO(), ssl.MemoryBIO()
    us = ours.wrap_bio(to_us, to_them, server_side=is_server)
    them = theirs.wrap_bio(to_them, to_us, server_side=not is_server)
    left = {us, them}
    while left:
        for end in tuple(left):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.discard(end)
    presented: dict[str, Any] = them.getpeercert() or {}
    return presented


def _why_not(certificate: Path, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return f"{certificate} has expired: renew it"
    if error.verify_code == _NOT_YET_VALID:
        return f"{certificate} is not valid yet: look at the clock, or at the certificate"
    return f"{certificate} cannot be used: {error.verify_message}"


class _EncryptedError(Exception):
    pass


def _no_passphrase() -> str:
    raise _EncryptedError


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _not_after(presented: Mapping[str, Any]) -> float:
    return float(ssl.cert_time_to_seconds(presented["notAfter"]))
