"""Splits a closed series into volumes where a radiologist would, and says what stays single-frame."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from scp.convert.enhanced.acquisitions import scanned_again, surplus
from scp.convert.enhanced.beside import beside
from scp.convert.enhanced.eligible import (
    IMAGE_TYPE,
    ORIENTATION,
    RESCALE_TYPE,
    SPACING,
    refuse_ineligible,
)
from scp.convert.enhanced.motion import placed
from scp.convert.enhanced.refusals import NotCollapsed, NotCollapsedError
from scp.convert.enhanced.slices import Interned, SliceHeader, SourceSlice, read_header
from scp.convert.enhanced.stack import (
    Dimension,
    Stack,
    Value,
    Vector,
    declared_dimensions,
    directions_of,
    is_weighted,
    numbered_times,
    undeclared_times,
)
from scp.model import CollapseReason

_SOP_INSTANCE, _MODALITY, _ACQUISITION = 0x00080018, 0x00080060, 0x00200012
_ROWS, _COLUMNS, _ALLOCATED = 0x00280010, 0x00280011, 0x00280100

_EQUAL: Final = (
    0x00080005, 0x00080016, 0x0020000D, 0x0020000E, 0x00200052,  # character set, class, UIDs
    0x00100010, 0x00100020, 0x00100021, 0x00100030, 0x00100040,  # the patient
    0x00080020, 0x00080030, 0x00080050, 0x00080090, 0x00200010,  # the study
    0x00080070, 0x00080080, 0x00080081, 0x00081010, 0x00081040, 0x00081090,  # the equipment
    0x00181000, 0x00181008, 0x00181020,
    IMAGE_TYPE, _ROWS, _COLUMNS, _ALLOCATED, 0x00280101, 0x00280102, 0x00280103,
    0x00280120, 0x00280121, RESCALE_TYPE, 0x00541001,  # padding, what the values mean
    0x00282110, 0x00282114,  # whether and how pixels lost something before
    0x00180086, 0x00180081, 0x00181210,  # echo, kernel
    0x00200060, 0x00200062, 0x00209072,  # left or right, of which highdicom says one for all
)  # fmt: skip
"""What one object says once for all frames, or a radiologist would not mix."""
_UPTAKE: Final = (
    0x00080021, 0x00080031,  # Series Date and Time, to which decay may be corrected
    0x00101020, 0x00101030,  # the patient's size and weight
    0x00280051, 0x00540016, 0x00541002,  # Corrected Image, radiopharmaceutical, Counts Source
    0x00541006, 0x00541102,  # SUV Type, Decay Correction
)  # fmt: skip
"""Beside Units, what uptake values of PET are computed of (PS3.3 C.8.9.1); it must be the same for all."""
_PARAMETERS: Final = (0x00181314, 0x00180082, 0x00180080, 0x00180060)
"""Flip angle, inversion and repetition time, KVP: they split what lies at one place."""
_SAME_DIRECTION: Final = math.cos(math.radians(0.5))
_MANY_ROTATIONS: Final = 3
_SLICES_A_ROTATION: Final = 4
"""On average at most, where they are at different distances; a scan has more."""

type Key = tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapseLimits:
    """What is too large to be one object."""

    max_frames: int = 2000
    max_bytes: int = 2**30
    """Of native pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What becomes one object: frames in order, each at its place in space and the other dimensions."""

    number: int
    """From 1, among the volumes of its series."""
    key: Key
    """What its frames have in common and other volumes of the series do not; for its Series UID."""
    headers: tuple[SliceHeader, ...]
    """In the order of the frames."""
    places: tuple[int, ...]
    """From 1, of each frame along the normal."""
    spacing: float | None
    """Millimetres between neighbouring places, if they are even."""
    is_straight: bool
    dimensions: tuple[Dimension, ...]
    """Beside space, the slowest first; empty for a plain volume."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(header.source.name for header in self.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Every instance of a series is in exactly one volume, or refused."""

    volumes: tuple[Volume, ...]
    refused: tuple[NotCollapsed, ...]


