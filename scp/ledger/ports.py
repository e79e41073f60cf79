"""What the node keeps of every instance after its files have left the spool."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from scp.model import CollapseReason, Form, Identity, Origin, PassReason


class State(StrEnum):
    """How the way of an instance through the node ended. Stored, so never renamed."""

    DELIVERED = "delivered"
    """Every destination has it."""
    SKIPPED = "skipped"
    """By policy it has no destination."""
    DISCARDED = "discarded"
    """A person gave it up; the note says why."""
    REPEAT = "repeat"
    """The same dataset again within the resend window: not counted as received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """When a destination took an instance, and its word for it."""

    status: str
    """``0000`` in hexadecimal; empty where the destination has no DICOM statuses."""
    at: datetime
    """Aware, UTC."""
    attempts: int = 0
    """How often it was tried, this time included; 0 where an earlier version did not count."""
    transfer_syntax: str = ""
    """What it was sent as; empty where the destination did not say."""
    committed_at: datetime | None = None
    """When it vouched for the instance (storage commitment); None: it was not asked to."""
    is_collapsed: bool = False
    """It got the object that the row's instance became a frame of, and not the instance itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """What happened to one instance. Its key is (job, instance); digests are SHA-256 in hex."""

    job: str
    instance: str
    """Its file name in the job."""
    identity: Identity
    origin: Origin
    received_at: datetime
    """Aware, UTC, as all times here."""
    finished_at: datetime
    state: State
    rule: str
    """Name of the rule that matched; ``default`` where none did."""
    form: Form | None
    """What it was delivered as; None where nothing was to be made of it."""
    reason: PassReason | None = None
    """Why the original was kept."""
    not_collapsed: CollapseReason | None = None
    """Why it stayed single-frame although its rule says ``enhanced``."""
    source_transfer_syntax: str
    result_transfer_syntax: str = ""
    source_bytes: int
    result_bytes: int = 0
    dataset_sha256: str = ""
    """Of the dataset as received, without preamble and file meta information."""
    normal_sha256: str = ""
    """Of the same after normalising the VR encoding: equal for an implicit and an explicit copy."""
    pixel_sha256: str = ""
    """Of the decoded frames."""
    result_sha256: str = ""
    """Of the delivered file."""
    destinations: Mapping[str, Delivered] = field(default_factory=dict)
    is_conflict: bool = False
    """Another dataset came under the same SOP Instance UID."""
    became: str = ""
    """The SOP Instance UID of the object that it was collapsed into; empty where it was not."""
    frame: int = 0
    """Its frame there, from 1."""
    restore_record: str = ""
    """``embedded`` or ``sidecar``: where the record lies out of which it can be restored; ``none``;
    empty where it was not collapsed, or an earlier version did not say."""
    modality: str = ""
    """Modality (0008,0060); empty where the dataset has none, or nobody looked."""
    patient_id_hash: str = ""
    """Of the Patient ID, see :mod:`scp.ledger.patients`; empty where the dataset has none."""
    verified_by: str = ""
    """The decoder that proved the conversion; empty where nothing was proved."""
    note: str = ""
    """For a person; no patient data."""
    node: str = ""
    """Of those that share the database; empty where one has it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which rows are asked for: those that match everything given."""

    uid: str = ""
    """Of the study, the series, the instance, or the object that it was collapsed into."""
    patient_id_hash: str = ""
    ae_title: str = ""
    """Calling or called."""
    since: datetime | None = None
    """Finished then or later; aware, like :attr:`until`."""
    until: datetime | None = None
    """Finished before."""
    state: State | None = None
    destination: str = ""
    """Which took it."""
    node: str | None = None
    """Whose rows; None: those of every node that writes there."""

    def matches(self, row: LedgerRow) -> bool:
        identity, origin = row.identity, row.origin
        uids = (
            identity.study_instance_uid,
            identity.series_instance_uid,
            identity.sop_instance_uid,
            row.became,
        )
        return (
            (not self.uid or self.uid in uids)
            and self.patient_id_hash in ("", row.patient_id_hash)
            and self.ae_title in ("", origin.calling_ae_title, origin.called_ae_title)
            and (self.since is None or row.finished_at >= self.since)
            and (self.until is None or row.finished_at < self.until)
            and self.state in (None, row.state)
            and (not self.destination or self.destination in row.destinations)
            and self.node in (None, row.node)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over all rows, repeats apart."""

    states: Mapping[State, int]
    """Every state, repeats included."""
    converted: int
    passed_through: int
    reasons: Mapping[PassReason, int]
    not_collapsed: Mapping[CollapseReason, int]
    source_bytes: int
    """As received, of the instances that were converted or passed through."""
    result_bytes: int
    """As delivered, once each, however many destinations there were."""

    @property
    def finished(self) -> int:
        """How many received instances have left the spool."""
        return sum(self.states.values()) - self.states[State.REPEAT]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHistory:
    """What became of a series that was to be collapsed, as far as anybody has it."""

    volumes: frozenset[str] = frozenset()
    """SOP Instance UIDs of the objects that instances of it were collapsed into."""
    cut: frozenset[str] = frozenset()
    """Those of its instances that were delivered by themselves because it was cut."""

    def __or__(self, other: "SeriesHistory") -> "SeriesHistory":
        return SeriesHistory(volumes=self.volumes | other.volumes, cut=self.cut | other.cut)


class Ledger(Protocol):
    """The account of what happened. One process writes, others may read meanwhile.

    Several nodes may share a database. Counters, repeats, retention and storage commitment are each
    node's own; what became of a series is asked for all.

    Every call may raise LedgerError: the account cannot be reached, and the same call may succeed
    later. None of them waits for long.
    """

    def record(self, rows: Sequence[LedgerRow]) -> None:
        """Add all rows or none, as this node's; durable on return. One whose key is known is left out.

        Raises
        ------
        LedgerError
            Nothing was added; the same call may succeed later.
        """
        ...

    def totals(self) -> Totals:
        """The sums, without reading every row; rows that were forgotten are in them."""
        ...

    def known(self, jobs: Collection[str]) -> set[str]:
        """Those of ``jobs`` that have been recorded."""
        ...

    def history_of(self, series_instance_uid: str) -> SeriesHistory:
        """What collapsing has made of this series before."""
        ...

    def finished_since(self, since: datetime) -> list[LedgerRow]:
        """Every row that finished at ``since`` or later, oldest first."""
        ...

    def find_results(
        self, *, result_sha256: str | None = None, sop_instance_uid: str | None = None
    ) -> list[LedgerRow]:
        """Rows that match everything given, newest first; ValueError when nothing is."""
        ...

    def search(self, search: Search) -> Iterator[LedgerRow]:
        """The rows asked for, oldest first, a page at a time: what is recorded meanwhile may follow."""
        ...

    def studies(self, search: Search) -> list[str]:
        """The Study Instance UIDs of the rows asked for, each once, in order."""
        ...

    def forget(self, before: datetime, limit: int) -> int:
        """Delete up to ``limit`` rows that finished before, oldest first; returns how many.

        The totals keep them.
        """
        ...

    def find_instances(self, uids: Collection[str]) -> list[LedgerRow]:
        """Every row of this node of these SOP Instance UIDs, in no order."""
        ...

    def recent(self, limit: int) -> list[LedgerRow]:
        """The ``limit`` rows that finished last, newest first."""
        ...

    def close(self) -> None:
        """Give up the file; nothing may be called afterwards."""
        ...
