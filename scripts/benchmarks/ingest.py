"""The main job: from the sender's first byte to the last verified HTJ2K file in the folder."""

import statistics
import time
from pathlib import Path

from scripts.benchmarks import peers
from scripts.benchmarks.measure import cpu_seconds, empty, settle

COUNT, ROUNDS, QUIET_SECONDS = 400, 3, 1.0
_JPEG_LS = "1.2.840.10008.1.2.4.80"


def run(folder: Path) -> None:
    """Orthanc with IngestTranscoding to JPEG-LS, which verifies nothing, and us, in turns."""
    total = sum(file.stat().st_size for file in peers.ct_files(folder / "ct", COUNT))
    peers.ct_files(folder / "warm", 4, seed=1)
    theirs, ours, tails, enhanced_tails = [], [], [], []
    their_cpu, our_cpu = [], []
    for number in range(ROUNDS):
        there = folder / f"orthanc-{number}"
        with peers.orthanc(there, _JPEG_LS) as (port, process):
            peers.storescu(port, folder / "warm")
            settle(2 * total)
            before = cpu_seconds(process)
            theirs.append(peers.storescu(port, folder / "ct"))
            their_cpu.append(cpu_seconds(process) - before)
        empty(there)
        here = folder / f"node-{number}"
        with peers.node(here) as (port, process, archive):
            peers.storescu(port, folder / "warm")
            peers.wait_until_delivered(here, 4)
            settle(2 * total)
            before = cpu_seconds(process)
            started = time.perf_counter()
            sent = started + peers.storescu(port, folder / "ct")
            end = peers.wait_for_files(archive, 4 + COUNT)
            ours.append(end - started - QUIET_SECONDS)
            tails.append(end - sent - QUIET_SECONDS)
            our_cpu.append(cpu_seconds(process) - before)
        empty(here)
        enhanced_tails.append(_enhanced_tail(folder, number, total))
    median = statistics.median
    their, our = median(theirs), median(ours)
    print(f"{COUNT} CT, sender on the same cores, median of {ROUNDS}:")
    print(f"  Orthanc, JPEG-LS, not verified  {their:.2f} s, CPU {median(their_cpu):.2f} s")
    print(f"  dcmpress, HTJ2K, verified       {our:.2f} s, CPU {median(our_cpu):.2f} s")
    print(f"  last acknowledgement to last file, less the quiet second: {median(tails):.2f} s")
    print(f"  the same to one Legacy Converted Enhanced CT: {median(enhanced_tails):.2f} s")
    print(f"  Orthanc / dcmpress              {their / our:.2f} (must be >= 2)")


def _enhanced_tail(folder: Path, number: int, total: int) -> float:
    """Seconds from the last acknowledgement to the collapsed object, less the quiet second."""
    here = folder / f"enhanced-{number}"
    rule = {"name": "volumes", "match": {}, "convert": "enhanced", "send_to": ["archive"]}
    with peers.node(here, rules=[rule]) as (port, _, archive):
        peers.storescu(port, folder / "warm")
        peers.wait_until_delivered(here, 4)
        settle(2 * total)
        sent = time.perf_counter() + peers.storescu(port, folder / "ct")
        tail = peers.wait_for_files(archive, 2) - sent - QUIET_SECONDS
    empty(here)
    return tail
