"""Runs the benchmarks that are named, all without a name, and prints the machine with them."""

import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from scripts.benchmarks import convert, deliver, gpu, ingest, ledger, memory, receive, send, sizes
from scripts.benchmarks.measure import fsync_milliseconds, spread

BENCHMARKS: dict[str, Callable[[Path], None]] = {
    "receive": receive.run,
    "send": send.run,
    "ingest": ingest.run,
    "memory": memory.run,
    "memory-large": memory.run_large,
    "convert": convert.run,
    "deliver": deliver.run,
    "gpu": gpu.run,
    "ledger": ledger.run,
    "sizes": sizes.run,
    **{f"receive-{row}": measure for row, measure in receive.ROWS.items()},
}


_ASKED_FOR = ("gpu", "sizes", "memory-large", *(f"receive-{row}" for row in receive.ROWS))
"""These need something special: a GPU, a folder of real images, 40 GB of disk and a quarter of an hour;
or they are parts of another."""


def main() -> int:
    names = sys.argv[1:] or [name for name in BENCHMARKS if name not in _ASKED_FOR]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {unknown[0]}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="dcmpress-bench-") as folder:
        place = Path(folder)
        spread(place)
        print(
            f"machine: {os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, "
            f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}, "
            f"fsync of file and folder {fsync_milliseconds(place):.2f} ms"
        )
        for name in names:
            here = place / name
            here.mkdir()
            spread(here)
            print(f"\n== {name}")
            BENCHMARKS[name](here)
    return 0


if __name__ == "__main__":
    sys.exit(main())
