"""Regular expressions of rules: written as for Python's ``re``, searched with a limit of time.

``re`` cannot be stopped, and what a peer writes into an attribute may keep it busy for years.
"""

import re
import warnings
from typing import Final

import regex

_PARTS: Final = re.compile(
    r"\\N\{[^}]*\}|\\."  # an escape, which stays
    r"|\(\?#[^)]*\)"  # a comment, which stays
    r"|(?P<set>\[\^?\]?(?:[^\]\\]|\\.)*\])"
    r"|(?P<repeat>\{(?:[0-9]+(?:,[0-9]*)?|,[0-9]*)\})"
    r"|(?P<brace>\{)",
    re.DOTALL,
)
_PART_OF_SET: Final = re.compile(r"\\.|\[", re.DOTALL)


def compile_regex(pattern: str) -> regex.Pattern[str]:
    """The expression; its ``search`` takes a ``timeout`` in seconds, and raises ``TimeoutError``.

    Raises
    ------
    ValueError
        It is none that Python's ``re`` would take.
    """
    with warnings.catch_warnings():
        # Of brackets that may mean more in some later version of either.
        warnings.simplefilter("ignore")
        try:
            re.compile(pattern)
            return regex.compile(_as_re_reads_it(pattern), flags=regex.VERSION0)
        except (re.error, regex.error, OverflowError, RecursionError) as error:
            raise ValueError(str(error)) from error


def _as_re_reads_it(pattern: str) -> str:
    """Escape what only ``regex`` takes for syntax: ``{e<=1}`` and, within a set, ``[:alpha:]``."""
    return _PARTS.sub(_escaped, pattern)


def _escaped(part: re.Match[str]) -> str:
    match part.lastgroup:
        case "brace":
            return r"\{"
        case "set":
            return "[" + _PART_OF_SET.sub(_escaped_in_set, part[0][1:])
    return part[0]


def _escaped_in_set(part: re.Match[str]) -> str:
    return r"\[" if part[0] == "[" else part[0]
