"""Where everything lies under the data folder. The folders are the truth; nothing else knows the state."""

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from scp.durable import Disk
from scp.errors import NodeError

SERIES_FILE = "series.json"
JOB_FILE = "job.json"
REASON_FILE = "reason.json"
GIVEN_UP_FILE = "given-up.json"
"""In a held job: a person has given it up, and why; the ledger may not know yet."""
CUT_FILE = "was-cut"
"""In a job whose series was closed by a limit, not by quiet: more of it may come."""
NAMED_FILE = ".named"
"""In a growing series: its folder's name is known to be durable. Its absence costs an fsync."""
INSTANCE_ENDING = ".dcm"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one node's data folder."""

    data: Path

    @property
    def lock(self) -> Path:
        return self.data / "lock"

    @property
    def notices(self) -> Path:
        """What a person was told, so that a restart repeats nothing."""
        return self.data / "notices.json"

    @property
    def spool(self) -> Path:
        return self.data / "spool"

    @property
    def incoming(self) -> Path:
        return self.spool / "incoming"

    @property
    def growing(self) -> Path:
        return self.spool / "growing"

    @property
    def jobs(self) -> Path:
        return self.spool / "jobs"

    @property
    def held(self) -> Path:
        return self.spool / "held"

    @property
    def originals(self) -> Path:
        """What was received and is kept although its job is done."""
        return self.spool / "originals"

    @property
    def noted_time(self) -> Path:
        """What time it was when the node ran."""
        return self.originals / "clock.json"

    @property
    def trash(self) -> Path:
        return self.spool / "trash"

    @property
    def encoded(self) -> Path:
        return self.spool / "encoded"

    @property
    def requested(self) -> Path:
        """Storage commitment that peers have asked for and were not told of yet."""
        return self.spool / "commitments" / "requested"

    @property
    def asked(self) -> Path:
        """Storage commitment that destinations were asked for."""
        return self.spool / "commitments" / "asked"

    @property
    def answers(self) -> Path:
        """What destinations have reported of it."""
        return self.spool / "commitments" / "answers"

    @property
    def ledger(self) -> Path:
        return self.data / "ledger.sqlite"

    @property
    def node_name(self) -> Path:
        """By what the node tells its rows in a ledger that others share from theirs."""
        return self.data / "node-name"

    def refused_by(self, destination: str) -> Path:
        """What is known that the destination's peer does not take."""
        return self.data / f"refused-by-{destination}.json"

    @property
    def patient_key(self) -> Path:
        """What Patient IDs are hashed with for the ledger."""
        return self.data / "patient-id.key"

    @property
    def control(self) -> Path:
        return self.data / "control"

    @property
    def gpus(self) -> Path:
        """Sockets of the processes that have a GPU."""
        return self.data / "gpus"

    def make(self, disk: Disk) -> None:
        """Make every folder, durably; what is there stays.

        Raises
        ------
        NodeError
            The data folder cannot be made or written.
        """
        try:
            if not self.spool.is_dir():
                disk.make_durable_folder(self.spool)
                # The files of conversions are made by others, who do not think of who may read them.
                self.spool.chmod(0o750)
            for folder in (
                self.incoming,
                self.growing,
                self.jobs,
                self.held,
                self.originals,
                self.trash,
                self.encoded,
                self.requested,
                self.asked,
                self.answers,
            ):
                disk.make_durable_folder(folder)
            # A node that was killed may have made them and not have come to syncing their names.
            for parent in (self.spool, self.data):
                disk.sync_folder(parent)
            with contextlib.suppress(PermissionError):  # Not ours: then it was not made by a node.
                disk.sync_folder(self.data.parent)
        except OSError as error:
            raise NodeError(
                f"the data folder {self.data} cannot be used: {error.strerror}; "
                "choose another with node: data:, or mend its permissions"
            ) from error


def lock_data(layout: Layout, wait_seconds: float) -> int:
    """Take the data folder for one node and return the descriptor that holds it.

    Every child inherits the descriptor, so that orphans of a dead node keep it locked until they end.

    Raises
    ------
    NodeError
        Another node, or an orphan of one, still holds it after ``wait_seconds``.
    """
    try:
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise NodeError(f"{layout.lock} cannot be locked: {error.strerror}") from error
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise NodeError(
                    f"another node (process {holder}) uses {layout.data}; "
                    "stop it, or give this one a data folder of its own"
                ) from None
            time.sleep(0.05)
    with contextlib.suppress(OSError):  # For a message only; a full disk must not keep us down.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def is_locked(layout: Layout) -> bool:
    """Whether a node runs on the folder, or a command works on it."""
    try:
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return False
