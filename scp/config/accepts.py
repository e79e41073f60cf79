"""Which transfer syntaxes a destination is to get: words, names or UIDs."""

from collections.abc import Collection
from typing import Any, Final

from scp.config.uids import parse_transfer_syntax

HTJ2K: Final = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202"})
"""The lossless ones (PS3.5 A.4.9)."""
NATIVE: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Explicit and Implicit VR Little Endian, the more wanted first."""
_WORDS: Final = ("htj2k", "original", "native")


def parse_accepted(value: Any) -> Any:
    """``htj2k``, ``original``, ``native``, the name of a transfer syntax, or its UID.

    In capitals too: the standard's HTJ2K is the one that may be lossy, which nobody means here.
    """
    word = str(value).strip().lower()
    return word if word in _WORDS else parse_transfer_syntax(value)


def check_accepts_something(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("nothing could be sent: name something, or leave it out for everything")
    return value


def is_accepted(transfer_syntax: str, original: str, accepts: Collection[str] | None) -> bool:
    """Whether a file in a transfer syntax may go, of an instance that came in ``original``."""
    if accepts is None or transfer_syntax in accepts:
        return True
    return (
        ("htj2k" in accepts and transfer_syntax in HTJ2K)
        or ("original" in accepts and transfer_syntax == original)
        or ("native" in accepts and transfer_syntax in NATIVE)
    )
