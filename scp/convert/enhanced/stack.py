"""Where the slices of a group lie along their normal, and what tells those at one place apart."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from scp.convert.enhanced.diffusion import B_VALUE, DIRECTION, Place, diffusion, place_of
from scp.convert.enhanced.eligible import (
    ACQUISITION_DATE_TIME,
    ORIENTATION,
    POSITION,
    image_words,
)
from scp.convert.enhanced.slices import SliceHeader

SAME_PLACE_MM: Final = 1e-3
"""Positions written with a few digits differ by less; what moved may differ by more."""
BESIDE_MM: Final = 1.0
"""From where on slices of one place lie beside each other, like those of two hands."""
_EVEN: Final = 0.01
"""How much of a slice distance a step may deviate and the stack still count as even."""

_FRAME_CONTENT, _UNASSIGNED = 0x00209111, 0x00209171
_TEMPORAL_INDEX = 0x00209128
_TEMPORAL_ID, _CARDIAC_PHASE, _TRIGGER = 0x00200100, 0x00209241, 0x00181060
_FRAME_REFERENCE_TIME = 0x00541300
_DATE, _TIME, _NUMBER = 0x00080022, 0x00080032, 0x00200012
_INSTANCE_NUMBER, _TEMPORAL_COUNT, _CARDIAC_COUNT = 0x00200013, 0x00200105, 0x00181090

type Vector = tuple[float, float, float]
type Value = tuple[float | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One dimension beside space (PS3.3 C.7.6.17)."""

    label: str
    pointer: int
    """The attribute that varies along it."""
    group: int
    """The functional group sequence that holds it."""
    creator: str = ""
    """Of an attribute that is a vendor's own."""
    indices: tuple[int, ...]
    """From 1, one for each frame."""

    @property
    def is_temporal(self) -> bool:
        return self.pointer == _TEMPORAL_INDEX


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Slices of one orientation, not ordered yet."""

    places: tuple[int, ...]
    """For each slice the number of its place along the normal, from 0."""
    spacing: float | None
    """Millimetres from place to place; None where the places, or the slices at one, are not even."""
    gap: float
    """The fewest millimetres between the slices of two places; infinite where there is but one."""
    width: float
    """The most millimetres between slices of one place, along the normal."""
    is_straight: bool
    """Whether the places lie behind each other along the normal, not sheared by a gantry's tilt."""
    is_aligned: bool
    """Whether the slices of each place cover each other."""

    @property
    def count(self) -> int:
        return max(self.places) + 1

    @property
    def is_repeated(self) -> bool:
        return self.count < len(self.places)


def directions_of(header: SliceHeader) -> tuple[Vector, Vector]:
    """Of rows and columns (PS3.3 C.7.6.2.1.1); of unit length, which three digits do not make them."""
    x, y, z, *column = header.numbers(ORIENTATION)
    return _unit((x, y, z)), _unit((column[0], column[1], column[2]))


def normal_of(header: SliceHeader) -> Vector:
    """Row direction times column direction; of unit length, because distances are measured along it."""
    (a, b, c), (d, e, f) = directions_of(header)
    return _unit((b * f - c * e, c * d - a * f, a * e - b * d))


def _unit(vector: Vector) -> Vector:
    x, y, z = vector
    length = math.hypot(x, y, z)
    return x / length, y / length, z / length


def depths_of(headers: Sequence[SliceHeader]) -> list[float]:
    """Millimetres along the normal of the first slice."""
    normal = normal_of(headers[0])
    return [math.sumprod(normal, header.numbers(POSITION)) for header in headers]


def stack_of(headers: Sequence[SliceHeader], same_place: float = SAME_PLACE_MM) -> Stack:
    """Find the places, in ascending order along the normal of the first slice.

    Parameters
    ----------
    same_place
        Millimetres from one slice to the next at the same place, at most.
    """
    normal = normal_of(headers[0])
    points = [header.numbers(POSITION) for header in headers]
    depths = depths_of(headers)
    order = sorted(range(len(headers)), key=depths.__getitem__)
    places = [0] * len(headers)
    first_of = [order[0]]
    gap, width = math.inf, 0.0
    for before, index in pairwise(order):
        if (step := depths[index] - depths[before]) > same_place:
            gap = min(gap, step)
            first_of.append(index)
        places[index] = len(first_of) - 1
        width = max(width, depths[index] - depths[first_of[-1]])
    steps = [depths[b] - depths[a] for a, b in pairwise(first_of)]
    spacing = None
    if steps:
        mean = (depths[first_of[-1]] - depths[first_of[0]]) / len(steps)
        slack = max(_EVEN * mean, SAME_PLACE_MM)
        if width <= slack and all(abs(step - mean) <= slack for step in steps):
            spacing = mean
    return Stack(
        places=tuple(places),
        spacing=spacing,
        gap=gap,
        width=width,
        is_straight=_is_straight([points[i] for i in first_of], normal, spacing or 1.0),
        is_aligned=all(
            math.dist(point, points[first_of[place]]) < BESIDE_MM
            for point, place in zip(points, places, strict=True)
        ),
    )


