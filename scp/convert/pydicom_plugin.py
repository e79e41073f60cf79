"""Makes pydicom open HTJ2K fast: ``register()``, then ``dcmread(path).pixel_array`` as ever.

The frames of a multi-frame instance are decoded many at a time, on a GPU where there is one, otherwise on
every core by OpenJPH; pydicom's own plugin takes them one by one. Nothing changes by importing this.
"""

import atexit
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, cast
from weakref import WeakKeyDictionary

from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import UID, HTJ2KLossless, HTJ2KLosslessRPCL

from scp.convert.codec_cpu import OpenJphDecoder
from scp.convert.codec_gpu import GpuDecoder
from scp.convert.cuda import gpu_names
from scp.convert.gpu_port import Frame, Gpu, GpuError
from scp.convert.gpu_thread import GpuThread
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.convert.ports import FrameDecoder, FrameFormat
from scp.errors import CodecError

LABEL: Final = "dcmpress"
BATCH_BYTES: Final = 2**26
"""Native bytes that are decoded ahead of what pydicom has asked for."""
_WORTH_BYTES: Final = 2**22
"""Native bytes from which on the way to the device and back takes less time than one core."""

# Lossy HTJ2K (1.2.840.10008.1.2.4.203) is left alone: decoders round differently.
_DECODERS: Final = (get_decoder(HTJ2KLossless), get_decoder(HTJ2KLosslessRPCL))
_OTHER: Final = ("pylibjpeg", ("pydicom.pixels.decoders.pylibjpeg", "_decode_frame"))

DECODER_DEPENDENCIES: Final = {decoder.UID: ("imagecodecs>=2026.10.10",) for decoder in _DECODERS}
"""Read by pydicom."""


def register() -> None:
    """Have pydicom try this plugin first; calling it again changes nothing."""
    for decoder in _DECODERS:
        if LABEL in decoder.available_plugins:
            continue
        # pydicom tries plugins in the order in which they were added.
        has_other = _OTHER[0] in decoder.available_plugins
        if has_other:
            decoder.remove_plugin(_OTHER[0])
        decoder.add_plugin(LABEL, (__name__, decode_frame.__name__))
        if has_other:
            decoder.add_plugin(*_OTHER)


def unregister() -> None:
    """Leave pydicom as it was."""
    for decoder in _DECODERS:
        if LABEL in decoder.available_plugins:
            decoder.remove_plugin(LABEL)


def is_available(uid: UID) -> bool:
    """Asked by pydicom when the plugin is added."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame, as pydicom demands of a plugin.

    Raises
    ------
    CodecError
        The codestream is not what the header says; pydicom goes on to the next plugin.
    """
    if (ahead := _ahead.get(runner)) is None:
        ahead = _ahead[runner] = _Ahead(runner, shared_decoder(os.getpid()))
    frame = ahead.frame(bytes(src))
    if runner.photometric_interpretation == "YBR_RCT":
        runner.set_option("photometric_interpretation", "RGB")
    return frame.tobytes()


class Decoder:
    """A GPU if there is one, and all cores."""

    def __init__(self, cpu: FrameDecoder, gpu: FrameDecoder | None) -> None:
        self._cpu = cpu
        self._gpu = gpu
        self._cores = len(os.sched_getaffinity(0))

    def decode(self, codestreams: list[bytes], frame_format: FrameFormat) -> list[Frame]:
        size = frame_format.rows * frame_format.columns * frame_format.samples
        size *= len(codestreams) * frame_format.bits_allocated // 8
        if self._gpu and size >= _WORTH_BYTES:
            try:
                return list(self._gpu.decode(codestreams, frame_format))
            except GpuError:
                pass  # the thread knows when to try again
        if len(codestreams) == 1:
            return list(self._cpu.decode(codestreams, frame_format))

        def decode_one(codestream: bytes) -> Frame:
            frame: Frame = self._cpu.decode([codestream], frame_format)[0]
            return frame

        with ThreadPoolExecutor(min(self._cores, len(codestreams)), "decode") as pool:
            return list(pool.map(decode_one, codestreams))


@cache
def shared_decoder(process: int) -> Decoder:
    """The one of this process: CUDA does not survive a fork."""
    return Decoder(OpenJphDecoder(), _gpu_decoder())


def _gpu_decoder() -> FrameDecoder | None:
    try:
        library = gpu_library(installed_versions())
    except GpuError:
        return None
    if not gpu_names():
        return None
    thread = GpuThread(library, _open_gpu)
    atexit.register(thread.close)
    return GpuDecoder(thread)


def _open_gpu() -> Gpu:
    from scp.convert.nvimagecodec import NvImageCodec

    return NvImageCodec()


class _Ahead:
    """The frames of one call of pydicom, decoded in batches once it turns out to want them in order."""

    def __init__(self, runner: DecodeRunner, decoder: Decoder) -> None:
        signed = runner.pixel_representation == 1
        self._decoder = decoder
        self._format = FrameFormat(
            rows=runner.rows,
            columns=runner.columns,
            samples=runner.samples_per_pixel,
            bits_allocated=runner.bits_allocated,
            bits_stored=runner.bits_stored,
            is_signed=signed,
            colour_transform=runner.photometric_interpretation == "YBR_RCT",
        )
        if runner.bits_allocated not in (8, 16):
            raise CodecError(f"{runner.bits_allocated} bits allocated")
        self._calls = 0
        self._encoded: Iterator[bytes] | None = None
        # A file's position is not ours to move.
        if runner.number_of_frames > 1 and not runner.is_binary:
            self._encoded = generate_frames(
                cast("bytes", runner.src),
                number_of_frames=runner.number_of_frames,
                extended_offsets=runner.extended_offsets,
            )
        self._ready: deque[tuple[bytes, Frame]] = deque()

    def frame(self, codestream: bytes) -> Frame:
        self._calls += 1
        # The first may be the only one that is wanted.
        if self._calls > 1 and not self._ready and self._encoded:
            self._fill(self._encoded)
        if self._ready:
            expected, frame = self._ready.popleft()
            if expected == codestream:
                return frame
            self._stop()
        return self._decoder.decode([codestream], self._format)[0]

    def _fill(self, encoded: Iterator[bytes]) -> None:
        if self._calls == 2:
            next(encoded)
        size = self._format.rows * self._format.columns * self._format.samples
        size *= self._format.bits_allocated // 8
        wanted = range(max(1, BATCH_BYTES // size))
        codestreams = [codestream for _, codestream in zip(wanted, encoded, strict=False)]
        try:
            frames = self._decoder.decode(codestreams, self._format)
        except CodecError:
            # Whichever it is, it is met again where pydicom expects it.
            self._stop()
        else:
            self._ready.extend(zip(codestreams, frames, strict=True))

    def _stop(self) -> None:
        self._encoded = None
        self._ready.clear()


_ahead: WeakKeyDictionary[DecodeRunner, _Ahead] = WeakKeyDictionary()
"""pydicom names a plugin by its module, so what one of its calls needs lies here, as long as the call."""
