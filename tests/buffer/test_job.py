"""What job.json says, written and read."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.buffer.job import FORMAT, Job, JobInstance
from scp.errors import NodeError
from scp.model import Identity, Origin

_TEXT = st.text(max_size=20)
_SECONDS = st.floats(allow_nan=False, allow_infinity=False)
_COUNT = st.integers(0, 2**53)

_INSTANCES = st.builds(
    JobInstance,
    name=_TEXT,
    identity=st.builds(
        Identity,
        sop_class_uid=_TEXT,
        sop_instance_uid=_TEXT,
        study_instance_uid=_TEXT,
        series_instance_uid=_TEXT,
    ),
    origin=st.builds(Origin, calling_ae_title=_TEXT, called_ae_title=_TEXT, peer_address=_TEXT),
    received=_SECONDS,
    source_transfer_syntax=_TEXT,
    source_bytes=_COUNT,
    rule=_TEXT,
    form=st.sampled_from(["original", "htj2k"]),
    reason=_TEXT,
    remark=_TEXT,
    send_to=st.lists(_TEXT, max_size=3).map(tuple),
    repeat_of=_TEXT,
    is_conflict=st.booleans(),
    transfer_syntax=_TEXT,
    result_bytes=_COUNT,
    dataset_sha256=_TEXT,
    normal_sha256=_TEXT,
    pixel_sha256=_TEXT,
    result_sha256=_TEXT,
    frames=_COUNT,
    verified_by=_TEXT,
)
JOBS = st.builds(
    Job,
    name=_TEXT,
    study_instance_uid=_TEXT,
    series_instance_uid=_TEXT,
    created=_SECONDS,
    rules=_TEXT,
    was_cut=st.booleans(),
    encoder=_TEXT,
    instances=st.lists(_INSTANCES, max_size=3).map(tuple),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(JOBS)
def test_what_is_written_is_read(job: Job) -> None:
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


@given(_JSON)
def test_anything_else_is_damaged_and_said_to_be(content: Any) -> None:
    with pytest.raises(NodeError):
        Job.from_json(content)


@given(JOBS, st.data())
def test_a_job_with_one_value_replaced_is_read_or_said_to_be_damaged(
    job: Job, data: st.DataObject
) -> None:
    content = json.loads(json.dumps(job.to_json()))
    content[data.draw(st.sampled_from(sorted(content)))] = data.draw(_JSON)

    with contextlib.suppress(NodeError):
        assert Job.from_json(content).to_json().keys() == content.keys()


def test_a_newer_format_is_not_guessed_at() -> None:
    with pytest.raises(NodeError, match="another version of dcmpress"):
        Job.from_json({"format": FORMAT + 1})


@given(JOBS)
def test_given_up_a_job_has_no_conversions(job: Job) -> None:
    given_up = job.as_originals("no_room")

    assert {instance.form for instance in given_up.instances} <= {"original"}
    assert {instance.reason for instance in given_up.instances} <= {"no_room"}
    assert [i.identity for i in given_up.instances] == [i.identity for i in job.instances]


@given(_INSTANCES)
def test_a_repeat_and_what_is_sent_nowhere_are_not_delivered(instance: JobInstance) -> None:
    assert instance.is_delivered == (instance.send_to != () and instance.repeat_of == "")
