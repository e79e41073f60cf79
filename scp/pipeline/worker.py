"""A CPU worker: one task at a time from a pipe. It may crash or hang: its parent replaces it."""

import contextlib
import errno
import functools
import hashlib
import importlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from scp import telemetry
from scp.buffer.layout import INSTANCE_ENDING, Layout
from scp.choose.eligibility import EXPLANATIONS, ineligible, is_received_frame
from scp.choose.image_header import read_image_header
from scp.config.schema import Config
from scp.convert.decode import decode_for_peer
from scp.convert.digests import digest
from scp.convert.enhanced.collapsed import Collapsed
from scp.convert.enhanced.groups import CollapseLimits, partition
from scp.convert.enhanced.refusals import NotCollapsed, NotCollapsedError
from scp.convert.enhanced.slices import SourceSlice
from scp.convert.enhanced.uids import sop_instance_uid
from scp.convert.gpu_backend import Codecs, codecs_for
from scp.convert.gpu_port import GpuError
from scp.convert.gpu_versions import gpu_library, installed_versions
from scp.convert.received import prove_received
from scp.convert.refusals import NotConvertibleError
from scp.convert.source import SourceLimits
from scp.convert.transcode import transcode
from scp.durable import Disk
from scp.errors import ConversionError, ScpError, StorageFullError
from scp.model import CollapseReason, Form, PassReason
from scp.pipeline.gpu_link import GpuLink
from scp.pipeline.labels import Labels
from scp.pipeline.processes import Orders, keep_freed_memory, read_orders, receive, send
from scp.pipeline.tasks import (
    Answer,
    Assignment,
    Collapse,
    CollapseTask,
    ConvertTask,
    Decoded,
    DecodeTask,
    Extent,
    Outcome,
    Ready,
    Task,
)

logger = logging.getLogger(__name__)

