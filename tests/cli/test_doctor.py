"""dcmpress doctor where something is broken: it says so, and goes on."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from scp.cli import doctor
from tests.cli.conftest import Dcmpress
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


def nvidia(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
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


def test_too_little_room_does_not_work(dcmpress: Dcmpress, tmp_path: Path) -> None:
    said = dcmpress("doctor", "-c", write_config(tmp_path, reserve="9000TB"), "--json", code=1)

    assert findings(said)["room"]["works"] is False


def test_without_nvimagecodec_the_gpu_is_no_fault(
    dcmpress: Dcmpress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nvidia", None)

    gpu = findings(dcmpress("doctor", "-c", write_config(tmp_path), "--json"))["GPU"]

    assert gpu["works"] is None
    assert "is not there" in gpu["detail"]


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (None, "nvImageCodec 0.9.0 copied an image to a GPU; this version converts on the CPU"),
        (RuntimeError("#35"), "nvImageCodec reaches no GPU: RuntimeError: #35; the CPU converts"),
    ],
)
def test_the_gpu_is_tried_through_nvimagecodec(
    dcmpress: Dcmpress,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    detail: str,
) -> None:
    nvidia(monkeypatch, error)

    wanted = dcmpress("doctor", "-c", write_config(tmp_path, backend="gpu"), "--json", code=1)
    gpu = findings(dcmpress("doctor", "-c", write_config(tmp_path), "--json"))["GPU"]

    assert (gpu["works"], gpu["detail"]) == (None, detail)
    assert findings(wanted)["GPU"]["works"] is False
