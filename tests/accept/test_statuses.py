"""Each error has one status."""

import pytest

from scp.accept.statuses import STATUS_FOR, StoreStatus, status_for
from scp.errors import DiskFailedError, InvalidUidError, ScpError, UnreadableInstanceError


def test_an_error_without_a_status_takes_that_of_its_ancestor() -> None:
    assert status_for(DiskFailedError("fsync")) is StoreStatus.OUT_OF_RESOURCES


def test_the_nearest_ancestor_wins() -> None:
    assert status_for(InvalidUidError("slash")) is StoreStatus.INVALID_INSTANCE
    assert status_for(UnreadableInstanceError("noise")) is StoreStatus.CANNOT_UNDERSTAND


@pytest.mark.parametrize("error", [ScpError("other"), KeyError("bug")])
def test_what_nobody_expected_is_a_failure_of_ours(error: Exception) -> None:
    assert status_for(error) is StoreStatus.PROCESSING_FAILURE


def test_no_error_is_answered_with_success() -> None:
    assert StoreStatus.SUCCESS not in STATUS_FOR.values()
