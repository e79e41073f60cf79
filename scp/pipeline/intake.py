"""From notices to closed jobs: which series are open, what is in them, when they close."""

import logging
import os
import time
from collections.abc import Collection
from dataclasses import replace
from math import inf
from pathlib import Path

from scp.buffer import part10
from scp.buffer.clock import SeriesClock
from scp.buffer.jobs import JobFolders, instances_in
from scp.buffer.layout import Layout
from scp.buffer.store import Landed
from scp.choose.attributes import Attributes, read_attributes
from scp.choose.rules import Facts, RuleSet
from scp.config.schema import Config
from scp.errors import StorageFullError, UnreadableInstanceError
from scp.model import Deliver, Identity, Origin, SpooledInstance
from scp.pipeline.committer import Committer
from scp.pipeline.converter import Converter
from scp.pipeline.notices import Notice
from scp.pipeline.tracked import ClosedJob, OpenSeries, Tracked

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 0.05
"""Until a series is tried again in whose folder an association was just landing."""
_ANNOUNCED_SECONDS = 0.005
"""As much, where its associations wait for it to be closed."""
_FULL_SECONDS = 2.0
"""Until it is tried again where the disk had no room for a folder."""


class Intake:
    """Open series. On the coordinator's thread."""

    def __init__(
        self,
        config: Config,
        layout: Layout,
        folders: JobFolders,
        converter: Converter,
        committer: Committer,
    ) -> None:
        self._limits = config.limits
        self._layout = layout
        self._growing = str(layout.growing)
        self._folders = folders
        self._converter = converter
        self._committer = committer
        self._rules = RuleSet(config.rules, config.default)
        self._clock = SeriesClock(config.series.quiet_seconds, config.series.max_open_seconds)
        self._open: dict[str, OpenSeries] = {}
        self._at_once: dict[str, OpenSeries] = {}
        """Those with instances that are about to be taken out of them."""
        self._announced: set[str] = set()
        """Those that are to be cut as soon as the last of their associations has landed."""
        self._busy_until = 0.0
        self.open_instances = 0
        self.open_bytes = 0
        self.repeats = 0
        """Datasets that came again while their series was open, since the start."""

    # -- notices -------------------------------------------------------------------------------

    def take(self, *notices: Notice) -> None:
        """Something happened in the folders; what is told at once costs less than one by one."""
        for notice in notices:
            self._take(notice)
        self._take_at_once()

    def _take(self, notice: Notice) -> None:
        now = time.monotonic()
        if notice.kind == "gone":
            self._clock.receiver_died(notice.receiver)
            self._take_up_untold()
        elif notice.kind == "arriving":
            self._clock.begin(notice.series, notice.receiver, now)
        else:
            self._clock.end(notice.series, notice.receiver, now)
            self.repeats += notice.kind == "repeated"
            if notice.landed is not None:
                self._landed(notice.landed)

    def _landed(self, landed: Landed) -> None:
        path = f"{self._growing}/{landed.series}/{landed.name}"
        if not os.path.exists(path):
            return  # Its series was closed before we came to it; it is in the job.
        spooled = SpooledInstance(
            path=Path(path),
            identity=landed.identity,
            origin=landed.request.origin,
            transfer_syntax=landed.request.transfer_syntax,
            file_bytes=landed.file_bytes,
        )
        self._take_up(landed.series, self._tracked(landed.name, spooled, landed.received))

    def _take_up(self, series: str, instance: Tracked) -> None:
        known = self._series(series)
        if instance.name in known.instances or instance.name in known.at_once:
            return
        instance.decision = self._rules.decide_open(instance.facts)
        if instance.decision is not None and instance.decision.deliver is Deliver.AT_ONCE:
            known.at_once[instance.name] = instance
            self._at_once[series] = known
        else:
            self._keep(known, instance)

    def _keep(self, series: OpenSeries, instance: Tracked) -> None:
        """Have an instance wait for its series."""
        decision = instance.decision
        if decision is not None and decision.quiet_seconds is not None:
            self._clock.set_quiet_seconds(series.folder, decision.quiet_seconds)
        series.instances[instance.name] = instance
        self.open_instances += 1
        self.open_bytes += instance.spooled.file_bytes
        self._converter.ahead(instance)

    def _take_at_once(self) -> None:
        """Give what does not wait for its series a job of its own; without room it does wait."""
        found, self._at_once = self._at_once, {}
        for series in found.values():
            instances, series.at_once = series.at_once, {}
            try:
                jobs = self._folders.take_each(series.folder, instances)
            except StorageFullError as error:
                if not all(instance.spooled.path.exists() for instance in instances.values()):
                    raise  # Moved, and not durably: a restart takes up what the folders say.
                logger.error("%d instances cannot be delivered at once: %s", len(instances), error)
                jobs = {}
            for name, instance in instances.items():
                if name in jobs:
                    self._begin(
                        jobs[name], series, {name: instance}, was_cut=False, is_at_once=True
                    )
                elif instance.spooled.path.exists():
                    self._keep(series, instance)

    # -- closing -------------------------------------------------------------------------------

    def next_wait(self, longest: float) -> float:
        """Seconds until a series may be due."""
        now = time.monotonic()
        due = 0.0 if self._announced else self._clock.next_due(now)
        if due is None:
            return longest
        return min(longest, max(due, self._busy_until - now))

    def close_due(self, now: float, known_until: float = inf) -> None:
        """Close what is quiet or cut, and, above the limits on open work, the oldest.

        Every notice from before ``known_until`` was taken.
        """
        if now < self._busy_until:
            return
        due = dict(self._clock.due(now, known_until)) | dict.fromkeys(self._announced, True)
        for series, was_cut in due.items():
            self._close(series, now, was_cut=was_cut)
        if self._is_above_limits:
            self._close_oldest(now, tried=due)

    def _close_oldest(self, now: float, tried: Collection[str]) -> None:
        """Until the limits on open work are kept."""
        for series in self._clock.oldest_first():
            if series in tried:
                continue
            if not self._close(series, now, was_cut=True) and series not in self._announced:
                return  # The disk has no room.
            if not self._is_above_limits:
                return

    @property
    def _is_above_limits(self) -> bool:
        """Whether there is too much open work, without what is about to be closed."""
        leaving = [self._open[series] for series in self._announced if series in self._open]
        instances = self.open_instances - sum(len(series.instances) for series in leaving)
        size = self.open_bytes - sum(series.bytes for series in leaving)
        return instances > self._limits.max_open_instances or size > self._limits.max_open_bytes

    def _close(self, series: str, now: float, *, was_cut: bool) -> bool:
        """False: not now, for want of room, or because something is landing in it."""
        if not (self._layout.growing / series).is_dir():
            self._drop(series)  # Announced, and then nothing landed.
            return True
        try:
            job = self._folders.close(series, was_cut=was_cut)
        except StorageFullError as error:
            if not (self._layout.growing / series).is_dir():
                raise  # Moved, and not durably: a restart takes up what the folders say.
            logger.error("series %s cannot be closed: %s; tried again", series, error)
            self._announced.discard(series)
            self._busy_until = now + _FULL_SECONDS
            return False
        if job is None:
            if was_cut:
                self._announced.add(series)
            self._busy_until = now + (_ANNOUNCED_SECONDS if self._announced else _BUSY_SECONDS)
            return False
        known = self._drop(series) or OpenSeries(
            folder=series, file=self._folders.series_file(self._folders.source(job))
        )
        instances: dict[str, Tracked] = {}
        for path in instances_in(self._folders.source(job)):
            instance = known.instances.get(path.name) or self._track(path)
            instances[path.name] = instance
        self._begin(job, known, instances, was_cut=was_cut, is_at_once=False)
        return True

    def _begin(
        self,
        job: str,
        series: OpenSeries,
        instances: dict[str, Tracked],
        *,
        was_cut: bool,
        is_at_once: bool,
    ) -> None:
        source = self._folders.source(job)
        count = None if is_at_once else len(instances)
        for instance in instances.values():
            instance.job = job
            instance.spooled = replace(instance.spooled, path=source / instance.name)
        members = {
            name: replace(instance.facts, instances=count) for name, instance in instances.items()
        }
        for decision, names in self._rules.split(members).items():
            for name in names:
                instances[name].decision = decision
        self._committer.begin(
            ClosedJob(
                name=job,
                file=series.file,
                instances=instances,
                was_cut=was_cut,
                is_at_once=is_at_once,
            )
        )

    # -- recovery ------------------------------------------------------------------------------

    def recover_series(self) -> None:
        """Every series that grew starts a fresh quiet period; its age comes from its file, clamped."""
        now, wall = time.monotonic(), time.time()
        for series in self._folders.growing():
            file = self._folders.series_file(self._layout.growing / series)
            self._clock.arrived(series, now, age=wall - file.opened)
        self._take_up_untold()

    def _take_up_untold(self) -> None:
        """Everything that grows and was not told of: its receiver died, or the whole node."""
        for series in self._folders.growing():
            known = self._series(series)
            for path in instances_in(self._layout.growing / series):
                if path.name not in known.instances:
                    self._take_up(series, self._track(path))
        self._take_at_once()

    def recover_job(self, job: str) -> None:
        """Do a job again that was closed and not committed."""
        self._folders.drop_results(job)
        source = self._folders.source(job)
        series = OpenSeries(folder="", file=self._folders.series_file(source))
        instances = {path.name: self._track(path) for path in instances_in(source)}
        was_cut = self._folders.was_cut(job)
        self._begin(job, series, instances, was_cut=was_cut, is_at_once=False)

    # -- state ---------------------------------------------------------------------------------

    def open_uids(self) -> set[str]:
        """The SOP Instance UIDs in open series."""
        return {
            instance.spooled.identity.sop_instance_uid
            for series in self._open.values()
            for instance in series.instances.values()
        }

    def snapshot(self) -> list[dict[str, object]]:
        """The open series for a status: no UIDs, no names of patients."""
        times = self._clock.snapshot(time.monotonic())
        return [
            {
                "series": series,
                "instances": len(self._open[series].instances) if series in self._open else 0,
                "bytes": self._open[series].bytes if series in self._open else 0,
                "open_seconds": round(opened, 1),
                "quiet_seconds": round(quiet, 1),
                "arriving": arriving,
            }
            for series, (opened, quiet, arriving) in sorted(times.items())
        ]

    def _series(self, series: str) -> OpenSeries:
        known = self._open.get(series)
        if known is None:
            file = self._folders.series_file(self._layout.growing / series)
            known = self._open[series] = OpenSeries(folder=series, file=file)
            self._clock.arrived(series, time.monotonic())
        return known

    def _drop(self, series: str) -> OpenSeries | None:
        self._clock.close(series)
        self._announced.discard(series)
        known = self._open.pop(series, None)
        if known is not None:
            self.open_instances -= len(known.instances)
            self.open_bytes -= known.bytes
        return known

    def _track(self, path: Path) -> Tracked:
        """What the file itself says, for one that no notice told of."""
        received = path.stat().st_mtime
        try:
            spooled = part10.open_instance(path)
        except (UnreadableInstanceError, OSError) as error:
            logger.error("a file of the spool cannot be read, delivered as it is: %s", error)
            spooled = _damaged(path)
        return self._tracked(path.name, spooled, received)

    def _tracked(self, name: str, spooled: SpooledInstance, received: float) -> Tracked:
        """``name`` is that of its path; to have a path say it takes a fifth of a notice's time."""
        try:
            attributes = read_attributes(spooled.path, self._rules.wanted)
        except OSError:
            attributes = Attributes(is_readable=False)
        return Tracked(
            name=name,
            spooled=spooled,
            received=received,
            facts=Facts(
                attributes=attributes,
                origin=spooled.origin,
                transfer_syntax=spooled.transfer_syntax,
                sop_class_uid=spooled.identity.sop_class_uid,
            ),
        )


def _damaged(path: Path) -> SpooledInstance:
    """What is left to say of a file that the disk has spoiled since it was acknowledged."""
    nobody = Origin(calling_ae_title="", called_ae_title="", peer_address="")
    identity = Identity(
        sop_class_uid="",
        sop_instance_uid=path.stem,
        study_instance_uid="damaged",
        series_instance_uid="damaged",
    )
    return SpooledInstance(
        path=path,
        identity=identity,
        origin=nobody,
        transfer_syntax="",
        file_bytes=path.stat().st_size,
    )
