"""How one logs in somewhere: where secrets and certificates lie."""

import os
from typing import Any

from pydantic import model_validator

from scp.config.values import Folder, Section
from scp.errors import DeliveryError


class Secret(Section):
    """Where a secret lies. It is read when it is used, so that it may change while the node runs."""

    file: Folder | None = None
    """Its content, without white space around it."""
    environment: str | None = None
    """A variable of the node's environment."""

    @model_validator(mode="before")
    @classmethod
    def _is_not_written_here(cls, value: Any) -> Any:
        if not isinstance(value, dict | Secret):  # Not shown: it may be the secret.
            raise ValueError("no secret stands here: write {file: PATH} or {environment: NAME}")
        return value

    @model_validator(mode="after")
    def _lies_in_one_place(self) -> "Secret":
        if (self.file is None) == (self.environment is None):
            raise ValueError("a secret is given by file or by environment, one of them")
        return self

    @property
    def where(self) -> str:
        """The place, for a person."""
        if self.environment is not None:
            return f"the environment variable {self.environment}"
        return str(self.file)

    def read(self) -> str:
        """The secret itself; never logged.

        Raises
        ------
        DeliveryError
            It is not there.
        """
        where = self.where
        if self.environment is not None:
            found = os.environ.get(self.environment, "").strip()
        else:
            assert self.file is not None
            try:
                found = self.file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is no text"
                raise DeliveryError(f"the secret in {where} cannot be read: {why}") from error
        if not found:
            raise DeliveryError(f"the secret in {where} is empty")
        return found


class ClientTls(Section):
    """How a server is recognised, and how it recognises us. PEM files."""

    ca: Folder | None = None
    """Certificates of the authorities that are trusted; None: those of the system."""
    certificate: Folder | None = None
    """Ours, with those between it and the authority."""
    key: Folder | None = None
    """Of ``certificate``; None: it lies in the same file."""

    @model_validator(mode="after")
    def _has_a_certificate_for_the_key(self) -> "ClientTls":
        if self.key is not None and self.certificate is None:
            raise ValueError("a key needs its certificate")
        return self