def _is_straight(points: list[tuple[float, ...]], normal: Vector, spacing: float) -> bool:
    origin = points[0]
    for point in points[1:]:
        way = [a - b for a, b in zip(point, origin, strict=True)]
        along = math.sumprod(way, normal)
        aside = math.dist(way, [along * part for part in normal])
        if aside > max(_EVEN * spacing, SAME_PLACE_MM) * len(points):
            return False
    return True


def declared_dimensions(headers: Sequence[SliceHeader], stack: Stack) -> list[Dimension] | None:
    """What the modality says varies at one place: time, cardiac phase, diffusion weighting.

    None where that does not tell every slice from its neighbours at the same place.
    """
    candidates = (*_WEIGHTINGS, *_TIMES) if is_weighted(headers) else (*_TIMES, *_WEIGHTINGS)
    return _first_that_explains(headers, stack, candidates)


def is_weighted(headers: Sequence[SliceHeader]) -> bool:
    """Whether diffusion weightings may be what differs, so that it is not taken for time."""
    said = {(diffusion(header, B_VALUE), diffusion(header, DIRECTION)) for header in headers}
    return len(said) > 1 or "DIFFUSION" in image_words(headers[0])


def undeclared_times(headers: Sequence[SliceHeader], stack: Stack) -> list[Dimension] | None:
    """Acquisitions repeated over time, told by their number (MR) or their time; else None."""
    by_number = ((_NUMBER,),) if headers[0].text(0x00080060) == "MR" else ()
    candidates = (
        *((candidate,) for candidate in by_number),
        ((ACQUISITION_DATE_TIME,),),
        ((_DATE, _TIME),),
    )
    return _first_that_explains(headers, stack, candidates)


def numbered_acquisitions(headers: Sequence[SliceHeader], stack: Stack) -> list[Dimension] | None:
    """The number of the acquisition as a dimension, where it tells all slices at one place apart."""
    return _first_that_explains(headers, stack, (((_NUMBER,),),))


def numbered_times(headers: Sequence[SliceHeader], stack: Stack) -> list[Dimension] | None:
    """Repetitions that are announced but told apart by nothing else than the instances' numbers.

    Only where the numbers run through the places in a regular way, time after time or place after place.
    """
    announced = all(
        max(h.numbers(_TEMPORAL_COUNT) or h.numbers(_CARDIAC_COUNT) or (0,)) > 1 for h in headers
    )
    column = [_value(header, (_INSTANCE_NUMBER,)) for header in headers]
    if not announced or not all(column) or len(set(column)) != len(column) or not is_grid(stack):
        return None
    by_number = [stack.places[i] for i in sorted(range(len(column)), key=column.__getitem__)]
    repeats = len(column) // stack.count
    is_time_by_time = by_number == by_number[: stack.count] * repeats
    is_place_by_place = by_number == [
        place for place in by_number[::repeats] for _ in range(repeats)
    ]
    if not is_time_by_time and not is_place_by_place:
        return None
    return [_dimension(_INSTANCE_NUMBER, column, stack, headers)]


_LABELS: Final = {
    _INSTANCE_NUMBER: "Instance Number",
    _TEMPORAL_ID: "Temporal Position Identifier",
    _TEMPORAL_INDEX: "Temporal Position Index",
    _CARDIAC_PHASE: "Nominal Percentage of Cardiac Phase",
    _TRIGGER: "Trigger Time",
    _FRAME_REFERENCE_TIME: "Frame Reference Time",
    B_VALUE: "Diffusion b-value",
    DIRECTION: "Diffusion Gradient Orientation",
    _NUMBER: "Acquisition Number",
    ACQUISITION_DATE_TIME: "Acquisition DateTime",
    _DATE: "Acquisition Time",
}
_OPTIONAL: Final = frozenset((DIRECTION,))
"""Without diffusion weighting there is no direction."""

type Candidate = tuple[tuple[int, ...], ...]
"""Attributes, each of one or more tags, that may tell slices at one place apart."""

