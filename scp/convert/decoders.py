"""Decodes frames of compressed sources, after checking that their own headers agree with the dataset's.

The check comes first: a header that asks for gigabytes must not reach a decoder, and a decoder that gets
another image than the dataset describes must not be believed.
"""

import contextlib
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import imagecodecs
import jpeg_ls
import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from scp.convert.attributes import PixelAttributes
from scp.convert.codec_cpu import container_type
from scp.convert.codestream import Codestream, parse_codestream
from scp.convert.refusals import NotConvertibleError
from scp.errors import CodecError
from scp.model import PassReason

type Frame = NDArray[np.generic]
"""(rows, columns, samples), interleaved."""
type _Decode = Callable[[bytes, PixelAttributes], Frame]

_SOF_LOSSLESS, _SOF_JPEG_LS = 0xC3, 0xF7
_SOFS_LOSSY: Final = frozenset((0xC0, 0xC1, 0xC2))
_SOFS = frozenset((*range(0xC0, 0xD0), _SOF_JPEG_LS)) - {0xC4, 0xC8, 0xCC}
_SOS, _APP14 = 0xDA, 0xEE
_SEGMENTS: Final = _SOFS | {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xF8, 0xFE, *range(0xE0, 0xF0)}
"""What may stand before the first scan: of others decoders make what they like, or end the process."""
_LONGEST_HEADER: Final = 2**20
"""Bytes before the first scan. Real ones have some hundred; each may be a marker to be looked at."""
_FAILURES = (RuntimeError, ValueError, TypeError, MemoryError, struct.error, IndexError)


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegHeader:
    """What SOF and the first SOS of a JPEG or JPEG-LS stream say (ISO/IEC 10918-1 B.2, 14495-1 C.2)."""

    process: int
    """Second byte of the SOF marker."""
    precision: int
    rows: int
    columns: int
    components: int
    is_subsampled: bool
    near: int
    """JPEG-LS: the largest error; 0 is lossless. The largest of all scans."""
    adobe_transform: int
    """Of the last Adobe APP14 segment: 0 for RGB, 1 for YCbCr; 0 without one."""


def decode_frame(transfer_syntax: str, data: bytes, attributes: PixelAttributes) -> Frame:
    """Decode one frame of a losslessly compressed source to the container type of ``attributes``.

    Raises
    ------
    NotConvertibleError
        The frame contradicts the dataset, is lossy in spite of its label, or cannot be decoded.
    """
    return _decode_by(_LOSSLESS, transfer_syntax, data, attributes)


def decode_any_frame(transfer_syntax: str, data: bytes, attributes: PixelAttributes) -> Frame:
    """As :func:`decode_frame`, of HTJ2K and lossy syntaxes too. Colour comes back as RGB where the
    stream transforms it."""
    return _decode_by(_ANY, transfer_syntax, data, attributes)


def _decode_by(
    decoders: Mapping[str, _Decode], transfer_syntax: str, data: bytes, attributes: PixelAttributes
) -> Frame:
    decode = decoders.get(transfer_syntax)
    if decode is None:
        raise NotConvertibleError(PassReason.UNKNOWN_TRANSFER_SYNTAX, transfer_syntax[:64])
    try:
        return decode(data, attributes)
    except _FAILURES as error:
        raise NotConvertibleError(PassReason.DECODER_FAILED, str(error)[:200]) from error
    except CodecError as error:
        raise NotConvertibleError(PassReason.DECODER_FAILED, str(error)) from error


def shaped(decoded: Frame, precision: int, attributes: PixelAttributes) -> Frame:
    """The decoder's output as the dataset describes it: words of ``precision`` bits become signed ones."""
    shape = (attributes.rows, attributes.columns, attributes.samples)
    kind = container_type(attributes.bits_allocated, is_signed=attributes.is_signed)
    if decoded.size != attributes.frame_samples:
        raise mismatch(f"decoded to {decoded.shape}")
    frame = decoded.reshape(shape)
    if attributes.is_signed and frame.dtype.kind == "u":
        # JPEG and JPEG-LS know no sign: the words are two's complement of the stream's precision.
        if precision not in (attributes.bits_stored, attributes.bits_allocated):
            raise mismatch(
                f"signed words in {precision} bits, Bits Stored {attributes.bits_stored}"
            )
        unused = attributes.bits_allocated - precision
        words = frame.astype(np.dtype(f"<u{attributes.bits_allocated // 8}"))
        signed: Frame = (words << np.array(unused, words.dtype)).view(kind)
        extended: Frame = signed >> np.array(unused, kind)
        return extended
    # Colour by plane, and some decoders' colour, comes as a view with other strides.
    return np.ascontiguousarray(frame, kind)


