"""From converted instances to volumes: what a rule with ``enhanced`` asks for when its series is closed."""

import functools
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from scp.buffer.job import Job, JobForm, JobInstance, JobVolume
from scp.buffer.jobs import ORIGINAL
from scp.buffer.layout import INSTANCE_ENDING, Layout
from scp.choose.eligibility import EXPLANATIONS, HTJ2K_LOSSLESS_SYNTAXES
from scp.choose.rules import Decision
from scp.convert.enhanced.collapsed import Collapsed
from scp.convert.enhanced.slices import SourceSlice
from scp.durable import free_bytes
from scp.ledger.ports import SeriesHistory
from scp.model import CollapseReason, Form, Identity, PassReason
from scp.pipeline.converter import CLOSED, HEADROOM_BYTES
from scp.pipeline.pool import WorkerPool
from scp.pipeline.tasks import Answer, Collapse, CollapseTask, Lost
from scp.pipeline.tracked import ClosedJob

logger = logging.getLogger(__name__)

type Done = Callable[[Job], None]
type LookUp = Callable[[str, Callable[[SeriesHistory], None], Callable[[Exception], None]], None]
"""Finds out what was made of a series, by its UID, before; calls one of the two, once."""


class Collapser:
    """Has workers collapse what may be collapsed. On the coordinator's thread."""

    def __init__(
        self,
        layout: Layout,
        pool: WorkerPool,
        look_up: LookUp,
        accepting: Collection[str],
    ) -> None:
        self._layout = layout
        self._accepting = accepting
        """The destinations that take volumes."""
        self._pool = pool
        self._look_up = look_up
        self._claims: dict[str, str] = {}
        """Series to the job, between its closing and its commit, that may become its volumes."""
        self._cut: dict[str, ClosedJob] = {}
        """Jobs, between their closing and their commit, that hold a part of a series."""
        self._numbers = itertools.count()

    def claim(self, closed: ClosedJob) -> None:
        """The job was closed: what comes of its series after it is late, also where it is ready first."""
        if not any(i.decision and _wants_volume(i.decision) for i in closed.instances.values()):
            return
        if closed.was_cut or closed.is_at_once:
            self._cut[closed.name] = closed
        else:
            self._claims.setdefault(closed.file.series_instance_uid, closed.name)

    def release(self, closed: ClosedJob) -> None:
        """The job was committed: from here on it is known what became of it."""
        self._cut.pop(closed.name, None)
        series = closed.file.series_instance_uid
        if self._claims.get(series) == closed.name:
            del self._claims[series]

    def begin(self, closed: ClosedJob, job: Job, done: Done) -> None:
        """Collapse what the job's rules say; ``done`` follows, always, with the job as it became.

        The volumes' files are noted in ``closed``, where they lie until the commit moves them.
        """
        wanted = [i for i in job.instances if i.form == Form.ENHANCED]
        # What nobody gets is no part of a volume, and there is nothing to say of it.
        job = _single(job, {i.name: None for i in wanted if not i.is_delivered})
        # A person decides about it by itself, and the volume does not wait for that.
        held = [i for i in wanted if i.hold_reason]
        job = _single(job, {i.name: CollapseReason.DUPLICATE_UID for i in held if i.is_delivered})
        wanted = [i for i in wanted if not i.hold_reason]
        groups: dict[tuple[str, ...], list[JobInstance]] = {}
        for instance in wanted:
            if instance.is_delivered:
                takers = tuple(sorted(set(instance.send_to).intersection(self._accepting)))
                groups.setdefault(takers, []).append(instance)
        nobodys = groups.pop((), [])
        job = _single(job, {i.name: CollapseReason.NOT_ACCEPTED for i in nobodys})
        members = [i for group in groups.values() for i in group]
        reason = self._why_none(closed) if members else None
        if reason is not None or not members:
            done(_single(job, {i.name: reason for i in members}))
            return

        def found(history: SeriesHistory) -> None:
            only = self._only(closed, members, history)
            if isinstance(only, CollapseReason):
                done(_single(job, {i.name: only for i in members}))
            else:
                self._collapse(closed, job, groups, only, done)

        def not_found(error: Exception) -> None:
            logger.error("a series stays single-frame, nobody knows whether it is late: %s", error)
            # A second volume is worse than none.
            done(_single(job, {i.name: CollapseReason.LATE_INSTANCE for i in members}))

        self._look_up(closed.file.series_instance_uid, found, not_found)

    def _collapse(
        self,
        closed: ClosedJob,
        job: Job,
        groups: Mapping[tuple[str, ...], list[JobInstance]],
        only: frozenset[str] | None,
        done: Done,
    ) -> None:
        left = len(groups)

        def collapsed(
            takers: tuple[str, ...], group: list[JobInstance], answer: Answer | Lost
        ) -> None:
            nonlocal job, left
            job = _applied(closed, job, takers, group, answer)
            left -= 1
            if not left:
                done(job)

        # Instances that other destinations take in volumes become volumes of their own.
        for takers, group in groups.items():
            folder = self._layout.encoded / f"volumes-{next(self._numbers)}"
            closed.volume_folders.append(folder)
            slices = tuple(self._slice_of(closed, instance) for instance in group)
            task = CollapseTask(slices=slices, folder=folder, only=only)
            self._pool.submit(task, CLOSED, functools.partial(collapsed, takers, group))

    def _why_none(self, closed: ClosedJob) -> CollapseReason | None:
        """Why no volume can come of this job, whatever came of its series before."""
        if closed.was_cut or closed.is_at_once:
            return CollapseReason.SERIES_WAS_CUT
        self.claim(closed)
        if self._claims.get(closed.file.series_instance_uid) != closed.name:
            return CollapseReason.LATE_INSTANCE
        return None

    def _only(
        self, closed: ClosedJob, members: Sequence[JobInstance], history: SeriesHistory
    ) -> frozenset[str] | CollapseReason | None:
        """The volumes, by their UIDs, that may be made of these members; None: any that they give.

        Of a series that was collapsed before there is no second volume. The same set of instances again
        gives the same object with the same UID again, which is none.
        """
        series = closed.file.series_instance_uid
        elsewhere = history.cut.union(
            i.spooled.identity.sop_instance_uid
            for cut in self._cut.values()
            if cut.file.series_instance_uid == series
            for i in cut.instances.values()
        )
        if not elsewhere <= {i.identity.sop_instance_uid for i in members}:
            # The rest of a series that was cut. With all of it again it is whole.
            return CollapseReason.SERIES_WAS_CUT
        size = sum(i.result_bytes for i in members)
        if free_bytes(self._layout.spool) <= size + HEADROOM_BYTES:
            return CollapseReason.NO_ROOM
        return history.volumes or None

    def _slice_of(self, closed: ClosedJob, instance: JobInstance) -> SourceSlice:
        tracked = closed.instances[instance.name]
        # What came as HTJ2K is its own encoded form.
        return SourceSlice(
            name=instance.name,
            path=tracked.spooled.path,
            encoded=tracked.encoded or tracked.spooled.path,
            transfer_syntax=instance.transfer_syntax,
            dataset_sha256=instance.dataset_sha256,
            pixel_sha256=instance.pixel_sha256,
            encoded_sha256=instance.result_sha256,
        )


