"""How faults are put to a person."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``: did you mean 'x'?`` where one of ``known`` is close, else nothing."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower()[:80], by_lower, n=1, cutoff=0.6)
    return f": did you mean {by_lower[close[0]]!r}?" if close else ""


def as_written(number: float) -> str:
    """A number with all its digits, as a person would write it."""
    return str(int(number)) if number == int(number) else str(number)


def shown(value: Any) -> str:
    """A value as a fault names it: short, and in words where it is no text."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")
