"""What the proof catches, and that nothing is left of what was not proved."""

from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from scp.config.schema import Htj2kSection
from scp.convert.ports import FrameDecoder, FrameEncoder, FrameFormat, Frames
from scp.convert.refusals import NotConvertibleError
from scp.convert.transcode import transcode
from scp.errors import CodecError
from scp.model import PassReason
from tests.convert.images import ENCODER, NOISE, OPENJPEG, Array, convert, image, save
from tests.convert.streams import jpeg_2000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(image(NOISE, bits_stored=12), tmp_path / "source.dcm")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target.dcm"


class Faulty(FrameEncoder):
    """An encoder that does one thing wrong."""

    name = "faulty"

    def __init__(self, fault: str) -> None:
        self._fault = fault

    def encode(
        self, frames: Frames, frame_format: FrameFormat, parameters: Htj2kSection
    ) -> list[bytes]:
        if self._fault == "refuses":
            raise CodecError("no")
        if self._fault == "forgets":
            return ENCODER.encode(frames, frame_format, parameters)[1:]
        if self._fault == "wrong word":
            wrong: Array = frames.copy()
            wrong[-1, 3, 4] ^= 1
            return ENCODER.encode(wrong, frame_format, parameters)
        codestreams = ENCODER.encode(frames, frame_format, parameters)
        good = codestreams[-1]
        codestreams[-1] = {
            "cut": good[: len(good) // 2],
            "swapped": codestreams[0],
            "garbage": b"nothing of the kind",
            "no end": good[:-2],
            "odd tail": good + b"tail",
            "sign": good.replace(b"\0\1\x0b\1\1", b"\0\1\x8b\1\1", 1),
            "lossy": good.replace(b"\x04\x04\x40\x01", b"\x04\x04\x40\x00", 1),
            "flipped": good[:-40] + bytes((good[-40] ^ 0x10,)) + good[-39:],
        }[self._fault]
        return codestreams


@pytest.mark.parametrize(
    "fault",
    ["wrong word", "cut", "swapped", "garbage", "no end", "odd tail", "sign", "lossy", "flipped"],
)
def test_a_frame_that_is_not_the_source_is_caught(source: Path, target: Path, fault: str) -> None:
    with pytest.raises(NotConvertibleError) as caught:
        transcode(source, target, Htj2kSection(), Faulty(fault), OPENJPEG)

    assert caught.value.reason == PassReason.VERIFY_MISMATCH
    assert not target.exists()


class Mislabelled(FrameEncoder):
    """An encoder whose codestreams decode to the right words, but are not what the header says."""

    name = "mislabelled"

    def __init__(self, fault: str) -> None:
        self._fault = fault

    def encode(
        self, frames: Frames, frame_format: FrameFormat, parameters: Htj2kSection
    ) -> list[bytes]:
        if self._fault == "not HT":
            return jpeg_2000(frames)
        return ENCODER.encode(frames, replace(frame_format, colour_transform=False), parameters)


@pytest.mark.parametrize("fault", ["not HT", "no colour transform"])
def test_right_words_in_the_wrong_codestream_are_caught(
    tmp_path: Path, target: Path, fault: str
) -> None:
    words = np.random.default_rng(1).integers(0, 256, (1, 12, 13, 3)).astype("<u1")
    source = save(image(words), tmp_path / "rgb.dcm")

    with pytest.raises(NotConvertibleError) as caught:
        transcode(source, target, Htj2kSection(), Mislabelled(fault), OPENJPEG)

    assert caught.value.reason == PassReason.VERIFY_MISMATCH
    assert not target.exists()


@pytest.mark.parametrize("fault", ["refuses", "forgets"])
def test_an_encoder_that_fails_leaves_no_file(source: Path, target: Path, fault: str) -> None:
    with pytest.raises(NotConvertibleError) as caught:
        transcode(source, target, Htj2kSection(), Faulty(fault), OPENJPEG)

    assert caught.value.reason == PassReason.ENCODER_FAILED
    assert not target.exists()


class Blind(FrameDecoder):
    """A verifier that cannot decode."""

    name = "blind"

    def decode(self, codestreams: list[bytes], frame_format: FrameFormat) -> Frames:
        raise CodecError("cannot see")


def test_a_verifier_that_fails_proves_nothing(source: Path, target: Path) -> None:
    with pytest.raises(NotConvertibleError) as caught:
        convert(source, target, Blind())

    assert caught.value.reason == PassReason.VERIFY_MISMATCH
    assert not target.exists()


def test_a_full_disk_is_no_room_and_leaves_no_file(source: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")

    link = source.with_name("full.dcm")
    link.symlink_to(full)

    with pytest.raises(NotConvertibleError) as caught:
        convert(source, link)

    assert caught.value.reason == PassReason.NO_ROOM
    assert not link.is_symlink()


def test_the_reason_survives_the_way_between_processes() -> None:
    error = NotConvertibleError(PassReason.HIGH_BIT, "High Bit 3")

    there, back = Pipe()
    there.send(error)
    copy = back.recv()

    assert (copy.reason, copy.detail, str(copy)) == (error.reason, "High Bit 3", str(error))
