"""The circuit breaker of one destination: after failures it is left alone, then tried with one probe."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait after failures."""

    first_seconds: float = 1.0
    """After the first; doubled each time."""
    longest_seconds: float = 300.0
    jitter: float = 0.2
    """A wait is shortened by up to this share, so that nodes do not return in step."""
    limited_seconds: tuple[float, ...] = (60.0, 240.0, 900.0, 2400.0)
    """Between the tries of what is tried a limited number of times: five over an hour."""
    random: Callable[[], float] = random.random
    """Uniform in [0, 1)."""

    def seconds(self, failures: int, drawn: float) -> float:
        """The wait after ``failures`` in a row; ``drawn`` is a value of :attr:`random`."""
        exponent = min(failures - 1, 64)
        wait = min(self.first_seconds * 2.0**exponent, self.longest_seconds)
        return wait * (1 - self.jitter * drawn)

    @property
    def longest_wait(self) -> float:
        return max(self.longest_seconds, *self.limited_seconds)


class Breaker:
    """Closed: work. Open: wait until :attr:`rests_until`. Half open: one attempt, to see.

    Passive: the caller owns clocks and lock.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self.failures = 0
        """In a row; 0 while it is closed."""
        self._rests_until = -math.inf
        self._told_until = -math.inf
        """The destination itself has said so; what it takes meanwhile on other lanes changes nothing."""

    @property
    def rests_until(self) -> float:
        """The destination as a whole is left alone until then."""
        return max(self._rests_until, self._told_until)

    @property
    def is_closed(self) -> bool:
        return not self.failures

    def allows(self, now: float, others: int) -> bool:
        """Whether an attempt may begin while ``others`` are being made."""
        return now >= self.rests_until and (self.is_closed or not others)

    def reached(self) -> None:
        """The destination answered something better than later."""
        self.failures, self._rests_until = 0, -math.inf

    def hurry(self) -> None:
        """A person wants it tried now."""
        self.reached()
        self._told_until = -math.inf

    def failed(self, now: float, retry_after: float = 0.0) -> float:
        """The destination cannot be had; returns the seconds that it is left alone.

        Attempts that fail together count once. ``retry_after`` is for how many seconds at least it
        wants to be, which is believed up to the longest wait that there is.
        """
        if now >= self.rests_until:
            self.failures += 1
            drawn = self._backoff.random()
            self._rests_until = now + self._backoff.seconds(self.failures, drawn)
        if retry_after > 0:
            told = now + min(retry_after, self._backoff.longest_wait)
            self._told_until = max(self._told_until, told)
        return self.rests_until - now

    def resume(self, failures: int, now: float, wait: float) -> None:
        """Go on with what was known before a restart."""
        self.failures = max(self.failures, failures)
        self._rests_until = max(self._rests_until, now + wait)
