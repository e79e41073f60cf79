"""What the numbers and times of acquisitions tell of slices at one place that declare nothing."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final

from pydicom.valuerep import DA, DT, TM

from scp.convert.enhanced.eligible import ACQUISITION_DATE_TIME
from scp.convert.enhanced.slices import SliceHeader
from scp.convert.enhanced.stack import Dimension, Stack, is_grid, numbered_acquisitions

_DATE, _TIME, _NUMBER = 0x00080022, 0x00080032, 0x00200012
_FEWEST: Final = 3
"""Places with one slice each, without which nobody knows what the stack is like."""

_TIMES: Final = 3
"""From so many on scans of the same places are a course of time; two may be compared for other reasons."""


def scanned_again(headers: Sequence[SliceHeader], stack: Stack) -> list[Dimension] | None:
    """A dimension, where every acquisition is of all places and begins after the one before is over."""
    acquisitions: dict[float, list[float]] = {}
    for header in headers:
        number, moment = _number(header), _acquired(header)
        if number is None or moment is None:
            return None
        acquisitions.setdefault(number, []).append(moment)
    times = len(headers) // stack.count
    if not is_grid(stack) or len(acquisitions) != times or times < _TIMES:
        return None
    in_turn = [acquisitions[number] for number in sorted(acquisitions)]
    if any(max(before) >= min(after) for before, after in pairwise(in_turn)):
        return None
    return numbered_acquisitions(headers, stack)


def surplus(headers: Sequence[SliceHeader], stack: Stack) -> frozenset[int]:
    """Indices of the slices without which there is one at each place; none where they are not obvious.

    They are where most places have one slice, whose acquisition tells which of the slices at the other
    places is of the same: by its number, or by a time between theirs, or as near to theirs as they are to
    each other.
    """
    counts = Counter(stack.places)
    alone = [index for index, place in enumerate(stack.places) if counts[place] == 1]
    if len(alone) < max(_FEWEST, stack.count // 2 + 1):
        return frozenset()
    found = {
        each
        for moments in (list(map(_number, headers)), list(map(_acquired, headers)))
        if None not in moments and (each := _outside(moments, alone, stack))
    }
    # Number and time must not contradict each other.
    return found.pop() if len(found) == 1 else frozenset()


def _outside(moments: Sequence[float | None], alone: list[int], stack: Stack) -> frozenset[int]:
    known = [moment for moment in moments if moment is not None]
    usual = sorted(known[index] for index in alone)
    slack = max(after - before for before, after in pairwise(usual))
    outside = frozenset(
        index
        for index, moment in enumerate(known)
        if not usual[0] - slack <= moment <= usual[-1] + slack
    )
    kept = Counter(place for index, place in enumerate(stack.places) if index not in outside)
    is_one_each = len(kept) == stack.count and set(kept.values()) == {1}
    return outside if is_one_each else frozenset()


def _acquired(header: SliceHeader) -> float | None:
    """When a slice was acquired, in seconds; None where it does not say, or says in which time zone."""
    if text := header.text(ACQUISITION_DATE_TIME):
        moment: datetime | None = DT(text)
    elif header.text(_DATE) and header.text(_TIME):
        date, time = DA(header.text(_DATE)), TM(header.text(_TIME))
        moment = datetime.combine(date, time) if date and time else None
    else:
        moment = None
    if moment is None or moment.tzinfo is not None:
        return None
    return (moment - datetime.min).total_seconds()


def _number(header: SliceHeader) -> float | None:
    numbers = header.numbers(_NUMBER)
    return numbers[0] if len(numbers) == 1 else None