def partition(slices: Sequence[SourceSlice], limits: CollapseLimits | None = None) -> Partition:
    """Decide which instances of one closed series become which objects; the order given is no matter."""
    split = _Split(limits or CollapseLimits())
    headers = split.readable(sorted(slices, key=lambda source: source.name))
    for key, group in _by_key(headers):
        for bundle in _by_direction(group):
            split.take(bundle, (*key, _direction_of(bundle)))
    # Numbered by the first frame's place in the series, so that a person meets them in order.
    return Partition(volumes=tuple(split.volumes), refused=tuple(split.refused))


class _Split:
    def __init__(self, limits: CollapseLimits) -> None:
        self._limits = limits
        self.volumes: list[Volume] = []
        self.refused: list[NotCollapsed] = []

    def readable(self, slices: Sequence[SourceSlice]) -> list[SliceHeader]:
        interned: Interned = {}
        headers: list[SliceHeader] = []
        for source in slices:
            try:
                header = read_header(source, interned)
                refuse_ineligible(header)
                headers.append(header)
            except NotCollapsedError as error:
                self._refuse_one(source, error.reason, error.detail)
        uids = Counter(header.text(_SOP_INSTANCE) for header in headers)
        unique: list[SliceHeader] = []
        for header in headers:
            if uids[header.text(_SOP_INSTANCE)] == 1:
                unique.append(header)
            else:
                self._refuse([header], CollapseReason.DUPLICATE_UID, "SOP Instance UID")
        return unique

    def take(self, group: list[SliceHeader], key: Key) -> None:
        """Make volumes of slices that share a direction, splitting further where it takes that."""
        if len(group) == 1:
            self._refuse(group, CollapseReason.SINGLE_SLICE, "nothing else belongs to it")
            return
        found = placed(group)
        stack = found.stack
        if found.apart:
            self._take_parts(group, found.apart, key)
            return
        if not stack.is_repeated:
            if _is_one_stack(group, stack):
                self._add(group, stack, [], key)
            else:
                self._take_parts(group, [h.value(_ACQUISITION) for h in group], key)
            return
        dimensions = declared_dimensions(group, stack) if stack.is_aligned else None
        if dimensions is None and self._may_be_a_course(group, stack):
            dimensions = scanned_again(group, stack)
        if dimensions is None:
            # In MR the numbers may count time, but not where the slices lie beside each other.
            is_time = _is_magnetic(group) and stack.is_aligned
            for tag in _PARAMETERS if is_time else (_ACQUISITION, *_PARAMETERS):
                values = [header.value(tag) for header in group]
                if len(set(values)) > 1:
                    self._take_parts(group, values, key)
                    return
            if not stack.is_aligned and (apart := beside(group, stack)):
                self._take_parts(group, apart, key)
                return
            if more := surplus(group, stack):
                set_apart = [group[index] for index in sorted(more)]
                detail = "the rest of its stack, of another acquisition, has a slice there"
                self._refuse(set_apart, CollapseReason.POSITIONS_REPEATED, detail)
                self.take([h for index, h in enumerate(group) if index not in more], key)
                return
            if stack.is_aligned and not is_weighted(group):
                dimensions = undeclared_times(group, stack) or numbered_times(group, stack)
        if dimensions is None:
            self._refuse(
                group, CollapseReason.POSITIONS_REPEATED, f"{len(group)} at {stack.count} places"
            )
        else:
            self._add(group, stack, dimensions, key)

    def _take_parts(
        self, group: list[SliceHeader], values: Sequence[bytes | tuple[Value, ...]], key: Key
    ) -> None:
        parts: dict[bytes, list[SliceHeader]] = {}
        for header, value in zip(group, values, strict=True):
            part = value if isinstance(value, bytes) else repr(value).encode()
            parts.setdefault(part, []).append(header)
        for value in sorted(parts):
            self.take(parts[value], (*key, value))

    def _may_be_a_course(self, group: list[SliceHeader], stack: Stack) -> bool:
        """Whether scans with numbers of their own may be one object; in MR they are looked at later."""
        if _is_magnetic(group) or not stack.is_aligned or self._too_large(group) is not None:
            return False
        return all(len({header.value(tag) for header in group}) == 1 for tag in _PARAMETERS)

    def _too_large(self, group: list[SliceHeader]) -> tuple[CollapseReason, str] | None:
        if len(group) > self._limits.max_frames:
            return CollapseReason.TOO_MANY_FRAMES, f"{len(group)} frames"
        native = sum(header.native_bytes for header in group)
        if native > self._limits.max_bytes:
            return CollapseReason.TOO_MANY_BYTES, f"{native} bytes of pixels"
        return None

    def _add(
        self, group: list[SliceHeader], stack: Stack, dimensions: list[Dimension], key: Key
    ) -> None:
        if refusal := self._too_large(group):
            self._refuse(group, *refusal)
            return
        ranks = list(zip(*(d.indices for d in dimensions), stack.places, strict=True))
        order = sorted(range(len(group)), key=ranks.__getitem__)
        self.volumes.append(
            Volume(
                number=len(self.volumes) + 1,
                key=key,
                headers=tuple(group[index] for index in order),
                places=tuple(stack.places[index] + 1 for index in order),
                spacing=stack.spacing,
                is_straight=stack.is_straight,
                dimensions=tuple(
                    Dimension(
                        label=d.label,
                        pointer=d.pointer,
                        group=d.group,
                        creator=d.creator,
                        indices=tuple(d.indices[index] for index in order),
                    )
                    for d in dimensions
                ),
            )
        )

    def _refuse(self, group: list[SliceHeader], reason: CollapseReason, detail: str) -> None:
        for header in group:
            self._refuse_one(header.source, reason, detail)

    def _refuse_one(self, source: SourceSlice, reason: CollapseReason, detail: str) -> None:
        self.refused.append(NotCollapsed(name=source.name, reason=reason, detail=detail))