_WEIGHTING: Final[Candidate] = ((B_VALUE,), (DIRECTION,))
_TIMES: Final[tuple[Candidate, ...]] = (
    ((_TEMPORAL_ID,),),
    ((_TEMPORAL_INDEX,),),
    ((_CARDIAC_PHASE,),),
    ((_TRIGGER,),),
    ((_FRAME_REFERENCE_TIME,),),
)
_WEIGHTINGS: Final[tuple[Candidate, ...]] = (
    _WEIGHTING,
    ((_TEMPORAL_ID,), *_WEIGHTING),
    # Images without weighting are often taken several times.
    (*_WEIGHTING, (_NUMBER,)),
    (*_WEIGHTING, (_TRIGGER,)),
)
DECLARED: Final[tuple[Candidate, ...]] = (
    *_TIMES[:3],
    _WEIGHTING,
    ((_TEMPORAL_ID,), *_WEIGHTING),
    ((B_VALUE,),),
)
"""What differs between whole volumes only."""
COUNTED: Final[tuple[Candidate, ...]] = (
    *_TIMES[3:],
    ((_NUMBER,),),
    ((ACQUISITION_DATE_TIME,),),
    ((_DATE, _TIME),),
)
"""What differs between whole volumes, or from slice to slice or package to package of one."""


def varying(headers: Sequence[SliceHeader]) -> dict[Candidate, list[tuple[Value, ...]]]:
    """Of what is declared and counted all that differs, with the values of each slice."""
    columns = {
        tags: [_value(header, tags) for header in headers]
        for tags in dict.fromkeys(tags for each in (*DECLARED, *COUNTED) for tags in each)
    }
    return {
        candidate: list(zip(*(columns[tags] for tags in candidate), strict=True))
        for candidate in (*DECLARED, *COUNTED)
        if any(len(set(columns[tags])) > 1 for tags in candidate)
    }


def _first_that_explains(
    headers: Sequence[SliceHeader], stack: Stack, candidates: Sequence[Candidate]
) -> list[Dimension] | None:
    for candidate in candidates:
        columns = [[_value(header, tags) for header in headers] for tags in candidate]
        if not all(
            tags[0] in _OPTIONAL or _can_be_ranked(tags[0], column, stack)
            for tags, column in zip(candidate, columns, strict=True)
        ):
            continue
        keys = set(zip(stack.places, *columns, strict=True))
        if len(keys) == len(headers):
            return [
                _dimension(tags[0], column, stack, headers)
                for tags, column in zip(candidate, columns, strict=True)
                if len(set(column)) > 1
            ]
    return None


def _can_be_ranked(tag: int, column: list[Value], stack: Stack) -> bool:
    """Whether every slice has a value, all of one kind, and slices of equal rank belong together.

    Times that differ from place to place are told by their order at each place, which says nothing where
    a slice is missing or there once more.
    """
    if not all(column) or len({type(value[0]) for value in column}) > 1:
        return False
    repeats = max(Counter(stack.places).values())
    return tag == B_VALUE or len(set(column)) <= repeats or is_grid(stack)


def _value(header: SliceHeader, tags: tuple[int, ...]) -> Value:
    if tags[0] in (B_VALUE, DIRECTION):
        return diffusion(header, tags[0])
    numbers = tuple(number for tag in tags for number in header.numbers(tag))
    return numbers or tuple(text for tag in tags for text in header.texts(tag))


def _dimension(
    tag: int, column: list[Value], stack: Stack, headers: Sequence[SliceHeader]
) -> Dimension:
    is_diffusion = tag in (B_VALUE, DIRECTION)
    place = place_of(headers, tag) if is_diffusion else Place(pointer=_TEMPORAL_INDEX)
    repeats = len(column) / stack.count
    distinct = len(set(column))
    if not is_diffusion and distinct > repeats and is_grid(stack):
        # Times differ a little from place to place; their order is what they have in common.
        indices = _ranks_at_each_place(column, stack)
    else:
        ranks = {value: rank for rank, value in enumerate(sorted(set(column)), 1)}
        indices = tuple(ranks[value] for value in column)
    return Dimension(
        label=_LABELS[tag],
        pointer=place.pointer,
        creator=place.creator,
        group=_UNASSIGNED if is_diffusion else _FRAME_CONTENT,
        indices=indices,
    )


def is_grid(stack: Stack) -> bool:
    """Whether as many slices lie at each place as at any other."""
    return len(set(Counter(stack.places).values())) == 1


def _ranks_at_each_place(column: list[Value], stack: Stack) -> tuple[int, ...]:
    seen: dict[int, int] = {}
    indices = [0] * len(column)
    for index in sorted(range(len(column)), key=column.__getitem__):
        place = stack.places[index]
        seen[place] = indices[index] = seen.get(place, 0) + 1
    return tuple(indices)
