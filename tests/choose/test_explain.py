"""Why a file would be treated as it would."""

import json
from pathlib import Path

import pytest

from scp.choose.explain import explain, kept_until
from scp.choose.rules import Answer
from scp.config.load import load, parse
from scp.config.schema import DeleteOriginalsSection
from scp.model import Form, Origin, PassReason
from tests.choose.images import image, raw_element

CONFIG = parse(
    b"""
destinations:
  archive: {kind: folder, path: /srv/archive}
  pacs: {kind: dicom, host: 10.0.0.9, port: 104, ae_title: PACS}
rules:
  - name: large MR
    match: {Modality: MR, instances: {ge: 2}}
    send_to: [archive]
  - name: thin CT
    match: {Modality: CT, SliceThickness: {le: 1}, calling_ae_title: CT1}
    send_to: [pacs]
  - name: pairs
    match: {instances: 2}
    convert: original
    send_to: [archive, pacs]
""",
    "c.yaml",
)


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_a_file_is_explained(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dcm", image(SliceThickness="2.5", HighBit=15))

    (explanation,) = explain(CONFIG, [path])

    large, thin, _ = explanation.rules
    assert [condition.key for condition in large.failed] == ["Modality", "instances"]
    assert [(one.key, one.condition, one.found) for one in thin.failed] == [
        ("SliceThickness", "<= 1", ("2.5",)),
        ("calling_ae_title", "CT1", None),
    ]
    assert explanation.decision.rule == "default"
    assert explanation.refusal is not None
    assert explanation.refusal.reason is PassReason.HIGH_BIT
    assert explanation.plan.form_for("archive") is Form.ORIGINAL
    assert [(one.name, one.kind, one.form) for one in explanation.destinations] == [
        ("archive", "folder", "original")
    ]


def test_files_of_one_series_count_as_its_instances(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, "a.dcm", image()),
        write(tmp_path, "b.dcm", image()),
        write(tmp_path, "c.dcm", image(SeriesInstanceUID="1.2.9")),
    ]

    explanations = explain(CONFIG, paths)

    assert [one.facts.instances for one in explanations] == [2, 2, 1]
    assert [one.decision.rule for one in explanations] == ["pairs", "pairs", "default"]
    assert [one.where for one in explanations[0].destinations] == [
        "/srv/archive/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm",
        "PACS@10.0.0.9:104",
    ]


def test_an_origin_can_be_assumed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dcm", image(SliceThickness="0.5"))
    origin = Origin(calling_ae_title="CT1", called_ae_title="NODE", peer_address="10.0.0.1")

    (explanation,) = explain(CONFIG, [path], origin=origin)

    assert explanation.decision.rule == "thin CT"
    assert explanation.rules[1].answer is Answer.YES


def test_the_origin_is_read_from_a_files_own_record(tmp_path: Path) -> None:
    content = image()
    record = b"".join(
        (
            raw_element(0x00020017, "AE", b"CT1 "),
            raw_element(0x00020018, "AE", b"NODE"),
            raw_element(0x00020026, "UR", b"dicom://[fe80::1]:104 "),
        )
    )
    end_of_meta = content.index(b"\x08\x00\x08\x00CS")
    path = write(tmp_path, "a.dcm", content[:end_of_meta] + record + content[end_of_meta:])

    (explanation,) = explain(load(None), [path])

    assert explanation.facts.origin == Origin(
        calling_ae_title="CT1", called_ae_title="NODE", peer_address="fe80::1"
    )


def test_what_is_no_dicom_file_is_explained_too(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"no DICOM file")

    (explanation,) = explain(CONFIG, [path])

    assert not explanation.facts.attributes.is_readable
    assert explanation.plan.reason is PassReason.UNREADABLE


def test_an_explanation_is_plain_data(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dcm", image())

    data = json.loads(json.dumps(explain(CONFIG, [path])[0].to_json()))

    assert data["attributes"] == {"Modality": ["CT"]}
    assert data["eligible"] is True
    assert data["plan"]["forms"] == [{"form": "htj2k", "send_to": ["archive"]}]
    assert data["rules"][0]["answer"] == "no"


ENHANCED = parse(
    b"""
destinations:
  archive: {kind: folder, path: /srv/archive}
  pacs: {kind: dicom, host: 10.0.0.9, port: 104, ae_title: PACS}
rules:
  - {name: to both, match: {Modality: CT}, convert: enhanced, send_to: [archive, pacs]}
  - {name: to one, match: {Modality: MR}, convert: enhanced, send_to: [pacs]}
""",
    "c.yaml",
)


def test_a_destination_without_volumes_is_not_promised_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dcm", image())

    (explanation,) = explain(ENHANCED, [path])

    assert [(one.name, one.form) for one in explanation.destinations] == [
        ("archive", "enhanced"),
        ("pacs", "htj2k"),
    ]
    assert (explanation.plan.otherwise, explanation.not_collapsed) == (Form.HTJ2K, None)


def test_where_no_destination_takes_volumes_that_is_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dcm", image(Modality="MR"))

    (explanation,) = explain(ENHANCED, [path])

    assert [one.form for one in explanation.destinations] == ["htj2k"]
    assert explanation.plan.otherwise is None
    assert (explanation.not_collapsed or "").startswith("not_accepted")


def test_what_is_foreseen_not_to_become_a_frame_is_planned_without(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dcm", image())

    (explanation,) = explain(ENHANCED, [path], foresee=lambda path: f"because of {path.name}")

    assert explanation.not_collapsed == "because of a.dcm"
    assert [one.form for one in explanation.destinations] == ["htj2k", "htj2k"]


def test_what_came_as_htj2k_may_become_a_frame_or_stays_what_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dcm", image("1.2.840.10008.1.2.4.202"))

    (explanation,) = explain(ENHANCED, [path])
    (passed,) = explain(load(None), [path])

    assert [one.form for one in explanation.destinations] == ["enhanced", "original"]
    assert explanation.plan.otherwise is Form.ORIGINAL
    assert passed.plan.reason is PassReason.ALREADY_HTJ2K


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({}, "deleted once every destination is done with it"),
        ({"plus": "90m"}, "kept for 90 minutes more once every destination is done with it"),
        ({"plus": "1d"}, "kept for 1 day more once every destination is done with it"),
        (
            {"after": "committed"},
            "deleted once every destination is done with it and one has vouched for it; for good"
            " where none does",
        ),
        ({"after": "never"}, "kept for good"),
    ],
)
def test_how_long_an_original_is_kept_is_said_in_words(policy: dict[str, str], words: str) -> None:
    assert kept_until(DeleteOriginalsSection.model_validate(policy)) == words


def test_every_file_of_the_corpus_is_explained(corpus: Path) -> None:
    paths = [path for path in sorted(corpus.rglob("*")) if path.is_file()]

    explanations = explain(CONFIG, paths)

    assert len(explanations) == len(paths)
    assert all(json.dumps(one.to_json()) for one in explanations)
