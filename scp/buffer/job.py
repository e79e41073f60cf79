"""A closed series: what job.json says. Written once, at the commit, and never changed."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from scp.errors import NodeError
from scp.model import CollapseReason, Form, Identity, Origin, PassReason

FORMAT = 1

_AS_WRITTEN = ConfigDict(extra="forbid", strict=True)


@with_config(_AS_WRITTEN)
@dataclass(frozen=True, slots=True, kw_only=True)
class JobForm:
    """A second form of an instance, for destinations that do not take the first."""

    form: str
    """``original`` or the folder under ``results/``; the file has the instance's name."""
    transfer_syntax: str
    result_bytes: int
    result_sha256: str
    send_to: tuple[str, ...]
    """Some of the instance's destinations."""


@with_config(_AS_WRITTEN)
@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What differs between two datasets under one UID: no values, for those may be a patient's."""

    elements: int
    """Top-level elements that differ, as they are written."""
    pixel_data: str
    """``equal``, ``different`` or ``not compared``."""
    listed: tuple[str, ...]
    """The first of them: tag, VR and lengths, of what came first and then of this one."""
    is_whole: bool
    """False: there was more than is looked at."""


@with_config(_AS_WRITTEN)
@dataclass(frozen=True, slots=True, kw_only=True)
class JobInstance:
    """One source instance of a job and what was decided and made of it."""

    name: str
    """Its file in ``source/``; the key of its receipts."""
    identity: Identity
    origin: Origin
    received: float
    """Wall time of its arrival, seconds since the epoch (UTC)."""
    source_transfer_syntax: str
    source_bytes: int
    rule: str
    form: str
    """``original`` or the folder under ``results/``."""
    reason: str = ""
    """Why the original is delivered; empty where it was converted."""
    not_collapsed: str = ""
    """A ``CollapseReason``: why it is single-frame although its rule says ``enhanced``."""
    remark: str = ""
    """The reasons in words."""
    send_to: tuple[str, ...] = ()
    is_urgent: bool = False
    """It goes before what is not."""
    repeat_of: str = ""
    """The job whose instance is the same dataset; such a repeat is not delivered."""
    is_conflict: bool = False
    """Another dataset came under the same SOP Instance UID."""
    difference: Difference | None = None
    """From the other one; None where that had left the spool, or they could not be compared."""
    hold_reason: str = ""
    """Why a person decides before it goes anywhere; its receipts said so before the commit."""
    transfer_syntax: str = ""
    """Of what is delivered."""
    result_bytes: int = 0
    dataset_sha256: str = ""
    normal_sha256: str = ""
    pixel_sha256: str = ""
    result_sha256: str = ""
    frames: int = 0
    verified_by: str = ""
    """The decoder that proved the conversion; empty where nothing was proved."""
    volume: str = ""
    """The name of the volume that it is a frame of; empty where it is delivered by itself."""
    frame: int = 0
    """Its number there, or in the volume that was lost, from 1."""
    modality: str = ""
    patient_id_hash: str = ""
    """For the ledger; empty where the dataset has no Patient ID."""
    lost_volume: str = ""
    """The volume that it was a frame of until that was given up; who has it already wants no original."""
    forms: tuple[JobForm, ...] = ()
    """What else was made of it, and for whom; ``form`` is for the other destinations."""

    @property
    def delivered_as(self) -> str:
        """The key of its receipts in its first form: its own name, or its volume's."""
        return self.volume or self.name

    def form_for(self, destination: str) -> JobForm | None:
        """The second form that a destination of the instance gets; None: the first."""
        for form in self.forms:  # Empty as a rule, and asked often.
            if destination in form.send_to:
                return form
        return None

    def key_for(self, destination: str) -> str:
        """The key of its receipts from one destination."""
        return self.delivered_as if self.form_for(destination) is None else self.name

    @property
    def is_delivered(self) -> bool:
        """Whether any destination is to have it."""
        return bool(self.send_to) and not self.repeat_of


