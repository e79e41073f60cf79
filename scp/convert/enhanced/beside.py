"""Slices of one place that lie beside each other: of two hands, or of times before and after a move."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from scp.convert.enhanced.eligible import POSITION
from scp.convert.enhanced.slices import SliceHeader
from scp.convert.enhanced.stack import (
    BESIDE_MM,
    SAME_PLACE_MM,
    Stack,
    directions_of,
    stack_of,
    varying,
)

_MOST_SPOTS: Final = 256
"""Different spots in the plane that are compared; regions and times are few."""

type Spot = tuple[float, float]
"""Millimetres along rows and columns."""


def beside(headers: Sequence[SliceHeader], stack: Stack) -> list[bytes] | None:
    """For each slice what sets those apart that cover each other; None where nothing does it cleanly.

    By where they lie, so that several times at one spot stay together; else by what tells times apart. Each
    part has slices at most of the places, as many at each of these as at any other.
    """
    spots = _spots(headers)
    if spots is not None and _are_whole(headers, stack, spots):
        return spots
    for candidate in varying(headers).values():
        values = [repr(value).encode() for value in candidate]
        if _are_whole(headers, stack, values):
            return values
    return None


def _spots(headers: Sequence[SliceHeader]) -> list[bytes] | None:
    """A name for the spot of each slice; what is near another spot is of the same."""
    row, column = directions_of(headers[0])
    points: list[Spot] = []
    for header in headers:
        position = header.numbers(POSITION)
        along = math.sumprod(row, position), math.sumprod(column, position)
        points.append((round(along[0], 2), round(along[1], 2)))
    left = sorted(set(points))
    if len(left) > _MOST_SPOTS:
        return None
    names: dict[Spot, bytes] = {}
    while left:
        near = [left.pop(0)]
        name = "beside {:.2f}\\{:.2f}".format(*near[0]).encode()
        while near:
            point = near.pop()
            names[point] = name
            others = [each for each in left if math.dist(each, point) < BESIDE_MM]
            near += others
            left = [each for each in left if each not in others]
    return [names[point] for point in points]


def _are_whole(headers: Sequence[SliceHeader], stack: Stack, values: Sequence[bytes]) -> bool:
    """Whether there are several parts, each aligned and a grid over most of the places."""
    parts: dict[bytes, list[int]] = {}
    for index, value in enumerate(values):
        parts.setdefault(value, []).append(index)
    width = max(stack.width, SAME_PLACE_MM)
    if len(parts) == 1:
        return False
    for part in parts.values():
        counts = Counter(stack.places[index] for index in part)
        is_grid = len(set(counts.values())) == 1 and 2 * len(counts) > stack.count
        if not is_grid or not stack_of([headers[index] for index in part], width).is_aligned:
            return False
    return True
