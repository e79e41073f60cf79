"""HTJ2K on the CPU: OpenJPH encodes, OpenJPEG, which shares no code with it, decodes as the proof."""

import re
from collections.abc import Callable
from importlib.metadata import version
from typing import cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from ojph.ojph_bindings import Codestream as OjphCodestream
from ojph.ojph_bindings import MemOutfile, Point

from scp.config.schema import Htj2kSection
from scp.convert.codestream import decompositions_for, parse_codestream
from scp.convert.ports import FrameFormat, Frames
from scp.errors import CodecError


def container_type(bits_allocated: int, *, is_signed: bool) -> np.dtype[np.generic]:
    """The little-endian numpy type that holds one sample."""
    return np.dtype(f"<{'i' if is_signed else 'u'}{bits_allocated // 8}")


class OpenJphEncoder:
    """OpenJPH through its lower layer, which alone signals the exact precision."""

    def __init__(self) -> None:
        self.name = f"openjph {_openjph_version()} (ojph {version('ojph')})"

    def encode(
        self, frames: Frames, frame_format: FrameFormat, parameters: Htj2kSection
    ) -> list[bytes]:
        """Compress losslessly, one frame after the other; see :class:`scp.convert.ports.FrameEncoder`."""
        shape = (frame_format.rows, frame_format.columns, frame_format.samples)
        kind = container_type(frame_format.bits_allocated, is_signed=frame_format.is_signed)
        if frames.shape[1:] != shape or frames.dtype != kind:
            raise CodecError(f"frames of {frames.shape[1:]} {frames.dtype}, not {shape} {kind}")
        try:
            return [_encode_frame(frame, frame_format, parameters) for frame in frames]
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise CodecError(f"OpenJPH: {error}") from error


def _encode_frame(
    frame: NDArray[np.generic], frame_format: FrameFormat, parameters: Htj2kSection
) -> bytes:
    rows, columns, samples = frame.shape
    codestream = OjphCodestream()
    siz = codestream.access_siz()
    siz.set_image_extent(Point(columns, rows))
    siz.set_num_components(samples)
    for component in range(samples):
        siz.set_component(component, Point(1, 1), frame_format.bits_stored, frame_format.is_signed)
    is_rpcl = parameters.progression == "RPCL"
    cod = codestream.access_cod()
    cod.set_reversible(True)
    cod.set_color_transform(frame_format.colour_transform)
    cod.set_progression_order(parameters.progression)
    cod.set_block_dims(*parameters.code_block)
    # With no decomposition at all OpenJPH loses the most negative value (ojph 0.10.2), hence 1.
    needed = decompositions_for(rows, columns) if is_rpcl else 1
    cod.set_num_decomposition(max(1, needed, parameters.decompositions))
    codestream.set_planar(False)
    codestream.set_tilepart_divisions(is_rpcl, False)
    codestream.request_tlm_marker(is_rpcl)
    output = MemOutfile()
    output.open(max(4096, frame.nbytes // 2), False)
    try:
        codestream.write_headers(output, None, 0)
        # Not planar, the library takes row 0 of each component, then row 1 of each: as one image of one
        # component that is what push_all_components delivers, and with it the colour transform works.
        lines = frame.transpose(0, 2, 1) if samples > 1 else frame
        image = np.require(lines.reshape(rows * samples, columns), requirements=("C", "W", "A"))
        codestream.push_all_components(image, 1, "HW")
        codestream.flush()
        return bytes(output.get_data())
    finally:
        codestream.close()
        output.close()


def _openjph_version() -> str:
    """From the comment (COM) that the library writes into every codestream; it is told nowhere else."""
    one = FrameFormat(
        rows=1,
        columns=1,
        samples=1,
        bits_allocated=8,
        bits_stored=8,
        is_signed=False,
        colour_transform=False,
    )
    codestream = _encode_frame(np.zeros((1, 1, 1), np.uint8), one, Htj2kSection())
    found = re.search(rb"OpenJPH Ver ([0-9]+(?:\.[0-9]+)*)", codestream)
    return found[1].decode() if found else "of unknown version"


class OpenJpegDecoder:
    """OpenJPEG, the judge of what OpenJPH wrote."""

    def __init__(self) -> None:
        self.name = f"{imagecodecs.jpeg2k_version()} (imagecodecs {imagecodecs.__version__})"

    def decode(self, codestreams: list[bytes], frame_format: FrameFormat) -> Frames:
        """Decode one after the other; see :class:`scp.convert.ports.FrameDecoder`."""
        return _decode_all(imagecodecs.jpeg2k_decode, codestreams, frame_format)


class OpenJphDecoder:
    """OpenJPH as imagecodecs builds it: fast, but the encoder's own library."""

    def __init__(self) -> None:
        self.name = f"{imagecodecs.htj2k_version()} (imagecodecs {imagecodecs.__version__})"

    def decode(self, codestreams: list[bytes], frame_format: FrameFormat) -> Frames:
        """Decode one after the other; see :class:`scp.convert.ports.FrameDecoder`."""
        return _decode_all(imagecodecs.htj2k_decode, codestreams, frame_format)


def _decode_all(
    decode: Callable[..., NDArray[np.generic]], codestreams: list[bytes], frame_format: FrameFormat
) -> Frames:
    kind = container_type(frame_format.bits_allocated, is_signed=frame_format.is_signed)
    shape = (frame_format.rows, frame_format.columns, frame_format.samples)
    decoded = [_decode_frame(decode, data, frame_format, shape, kind) for data in codestreams]
    if len(decoded) == 1:
        return cast("Frames", decoded[0][np.newaxis])
    return cast("Frames", np.stack(decoded) if decoded else np.empty((0, *shape), kind))


def _decode_frame(
    decode: Callable[..., NDArray[np.generic]],
    data: bytes,
    frame_format: FrameFormat,
    shape: tuple[int, int, int],
    kind: np.dtype[np.generic],
) -> NDArray[np.generic]:
    # The header is checked before a decoder allocates what it asks for.
    header = parse_codestream(data, main_header_only=True)
    if (header.rows, header.columns, header.components) != shape or header.is_subsampled:
        raise CodecError(f"codestream of {header.rows}x{header.columns}x{header.components}")
    if header.is_signed != frame_format.is_signed or header.precision > frame_format.bits_allocated:
        raise CodecError(f"codestream of {header.precision} bits, signed {header.is_signed}")
    try:
        frame = decode(data, planar=False)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise CodecError(f"{decode.__name__}: {error}") from error
    if frame.size != shape[0] * shape[1] * shape[2]:
        raise CodecError(f"{decode.__name__} gave an image of {frame.shape}")
    return frame.reshape(shape).astype(kind, copy=False)
