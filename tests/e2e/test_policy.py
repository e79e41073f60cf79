"""Rules on a running node: when a series is complete, what is made of it, where it goes."""

import time
from pathlib import Path

import pydicom
import pytest

from scp.ledger.ports import State
from tests.e2e.judges import assert_converted, dataset_bytes
from tests.e2e.ledger import row_of, rows_of
from tests.e2e.node import RunningNode, until
from tests.material import ct_series, mr_series, radiograph, write_all

pytestmark = pytest.mark.xdist_group("shared node")


def test_at_once_does_not_wait_for_the_series(shared_node: RunningNode, tmp_path: Path) -> None:
    paths = [
        *write_all([radiograph(64, 64, seed=201)], tmp_path),
        *write_all(ct_series(1, 32, 32, seed=201), tmp_path),
    ]
    study = pydicom.dcmread(paths[0])
    with_ct = pydicom.dcmread(paths[1])
    with_ct.StudyInstanceUID = study.StudyInstanceUID
    with_ct.SeriesInstanceUID = study.SeriesInstanceUID
    with_ct.save_as(paths[1])

    # The other modality keeps the series open for three seconds.
    shared_node.send(paths, ae_title="SLOW")

    until(shared_node.delivered(study).exists, "the radiograph waits")
    assert not shared_node.delivered(with_ct).exists()
    assert [each["instances"] for each in shared_node.status()["series"]] == [1]
    shared_node.settle()
    assert_converted(paths[0], shared_node.delivered(study))
    assert_converted(paths[1], shared_node.delivered(with_ct))


def test_a_rule_has_its_own_quiet_seconds(shared_node: RunningNode, tmp_path: Path) -> None:
    slow = write_all(mr_series(2, 32, 32, seed=202), tmp_path / "slow")
    usual = write_all(ct_series(2, 32, 32, seed=202), tmp_path / "usual")
    started = time.monotonic()

    shared_node.send(slow, ae_title="SLOW")
    shared_node.send(usual)

    until(shared_node.delivered(pydicom.dcmread(usual[0])).exists, "the usual series waits")
    assert not shared_node.delivered(pydicom.dcmread(slow[0])).exists()
    until(shared_node.delivered(pydicom.dcmread(slow[0])).exists, "the slow series waits")
    assert time.monotonic() - started >= 3.0
    shared_node.settle()


def test_nowhere_is_skipped_by_policy_and_counted(shared_node: RunningNode, tmp_path: Path) -> None:
    paths = write_all(ct_series(2, 32, 32, seed=203), tmp_path)
    before = shared_node.status()

    shared_node.send(paths, ae_title="NOWHERE")

    shared_node.settle()
    after = shared_node.status()
    assert after["skipped"] - before["skipped"] == 2
    assert after["converted"] == before["converted"]
    assert not shared_node.delivered(pydicom.dcmread(paths[0])).exists()
    assert {row.state for row in rows_of(shared_node, paths)} == {State.SKIPPED}


def test_a_rule_that_says_original_delivers_what_came(
    shared_node: RunningNode, tmp_path: Path
) -> None:
    (path,) = write_all(ct_series(1, 32, 32, seed=204), tmp_path)
    before = shared_node.status()

    shared_node.send([path], ae_title="ORIGINAL")

    shared_node.settle()
    assert dataset_bytes(shared_node.delivered(pydicom.dcmread(path))) == dataset_bytes(path)
    assert row_of(shared_node, path).reason == "rule_says_original"
    after = shared_node.status()
    assert after["passed_through"] - before["passed_through"] == 1


@pytest.mark.parametrize(("count", "rule"), [(2, "default"), (3, "whole series only")])
def test_a_rule_may_ask_how_many_instances_a_series_has(
    shared_node: RunningNode, tmp_path: Path, count: int, rule: str
) -> None:
    paths = write_all(ct_series(count, 32, 32, seed=205 + count), tmp_path)

    shared_node.send(paths, ae_title="COUNTED")

    shared_node.settle()
    assert {row.rule for row in rows_of(shared_node, paths)} == {rule}


def test_a_series_that_never_is_quiet_is_cut(shared_node: RunningNode, tmp_path: Path) -> None:
    paths = write_all(ct_series(18, 32, 32, seed=210), tmp_path)

    for path in paths:
        shared_node.send([path])
        time.sleep(0.35)

    shared_node.settle()
    rows = rows_of(shared_node, paths)
    assert len(rows) == 18
    assert {row.state for row in rows} == {State.DELIVERED}
    assert len({row.job for row in rows}) >= 2
    assert ", cut" in shared_node.log()


def test_the_cache_of_conversions_may_be_deleted_at_any_time(
    shared_node: RunningNode, tmp_path: Path
) -> None:
    paths = write_all(ct_series(3, 32, 32, seed=211), tmp_path)
    shared_node.send(paths, ae_title="SLOW")
    until(lambda: len(shared_node.spool("encoded")) == 3, "nothing is converted ahead")

    # By one call: what is deleted piece by piece may get a new piece meanwhile.
    (shared_node.data / "spool" / "encoded").rename(tmp_path / "deleted")

    shared_node.settle()
    for path in paths:
        assert_converted(path, shared_node.delivered(pydicom.dcmread(path)))
