"""Every file of the corpus of real images through one node, and what became of each, in one table."""

import hashlib
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom.presentation import NonPatientObjectPresentationContexts

from scp.deliver.send import send_files
from scp.ledger.ports import LedgerRow, State
from scp.ledger.sql import SqlLedger
from scp.model import PassReason
from tests.e2e.judges import (
    COUPLED,
    assert_converted,
    dataset_bytes,
    differing_elements,
    patient_values,
    pixels,
    quiet_pydicom,
)
from tests.e2e.node import RunningNode, no_decoding
from tests.material import ct_series, write_all

pytestmark = [
    pytest.mark.xdist_group("e2e corpus"),
    pytest.mark.timeout(300),
]

JUDGED_BY_DCIODVFY = 40
NON_PATIENT_OBJECTS = {each.abstract_syntax for each in NonPatientObjectPresentationContexts}


@dataclass(frozen=True)
class Sent:
    """One file, the node's answer, and, where it took it, its row and its delivered file."""

    path: Path
    answer: str
    row: LedgerRow | None
    delivered: Path | None
    is_repeat: bool = False
    """An equal dataset, in another VR encoding, had come before: its file stands for both."""

    @property
    def outcome(self) -> str:
        if self.row is None:
            return self.answer
        return "repeat" if self.is_repeat else self.row.reason or "converted"


@dataclass(frozen=True)
class Passage:
    """All of it, once the node was done."""

    node: RunningNode
    sent: list[Sent]

    def ending_as(self, is_so: Callable[[Sent], bool]) -> list[Sent]:
        return [each for each in self.sent if each.row is not None and is_so(each)]


@pytest.fixture(scope="module")
def passage(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Passage]:
    folder = tmp_path_factory.mktemp("corpus")
    node = RunningNode(folder / "node", {"codec": {"workers": 2}})
    node.log_level = "DEBUG"
    node.start()
    paths = sorted(path for path in corpus.rglob("*") if path.is_file())
    answers = {
        Path(receipt.instance): receipt.status or receipt.detail
        for receipt in send_files(paths, node.peer(), no_decoding)
    }
    node.settle()
    yield Passage(node, list(_sent(node, answers)))
    node.close()


def _sent(node: RunningNode, answers: dict[Path, str]) -> Iterator[Sent]:
    ledger = SqlLedger.open_for_reading(node.data / "ledger.sqlite")
    rows = ledger.recent(10_000)
    ledger.close()
    by_dataset = {row.dataset_sha256: row for row in rows if row.state is State.DELIVERED}
    by_content = {row.normal_sha256: row for row in rows if row.state is State.DELIVERED}
    repeats = {row.dataset_sha256: row for row in rows if row.state is State.REPEAT}
    files = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in node.archived()}
    for path, answer in answers.items():
        if answer != "0000":
            yield Sent(path, answer, None, None)
            continue
        digest = hashlib.sha256(dataset_bytes(path)).hexdigest()
        own = by_dataset.get(digest)
        row = own or by_content[repeats[digest].normal_sha256]
        yield Sent(path, answer, row, files[row.result_sha256], is_repeat=own is None)


def test_every_file_is_taken_or_refused_by_name(passage: Passage) -> None:
    refused = [each for each in passage.sent if each.row is None]

    assert len(passage.sent) > 500
    for each in refused:
        answer = each.answer.split(":")[0]
        # No file by PS3.10, so that there is nothing to send; a DICOMDIR belongs to its medium.
        assert answer == "not_dicom" or answer == fault_of(each.path), each
    assert len(passage.sent) - len(refused) > 500


def fault_of(path: Path) -> str:
    """What a node must answer to this file, judged by pydicom."""
    with quiet_pydicom():
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        is_explicit = not dataset.file_meta.TransferSyntaxUID.is_implicit_VR
        if is_explicit and not dataset_bytes(path)[4:6].isalpha():
            return "C000"  # It is Implicit VR, whatever it says.
        uids = [dataset.get(f"{level}InstanceUID") or "" for level in ("SOP", "Study", "Series")]
        if dataset.file_meta.MediaStorageSOPClassUID in NON_PATIENT_OBJECTS:
            return "sop_class_refused"
    if not all(uids):
        return "C000"
    return "0117" if re.search(r"[^0-9.]", uids[0]) else "taken"


def test_what_was_converted_has_equal_pixels_and_an_equal_header(passage: Passage) -> None:
    converted = passage.ending_as(lambda each: each.outcome == "converted")

    for each in converted:
        assert each.delivered is not None
        assert_converted(each.path, each.delivered, syntax=None)

    assert len(converted) > 300


