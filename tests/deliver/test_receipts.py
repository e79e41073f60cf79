"""Receipt files: nothing forgotten over a restart, a torn line harmless."""

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import (
    Answered,
    Entry,
    ReceiptLog,
    ReceiptState,
    Released,
    Unavailable,
    load,
    release_held,
)
from scp.durable import Disk, DurableFile, StrPath
from scp.errors import DiskFailedError

TIMES = st.floats(min_value=0, max_value=4e9)
NAMES = st.sampled_from(["a", "b", "c", "ä\n\u2028", ""])
RECEIPTS = st.builds(
    Receipt,
    instance=NAMES,
    verdict=st.sampled_from(Verdict),
    status=st.sampled_from(["", "0000", "A700"]),
    detail=st.text(max_size=20),
    transfer_syntax=st.just("1.2"),
)
ENTRIES = st.one_of(
    st.builds(
        Answered,
        at=TIMES,
        receipt=RECEIPTS,
        tries=st.integers(min_value=0, max_value=9),
        retry_at=TIMES,
    ),
    st.builds(
        Unavailable,
        at=TIMES,
        reason=st.text(max_size=20),
        tries=st.integers(min_value=1, max_value=9),
        retry_at=TIMES,
    ),
    st.builds(Released, at=TIMES),
)


def receipt(instance: str, verdict: Verdict = Verdict.DELIVERED) -> Receipt:
    return Receipt(instance=instance, verdict=verdict, status="")


def answered(instance: str, verdict: Verdict = Verdict.DELIVERED) -> Answered:
    return Answered(at=1.0, receipt=receipt(instance, verdict))


def log_at(path: Path, disk: Disk | None = None) -> ReceiptLog:
    return ReceiptLog(disk or Disk(), path, load(path), wall=lambda: 9.0)


def write(path: Path, *entries: Entry) -> None:
    log = log_at(path)
    for entry in entries:
        log.record(entry)
    log.sync()
    log.close()


def state_of(entries: list[Entry]) -> ReceiptState:
    state = ReceiptState()
    for entry in entries:
        state.apply(entry)
    return state


@given(st.lists(ENTRIES, max_size=12))
def test_what_was_recorded_is_loaded_again(entries: list[Entry]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "receipts-x")

        write(path, *entries)

        assert load(path) == state_of(entries)


@given(
    st.lists(ENTRIES, min_size=1, max_size=6),
    st.integers(min_value=0),
    st.lists(ENTRIES, max_size=3),
)
def test_a_torn_tail_costs_only_its_own_line(
    entries: list[Entry], cut: int, later: list[Entry]
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "receipts-x")
        write(path, *entries)
        last = path.read_bytes().splitlines(keepends=True)[-1]
        lost = cut % len(last) + 1
        os.truncate(path, path.stat().st_size - lost)

        write(path, *later)

        # Without its newline alone, the last line is still whole.
        survivors = entries if lost == 1 else entries[:-1]
        assert load(path) == state_of([*survivors, *later])


@pytest.mark.parametrize("at", ["1e300", "NaN", "Infinity", "-1e17"])
def test_a_time_that_is_none_costs_only_its_own_line(tmp_path: Path, at: str) -> None:
    path = tmp_path / "receipts-x"
    write(path, answered("a"))
    whole = path.read_text()
    damaged = re.sub(r'"at": [0-9.]+', f'"at": {at}', whole.replace('"a"', '"b"'))
    path.write_text(damaged + whole)

    assert load(path).done.keys() == {"a"}


def test_a_tail_of_zeros_as_a_power_failure_leaves_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "receipts-x"
    write(path, answered("a"))
    with path.open("ab") as file:
        file.write(bytes(300))

    write(path, answered("b"))

    assert load(path).done.keys() == {"a", "b"}


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert load(tmp_path / "receipts-x") == ReceiptState()


def test_every_line_says_what_happened_and_when(tmp_path: Path) -> None:
    path = tmp_path / "receipts-x"
    write(path, Unavailable(at=5.0, reason="no connection", tries=2, retry_at=7.0), answered("a"))

    first, second = map(json.loads, path.read_text().splitlines())

    assert first == {"at": 5.0, "unavailable": "no connection", "tries": 2, "retry_at": 7.0}
    assert second["instance"] == "a"
    assert second["verdict"] == "delivered"


def test_an_answer_ends_that_nothing_could_be_delivered() -> None:
    state = ReceiptState()
    state.apply(Unavailable(at=5.0, reason="no connection", tries=2, retry_at=7.0))

    state.apply(answered("a"))

    assert state.unavailable is None


def test_when_an_instance_was_taken_survives_a_restart_and_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "receipts-x"
    log = log_at(path, Unreliable("sync"))
    log.record(Answered(at=5.0, receipt=receipt("a")))
    log.record(Answered(at=6.0, receipt=receipt("b", Verdict.HELD)))
    with pytest.raises(DiskFailedError):
        log.sync()

    log.sync()

    assert load(path).done_at == {"a": 5.0}


