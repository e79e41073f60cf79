"""What the ledger says of an instance beside its UIDs: the modality, and never who the patient is."""

import logging
from pathlib import Path

import pytest

from scp.durable import Disk
from scp.ledger.patients import PatientHash
from scp.pipeline.labels import Labels
from tests.material import ct_series, write


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    PatientHash.open_or_make(path, Disk())
    return path


def test_modality_and_a_hash_of_the_patient_id_are_read(key: Path, tmp_path: Path) -> None:
    (dataset,) = ct_series(1, 16, 16)
    dataset.PatientID = "123456 "

    modality, patient = Labels(key).of(write(dataset, tmp_path))

    assert modality == "CT"
    assert patient == PatientHash.open(key).of("123456")


@pytest.mark.parametrize("modality", ["", "ct", "Doe^Jane", "A" * 17])
def test_what_is_no_code_is_no_modality(key: Path, tmp_path: Path, modality: str) -> None:
    (dataset,) = ct_series(1, 16, 16)
    dataset.PatientID = ""
    dataset.add_new(0x00080060, "LO", modality)

    assert Labels(key).of(write(dataset, tmp_path)) == ("", "")


def test_a_file_that_is_no_dicom_or_gone_has_no_labels(key: Path, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise" * 100)

    assert Labels(key).of(tmp_path / "noise") == ("", "")
    assert Labels(key).of(tmp_path / "nothing") == ("", "")


def test_without_a_key_all_but_the_patient_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (dataset,) = ct_series(1, 16, 16)

    assert Labels(tmp_path / "none").of(write(dataset, tmp_path)) == ("CT", "")
    assert not caplog.records
