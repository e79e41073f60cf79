"""Real senders: DCMTK and pynetdicom."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless
from pynetdicom import AE, _config

from tests.accept.raw_peer import VERIFICATION
from tests.accept.stores import MemoryStore, serving
from tests.material import ct_series, write_all

type FindProgram = Callable[[str], str]


def dataset_bytes(path: Path) -> bytes:
    """What follows the file meta information (PS3.10 7.1)."""
    content = path.read_bytes()
    group_length = int.from_bytes(content[140:144], "little")
    return content[144 + group_length :]


def as_implicit(path: Path) -> Path:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """One file each in Explicit, Implicit VR Little Endian and JPEG-LS, by UID."""
    explicit, implicit = write_all(ct_series(2, 32, 32), tmp_path)
    jpeg_ls = get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False)
    assert isinstance(jpeg_ls, str)
    return {
        ExplicitVRLittleEndian: explicit,
        ImplicitVRLittleEndian: as_implicit(implicit),
        JPEGLSLossless: Path(jpeg_ls),
    }


def test_echoscu_is_answered(dcmtk: FindProgram) -> None:
    with serving() as node:
        subprocess.run([dcmtk("echoscu"), *map(str, node.address)], check=True, timeout=30)


def test_storescu_sends_a_series(dcmtk: FindProgram, tmp_path: Path) -> None:
    sent = write_all(ct_series(12, 256, 256), tmp_path)

    with serving() as node:
        subprocess.run(
            [dcmtk("storescu"), "--max-send-pdu", "131072", *map(str, node.address), *sent],
            check=True,
            timeout=60,
            env={**os.environ, "TCP_NODELAY": "1"},
        )

    assert sorted(bytes(kept.data) for kept in node.store.kept) == sorted(map(dataset_bytes, sent))


@pytest.mark.parametrize(
    ("syntax", "option"),
    [
        (ExplicitVRLittleEndian, "-x="),
        (ImplicitVRLittleEndian, "-xi"),
        (JPEGLSLossless, "-xt"),
    ],
)
def test_storescu_sends_in_each_syntax(
    dcmtk: FindProgram, files: dict[str, Path], syntax: str, option: str
) -> None:
    with serving() as node:
        subprocess.run(
            [dcmtk("storescu"), option, *map(str, node.address), files[syntax]],
            check=True,
            timeout=60,
        )

    assert node.store.kept[0].request.transfer_syntax == syntax
    identity = pydicom.dcmread(files[syntax], stop_before_pixels=True)
    assert node.store.kept[0].request.sop_instance_uid == identity.SOPInstanceUID
    assert node.store.kept[0].request.sop_class_uid == identity.SOPClassUID


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless])
def test_the_dataset_is_kept_byte_for_byte(
    files: dict[str, Path], syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)  # the file's bytes as they are
    sop_class = pydicom.dcmread(files[syntax], stop_before_pixels=True).SOPClassUID
    sender = AE()
    sender.add_requested_context(sop_class, syntax)

    with serving() as node:
        association = sender.associate(*node.address)
        status = association.send_c_store(files[syntax])
        association.release()

    assert status.Status == 0
    assert bytes(node.store.kept[0].data) == dataset_bytes(files[syntax])


def test_pynetdicom_echoes_and_stores_and_aborts() -> None:
    sender = AE()
    sender.add_requested_context(VERIFICATION)
    sender.add_requested_context("1.2.840.10008.5.1.4.1.1.2", ExplicitVRLittleEndian)

    with serving() as node:
        association = sender.associate(*node.address)
        assert association.is_established
        statuses = [association.send_c_echo().Status]
        statuses += [association.send_c_store(dataset).Status for dataset in ct_series(3, 16, 16)]
        association.abort()

    assert statuses == [0, 0, 0, 0]
    assert len(node.store.kept) == 3


def test_pynetdicom_understands_a_refusal() -> None:
    store = MemoryStore(commit_error=RuntimeError("a bug"))
    sender = AE()
    sender.add_requested_context("1.2.840.10008.5.1.4.1.1.2", ExplicitVRLittleEndian)

    with serving(store) as node:
        association = sender.associate(*node.address)
        statuses = [association.send_c_store(dataset).Status for dataset in ct_series(2, 16, 16)]
        association.release()

    assert statuses == [0xC211, 0xC211]


def test_storescu_is_told_that_it_is_not_admitted(dcmtk: FindProgram, tmp_path: Path) -> None:
    with serving(MemoryStore(room=False)) as node:
        sent = write_all(ct_series(1, 16, 16), tmp_path)
        run = subprocess.run(
            [dcmtk("storescu"), *map(str, node.address), *sent],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert run.returncode != 0
    assert "Temporary Congestion" in run.stderr
