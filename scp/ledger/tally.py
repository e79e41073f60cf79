"""Sums of rows, kept up to date row by row so that nobody counts them again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scp.ledger.ports import LedgerRow, State, Totals
from scp.model import CollapseReason, Form, PassReason


@dataclass(frozen=True, slots=True, kw_only=True)
class TallyKey:
    """Rows that are summed up together."""

    state: State
    form: Form | None
    reason: PassReason | None
    not_collapsed: CollapseReason | None


@dataclass(slots=True)
class Tally:
    """How many rows, and how many bytes came and left with them."""

    instances: int = 0
    source_bytes: int = 0
    result_bytes: int = 0

    def add(self, other: "Tally") -> None:
        self.instances += other.instances
        self.source_bytes += other.source_bytes
        self.result_bytes += other.result_bytes


def tally(rows: Iterable[LedgerRow]) -> dict[TallyKey, Tally]:
    """Sum up each group of ``rows``."""
    sums: dict[TallyKey, Tally] = {}
    for row in rows:
        key = TallyKey(
            state=row.state, form=row.form, reason=row.reason, not_collapsed=row.not_collapsed
        )
        sums.setdefault(key, Tally()).add(Tally(1, row.source_bytes, row.result_bytes))
    return sums


def totals_of(sums: Mapping[TallyKey, Tally]) -> Totals:
    """What the node shows, from the sums of all rows."""
    states = dict.fromkeys(State, 0)
    reasons: dict[PassReason, int] = {}
    not_collapsed: dict[CollapseReason, int] = {}
    converted = passed_through = source_bytes = result_bytes = 0
    for key, group in sums.items():
        states[key.state] += group.instances
        if key.form is None or key.state is State.REPEAT:
            continue
        source_bytes += group.source_bytes
        result_bytes += group.result_bytes
        if key.not_collapsed is not None:
            known = not_collapsed.get(key.not_collapsed, 0)
            not_collapsed[key.not_collapsed] = known + group.instances
        if key.form is not Form.ORIGINAL:
            converted += group.instances
            continue
        passed_through += group.instances
        if key.reason is not None:
            reasons[key.reason] = reasons.get(key.reason, 0) + group.instances
    return Totals(
        states=states,
        converted=converted,
        passed_through=passed_through,
        reasons=reasons,
        not_collapsed=not_collapsed,
        source_bytes=source_bytes,
        result_bytes=result_bytes,
    )
