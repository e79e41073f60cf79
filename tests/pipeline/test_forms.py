"""Several forms of one job: which destination gets which, and that all are committed together."""

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom

from scp.buffer.job import Job
from scp.ledger.ports import State
from scp.model import CollapseReason, Form
from tests.material import ct_series, write_all
from tests.pipeline.conftest import MakeFront
from tests.pipeline.parts import archive

COUNT = 4
RPCL = "1.2.840.10008.1.2.4.202"


def rules(*destinations: str) -> list[dict[str, Any]]:
    return [{"name": "v", "match": {}, "convert": "enhanced", "send_to": list(destinations)}]


def places(folder: Path) -> dict[str, Any]:
    """One that takes volumes and one that does not."""
    single = {"kind": "folder", "path": str(folder / "single"), "accepts_collapsed": False}
    return {"archive": archive(folder), "single": single}


def slices(folder: Path) -> list[Path]:
    return write_all(ct_series(COUNT, 16, 16, seed=5), folder)


def delivered(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def digests(paths: list[Path]) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_one_job_gives_a_volume_to_one_and_single_frames_to_another(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=rules("archive", "single"), destinations=places(tmp_path))
    front.receive(*slices(tmp_path / "ct"))

    (job,) = front.finish()
    front.settle()

    (volume,) = job.volumes
    assert volume.send_to == ("archive",)
    made = [form for each in job.instances for form in each.forms]
    assert {(form.form, form.send_to) for form in made} == {("htj2k", ("single",))}
    assert digests(delivered(tmp_path / "archive")) == {volume.result_sha256}
    assert digests(delivered(tmp_path / "single")) == {form.result_sha256 for form in made}
    syntaxes = [
        str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        for path in delivered(tmp_path / "single")
    ]
    assert syntaxes == [RPCL] * COUNT
    assert front.states() == {State.DELIVERED: COUNT}
    assert list(front.layout.encoded.iterdir()) == []
    assert front.folders.jobs() == []


def test_the_ledger_knows_that_both_places_have_every_instance(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=rules("archive", "single"), destinations=places(tmp_path))
    front.receive(*slices(tmp_path / "ct"))
    front.finish()
    front.settle()

    rows = front.ledger.finished_since(datetime.fromtimestamp(0, UTC))

    assert [sorted(row.destinations) for row in rows] == [["archive", "single"]] * COUNT
    assert {row.form for row in rows} == {Form.ENHANCED}


def test_a_series_is_not_collapsed_for_nobody(make_front: MakeFront, tmp_path: Path) -> None:
    front = make_front(rules=rules("single"), destinations=places(tmp_path))
    front.receive(*slices(tmp_path / "ct"))

    (job,) = front.finish()

    assert Counter(each.not_collapsed for each in job.instances) == {
        CollapseReason.NOT_ACCEPTED: COUNT
    }
    assert job.volumes == ()
    assert len(delivered(tmp_path / "single")) == COUNT


def test_instances_that_go_to_other_single_frame_places_share_a_volume(
    make_front: MakeFront, tmp_path: Path
) -> None:
    both = {"name": "a", "match": {"called_ae_title": "A"}, "convert": "enhanced"}
    front = make_front(
        rules=[{**both, "send_to": ["archive", "single"]}, *rules("archive")],
        destinations=places(tmp_path),
    )
    paths = slices(tmp_path / "ct")
    front.receive(*paths[:2], called="A")
    front.receive(*paths[2:], called="B")

    (job,) = front.finish()

    assert [volume.send_to for volume in job.volumes] == [("archive",)]
    assert len(delivered(tmp_path / "archive")) == 1
    assert len(delivered(tmp_path / "single")) == 2
    assert front.states() == {State.DELIVERED: COUNT}


def test_a_job_with_several_forms_is_read_as_it_was_written(
    make_front: MakeFront, tmp_path: Path
) -> None:
    front = make_front(rules=rules("archive", "single"), destinations=places(tmp_path))
    front.receive(*slices(tmp_path / "ct"))
    (job,) = front.finish()

    again = Job.from_bytes(json.dumps(job.to_json()).encode())
    given_up = again.as_originals("result_lost", {job.instances[0].name})

    assert again == job
    assert len(job.results) == COUNT + 1
    assert given_up.results == set()
