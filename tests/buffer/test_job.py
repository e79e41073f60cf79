"""What job.json says, written and read."""

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.buffer.job import FORMAT, Difference, Job, JobInstance, JobVolume
from scp.errors import NodeError
from scp.model import CollapseReason, Form, Identity, Origin, PassReason

_TEXT = st.text(max_size=20)
_SECONDS = st.floats(allow_nan=False, allow_infinity=False)
_COUNT = st.integers(0, 2**53)

_IDENTITIES = st.builds(
    Identity,
    sop_class_uid=_TEXT,
    sop_instance_uid=_TEXT,
    study_instance_uid=_TEXT,
    series_instance_uid=_TEXT,
)
_VOLUMES = st.builds(
    JobVolume,
    name=_TEXT.filter(bool),
    identity=_IDENTITIES,
    transfer_syntax=_TEXT,
    send_to=st.lists(_TEXT, max_size=3).map(tuple),
    result_bytes=_COUNT,
    result_sha256=_TEXT,
)
_INSTANCES = st.builds(
    JobInstance,
    name=_TEXT,
    identity=_IDENTITIES,
    origin=st.builds(Origin, calling_ae_title=_TEXT, called_ae_title=_TEXT, peer_address=_TEXT),
    received=_SECONDS,
    source_transfer_syntax=_TEXT,
    source_bytes=_COUNT,
    rule=_TEXT,
    form=st.sampled_from([form.value for form in Form]),
    reason=st.sampled_from(["", *(reason.value for reason in PassReason)]),
    not_collapsed=st.sampled_from(["", *(reason.value for reason in CollapseReason)]),
    remark=_TEXT,
    send_to=st.lists(_TEXT, max_size=3).map(tuple),
    repeat_of=_TEXT,
    is_conflict=st.booleans(),
    difference=st.none()
    | st.builds(
        Difference,
        elements=_COUNT,
        pixel_data=st.sampled_from(["equal", "different", "not compared"]),
        listed=st.lists(_TEXT, max_size=3).map(tuple),
        is_whole=st.booleans(),
    ),
    hold_reason=st.sampled_from(["", "uid_conflict"]),
    transfer_syntax=_TEXT,
    result_bytes=_COUNT,
    dataset_sha256=_TEXT,
    normal_sha256=_TEXT,
    pixel_sha256=_TEXT,
    result_sha256=_TEXT,
    frames=_COUNT,
    verified_by=_TEXT,
)


def _with_frames(job: Job) -> Job:
    """The job, with an instance as the one frame of each of its volumes."""
    frames = [
        replace(_CONVERTED, form=Form.ENHANCED.value, volume=volume.name, frame=1)
        for volume in job.volumes
    ]
    return replace(job, instances=(*job.instances, *frames))


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
    volumes=st.lists(_VOLUMES, max_size=2, unique_by=lambda each: each.name).map(tuple),
).map(_with_frames)
_CONVERTED = JobInstance(
    name="a.dcm",
    identity=Identity(
        sop_class_uid="1.1",
        sop_instance_uid="1.2",
        study_instance_uid="1.3",
        series_instance_uid="1.4",
    ),
    origin=Origin(calling_ae_title="CT1", called_ae_title="DCMPRESS", peer_address="10.0.0.7"),
    received=1.0,
    source_transfer_syntax="1.2.840.10008.1.2.1",
    source_bytes=500,
    rule="default",
    form="htj2k",
    send_to=("archive",),
    transfer_syntax="1.2.840.10008.1.2.4.201",
    result_bytes=200,
    dataset_sha256="aa",
    result_sha256="bb",
    frames=1,
    verified_by="openjpeg",
)
_WORDS = {*Form, *PassReason}
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


_NO_WORD = _JSON.filter(lambda value: not isinstance(value, str) or value not in _WORDS)
"""Neither a form nor a reason."""


def _job_of(instance: JobInstance) -> Job:
    return Job(
        name="job",
        study_instance_uid="1.3",
        series_instance_uid="1.4",
        created=1.0,
        rules="rules-1",
        instances=(instance,),
    )


def read(content: Any) -> Job:
    return Job.from_bytes(json.dumps(content).encode())


@given(JOBS)
def test_what_is_written_is_read(job: Job) -> None:
    assert read(job.to_json()) == job


@given(_JSON)
def test_anything_else_is_damaged_and_said_to_be(content: Any) -> None:
    with pytest.raises(NodeError):
        read(content)


@given(JOBS, st.data())
def test_a_job_with_one_value_replaced_is_read_or_said_to_be_damaged(
    job: Job, data: st.DataObject
) -> None:
    content = json.loads(json.dumps(job.to_json()))
    content[data.draw(st.sampled_from(sorted(content)))] = data.draw(_JSON)

    with contextlib.suppress(NodeError):
        assert read(content).to_json().keys() == content.keys()