def _applied(
    closed: ClosedJob,
    job: Job,
    takers: tuple[str, ...],
    group: list[JobInstance],
    answer: Answer | Lost,
) -> Job:
    """The job, with one group of its instances as they became; ``takers`` get volumes.

    The single frames that volumes were made of are kept for the other destinations, if any.
    """
    if isinstance(answer, Lost):
        is_late = answer.reason == PassReason.DEADLINE
        reason = CollapseReason.DEADLINE if is_late else CollapseReason.WORKER_LOST
        return _single(job, {i.name: reason for i in group})
    assert isinstance(answer, Collapse)
    refused = {each.name: each.reason for each in answer.refused}
    for reason in sorted(set(refused.values())):
        details = sorted({each.detail for each in answer.refused if each.reason == reason})
        logger.debug("not collapsed: %s (%s)", reason, "; ".join(details))
    instances = {i.name: i for i in job.instances}
    volumes = list(job.volumes)
    for path, made in answer.volumes:
        # Not its UID: the same datasets, sent to one place and then to another, are two volumes of it.
        volume = _volume(f"volume-{len(volumes) + 1}{INSTANCE_ENDING}", made, group[0], takers)
        volumes.append(volume)
        closed.volumes[volume.name] = path
        parts = shares(made.result_bytes, len(made.frames))
        for (name, frame), share in zip(made.frames, parts, strict=True):
            instances[name] = replace(
                instances[name],
                volume=volume.name,
                frame=frame,
                transfer_syntax=volume.transfer_syntax,
                result_bytes=share,
                result_sha256=volume.result_sha256,
                forms=_single_frame(instances[name], takers),
            )
    whole = replace(
        job, instances=tuple(instances[i.name] for i in job.instances), volumes=tuple(volumes)
    )
    return _single(whole, refused)


