"""Names of delivered files: predictable, and never outside the folder."""

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.deliver.naming import PathTemplate, numbered, safe

DEFAULT = "{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"


def test_plain_values_are_kept_as_they_are() -> None:
    values = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "SOPInstanceUID": "1.2.3.4"}

    assert PathTemplate(DEFAULT).path_for(values) == PurePosixPath("1.2/1.2.3/1.2.3.4.dcm")


def test_padding_is_no_change() -> None:
    assert safe("1.2.3\0") == safe("1.2.3 ") == "1.2.3"


@pytest.mark.parametrize(
    "value", ["../../etc/passwd", "..", ".", "/", "a/b", "DOE^JANE", "é", "a\nb"]
)
def test_a_changed_value_carries_a_hash(value: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.]+-[0-9a-f]{8}", safe(value))


def test_values_that_look_alike_once_cleaned_stay_apart() -> None:
    assert safe("a/b") != safe("a_b") != safe("a?b") != safe("a/b")


def test_a_value_that_is_absent_counts_as_unknown() -> None:
    path = PathTemplate("{PatientID}/{SOPInstanceUID}").path_for({"SOPInstanceUID": "1.2"})

    assert path == PurePosixPath("unknown/1.2")


@given(st.text(max_size=400), st.text(max_size=400))
def test_no_value_leads_out_of_the_folder(study: str, instance: str) -> None:
    values = {"StudyInstanceUID": study, "SOPInstanceUID": instance}

    path = PathTemplate("x-{StudyInstanceUID}/{SOPInstanceUID}.dcm").path_for(values)

    assert len(path.parts) == 2
    assert not path.is_absolute()
    assert not {".", ".."} & set(path.parts)
    assert all(len(part.encode()) <= 220 for part in path.parts)
    assert all(part.isascii() and part.isprintable() for part in path.parts)


def test_many_values_in_one_component_are_shortened_to_what_a_file_system_takes() -> None:
    template = PathTemplate("{PatientID}{StudyID}{AccessionNumber}{SOPInstanceUID}.dcm")

    keywords = ("PatientID", "StudyID", "AccessionNumber", "SOPInstanceUID")
    (name,) = template.path_for(dict.fromkeys(keywords, "9" * 64)).parts

    assert len(name) <= 200
    assert name.endswith(".dcm")


def test_a_number_goes_before_the_extension_and_not_into_a_uid() -> None:
    assert numbered("1.2.3.dcm", 2) == "1.2.3~2.dcm"
    assert numbered("1.2.3.4", 3) == "1.2.3.4~3"


@pytest.mark.parametrize(
    "template",
    [
        DEFAULT,
        "arch/{StudyInstanceUID}-{PatientID}/{SOPInstanceUID}",
        "{StudyInstanceUID}/{SOPInstanceUID}.x.dcm",
    ],
)
@given(
    study=st.from_regex(r"[1-9](\.[0-9]{1,5}){1,9}", fullmatch=True),
    instance=st.from_regex(r"[1-9](\.[0-9]{1,5}){1,9}", fullmatch=True),
    number=st.integers(1, 30),
)
def test_a_path_tells_what_it_was_made_of(
    template: str, study: str, instance: str, number: int
) -> None:
    values = {"StudyInstanceUID": study, "SOPInstanceUID": instance, "PatientID": "A/B"}
    parsed = PathTemplate(template)
    path = parsed.path_for(values)
    if number > 1:
        path = path.with_name(numbered(path.name, number))

    found = parsed.pattern().fullmatch(str(path))

    assert found is not None
    assert (found["StudyInstanceUID"], found["SOPInstanceUID"]) == (study, instance)
    assert str(path).startswith(parsed.prefix_for({"StudyInstanceUID": study}))
    assert parsed.pattern().fullmatch(f"{path}/below") is None
