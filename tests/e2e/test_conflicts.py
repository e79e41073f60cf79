"""Another dataset under a known SOP Instance UID, from DCMTK's storescu, under each policy."""

from pathlib import Path

import pydicom
import pytest

from scp.ledger.ports import State
from tests.e2e.judges import assert_converted
from tests.e2e.ledger import rows_of
from tests.e2e.node import RunningNode, until
from tests.e2e.peers import storescu
from tests.material import ct_series, write_all


def two_of_one_uid(folder: Path) -> tuple[Path, Path]:
    (first,) = write_all(ct_series(1, 32, 32, seed=301), folder / "first")
    dataset = pydicom.dcmread(first)
    dataset.PixelData = bytes(len(dataset.PixelData))
    (folder / "second").mkdir()
    second = folder / "second" / first.name
    dataset.save_as(second)
    return first, second


@pytest.mark.parametrize("policy", ["deliver", "newest", "hold"])
def test_each_policy_delivers_what_it_says_and_accounts_for_the_rest(
    tmp_path: Path, policy: str
) -> None:
    first, second = two_of_one_uid(tmp_path)
    node = RunningNode(
        tmp_path / "node", {"series": {"quiet_seconds": 3, "conflict": policy}}
    ).start()

    storescu(node.port, [first])
    storescu(node.port, [second])

    delivered = node.delivered(pydicom.dcmread(first))
    numbered = delivered.with_name(f"{delivered.stem}~2.dcm")
    if policy == "hold":
        until(lambda: bool(node.held()), "nothing is held")
        (held,) = node.json("held")
        assert held["reasons"] == {"archive": {"uid_conflict": 1}}
        assert "(7FE0,0010) OW 2048 bytes, then OW 2048 bytes" in node.command("held", held["job"])
        ((conflict,),) = [each["conflicts"] for each in node.json("held", held["job"])]
        assert (conflict["elements"], conflict["pixel_data"]) == (1, "different")
        status = node.status()
        assert (status["received"], status["held"], status["pending"]) == (2, 1, 0)
        assert not numbered.exists()
        node.command("retry", held["job"])
    node.settle()
    status = node.status()
    assert status["conflicts"] == 1
    assert "1 conflicts since the start" in node.command("status")
    assert "1 conflicts (1 compared: up to 1 elements differ, pixel data in 1)" in node.log()
    states = [row.state for row in rows_of(node, [first])]
    if policy == "newest":
        assert_converted(second, delivered)
        assert not numbered.exists()
        assert states == [State.SKIPPED, State.DELIVERED]
    else:
        assert_converted(first, delivered)
        assert_converted(second, numbered)
        assert states == [State.DELIVERED] * 2
    accounted = ("pending", "delivered", "skipped", "held", "discarded")
    assert status["received"] == sum(status[name] for name in accounted) == 2
    node.close()
