"""UIDs that depend on content alone, so that the same series always becomes the same object."""

import hashlib
import uuid
from collections.abc import Iterable
from typing import Final

from scp.convert.enhanced.groups import Volume

ALGORITHM: Final = b"dcmpress enhanced 5"
"""Changes when the same frames are to become another object."""

_SOP_INSTANCE, _SERIES = 0x00080018, 0x0020000E


def sop_instance_uid(volume: Volume) -> str:
    """Of its series and the sorted list of (SOP Instance UID, digest of the dataset) of the frames.

    Of its series, because that also depends on what the frames were set apart from.
    """
    members = sorted(
        f"{header.text(_SOP_INSTANCE)} {header.source.dataset_sha256}" for header in volume.headers
    )
    return derived("instance", series_instance_uid(volume), *members)


def series_instance_uid(volume: Volume) -> str:
    """Of the source series and what sets this volume apart in it; a later slice does not change it."""
    key = repr(volume.key).encode()
    return derived("series", volume.headers[0].text(_SERIES), hashlib.sha256(key).hexdigest())


def derived(*parts: str) -> str:
    """A UID under 2.25 (PS3.5 B.2) that depends on ``parts`` alone."""
    return f"2.25.{uuid.UUID(bytes=_digest(parts), version=5).int}"


def _digest(parts: Iterable[str]) -> bytes:
    whole = hashlib.sha256(ALGORITHM)
    for part in parts:
        whole.update(b"\0" + part.encode())
    return whole.digest()[:16]
