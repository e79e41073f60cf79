"""From a closed series to its commit: everything examined and converted, then one job.json."""

import hashlib
import itertools
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from scp.buffer.job import Job, JobInstance
from scp.buffer.jobs import ORIGINAL, JobFolders
from scp.choose.eligibility import Refusal
from scp.choose.plan import plan_for
from scp.choose.rules import Decision
from scp.convert.enhanced.record import sidecar_of
from scp.deliver import receipts as receipt_files
from scp.deliver.ports import Receipt, Verdict
from scp.durable import Disk
from scp.errors import StorageFullError
from scp.model import Conflict, Form, PassReason
from scp.pipeline.accounts import Accounts
from scp.pipeline.collapser import Collapser
from scp.pipeline.converter import AT_ONCE, CLOSED, Converter
from scp.pipeline.difference import difference_of
from scp.pipeline.dispatch import Dispatch
from scp.pipeline.tasks import Outcome
from scp.pipeline.threads import Chores, Later
from scp.pipeline.tracked import ClosedJob, Tracked

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 5.0
_UID_CONFLICT = "uid_conflict"
_COMPARED = 20
"""Conflicts of one job whose datasets are compared."""


class Committer:
    """Jobs that are closed and not committed. On the coordinator's thread; slow calls are chores."""

    def __init__(
        self,
        folders: JobFolders,
        disk: Disk,
        converter: Converter,
        accounts: Accounts,
        chores: Chores,
        later: Later,
        dispatch: Dispatch,
        collapser: Collapser,
        conflict: Conflict,
    ) -> None:
        self._folders = folders
        self._disk = disk
        self._converter = converter
        self._accounts = accounts
        self._chores = chores
        self._later = later
        self._dispatch = dispatch
        self._collapser = collapser
        self._conflict = conflict
        self._in_work: dict[str, ClosedJob] = {}
        self._ready: set[str] = set()

    @property
    def instances_in_work(self) -> int:
        return sum(len(closed.instances) for closed in self._in_work.values())

    def uids_in_work(self) -> set[str]:
        """Their SOP Instance UIDs."""
        return {
            instance.spooled.identity.sop_instance_uid
            for closed in self._in_work.values()
            for instance in closed.instances.values()
        }

    @property
    def bytes_in_work(self) -> int:
        """What the conversions may still write, at most."""
        return sum(
            i.spooled.file_bytes * ((i.encoded is None) + _is_for_volume(i))
            for closed in self._in_work.values()
            for i in closed.instances.values()
        )

    def begin(self, closed: ClosedJob) -> None:
        """Take a job whose set of instances is frozen and whose decisions are made."""
        if not closed.instances:
            self._disk.remove_tree(self._folders.folder(closed.name))
            return
        self._in_work[closed.name] = closed
        self._collapser.claim(closed)
        decisions = [instance.decision for instance in closed.instances.values()]
        is_urgent = any(decision is not None and decision.is_urgent for decision in decisions)
        priority = AT_ONCE if closed.is_at_once or is_urgent else CLOSED
        for instance in list(closed.instances.values()):
            self._converter.closed(instance, priority, lambda: self._examined(closed))

    def _examined(self, closed: ClosedJob) -> None:
        if closed.is_ready and closed.name not in self._ready:
            self._ready.add(closed.name)
            job = self._job_of(closed)
            self._collapser.begin(closed, job, lambda job: self._commit(closed, job))

    # -- the commit ----------------------------------------------------------------------------

    def _commit(self, closed: ClosedJob, job: Job) -> None:
        others = self._others_of(job)

        def work() -> Job:
            self._move_results(closed, job)
            whole = self._with_differences(self._with_digests(job), others)
            self._hold(whole)  # Before the commit: after it nothing keeps it from being sent.
            self._folders.commit(
                whole,
                {i.name for i in closed.instances.values() if i.outcome and i.outcome.is_synced}
                | closed.volumes.keys(),
            )
            return whole

        self._chores.do(
            work,
            lambda whole: self._committed(closed, whole),
            lambda error: self._not_committed(closed, job, error),
        )

    def _move_results(self, closed: ClosedJob, job: Job) -> None:
        kinds = {i.form for i in job.instances} | {f.form for i in job.instances for f in i.forms}
        for form in kinds - {ORIGINAL}:
            self._folders.make_results(job.name, form)
        for instance in job.instances:
            encoded = closed.instances[instance.name].encoded
            forms = [each.form for each in instance.forms]
            forms += [instance.form] if not instance.volume else []
            if encoded is not None and forms and forms != [ORIGINAL]:
                self._disk.rename(encoded, self._folders.result(job.name, forms[0], instance.name))
        for volume in job.volumes:
            made = closed.volumes[volume.name]
            target = self._folders.result(job.name, Form.ENHANCED, volume.name)
            if volume.has_sidecar:  # First, so that no volume is there without it.
                self._disk.rename(sidecar_of(made), sidecar_of(target))
            self._disk.rename(made, target)

    def _others_of(self, job: Job) -> dict[str, Path]:
        """The files that some conflicts, by name, are compared with, as far as the spool has them."""
        others: dict[str, Path] = {}
        for instance in itertools.islice((i for i in job.instances if i.is_conflict), _COMPARED):
            uid = instance.identity.sop_instance_uid
            known = [
                self._folders.source(job.name) / i.name
                for i in job.instances
                if i.identity.sop_instance_uid == uid
                and i.dataset_sha256 != instance.dataset_sha256
            ]
            for name in self._accounts.jobs_with(uid):
                known = known or self._dispatch.files_of(name, uid)
            if known:
                others[instance.name] = known[0]
        return others

    def _with_differences(self, job: Job, others: Mapping[str, Path]) -> Job:
        source = self._folders.source(job.name)
        return replace(
            job,
            instances=tuple(
                replace(i, difference=difference_of(others[i.name], source / i.name))
                if i.name in others
                else i
                for i in job.instances
            ),
        )

    def _hold(self, job: Job) -> None:
        held = [i for i in job.instances if i.hold_reason]
        for destination in sorted({name for i in held for name in i.send_to}):
            answers = [
                Receipt(instance=i.name, verdict=Verdict.HELD, status="", detail=i.hold_reason)
                for i in held
                if destination in i.send_to
            ]
            path = self._folders.folder(job.name) / f"receipts-{destination}"
            receipt_files.hold(self._disk, path, answers, time.time())

    def _with_digests(self, job: Job) -> Job:
        """Digests for what no worker came to digest: delivery checks them, and `dcmpress verify`."""
        instances = tuple(
            i if i.result_sha256 else replace(i, result_sha256=self._digest(job, i))
            for i in job.instances
        )
        return replace(job, instances=instances)

    def _digest(self, job: Job, instance: JobInstance) -> str:
        try:
            with self._folders.result(job.name, instance.form, instance.name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            if instance.form != ORIGINAL:
                raise
            logger.error("an instance of job %s cannot be read: %s", job.name, error.strerror)
            return ""  # Its delivery will say the same, and hold it.

    def _committed(self, closed: ClosedJob, job: Job) -> None:
        self._release(closed)
        logger.info(
            "series closed: job %s, %d instances, %d converted%s, %d passed through, "
            "%.1f MB to %.1f MB, %d repeats, %d conflicts%s%s",
            job.name,
            len(job.instances),
            sum(i.is_delivered and not i.reason for i in job.instances),
            _volumes_in_words(job),
            sum(i.is_delivered and bool(i.reason) for i in job.instances),
            sum(i.source_bytes for i in job.instances) / 1e6,
            sum(i.result_bytes for i in job.instances) / 1e6,
            sum(bool(i.repeat_of) for i in job.instances),
            sum(i.is_conflict for i in job.instances),
            _differences_in_words(job),
            ", cut" if job.was_cut else "",
        )
        self._dispatch.start(job)
        self._collapser.release(closed)

    def _not_committed(self, closed: ClosedJob, job: Job, error: Exception) -> None:
        made = [i.encoded for i in closed.instances.values() if i.encoded is not None]
        made += closed.volumes.values()
        made += [sidecar_of(closed.volumes[v.name]) for v in job.volumes if v.has_sidecar]
        if isinstance(error, FileNotFoundError) and not all(path.exists() for path in made):
            logger.warning("conversions of job %s were deleted; they are made again", job.name)
            self._convert_again(closed)
        else:
            self._commit_originals(closed, job, error)

    def _convert_again(self, closed: ClosedJob) -> None:
        """Somebody emptied the cache, which is allowed at any time."""
        self._accounts.forget(closed.name)
        self._folders.drop_results(closed.name)
        self._forget_volumes(closed)
        for instance in closed.instances.values():
            self._converter.forget(instance)
            if instance.outcome is not None and instance.outcome.is_converted:
                instance.outcome = None
        self._ready.discard(closed.name)
        self.begin(closed)

    def _commit_originals(self, closed: ClosedJob, job: Job, error: Exception) -> None:
        """The disk is full or failed: originals need no room but that of job.json; try until it works."""
        log = (
            logger.debug if closed.has_failed else logger.error
        )  # A full disk may hold the log, too.
        log("job %s could not be committed: %s; tried again until it is", job.name, error)
        closed.has_failed = True
        if not isinstance(error, (StorageFullError, OSError)):
            logger.error("this is a defect", exc_info=error)
        self._folders.drop_results(job.name)
        originals = job.as_originals(PassReason.NO_ROOM, {i.name for i in job.instances})
        self._release(closed, keep=True)
        self._later(_AGAIN_SECONDS, lambda: self._commit(closed, originals))

    def _release(self, closed: ClosedJob, *, keep: bool = False) -> None:
        self._forget_volumes(closed)
        for instance in closed.instances.values():
            self._converter.forget(instance)
        if not keep:
            self._in_work.pop(closed.name, None)
            self._ready.discard(closed.name)

    def _forget_volumes(self, closed: ClosedJob) -> None:
        for folder in closed.volume_folders:
            self._disk.remove_tree(folder)
        closed.volume_folders.clear()
        closed.volumes.clear()

    # -- what job.json will say ----------------------------------------------------------------

    def _job_of(self, closed: ClosedJob) -> Job:
        ordered = sorted(closed.instances.values(), key=lambda i: i.received)
        if self._conflict is Conflict.NEWEST:
            instances = self._newest_of(closed.name, ordered)
        else:
            instances = tuple(self._instance_of(closed.name, each) for each in ordered)
        encoders = {i.outcome.encoder for i in ordered if i.outcome and i.outcome.encoder}
        return Job(
            name=closed.name,
            study_instance_uid=closed.file.study_instance_uid,
            series_instance_uid=closed.file.series_instance_uid,
            created=time.time(),
            rules=closed.file.rules,
            was_cut=closed.was_cut,
            encoder=", ".join(sorted(encoders)),
            instances=instances,
        )

    def _newest_of(self, job: str, ordered: list[Tracked]) -> tuple[JobInstance, ...]:
        """In order of arrival; each destination gets only the last of the datasets under one UID.

        Looked at from the last on, so that the same dataset again is a repeat of what is delivered.
        """
        taken: dict[str, set[str]] = {}
        made: list[JobInstance] = []
        for tracked in reversed(ordered):
            assert tracked.decision is not None
            later = taken.setdefault(tracked.spooled.identity.sop_instance_uid, set())
            made.append(self._instance_of(job, tracked, later))
            later.update(tracked.decision.send_to)
        return tuple(reversed(made))

    def _instance_of(self, job: str, tracked: Tracked, later: Collection[str] = ()) -> JobInstance:
        """What job.json says of it; the destinations in ``later`` get a newer one under its UID."""
        outcome, decision, spooled = tracked.outcome, tracked.decision, tracked.spooled
        assert outcome is not None
        assert decision is not None
        repeat_of, is_conflict = self._accounts.find_repeat(spooled, outcome, decision.send_to)
        # Where two rules share a destination, it gets what came under both titles once.
        left = self._accounts.left_for(spooled, outcome, decision.send_to)
        wanted = tuple(destination for destination in left if destination not in later)
        send_to = decision.send_to if repeat_of else wanted
        is_held = is_conflict and self._conflict is Conflict.HOLD and bool(send_to)
        if not repeat_of and not is_held:
            self._accounts.remember_one(
                job,
                spooled.identity.sop_instance_uid,
                spooled.transfer_syntax,
                outcome.dataset_sha256,
                outcome.normal_sha256,
                send_to,
            )
        plan = plan_for(decision, _refusal(outcome, decision))
        is_converted = outcome.can_be_frame and plan.reason is None
        return JobInstance(
            name=tracked.name,
            identity=spooled.identity,
            origin=spooled.origin,
            received=tracked.received,
            source_transfer_syntax=spooled.transfer_syntax,
            source_bytes=spooled.file_bytes,
            rule=plan.rule,
            form=decision.convert if is_converted else ORIGINAL,
            reason=plan.reason or "",
            remark=_superseded(left, wanted) or ("" if is_converted else plan.detail),
            send_to=send_to,
            is_urgent=decision.is_urgent,
            repeat_of=repeat_of,
            is_conflict=is_conflict,
            hold_reason=_UID_CONFLICT if is_held else "",
            transfer_syntax=outcome.transfer_syntax if is_converted else spooled.transfer_syntax,
            result_bytes=outcome.result_bytes if is_converted else spooled.file_bytes,
            dataset_sha256=outcome.dataset_sha256,
            normal_sha256=outcome.normal_sha256,
            pixel_sha256=outcome.pixel_sha256,
            result_sha256=outcome.result_sha256,
            frames=outcome.frames,
            verified_by=outcome.verified_by,
            modality=outcome.modality,
            patient_id_hash=outcome.patient_id_hash,
        )


def _differences_in_words(job: Job) -> str:
    found = [i.difference for i in job.instances if i.difference is not None]
    if not found:
        return ""
    pixels = sum(difference.pixel_data == "different" for difference in found)
    elements = max(difference.elements for difference in found)
    return f" ({len(found)} compared: up to {elements} elements differ, pixel data in {pixels})"


def _superseded(left: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    """Why some destinations do not get it; empty where all do."""
    if left == wanted:
        return ""
    others = ", ".join(name for name in left if name not in wanted)
    return f"{_UID_CONFLICT}: a newer dataset under its UID is for {others}"


def _is_for_volume(instance: Tracked) -> bool:
    """Whether it may be written once more, as a frame."""
    return instance.decision is not None and instance.decision.convert is Form.ENHANCED


def _volumes_in_words(job: Job) -> str:
    frames = sum(bool(i.volume) for i in job.instances)
    return f" ({frames} into {len(job.volumes)} volumes)" if job.volumes else ""


def _refusal(outcome: Outcome, decision: Decision) -> Refusal | None:
    is_frame = outcome.is_received_frame and decision.convert is Form.ENHANCED
    if outcome.is_converted or is_frame:
        return None
    return Refusal(reason=PassReason(outcome.reason), detail=outcome.detail)
