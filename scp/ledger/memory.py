"""The ledger's in-memory twin, for tests and for commands that keep no account."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime

from scp.ledger.ports import LedgerRow, Search, SeriesHistory, Totals
from scp.ledger.tally import Tally, TallyKey, tally, totals_of
from scp.model import CollapseReason


class MemoryLedger:
    """Forgets everything with the process."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], LedgerRow] = {}
        self._sums: dict[TallyKey, Tally] = {}

    def record(self, rows: Sequence[LedgerRow]) -> None:
        added: list[LedgerRow] = []
        for row in rows:
            if (row.job, row.instance) not in self._rows:
                self._rows[row.job, row.instance] = row
                added.append(row)
        for key, group in tally(added).items():
            self._sums.setdefault(key, Tally()).add(group)

    def totals(self) -> Totals:
        return totals_of(self._sums)

    def known(self, jobs: Collection[str]) -> set[str]:
        return {job for job, _ in self._rows} & set(jobs)

    def history_of(self, series_instance_uid: str) -> SeriesHistory:
        rows = [
            row
            for row in self._rows.values()
            if row.destinations and row.identity.series_instance_uid == series_instance_uid
        ]
        return SeriesHistory(
            volumes=frozenset(row.became for row in rows if row.became),
            cut=frozenset(
                row.identity.sop_instance_uid
                for row in rows
                if row.not_collapsed is CollapseReason.SERIES_WAS_CUT
            ),
        )

    def finished_since(self, since: datetime) -> list[LedgerRow]:
        return self._newest(lambda row: row.finished_at >= since)[::-1]

    def find_results(
        self, *, result_sha256: str | None = None, sop_instance_uid: str | None = None
    ) -> list[LedgerRow]:
        if result_sha256 is None and sop_instance_uid is None:
            raise ValueError("a digest, a UID or both are needed")
        return self._newest(
            lambda row: (
                result_sha256 in (None, row.result_sha256)
                and sop_instance_uid in (None, row.identity.sop_instance_uid)
            )
        )

    def search(self, search: Search) -> Iterator[LedgerRow]:
        yield from self._newest(search.matches)[::-1]

    def studies(self, search: Search) -> list[str]:
        return sorted({row.identity.study_instance_uid for row in self.search(search)})

    def forget(self, before: datetime, limit: int) -> int:
        oldest = self._newest(lambda row: row.finished_at < before)[::-1][:limit]
        for row in oldest:
            del self._rows[row.job, row.instance]
        return len(oldest)

    def find_instances(self, uids: Collection[str]) -> list[LedgerRow]:
        return [row for row in self._rows.values() if row.identity.sop_instance_uid in uids]

    def recent(self, limit: int) -> list[LedgerRow]:
        return self._newest(lambda row: True)[:limit]

    def close(self) -> None:
        self._rows.clear()

    def _newest(self, wanted: Callable[[LedgerRow], bool]) -> list[LedgerRow]:
        # Reversed first: of rows that finished together, the one recorded last comes first.
        found = [row for row in reversed(self._rows.values()) if wanted(row)]
        return sorted(found, key=lambda row: row.finished_at, reverse=True)