@with_config(_AS_WRITTEN)
@dataclass(frozen=True, slots=True, kw_only=True)
class JobVolume:
    """One multi-frame object that instances of a job were collapsed into."""

    name: str
    """Its file under ``results/enhanced``; the key of its receipts."""
    identity: Identity
    transfer_syntax: str
    send_to: tuple[str, ...]
    result_bytes: int
    result_sha256: str
    has_sidecar: bool = False
    """Its restore record lies beside it."""
    sidecar_sha256: str = ""
    """Empty: not known."""
    restore_record: str = ""
    """``embedded``, ``sidecar`` or ``none``; empty in a job of an earlier version."""


@with_config(_AS_WRITTEN)
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The commit of one closed series, or of one instance that was not to wait for it."""

    name: str
    study_instance_uid: str
    series_instance_uid: str
    created: float
    """Wall time of the commit."""
    rules: str
    """The rule set under which the series began."""
    was_cut: bool = False
    """Closed by a limit, not by quiet."""
    encoder: str = ""
    instances: tuple[JobInstance, ...] = field(default=())
    volumes: tuple[JobVolume, ...] = field(default=())
    lost_volumes: tuple[JobVolume, ...] = field(default=())
    """Given up after the first commit, which some destination may have had already."""
    format: int = FORMAT
    """Of job.json."""

    @property
    def results(self) -> set[tuple[str, str]]:
        """Form and name of every file under ``results/``."""
        made = [i for i in self.instances if not i.repeat_of]
        first = {(i.form, i.delivered_as) for i in made if i.form != Form.ORIGINAL}
        others = {(form.form, i.name) for i in made for form in i.forms}
        return first | {(form, name) for form, name in others if form != Form.ORIGINAL}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_bytes(cls, content: bytes) -> "Job":
        """Read what :meth:`to_json` gave, as JSON.

        Raises
        ------
        NodeError
            Another version of dcmpress wrote it, or it is damaged.
        """
        try:
            job = _reader().validate_json(content)
        except ValidationError as error:
            if _format_of(content) not in (None, FORMAT):
                raise NodeError("job.json was written by another version of dcmpress") from error
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise NodeError(f"job.json is damaged: {where}: {first['msg']}") from error
        if job.format != FORMAT:
            raise NodeError("job.json was written by another version of dcmpress")
        try:
            for instance in job.instances:
                for form in (instance.form, *(made.form for made in instance.forms)):
                    Form(form)
                if instance.reason:
                    PassReason(instance.reason)
                if instance.not_collapsed:
                    CollapseReason(instance.not_collapsed)
        except ValueError as error:
            raise NodeError(f"job.json is damaged: {error}") from error
        if {i.volume for i in job.instances if i.volume} != {v.name for v in job.volumes}:
            raise NodeError("job.json is damaged: its volumes are not those of its instances")
        return job

    def as_originals(self, reason: str, names: Collection[str]) -> "Job":
        """The same job with the conversions of the named instances given up; digests still to come.

        With one frame of a volume the whole volume is given up.
        """
        lost = {i.volume for i in self.instances if i.name in names and i.volume}
        names = {i.name for i in self.instances if i.name in names or i.volume in lost}
        return replace(
            self,
            instances=tuple(
                replace(
                    i,
                    form="original",
                    reason=reason,
                    transfer_syntax=i.source_transfer_syntax,
                    result_bytes=i.source_bytes,
                    result_sha256="",
                    verified_by="",
                    volume="",
                    lost_volume=i.volume,
                    forms=(),
                )
                if i.name in names and i.form != "original"
                else i
                for i in self.instances
            ),
            volumes=tuple(volume for volume in self.volumes if volume.name not in lost),
            lost_volumes=(*self.lost_volumes, *(v for v in self.volumes if v.name in lost)),
        )


@cache
def _reader() -> TypeAdapter[Job]:
    """Five times as fast as to build 100,000 instances by hand."""
    return TypeAdapter(Job)


def _format_of(content: bytes) -> Any:
    try:
        written = json.loads(content)
    except ValueError:
        return None
    return written.get("format") if isinstance(written, dict) else None
