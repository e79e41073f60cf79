"""Looks at the node from time to time, and tells what a person should know."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from scp.buffer.layout import Layout
from scp.config.schema import Config
from scp.deliver.queue import DestinationQueue
from scp.durable import Disk, free_bytes
from scp.pipeline.alarms import Alarms, Condition, Kind
from scp.pipeline.dispatch import Dispatch
from scp.pipeline.originals import Originals
from scp.pipeline.webhook import Webhook

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
_ENOUGH_AGAIN = 1.1
"""Room that is low counts as enough from this multiple of the limit on, so that it does not flap."""


class Watch:
    """On the coordinator's thread."""

    def __init__(
        self,
        config: Config,
        layout: Layout,
        disk: Disk,
        dispatch: Dispatch,
        queues: Mapping[str, DestinationQueue],
        originals: Originals,
        wall: Callable[[], float] = time.time,
    ) -> None:
        section = config.notices
        self._layout = layout
        self._dispatch = dispatch
        self._queues = queues
        self._originals = originals
        self._wall = wall
        self._down_seconds = section.down_minutes * 60
        self._low_space = section.low_space or 2 * config.limits.reserve
        self._alarms = Alarms(layout.notices, disk, section.repeat_hours * 3600)
        self._webhook = Webhook(section, config.node.ae_title) if section.webhook else None
        self._due = 0.0

    def tick(self, now: float) -> None:
        """Look, where it is time to; cheap to call often."""
        if now < self._due:
            return
        self._due = now + LOOK_SECONDS
        for notice in self._alarms.look(self.conditions(), self._wall()):
            logger.warning("notice, %s: %s", notice.state, notice.text)
            if self._webhook is not None:
                self._webhook.tell(notice)

    def stop(self, timeout: float) -> None:
        if self._webhook is not None:
            self._webhook.stop(timeout)

    def conditions(self) -> Iterator[Condition]:
        """What a person should know of at the moment."""
        yield from self._held()
        yield from self._down()
        yield from self._room()
        yield from self._late()

    def _held(self) -> Iterator[Condition]:
        reasons: dict[str, Counter[str]] = {}
        jobs: Counter[str] = Counter()
        for live in (*self._dispatch.held.values(), *self._dispatch.live.values()):
            for destination, held in live.held.items():
                if held:
                    jobs[destination] += 1
                    reasons.setdefault(destination, Counter()).update(held.values())
        unreadable = self._dispatch.unreadable
        if unreadable:
            jobs[""] = len(unreadable)
            reasons[""] = Counter({"job_unreadable": sum(unreadable.values())})
        for destination, counts in reasons.items():
            whom = f" for {destination}" if destination else ""
            yield Condition(
                kind=Kind.HELD,
                subject=destination,
                text=f"instances are held{whom} and need a person: see dcmpress held",
                facts={
                    "instances": counts.total(),
                    "jobs": jobs[destination],
                    "reasons": dict(counts.most_common(10)),
                },
                weight=counts.total(),
            )

    def _down(self) -> Iterator[Condition]:
        for name, queue in self._queues.items():
            snapshot = queue.snapshot()
            # A folder on a share that hangs raises nothing, it just never answers.
            begun = [at for at in (snapshot.down_since, snapshot.silent_since) if at is not None]
            since = min(begun, default=None)
            is_long = since is not None and self._wall() - since >= self._down_seconds
            # After a restart nobody has tried it yet: it is not up for that.
            was_told = self._alarms.is_raised(Kind.DESTINATION_DOWN, name)
            is_proven = snapshot.was_reached and not snapshot.last_error
            if is_long or (was_told and snapshot.pending and not is_proven):
                what = f"nothing can be delivered to {name}"
                if snapshot.down_since is None and snapshot.silent_since is not None:
                    what = f"{name} does not answer what is being sent; it hangs, or is very slow"
                yield Condition(
                    kind=Kind.DESTINATION_DOWN,
                    subject=name,
                    text=f"{what}: see dcmpress status",
                    facts={
                        "reason": snapshot.last_error or "no answer",
                        "pending": snapshot.pending,
                    },
                    since=since,
                )

    def _room(self) -> Iterator[Condition]:
        free = free_bytes(self._layout.spool)
        was_told = self._alarms.is_raised(Kind.LOW_SPACE, "")
        if free < self._low_space * (_ENOUGH_AGAIN if was_told else 1):
            kept = self._originals.kept_bytes
            text = "the spool's disk has little room left; without, nothing is accepted"
            if kept:
                text += "; originals that are kept take some of it, and are not deleted before time"
            yield Condition(
                kind=Kind.LOW_SPACE,
                subject="",
                text=text,
                facts={
                    "free_bytes": free,
                    "low_space_bytes": self._low_space,
                    "kept_originals_bytes": kept,
                },
            )

    def _late(self) -> Iterator[Condition]:
        late = self._dispatch.late_instances
        if late:
            yield Condition(
                kind=Kind.LATE_INSTANCES,
                subject="",
                text="instances came after their series was collapsed, and go out as single frames",
                facts={"instances_since_start": late},
                weight=late,
                is_event=True,
            )
