"""Memory of all processes together while a long series passes through."""

import shutil
from pathlib import Path

from scripts.benchmarks import peers
from scripts.benchmarks.measure import PeakMemory, pss_bytes

COUNT = 2000


def run(folder: Path) -> None:
    """The peak of the sum of PSS."""
    peers.ct_files(folder / "ct", COUNT)
    print(f"{COUNT} CT: sum of PSS over the process tree")
    for convert, most in (("htj2k", 700), ("enhanced", 600)):
        here = folder / convert
        rule = {"name": "all", "match": {}, "convert": convert, "send_to": ["archive"]}
        with peers.node(here, rules=[rule]) as (port, process, _):
            idle = pss_bytes(process)
            memory = PeakMemory(process)
            peers.storescu(port, folder / "ct")
            peers.wait_until_delivered(here, COUNT)
            peak = memory.stop()
        shutil.rmtree(here)
        print(
            f"  {convert:8}  idle {idle / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB (must be <= {most})"
        )
