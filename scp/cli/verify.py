"""dcmpress verify: are delivered files still what was delivered?"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from scp.buffer.layout import Layout
from scp.cli import output
from scp.cli.configuration import load_config
from scp.cli.manifest import MANIFEST, NOT_DICOM, Entry, read_manifest
from scp.cli.paths import files_in
from scp.convert.enhanced.restore import is_collapsed, verify_collapsed
from scp.deliver.dicomfile import read_meta
from scp.errors import MalformedError, NodeError
from scp.ledger.ports import Ledger
from scp.ledger.sql import SqlLedger

_MISSING = "transcode has written it, and it is gone"


def verify_files(paths: list[Path], config: Path | None, *, as_json: bool) -> None:
    """Compare each file with the record of ``transcode`` beside it, else with the node's ledger.

    Raises
    ------
    NodeError
        A file differs from its record, or has none; or a record has no file.
    """
    records = _Records(Layout(load_config(config).node.data).ledger)
    rows: list[tuple[Path, str, str]] = []
    for path in paths:
        missing = list(records.missing_below(path))
        if path.exists() or not missing:
            rows += [(file, *records.judge(file)) for file in files_in([path])]
        rows += [(file, "missing", _MISSING) for file in missing]
    if as_json:
        output.show_json(
            [{"path": str(file), "verdict": v, "detail": detail} for file, v, detail in rows]
        )
    else:
        for file, verdict, detail in rows:
            print(f"{file}: {verdict}{': ' + detail if detail else ''}")
    bad = sum(verdict != "good" for _, verdict, _ in rows)
    if bad:
        raise NodeError(f"{bad} of {len(rows)} files are not what was recorded")


class _Records:
    def __init__(self, ledger: Path) -> None:
        self._ledger: Ledger | None = None
        if ledger.exists():
            self._ledger = SqlLedger.open_for_reading(ledger)
        self._manifests: dict[Path, dict[str, Entry]] = {}

    def judge(self, path: Path) -> tuple[str, str]:
        """The verdict, ``good``, ``different`` or ``unknown``, and what more there is to say."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entry = self._entry_of(path.resolve())
        if entry is not None:
            if entry.result_sha256 == digest:
                return "good", f"{entry.form} {entry.reason}".strip()
            return "different", "its bytes are not those that transcode wrote"
        if self._ledger is None:
            if is_collapsed(path):
                return _judge_frames(path)
            return "unknown", "no record of transcode beside it, and no node's ledger"
        rows = self._ledger.find_results(result_sha256=digest)
        if rows:
            return "good", f"delivered {rows[0].finished_at.isoformat(timespec='seconds')}"
        if is_collapsed(path):
            return _judge_frames(path)
        try:
            with path.open("rb") as file:
                uid = read_meta(file.fileno()).sop_instance_uid
        except MalformedError:
            return "unknown", "no DICOM file, and its digest is in no record"
        if self._ledger.find_results(sop_instance_uid=uid):
            return "different", "the instance is known, with other bytes"
        return "unknown", "the ledger does not know the instance"

    def missing_below(self, path: Path) -> Iterator[Path]:
        """What transcode has recorded as written at or below ``path`` and is no file there now."""
        if path.is_file():
            return
        top = path.resolve()
        for folder in sorted({top, *top.parents, *_folders_with_a_record(top)}):
            for entry in self._manifest(folder).values():
                result = Path(os.path.normpath(folder / entry.source))
                is_asked_for = result.is_relative_to(top) and entry.form != NOT_DICOM
                if is_asked_for and not os.path.isfile(result):
                    yield result if result == top else path / result.relative_to(top)

    def _entry_of(self, path: Path) -> Entry | None:
        for folder in path.parents:
            entry = self._manifest(folder).get(str(path.relative_to(folder)))
            if entry is not None:
                return entry
        return None

    def _manifest(self, folder: Path) -> dict[str, Entry]:
        if folder not in self._manifests:
            self._manifests[folder] = read_manifest(folder)
        return self._manifests[folder]


def _folders_with_a_record(top: Path) -> Iterator[Path]:
    """Below hidden folders nothing is looked at."""
    for record in top.rglob(MANIFEST):
        if not any(name.startswith(".") for name in record.parent.relative_to(top).parts):
            yield record.parent


def _judge_frames(path: Path) -> tuple[str, str]:
    """Of a collapsed object that no record knows as a whole: it has recorded its frames itself."""
    frames = list(verify_collapsed(path))
    faults = [f"frame {each.frame}: {each.fault}" for each in frames if each.fault]
    if faults:
        return "different", "; ".join(faults[:3]) + (" ..." if len(faults) > 3 else "")
    return "good", f"the pixels of all {len(frames)} frames, by the digests that it carries"
