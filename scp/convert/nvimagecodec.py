"""One GPU through nvImageCodec and nvJPEG2000.

Imported only where a GPU is wanted: the libraries are large and belong to the extra ``gpu``. To be opened
in the process that uses it, after any fork. Works for one caller at a time.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from nvidia import nvimgcodec

from scp.convert.cuda import CudaDevice, CudaMemory
from scp.convert.gpu_port import EncodeSettings, Frame, GpuError
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.elements import Buffer

CPU_THREADS: Final = 4
"""Of the host for one GPU. They prove twice as many CT a second as one, at the same CPU time (H100)."""

_KEPT_BYTES: Final = 2**28
"""Of pinned memory for codestreams, above which all of it is given back before the next call."""


class NvImageCodec:
    """See :class:`scp.convert.gpu_port.Gpu`.

    Parameters
    ----------
    device
        CUDA's number of the GPU.
    cpu_threads
        Host threads of the library; each has its own state on the device.

    Raises
    ------
    GpuError
        The libraries are too old, or there is no such GPU or no driver.
    """

    def __init__(self, device: int = 0, cpu_threads: int = CPU_THREADS) -> None:
        self.name = gpu_library(installed_versions())
        try:
            self.device = CudaDevice(device)
            options = {"device_id": device, "max_num_cpu_threads": cpu_threads}
            self._encoder = nvimgcodec.Encoder(**options)
            self._decoder = nvimgcodec.Decoder(**options)
        except (OSError, RuntimeError) as error:
            raise GpuError(f"GPU {device}: {error}") from error
        self._parameters = nvimgcodec.DecodeParams(
            allow_any_depth=True,
            color_spec=nvimgcodec.ColorSpec.UNCHANGED,
            apply_exif_orientation=False,
        )
        self._sources = CudaMemory(self.device)
        self._decoded: list[Any] = []
        self._written: list[tuple[int, Any]] = []

    def encode(self, frames: Sequence[Frame], settings: EncodeSettings) -> list[Buffer | None]:
        """See :class:`scp.convert.gpu_port.Gpu`."""
        self.device.use()
        images = [nvimgcodec.as_image(frame, precision=settings.precision) for frame in frames]
        streams = self._encoder.encode(
            images,
            codec="jpeg2k",
            code_stream_s=self._streams_for(frames),
            params=_parameters(settings),
        )
        return [None if stream is None else memoryview(stream) for stream in streams]

    def _streams_for(self, frames: Sequence[Frame]) -> list[Any]:
        """Where the codestreams are written: pinned memory, kept from call to call.

        To take it anew for each halves the speed (CT: 0.41 ms a frame in batches of 8, else 0.23; H100).
        """
        old = self._written
        if sum(size for size, _ in old) > _KEPT_BYTES:
            old = []
        streams = []
        for number, frame in enumerate(frames):
            size, stream = old[number] if number < len(old) else (0, None)
            if size < frame.nbytes:
                size, stream = frame.nbytes, nvimgcodec.CodeStream(frame.nbytes, True)
            streams.append((size, stream))
        self._written = streams + old[len(streams) :]
        return [stream for _, stream in streams]

    def decode(self, codestreams: Sequence[Buffer]) -> list[Frame | None]:
        """See :class:`scp.convert.gpu_port.Gpu`."""
        self.device.use()
        images = self._decoder.decode(_sources(codestreams), params=self._parameters)
        return [None if image is None else self._on_host(image) for image in images]

    def differing(
        self, codestreams: Sequence[Buffer], frames: Sequence[Frame]
    ) -> list[bool | None]:
        """See :class:`scp.convert.gpu_port.Gpu`."""
        self.device.use()
        images = self._decode_into_old_images(codestreams, frames)
        offsets = np.cumsum([0, *(_aligned(frame.nbytes) for frame in frames)]).tolist()
        sources = self._sources.reserve(offsets[-1])
        answers: list[bool | None] = [None] * len(frames)
        pairs: dict[int, tuple[int, int, int]] = {}
        for number, (image, frame) in enumerate(zip(images, frames, strict=True)):
            if image is None:
                continue
            if image.dtype != frame.dtype or not _is_plain(image, frame):
                # A precision of at most 8 in words of 16 comes back as bytes.
                answers[number] = not np.array_equal(self._on_host(image), frame)
                continue
            source = sources + offsets[number]
            self.device.upload(source, frame)
            pairs[number] = (image.__cuda_array_interface__["data"][0], source, frame.nbytes)
        answers_on_device = self.device.differing(list(pairs.values()))
        for number, differs in zip(pairs, answers_on_device, strict=True):
            answers[number] = differs
        return answers

    def close(self) -> None:
        """See :class:`scp.convert.gpu_port.Gpu`."""
        self._decoded = []
        self._written = []
        self.device.use()
        self._sources.free()

    def _on_host(self, image: Any) -> Frame:
        frame: Frame = np.empty(image.shape, image.dtype)
        if not _is_plain(image, frame):
            return np.asarray(image.cpu())
        # Image.cpu() does the same several times slower: it takes pinned memory for each image.
        self.device.download(frame, image.__cuda_array_interface__["data"][0])
        return frame

    def _decode_into_old_images(
        self, codestreams: Sequence[Buffer], frames: Sequence[Frame]
    ) -> list[Any]:
        """Decode into the images of the call before, which spares an allocation for each."""
        old, self._decoded = self._decoded[: len(codestreams)], []
        if len(old) < len(codestreams):
            old = []
        for image, frame in zip(old, frames, strict=False):
            # What is left of the call before must never pass for what was decoded now.
            address = image.__cuda_array_interface__["data"][0]
            self.device.fill(address, image.shape[0] * image.strides[0], _unlike(frame))
        if old:
            self.device.wait()
        images: list[Any] = self._decoder.decode(
            _sources(codestreams), images=old or None, params=self._parameters
        )
        if None not in images:
            self._decoded = images
        return images


def _sources(codestreams: Sequence[Buffer]) -> list[Any]:
    """Without a copy of their own."""
    return [nvimgcodec.CodeStream(np.frombuffer(each, np.uint8)) for each in codestreams]


def _parameters(settings: EncodeSettings) -> Any:
    transformed = settings.colour_transform
    colours = nvimgcodec.ColorSpec
    return nvimgcodec.EncodeParams(
        quality_type=nvimgcodec.QualityType.LOSSLESS,
        color_spec=colours.SRGB if transformed else colours.UNCHANGED,
        jpeg2k_encode_params=nvimgcodec.Jpeg2kEncodeParams(
            code_block_size=(settings.code_block, settings.code_block),
            num_resolutions=settings.decompositions + 1,
            bitstream_type=nvimgcodec.Jpeg2kBitstreamType.J2K,
            prog_order=getattr(nvimgcodec.Jpeg2kProgOrder, settings.progression),
            mct_mode=int(transformed),
            ht=True,
        ),
    )


def _aligned(size: int) -> int:
    return -(-size // 256) * 256


def _is_plain(image: Any, frame: Frame) -> bool:
    """Whether the image lies on the device byte for byte as the frame does in memory."""
    _, columns, samples = frame.shape
    size = frame.itemsize
    strides = (columns * samples * size, samples * size, size)
    return tuple(image.shape) == frame.shape and tuple(image.strides) == strides


def _unlike(frame: Frame) -> int:
    """A byte that no frame begins with that equals this one."""
    return int(frame.reshape(-1)[:1].view(np.uint8)[0]) ^ 0xFF
