"""Memory of all processes together while a long series passes through."""

from pathlib import Path

from scripts.benchmarks import peers
from scripts.benchmarks.measure import PeakMemory, pss_bytes

COUNT = 2000


def run(folder: Path) -> None:
    """The peak of the sum of PSS."""
    peers.ct_files(folder / "ct", COUNT)
    here = folder / "node"
    with peers.node(here) as (port, process, _):
        idle = pss_bytes(process)
        memory = PeakMemory(process)
        seconds = peers.storescu(port, folder / "ct")
        peers.wait_until_delivered(here, COUNT)
        peak = memory.stop()
    print(f"{COUNT} CT (sent in {seconds:.1f} s): sum of PSS over the process tree")
    print(f"  idle {idle / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB (must be <= 700)")
