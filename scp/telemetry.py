"""What the node says about itself: logs without patient data, and counters of source instances.

Log lines may name AE titles, addresses, spool folders, counts and times. They never carry a value
of a dataset: names, ids, dates and texts of patients stay in the files.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal, TextIO

type LogFormat = Literal["console", "json"]

_CONTEXT: Final[Mapping[str, ContextVar[str]]] = {
    "association": ContextVar("association", default=""),
    "series": ContextVar("series", default=""),
}
"""Ids that every line of a thread or task carries; written by :func:`context`."""

_OWN_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
"""What a record always has; everything else came with ``extra=``."""

_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


class Counter(StrEnum):
    """Names of the counters, all gauges of source instances.

    ``received`` = ``pending`` + ``delivered`` + ``held`` + ``skipped`` + ``discarded``.
    """

    RECEIVED = "received"
    """Acknowledged with 0x0000; a repeat within the resend window is not counted again."""
    PENDING = "pending"
    """In the spool: growing, being converted, or waiting for a destination."""
    DELIVERED = "delivered"
    """Every destination has it."""
    HELD = "held"
    """Waits for a person: `dcmpress held`."""
    SKIPPED = "skipped"
    """Has no destination by policy."""
    DISCARDED = "discarded"
    """Given up by a person, with a reason."""
    CONVERTED = "converted"
    """Became something smaller, and was verified. Independent of the delivery."""
    PASSED_THROUGH = "passed_through"
    """Kept as received, for one of the reasons. Independent of the delivery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One reading of every :class:`Counter`."""

    received: int = 0
    pending: int = 0
    delivered: int = 0
    held: int = 0
    skipped: int = 0
    discarded: int = 0
    converted: int = 0
    passed_through: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why instances were passed through: a PassReason and how many."""
    not_collapsed: Mapping[str, int] = field(default_factory=dict)
    """Why instances stayed single-frame whose rule says ``enhanced``: a CollapseReason and how many."""

    @property
    def is_balanced(self) -> bool:
        """Whether everything acknowledged is accounted for."""
        accounted = self.pending + self.delivered + self.held + self.skipped + self.discarded
        return self.received == accounted

    def as_json(self) -> dict[str, int | dict[str, int]]:
        """For `status --json`: an integer for each counter, and how often each reason was given."""
        return {
            **asdict(self),
            "reasons": dict(sorted(self.reasons.items())),
            "not_collapsed": dict(sorted(self.not_collapsed.items())),
        }


@contextmanager
def context(**ids: str) -> Iterator[None]:
    """Put ``association`` or ``series`` into every line logged inside, in this thread or task."""
    tokens = [(_CONTEXT[name], _CONTEXT[name].set(value)) for name, value in ids.items()]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


def configure(log_format: LogFormat, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send the log of this process to ``stream``, the standard error by default. For `cli` only."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Both quote values of datasets.
    logging.captureWarnings(True)
    for name in ("pydicom", "py.warnings"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in ("pynetdicom", "highdicom", "alembic"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, context ids and what ``extra`` gave."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """For people: time, level, message, ``name=value`` of the rest; one line but for tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        rest = "".join(f" {name}={_in_one_word(value)}" for name, value in _extra(record).items())
        time = _time(record).strftime("%Y-%m-%d %H:%M:%SZ")
        # What a peer sent, its AE title for one, must not begin a line of its own.
        line = f"{time} {record.levelname:7} {record.getMessage()}{rest}".translate(_ESCAPES)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _in_one_word(value: object) -> str:
    text = str(value)
    return repr(text) if " " in text else text


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    ids = {name: variable.get() for name, variable in _CONTEXT.items() if variable.get()}
    given = {name: value for name, value in record.__dict__.items() if name not in _OWN_FIELDS}
    return ids | given
