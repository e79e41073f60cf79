"""dcmpress doctor where something is broken: it says so, and goes on."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from scp.buffer.layout import Layout
from scp.cli import doctor
from scp.convert.gpu_versions import LEAST
from scp.durable import Disk
from scp.ledger.sql import SqlLedger
from scp.pipeline.control import ControlServer
from tests.cli.conftest import Dcmpress
from tests.convert.gpus import FaultyGpu, SoftwareGpu, wrong
from tests.e2e.peers import free_port

CONFIG = """\
node: {port: %d, bind: 127.0.0.1, data: %s}
limits: {reserve: %s}
codec: {backend: %s}
destinations: {archive: {kind: folder, path: %s}}
default: {send_to: [archive]}
"""


def write_config(folder: Path, *, reserve: str = "1MB", backend: str = "auto") -> Path:
    config = folder / "dcmpress.yaml"
    config.write_text(CONFIG % (free_port(), folder / "data", reserve, backend, folder / "archive"))
    return config


def findings(said: str) -> dict[str, dict[str, Any]]:
    return {finding["part"]: finding for finding in json.loads(said[: said.rindex("]") + 1])}


class Driver:
    """NVIDIA's driver, as a program loads it."""

    def __init__(self, gpus: int = 1, status: int = 0) -> None:
        self.gpus = gpus
        self.status = status

    def __call__(self, name: str) -> "Driver":
        assert name == "libcuda.so.1"
        return self

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12080
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.gpus
        return 0


def no_driver(name: str) -> Driver:
    raise OSError(f"{name}: cannot open shared object file: No such file or directory")


