"""Sending alone, one association, beside DCMTK's storescu."""

import shutil
import statistics
import time
from pathlib import Path

from scp.config.schema import DicomDestination
from scp.deliver.send import send_files
from scp.errors import ConversionError
from scp.model import DeliveryItem
from scripts.benchmarks import peers
from scripts.benchmarks.measure import settle

COUNT, ROUNDS = 400, 5


def run(folder: Path) -> None:
    """Both to a storescp that writes; ours without the start of the interpreter."""
    files = peers.ct_files(folder / "ct", COUNT)
    theirs, ours, cpu = [], [], []
    total = sum(file.stat().st_size for file in files)
    there = folder / "received"
    for _ in range(ROUNDS):
        with peers.storescp(there) as (port, _):
            settle(2 * total)
            theirs.append(peers.storescu(port, folder / "ct"))
        shutil.rmtree(there)
        with peers.storescp(there) as (port, _):
            section = DicomDestination(
                kind="dicom", host="127.0.0.1", port=port, ae_title="STORESCP"
            )
            settle(2 * total)
            started, before = time.perf_counter(), time.process_time()
            assert all(receipt.verdict.is_done for receipt in send_files(files, section, _refuse))
            ours.append(time.perf_counter() - started)
            cpu.append(time.process_time() - before)
        shutil.rmtree(there)
    their, our = statistics.median(theirs), statistics.median(ours)
    print(f"{COUNT} CT to DCMTK storescp, median of {ROUNDS}:")
    print(f"  DCMTK storescu  {their:.3f} s")
    print(f"  dcmpress        {our:.3f} s, CPU {statistics.median(cpu):.2f} s")
    print(f"  ratio           {our / their:.2f} (must be <= 1.3)")


def _refuse(item: DeliveryItem, transfer_syntax: str) -> Path:
    raise ConversionError("the peer takes everything as it is")
