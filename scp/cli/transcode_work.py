"""One source file of ``dcmpress transcode``: what it is, and what the rules want of it."""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from scp.buffer.part10 import open_instance
from scp.choose.attributes import Wanted, read_attributes
from scp.choose.rules import Facts, RuleSet
from scp.config.schema import Config
from scp.errors import UnreadableInstanceError
from scp.model import Form, SeriesKey, SpooledInstance

_MODALITY = Wanted(public={0x00080060: "Modality"}, stop_before=0x00080061)
_PREAMBLE_BYTES, _MAGIC = 128, b"DICM"
_AT_ONCE = 1000
"""Files of series that are in hand together, so that one of a few files does not leave workers idle."""


@dataclass(frozen=True, slots=True)
class Work:
    """One file to convert. Hashable, and equal to itself alone as long as no source comes twice."""

    source: Path
    name: str
    target: Path
    aside: Path
    size: int
    mtime_ns: int
    modality: str
    is_recorded: bool
    """What lies at ``target`` is an earlier result of ours, which this one replaces."""

    @property
    def is_unchanged(self) -> bool:
        try:
            state = self.source.stat()
        except FileNotFoundError:
            return False
        return (state.st_size, state.st_mtime_ns) == (self.size, self.mtime_ns)


class Sorter:
    """Asks the configuration's rules about every file, and keeps those whose series has to be complete."""

    def __init__(self, config: Config) -> None:
        self._rules = RuleSet(config.rules, config.default)
        self._default = config.default.convert
        self._asks = bool(config.rules) or self._default is Form.ENHANCED
        self._waiting: dict[SeriesKey, dict[Work, Facts]] = {}

    def form_of(self, work: Work) -> Form | None:
        """What the file becomes; None: it waits for the rest of its series."""
        if not self._asks:
            return self._default
        try:
            instance = open_instance(work.source)
        except UnreadableInstanceError:
            return Form.ORIGINAL if self._default is Form.ORIGINAL else Form.HTJ2K
        facts = self._facts(instance)
        decision = self._rules.decide_open(facts)
        if decision is not None and decision.convert is not Form.ENHANCED:
            return decision.convert
        self._waiting.setdefault(instance.identity.series, {})[work] = facts
        return None

    def series(self) -> Iterator[list["Series"]]:
        """What waited, a few series at a time; each is complete."""
        batch: list[Series] = []
        for key in list(self._waiting):
            facts = self._waiting.pop(key)
            counted = {work: replace(each, instances=len(facts)) for work, each in facts.items()}
            batch.append(
                Series(
                    uid=key.series_instance_uid,
                    forms={
                        work: self._rules.decide(each).convert for work, each in counted.items()
                    },
                )
            )
            if sum(len(series.forms) for series in batch) >= _AT_ONCE:
                yield batch
                batch = []
        if batch:
            yield batch

    def _facts(self, instance: SpooledInstance) -> Facts:
        return Facts(
            attributes=read_attributes(instance.path, self._rules.wanted),
            origin=instance.origin,
            transfer_syntax=instance.transfer_syntax,
            sop_class_uid=instance.identity.sop_class_uid,
        )


@dataclass(frozen=True, slots=True)
class Series:
    """The files of one series that a rule may want to be one object."""

    uid: str
    forms: dict[Work, Form]
    """What the rules say of each."""


def common_folder(folders: Iterable[Path]) -> Path:
    """The deepest folder that all of them lie in, or are."""
    first, *others = {folder.parts for folder in folders}
    depth = 0
    while depth < len(first) and all(parts[: depth + 1] == first[: depth + 1] for parts in others):
        depth += 1
    return Path(*first[:depth])


def has_size(result: Path, size: int) -> bool:
    """Whether a result is there and not cut short; ``dcmpress verify`` reads it all."""
    try:
        state = result.stat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_size == size


def is_dicom(path: Path) -> bool:
    """Whether it says so (PS3.10 7.1); what can be read of it is another question."""
    with path.open("rb") as file:
        return file.read(_PREAMBLE_BYTES + len(_MAGIC))[_PREAMBLE_BYTES:] == _MAGIC


def modality_of(path: Path) -> str:
    found = read_attributes(path, _MODALITY).get("Modality")
    return found.values[0] if found is not None and found.values else ""
