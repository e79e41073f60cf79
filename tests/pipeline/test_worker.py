"""What a worker says of each task: whatever happens, there is an answer, and no half file."""

import hashlib
import logging
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import RLELossless

from scp.config.schema import Htj2kSection
from scp.convert.ports import FrameEncoder, FrameFormat, Frames
from scp.errors import CodecError
from scp.model import PassReason
from scp.pipeline.tasks import (
    Answer,
    Assignment,
    ConvertTask,
    Decoded,
    DecodeTask,
    Extent,
    Outcome,
    Task,
)
from scp.pipeline.worker import Workbench, serve
from tests.convert.images import ENCODER, OPENJPEG, save, shipped
from tests.convert.streams import compressed, rle
from tests.material import ct_series, write
from tests.pipeline.parts import config_for


class Faulty(FrameEncoder):
    """An encoder that fails, or changes a pixel."""

    name = "faulty"

    def __init__(self, fault: BaseException | None = None) -> None:
        self._fault = fault

    def encode(
        self, frames: Frames, frame_format: FrameFormat, parameters: Htj2kSection
    ) -> list[bytes]:
        if self._fault is not None:
            raise self._fault
        changed: Any = frames.copy()
        changed[0, 3, 4] ^= 1
        return ENCODER.encode(changed, frame_format, parameters)


@pytest.fixture
def task(tmp_path: Path) -> ConvertTask:
    (dataset,) = ct_series(1, 16, 16)
    return ConvertTask(source=write(dataset, tmp_path), target=tmp_path / "converted.dcm")


def bench(
    folder: Path,
    encoder: FrameEncoder = ENCODER,
    announce: Callable[[Extent], None] = lambda _: None,
    **codec: Any,
) -> Workbench:
    judge = None if codec.get("verify") == "off" else OPENJPEG
    return Workbench(config_for(folder, codec=codec), lambda: (encoder, judge), announce)


def convert(work: Workbench, task: ConvertTask) -> Outcome:
    outcome = work.do(task)
    assert isinstance(outcome, Outcome)
    return outcome


def assert_passed(outcome: Outcome, task: ConvertTask, reason: PassReason) -> None:
    """With the digests of the original, and nothing left of the conversion."""
    assert (outcome.reason, outcome.is_converted) == (reason, False)
    assert outcome.result_sha256 == hashlib.sha256(task.source.read_bytes()).hexdigest()
    assert outcome.dataset_sha256
    assert outcome.normal_sha256
    assert task.target is None or not task.target.exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A full disk for whoever writes more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- conversions -----------------------------------------------------------------------------------


def test_a_conversion_says_what_it_made_and_by_what_it_was_proved(
    tmp_path: Path, task: ConvertTask
) -> None:
    outcome = convert(bench(tmp_path), task)

    assert task.target is not None
    assert (outcome.is_converted, outcome.is_synced, outcome.frames) == (True, True, 1)
    assert outcome.result_sha256 == hashlib.sha256(task.target.read_bytes()).hexdigest()
    assert outcome.result_bytes == task.target.stat().st_size
    assert (outcome.encoder, outcome.verified_by) == (ENCODER.name, OPENJPEG.name)


def test_the_digests_of_the_dataset_are_the_same_converted_or_not(
    tmp_path: Path, task: ConvertTask
) -> None:
    """Else the same dataset would be no repeat after a worker has died."""
    converted = convert(bench(tmp_path), task)
    passed = convert(bench(tmp_path), ConvertTask(source=task.source, target=None))

    assert (converted.dataset_sha256, converted.normal_sha256) == (
        passed.dataset_sha256,
        passed.normal_sha256,
    )


def test_where_nothing_verifies_it_is_said(tmp_path: Path, task: ConvertTask) -> None:
    outcome = convert(bench(tmp_path, verify="off"), task)

    assert outcome.is_converted
    assert outcome.verified_by == ""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (None, PassReason.VERIFY_MISMATCH),
        (CodecError("no"), PassReason.ENCODER_FAILED),
        (MemoryError(), PassReason.FRAME_TOO_LARGE),
        (OSError(5, "Input/output error"), PassReason.ENCODER_FAILED),
        (OSError(28, "No space left on device"), PassReason.NO_ROOM),
    ],
    ids=str,
)
def test_what_fails_is_passed_for_a_named_reason(
    tmp_path: Path, task: ConvertTask, fault: Exception | None, reason: PassReason
) -> None:
    assert_passed(convert(bench(tmp_path, Faulty(fault)), task), task, reason)


