"""Puts right what highdicom gets wrong or guesses, one function for each mistake.

The last line of each says which versions of highdicom have the mistake, from the first that was looked at
to the newest. A test shows the mistake in highdicom itself and fails when a newer version has put it right:
then the function can go. Another fails when a version is installed that no such line speaks of.

Some mistakes are put right elsewhere, with such a line there: what it makes of the pixels never reaches a
file (``writer``), the windows that it makes up (``placeholders``), the side of the body that it cannot tell
(``build``), values that it does not expect (``withheld``), what it drops (``unassigned``), and what makes
it raise or is dropped for good (``eligible``).
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from importlib.metadata import version
from typing import Final

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.valuerep import DT, format_number_as_ds

from scp.convert.enhanced.build import Draft
from scp.convert.enhanced.eligible import (
    ACQUISITION_DATE_TIME,
    CONTENT_TIMES,
    RESCALE_TYPE,
    image_words,
)
from scp.convert.enhanced.slices import SliceHeader
from scp.convert.enhanced.stack import is_weighted
from scp.convert.enhanced.uids import derived
from scp.convert.enhanced.withheld import PATIENT_SEX, has_other_sex, holds_numbers

_CREATED: Final = (0x00080012, 0x00080013)
_LOSSY, _LOSSY_RATIO = 0x00282110, 0x00282112
_TRIGGER_TIME, _FRAME_REFERENCE_TIME = 0x00181060, 0x00189151
_FRAME_DURATION, _UNITS, _QUALIFICATION = 0x00181242, 0x00541001, 0x00189004
_MODALITY, _SERIES_NUMBER = 0x00080060, 0x00200011
_ACQUISITION_TIMES: Final = (ACQUISITION_DATE_TIME, 0x00080022, 0x00080032)
_TECHNIQUE: Final = 0x00089207
_FRAME_TYPE: Final = {
    "PixelPresentation": 0x00089205,
    "VolumetricProperties": 0x00089206,
    "VolumeBasedCalculationTechnique": _TECHNIQUE,
}
_EXTREMES: Final = {
    "SmallestImagePixelValue": 0x00280106,
    "LargestImagePixelValue": 0x00280107,
}
_CONDITIONAL_GROUPS: Final = {
    "DerivationImageSequence": 0x00082112,  # Source Image Sequence
    "IrradiationEventIdentificationSequence": 0x00083010,
}
"""What stands in the item, if anything does; the second has room for nothing else."""
_EMPTY_MODULES: Final = (
    "ContrastBolusAgent",
    "ClinicalTrialTimePointID",
    "ClinicalTrialCoordinatingCenterName",
)


def repair(draft: Draft, sop_instance_uid: str) -> None:
    """Apply every repair, and describe the order of the frames."""
    remove_the_clock(draft)
    sort_references(draft)
    set_content_date(draft)
    keep_lossy_history(draft)
    correct_trigger_times(draft)
    keep_durations(draft)
    state_rescale_types(draft)
    drop_guesses(draft)
    drop_partial_extremes(draft)
    keep_frame_types(draft)
    drop_empty_groups(draft)
    keep_series_number(draft)
    keep_sex(draft)
    add_converter(draft)
    describe_dimensions(draft, sop_instance_uid)


def remove_the_clock(draft: Draft) -> None:
    """The object's creation is the latest of its sources, so that it is the same at every run.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    image = draft.image
    created = _times(draft.volume.headers, *_CREATED)
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        if keyword in image:
            delattr(image, keyword)
    if created:
        image.InstanceCreationDate, image.InstanceCreationTime = max(created)
    for equipment in image.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in equipment:
            del equipment.ContributionDateTime


def sort_references(draft: Draft) -> None:
    """highdicom walks through a set, whose order changes with every process.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    for level in (
        draft.image,
        *draft.image.get("StudiesContainingOtherReferencedInstancesSequence", ()),
    ):
        for series in level.get("ReferencedSeriesSequence", ()):
            series.ReferencedInstanceSequence = sorted(
                series.ReferencedInstanceSequence,
                key=lambda item: str(item.ReferencedSOPInstanceUID),
            )


def set_content_date(draft: Draft) -> None:
    """The earliest Content Date and Time of the sources; highdicom never looks at them.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    for date, time in CONTENT_TIMES:
        found = _times(draft.volume.headers, date, time)
        if len(found) == len(draft.volume.headers):
            draft.image.ContentDate, draft.image.ContentTime = min(found)
            return
    candidates = [
        next(
            pair
            for d, t in CONTENT_TIMES
            if (pair := (header.text(d), header.text(t))) and all(pair)
        )
        for header in draft.volume.headers
    ]
    draft.image.ContentDate, draft.image.ContentTime = min(candidates)


