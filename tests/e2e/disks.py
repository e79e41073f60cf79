"""A small file system that tests fill."""

import os
import time
from contextlib import suppress
from pathlib import Path

MEGABYTE = 2**20
DISK_BYTES = 160 * MEGABYTE
LOOK_SECONDS = 0.3
"""The node looks at the free space at least so often."""


class SmallDisk:
    """A file system of its own, and how much of it is taken by someone else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def leave(self, free: int) -> None:
        """Take all but so many bytes."""
        self._ballast.unlink(missing_ok=True)
        room = os.statvfs(self.folder)
        descriptor = os.open(self._ballast, os.O_CREAT | os.O_WRONLY)
        try:
            os.posix_fallocate(descriptor, 0, room.f_bavail * room.f_frsize - free)
        finally:
            os.close(descriptor)
        time.sleep(LOOK_SECONDS)

    def fill(self) -> None:
        """Take every byte, while others write too."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (MEGABYTE, 4096):
                with suppress(OSError):
                    while ballast.write(bytes(size)) == size:
                        pass

    def give_back(self) -> None:
        self._ballast.unlink()
        time.sleep(LOOK_SECONDS)
