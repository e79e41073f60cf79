"""A closed series: what job.json says. Written once, at the commit, and never changed."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from scp.errors import NodeError
from scp.model import CollapseReason, Form, Identity, Origin, PassReason

FORMAT = 1


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
    """Its number there, from 1."""
    modality: str = ""
    patient_id_hash: str = ""
    """For the ledger; empty where the dataset has no Patient ID."""
    lost_volume: str = ""
    """The volume that it was a frame of until that was given up; who has it already wants no original."""

    @property
    def delivered_as(self) -> str:
        """The key of its receipts: its own name, or its volume's."""
        return self.volume or self.name

    @property
    def is_delivered(self) -> bool:
        """Whether any destination is to have it."""
        return bool(self.send_to) and not self.repeat_of


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

    @property
    def results(self) -> set[tuple[str, str]]:
        """Form and name of every file under ``results/``."""
        return {
            (i.form, i.delivered_as)
            for i in self.instances
            if i.form != Form.ORIGINAL and not i.repeat_of
        }

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any) -> "Job":
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        NodeError
            A newer dcmpress wrote it, or it is damaged.
        """
        if not isinstance(content, dict):
            raise NodeError("job.json is damaged: no mapping")
        content = dict(content)
        if content.pop("format", None) != FORMAT:
            raise NodeError("job.json was written by another version of dcmpress")
        try:
            instances = tuple(
                JobInstance(
                    **{
                        **entry,
                        "identity": Identity(**entry["identity"]),
                        "origin": Origin(**entry["origin"]),
                        "send_to": tuple(entry["send_to"]),
                    }
                )
                for entry in content.pop("instances")
            )
            volumes = tuple(
                JobVolume(
                    **{
                        **entry,
                        "identity": Identity(**entry["identity"]),
                        "send_to": tuple(entry["send_to"]),
                    }
                )
                for entry in content.pop("volumes", ())
            )
            for instance in instances:
                Form(instance.form)
                if instance.reason:
                    PassReason(instance.reason)
                if instance.not_collapsed:
                    CollapseReason(instance.not_collapsed)
            if {i.volume for i in instances if i.volume} != {v.name for v in volumes}:
                raise NodeError("job.json is damaged: its volumes are not those of its instances")
            job = cls(**content, instances=instances, volumes=volumes)
            named = [part for i in instances for part in (i, i.identity, i.origin)]
            for part in (job, *named, *(part for v in volumes for part in (v, v.identity))):
                _check_types(part)
            return job
        except (KeyError, TypeError, ValueError) as error:
            raise NodeError(f"job.json is damaged: {error}") from error

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
                    frame=0,
                    lost_volume=i.volume,
                )
                if i.name in names and i.form != "original"
                else i
                for i in self.instances
            ),
            volumes=tuple(volume for volume in self.volumes if volume.name not in lost),
        )


def _check_types(part: Any) -> None:
    """Raise TypeError where a plain value is of another type than its field."""
    for known in fields(part):
        value = getattr(part, known.name)
        if known.type is float:
            is_right = isinstance(value, (int, float)) and not isinstance(value, bool)
        elif known.type in (str, int, bool):
            is_right = type(value) is known.type
        else:
            continue
        if not is_right:
            raise TypeError(f"{known.name} is {value!r}")
