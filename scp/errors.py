"""Every error this package raises on purpose; the class says what happens next."""

from collections.abc import Mapping


class ScpError(Exception):
    """Root of every error this package raises on purpose; a command stops with exit code 1."""


class UsageError(ScpError):
    """The command stops with exit code 2 and this one sentence."""


class ConfigError(ScpError):
    """Startup stops with exit code 2 after printing every fault.

    Parameters
    ----------
    faults
        Lines of the form ``file:line:col: message``, in file order.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class NodeError(ScpError):
    """The node or a command cannot start, go on or succeed; exit code 1 and this one sentence."""


class EmptyLedgerError(NodeError):
    """There is nothing to read in the account yet: the first start of a node makes its tables."""


class CertificateError(NodeError):
    """A certificate or key cannot be used: nothing starts with it; one that was in use stays in use.

    Parameters
    ----------
    part
        ``certificate``, ``key`` or ``ca``: which file of the section ``tls`` it is.
    """

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


class StorageFullError(ScpError):
    """Nothing was kept: a peer is told to try later (0xA700), a conversion passes, a delivery waits."""


class DiskFailedError(StorageFullError):
    """An fsync or write failed: 0xA700, the disk is marked unhealthy, the call is never repeated."""


class UnreadableInstanceError(ScpError):
    """The peer is told that we cannot understand it (0xC000); nothing was kept."""


class InvalidUidError(UnreadableInstanceError):
    """The SOP Instance UID is empty or has characters outside [0-9.] (0x0117); nothing was kept."""


class UidMismatchError(ScpError):
    """The command names another instance or class than the dataset (0xA900); nothing was kept."""


class CommitmentRefusedError(ScpError):
    """No storage commitment for this peer: it is told so (0x0124), and nothing was kept."""


class UnknownTransactionError(ScpError):
    """Nobody waits for this, or for something else: a peer is told so (0x0115); nothing was kept."""


class AssociationError(ScpError):
    """The association ends with an A-ABORT; what it had not committed is abandoned.

    Parameters
    ----------
    reason
        The provider's reason (PS3.8 Table 9-26); None where it is the service user who aborts.
    """

    def __init__(self, message: str, reason: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class ConnectionLostError(AssociationError):
    """The connection is gone: nothing is sent any more; what was not committed is abandoned."""


class TruncatedError(ScpError):
    """The bytes end inside an element: with more the same call may succeed, else as malformed."""


class MalformedError(ScpError):
    """No DICOM, whatever follows: a peer is refused, an instance passed as it is, a file left out."""


class ConversionError(ScpError):
    """The original is delivered instead, and the reason is counted."""


class CodecError(ConversionError):
    """A codec refused or failed: the original is delivered, and ``doctor`` reports it."""


class WorkerLostError(ConversionError):
    """A worker died or missed its deadline, twice: the task is given up, and a delivery tried again."""


class LedgerError(ScpError):
    """The account could not be written or read: the job stays in the spool and is recorded later."""


class DeliveryError(ScpError):
    """An instance cannot be delivered or its file not read: tried five times, then a person decides."""


class PeerUnavailableError(DeliveryError):
    """Nothing can be said of the peer: tried again after a backoff.

    Parameters
    ----------
    retry_after
        Seconds for which it has asked to be left alone; 0: it has not.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoAssociationError(PeerUnavailableError):
    """The peer takes the connection, and breaks off before it has answered the association request."""


class PeerRejectedError(DeliveryError):
    """The peer said no for good: tried five times over an hour, then a person decides."""


class CountsOnlyError(DeliveryError):
    """A peer does not say which instances it has: their numbers are compared instead.

    Parameters
    ----------
    counts
        Of each series of the study asked for, by its UID.
    """

    def __init__(self, message: str, counts: Mapping[str, int]) -> None:
        super().__init__(message)
        self.counts = counts


class DigestMismatchError(DeliveryError):
    """The file is not the one that was committed: it is not sent, and a person decides."""
