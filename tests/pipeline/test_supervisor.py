"""How long a part that dies again and again is left alone."""

import pytest

from scp.pipeline.supervisor import Child, patience_after


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.0), (2, 1.0), (3, 3.0), (6, 30.0), (100_000, 30.0)]
)
def test_a_part_that_keeps_dying_is_started_ever_later_up_to_a_bound(
    failures: int, seconds: float
) -> None:
    assert patience_after(failures) == seconds


def test_what_lived_for_long_and_cannot_be_started_again_is_tried_ever_later_too() -> None:
    child = Child("a module", "its name", started=0.0)

    assert [child.patience(now) for now in (900.0, 900.0, 901.0, 1004.0)] == [0.0, 1.0, 3.0, 7.0]

    child.started = 1011.0
    assert child.patience(1071.0) == 0.0