def mismatch(detail: str) -> NotConvertibleError:
    return NotConvertibleError(PassReason.CODESTREAM_MISMATCH, detail)


def check_codestream(data: bytes, attributes: PixelAttributes) -> Codestream:
    """The header of a JPEG 2000 frame, once it agrees with the dataset (PS3.5 8.2.4, 8.2.14)."""
    header = parse_codestream(data, main_header_only=True)
    expected = (attributes.rows, attributes.columns, attributes.samples, attributes.is_signed)
    if (header.rows, header.columns, header.components, header.is_signed) != expected:
        raise mismatch(
            f"SIZ says {header.rows}x{header.columns}x{header.components}, signed {header.is_signed}"
        )
    if header.is_subsampled or header.precision > attributes.bits_allocated:
        raise mismatch(f"SIZ says {header.precision} bits, subsampled {header.is_subsampled}")
    photometric = attributes.photometric_interpretation
    if header.components == 3 and (
        header.colour_transform
        if photometric not in ("RGB", "YBR_RCT", "YBR_ICT")
        else not header.colour_transform and photometric != "RGB"
    ):
        raise mismatch(f"{photometric} contradicts the codestream's colour transform")
    return header


def jpeg_header(data: bytes) -> JpegHeader:
    """Read the marker segments up to the first scan, and of later scans what JPEG-LS says about loss.

    Raises
    ------
    CodecError
        There is no frame header, or the bytes are no JPEG.
    """
    try:
        return _jpeg_header(data)
    except (struct.error, IndexError) as error:
        raise CodecError(f"the JPEG stream is cut: {error}") from error


def _jpeg_header(data: bytes) -> JpegHeader:
    if data[:2] != b"\xff\xd8":
        raise CodecError("no JPEG: it does not begin with SOI")
    position, sof = 2, b""
    process = transform = 0
    while True:
        if position > _LONGEST_HEADER:
            raise CodecError("no scan begins where one should")
        lead, marker, length = struct.unpack_from(">BBH", data, position)
        if lead != 0xFF or length < 2:
            raise CodecError(f"no marker segment at byte {position}")
        if marker == 0xFF:
            position += 1
            continue
        if marker == _SOS:
            break
        if marker not in _SEGMENTS:
            raise CodecError(f"marker {marker:02X} before the first scan")
        if marker == _APP14 and data[position + 4 : position + 9] == b"Adobe":
            transform = data[position + 15]
        if marker in _SOFS:
            process, sof = marker, data[position + 4 : position + 2 + length]
        position += 2 + length
    if not sof:
        raise CodecError("a scan before the frame header")
    precision, rows, columns, components = struct.unpack_from(">BHHB", sof)
    sampling = {sof[6 + 3 * component + 1] for component in range(components)}
    return JpegHeader(
        process=process,
        precision=precision,
        rows=rows,
        columns=columns,
        components=components,
        is_subsampled=len(sampling) > 1,
        near=_near(data, position) if process == _SOF_JPEG_LS else 0,
        adobe_transform=transform,
    )


def _near(data: bytes, position: int) -> int:
    near = 0
    while position >= 0:
        components = data[position + 4]
        near = max(near, data[position + 5 + 2 * components])
        # In coded data 0xFF is never followed by a byte above 0x7F, so this is the next scan.
        position = data.find(bytes((0xFF, _SOS)), position + 2)
    return near


def _check_lossless(data: bytes, attributes: PixelAttributes, process: int) -> JpegHeader:
    header = _check_jpeg(data, attributes)
    if header.process != process or header.near:
        raise NotConvertibleError(
            PassReason.LOSSY_SOURCE, f"SOF {header.process:02X}, NEAR {header.near}"
        )
    if header.is_subsampled:
        raise mismatch("SOF says subsampled")
    return header


