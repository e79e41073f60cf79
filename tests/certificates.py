"""Certificates of an authority that is made for one test, as files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """Signs certificates; every file lies in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self._numbers = 0
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str = "localhost", *, days: int = 90) -> tuple[Path, Path]:
        """A certificate of this common and DNS name and its key; with ``days`` < 0 it has expired."""
        leaf = self._ca.issue_cert(
            name, common_name=name, not_after=datetime.now(UTC) + timedelta(days=days)
        )
        self._numbers += 1
        certificate = self._folder / f"{self._numbers}.pem"
        key = certificate.with_suffix(".key")
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(leaf.private_key_pem.bytes())
        return certificate, key
