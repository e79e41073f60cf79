"""When a series is complete. Passive: the caller owns the time and does the closing."""

from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class _Open:
    last_arrival: float
    opened: float
    quiet_seconds: float
    is_asked_for: bool = False
    """Whether a rule gave ``quiet_seconds``."""


class SeriesClock:
    """Open series by their folder name; times are monotonic seconds.

    A series is quiet when nothing arrived for its quiet period and no receiver is in the middle of one of
    its instances. It is cut, quiet or not, when it has been open for ``max_open_seconds``.
    """

    def __init__(self, quiet_seconds: float, max_open_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._max_open_seconds = max_open_seconds
        self._open: dict[str, _Open] = {}
        self._arriving: dict[str, dict[str, int]] = {}
        """How many, by series and receiver. What was begun before a series was cut lands after that."""

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
        arriving = self._arriving.setdefault(series, {})
        arriving[receiver] = arriving.get(receiver, 0) + 1

    def end(self, series: str, receiver: str, now: float) -> None:
        """It no longer is, whatever became of the instance."""
        known = self._open.get(series)
        if known is not None:
            known.last_arrival = now
        self._take(series, receiver, 1)

    def receiver_died(self, receiver: str) -> None:
        """Nothing of it is arriving any more."""
        for series, arriving in tuple(self._arriving.items()):
            self._take(series, receiver, arriving.get(receiver, 0))

    def _take(self, series: str, receiver: str, number: int) -> None:
        arriving = self._arriving.get(series, {})
        left = arriving.pop(receiver, 0) - number
        if left > 0:
            arriving[receiver] = left
        elif not arriving:
            self._arriving.pop(series, None)

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
            elif quiet_since <= min(now, known_until) and series not in self._arriving:
                found.append((quiet_since, series, False))
        return [(series, cut) for _, series, cut in sorted(found)]

    def oldest_first(self) -> list[str]:
        """The series in the order in which a limit on open work closes them."""
        return sorted(self._open, key=lambda series: self._open[series].opened)

    def next_due(self, now: float) -> float | None:
        """Seconds until :meth:`due` may return something; None when nothing is open."""
        waits = [
            min(
                known.opened + self._max_open_seconds,
                inf if series in self._arriving else known.last_arrival + known.quiet_seconds,
            )
            for series, known in self._open.items()
        ]
        return max(0.0, min(waits) - now) if waits else None

    def snapshot(self, now: float) -> dict[str, tuple[float, float, bool]]:
        """For each open series: seconds open, seconds since the last arrival, whether one is arriving."""
        return {
            series: (now - known.opened, now - known.last_arrival, series in self._arriving)
            for series, known in self._open.items()
        }