def test_a_defect_is_passed_too_and_its_traceback_logged(
    tmp_path: Path, task: ConvertTask, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = convert(bench(tmp_path, Faulty(ZeroDivisionError())), task)

    assert_passed(outcome, task, PassReason.ENCODER_FAILED)
    assert outcome.detail == "defect: ZeroDivisionError"
    (logged,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert logged.exc_info


def test_after_a_failure_the_next_task_is_done(tmp_path: Path, task: ConvertTask) -> None:
    work = bench(tmp_path)
    convert(work, ConvertTask(source=shipped("MR_truncated.dcm"), target=task.target))

    assert convert(work, task).is_converted


def test_with_a_full_disk_the_original_is_passed(tmp_path: Path, task: ConvertTask) -> None:
    work = bench(tmp_path)

    with files_of_at_most(100):
        outcome = convert(work, task)

    assert_passed(outcome, task, PassReason.NO_ROOM)


def test_a_source_that_was_renamed_is_to_be_asked_for_again(
    tmp_path: Path, task: ConvertTask
) -> None:
    task.source.unlink()

    for target in (task.target, None):
        outcome = convert(bench(tmp_path), ConvertTask(source=task.source, target=target))
        assert outcome == Outcome(source_missing=True)


def test_a_cache_that_is_gone_is_made_anew(tmp_path: Path, task: ConvertTask) -> None:
    target = tmp_path / "no such folder" / "converted.dcm"

    assert convert(bench(tmp_path), replace(task, target=target)).is_converted
    assert target.is_file()


def test_a_cache_that_cannot_be_made_is_no_missing_source(
    tmp_path: Path, task: ConvertTask
) -> None:
    (tmp_path / "nowhere").symlink_to(tmp_path / "no such folder" / "either")
    task = replace(task, target=tmp_path / "nowhere" / "converted.dcm")

    assert_passed(convert(bench(tmp_path), task), task, PassReason.ENCODER_FAILED)


def test_what_is_no_dicom_file_is_unreadable(tmp_path: Path, task: ConvertTask) -> None:
    task.source.write_bytes(b"nothing of the kind")

    assert convert(bench(tmp_path), task).reason == PassReason.UNREADABLE


def test_an_instance_above_the_limit_is_passed(tmp_path: Path, task: ConvertTask) -> None:
    outcome = convert(bench(tmp_path, max_instance_bytes=100), task)

    assert_passed(outcome, task, PassReason.FRAME_TOO_LARGE)


def test_what_is_larger_than_its_file_is_announced_before_the_work(
    tmp_path: Path, task: ConvertTask
) -> None:
    announced: list[Extent] = []
    packed = tmp_path / "packed.dcm"
    words = np.zeros((3, 64, 64, 1), "<u2")
    save(compressed(words, rle(words), RLELossless), packed)

    convert(bench(tmp_path, announce=announced.append), task)
    assert announced == []
    convert(bench(tmp_path, announce=announced.append), replace(task, source=packed))

    assert announced == [Extent(3 * 64 * 64 * 2)]


# -- copies for peers ------------------------------------------------------------------------------


def decode(folder: Path, source: Path, target: Path | None = None) -> Decoded:
    decoded = bench(folder).do(
        DecodeTask(
            source=source,
            original=source,
            target=target or folder / "copy.dcm",
            transfer_syntax="1.2.840.10008.1.2.1",
            decode_lossy=False,
        )
    )
    assert isinstance(decoded, Decoded)
    return decoded


def test_a_copy_is_made(tmp_path: Path) -> None:
    assert decode(tmp_path, shipped("MR_small_RLE.dcm")) == Decoded()
    assert (tmp_path / "copy.dcm").stat().st_size > 0


def test_a_copy_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    decoded = decode(tmp_path, shipped("SC_rgb_jpeg_dcmtk.dcm"))

    assert "lossy" in decoded.error
    assert not decoded.is_for_lack_of_room


def test_a_copy_for_which_there_is_no_room_may_be_asked_for_again(tmp_path: Path) -> None:
    with files_of_at_most(100):
        decoded = decode(tmp_path, shipped("MR_small_RLE.dcm"))

    assert decoded.error
    assert decoded.is_for_lack_of_room


def test_a_source_that_is_gone_is_an_answer_too(tmp_path: Path) -> None:
    decoded = decode(tmp_path, tmp_path / "gone.dcm")

    assert decoded.error
    assert not decoded.is_for_lack_of_room


def test_what_nobody_waits_for_is_done_in_the_time_that_is_left(task: ConvertTask) -> None:
    def niceness(_: Task) -> Answer:
        return Outcome(detail=str(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))

    ours, theirs = Pipe()
    # In a thread, as Linux knows niceness of threads: that of the tests stays what it is.
    worker = threading.Thread(target=serve, args=(theirs, niceness))
    with ours, theirs:
        worker.start()
        found = []
        for is_urgent in (True, False, True):
            ours.send(Assignment(task, is_urgent))
            found.append(int(ours.recv().detail))
        ours.close()
        worker.join(30)

    assert not worker.is_alive()
    assert found[0] == found[2] < found[1]
