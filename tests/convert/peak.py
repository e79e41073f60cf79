"""How much memory a piece of work takes at its peak, measured in a process of its own."""

import gc
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

_RESET_PEAK = "5"
"""What /proc/PID/clear_refs takes for it (proc(5))."""


def peak_growth[*Args](
    warm_up: Callable[[], object], work: Callable[[*Args], object], *args: *Args
) -> int:
    """Bytes by which ``work(*args)`` makes the process larger at its peak, mapped files included."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(warm_up).result()
        return pool.submit(_measured, work, args).result()


def _measured(work: Callable[..., object], args: tuple[object, ...]) -> int:
    gc.collect()
    Path(f"/proc/{os.getpid()}/clear_refs").write_text(_RESET_PEAK)
    before = _status("VmRSS")
    work(*args)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))
