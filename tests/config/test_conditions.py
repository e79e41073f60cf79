"""What ``match`` may say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.config.conditions import (
    All,
    AnyOf,
    Between,
    Condition,
    Exists,
    MatchError,
    Not,
    Regex,
    as_number,
    describe,
    parse_match,
)


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        ("CT", AnyOf(("CT",))),
        (["CT", "MR"], AnyOf(("CT", "MR"))),
        (7, AnyOf(("7",))),
        ("", AnyOf(("",))),
        ({"not": "CT"}, Not(AnyOf(("CT",)))),
        ({"not": ["CT", "M*"]}, Not(AnyOf(("CT", "M*")))),
        ({"not": {"regex": "^C"}}, Not(Regex("^C"))),
        ({"regex": "(?i)^ct"}, Regex("(?i)^ct")),
        ({"ge": "2.5"}, Between(2.5, None)),
        ({"le": 3}, Between(None, 3)),
        ({"ge": 1, "le": 3}, Between(1, 3)),
        ({"ge": 3, "le": 3}, Between(3, 3)),
        ({"exists": "true"}, Exists(True)),
        ({"exists": False}, Exists(False)),
        ({"exists": True, "not": "CT"}, All((Exists(True), Not(AnyOf(("CT",)))))),
        ({"le": 3, "ge": 1, "not": 2}, All((Not(AnyOf(("2",))), Between(1, 3)))),
        (Exists(True), Exists(True)),
    ],
)
def test_every_form_of_value_is_understood(value: Any, condition: Condition) -> None:
    assert parse_match({"SliceThickness": value}) == {"SliceThickness": condition}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Modality", "CT"),
        ("0019,xx0C:GEMS_ACQU_01", "x"),
        ("0019,XX0c:A B", "x"),
        ("calling_ae_title", "CT*"),
        ("called_ae_title", "NODE"),
        ("peer_address", ["10.0.0.0/8", "fe80::1", "192.168.1.*", "10.0.0.9"]),
        ("transfer_syntax", ["1.2.840.10008.1.2.1", "explicitvrlittleendian", "*JPEG*"]),
        ("sop_class", ["CTImageStorage", "MR Image Storage", "1.2.3"]),
        ("instances", {"ge": 20}),
        ("PixelData", {"exists": True}),
        ("ReferencedImageSequence", {"not": {"exists": True}}),
    ],
)
def test_every_kind_of_key_is_understood(key: str, value: Any) -> None:
    assert list(parse_match({key: value})) == [key]


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ([], "must be a mapping of attributes and values"),
        ({"Modalty": "CT"}, "unknown DICOM keyword 'Modalty': did you mean 'Modality'?"),
        ({"instance": 3}, "unknown DICOM keyword 'instance': did you mean 'instances'?"),
        ({"TransferSyntaxUID": "1.2"}, "is no attribute of the dataset: use transfer_syntax"),
        ({"0018,xx0C:A": 1}, "is no private attribute: its group is odd"),
        ({"0019,0C": 1}, 'write a private attribute like "0019,xx0C:CREATOR"'),
        ({"Modality": None}, "has no value"),
        ({"Modality": []}, "is an empty list"),
        ({"Modality": {}}, "is an empty mapping"),
        ({"Modality": [["CT"]]}, "Modality.0: must be text or a number"),
        ({"Modality": {"nto": "CT"}}, "unknown condition 'nto': did you mean 'not'?"),
        ({"Modality": {"gt": 3}}, "unknown condition 'gt'"),
        ({"Modality": {"regex": "("}}, "'(' is no regular expression"),
        ({"Modality": {"regex": r"\p{L}"}}, r"'\\p{L}' is no regular expression: bad escape \p"),
        ({"Modality": {"regex": ["a"]}}, "must be a regular expression as text, not a list"),
        ({"Rows": {"ge": "many"}}, "must be a number, not 'many'"),
        ({"Rows": {"ge": 5, "le": 1}}, "Rows: no number is >= 5 and <= 1: nothing would ever"),
        (
            {"Rows": {"not": {"ge": 5, "exists": True, "le": 4.5}}},
            "Rows.not: no number is >= 5 and <= 4.5",
        ),
        ({"Rows": {"ge": True}}, "must be a number"),
        ({"Rows": {"ge": "nan"}}, "must be a number"),
        ({"Rows": {"exists": "perhaps"}}, "must be true or false, not 'perhaps'"),
        ({"peer_address": "10.0.0.0/40"}, "is no IP address or network"),
        ({"sop_class": "CTImageStorag"}, "did you mean 'CTImageStorage'?"),
        ({"instances": "many"}, "must be a number, not 'many'"),
        ({"instances": {"exists": True}}, "a series always has instances"),
        ({"PixelData": "x"}, "has no values to compare"),
        ({"PixelData": {"regex": "x"}}, "has no values to compare"),
    ],
)
def test_a_fault_is_said_in_words(match: Any, message: str) -> None:
    with pytest.raises(MatchError) as raised:
        parse_match(match)

    assert message in str(raised.value)


def test_all_faults_of_a_match_are_reported() -> None:
    with pytest.raises(MatchError) as raised:
        parse_match({"Modalty": "CT", "Rows": {"ge": "x", "le": "y"}})

    assert [fault.path for fault in raised.value.faults] == [
        ("Modalty",),
        ("Rows", "ge"),
        ("Rows", "le"),
    ]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (AnyOf(("CT",)), "CT"),
        (AnyOf(("CT", "")), 'one of CT, ""'),
        (Not(AnyOf(("CT", "MR"))), "not one of CT, MR"),
        (Between(1, 2.5), ">= 1 and <= 2.5"),
        (Between(20260101, 1e7), ">= 20260101 and <= 10000000"),
        (Between(0.1, 12345678.5), ">= 0.1 and <= 12345678.5"),
        (All((Exists(True), Regex("^a"))), "exists and regex ^a"),
        (Exists(False), "does not exist"),
    ],
)
def test_a_condition_can_be_said_in_words(condition: Condition, words: str) -> None:
    assert describe(condition) == words


@pytest.mark.parametrize(
    ("text", "number"),
    [("007", 7), (" 2.50 ", 2.5), ("1e3", 1000), ("1_0", None), ("inf", None), ("", None)],
)
def test_a_number_is_what_is_written_as_one(text: str, number: float | None) -> None:
    assert as_number(text) == number


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text(), st.lists)))
def test_anything_parses_or_has_faults(match: dict[str, Any]) -> None:
    faults = None
    try:
        parse_match(match)
    except MatchError as error:
        faults = error.faults

    assert faults is None or len(faults) > 0
