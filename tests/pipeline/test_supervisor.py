"""How long a part that dies again and again is left alone."""

import pytest

from scp.pipeline.supervisor import patience_after


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.0), (2, 1.0), (3, 3.0), (6, 30.0), (100_000, 30.0)]
)
def test_a_part_that_keeps_dying_is_started_ever_later_up_to_a_bound(
    failures: int, seconds: float
) -> None:
    assert patience_after(failures) == seconds
