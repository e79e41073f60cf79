"""When a series is complete. Passive: the caller owns the time and does the closing."""

from dataclasses import dataclass, field
from math import inf


@dataclass(slots=True)
class _Open:
    last_arrival: float
    opened: float
    quiet_seconds: float
    is_asked_for: bool = False
    """Whether a rule gave ``quiet_seconds``."""
    arriving: dict[str, int] = field(default_factory=dict)


class SeriesClock:
    """Open series by their folder name; times are monotonic seconds.

    A series is quiet when nothing arrived for its quiet period and no receiver is in the middle of one of
    its instances. It is cut, quiet or not, when it has been open for ``max_open_seconds``.
    """

    def __init__(self, quiet_seconds: float, max_open_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._max_open_seconds = max_open_seconds
        self._open: dict[str, _Open] = {}

    def __contains__(self, series: str) -> bool:
        return series in self._open

    def __len__(self) -> int:
        return len(self._open)

    def arrived(self, series: str, now: float, *, age: float = 0.0) -> None:
        """Something arrived; a new series starts here, ``age`` seconds old already."""
        known = self._open.get(series)
        if known is None:
            age = min(max(age, 0.0), self._max_open_seconds)
            self._open[series] = _Open(now, now - age, self._quiet_seconds)
        else:
            known.last_arrival = now

    def begin(self, series: str, receiver: str, now: float) -> None:
        """A receiver is in the middle of an instance."""
        self.arrived(series, now)
        arriving = self._open[series].arriving
        arriving[receiver] = arriving.get(receiver, 0) + 1

    def end(self, series: str, receiver: str, now: float) -> None:
        """It no longer is, whatever became of the instance."""
        known = self._open.get(series)
        if known is None:
            return
        known.last_arrival = now
        left = known.arriving.get(receiver, 0) - 1
        if left > 0:
            known.arriving[receiver] = left
        else:
            known.arriving.pop(receiver, None)

    def receiver_died(self, receiver: str) -> None:
        """Nothing of it is arriving any more."""
        for known in self._open.values():
            known.arriving.pop(receiver, None)

    def set_quiet_seconds(self, series: str, quiet_seconds: float) -> None:
        """A rule asked for its own quiet period; the longest that was asked for holds."""
        known = self._open.get(series)
        if known is not None:
            longest = known.quiet_seconds if known.is_asked_for else 0.0
            known.quiet_seconds = max(longest, quiet_seconds)
            known.is_asked_for = True

    def close(self, series: str) -> None:
        self._open.pop(series, None)

    def due(self, now: float, known_until: float = inf) -> list[tuple[str, bool]]:
        """The series to close, the longest quiet first, and whether each was cut.

        Of what arrived after ``known_until`` not all has been told: no quiet counts from then on.
        """
        found = []
        for series, known in self._open.items():
            quiet_since = known.last_arrival + known.quiet_seconds
            if now - known.opened >= self._max_open_seconds:
                found.append((known.opened, series, True))
            elif quiet_since <= min(now, known_until) and not known.arriving:
                found.append((quiet_since, series, False))
        return [(series, cut) for _, series, cut in sorted(found)]

    def oldest(self) -> str | None:
        """The series that has been open longest: what a limit on open work closes first."""
        return min(self._open, key=lambda series: self._open[series].opened, default=None)

    def next_due(self, now: float) -> float | None:
        """Seconds until :meth:`due` may return something; None when nothing is open."""
        waits = [
            min(
                known.opened + self._max_open_seconds,
                known.last_arrival + known.quiet_seconds if not known.arriving else inf,
            )
            for known in self._open.values()
        ]
        return max(0.0, min(waits) - now) if waits else None

    def snapshot(self, now: float) -> dict[str, tuple[float, float, bool]]:
        """For each open series: seconds open, seconds since the last arrival, whether one is arriving."""
        return {
            series: (now - known.opened, now - known.last_arrival, bool(known.arriving))
            for series, known in self._open.items()
        }