_NICENESS = 5
"""Receiving and delivering come first."""
_PATIENCE = 10
"""More, for tasks that nobody waits for: a long series is converted in what time is left."""
_LARGEST_HEADER_BYTES = 2**26
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> None:
    orders = read_orders()
    telemetry.configure(orders.log_format, orders.log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    keep_freed_memory()
    coordinator = Connection(socket.socket(fileno=orders.sockets[0]).detach())
    gpu = _gpu_of(orders)
    beside = ThreadPoolExecutor(1) if gpu is not None else None
    codecs, announce = codecs_for(orders.config.codec, gpu), functools.partial(send, coordinator)
    work = Workbench(orders.config, codecs, announce, beside)
    if any(rule.convert is Form.ENHANCED for rule in (*orders.config.rules, orders.config.default)):
        importlib.import_module("scp.convert.enhanced.collapse")  # Not while a series waits for it.
    with contextlib.suppress(OSError):  # As below.
        send(coordinator, Ready())
    serve(coordinator, work.do)


def serve(coordinator: Connection, do: Callable[[Task], Answer]) -> None:
    """Do one task after another, the urgent ones at a better priority, until the other end is closed.

    Linux knows the niceness of each thread, and without a privilege it only grows. So urgent tasks
    have a thread, begun before this one becomes nicer.
    """
    with ThreadPoolExecutor(1, "urgent") as urgent:
        urgent.submit(os.getpid).result()
        os.nice(_PATIENCE)
        while True:
            try:
                assigned: Assignment = receive(coordinator)
                if assigned.is_urgent:
                    answer = urgent.submit(do, assigned.task).result()
                else:
                    answer = do(assigned.task)
                send(coordinator, answer)
            except (EOFError, OSError):
                break  # The coordinator stops, or was killed; who comes after it starts workers anew.


def _gpu_of(orders: Orders) -> GpuLink | None:
    """The way to the processes that have a GPU, where there may be one."""
    if orders.gpus is None or orders.config.codec.backend == "cpu":
        return None
    try:
        library = gpu_library(installed_versions())
    except GpuError:
        return None  # The coordinator says so, once.
    return GpuLink(library, orders.gpus, _number(orders.name))


def _number(name: str) -> int:
    """Of ``worker-7``; 0 of any other name."""
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


class Workbench:
    """What one worker does."""

    def __init__(
        self,
        config: Config,
        codecs: Codecs,
        announce: Callable[[Extent], None],
        beside: Executor | None = None,
    ) -> None:
        self._parameters = config.htj2k
        self._max_bytes = config.codec.max_instance_bytes
        self._restore_record = config.enhanced.restore_record
        self._collapse_limits = CollapseLimits(
            max_frames=config.enhanced.max_frames, max_bytes=config.enhanced.max_bytes
        )
        self._disk = Disk()
        self._announce = announce
        self._codecs = codecs
        self._beside = beside
        layout = Layout(config.node.data)
        self._labels = Labels(layout.patient_key)
        self._encoded = layout.encoded

    def do(self, task: Task) -> Answer:
        """Do one task; whatever happens is said in the answer."""
        if isinstance(task, DecodeTask):
            return self._decode(task)
        if isinstance(task, CollapseTask):
            return self._collapse(task)
        modality, patient_id_hash = self._labels.of(task.source)
        return replace(self._examine(task), modality=modality, patient_id_hash=patient_id_hash)

    def _examine(self, task: ConvertTask, *, is_again: bool = False) -> Outcome:
        started = time.perf_counter()
        try:
            if task.target is None:
                raise NotConvertibleError(PassReason.RULE_SAYS_ORIGINAL, "")
            return self._convert(task, started)
        except FileNotFoundError as error:
            if not task.source.exists():
                return Outcome(source_missing=True)
            if task.target is not None and not is_again:
                # Somebody deleted the cache, which is allowed at any time.
                with contextlib.suppress(OSError):
                    task.target.parent.mkdir(parents=True, exist_ok=True)
                return self._examine(task, is_again=True)
            reason, detail = PassReason.ENCODER_FAILED, str(error.strerror)
        except NotConvertibleError as error:
            reason, detail = error.reason, error.detail
        except ConversionError as error:
            reason, detail = PassReason.ENCODER_FAILED, str(error)
        except StorageFullError as error:
            reason, detail = PassReason.NO_ROOM, str(error)
        except OSError as error:
            reason = PassReason.NO_ROOM if error.errno in _NO_ROOM else PassReason.ENCODER_FAILED
            detail = str(error.strerror)
        except MemoryError:
            reason, detail = PassReason.FRAME_TOO_LARGE, "no memory for it"
        except Exception as error:
            # The boundary of a process that must say something about every instance.
            logger.exception("an instance could not be converted")
            reason, detail = PassReason.ENCODER_FAILED, f"defect: {type(error).__name__}"
        if task.target is not None:
            task.target.unlink(missing_ok=True)
        return self._passed(task, reason, detail, started)

    def _convert(self, task: ConvertTask, started: float) -> Outcome:
        assert task.target is not None
        header = read_image_header(task.source)
        refusal = ineligible(
            header, max_native_bytes=self._max_bytes, is_for_volume=task.is_for_volume
        )
        if refusal is not None:
            raise NotConvertibleError(refusal.reason, refusal.detail)
        if header.native_bytes > task.source.stat().st_size:
            self._announce(Extent(header.native_bytes))
        if is_received_frame(header):
            return self._receive(task, started)
        encoder, verifier = self._codecs()
        made = transcode(
            task.source,
            task.target,
            self._parameters,
            encoder,
            verifier,
            limits=self._limits(header.native_bytes),
            beside=self._beside,
        )
        # Here, because a series that still grows has time for it and a closed one has not.
        self._disk.sync_path(task.target)
        return Outcome(
            dataset_sha256=made.source.dataset,
            normal_sha256=made.source.normal,
            pixel_sha256=made.pixel_sha256,
            transfer_syntax=made.transfer_syntax,
            result_sha256=made.result_sha256,
            result_bytes=made.result_bytes,
            frames=made.frames,
            encoder=made.encoder,
            verified_by=made.decoder,
            is_synced=True,
            seconds=time.perf_counter() - started,
        )

    def _receive(self, task: ConvertTask, started: float) -> Outcome:
        """Prove a codestream that came; by itself the instance is delivered as it is."""
        proved = prove_received(task.source)
        detail = EXPLANATIONS[PassReason.ALREADY_HTJ2K]
        outcome = self._passed(task, PassReason.ALREADY_HTJ2K, detail, started)
        if outcome.source_missing or outcome.reason != PassReason.ALREADY_HTJ2K:
            return outcome
        return replace(
            outcome,
            pixel_sha256=proved.pixel_sha256,
            transfer_syntax=proved.transfer_syntax,
            result_bytes=task.source.stat().st_size,
            frames=1,
            is_received_frame=True,
            verified_by=proved.decoders,
        )

    def _limits(self, native_bytes: int) -> SourceLimits:
        """A deflated dataset is its pixels and a header."""
        return SourceLimits(inflated_bytes=native_bytes + _LARGEST_HEADER_BYTES)

    def _scratch(self, task: ConvertTask) -> Path | None:
        """Where a deflated dataset is inflated to be read; None: the system's folder for such files."""
        if task.target is not None:
            return task.target.parent
        return self._encoded if self._encoded.is_dir() else None

    def _passed(self, task: ConvertTask, reason: str, detail: str, started: float) -> Outcome:
        try:
            digests = digest(task.source, self._scratch(task))
            with task.source.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return Outcome(source_missing=True)
        except (NotConvertibleError, OSError, MemoryError) as error:
            return Outcome(reason=PassReason.UNREADABLE, detail=str(error))
        return Outcome(
            reason=reason,
            detail=detail,
            dataset_sha256=digests.dataset,
            normal_sha256=digests.normal,
            result_sha256=whole,
            seconds=time.perf_counter() - started,
        )

    def _collapse(self, task: CollapseTask) -> Collapse:
        """Volume by volume; what cannot be one stays as it is, with its reason."""
        # Imported where a rule asks for it: see scp.convert.enhanced.collapsed.
        from scp.convert.enhanced.collapse import collapse

        made: list[tuple[Path, Collapsed]] = []
        try:
            # It is there where this task took a worker with it before.
            task.folder.mkdir(parents=True, exist_ok=True)
            parts = partition(task.slices, self._collapse_limits)
        except Exception as error:
            logger.exception("a series could not be collapsed")
            return Collapse(refused=_all_refused(task.slices, error))
        refused = [_as_late(each) if task.only is not None else each for each in parts.refused]
        for volume in parts.volumes:
            if task.only is not None and sop_instance_uid(volume) not in task.only:
                refused += [_late(name) for name in volume.names]
                continue
            target = task.folder / f"volume-{volume.number}{INSTANCE_ENDING}"
            try:
                collapsed = collapse(volume, target, restore_record=self._restore_record)
                for path in filter(None, (target, collapsed.sidecar)):
                    self._disk.sync_path(path)
                made.append((target, collapsed))
            except Exception as error:
                if not isinstance(error, (ScpError, OSError, MemoryError)):
                    logger.exception("a volume could not be collapsed")
                members = [h.source for h in volume.headers]
                refused += _all_refused(members, error)
        return Collapse(volumes=tuple(made), refused=tuple(refused))

    def _decode(self, task: DecodeTask) -> Decoded:
        try:
            decode_for_peer(
                task.source,
                task.target,
                task.transfer_syntax,
                decode_lossy=task.decode_lossy,
                original=task.original,
                sha256=task.sha256,
                original_dataset_sha256=task.original_dataset_sha256,
                limits=self._limits(self._max_bytes),
            )
        except (StorageFullError, OSError) as error:
            is_full = isinstance(error, StorageFullError) or error.errno in _NO_ROOM
            return Decoded(error=str(error), is_for_lack_of_room=is_full)
        except NotConvertibleError as error:
            return Decoded(error=str(error), is_for_lack_of_room=error.reason is PassReason.NO_ROOM)
        except (ScpError, MemoryError) as error:
            return Decoded(error=str(error) or type(error).__name__)
        except Exception as error:
            logger.exception("an instance could not be decoded for a peer")
            return Decoded(error=f"defect: {type(error).__name__}")
        return Decoded()


def _late(name: str) -> NotCollapsed:
    return NotCollapsed(
        name=name, reason=CollapseReason.LATE_INSTANCE, detail="the series was collapsed before"
    )


def _as_late(refused: NotCollapsed) -> NotCollapsed:
    """What is alone because the others came before it is late, and nothing else."""
    is_alone = refused.reason in (CollapseReason.SINGLE_SLICE, CollapseReason.POSITIONS_REPEATED)
    return _late(refused.name) if is_alone else refused


def _all_refused(slices: Iterable[SourceSlice], error: Exception) -> tuple[NotCollapsed, ...]:
    reason, detail = CollapseReason.LIBRARY_REFUSED, f"defect: {type(error).__name__}"
    if isinstance(error, NotCollapsedError):
        reason, detail = error.reason, error.detail
    elif isinstance(error, (OSError, StorageFullError, MemoryError)):
        reason, detail = CollapseReason.NO_ROOM, str(error)
    return tuple(NotCollapsed(name=s.name, reason=reason, detail=detail) for s in slices)


if __name__ == "__main__":
    main()
