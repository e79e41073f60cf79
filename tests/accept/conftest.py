"""What every test here checks besides."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_association_failed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An association ends in a way that was thought of, never by an exception."""
    yield
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert not [record for record in records if record.getMessage() == "association failed"]
