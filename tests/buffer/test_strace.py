"""The order of the running node's own system calls, as the kernel saw them (strace)."""

import hashlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest

from tests.buffer import strace
from tests.buffer.strace import Call
from tests.conftest import peer_program
from tests.e2e.node import COMMAND, RunningNode
from tests.material import ct_series, mr_series, write_all

pytestmark = pytest.mark.xdist_group("strace")

_SERIES_FILE = "series.json"
_STORE_RESPONSE = b"\0\0\0\1\2\0\0\0\1\x80"
"""(0000,0100) Command Field: C-STORE-RSP, in Implicit VR Little Endian (PS3.7 9.3.1.2)."""
_SUCCESS = b"\0\0\0\x09\2\0\0\0\0\0"
"""(0000,0900) Status: 0x0000."""
_INSTANCE_UID = b"\0\0\0\x10"


@dataclass(slots=True)
class Traced:
    """What a node did that received, converted, delivered and recorded two series."""

    data: Path
    archive: Path
    calls: list[Call]
    sent: list[str]
    """SOP Instance UIDs in the order of sending; one comes twice."""
    syncs: dict[str, list[Call]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for call in self.calls:
            if call.name in ("fsync", "fdatasync") and call.result == 0:
                self.syncs.setdefault(call.descriptor, []).append(call)

    @property
    def growing(self) -> Path:
        return self.data / "spool" / "growing"

    @property
    def jobs(self) -> Path:
        return self.data / "spool" / "jobs"

    def of(self, *names: str) -> list[Call]:
        """Calls on names that succeeded."""
        return [call for call in self.calls if call.name in names and call.result == 0]

    def renames(self) -> list[tuple[Path, Path, Call]]:
        return [
            (call.paths[0], call.paths[1], call)
            for call in self.of("rename", "renameat", "renameat2")
        ]

    @property
    def incoming(self) -> Path:
        return self.data / "spool" / "incoming"

    def landings(self) -> list[Call]:
        """Attempts, for a repeat finds its name taken."""
        return [
            call
            for call in self.calls
            if call.name == "renameat2" and call.paths[0].is_relative_to(self.incoming)
        ]

    def responses(self) -> list[tuple[str, Call]]:
        """C-STORE-RSPs with status 0000, and which instance each names."""
        found = []
        for call in self.calls:
            if call.name not in ("sendto", "sendmsg", "write"):
                continue
            content = b"".join(call.texts)
            if content[:1] == b"\4" and _STORE_RESPONSE in content and _SUCCESS in content:
                start = content.index(_INSTANCE_UID) + 8
                length = int.from_bytes(content[start - 4 : start], "little")
                found.append((content[start : start + length].rstrip(b"\0").decode(), call))
        return found

    def assert_synced(self, path: Path, *, after: int = -1, before: int) -> Call:
        """An fsync of the path that began after one event and ended before another."""
        for call in self.syncs.get(str(path), []):
            if after < call.began and call.ended < before:
                return call
        raise AssertionError(f"{path} was not synced between {after} and {before}")


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    program = peer_program("strace")
    folder = tmp_path_factory.mktemp("strace")
    trace = folder / "trace"
    probe = subprocess.run(
        [program, *strace.OPTIONS, "-o", trace, "true"], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"strace may not trace here: {probe.stderr.decode()}")
    ct = write_all(ct_series(3, 64, 64), folder / "ct")
    mr = write_all(mr_series(2, 64, 64), folder / "mr")
    rule = {
        "name": "at once",
        "match": {"Modality": "MR"},
        "convert": "htj2k",
        "deliver": "at_once",
        "send_to": ["archive"],
    }
    node = RunningNode(folder / "node", {"rules": [rule]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tests.e2e.node.COMMAND", (program, "-D", *strace.OPTIONS, "-o", str(trace), *COMMAND)
        )
        node.start()
    try:
        order = [*ct, ct[0], *mr]
        node.send(order)
        node.wait_for(delivered=5, pending=0)
    finally:
        node.close()
    return Traced(
        data=node.data,
        archive=node.archive,
        calls=strace.read(trace),
        sent=[str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in order],
    )


def test_everything_that_was_sent_was_answered(traced: Traced) -> None:
    assert [uid for uid, _ in traced.responses()] == traced.sent


def test_before_each_success_its_file_and_then_the_folder_with_its_name_are_synced(
    traced: Traced,
) -> None:
    attempts = traced.landings()
    for uid, response in traced.responses():
        stem = hashlib.sha256(uid.encode()).hexdigest()[:32]
        landing = next(call for call in attempts if call.paths[1].name == f"{stem}.dcm")
        attempts.remove(landing)
        incoming, name = landing.paths

        traced.assert_synced(incoming, before=landing.began)
        traced.assert_synced(name.parent, after=landing.ended, before=response.began)
    assert attempts == []


def test_before_each_success_the_name_of_a_new_series_is_synced_too(traced: Traced) -> None:
    opened = {
        target: (source, call)
        for source, target, call in traced.renames()
        if source.parent == target.parent == traced.growing
    }
    assert len(opened) == 2
    for uid, response in traced.responses():
        stem = hashlib.sha256(uid.encode()).hexdigest()[:32]
        landing = next(call for call in traced.landings() if call.paths[1].name == f"{stem}.dcm")
        aside, rename = opened[landing.paths[1].parent]

        content = traced.assert_synced(aside / _SERIES_FILE, before=rename.began)
        traced.assert_synced(aside, after=content.ended, before=rename.began)
        traced.assert_synced(traced.growing, after=rename.ended, before=response.began)


def test_only_the_repeat_is_unlinked_and_not_before_its_twin_is_synced(traced: Traced) -> None:
    (unlink,) = [
        call
        for call in traced.of("unlink", "unlinkat")
        if call.paths[0].is_relative_to(traced.incoming)
    ]
    landing = next(call for call in traced.landings() if call.paths[0] == unlink.paths[0])

    assert landing.result != 0
    traced.assert_synced(landing.paths[1].parent, after=landing.ended, before=unlink.began)


def test_a_closed_series_is_synced_in_its_new_place_and_then_in_its_old(traced: Traced) -> None:
    closed = [
        (source, target, call)
        for source, target, call in traced.renames()
        if source.parent == traced.growing and target.is_relative_to(traced.jobs)
    ]
    assert closed
    for source, target, rename in closed:
        traced.assert_synced(traced.jobs, before=rename.began)
        # A series whose instances were all taken at once has none left to commit.
        is_empty = target.parent not in _committed(traced)
        end = traced.calls[-1].ended if is_empty else _commit_of(traced, target.parent).began
        new = traced.assert_synced(target.parent, after=rename.ended, before=end)
        traced.assert_synced(source.parent, after=new.ended, before=end)


def test_an_instance_taken_at_once_is_synced_in_its_new_place_and_then_in_its_old(
    traced: Traced,
) -> None:
    taken = [
        (source, target, call)
        for source, target, call in traced.renames()
        if source.parent.parent == traced.growing
    ]
    assert len(taken) == 2
    for source, target, rename in taken:
        made = next(c for c in traced.of("mkdir", "mkdirat") if c.paths[0] == target.parent)
        commit = _commit_of(traced, target.parent.parent)

        traced.assert_synced(target.parent.parent, after=made.ended, before=rename.began)
        new = traced.assert_synced(target.parent, after=rename.ended, before=commit.began)
        traced.assert_synced(source.parent, after=new.ended, before=commit.began)


def test_a_commit_comes_after_its_results_and_is_synced_itself(traced: Traced) -> None:
    commits = [
        (source, target, call)
        for source, target, call in traced.renames()
        if target.name == "job.json"
    ]
    assert len(commits) == 3
    for source, target, rename in commits:
        job = target.parent
        results = [
            (cached, made, call)
            for cached, made, call in traced.renames()
            if made.is_relative_to(job / "results")
        ]
        assert results
        for cached, made, call in results:
            # The worker syncs the content where it writes it; the names are the commit's.
            traced.assert_synced(cached, before=call.began)
            name = traced.assert_synced(made.parent, after=call.ended, before=rename.began)
            parent = traced.assert_synced(job / "results", after=name.ended, before=rename.began)
            traced.assert_synced(job, after=parent.ended, before=rename.began)

        traced.assert_synced(source, before=rename.began)
        traced.assert_synced(job, after=rename.ended, before=_trashed(traced, job).began)


def test_nothing_is_delivered_before_the_commit_is_synced(traced: Traced) -> None:
    delivered = _delivered(traced)
    first_commit_synced = min(
        traced.assert_synced(
            target.parent, after=call.ended, before=_trashed(traced, target.parent).began
        ).ended
        for _, target, call in traced.renames()
        if target.name == "job.json"
    )

    assert len(delivered) == 5
    assert all(call.began > first_commit_synced for _, _, call in delivered)


def test_the_last_trace_of_a_job_goes_after_its_deliveries_receipts_and_ledger_rows(
    traced: Traced,
) -> None:
    delivered = _delivered(traced)
    for job in _committed(traced):
        trashed = _trashed(traced, job)
        commit = _commit_of(traced, job)
        receipt = traced.assert_synced(
            job / "receipts-archive", after=commit.ended, before=trashed.began
        )
        mine = [d for d in delivered if commit.ended < d[2].began < receipt.began]
        assert mine
        for aside, target, call in mine:
            traced.assert_synced(aside, before=call.began)
            traced.assert_synced(target.parent, after=call.ended, before=trashed.began)
        ledger = [
            call
            for path, calls in traced.syncs.items()
            if Path(path).name.startswith("ledger.sqlite")
            for call in calls
        ]
        assert any(receipt.ended < c.began and c.ended < trashed.began for c in ledger)


def test_a_finished_job_is_deleted_after_its_move_to_the_trash_is_synced(traced: Traced) -> None:
    for job in _committed(traced):
        trashed = _trashed(traced, job)
        trash = trashed.paths[1]
        deletions = [
            call
            for call in traced.calls
            if call.name in ("unlink", "unlinkat")
            and (str(trash) in call.descriptor or str(trash) in str(call.paths[0]))
        ]
        assert deletions

        traced.assert_synced(traced.jobs, after=trashed.ended, before=deletions[0].began)


def _committed(traced: Traced) -> list[Path]:
    return [target.parent for _, target, _ in traced.renames() if target.name == "job.json"]


def _commit_of(traced: Traced, job: Path) -> Call:
    return next(call for _, target, call in traced.renames() if target == job / "job.json")


def _trashed(traced: Traced, job: Path) -> Call:
    return next(
        call
        for source, target, call in traced.renames()
        if source == job and "trash" in target.parts
    )


def _delivered(traced: Traced) -> list[tuple[Path, Path, Call]]:
    """Names that the archive was given: from, to, the call."""
    return [
        (call.paths[0], call.paths[1], call)
        for call in traced.of("rename", "renameat", "renameat2", "link", "linkat")
        if call.paths[1].is_relative_to(traced.archive) and call.paths[1].suffix == ".dcm"
    ]
