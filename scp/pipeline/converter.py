"""Gets every instance examined and converted by the workers, while its series is open or after."""

import itertools
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from scp.buffer.layout import INSTANCE_ENDING, Layout
from scp.config.schema import Config
from scp.durable import free_bytes
from scp.errors import (
    ConversionError,
    PeerUnavailableError,
    StorageFullError,
    WorkerLostError,
)
from scp.model import DeliveryItem, Form, PassReason
from scp.pipeline.pool import WorkerPool
from scp.pipeline.tasks import Answer, ConvertTask, Decoded, DecodeTask, Lost, Outcome
from scp.pipeline.threads import Inbox
from scp.pipeline.tracked import Tracked

logger = logging.getLogger(__name__)

FOR_PEER, AT_ONCE, CLOSED, AHEAD = range(4)
"""Priorities: a peer waits on an open association; what is closed goes before what still grows.

The first two are :data:`scp.pipeline.pool.URGENT`."""

HEADROOM_BYTES = 64 * 2**20
"""Conversion may use the reserve down to this; then originals are delivered, which need no room."""
_PEER_SECONDS = 600.0


class Converter:
    """Feeds the pool and takes its answers. On the coordinator's thread, but for :meth:`decode`."""

    def __init__(self, config: Config, layout: Layout, pool: WorkerPool, inbox: Inbox) -> None:
        self._config = config
        self._layout = layout
        self._pool = pool
        self._inbox = inbox
        self._numbers = itertools.count()
        self._ahead_bytes = 0

    def ahead(self, instance: Tracked) -> None:
        """Convert while the series is open, where the cache has room and the rules are sure."""
        size = instance.spooled.file_bytes
        room = self._config.limits.max_encoded_bytes - self._ahead_bytes
        if instance.decision is not None and size <= room:
            instance.ahead_bytes = size
            self._ahead_bytes += size
            self._submit(instance, AHEAD, wants_conversion=_wants_conversion(instance))

    def closed(self, instance: Tracked, priority: int, done: Callable[[], None]) -> None:
        """Convert an instance of a closed job, unless that was done ahead; ``done`` follows, always."""
        if instance.outcome is not None:
            done()
            return
        instance.on_done = done
        if instance.task is None or self._pool.cancel(instance.task):
            self._submit(instance, priority, wants_conversion=_wants_conversion(instance))

    def forget(self, instance: Tracked) -> None:
        """The conversion was moved to its job, or is not wanted: give its room in the cache back."""
        self._ahead_bytes -= instance.ahead_bytes
        instance.ahead_bytes = 0
        if instance.encoded is not None:
            instance.encoded.unlink(missing_ok=True)
            instance.encoded = None

    def decode(self, item: DeliveryItem, transfer_syntax: str, decode_lossy: bool) -> Path:
        """Make a native copy for a peer; for delivery threads (see ``deliver.ports.DecodeForPeer``)."""
        target = self._new_target()
        task = DecodeTask(
            source=item.path,
            original=item.original,
            target=target,
            transfer_syntax=transfer_syntax,
            decode_lossy=decode_lossy,
            sha256=item.sha256,
            original_dataset_sha256=item.original_dataset_sha256,
        )
        future: Future[Answer | Lost] = Future()
        self._inbox.post(lambda: _ignore(self._pool.submit(task, FOR_PEER, future.set_result)))
        # Asked after the post: a pool that was not stopped by now still gets the task, and answers.
        if self._pool.is_stopped:
            raise PeerUnavailableError("the node stops")
        try:
            answer = future.result(_PEER_SECONDS)
        except TimeoutError:
            # A worker may come to it yet, and nobody will take the copy then.
            future.add_done_callback(lambda _: target.unlink(missing_ok=True))
            answer = Lost(PassReason.DEADLINE, "no worker came to it")
        if isinstance(answer, Decoded) and not answer.error:
            return target
        target.unlink(missing_ok=True)
        if isinstance(answer, Lost):
            if self._pool.is_stopped:
                raise PeerUnavailableError("the node stops")
            raise WorkerLostError(answer.detail)
        assert isinstance(answer, Decoded)
        if answer.is_for_lack_of_room:
            raise StorageFullError(answer.error)
        raise ConversionError(answer.error)

    def _submit(self, instance: Tracked, priority: int, *, wants_conversion: bool) -> None:
        size = instance.spooled.file_bytes
        has_room = free_bytes(self._layout.spool) > size + HEADROOM_BYTES
        target = self._new_target() if wants_conversion and has_room else None
        assert instance.decision is not None
        task = ConvertTask(
            source=instance.spooled.path,
            target=target,
            is_for_volume=instance.decision.convert is Form.ENHANCED,
        )
        unconverted = "" if has_room or not wants_conversion else PassReason.NO_ROOM

        def done(answer: Answer | Lost) -> None:
            instance.task = None
            if isinstance(answer, Lost):
                self._lost(instance, task, answer, priority)
                return
            assert isinstance(answer, Outcome)
            if answer.source_missing and instance.spooled.path != task.source:
                # Renamed by the closing of its series; its path is the new one by now.
                self._submit(instance, min(priority, CLOSED), wants_conversion=wants_conversion)
                return
            if answer.source_missing:
                answer = Outcome(reason=PassReason.UNREADABLE, detail="the source is gone")
            if target is None and unconverted:
                answer = replace(answer, reason=unconverted)
            self._finished(instance, answer, target)

        instance.task = self._pool.submit(task, priority, done)

    def _lost(self, instance: Tracked, task: ConvertTask, lost: Lost, priority: int) -> None:
        """Deliver the original; its digests are still wanted, and need no codec."""
        outcome = Outcome(reason=lost.reason, detail=lost.detail)
        if task.target is None:
            self._finished(instance, outcome, None)
            return
        task.target.unlink(missing_ok=True)

        def done(answer: Answer | Lost) -> None:
            instance.task = None
            if isinstance(answer, Lost):
                self._finished(instance, outcome, None)
                return
            assert isinstance(answer, Outcome)
            if answer.source_missing and instance.spooled.path != digest_only.source:
                self._lost(instance, task, lost, min(priority, CLOSED))
                return
            digests = Outcome() if answer.source_missing else answer
            self._finished(instance, replace(digests, reason=lost.reason, detail=lost.detail), None)

        digest_only = replace(task, source=instance.spooled.path, target=None)
        instance.task = self._pool.submit(digest_only, priority, done)

    def _finished(self, instance: Tracked, outcome: Outcome, target: Path | None) -> None:
        instance.outcome = outcome
        instance.encoded = target if outcome.is_converted else None
        if outcome.reason and outcome.reason != PassReason.RULE_SAYS_ORIGINAL:
            logger.debug("passed through: %s (%s)", outcome.reason, outcome.detail)
        if instance.on_done is not None:
            done, instance.on_done = instance.on_done, None
            done()

    def _new_target(self) -> Path:
        self._layout.encoded.mkdir(exist_ok=True)  # It may be deleted at any time.
        return self._layout.encoded / f"{next(self._numbers)}{INSTANCE_ENDING}"


def _wants_conversion(instance: Tracked) -> bool:
    assert instance.decision is not None
    return instance.decision.convert is not Form.ORIGINAL and bool(instance.decision.send_to)


def _ignore(_: object) -> None:
    """Turn an expression into a call that returns nothing."""