def _check_jpeg(data: bytes, attributes: PixelAttributes) -> JpegHeader:
    header = jpeg_header(data)
    expected = (attributes.rows, attributes.columns, attributes.samples)
    if (header.rows, header.columns, header.components) != expected:
        raise mismatch(f"SOF says {header.rows}x{header.columns}x{header.components}")
    if header.precision > attributes.bits_allocated:
        raise mismatch(f"SOF says {header.precision} bits")
    return header


def _decode_jpeg_lossless(data: bytes, attributes: PixelAttributes) -> Frame:
    header = _check_lossless(data, attributes, _SOF_LOSSLESS)
    if header.components == 3 and header.adobe_transform > 1:
        # Not of three components; GDCM would end the process.
        raise CodecError(f"an Adobe segment of transform {header.adobe_transform}")
    if header.precision < 8:
        # GDCM does not take these; two others, of different descent, decide together.
        first, second = (
            shaped(decode(data), header.precision, attributes)
            for decode in (imagecodecs.ljpeg_decode, _jpegsof3_decode)
        )
        if not np.array_equal(first, second):
            raise CodecError("two decoders disagree about a JPEG Lossless frame")
        return first
    frame = shaped(_gdcm_decode(data, attributes, header.precision), header.precision, attributes)
    # A second opinion, of other descent: decoders of JPEG Lossless are known to return wrong words
    # without an error. This one knows less of the standard and believes more, so it never decides alone.
    with contextlib.suppress(*_FAILURES):
        other = shaped(_jpegsof3_decode(data), header.precision, attributes)
        if not np.array_equal(frame, other):
            raise CodecError("two decoders disagree about a JPEG Lossless frame")
    return frame


def _jpegsof3_decode(data: bytes) -> Frame:
    frame: Frame = imagecodecs.jpegsof3_decode(data)
    return frame


def _gdcm_decode(data: bytes, attributes: PixelAttributes, precision: int) -> Frame:
    with warnings.catch_warnings():
        # Its import takes 0.2 s and raises SWIG's own deprecation warnings.
        warnings.simplefilter("ignore", DeprecationWarning)
        import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image: Any = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((attributes.columns, attributes.rows, 1))
    image.SetDataElement(element)
    # As RGB, so that it converts nothing.
    kind = gdcm.PhotometricInterpretation.GetPIType(
        "RGB" if attributes.samples == 3 else "MONOCHROME2"
    )
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if attributes.samples > 1:
        image.SetPlanarConfiguration(0)
    syntax = gdcm.TransferSyntax.GetTSType(str(uid.JPEGLosslessSV1))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    # The stream's precision, which may be more than Bits Stored: where it differs from what it is told,
    # GDCM ends the process.
    image.SetPixelFormat(
        gdcm.PixelFormat(
            attributes.samples,
            attributes.bits_allocated,
            precision,
            precision - 1,
            int(attributes.is_signed),
        )
    )
    # It hands out its buffer as a str with surrogates for bytes that are no UTF-8.
    buffer = image.GetBuffer()
    if buffer is None:
        raise ValueError("GDCM cannot decode it")
    words = buffer.encode("utf-8", "surrogateescape")
    return np.frombuffer(words, f"<u{attributes.bits_allocated // 8}")


def _decode_jpeg_ls(data: bytes, attributes: PixelAttributes) -> Frame:
    return _charls_decode(data, _check_lossless(data, attributes, _SOF_JPEG_LS), attributes)


def _charls_decode(data: bytes, header: JpegHeader, attributes: PixelAttributes) -> Frame:
    words, info = jpeg_ls.decode_pixel_data(data)
    samples: Frame = np.frombuffer(words, "<u1" if header.precision <= 8 else "<u2")
    if header.components > 1 and info["interleave_mode"] == 0:
        planes = samples.reshape(header.components, header.rows, header.columns)
        samples = planes.transpose(1, 2, 0)
    return shaped(samples, header.precision, attributes)


def _decode_jpeg_2000(data: bytes, attributes: PixelAttributes) -> Frame:
    header = check_codestream(data, attributes)
    if not header.is_reversible:
        raise NotConvertibleError(PassReason.LOSSY_SOURCE, "9/7 wavelet or quantisation")
    return shaped(imagecodecs.jpeg2k_decode(data, planar=False), header.precision, attributes)


