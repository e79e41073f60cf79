"""Which instances may become frames at all, looked at one by one (PS3.3 A.70 to A.72)."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pydicom import uid
from pydicom.valuerep import DA, DT, TM

from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.slices import SliceHeader
from scp.model import CollapseReason

MODALITIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        str(uid.CTImageStorage): "CT",
        str(uid.MRImageStorage): "MR",
        str(uid.PositronEmissionTomographyImageStorage): "PT",
    }
)
"""The SOP classes that have a legacy converted form, and the Modality that each must have."""

CONTENT_TIMES: Final = (
    (0x00080023, 0x00080033),  # Content Date, Content Time
    (0x00080022, 0x00080032),  # Acquisition
    (0x00080021, 0x00080031),  # Series
    (0x00080020, 0x00080030),  # Study
    (0x00080012, 0x00080013),  # Instance Creation
)
"""Where Content Date and Time are taken from, the best first."""
ACQUISITION_DATE_TIME: Final = 0x0008002A
SLOPE, INTERCEPT, RESCALE_TYPE = 0x00281053, 0x00281052, 0x00281054
WINDOW_CENTER, WINDOW_WIDTH = 0x00281050, 0x00281051
POSITION, ORIENTATION, SPACING = 0x00200032, 0x00200037, 0x00280030
SLICE_THICKNESS: Final = 0x00180050
IMAGE_TYPE: Final = 0x00080008

_SOP_CLASS, _SOP_INSTANCE, _MODALITY = 0x00080016, 0x00080018, 0x00080060
_FRAMES, _SAMPLES, _PHOTOMETRIC = 0x00280008, 0x00280002, 0x00280004
_FRAME_OF_REFERENCE = 0x00200052
_UIDS = (_SOP_INSTANCE, 0x0020000D, 0x0020000E)
_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
_VOI_LUT, _MODALITY_LUT = 0x00283010, 0x00283000
_SIGNATURES = (0x4FFE0001, 0xFFFAFFFA)
_BIRTH_DATE = 0x00100030
_UNITS, _WEIGHT = 0x00541001, 0x00101030
_DATES = (*(date for date, _ in CONTENT_TIMES), _BIRTH_DATE)
_TIMES = tuple(time for _, time in CONTENT_TIMES)
_PROJECTIONS = frozenset(
    ("PROJECTION", "MIP", "MINIP", "MNIP", "MAXIP", "CPR", "CURVED", "RENDERED", "VRT", "SSD")
)
_WORD = re.compile(r"[A-Z0-9]+")
_SLACK: Final = 0.01
"""How far row and column direction may be from unit length and a right angle."""


def refuse_ineligible(header: SliceHeader) -> None:
    """Raise for what cannot be a frame, whatever else the series holds.

    Much of it highdicom takes, and drops (overlays, curves), copies to where it means nothing (signatures)
    or calls something else (Rescale Type, projections); or it raises, and that costs the series (dates and
    times that are none, a missing orientation, MONOCHROME1 with a rescale).

    Manufacturer, model, serial number and software version may be absent: Enhanced General Equipment, where
    they are Type 1, is of usage U in these objects (PS3.3 Tables A.70-1, A.71-1, A.72-1).

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.

    Raises
    ------
    NotCollapsedError
        With the first reason found.
    """
    _refuse_kind(header)
    _refuse_geometry(header)
    _refuse_dates(header)
    _refuse_quantities(header)


def image_words(header: SliceHeader) -> frozenset[str]:
    """The words in all values of Image Type."""
    return frozenset(_WORD.findall(header.text(IMAGE_TYPE).upper()))


def _refuse_kind(header: SliceHeader) -> None:
    modality = MODALITIES.get(header.text(_SOP_CLASS))
    if modality is None or header.text(_MODALITY) != modality:
        raise NotCollapsedError(CollapseReason.SOP_CLASS, header.text(_SOP_CLASS)[:64])
    for tag in _UIDS:
        if not _UID.fullmatch(header.text(tag)):
            raise NotCollapsedError(
                CollapseReason.UNREADABLE, f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is no UID"
            )
    if header.text(_FRAMES) not in ("", "1"):
        raise NotCollapsedError(CollapseReason.SEVERAL_FRAMES, "Number of Frames is not 1")
    if header.short(_SAMPLES) != 1 or header.text(_PHOTOMETRIC) != "MONOCHROME2":
        raise NotCollapsedError(
            CollapseReason.PHOTOMETRIC_INTERPRETATION, header.text(_PHOTOMETRIC)[:16]
        )
    for tag in header.elements:
        if tag in _SIGNATURES:
            raise NotCollapsedError(CollapseReason.DIGITAL_SIGNATURE, f"{tag:08X}")
        if tag >> 24 in (0x50, 0x60) and not tag >> 16 & 1:
            raise NotCollapsedError(CollapseReason.OVERLAY_OR_CURVE, f"{tag:08X}")
    if header.value(_VOI_LUT):
        raise NotCollapsedError(CollapseReason.VOI_LUT_SEQUENCE, "VOI LUT Sequence")
    if header.value(_MODALITY_LUT):
        raise NotCollapsedError(CollapseReason.MODALITY_LUT_SEQUENCE, "Modality LUT Sequence")
    if not all((*header.texts(IMAGE_TYPE), "", "")[:2]):
        # Of one value highdicom takes each letter for a value.
        raise NotCollapsedError(CollapseReason.TYPE1_MISSING, "Image Type")
    words = image_words(header)
    if "LOCALIZER" in words:
        raise NotCollapsedError(CollapseReason.LOCALIZER, "Image Type")
    if "MOSAIC" in words:
        raise NotCollapsedError(CollapseReason.MOSAIC, "Image Type")
    if words & _PROJECTIONS:
        raise NotCollapsedError(CollapseReason.PROJECTION, "Image Type")


def _refuse_geometry(header: SliceHeader) -> None:
    spacing, orientation = header.numbers(SPACING), header.numbers(ORIENTATION)
    missing = ""
    if not _UID.fullmatch(header.text(_FRAME_OF_REFERENCE)):
        missing = "Frame of Reference UID"
    elif len(spacing) != 2 or min(spacing) <= 0:
        missing = "Pixel Spacing"
    elif len(header.numbers(POSITION)) != 3:
        missing = "Image Position (Patient)"
    elif len(orientation) != 6 or not _is_right_angled(orientation):
        missing = "Image Orientation (Patient)"
    if missing:
        raise NotCollapsedError(CollapseReason.GEOMETRY_MISSING, missing)
    if len(header.numbers(SLICE_THICKNESS)) != 1:
        # Type 1C where Volumetric Properties is VOLUME (PS3.3 C.7.6.16.2.1).
        raise NotCollapsedError(CollapseReason.TYPE1_MISSING, "Slice Thickness")


@lru_cache(maxsize=256)
def _is_right_angled(orientation: tuple[float, ...]) -> bool:
    row, column = orientation[:3], orientation[3:]
    return (
        abs(math.hypot(*row) - 1) < _SLACK
        and abs(math.hypot(*column) - 1) < _SLACK
        and abs(math.sumprod(row, column)) < _SLACK
    )


def _refuse_dates(header: SliceHeader) -> None:
    """highdicom parses these and raises where one is none, which would cost the whole series."""
    for kind, tags in ((DA, _DATES), (TM, _TIMES), (DT, (ACQUISITION_DATE_TIME,))):
        for tag in tags:
            element = header.elements.get(tag)
            if element is not None and not _is_valid(kind, header.text(tag)):
                raise NotCollapsedError(
                    CollapseReason.INVALID_DATE, f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
                )
    if not any(header.text(date) and header.text(time) for date, time in CONTENT_TIMES):
        raise NotCollapsedError(CollapseReason.TYPE1_MISSING, "Content Date")


@lru_cache(maxsize=4096)
def _is_valid(kind: type[DA] | type[TM] | type[DT], text: str) -> bool:
    try:
        kind(text)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _refuse_quantities(header: SliceHeader) -> None:
    """What turns stored values into quantities must be given, not taken to be 1 and 0."""
    windows = len(header.texts(WINDOW_CENTER)), len(header.texts(WINDOW_WIDTH))
    if all(windows) and windows[0] != windows[1]:
        raise NotCollapsedError(CollapseReason.QUANTITY_AT_RISK, "Window Center and Width")
    is_magnetic = header.text(_MODALITY) == "MR"
    slope, intercept = header.numbers(SLOPE), header.numbers(INTERCEPT)
    if is_magnetic and SLOPE not in header.elements and INTERCEPT not in header.elements:
        return
    if len(slope) != 1 or len(intercept) != 1 or slope[0] == 0:
        raise NotCollapsedError(CollapseReason.QUANTITY_AT_RISK, "Rescale Slope and Intercept")
    if header.text(_MODALITY) == "PT" and not header.text(_UNITS):
        raise NotCollapsedError(CollapseReason.QUANTITY_AT_RISK, "Units")
    if header.text(_MODALITY) == "PT" and header.text(_WEIGHT) and not header.numbers(_WEIGHT):
        # An SUV is computed from it, and by some with whatever they can read of "72,5".
        raise NotCollapsedError(CollapseReason.QUANTITY_AT_RISK, "Patient's Weight")
    if header.text(_MODALITY) == "CT" and header.text(RESCALE_TYPE) not in ("", "HU"):
        # The functional group of CT knows Hounsfield units only (PS3.3 C.8.15.3.10).
        raise NotCollapsedError(CollapseReason.QUANTITY_AT_RISK, "Rescale Type")
