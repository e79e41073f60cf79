"""What accepting needs from whoever keeps the instances."""

from typing import Protocol

from scp.commitment import CommitmentReport, CommitmentRequest
from scp.model import Origin, StoreRequest


class IncomingInstance(Protocol):
    """One instance on its way in. Ends with exactly one of :meth:`commit` and :meth:`abandon`."""

    @property
    def may_gather(self) -> bool:
        """Whether bytes may wait until there are many: who takes them has seen what it looks for."""
        ...

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the encoded dataset; the buffers may be reused afterwards.

        Raises
        ------
        StorageFullError
            No room, or the instance is too large. The rest of the message must still be read.
        """
        ...

    def commit(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Take the last bytes; return once the instance is durable: only then may 0x0000 be answered.

        Raises
        ------
        ScpError
            Nothing was kept; its type maps to one status.
        """
        ...

    def tidy(self) -> None:
        """Do what need not be waited for, after the answer to a successful :meth:`commit`; never raises."""
        ...

    def abandon(self) -> None:
        """Forget everything. Also after an error of the other two; never raises."""
        ...


class InstanceStore(Protocol):
    """Keeps instances, whoever sends them. Used by many associations at once."""

    def has_room(self) -> bool:
        """Whether associations may be accepted: the disk is healthy and above its watermark."""
        ...

    def begin(self, request: StoreRequest) -> IncomingInstance:
        """Start one instance.

        Raises
        ------
        ScpError
            As of :meth:`IncomingInstance.commit`; the message's data must still be read.
        """
        ...

    def association_opened(self, origin: Origin) -> None: ...

    def association_closed(self, origin: Origin) -> None: ...


class CommitmentDesk(Protocol):
    """Keeps what is asked and reported of storage commitment. Used by many associations at once."""

    def take_request(self, origin: Origin, request: CommitmentRequest) -> None:
        """Return once the request is durable; only then may 0x0000 be answered.

        Raises
        ------
        ScpError
            Nothing was kept; its type maps to one status.
        """
        ...

    def take_report(self, origin: Origin, report: CommitmentReport) -> None:
        """As :meth:`take_request`, of an answer to what the node has asked."""
        ...