def _by_key(headers: list[SliceHeader]) -> Iterator[tuple[Key, list[SliceHeader]]]:
    groups: dict[Key, list[SliceHeader]] = {}
    for header in headers:
        spacing = "\\".join(f"{number:.5f}" for number in header.numbers(SPACING))
        tags = (*_EQUAL, *_UPTAKE) if header.text(_MODALITY) == "PT" else _EQUAL
        key = (*map(header.elements.get, tags), spacing.encode())
        groups.setdefault(key, []).append(header)
    # In the order of the instances as the modality numbered them, whatever order they came in.
    yield from sorted(groups.items(), key=lambda item: min(map(_instance_number, item[1])))


def _instance_number(header: SliceHeader) -> tuple[float, str]:
    numbers = header.numbers(0x00200013)
    return (numbers[0] if numbers else math.inf), header.text(_SOP_INSTANCE)


def _by_direction(headers: list[SliceHeader]) -> list[list[SliceHeader]]:
    bundles: list[tuple[tuple[Vector, Vector], list[SliceHeader]]] = []
    for header in sorted(headers, key=_instance_number):
        row, column = directions_of(header)
        for (other_row, other_column), bundle in bundles:
            if (
                math.sumprod(row, other_row) > _SAME_DIRECTION
                and math.sumprod(column, other_column) > _SAME_DIRECTION
            ):
                bundle.append(header)
                break
        else:
            bundles.append(((row, column), [header]))
    return [bundle for _, bundle in bundles]


def _is_one_stack(group: list[SliceHeader], stack: Stack) -> bool:
    """Whether slices at different places are one acquisition, or several that make up one stack.

    Interleaved packages (MR), bed positions (PET) and the rotations of a step-and-shoot CT have numbers
    of their own and are read as one; a second scan further down is not.
    """
    sizes = Counter(header.value(_ACQUISITION) for header in group)
    if len(sizes) == 1:
        return True
    are_many = len(sizes) >= _MANY_ROTATIONS
    if stack.spacing is None:
        # A head is scanned in rotations at two distances, too.
        return are_many and len(group) <= _SLICES_A_ROTATION * len(sizes)
    return group[0].text(_MODALITY) != "CT" or are_many or min(sizes.values()) == 1


def _is_magnetic(group: list[SliceHeader]) -> bool:
    return group[0].text(_MODALITY) == "MR"


def _direction_of(bundle: list[SliceHeader]) -> bytes:
    """What sets slices apart from those of other directions; known from themselves alone.

    Half a degree changes a number by more than the last digit.
    """
    return "\\".join(f"{number:.3f}" for number in bundle[0].numbers(ORIENTATION)).encode()
