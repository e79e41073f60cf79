"""How many files a receiver has open: with fewer it would turn peers away that it has places for."""

import resource
from typing import Final

from scp.accept.seats import HALL
from scp.config.schema import LimitsSection

_EACH: Final = 4
"""Of an association: its connection, the instance, and, while that lands, the folders of its series."""
_OTHERS: Final = 100
"""Listeners, pipes, logs, libraries."""


def needed_descriptors(limits: LimitsSection) -> int:
    """Of one receiver, when all associations are with it and its hall is full."""
    return _EACH * limits.max_associations + HALL + _OTHERS


def allowed_descriptors() -> int | None:
    """What the system allows a process at most (ulimit -Hn); None: any number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else hard


def allow_descriptors(needed: int) -> None:
    """Raise this process's own limit so far, or as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def shortage(limits: LimitsSection) -> str | None:
    """In one sentence, what is wrong where the system allows too few; None: nothing is."""
    needed, allowed = needed_descriptors(limits), allowed_descriptors()
    if allowed is None or needed <= allowed:
        return None
    return (
        f"{limits.max_associations} associations may need {needed:,} open files in a receiver, and this "
        f"system allows {allowed:,}: raise that (ulimit -Hn, LimitNOFILE of systemd), or lower "
        "limits.max_associations"
    )