def nvimagecodec(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    """An nvImageCodec that reaches a GPU, or fails to."""

    class Image:
        def cuda(self) -> None:
            if error is not None:
                raise error

    def as_image(array: np.ndarray[Any, Any]) -> Image:
        return Image()

    package, module = ModuleType("nvidia"), ModuleType("nvidia.nvimgcodec")
    vars(module).update(as_image=as_image, __version__="0.9.0")
    vars(package).update(nvimgcodec=module, __path__=[])
    monkeypatch.setitem(sys.modules, "nvidia", package)
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", module)


def test_a_codec_that_cannot_be_imported_is_a_finding(
    dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "scp.convert.codec_cpu", raising=False)
    monkeypatch.setitem(sys.modules, "ojph.ojph_bindings", None)

    said = dcmpress("doctor", "-c", write_config(tmp_path), "--json", code=1)

    found = findings(said)
    assert found["codecs"]["works"] is False
    assert found["codecs"]["detail"].startswith("ModuleNotFoundError: ")
    assert found["destination archive"]["works"] is True
    assert said.endswith("dcmpress: does not work: codecs\n")


def test_any_exception_of_one_check_is_a_finding_and_the_others_are_made(
    dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: Path) -> str:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(doctor, "_try_clock", broken)

    said = dcmpress("doctor", "-c", write_config(tmp_path), "--json", code=1)

    found = findings(said)
    assert found["clock"]["detail"] == "ZeroDivisionError: no such luck"
    assert [part for part in found if found[part]["works"] is False] == ["clock"]


def test_a_library_that_is_not_installed_is_a_finding(
    dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_LIBRARIES", ("pydicom", "no-such-library"))

    said = dcmpress("doctor", "-c", write_config(tmp_path), "--json", code=1)

    assert findings(said)["libraries"] == {
        "part": "libraries",
        "works": False,
        "detail": "no-such-library missing: install dcmpress anew by scripts/install",
    }


def test_what_is_known_of_the_ledger_is_said(dcmpress: Dcmpress, tmp_path: Path) -> None:
    config, path = write_config(tmp_path), tmp_path / "data" / "ledger.sqlite"

    fresh = findings(dcmpress("doctor", "--json", "-c", config))["ledger"]
    path.touch()  # As a database without tables is.
    bare = findings(dcmpress("doctor", "--json", "-c", config))["ledger"]
    SqlLedger.open_for_writing(path, Disk()).close()
    empty = findings(dcmpress("doctor", "--json", "-c", config))["ledger"]
    path.write_bytes(b"no database" * 1000)
    damaged = findings(dcmpress("doctor", "--json", "-c", config, code=1))["ledger"]

    works = [each["works"] for each in (fresh, bare, empty, damaged)]
    assert works == [True, True, True, False]
    assert bare["detail"] == f"{path} is empty: no node has finished its first start on it"
    assert fresh["detail"] == f"{path} is made when the node is started for the first time"
    assert empty["detail"] == "answers; last recorded: nothing"
    assert "is damaged" in damaged["detail"]


def test_a_database_server_that_is_away_does_not_work(dcmpress: Dcmpress, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    url = f"postgresql://dcmpress@127.0.0.1:{free_port()}/dcmpress"
    config.write_text(f"{config.read_text()}ledger: {{url: {url!r}}}\n")

    said = dcmpress("doctor", "--json", "-c", config, code=1)

    assert findings(said)["ledger"]["works"] is False
    assert "Connection refused" in findings(said)["ledger"]["detail"]


def test_too_little_room_does_not_work(dcmpress: Dcmpress, tmp_path: Path) -> None:
    said = dcmpress("doctor", "-c", write_config(tmp_path, reserve="9000TB"), "--json", code=1)

    assert findings(said)["room"]["works"] is False


def test_too_few_open_files_do_not_work(
    dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    enough = findings(dcmpress("doctor", "-c", config, "--json"))["open files"]
    monkeypatch.setattr("resource.getrlimit", lambda _: (300, 300))

    too_few = findings(dcmpress("doctor", "-c", config, "--json", code=1))["open files"]

    assert (enough["works"], too_few["works"]) == (True, False)
    assert "this system allows 300" in str(too_few["detail"])


def gpu_of(dcmpress: Dcmpress, tmp_path: Path) -> str:
    """What is said of the GPU, which is a fault only where the configuration wants it."""
    found = findings(dcmpress("doctor", "-c", write_config(tmp_path), "--json"))["GPU"]
    config = write_config(tmp_path, backend="gpu")
    wanted = findings(dcmpress("doctor", "-c", config, "--json", code=1))["GPU"]

    assert (found["works"], wanted["works"]) == (None, False)
    detail = str(found["detail"])
    assert wanted["detail"] == f"{detail}; set codec: backend: to auto or cpu"
    assert "GPU" in findings(
        dcmpress("doctor", "-c", write_config(tmp_path, backend="cpu"), "--json")
    )
    return detail


@pytest.mark.parametrize(
    ("driver", "detail"),
    [
        (
            no_driver,
            "there is no NVIDIA driver (libcuda.so.1): where the machine has a GPU, install it, "
            "or start the container with --gpus all; the CPU converts",
        ),
        (
            Driver(status=100),
            "the NVIDIA driver finds no GPU (CUDA error 100): nvidia-smi says why, "
            "and a container needs --gpus all; the CPU converts",
        ),
        (
            Driver(gpus=0),
            "the NVIDIA driver finds no GPU (CUDA error 0): nvidia-smi says why, "
            "and a container needs --gpus all; the CPU converts",
        ),
        (ModuleType("no driver at all"), "TypeError: 'module' object is not callable; the CPU"),
    ],
    ids=["no driver", "no device", "none of its devices", "a defect"],
)
def test_a_gpu_that_no_driver_reaches_is_said_with_what_to_do(
    dcmpress: Dcmpress,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: object,
    detail: str,
) -> None:
    monkeypatch.setattr("ctypes.CDLL", driver)

    assert gpu_of(dcmpress, tmp_path).startswith(detail)


def test_a_driver_without_nvimagecodec_is_said_with_what_to_do(
    dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", Driver())
    monkeypatch.setitem(sys.modules, "nvidia", None)

    detail = gpu_of(dcmpress, tmp_path)

    assert detail.startswith("1 GPU with a driver for CUDA 12.8, but nvImageCodec cannot be")
    assert detail.endswith(": scripts/install --gpu FOLDER installs it; the CPU converts")


def test_an_nvimagecodec_that_fails_is_said_with_what_to_do(
    dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", Driver())
    nvimagecodec(monkeypatch, RuntimeError("#35"))

    assert gpu_of(dcmpress, tmp_path) == (
        "1 GPU with a driver for CUDA 12.8, but nvImageCodec 0.9.0 cannot use it (#35): "
        "it needs a driver for CUDA 12 or newer and free memory on the GPU; the CPU converts"
    )


@pytest.fixture
def software(monkeypatch: pytest.MonkeyPatch) -> dict[int, SoftwareGpu]:
    """Two GPUs that nvImageCodec reaches."""
    devices = {0: SoftwareGpu(), 1: SoftwareGpu()}
    monkeypatch.setattr("ctypes.CDLL", Driver(gpus=2))
    nvimagecodec(monkeypatch, None)
    monkeypatch.setattr("scp.convert.gpu.installed_versions", lambda: {n: "1.2.3" for n in LEAST})
    monkeypatch.setattr("scp.convert.gpu.open_gpu", devices.__getitem__)
    return devices


@pytest.mark.parametrize(
    ("backend", "does"),
    [
        ("auto", "it proves the largest frames, and encodes large ones where it is free"),
        ("gpu", "it encodes large frames, the CPU proves"),
    ],
)
def test_every_gpu_is_tried_and_what_it_does_is_said(
    dcmpress: Dcmpress,
    tmp_path: Path,
    software: dict[int, SoftwareGpu],
    backend: str,
    does: str,
) -> None:
    config = write_config(tmp_path, backend=backend)

    found = findings(dcmpress("doctor", "-c", config, "--json"))["GPU"]

    assert found["works"] is True
    assert found["detail"] == (
        "2 GPUs with a driver for CUDA 12.8; nvJPEG2000 1.2.3 (nvImageCodec 1.2.3) decodes right on "
        f"each; {does}"
    )
    assert all(gpu.batches == [1] and gpu.is_closed for gpu in software.values())


def test_one_gpu_that_decodes_wrongly_is_said(
    dcmpress: Dcmpress, tmp_path: Path, software: dict[int, SoftwareGpu]
) -> None:
    software[1] = FaultyGpu(wrong, wrong)

    detail = gpu_of(dcmpress, tmp_path)

    assert "but GPU 1 does not decode (it decodes a frame to something else" in detail


def test_the_gpus_of_a_running_node_are_said(dcmpress: Dcmpress, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    layout = Layout(tmp_path / "data")
    layout.make(Disk())
    gpu = {
        "number": 1, "device": "NVIDIA H100", "state": "out of use", "frames": 12, "refused": 1,
        "failures": 2, "deaths": 1, "sent_away": 3, "last_error": "CUDA 2", "retry_seconds": 29.6,
    }  # fmt: skip
    port = int(config.read_text().partition("port: ")[2].partition(",")[0])
    node = ControlServer(
        layout.control,
        lambda request: {"port": port, "gpus": [gpu, {**gpu, "number": 0, "state": "in use"}]},
    )

    said = dcmpress("doctor", "-c", config, "--json", code=1)
    node.stop()

    found = findings(said)
    assert found["GPU 0 of the node"]["works"] is True
    assert found["GPU 1 of the node"] == {
        "part": "GPU 1 of the node",
        "works": False,
        "detail": "NVIDIA H100: out of use, tried again in 30 s, 12 frames; last error: CUDA 2",
    }
