"""What operations and requests for an association are answered, mapped once from what went wrong."""

from enum import Enum, IntEnum
from typing import Final

from scp.errors import (
    CommitmentRefusedError,
    InvalidUidError,
    MalformedError,
    StorageFullError,
    UidMismatchError,
    UnknownTransactionError,
    UnreadableInstanceError,
)


class Rejection(Enum):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21).

    A protocol version that is not supported is rejected by the state machine (AE-6).
    """

    APPLICATION_CONTEXT = (1, 1, 2)
    CALLING_TITLE = (1, 1, 3)
    CALLED_TITLE = (1, 1, 7)
    USER_IDENTITY = (1, 2, 1)
    """No reason given, by ACSE: there is none for it (PS3.7 D.3.3.7)."""
    CONGESTION = (2, 3, 1)
    """No room on the disk. Rejected for now, like the next."""
    LOCAL_LIMIT = (2, 3, 2)
    """Too many associations."""

    @property
    def words(self) -> str:
        """For the log."""
        return (
            "rejected: "
            + {
                Rejection.APPLICATION_CONTEXT: "application context not supported",
                Rejection.CALLING_TITLE: "calling AE title not recognised",
                Rejection.CALLED_TITLE: "called AE title not recognised",
                Rejection.USER_IDENTITY: "user identity not accepted",
                Rejection.CONGESTION: "no room",
                Rejection.LOCAL_LIMIT: "too many associations",
            }[self]
        )


class StoreStatus(IntEnum):
    """Statuses of C-STORE-RSP and C-ECHO-RSP (PS3.4 B.2.3, PS3.7 Annex C)."""

    SUCCESS = 0x0000
    INVALID_INSTANCE = 0x0117
    """PS3.7 C.5.10: the SOP Instance UID violates the rules of UIDs."""
    OUT_OF_RESOURCES = 0xA700
    MISMATCH = 0xA900
    """Dataset does not match SOP class, or another instance than the command names."""
    CANNOT_UNDERSTAND = 0xC000
    PROCESSING_FAILURE = 0xC211
    """Of the range Cxxx, "cannot understand": a fault of ours, never of the dataset."""


class OperationStatus(IntEnum):
    """Statuses of N-ACTION-RSP and N-EVENT-REPORT-RSP (PS3.7 10.1.1.1.8 and 10.1.4.1.10)."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT = 0x0115
    NO_SUCH_CLASS = 0x0118
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124
    RESOURCE_LIMITATION = 0x0213


STATUS_FOR: Final[dict[type[Exception], StoreStatus]] = {
    StorageFullError: StoreStatus.OUT_OF_RESOURCES,
    UnreadableInstanceError: StoreStatus.CANNOT_UNDERSTAND,
    InvalidUidError: StoreStatus.INVALID_INSTANCE,
    UidMismatchError: StoreStatus.MISMATCH,
}

OPERATION_STATUS_FOR: Final[dict[type[Exception], OperationStatus]] = {
    StorageFullError: OperationStatus.RESOURCE_LIMITATION,
    MalformedError: OperationStatus.INVALID_ARGUMENT,
    UnknownTransactionError: OperationStatus.INVALID_ARGUMENT,
    CommitmentRefusedError: OperationStatus.NOT_AUTHORIZED,
}


def status_for(error: Exception) -> StoreStatus:
    """The status of the error's type or its nearest ancestor that has one."""
    for kind in type(error).__mro__:
        if kind in STATUS_FOR:
            return STATUS_FOR[kind]
    return StoreStatus.PROCESSING_FAILURE


def operation_status_for(error: Exception) -> OperationStatus:
    """As :func:`status_for`, of a normalised operation."""
    for kind in type(error).__mro__:
        if kind in OPERATION_STATUS_FOR:
            return OPERATION_STATUS_FOR[kind]
    return OperationStatus.PROCESSING_FAILURE
