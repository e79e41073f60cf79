"""What a process tree costs: CPU seconds, memory; and what the disk costs."""

import contextlib
import fcntl
import mmap
import os
import statistics
import sys
import threading
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_SCHED = 2
"""CPUCLOCK_SCHED of linux/posix-timers.h: with a process, its clock (clock_getcpuclockid)."""

_GET_FLAGS, _SET_FLAGS, _TOP_OF_TREES = 0x80086601, 0x40086602, 0x00020000
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h; ``chattr +T``."""


def tree(root: int) -> list[int]:
    """The process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree so far, reaped children included.

    Of those who live by their clocks, which tell nanoseconds: receiving 400 CT takes twenty to thirty
    of the ticks that ``/proc`` tells, and a tick more or less is too much for a ratio.
    """
    total = 0.0
    for process in tree(root):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += time.clock_gettime(~process << 3 | _SCHED)
        except OSError:
            continue
        total += sum(int(field) for field in fields[13:15]) / _TICKS
    return total


def process_of(root: int, name: str) -> int:
    """The process of the tree that has a name: ``receiver`` or ``coordinator``."""
    for process in tree(root):
        if Path(f"/proc/{process}/comm").read_text().strip() == name:
            return process
    raise SystemExit(f"no {name} runs below process {root}")


def pss_bytes(root: int) -> int:
    """Proportional set size of the tree: shared pages are counted once."""
    total = 0
    for process in tree(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(x.split()[1]) for x in lines if x.startswith("Pss:")), 0) * 1024
    return total


class PeakMemory:
    """Samples the tree's memory until it is stopped."""

    def __init__(self, root: int, seconds: float = 0.1) -> None:
        self._root = root
        self._seconds = seconds
        self._stop = threading.Event()
        self.peak = 0
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.peak

    def _sample(self) -> None:
        while not self._stop.wait(self._seconds):
            self.peak = max(self.peak, pss_bytes(self._root))


def fsync_milliseconds(folder: Path, count: int = 50) -> float:
    """The median of one small file's fsync and its folder's."""
    return 1000 * statistics.median(_synced(folder, index, b"x") for index in range(count))


def fsync_floor(folder: Path, files: list[Path], pause: float = 0.0) -> float:
    """Seconds that nothing but the fsyncs of these files and of their folder takes.

    The files are written first, as a receiver writes while it receives, and each is synced at its end;
    before each fsync there is a ``pause``, which counts.
    """
    folder.mkdir()
    total = 0.0
    for index, file in enumerate(files):
        total += _synced(folder, index, file.read_bytes(), pause)
    return total


def settle(file_bytes: int) -> None:
    """Give everyone the same start: nobody else's data to write back, and memory that is there.

    A virtual machine gives the memory of deleted files back to its host, and the first touch after
    that costs more than receiving does. So as much as will be written is touched right before.
    """
    with mmap.mmap(-1, file_bytes) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, file_bytes, mmap.PAGESIZE):
            memory[start] = 1
    os.sync()


def spread(folder: Path) -> None:
    """Have each folder that is made in this one lie in another part of the disk, where that is known.

    What was deleted beside it, by whatever ran before, then costs it nothing: see :func:`empty`.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # No ext4.
            flags = int.from_bytes(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)), sys.byteorder)
            whole = flags | _TOP_OF_TREES
            fcntl.ioctl(descriptor, _SET_FLAGS, whole.to_bytes(8, sys.byteorder))
    finally:
        os.close(descriptor)


def empty(folder: Path) -> None:
    """Give the room of all files back, and keep their names until the end.

    ext4 without a journal passes over what was deleted within a minute, one by one, for each file that
    is made: whoever is measured next would pay for that.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path.is_file():
                os.truncate(path, 0)


def _synced(folder: Path, index: int, content: bytes, pause: float = 0.0) -> float:
    path = folder / f"floor-{index}"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    parent = os.open(folder, os.O_RDONLY)
    try:
        os.write(descriptor, content)
        started = time.perf_counter()
        for each in (descriptor, parent):
            if pause:
                time.sleep(pause)
            os.fsync(each)
        return time.perf_counter() - started
    finally:
        os.close(descriptor)
        os.close(parent)