def test_every_attempt_counts_over_restarts_releases_and_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "receipts-x"
    write(path, answered("a", Verdict.TRANSIENT), answered("b", Verdict.LIMITED))
    write(path, answered("b", Verdict.HELD), Released(at=2.0), answered("b"))
    assert load(path).done["b"].attempts == 3

    log = log_at(path, Unreliable("sync"))
    assert log.record(answered("a")) == log.state.apply(
        Answered(at=1.0, receipt=replace(receipt("a"), attempts=2))
    )
    with pytest.raises(DiskFailedError):
        log.sync()
    log.sync()

    state = load(path)
    assert {name: each.attempts for name, each in state.done.items()} == {"a": 2, "b": 3}


def test_an_answer_that_took_several_offers_counts_as_so_many_attempts(tmp_path: Path) -> None:
    path = tmp_path / "receipts-x"
    log = log_at(path)
    later = replace(receipt("a", Verdict.TRANSIENT), offers=2)

    log.record(Answered(at=1.0, receipt=later, tries=1, retry_at=2.0))
    log.record(Answered(at=2.0, receipt=replace(receipt("a"), offers=3)))
    log.sync()
    log.close()

    assert load(path).done["a"].attempts == log.state.done["a"].attempts == 5


def test_a_receipt_of_a_version_that_did_not_count_is_one_attempt(tmp_path: Path) -> None:
    path = tmp_path / "receipts-x"
    write(path, answered("a"))
    line = json.loads(path.read_bytes())
    del line["attempts"]
    path.write_text(json.dumps(line) + "\n")

    assert load(path).done["a"].attempts == 1


def test_releasing_makes_what_is_held_new_again(tmp_path: Path) -> None:
    path = tmp_path / "receipts-x"
    write(path, answered("a"), answered("b", Verdict.HELD), answered("c", Verdict.LIMITED))

    release_held(Disk(), path, 3.0)

    state = load(path)
    assert list(state.done) == ["a"]
    assert not state.held
    assert not state.tried


class Unreliable(Disk):
    """Fails the calls that are named, once each."""

    def __init__(self, *fail: str) -> None:
        super().__init__()
        self.fail = list(fail)
        self.synced: list[str] = []

    def _maybe(self, call: str) -> None:
        if call in self.fail:
            self.fail.remove(call)
            with self._watched(call):
                raise OSError(errno.EIO, "broken")

    def write(self, file: DurableFile, *pieces: bytes | bytearray | memoryview) -> None:
        if "write" in self.fail:
            super().write(file, memoryview(pieces[0])[: len(pieces[0]) // 2])
        self._maybe("write")
        super().write(file, *pieces)

    def sync_file(self, file: DurableFile) -> None:
        self._maybe("sync")
        super().sync_file(file)
        self.synced.append(Path(file.path).name)


def test_an_fsync_that_failed_is_not_repeated_but_the_state_is_written_anew(tmp_path: Path) -> None:
    disk = Unreliable("sync")
    log = log_at(tmp_path / "receipts-x", disk)
    log.record(answered("a"))
    with pytest.raises(DiskFailedError):
        log.sync()
    first = (tmp_path / "receipts-x").stat().st_ino
    log.record(answered("b", Verdict.HELD))

    log.sync()

    assert "receipts-x" not in disk.synced
    assert (tmp_path / "receipts-x").stat().st_ino != first
    assert load(tmp_path / "receipts-x") == log.state
    assert log.unsynced == 0


def test_a_line_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    log = log_at(tmp_path / "receipts-x", Unreliable("write"))
    log.record(answered("a"))
    log.record(answered("b"))

    log.sync()
    log.record(answered("c"))
    log.sync()
    log.close()

    assert load(tmp_path / "receipts-x").done.keys() == {"a", "b", "c"}


def test_a_new_files_name_is_made_durable_too(tmp_path: Path) -> None:
    folders: list[StrPath] = []

    class Watching(Disk):
        def sync_folder(self, folder: StrPath, descriptor: int | None = None) -> None:
            super().sync_folder(folder, descriptor)
            folders.append(folder)

    log = log_at(tmp_path / "receipts-x", Watching())
    log.record(answered("a"))
    log.sync()
    log.record(answered("b"))
    log.sync()
    log.close()

    assert folders == [tmp_path]


def test_what_was_written_and_closed_is_durable_after_a_sync(tmp_path: Path) -> None:
    disk = Unreliable()
    log = log_at(tmp_path / "receipts-x", disk)
    for name in ("a", "b"):
        log.record(answered(name))
        log.close()

    log.sync()

    assert disk.synced == ["receipts-x"]
    assert log.unsynced == 0
    assert load(tmp_path / "receipts-x") == log.state


def test_what_was_taken_away_before_it_was_synced_is_written_anew(tmp_path: Path) -> None:
    log = log_at(tmp_path / "receipts-x")
    log.record(answered("a"))
    log.close()
    (tmp_path / "receipts-x").unlink()
    with pytest.raises(FileNotFoundError):
        log.sync()

    log.sync()

    assert load(tmp_path / "receipts-x") == log.state
