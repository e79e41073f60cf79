"""A committed job on its way to its destinations, and what each has said so far."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from scp.buffer.job import Job, JobInstance, JobVolume
from scp.commitment import Reference
from scp.deliver import receipts as receipt_files
from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import ReceiptState
from scp.ledger.ports import Delivered, LedgerRow, SeriesHistory, State
from scp.model import CollapseReason, DeliveryItem, Form, PassReason
from scp.pipeline.items import JobItems

LEFT_CONFIGURATION = "destination_left_configuration"
NOT_TAKEN = "not_taken"
NOT_VOUCHED = "not_vouched"
"""Taken before, and whether the destination vouches for it was never asked, or never said."""


@dataclass(slots=True)
class Live:
    """Receipts lie in files beside the job; this is what they add up to.

    Sums are kept as answers come, so that a long job costs no more than a short one to look at.
    """

    job: Job
    folder: Path
    """Where the job lies now: in ``jobs`` or ``held``."""
    taken: dict[str, dict[str, Delivered]] = field(default_factory=dict)
    """What was delivered, an instance or a volume, to destination to its word."""
    held: dict[str, dict[str, str]] = field(default_factory=dict)
    """Destination to instance or volume to the reason why a person is needed."""
    skipped: dict[str, dict[str, str]] = field(default_factory=dict)
    """An instance or volume to the destinations that are not to have it after all, and why."""
    unfinished: set[str] = field(default_factory=set)
    """Destinations that still work on it."""
    asked: set[str] = field(default_factory=set)
    """Destinations that are asked to vouch for what they took."""
    is_recording: bool = False
    vouching: frozenset[str] = frozenset()
    """Destinations that have an instance for good only when they vouch for it."""
    destinations: list[str] = field(init=False)
    """Of what is delivered, in order."""
    waiting_bytes: int = field(init=False, default=0)
    """What is still to be delivered, each instance counted once."""
    states: Counter[State] = field(init=False, default_factory=Counter)
    """How many instances have ended their way, and how."""
    converted: int = field(init=False, default=0)
    reasons: Counter[str] = field(init=False, default_factory=Counter)
    """Why originals are delivered."""
    not_collapsed: Counter[str] = field(init=False, default_factory=Counter)
    _open: dict[str, JobInstance] = field(init=False, default_factory=dict)
    """Instances that some destination is still to have."""
    _members: dict[str, list[JobInstance]] = field(init=False, default_factory=dict)
    """What is delivered under each key of receipts."""
    _items: JobItems = field(init=False)
    _volumes: dict[str, JobVolume] = field(init=False)
    """Also those that were lost: some destination may have had one before."""

    def __post_init__(self) -> None:
        self._items = JobItems(self.folder)
        self._volumes = {v.name: v for v in (*self.job.lost_volumes, *self.job.volumes)}
        names: set[str] = set()
        for instance in self.job.instances:
            state = self.state_of(instance)
            if state is not None:
                self.states[state] += 1
            if not instance.is_delivered:
                continue
            names.update(instance.send_to)
            self._members.setdefault(instance.delivered_as, []).append(instance)
            if instance.forms and instance.volume:
                self._members.setdefault(instance.name, []).append(instance)
            if instance.lost_volume:
                self._members.setdefault(instance.lost_volume, []).append(instance)
            if state is None:
                self._open[instance.name] = instance
                self.waiting_bytes += instance.result_bytes
            if instance.not_collapsed:
                self.not_collapsed[instance.not_collapsed] += 1
            if instance.reason:
                self.reasons[instance.reason] += 1
            else:
                self.converted += 1
        self.destinations = sorted(names)

    def receipts_path(self, destination: str) -> Path:
        return self.folder / f"receipts-{destination}"

    # -- what goes where -----------------------------------------------------------------------

    def items_for(self, destination: str) -> list[DeliveryItem]:
        """What this destination is to have: single frames in order of arrival, then volumes."""
        volumes = [v for v in self.job.volumes if destination in v.send_to]
        return [self._items.single(i) for i in self._singles(destination)] + [
            self._items.volume(volume, self._members[volume.name]) for volume in volumes
        ]

    def waiting_for(self, destination: str) -> list[str]:
        """Instances and volumes that this destination has not taken and is still to have."""
        names = [i.name for i in self._singles(destination)]
        names += [v.name for v in self.job.volumes if destination in v.send_to]
        names += [
            v.name for v in self.job.lost_volumes if destination in self.taken.get(v.name, {})
        ]
        return [name for name in names if not self._is_settled_by(destination, name)]

    def _singles(self, destination: str) -> list[JobInstance]:
        return [
            i
            for i in self.job.instances
            if destination in i.send_to
            and not i.repeat_of
            and (not i.volume or i.form_for(destination) is not None)
            and destination not in self.taken.get(i.lost_volume, {})
        ]

    def move(self, folder: Path) -> None:
        """The job lies somewhere else now."""
        self.folder = folder
        self._items = JobItems(folder)

    def has(self, destination: str, name: str) -> bool:
        """Whether the destination has an instance or a volume for good."""
        taken = self.taken.get(name, {}).get(destination)
        return taken is not None and (
            destination not in self.vouching or taken.committed_at is not None
        )

    def vouched_path(self, destination: str) -> Path:
        """What a destination vouches for: a mapping of names to seconds since the epoch."""
        return self.folder / f"vouched-{destination}.json"

    def unvouched(self, destination: str) -> dict[str, Reference]:
        """What a destination has taken and does not vouch for yet, by name."""
        identities = {item.instance: item.identity for item in self.items_for(destination)}
        identities |= {volume.name: volume.identity for volume in self.job.lost_volumes}
        return {
            name: Reference(identity.sop_class_uid, identity.sop_instance_uid)
            for name, identity in identities.items()
            if destination in self.taken.get(name, {}) and not self.has(destination, name)
        }

    def vouch(
        self, destination: str, names: Iterable[str], refused: Iterable[str], at: datetime
    ) -> None:
        """Note what a destination vouches for, and that it has not what it refused to."""
        for name in names:
            taken = self.taken.get(name, {})
            if destination in taken:
                taken[destination] = replace(taken[destination], committed_at=at)
                for instance in self._members.get(name, ()):
                    self._settle(instance)
        for name in refused:
            self.taken.get(name, {}).pop(destination, None)

    def read_vouched(self, destination: str) -> None:
        """Know what a destination vouched for before the node was started again."""
        try:
            known = json.loads(self.vouched_path(destination).read_bytes())
        except (OSError, ValueError):
            return  # It is asked again.
        for name, at in known.items():
            self.vouch(destination, [name], [], datetime.fromtimestamp(at, UTC))

    def read_receipts(self) -> dict[str, ReceiptState]:
        """Know what the destinations have said before the node was started again; returns that.

        Raises
        ------
        NodeError
            They cannot be understood.
        """
        states: dict[str, ReceiptState] = {}
        for destination in self.destinations:
            state = states[destination] = receipt_files.load(self.receipts_path(destination))
            for name, receipt in state.done.items():
                at = datetime.fromtimestamp(state.done_at[name], UTC)
                self.take(destination, {name: receipt}, at)
            self.take(destination, state.skipped | state.held, datetime.now(UTC))
            self.read_vouched(destination)
        return states

    # -- what was said -------------------------------------------------------------------------

    def take(self, destination: str, receipts: Mapping[str, Receipt], at: datetime) -> None:
        """Note what a destination accepted, skips, and wants a person for."""
        for name, receipt in receipts.items():
            if receipt.verdict is Verdict.HELD:
                self.held.setdefault(destination, {})[name] = receipt.detail
                continue
            if receipt.verdict is Verdict.SKIPPED:
                self.skipped.setdefault(name, {})[destination] = receipt.detail
            elif receipt.verdict.is_done:
                self.taken.setdefault(name, {})[destination] = Delivered(
                    status=receipt.status,
                    at=at,
                    attempts=receipt.attempts,
                    transfer_syntax=receipt.transfer_syntax,
                    is_collapsed=name in self._volumes,
                )
            else:
                continue
            self.held.get(destination, {}).pop(name, None)
            for instance in self._members.get(name, ()):
                self._settle(instance)

    def _settle(self, instance: JobInstance) -> None:
        state = self.state_of(instance)
        if state is not None and self._open.pop(instance.name, None) is not None:
            self.states[state] += 1
            self.waiting_bytes -= instance.result_bytes

    def state_of(self, instance: JobInstance) -> State | None:
        """The end of the instance's way; None while it is pending or held."""
        if instance.repeat_of:
            return State.REPEAT
        if not instance.send_to:
            return State.SKIPPED
        if not self.taken and not self.skipped:
            return None  # As of nearly all at a start, and it costs much to find out one by one.
        if not all(
            self._is_settled_by(destination, instance.key_for(destination))
            or self.has(destination, instance.lost_volume)
            for destination in instance.send_to
        ):
            return None
        return State.DELIVERED if self._taken_by(instance) else State.SKIPPED

    @property
    def needs_a_person(self) -> bool:
        """Whether some destination holds an instance of it."""
        return any(self.held.values())

    def is_held(self, instance: JobInstance) -> bool:
        return instance.name in self._open and any(
            instance.key_for(destination) in names or instance.lost_volume in names
            for destination, names in self.held.items()
            if destination in instance.send_to
        )

    def hold_as_committed(self) -> None:
        """Note what the commit holds for a person; a later start finds it among the receipts."""
        for instance in self.job.instances:
            if instance.hold_reason:
                for destination in instance.send_to:
                    self.held.setdefault(destination, {})[instance.name] = instance.hold_reason

    def hold_the_rest(self, destination: str, reason: str) -> None:
        """Have a person decide on whatever a destination does not have and nothing is held of."""
        held = self.held.get(destination, {})
        rest = {
            name: NOT_VOUCHED if destination in self.taken.get(name, {}) else reason
            for name in self.waiting_for(destination)
            if name not in held
        }
        if rest:
            self.held[destination] = held | rest

    @property
    def names_held(self) -> set[str]:
        """Of instances that need a person."""
        return {instance.name for instance in self._open.values() if self.is_held(instance)}

    @property
    def instances_held(self) -> int:
        """How many instances need a person."""
        concerned = {
            member.name: member
            for names in self.held.values()
            for name in names
            for member in self._members.get(name, ())
        }
        return sum(self.is_held(member) for member in concerned.values())

    @property
    def instances_open(self) -> int:
        """How many some destination is still to have, those that need a person included."""
        return len(self._open)

    def _is_settled_by(self, destination: str, name: str) -> bool:
        """Whether it has an instance or volume for good, or is not to have it."""
        return self.has(destination, name) or destination in self.skipped.get(name, ())

    def _said[T](self, said: Mapping[str, Mapping[str, T]], instance: JobInstance) -> dict[str, T]:
        """Destination to its word for an instance, in whichever form it got it."""
        found = {}
        for destination in instance.send_to:
            words = said.get(instance.key_for(destination), {})
            if destination in words:
                found[destination] = words[destination]
        return found

    def rows(self, discarded: str = "") -> Iterator[LedgerRow]:
        """The ledger's rows; with a reason, what was not delivered counts as discarded."""
        now = datetime.now(UTC)
        for instance in self.job.instances:
            state = self.state_of(instance)
            volume = self._volumes.get(instance.volume)
            if instance.lost_volume in self.taken:
                volume = self._volumes.get(instance.lost_volume)
            skipped = self._said(self.skipped, instance)
            note = "; ".join(f"{name}: {why}" for name, why in skipped.items()) or instance.remark
            if state is None:
                state, note = State.DISCARDED, discarded
            elif instance.repeat_of:
                note = f"repeat of {instance.repeat_of}"
            yield LedgerRow(
                job=self.job.name,
                instance=instance.name,
                identity=instance.identity,
                origin=instance.origin,
                received_at=_moment(instance.received, now),
                finished_at=now,
                state=state,
                rule=instance.rule,
                form=Form(instance.form) if instance.is_delivered else None,
                reason=PassReason(instance.reason) if instance.reason else None,
                not_collapsed=(
                    CollapseReason(instance.not_collapsed) if instance.not_collapsed else None
                ),
                source_transfer_syntax=instance.source_transfer_syntax,
                result_transfer_syntax=instance.transfer_syntax,
                source_bytes=instance.source_bytes,
                result_bytes=instance.result_bytes,
                dataset_sha256=instance.dataset_sha256,
                normal_sha256=instance.normal_sha256,
                pixel_sha256=instance.pixel_sha256,
                result_sha256=instance.result_sha256,
                destinations=self._taken_by(instance),
                is_conflict=instance.is_conflict,
                became=volume.identity.sop_instance_uid if volume else "",
                frame=instance.frame if volume else 0,
                restore_record=volume.restore_record if volume else "",
                modality=instance.modality,
                patient_id_hash=instance.patient_id_hash,
                verified_by=instance.verified_by,
                note=note,
            )

    def _taken_by(self, instance: JobInstance) -> Mapping[str, Delivered]:
        """Who has it: by itself, or in the volume that it is, or was, a frame of."""
        return self.taken.get(instance.lost_volume, {}) | self._said(self.taken, instance)


def history_of(jobs: Iterable[Live], series_instance_uid: str) -> SeriesHistory:
    """What these jobs have made of a series."""
    found = [live.job for live in jobs if live.job.series_instance_uid == series_instance_uid]
    return SeriesHistory(
        volumes=frozenset(v.identity.sop_instance_uid for job in found for v in job.volumes),
        cut=frozenset(
            i.identity.sop_instance_uid
            for job in found
            for i in job.instances
            if i.not_collapsed == CollapseReason.SERIES_WAS_CUT
        ),
    )


def _moment(seconds: float, otherwise: datetime) -> datetime:
    """A file's time, which may be any number, as a moment."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return otherwise