def test_what_was_not_converted_is_delivered_byte_for_byte_with_a_reason(passage: Passage) -> None:
    passed = passage.ending_as(lambda each: each.outcome not in ("converted", "repeat"))

    for each in passed:
        assert each.delivered is not None
        assert PassReason(each.outcome)
        assert dataset_bytes(each.delivered) == dataset_bytes(each.path), each.path
    assert {each.outcome for each in passed}.isdisjoint(
        {PassReason.VERIFY_MISMATCH, PassReason.WORKER_LOST, PassReason.DEADLINE}
    )
    assert passed


def test_what_was_a_repeat_is_equal_to_what_was_delivered(passage: Passage) -> None:
    for each in passage.ending_as(lambda each: each.is_repeat):
        assert each.delivered is not None
        with quiet_pydicom():
            before, after = pydicom.dcmread(each.path), pydicom.dcmread(each.delivered)
            assert differing_elements(before, after) <= COUPLED
            np.testing.assert_array_equal(pixels(after), pixels(before))


def test_the_accounts_agree_with_the_archive(passage: Passage) -> None:
    status = passage.node.status()

    # Some of different syntax become equal files: a folder has each once.
    results = {each.row.result_sha256 for each in passage.sent if each.row is not None}
    assert len(passage.node.archived()) == len(results)
    assert status["delivered"] == status["received"]
    assert status["converted"] + status["passed_through"] == status["delivered"]
    assert status["workers"]["replaced"] == 0


def test_dciodvfy_finds_no_error_that_the_input_did_not_have(
    passage: Passage, environment_program: Callable[[str], str], tmp_path: Path
) -> None:
    program = environment_program("dciodvfy")
    converted = passage.ending_as(lambda each: each.outcome == "converted")
    # As many kinds as there are, then as many of each as fit.
    kinds: dict[tuple[str, str], list[Sent]] = {}
    for each in converted:
        assert each.row is not None
        kind = (each.row.identity.sop_class_uid, each.row.source_transfer_syntax)
        kinds.setdefault(kind, []).append(each)
    most = max(1, JUDGED_BY_DCIODVFY // len(kinds))
    sample = [each for group in kinds.values() for each in group[:most]]

    for each in sample:
        assert each.delivered is not None
        source = readable(each.path, tmp_path)
        new = _errors(program, each.delivered) - _errors(program, source)
        assert not new, f"{each.path}: {new}"
    assert len(sample) >= min(len(kinds), JUDGED_BY_DCIODVFY)


def readable(path: Path, folder: Path) -> Path:
    """The file, inflated where it is deflated, which dciodvfy does not read."""
    with quiet_pydicom():
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
            return path
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(folder / path.name)
    return folder / path.name


def _errors(program: str, path: Path) -> set[str]:
    done = subprocess.run([program, str(path)], capture_output=True, check=False, timeout=60)
    lines = (done.stdout + done.stderr).decode("latin-1").splitlines()
    return {line for line in lines if line.startswith("Error")}


def test_the_log_names_no_patient(passage: Passage, tmp_path: Path) -> None:
    # What would be found is found: the values of an instance that is not in the corpus.
    (other,) = write_all(ct_series(1, 16, 16), tmp_path)
    assert any(_is_in(value, f"before {value}, after") for value in patient_values(other))
    log = passage.node.log()
    values = {value for each in passage.sent for value in patient_values(each.path)}

    found = {value for value in values if _is_in(value, log)}

    assert len(values) > 50
    assert not found


def _is_in(value: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) is not None


def test_the_table_is_written(passage: Passage, tmp_path: Path) -> None:
    groups: Counter[tuple[str, str, str]] = Counter()
    for each in passage.sent:
        with quiet_pydicom():
            dataset = pydicom.dcmread(each.path, stop_before_pixels=True, force=True)
        syntax = str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", ""))
        modality = str(dataset.get("Modality") or "-")
        groups[modality, UID(syntax).name if syntax else "-", each.outcome.split(":")[0]] += 1
    named = os.environ.get("DCMPRESS_CORPUS_TABLE")
    target = Path(named) if named else tmp_path / "corpus.md"

    lines = [
        "| modality | transfer syntax as received | outcome | files |",
        "|---|---|---|---|",
        *(f"| {' | '.join(group)} | {count} |" for group, count in sorted(groups.items())),
    ]
    target.write_text("\n".join(lines) + "\n")

    assert sum(groups.values()) == len(passage.sent)
    assert len(target.read_text().splitlines()) == len(groups) + 2
