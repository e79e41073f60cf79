"""What a copy of a delivered instance, from wherever it lies now, has in common with what was received."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from scp.convert.alike import frames_of
from scp.convert.attributes import HTJ2K_LOSSLESS, read_attributes
from scp.convert.carried import CarriedDigests, carried_by
from scp.convert.digests import NativeValue, digests_of, normal_as_native
from scp.convert.enhanced.writer import file_meta
from scp.convert.part10 import open_dicom, windows
from scp.convert.refusals import NotConvertibleError
from scp.errors import ConversionError, MalformedError, TruncatedError
from scp.part10 import file_meta_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """SHA-256, in hexadecimal, as the ledger has them of what was received."""

    dataset: str
    """Of the dataset, without its file meta group, which everybody writes anew."""
    normal: str
    """Of its tags and values; see :class:`scp.convert.digests.Digests`."""
    pixels: str
    """Of the decoded frames; empty where they cannot be decoded."""
    normal_as_native: str
    """As ``normal``, if the pixel data were native; empty where that cannot be told."""
    header: str
    """Of its tags and values but the pixel data; see :class:`scp.convert.digests.Digests`."""
    is_coloured_anew: bool
    """Whether its colour is written otherwise in HTJ2K, and so its header."""
    carried: CarriedDigests | None
    """What the file itself says of what it was made of."""


def collapsed_as_written(path: Path) -> str:
    """SHA-256 of a collapsed object, behind the file meta group that this version writes; hexadecimal.

    Of an object that a peer has put behind its own it is the digest of the file that was delivered.

    Raises
    ------
    NotConvertibleError, MalformedError, TruncatedError
        It is no DICOM file.
    """
    file = open_dicom(path, inflate=False)
    meta = file_meta_of(file.whole)
    ours = file_meta(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax)
    whole = hashlib.sha256(ours)
    for window in windows(file.whole[file.dataset_start :]):
        whole.update(window)
    return whole.hexdigest()


def examine(path: Path) -> Copy | None:
    """Read a file and decode its frames; None where it is no DICOM file."""
    try:
        file = open_dicom(path)
        own = digests_of(file, None)
    except (NotConvertibleError, MalformedError, TruncatedError):
        return None
    pixels = as_native = ""
    is_coloured_anew = False
    try:
        elements = file.walk()
        attributes = read_attributes(file, elements)
        is_coloured_anew = attributes.samples > 1 and file.transfer_syntax not in HTJ2K_LOSSLESS
        value = NativeValue()
        for words in frames_of(file, elements, attributes):
            value.add(words)
        pixels = value.words_sha256
        if attributes.samples == 1:  # Colour is otherwise in a header of HTJ2K.
            as_native = normal_as_native(file, elements, value)
    except (ConversionError, MalformedError, TruncatedError):
        pass
    return Copy(
        dataset=own.dataset,
        normal=own.normal,
        pixels=pixels,
        normal_as_native=as_native,
        header=own.header,
        is_coloured_anew=is_coloured_anew,
        carried=carried_by(file),
    )
