"""A real node whose GPUs fail in the middle of a series: all of it is delivered and proved."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tests.e2e.conftest import StartNode
from tests.e2e.node import until
from tests.material import ct_series, write
from tests.pipeline.software_gpus import SoftwareGpus

SLICES = 8


@pytest.mark.parametrize("fault", ["error", "none", "hang", "wrong", "death", "stop"])
def test_a_gpu_that_fails_in_the_middle_of_a_series_costs_no_frame(
    node: StartNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    software = SoftwareGpus(tmp_path / "software", monkeypatch, count=2)
    # Large enough for a GPU to prove.
    datasets = list(ct_series(SLICES, 2048, 1024))
    (tmp_path / "sent").mkdir()
    files = [write(dataset, tmp_path / "sent") for dataset in datasets]
    running = node({"codec": {"workers": 2}})

    def are_in_use() -> bool:
        return [gpu["state"] for gpu in running.status()["gpus"]] == ["in use"] * 2

    until(are_in_use, lambda: f"{running.status()['gpus']}\n{running.log()}")
    running.send(files[: SLICES // 2])
    for device in (0, 1):
        software.fault(device, fault)
    running.send(files[SLICES // 2 :])
    running.wait_for(delivered=SLICES, converted=SLICES, passed_through=0)

    for dataset in datasets:
        delivered = dcmread(running.delivered(dataset))
        assert np.array_equal(delivered.pixel_array, dataset.pixel_array)
    assert any(software.has_happened(device) for device in (0, 1))
    until(are_in_use, lambda: f"{running.status()['gpus']}\n{running.log()}")
    gpus = running.json("status")["gpus"]
    # The first frame of each process is its own.
    assert sum(gpu["frames"] for gpu in gpus) > len(gpus)
    troubles = ("refused", "failures", "hangs", "deaths")
    assert sum(gpu[trouble] for gpu in gpus for trouble in troubles) > 0
    assert "Software 1" in running.command("status")
