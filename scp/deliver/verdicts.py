"""What answers mean for the queue, in one place for every kind of destination.

Statuses of C-STORE and the failure reasons of STOW-RS are one vocabulary (PS3.4 table B.2-1, PS3.7
annex C, PS3.18 table 10.5.3-1); rejections of an association are PS3.8 table 9-21; statuses of HTTP
are RFC 9110. ``docs/destinations.md`` shows the same tables to a user.
"""

from typing import Final

from scp.deliver.ports import Verdict
from scp.errors import PeerRejectedError, PeerUnavailableError

_WARNINGS: Final = (0x0001, 0x0107, 0x0116)
_REFUSED: Final = (0x0122, 0x0124)

_REASONS: Final = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
_TRANSIENT_RESULT: Final = 2
_CONGESTION: Final = ((3, 1), (3, 2))

_HTTP_OF_PEER_FOR_NOW: Final = (408, 425, 429, 502, 503, 504, 507)
_HTTP_OF_PEER: Final = (401, 402, 403, 404, 405, 407, 410, 421, 426, 431, 451, 501, 505, 511)
_HTTP_REFUSED: Final = (406, 413, 415)


def verdict_of_status(status: int) -> Verdict:
    """What the status of a C-STORE-RSP means, or a FailureReason (0008,1197) of STOW-RS."""
    if status == 0x0000:
        return Verdict.DELIVERED
    if status == 0x0111:
        return Verdict.ALREADY_THERE
    if status >> 12 == 0xB or status in _WARNINGS:
        return Verdict.WARNING
    if status >> 8 == 0xA7:
        return Verdict.TRANSIENT
    if status >> 8 == 0xA9 or status in _REFUSED:
        return Verdict.REFUSED
    return Verdict.LIMITED


def rejection_error(
    result: int, source: int, reason: int
) -> PeerRejectedError | PeerUnavailableError:
    """The error that the three numbers of an A-ASSOCIATE-RJ amount to."""
    why = _REASONS.get((source, reason), f"source {source}, reason {reason}")
    text = f"association rejected: {why}"
    # Congestion passes, whatever the peer says of its rejection.
    if result == _TRANSIENT_RESULT or (source, reason) in _CONGESTION:
        return PeerUnavailableError(f"{text} (transient)")
    return PeerRejectedError(f"{text} (permanent)")


def http_error(
    status: int, server: str, retry_after: float = 0.0
) -> PeerRejectedError | PeerUnavailableError | None:
    """The error that a status of HTTP amounts to; None where it speaks of the instances sent.

    ``server`` names who answered, for the message; ``retry_after`` is what it said of when to come
    again, in seconds.
    """
    if status in _HTTP_OF_PEER_FOR_NOW:
        told = f" and wants to be left alone for {retry_after:.0f} s" if retry_after else ""
        return PeerUnavailableError(f"{server} answers {status}{told}", retry_after)
    if status in _HTTP_OF_PEER or 300 <= status < 400 or not 200 <= status < 600:
        return PeerRejectedError(f"{server} answers {status}")
    return None


def verdict_of_http(status: int) -> Verdict:
    """What a status of HTTP means for an instance of which its body says nothing more.

    For statuses that :func:`http_error` does not take for the whole server's.
    """
    if status == 202:
        return Verdict.WARNING
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status == 409:
        return Verdict.ALREADY_THERE
    if status in _HTTP_REFUSED:
        return Verdict.REFUSED
    return Verdict.LIMITED
