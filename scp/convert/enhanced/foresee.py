"""What the header of one file, as received, already says against its becoming a frame."""

from pathlib import Path

from scp.convert.enhanced.eligible import refuse_ineligible
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.slices import SliceHeader, SourceSlice
from scp.convert.part10 import open_dicom
from scp.convert.recode import recode
from scp.convert.refusals import NotConvertibleError
from scp.elements import EXPLICIT_LITTLE
from scp.errors import MalformedError, TruncatedError
from scp.model import CollapseReason

_PIXEL_GROUP = 0x7FE0


def foreseen_refusal(path: Path) -> NotCollapsedError | None:
    """Why it will stay single-frame whatever else its series holds; None: the closed series decides."""
    try:
        file = open_dicom(path)
        elements = {
            each.tag: b"".join(
                recode(file.dataset, [each], file.encoding, EXPLICIT_LITTLE, signed=False)
            )
            for each in file.walk()
            if each.tag & 0xFFFF and each.tag >> 16 != _PIXEL_GROUP
        }
    except NotConvertibleError as error:
        return NotCollapsedError(CollapseReason.UNREADABLE, error.detail)
    except (MalformedError, TruncatedError) as error:
        return NotCollapsedError(CollapseReason.UNREADABLE, str(error))
    source = SourceSlice(name="", path=path, encoded=path, dataset_sha256="", pixel_sha256="")
    header = SliceHeader(
        source=source, transfer_syntax=file.transfer_syntax, elements=elements, frame=(0, 0)
    )
    try:
        refuse_ineligible(header)
    except NotCollapsedError as error:
        return error
    return None