def keep_lossy_history(draft: Draft) -> None:
    """highdicom compares with YES and NO where the standard has 01 and 00, and loses the value.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    image, headers = draft.image, draft.volume.headers
    lossy = headers[0].text(_LOSSY)  # Frames that differ in it are in different volumes.
    if lossy:
        image.LossyImageCompression = lossy
    ratios = [header.numbers(_LOSSY_RATIO) for header in headers]
    if "LossyImageCompressionRatio" in image:
        del image.LossyImageCompressionRatio
    if all(ratios) and len({len(steps) for steps in ratios}) == 1:
        image.LossyImageCompressionRatio = [
            format_number_as_ds(sum(step) / len(step)) for step in zip(*ratios, strict=True)
        ]


def correct_trigger_times(draft: Draft) -> None:
    """Trigger Time counts in milliseconds; highdicom adds it to the acquisition as days.

    As there, it counts where all frames share their acquisition time, whose beginning that is then.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    headers = draft.volume.headers
    if len({tuple(header.value(tag) for tag in _ACQUISITION_TIMES) for header in headers}) > 1:
        return
    for frame, header in zip(draft.frames, headers, strict=True):
        delay = header.numbers(_TRIGGER_TIME)
        content = frame.FrameContentSequence[0]
        begun = content.get("FrameAcquisitionDateTime")
        if begun and delay and delay[0] > 0 and not header.value(_FRAME_REFERENCE_TIME):
            content.FrameAcquisitionDateTime = DT(DT(begun) + timedelta(milliseconds=delay[0]))


def keep_durations(draft: Draft) -> None:
    """Acquisition Duration is in seconds and of all frames, Frame Acquisition Duration is neither.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    for frame, header in zip(draft.frames, draft.volume.headers, strict=True):
        content = frame.FrameContentSequence[0]
        milliseconds = header.numbers(_FRAME_DURATION)
        if len(milliseconds) == 1:
            content.FrameAcquisitionDuration = milliseconds[0]
        elif "FrameAcquisitionDuration" in content:
            del content.FrameAcquisitionDuration


def state_rescale_types(draft: Draft) -> None:
    """What the source says; for PET its Units, for CT Hounsfield units by definition (PS3.3 C.8.2.1).

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    first = draft.volume.headers[0]
    modality = first.text(_MODALITY)
    default = {"CT": "HU", "PT": first.text(_UNITS)}.get(modality, "US")
    for item, header in _groups(draft, "PixelValueTransformationSequence"):
        item.RescaleType = header.text(RESCALE_TYPE) or default


def drop_guesses(draft: Draft) -> None:
    """No source says that it is for research, was made with contrast or belongs to a trial.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    image, headers = draft.image, draft.volume.headers
    if not any(header.value(_QUALIFICATION) for header in headers):
        if headers[0].text(_MODALITY) == "PT":
            # Type 1 here. A classic image carries no such warning, so its conversion invents none.
            image.ContentQualification = "PRODUCT"
        elif "ContentQualification" in image:
            del image.ContentQualification
    for keyword in _EMPTY_MODULES:
        if keyword in image and not image[keyword].value:
            delattr(image, keyword)


def drop_partial_extremes(draft: Draft) -> None:
    """The smallest or largest value of some frames is not that of all; each keeps what its source says.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    for keyword, tag in _EXTREMES.items():
        if keyword in draft.image and not all(h.value(tag) for h in draft.volume.headers):
            delattr(draft.image, keyword)


def keep_frame_types(draft: Draft) -> None:
    """What the sources say of their pixels, and of the volume that they were computed from.

    highdicom says of every frame VOLUME, MONOCHROME and NONE, whatever it says of the image, and takes
    reformatted slices for ones that were not computed.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    groups = [
        pair
        for keyword in (
            "CTImageFrameTypeSequence",
            "MRImageFrameTypeSequence",
            "PETFrameTypeSequence",
        )
        for pair in _groups(draft, keyword)
    ]
    for item, header in groups:
        for keyword, tag in _FRAME_TYPE.items():
            if given := header.text(tag):
                setattr(item, keyword, given)
        if "MPR" in image_words(header) and not header.value(_TECHNIQUE):
            item.VolumeBasedCalculationTechnique = "MPR"
            draft.image.VolumeBasedCalculationTechnique = "MPR"


def drop_empty_groups(draft: Draft) -> None:
    """A frame whose source was not derived, or names no irradiation event, says nothing of it.

    Where one slice has such an attribute highdicom gives all frames the functional group, with an item that
    lacks what is mandatory in it.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    for frame in draft.frames:
        for keyword, needed in _CONDITIONAL_GROUPS.items():
            item = frame[keyword].value[0] if keyword in frame else None
            if item is None or needed in item:
                continue
            if len(item):
                # A description alone, of no image in particular; Type 2.
                item.add_new(needed, "SQ", [])
            else:
                delattr(frame, keyword)


