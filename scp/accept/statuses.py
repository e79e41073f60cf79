"""What a C-STORE is answered, mapped once from what went wrong."""

from enum import IntEnum
from typing import Final

from scp.errors import (
    InvalidUidError,
    StorageFullError,
    UidMismatchError,
    UnreadableInstanceError,
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


STATUS_FOR: Final[dict[type[Exception], StoreStatus]] = {
    StorageFullError: StoreStatus.OUT_OF_RESOURCES,
    UnreadableInstanceError: StoreStatus.CANNOT_UNDERSTAND,
    InvalidUidError: StoreStatus.INVALID_INSTANCE,
    UidMismatchError: StoreStatus.MISMATCH,
}


def status_for(error: Exception) -> StoreStatus:
    """The status of the error's type or its nearest ancestor that has one."""
    for kind in type(error).__mro__:
        if kind in STATUS_FOR:
            return STATUS_FOR[kind]
    return StoreStatus.PROCESSING_FAILURE
