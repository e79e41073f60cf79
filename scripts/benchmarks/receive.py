"""Receiving alone, one association: DCMTK's storescp, which does not sync, and the fsyncs beside us."""

import shutil
import statistics
from pathlib import Path

from scripts.benchmarks import peers
from scripts.benchmarks.measure import cpu_seconds, fsync_floor, settle

COUNT, ROUNDS = 400, 5
_NOTHING_ELSE = [{"name": "wait", "match": {"instances": {"ge": 1}}, "send_to": ["archive"]}]
"""A rule that cannot be decided while the series is open: nothing is converted meanwhile."""


def run(folder: Path) -> None:
    """Alternate, and compare the medians."""
    files = peers.ct_files(folder / "ct", COUNT)
    floors, theirs, ours = [], [], []
    their_cpu, our_cpu = [], []
    total = sum(file.stat().st_size for file in files)
    for number in range(ROUNDS):
        floors.append(fsync_floor(folder / f"floor-{number}", files))
        there = folder / f"storescp-{number}"
        with peers.storescp(there) as (port, process):
            settle(folder, 2 * total)
            before = cpu_seconds(process)
            theirs.append(peers.storescu(port, folder / "ct"))
            their_cpu.append(cpu_seconds(process) - before)
        shutil.rmtree(there)
        here = folder / f"node-{number}"
        with peers.node(here, rules=_NOTHING_ELSE, series={"quiet_seconds": 600}) as node:
            port, process, _ = node
            settle(folder, 2 * total)
            before = cpu_seconds(process)
            ours.append(peers.storescu(port, folder / "ct"))
            our_cpu.append(cpu_seconds(process) - before)
        shutil.rmtree(here)
    median = statistics.median
    floor, their, our = median(floors), median(theirs), median(ours)
    print(f"{COUNT} CT, one association, median of {ROUNDS}:")
    print(f"  DCMTK storescp  {their:.3f} s, CPU {median(their_cpu):.2f} s (it does not sync)")
    print(f"  fsync floor     {floor:.3f} s")
    print(f"  dcmpress        {our:.3f} s, CPU {median(our_cpu):.2f} s")
    print(f"  ratio           {our / (their + floor):.2f} (must be <= 1.3)")