def keep_series_number(draft: Draft) -> None:
    """highdicom demands a positive one; the standard does not.

    What is no number, or not that of all, is an unassigned attribute only.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    headers = draft.volume.headers
    numbers = {header.text(_SERIES_NUMBER) for header in headers}
    is_one = len(numbers) == 1 and holds_numbers(headers[0].elements.get(_SERIES_NUMBER, b""))
    draft.image.SeriesNumber = numbers.pop() if is_one else ""


def keep_sex(draft: Draft) -> None:
    """highdicom refuses the series of every patient of another sex than M, F and O.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    first = draft.volume.headers[0]
    if has_other_sex(first):
        with disable_value_validation():
            draft.image.PatientSex = first.text(PATIENT_SEX)


def add_converter(draft: Draft) -> None:
    """Who converted, beside highdicom (PS3.3 C.12.1.1.5)."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109106", "DCM"
    purpose.CodeMeaning = "Enhanced Multi-frame Conversion Equipment"
    item = Dataset()
    item.Manufacturer = item.ManufacturerModelName = "dcmpress"
    item.SoftwareVersions = version("dcmpress")
    item.ContributionDescription = "Compressed without loss, and collapsed into one object"
    item.PurposeOfReferenceCodeSequence = [purpose]
    draft.image.ContributingEquipmentSequence = [
        *draft.image.get("ContributingEquipmentSequence", ()),
        item,
    ]


def describe_dimensions(draft: Draft, sop_instance_uid: str) -> None:
    """The order of the frames (PS3.3 C.7.6.17); highdicom describes no more than one dimension.

    Needed with highdicom 0.28.0 to 0.28.2: no release mends it.
    """
    volume, image = draft.volume, draft.image
    organization = derived("dimensions", sop_instance_uid)
    in_stack = _dimension(0x00209057, 0x00209111, "In-Stack Position Number", organization)
    image.DimensionIndexSequence = [
        *(
            _dimension(d.pointer, d.group, d.label, organization, d.creator)
            for d in volume.dimensions
        ),
        in_stack,
    ]
    whole = Dataset()
    whole.DimensionOrganizationUID = organization
    image.DimensionOrganizationSequence = [whole]
    for index, frame in enumerate(draft.frames):
        content = frame.FrameContentSequence[0]
        indices = [dimension.indices[index] for dimension in volume.dimensions]
        content.DimensionIndexValues = [*indices, volume.places[index]]
        content.StackID = "1"
        content.InStackPositionNumber = volume.places[index]
        for dimension in volume.dimensions:
            if dimension.is_temporal:
                content.TemporalPositionIndex = dimension.indices[index]
    for measures, _ in _groups(draft, "PixelMeasuresSequence"):
        if "SpacingBetweenSlices" in measures:
            del measures.SpacingBetweenSlices
        if volume.spacing is not None:
            measures.SpacingBetweenSlices = format_number_as_ds(round(volume.spacing, 6))
    if "DimensionOrganizationType" in image:
        del image.DimensionOrganizationType
    if organization_type := _organization_type(draft):
        image.DimensionOrganizationType = organization_type


def _dimension(
    pointer: int, group: int, label: str, organization: str, creator: str = ""
) -> Dataset:
    item = Dataset()
    item.DimensionIndexPointer = pointer
    if creator:
        item.DimensionIndexPrivateCreator = creator
    item.FunctionalGroupPointer = group
    item.DimensionDescriptionLabel = label
    item.DimensionOrganizationUID = organization
    return item


def _organization_type(draft: Draft) -> str:
    """3D and 3D_TEMPORAL promise parallel slices at even distances, complete at each time."""
    volume = draft.volume
    if volume.spacing is None or not volume.is_straight:
        return ""
    if not volume.dimensions:
        return "3D"
    times = max(volume.dimensions[0].indices)
    is_complete = times * max(volume.places) == len(volume.headers)
    is_temporal = len(volume.dimensions) == 1 and volume.dimensions[0].is_temporal
    # What is numbered like times may be the directions of a diffusion that nobody tells.
    is_temporal = is_temporal and not is_weighted(volume.headers)
    return "3D_TEMPORAL" if is_temporal and is_complete else ""


def _groups(draft: Draft, keyword: str) -> Iterator[tuple[Dataset, SliceHeader]]:
    """The item of a functional group, with the slice that it was made of, wherever it is."""
    if keyword in draft.shared:
        yield draft.shared[keyword].value[0], draft.volume.headers[0]
        return
    for frame, header in zip(draft.frames, draft.volume.headers, strict=True):
        if keyword in frame:
            yield frame[keyword].value[0], header


def _times(headers: Sequence[SliceHeader], date: int, time: int) -> list[tuple[str, str]]:
    pairs = ((header.text(date), header.text(time)) for header in headers)
    return [pair for pair in pairs if all(pair)]