def test_a_newer_format_is_not_guessed_at() -> None:
    with pytest.raises(NodeError, match="another version of dcmpress"):
        read({"format": FORMAT + 1})


@given(_INSTANCES, _NO_WORD)
def test_a_form_that_nobody_knows_is_damage(instance: JobInstance, word: Any) -> None:
    content = _job_of(instance).to_json()
    content["instances"][0]["form"] = word

    with pytest.raises(NodeError, match="damaged"):
        read(content)


@given(_INSTANCES, _NO_WORD.filter(bool))
def test_a_reason_that_nobody_knows_is_damage(instance: JobInstance, word: Any) -> None:
    content = _job_of(instance).to_json()
    content["instances"][0]["reason"] = word

    with pytest.raises(NodeError, match="damaged"):
        read(content)


@given(JOBS.filter(lambda job: job.instances), st.data())
def test_a_value_of_another_type_is_damage(job: Job, data: st.DataObject) -> None:
    content = json.loads(json.dumps(job.to_json()))
    instance = data.draw(st.sampled_from(content["instances"]))
    part = data.draw(st.sampled_from([content, instance, instance["identity"], instance["origin"]]))
    plain = sorted(key for key in part if isinstance(part[key], (str, int, float)))
    key = data.draw(st.sampled_from([key for key in plain if key != "format"]))
    part[key] = None if data.draw(st.booleans()) else [part[key]]

    with pytest.raises(NodeError, match="damaged"):
        read(content)


@pytest.mark.parametrize("reason", ["", *PassReason])
@pytest.mark.parametrize("form", Form)
def test_every_form_and_reason_is_read(form: Form, reason: str) -> None:
    job = _job_of(replace(_CONVERTED, form=form.value, reason=str(reason)))

    assert read(job.to_json()) == job


@given(JOBS, st.data())
def test_given_up_the_named_instances_have_no_conversions(job: Job, data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from([i.name for i in job.instances] or [""])))

    given_up = job.as_originals("no_room", names)

    without: dict[str, Any] = {"instances": (), "volumes": (), "lost_volumes": ()}
    assert replace(given_up, **without) == replace(job, **without)
    lost = {i.volume for i in job.instances if i.name in names and i.volume}
    assert {volume.name for volume in given_up.volumes} == {v.name for v in job.volumes} - lost
    for before, after in zip(job.instances, given_up.instances, strict=True):
        assert after.identity == before.identity
        is_named = before.name in names or before.volume in lost
        if not is_named or before.form == "original":
            assert after == before
        else:
            assert (after.form, after.reason) == ("original", "no_room")


def test_with_one_frame_the_whole_volume_is_given_up() -> None:
    volume = JobVolume(
        name="v.dcm",
        identity=_CONVERTED.identity,
        transfer_syntax="1.2.840.10008.1.2.4.202",
        send_to=("archive",),
        result_bytes=1,
        result_sha256="cc",
    )
    frames = tuple(
        replace(_CONVERTED, name=f"{n}.dcm", form="enhanced", volume="v.dcm", frame=n)
        for n in (1, 2)
    )
    job = replace(_job_of(_CONVERTED), instances=frames, volumes=(volume,))
    assert job.results == {("enhanced", "v.dcm")}

    given_up = job.as_originals("result_lost", ["2.dcm"])

    assert (given_up.volumes, given_up.lost_volumes) == ((), (volume,))
    assert given_up.results == set()
    assert [(i.form, i.volume, i.lost_volume, i.frame) for i in given_up.instances] == [
        ("original", "", "v.dcm", n) for n in (1, 2)
    ]
    assert read(given_up.to_json()) == given_up


def test_a_volume_without_frames_is_damage() -> None:
    content = _job_of(replace(_CONVERTED, form="enhanced", volume="v.dcm", frame=1)).to_json()

    with pytest.raises(NodeError, match="damaged"):
        read(content)


def test_an_instance_given_up_is_its_source_and_nothing_is_proved_of_it() -> None:
    other = replace(_CONVERTED, name="b.dcm")

    first, second = (
        replace(_job_of(_CONVERTED), instances=(_CONVERTED, other))
        .as_originals("result_lost", ["a.dcm"])
        .instances
    )

    assert first == replace(
        _CONVERTED,
        form="original",
        reason="result_lost",
        transfer_syntax="1.2.840.10008.1.2.1",
        result_bytes=500,
        result_sha256="",
        verified_by="",
    )
    assert second == other


@given(_INSTANCES)
def test_a_repeat_and_what_is_sent_nowhere_are_not_delivered(instance: JobInstance) -> None:
    assert instance.is_delivered == (instance.send_to != () and instance.repeat_of == "")
