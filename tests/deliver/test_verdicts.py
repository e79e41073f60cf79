"""The tables of what answers mean, for every kind of destination."""

import pytest

from scp.deliver.ports import Verdict
from scp.deliver.verdicts import (
    http_error,
    rejection_error,
    verdict_of_http,
    verdict_of_status,
)
from scp.errors import PeerRejectedError, PeerUnavailableError


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.DELIVERED),
        (0xB000, Verdict.WARNING),
        (0xB006, Verdict.WARNING),
        (0xB007, Verdict.WARNING),
        (0x0111, Verdict.ALREADY_THERE),
        (0xA700, Verdict.TRANSIENT),
        (0xA7FF, Verdict.TRANSIENT),
        (0x0110, Verdict.LIMITED),
        (0xC000, Verdict.LIMITED),
        (0xCFFF, Verdict.LIMITED),
        (0xA900, Verdict.REFUSED),
        (0x0122, Verdict.REFUSED),
        (0x0124, Verdict.REFUSED),
        (0x0117, Verdict.LIMITED),
        (0xFE00, Verdict.LIMITED),
    ],
)
def test_a_dicom_status_means(status: int, verdict: Verdict) -> None:
    assert verdict_of_status(status) is verdict


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ((1, 1, 3), PeerRejectedError),
        ((1, 1, 7), PeerRejectedError),
        ((1, 2, 2), PeerRejectedError),
        ((2, 1, 1), PeerUnavailableError),
        ((2, 1, 3), PeerUnavailableError),
        ((1, 3, 1), PeerUnavailableError),
        ((1, 3, 2), PeerUnavailableError),
        ((1, 9, 9), PeerRejectedError),
    ],
)
def test_a_rejected_association_is_for_good_or_for_now(
    numbers: tuple[int, int, int], error: type[Exception]
) -> None:
    assert type(rejection_error(*numbers)) is error


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (200, Verdict.DELIVERED),
        (201, Verdict.DELIVERED),
        (202, Verdict.WARNING),
        (204, Verdict.DELIVERED),
        (301, PeerRejectedError),
        (400, Verdict.LIMITED),
        (401, PeerRejectedError),
        (403, PeerRejectedError),
        (404, PeerRejectedError),
        (406, Verdict.REFUSED),
        (408, PeerUnavailableError),
        (409, Verdict.ALREADY_THERE),
        (412, Verdict.LIMITED),
        (413, Verdict.REFUSED),
        (415, Verdict.REFUSED),
        (422, Verdict.LIMITED),
        (429, PeerUnavailableError),
        (500, Verdict.LIMITED),
        (502, PeerUnavailableError),
        (503, PeerUnavailableError),
        (504, PeerUnavailableError),
        (507, PeerUnavailableError),
        (999, PeerRejectedError),
    ],
)
def test_a_status_of_http_speaks_of_the_server_or_of_the_instance(
    status: int, meaning: Verdict | type[Exception]
) -> None:
    error = http_error(status, "https://pacs")

    if isinstance(meaning, Verdict):
        assert error is None
        assert verdict_of_http(status) is meaning
    else:
        assert type(error) is meaning
        assert str(error) == f"https://pacs answers {status}"