def _single_frame(instance: JobInstance, takers: Collection[str]) -> tuple[JobForm, ...]:
    """The converted instance by itself, for the destinations that do not take its volume."""
    others = tuple(name for name in instance.send_to if name not in takers)
    if not others:
        return ()
    single = _by_itself(instance)
    return (
        JobForm(
            form=single.form,
            transfer_syntax=single.transfer_syntax,
            result_bytes=single.result_bytes,
            result_sha256=single.result_sha256,
            send_to=others,
        ),
    )


def _volume(name: str, made: Collapsed, member: JobInstance, takers: tuple[str, ...]) -> JobVolume:
    return JobVolume(
        name=name,
        identity=Identity(
            sop_class_uid=made.sop_class_uid,
            sop_instance_uid=made.sop_instance_uid,
            study_instance_uid=member.identity.study_instance_uid,
            series_instance_uid=made.series_instance_uid,
        ),
        transfer_syntax=made.transfer_syntax,
        send_to=takers,
        result_bytes=made.result_bytes,
        result_sha256=made.result_sha256,
        has_sidecar=made.sidecar is not None,
        sidecar_sha256=made.sidecar_sha256,
        restore_record=_restore_record(made),
    )


def _restore_record(made: Collapsed) -> str:
    if made.sidecar is not None:
        return "sidecar"
    return "embedded" if made.record_bytes else "none"


def _wants_volume(decision: Decision) -> bool:
    return decision.convert is Form.ENHANCED and bool(decision.send_to)


def _single(job: Job, reasons: Mapping[str, CollapseReason | None]) -> Job:
    """The job with the instances named as single frames, each for its reason."""
    return replace(
        job,
        instances=tuple(
            replace(_by_itself(i), not_collapsed=reasons[i.name] or "") if i.name in reasons else i
            for i in job.instances
        ),
    )


def _by_itself(instance: JobInstance) -> JobInstance:
    """As a single frame: what came as HTJ2K is delivered as it came."""
    if instance.source_transfer_syntax not in HTJ2K_LOSSLESS_SYNTAXES:
        return replace(instance, form=Form.HTJ2K.value)
    return replace(
        instance,
        form=ORIGINAL,
        reason=PassReason.ALREADY_HTJ2K,
        remark=instance.remark or EXPLANATIONS[PassReason.ALREADY_HTJ2K],
        transfer_syntax=instance.source_transfer_syntax,
    )


def shares(total: int, count: int) -> Iterable[int]:
    """Split bytes such that they add up."""
    each, rest = divmod(total, count)
    return (each + (number < rest) for number in range(count))
