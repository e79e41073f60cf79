"""Patients are found by a hash that nobody can undo who has only the ledger."""

import errno
import hashlib
import hmac
import stat
from pathlib import Path

import pytest

from scp.durable import Disk
from scp.errors import NodeError
from scp.ledger.patients import PatientHash
from tests.buffer.recorder import HookedDisk


def test_the_hash_is_hmac_sha_256_with_the_key_of_the_installation(tmp_path: Path) -> None:
    made = PatientHash.open_or_make(tmp_path / "key", Disk())
    key = (tmp_path / "key").read_bytes()

    assert made.of("123") == hmac.new(key, b"123", hashlib.sha256).hexdigest()
    assert made.of(" 123 ") == made.of("123") != made.of("124")
    assert made.of("Müller-7") == PatientHash.open(tmp_path / "key").of("Müller-7")


def test_the_key_stays_and_every_installation_has_its_own(tmp_path: Path) -> None:
    first = PatientHash.open_or_make(tmp_path / "a", Disk())
    again = PatientHash.open_or_make(tmp_path / "a", Disk())
    other = PatientHash.open_or_make(tmp_path / "b", Disk())

    assert first.of("123") == again.of("123") != other.of("123")
    assert not stat.S_IMODE((tmp_path / "a").stat().st_mode) & stat.S_IRWXO


def test_nobody_has_no_hash(tmp_path: Path) -> None:
    made = PatientHash.open_or_make(tmp_path / "key", Disk())

    assert made.of("") == made.of("  ") == ""
    assert len(made.of("\udcff")) == 64


def test_a_key_that_is_missing_damaged_or_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="cannot be read: No such file"):
        PatientHash.open(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(NodeError, match="is damaged: put it back from a backup"):
        PatientHash.open_or_make(tmp_path / "short", Disk())

    def full(operation: str, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NodeError, match="cannot be made"):
        PatientHash.open_or_make(tmp_path / "none", HookedDisk(full))
