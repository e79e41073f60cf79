"""Where the node listens, how it proves itself there, and how peers do."""

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from scp.config.secrets import Secret
from scp.config.values import AeTitle, BindAddress, Folder, Port, Section
from scp.tls import ClientCertificate

CertificateName = Annotated[str, StringConstraints(min_length=1, to_lower=True)]


class ListenerTls(Section):
    """How a listener proves itself, and whom it believes (PS3.15 B.12)."""

    certificate: Folder
    """Of this node, in PEM, followed by those between it and its authority."""
    key: Folder | None = None
    """In PEM, without a passphrase, and not for everybody to read. None: beside the certificate."""
    ca: Folder | None = None
    """Whose certificates are believed of peers, in PEM: authorities, or the peers' own."""
    client_certificate: ClientCertificate = "none"
    """``optional``: a peer may come without one, but with a good one only."""

    @model_validator(mode="after")
    def _verifies_what_it_asks_for(self) -> "ListenerTls":
        if self.client_certificate == "none" and self.ca is not None:
            raise ValueError("ca has no use here: say client_certificate: optional or required")
        if self.client_certificate != "none" and self.ca is None:
            raise ValueError(
                f"client_certificate: {self.client_certificate} needs a ca that signs certificates"
            )
        return self


class RequestorTls(Section):
    """How a peer that we call is recognised, and how it recognises us (PS3.15 B.12)."""

    ca: Folder | None = None
    """Whose certificates are believed, in PEM. None: those of the system's authorities."""
    certificate: Folder | None = None
    """Of this node, in PEM, for a peer that asks for one."""
    key: Folder | None = None
    """In PEM, without a passphrase. None: beside the certificate."""
    check_host: bool = True
    """Whether the peer's certificate must name the host that is called."""

    @model_validator(mode="after")
    def _has_a_certificate_for_the_key(self) -> "RequestorTls":
        if self.key is not None and self.certificate is None:
            raise ValueError("a key needs its certificate")
        return self


class ListenerSection(Section):
    """One port."""

    port: Port
    bind: BindAddress = "0.0.0.0"  # noqa: S104 - as of the node
    ae_titles: tuple[AeTitle, ...] = ()
    """Called AE titles that are answered here; others are rejected. None: any."""
    tls: ListenerTls | None = None
    """None: plain."""


class User(Section):
    """A user identity that a peer may bring (PS3.7 D.3.3.7)."""

    name: Annotated[str, Field(min_length=1)]
    passcode: Secret | None = None
    """None: the name alone is enough."""
