"""A committed job on its way to its destinations, and what each has said so far."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from scp.buffer.job import Job, JobInstance, JobVolume
from scp.buffer.jobs import ORIGINAL, RESULTS, SOURCE
from scp.commitment import Reference
from scp.convert.enhanced.record import sidecar_of
from scp.deliver.ports import Receipt, Verdict
from scp.ledger.ports import Delivered, LedgerRow, State
from scp.model import CollapseReason, DeliveryItem, Form, PassReason

LEFT_CONFIGURATION = "destination_left_configuration"


@dataclass(slots=True)
class Live:
    """Receipts lie in files beside the job; this is what they add up to."""

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
    is_recording: bool = False
    vouching: frozenset[str] = frozenset()
    """Destinations that have an instance for good only when they vouch for it."""

    @property
    def destinations(self) -> list[str]:
        return sorted({name for i in self.job.instances if i.is_delivered for name in i.send_to})

    def receipts_path(self, destination: str) -> Path:
        return self.folder / f"receipts-{destination}"

    def items_for(self, destination: str) -> list[DeliveryItem]:
        """What this destination is to have: single frames in order of arrival, then volumes."""
        single = [
            DeliveryItem(
                instance=i.name,
                identity=i.identity,
                path=self.path_of(i),
                transfer_syntax=i.transfer_syntax,
                original=self.folder / SOURCE / i.name,
                original_transfer_syntax=i.source_transfer_syntax,
                sha256=i.result_sha256,
                is_conflict=i.is_conflict,
                is_urgent=i.is_urgent,
                calling_ae_title=i.origin.calling_ae_title,
            )
            for i in self.job.instances
            if i.is_delivered
            and not i.volume
            and destination in i.send_to
            and destination not in self.taken.get(i.lost_volume, {})
        ]
        return single + [self._item_of(v) for v in self.job.volumes if destination in v.send_to]

    def _item_of(self, volume: JobVolume) -> DeliveryItem:
        path = self.folder / RESULTS / Form.ENHANCED / volume.name
        members = [i for i in self.job.instances if i.volume == volume.name]
        return DeliveryItem(
            instance=volume.name,
            identity=volume.identity,
            path=path,
            transfer_syntax=volume.transfer_syntax,
            original=path,
            original_transfer_syntax=volume.transfer_syntax,
            sha256=volume.result_sha256,
            is_urgent=any(member.is_urgent for member in members),
            calling_ae_title=members[0].origin.calling_ae_title,
            sidecar=sidecar_of(path) if volume.has_sidecar else None,
            sidecar_sha256=volume.sidecar_sha256,
        )

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
        return {
            item.instance: Reference(item.identity.sop_class_uid, item.identity.sop_instance_uid)
            for item in self.items_for(destination)
            if destination in self.taken.get(item.instance, {})
            and not self.has(destination, item.instance)
        }

    def vouch(
        self, destination: str, names: Iterable[str], refused: Iterable[str], at: datetime
    ) -> None:
        """Note what a destination vouches for, and that it has not what it refused to."""
        for name in names:
            taken = self.taken.get(name, {})
            if destination in taken:
                taken[destination] = replace(taken[destination], committed_at=at)
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

    def waiting_for(self, destination: str) -> list[str]:
        """Instances and volumes that this destination has not taken and is still to have."""
        names = [item.instance for item in self.items_for(destination)]
        return [name for name in names if destination not in self._settled(name)]

    def path_of(self, instance: JobInstance) -> Path:
        if instance.form == ORIGINAL:
            return self.folder / SOURCE / instance.name
        return self.folder / RESULTS / instance.form / instance.name

    def take(self, destination: str, receipts: Mapping[str, Receipt], at: datetime) -> None:
        """Note what a destination accepted, and what it wants a person for."""
        for name, receipt in receipts.items():
            if receipt.verdict.is_done:
                self.taken.setdefault(name, {})[destination] = Delivered(
                    status=receipt.status,
                    at=at,
                    attempts=receipt.attempts,
                    transfer_syntax=receipt.transfer_syntax,
                    is_collapsed=any(volume.name == name for volume in self.job.volumes),
                )
                self.held.get(destination, {}).pop(name, None)
            elif receipt.verdict is Verdict.SKIPPED:
                self.skipped.setdefault(name, {})[destination] = receipt.detail
                self.held.get(destination, {}).pop(name, None)
            elif receipt.verdict is Verdict.HELD:
                self.held.setdefault(destination, {})[name] = receipt.detail

    def state_of(self, instance: JobInstance) -> State | None:
        """The end of the instance's way; None while it is pending or held."""
        if instance.repeat_of:
            return State.REPEAT
        if not instance.send_to:
            return State.SKIPPED
        if not self._is_settled(instance):
            return None
        return State.DELIVERED if self._taken_by(instance) else State.SKIPPED

    @property
    def needs_a_person(self) -> bool:
        """Whether some destination holds an instance of it."""
        return any(self.held.values())

    def is_held(self, instance: JobInstance) -> bool:
        return self.state_of(instance) is None and any(
            instance.delivered_as in names for names in self.held.values()
        )

    def waiting_bytes(self) -> int:
        """What is still to be delivered, each instance counted once."""
        return sum(
            i.result_bytes for i in self.job.instances if i.is_delivered and not self._is_settled(i)
        )

    def rows(self, discarded: str = "") -> Iterator[LedgerRow]:
        """The ledger's rows; with a reason, what was not delivered counts as discarded."""
        now = datetime.now(UTC)
        volumes = {volume.name: volume for volume in self.job.volumes}
        for instance in self.job.instances:
            state = self.state_of(instance)
            volume = volumes.get(instance.volume)
            skipped = self.skipped.get(instance.delivered_as, {})
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
                frame=instance.frame,
                restore_record=volume.restore_record if volume else "",
                modality=instance.modality,
                patient_id_hash=instance.patient_id_hash,
                verified_by=instance.verified_by,
                note=note,
            )

    def _settled(self, name: str) -> set[str]:
        """The destinations that have an instance or volume, or are not to have it."""
        taken = {each for each in self.taken.get(name, {}) if self.has(each, name)}
        return taken | self.skipped.get(name, {}).keys()

    def _taken_by(self, instance: JobInstance) -> Mapping[str, Delivered]:
        """Who has it: by itself, or in the volume that it is, or was, a frame of."""
        return self.taken.get(instance.lost_volume, {}) | self.taken.get(instance.delivered_as, {})

    def _is_settled(self, instance: JobInstance) -> bool:
        settled = (
            self._settled(instance.delivered_as) | self.taken.get(instance.lost_volume, {}).keys()
        )
        return set(instance.send_to) <= settled


def _moment(seconds: float, otherwise: datetime) -> datetime:
    """A file's time, which may be any number, as a moment."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return otherwise
