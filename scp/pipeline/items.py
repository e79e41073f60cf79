"""What of a committed job is delivered, as destinations take it: files with their digests."""

from collections.abc import Sequence
from pathlib import Path

from scp.buffer.job import JobInstance, JobVolume
from scp.buffer.jobs import ORIGINAL, RESULTS, SOURCE
from scp.convert.enhanced.record import sidecar_of
from scp.model import DeliveryItem, Form


class JobItems:
    """Of one job, where it lies now."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folders: dict[str, Path] = {}
        self._singles: dict[str, DeliveryItem] = {}
        """Destinations share them."""

    def single(self, instance: JobInstance) -> DeliveryItem:
        """An instance by itself: as it was committed first, or beside its volume."""
        if (known := self._singles.get(instance.name)) is not None:
            return known
        form = instance.forms[0] if instance.volume else instance
        original = self._folder_of(SOURCE) / instance.name
        is_original = form.form == ORIGINAL
        item = DeliveryItem(
            instance=instance.name,
            identity=instance.identity,
            path=original if is_original else self._folder_of(form.form) / instance.name,
            transfer_syntax=form.transfer_syntax,
            original=original,
            original_transfer_syntax=instance.source_transfer_syntax,
            sha256=form.result_sha256,
            original_dataset_sha256=instance.dataset_sha256,
            is_conflict=instance.is_conflict,
            is_urgent=instance.is_urgent,
            calling_ae_title=instance.origin.calling_ae_title,
        )
        self._singles[instance.name] = item
        return item

    def volume(self, volume: JobVolume, members: Sequence[JobInstance]) -> DeliveryItem:
        """One multi-frame object; ``members`` are its frames, at least one."""
        path = self._folder_of(Form.ENHANCED) / volume.name
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

    def _folder_of(self, form: str) -> Path:
        """Where the files of one form lie; joining paths is most of the work otherwise."""
        if form not in self._folders:
            inner = SOURCE if form == SOURCE else f"{RESULTS}/{form}"
            self._folders[form] = self._folder / inner
        return self._folders[form]