def _decode_rle(data: bytes, attributes: PixelAttributes) -> Frame:
    """PS3.5 Annex G: one segment for each byte of each sample, most significant byte first."""
    size = attributes.bits_allocated // 8
    count, *offsets = struct.unpack_from("<16L", data)
    if count != attributes.samples * size:
        raise mismatch(f"{count} RLE segments")
    bounds = [*offsets[:count], len(data)]
    if bounds[0] < 64 or bounds != sorted(bounds):
        raise CodecError("RLE segments do not ascend")
    frame = np.empty((attributes.rows * attributes.columns, attributes.samples, size), np.uint8)
    for segment in range(count):
        plane = _unpack_bits(data[bounds[segment] : bounds[segment + 1]], len(frame))
        frame[:, segment // size, size - 1 - segment % size] = plane
    kind = container_type(attributes.bits_allocated, is_signed=attributes.is_signed)
    return (
        frame.reshape(-1)
        .view(kind)
        .reshape(attributes.rows, attributes.columns, attributes.samples)
    )


def _unpack_bits(segment: bytes, size: int) -> NDArray[np.uint8]:
    # The padding to even length may look like one more run. More is refused before it is there: two
    # bytes may stand for 128.
    unpacked = imagecodecs.packbits_decode(segment, out=size + 2)
    if len(unpacked) < size:
        raise CodecError(f"an RLE segment of {len(unpacked)} bytes, not {size}")
    return np.frombuffer(unpacked, np.uint8, size)


def _decode_htj2k(data: bytes, attributes: PixelAttributes) -> Frame:
    header = check_codestream(data, attributes)
    first = shaped(imagecodecs.jpeg2k_decode(data, planar=False), header.precision, attributes)
    if header.is_reversible:
        other = imagecodecs.htj2k_decode(data, planar=False)
        if not np.array_equal(first, shaped(other, header.precision, attributes)):
            raise CodecError("OpenJPEG and OpenJPH disagree about a frame")
    return first


def _decode_lossy_jpeg(data: bytes, attributes: PixelAttributes) -> Frame:
    header = _check_jpeg(data, attributes)
    if header.process not in _SOFS_LOSSY:
        raise mismatch(f"SOF {header.process:02X}")
    colours = None
    if header.components == 3 and not (b"Adobe" in data[:512] or b"JFIF" in data[:32]):
        # Nothing in the stream tells its colour space, so the dataset does (PS3.5 8.2.1).
        is_rgb = attributes.photometric_interpretation == "RGB"
        colours = "RGB" if is_rgb else "YCBCR"
    out = "RGB" if header.components == 3 else None
    frame = imagecodecs.jpeg8_decode(data, colorspace=colours, outcolorspace=out)
    return shaped(frame, header.precision, attributes)


def _decode_lossy_jpeg_ls(data: bytes, attributes: PixelAttributes) -> Frame:
    return _charls_decode(data, _check_jpeg(data, attributes), attributes)


def _decode_lossy_jpeg_2000(data: bytes, attributes: PixelAttributes) -> Frame:
    header = check_codestream(data, attributes)
    return shaped(imagecodecs.jpeg2k_decode(data, planar=False), header.precision, attributes)


_LOSSLESS: Final[Mapping[str, _Decode]] = MappingProxyType(
    {
        str(uid.RLELossless): _decode_rle,
        str(uid.JPEGLossless): _decode_jpeg_lossless,
        str(uid.JPEGLosslessSV1): _decode_jpeg_lossless,
        str(uid.JPEGLSLossless): _decode_jpeg_ls,
        str(uid.JPEG2000Lossless): _decode_jpeg_2000,
    }
)
_ANY: Final[Mapping[str, _Decode]] = MappingProxyType(
    {
        **_LOSSLESS,
        **dict.fromkeys(map(str, (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL)), _decode_htj2k),
        str(uid.HTJ2K): _decode_htj2k,
        str(uid.JPEGBaseline8Bit): _decode_lossy_jpeg,
        str(uid.JPEGExtended12Bit): _decode_lossy_jpeg,
        str(uid.JPEGLSNearLossless): _decode_lossy_jpeg_ls,
        str(uid.JPEG2000): _decode_lossy_jpeg_2000,
    }
)
