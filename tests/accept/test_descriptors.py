"""A receiver has as many open files as its associations may need, or says that it cannot."""

import resource
import subprocess
import sys

import pytest

from scp.accept import descriptors
from scp.config.schema import LimitsSection
from tests.conftest import REPOSITORY

LIMITS = LimitsSection(max_associations=500)
RAISER = """
import resource
from scp.accept.descriptors import allow_descriptors

for needed in (500, 50, 5000):
    allow_descriptors(needed)
    print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def allow(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, hard))


def test_a_process_raises_its_own_limit_as_far_as_it_may() -> None:
    found = subprocess.run(
        ["prlimit", "--nofile=100:1000", sys.executable, "-c", RAISER],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )

    assert found.stdout.splitlines() == ["500 1000", "500 1000", "1000 1000"]


@pytest.mark.parametrize("hard", [2300, resource.RLIM_INFINITY])
def test_what_suffices_is_not_complained_of(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    allow(monkeypatch, hard)

    assert descriptors.shortage(LIMITS) is None


def test_too_few_are_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 2299)

    assert descriptors.shortage(LIMITS) == (
        "500 associations may need 2,300 open files in a receiver, and this system allows 2,299: "
        "raise that (ulimit -Hn, LimitNOFILE of systemd), or lower limits.max_associations"
    )
