"""Proves an instance that came as HTJ2K, so that its codestream may become a frame as it is."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scp.convert.attributes import HTJ2K_LOSSLESS, read_attributes, refuse_ineligible
from scp.convert.codec_cpu import OpenJpegDecoder, OpenJphDecoder
from scp.convert.codestream import earns_rpcl, parse_codestream, why_not_lossless
from scp.convert.decoders import mismatch
from scp.convert.header import explicit_header
from scp.convert.part10 import open_dicom, sha256_of
from scp.convert.refusals import NotConvertibleError
from scp.convert.source import SourceLimits, has_clean_bits, locate_frames
from scp.convert.transcode import LOSSLESS, LOSSLESS_RPCL
from scp.errors import CodecError
from scp.model import PassReason


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFrame:
    """What two decoders say of the only frame of an instance."""

    transfer_syntax: str
    """The label that its codestream has earned, whatever its file says."""
    pixel_sha256: str
    """Of its pixel words, little endian; hexadecimal."""
    decoders: str


def prove_received(path: Path, limits: SourceLimits | None = None) -> ReceivedFrame:
    """Decode the frame by two libraries: both must give the same pixels, of the kind that the header says.

    Raises
    ------
    NotConvertibleError
        It is no lossless HTJ2K of one frame and one sample (``already_htj2k``), or its codestream is not
        what label and header say.
    """
    limits = limits or SourceLimits()
    file = open_dicom(path)
    elements = file.walk()
    attributes = read_attributes(file, elements)
    is_one = (attributes.frames, attributes.samples) == (1, 1)
    if file.transfer_syntax not in HTJ2K_LOSSLESS or not is_one:
        raise NotConvertibleError(PassReason.ALREADY_HTJ2K, file.transfer_syntax[:64])
    refuse_ineligible(file, elements, attributes, limits.frame_bytes)
    explicit_header(file, elements, signed=attributes.is_signed)  # No icon is compressed.
    fragments = (locate_frames(file, elements, attributes) or [[]])[0]
    if len(fragments) != 1:
        # PS3.5 A.4.4
        raise mismatch(f"a frame in {len(fragments)} fragments")
    ((start, end),) = fragments
    frame_format = attributes.frame_format
    openjpeg, openjph = OpenJpegDecoder(), OpenJphDecoder()
    codestream = bytes(file.dataset[start:end])
    try:
        parsed = parse_codestream(codestream)
        if why := why_not_lossless(parsed, frame_format):
            raise mismatch(why)
        frames = openjpeg.decode([codestream], frame_format)
        if not np.array_equal(frames, openjph.decode([codestream], frame_format)):
            raise CodecError("OpenJPEG and OpenJPH disagree about a frame")
    except CodecError as error:
        raise NotConvertibleError(PassReason.DECODER_FAILED, str(error)) from error
    if not has_clean_bits(frames, attributes.bits_stored):
        raise NotConvertibleError(
            PassReason.UNUSED_BITS_SET, f"bits beyond {attributes.bits_stored} carry data"
        )
    return ReceivedFrame(
        transfer_syntax=LOSSLESS_RPCL if earns_rpcl(parsed, frame_format) else LOSSLESS,
        pixel_sha256=sha256_of(frames.data.cast("B")).hexdigest(),
        decoders=f"{openjpeg.name}; {openjph.name}",
    )
