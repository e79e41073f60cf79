"""Finds what there is of a patient without keeping who it is.

The ledger has a keyed hash (HMAC-SHA-256, RFC 2104) of each Patient ID (0010,0020). Without the key,
which lies in the data folder and in no database, nobody can try all numbers that a hospital may have
given. The same id in two installations has two hashes.
"""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final, Self

from scp.durable import Disk
from scp.errors import NodeError, StorageFullError

_KEY_BYTES: Final = 32


class PatientHash:
    """Hashes Patient IDs with the key of one installation."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, path: Path) -> Self:
        """With the key in this file.

        Raises
        ------
        NodeError
            There is none, or it cannot be read.
        """
        try:
            key = path.read_bytes()
        except OSError as error:
            raise NodeError(f"the key {path} cannot be read: {error.strerror}") from error
        if len(key) != _KEY_BYTES:
            raise NodeError(
                f"the key {path} is damaged: put it back from a backup, or delete it; with a new one "
                "nobody is found of whom images came before"
            )
        return cls(key)

    @classmethod
    def open_or_make(cls, path: Path, disk: Disk) -> Self:
        """As :meth:`open`, with a new key where there is none; durable on return.

        Raises
        ------
        NodeError
            It cannot be read or made.
        """
        if not path.exists():
            try:
                disk.publish(path, secrets.token_bytes(_KEY_BYTES))
            except (OSError, StorageFullError) as error:
                raise NodeError(f"the key {path} cannot be made: {error}") from error
        return cls.open(path)

    def of(self, patient_id: str) -> str:
        """In hexadecimal; empty for an empty id. Spaces around it do not count."""
        text = patient_id.strip()
        if not text:
            return ""
        return hmac.new(self._key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
