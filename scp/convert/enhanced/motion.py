"""Where slices lie that moved between two times or weightings, as a head does and a scanner after it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from scp.convert.enhanced.eligible import SLICE_THICKNESS
from scp.convert.enhanced.slices import SliceHeader
from scp.convert.enhanced.stack import (
    DECLARED,
    SAME_PLACE_MM,
    Stack,
    Value,
    depths_of,
    is_grid,
    stack_of,
    varying,
)

_MOVED: Final = 0.25
"""The part of a slice distance by which a place may move; packages between each other lie further apart."""
_MOST_MM: Final = 1.0
_UNTOLD: Final = 0.1
"""The part of the slice thickness by which it may where nothing tells several times."""

type Parts = list[list[int]]
"""Indices of slices, by what they say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where slices lie, or by what they are to be parted first."""

    stack: Stack
    apart: tuple[tuple[Value, ...], ...] = ()
    """For each slice what is declared, and differs at places that are no longer the same."""


def placed(headers: Sequence[SliceHeader]) -> Placed:
    """Find the places of slices, each the same at every time, or else what they are to be parted by.

    Slices of two declared times or weightings are never neighbours in one stack.
    """
    thickness = min((n for h in headers for n in h.numbers(SLICE_THICKNESS) if n > 0), default=1.0)
    said = varying(headers)
    candidates = [
        (candidate, parts)
        for candidate, values in said.items()
        # What is counted may also differ from slice to slice.
        if candidate in DECLARED or _are_stacks(_parts(values))
        for parts in (_parts(values),)
    ]
    for candidate, parts in candidates:
        moved = _of_one_place_each(headers, parts, thickness)
        if moved and (candidate in DECLARED or is_grid(moved)):
            return Placed(stack=moved)
    stack = stack_of(headers, max(_UNTOLD * thickness, SAME_PLACE_MM))
    if stack.count == 1 or stack.width > min(_UNTOLD * thickness, _MOVED * stack.gap):
        stack = stack_of(headers)
    for candidate, parts in candidates:
        if candidate in DECLARED:
            is_mixed = not stack.is_repeated or _is_crowded(headers, stack, parts, thickness)
        else:
            is_mixed = not stack.is_repeated and stack.spacing is None and _overlap(headers, parts)
        if is_mixed:
            return Placed(stack=stack, apart=tuple(said[candidate]))
    return Placed(stack=stack)


def _parts(values: Sequence[object]) -> Parts:
    parts: dict[object, list[int]] = {}
    for index, value in enumerate(values):
        parts.setdefault(value, []).append(index)
    return list(parts.values())


def _are_stacks(parts: Parts) -> bool:
    sizes = {len(part) for part in parts}
    return len(sizes) == 1 and min(sizes) > 1


def _of_one_place_each(
    headers: Sequence[SliceHeader], parts: Parts, thickness: float
) -> Stack | None:
    """The places that the parts have in common, where each part alone is a stack."""
    own = list(_stacks(headers, parts))
    if any(stack.is_repeated for stack in own):
        return None
    distance = min((stack.gap for stack in own), default=math.inf)
    if math.isinf(distance):
        distance = thickness
    tolerance = min(_MOVED * distance, _MOST_MM)
    stack = stack_of(headers, max(tolerance, SAME_PLACE_MM))
    is_one = stack.is_repeated and stack.width <= tolerance
    return stack if is_one and stack.gap >= (1 - _MOVED) * distance else None


def _is_crowded(
    headers: Sequence[SliceHeader], stack: Stack, parts: Parts, thickness: float
) -> bool:
    """Whether slices of several parts lie between each other rather than at one place."""
    own = min(each.gap for each in _stacks(headers, parts))
    return stack.gap < min((1 - _MOVED) * own, thickness) or stack.gap < _MOVED * thickness


def _stacks(headers: Sequence[SliceHeader], parts: Parts) -> Iterator[Stack]:
    return (stack_of([headers[index] for index in part]) for part in parts)


def _overlap(headers: Sequence[SliceHeader], parts: Parts) -> bool:
    depths = depths_of(headers)
    extents = sorted((min(d), max(d)) for part in parts if (d := [depths[i] for i in part]))
    return any(after[0] < before[1] - SAME_PLACE_MM for before, after in pairwise(extents))
