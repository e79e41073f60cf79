"""Which rule an instance falls under."""

import time
from typing import Any

import pytest

from scp.choose.attributes import Attribute, Attributes, read_attributes
from scp.choose.rules import Answer, Decision, Facts, RuleSet
from scp.config.schema import Outcome, Rule
from scp.model import Deliver, Form, Origin
from tests.choose.images import image

DEFAULT = Outcome(send_to=("archive",))
CT = {"Modality": "CT"}


def facts(*, instances: int | None = 1, **attributes: str | tuple[str, ...] | int) -> Facts:
    """Facts of an instance that CT1 sent; an empty tuple is an attribute without value."""
    return Facts(
        attributes=Attributes(tuple(sorted((key, _attribute(v)) for key, v in attributes.items()))),
        origin=Origin(calling_ae_title="CT1", called_ae_title="NODE", peer_address="10.0.0.9"),
        transfer_syntax="1.2.840.10008.1.2.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        instances=instances,
    )


def _attribute(value: str | tuple[str, ...] | int) -> Attribute:
    if isinstance(value, int):
        return Attribute((str(value),), is_number=True)
    return Attribute((value,) if isinstance(value, str) else value)


def rule(name: str, match: dict[str, Any], **outcome: Any) -> Rule:
    return Rule.model_validate({"name": name, "match": match, "send_to": ["pacs"], **outcome})


def matches(match: dict[str, Any], known: Facts) -> bool:
    return RuleSet([rule("a", match)], DEFAULT).decide(known).rule == "a"


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ("CT", "CT", True),
        ("ct", "CT", True),
        ("CT", "ct", True),
        ("CT", "CTA", False),
        (["MR", "CT"], "CT", True),
        (["MR", "PT"], "CT", False),
        ("C*", "CT", True),
        ("*T", "CT", True),
        ("c?", "CT", True),
        ("?", "CT", False),
        ("*", "", True),
        ("*a*b*c", "xxaxxbxxc", True),
        ("*a*b*c", "xxbxxaxxc", False),
        ("[CT]", "C", False),
        ("C.", "CT", False),
        ("CT", ("MR", "CT"), True),
        ("CT", (), False),
        ("", (), True),
        ("*", (), True),
        ("*", "a\nb", True),
        ({"not": "CT"}, "CT", False),
        ({"not": "CT"}, "MR", True),
        ({"not": "CT"}, ("MR", "CT"), False),
        ({"not": ["CT", "MR"]}, "PT", True),
        ({"regex": "^C[TR]$"}, "CT", True),
        ({"regex": "^C[TR]$"}, ("XX", "CR"), True),
        ({"regex": "^ct"}, "CT", False),
        ({"regex": "(?i)^ct"}, "CT", True),
        ({"regex": "T"}, "CTA", True),
        ({"not": {"regex": "T"}}, "CTA", False),
        ({"exists": True}, (), True),
        ({"exists": False}, (), False),
        ({"exists": True, "not": "CT"}, "MR", True),
        ({"exists": True, "not": "CT"}, "CT", False),
    ],
)
def test_text_is_compared(condition: Any, value: str | tuple[str, ...], expected: bool) -> None:
    assert matches({"Modality": condition}, facts(Modality=value)) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("CT", False),
        ({"not": "CT"}, True),
        ({"not": {"regex": "."}}, True),
        ({"not": {"ge": 1}}, True),
        ({"exists": True}, False),
        ({"exists": False}, True),
        ({"not": {"exists": True}}, True),
        ({"exists": True, "not": "CT"}, False),
        ("*", False),
        ("", False),
        ({"le": 5}, False),
    ],
)
def test_an_absent_attribute_satisfies_only_not_and_exists_false(
    condition: Any, expected: bool
) -> None:
    assert matches({"Modality": condition}, facts()) is expected


@pytest.mark.parametrize(
    ("condition", "written", "expected"),
    [
        ({"ge": 2.5}, "2.50", True),
        ({"ge": 2.5}, "2.49", False),
        ({"le": 2.5}, "2.5", True),
        ({"le": 2.5}, "2.6", False),
        ({"ge": 1, "le": 3}, "2", True),
        ({"ge": 1, "le": 3}, "4", False),
        ({"ge": 1}, "thick", False),
        ("2.5", "2.50", True),
        ("007", "7", True),
        (["1", 2.5], "2.5E0", True),
        ("2.5", "2.51", False),
        ("2*", "2.51", True),
        ({"not": 2.5}, "2.50", False),
        ({"not": {"ge": 2}}, "1", True),
    ],
)
def test_numbers_are_compared_as_numbers(condition: Any, written: str, expected: bool) -> None:
    attributes = Attributes((("SliceThickness", Attribute((written,), is_number=True)),))
    known = Facts(
        attributes=attributes,
        origin=facts().origin,
        transfer_syntax="",
        sop_class_uid="",
    )

    assert matches({"SliceThickness": condition}, known) is expected


def test_one_value_must_lie_in_the_whole_range() -> None:
    spacing = {"PixelSpacing": {"ge": 1, "le": 2}}

    assert not matches(spacing, facts(PixelSpacing=("0.5", "3")))
    assert matches(spacing, facts(PixelSpacing=("0.5", "1.5")))


def test_text_that_looks_like_a_number_is_compared_as_text() -> None:
    assert not matches({"AccessionNumber": "123"}, facts(AccessionNumber="0123"))
    assert matches({"StudyDate": {"ge": 20260101}}, facts(StudyDate="20260315"))


@pytest.mark.parametrize(
    ("key", "condition", "expected"),
    [
        ("calling_ae_title", "ct*", True),
        ("calling_ae_title", {"not": "CT1"}, False),
        ("called_ae_title", "NODE", True),
        ("called_ae_title", {"exists": True}, True),
        ("peer_address", "10.0.0.9", True),
        ("peer_address", "10.0.0.0/24", True),
        ("peer_address", ["192.168.0.0/16", "10.0.*"], True),
        ("peer_address", {"not": "10.0.0.0/8"}, False),
        ("peer_address", "fe80::/10", False),
        ("transfer_syntax", "1.2.840.10008.1.2.1", True),
        ("transfer_syntax", "explicitVRlittleEndian", True),
        ("transfer_syntax", ["ImplicitVRLittleEndian", "*JPEG*"], False),
        ("sop_class", "CTImageStorage", True),
        ("sop_class", "CT Image Storage", True),
        ("sop_class", "1.2.840.10008.5.1.4.1.1.2", True),
        ("sop_class", "1.2.840.10008.5.1.4.1.1.*", True),
        ("sop_class", {"not": "MRImageStorage"}, True),
        ("sop_class", {"regex": "^CT"}, True),
        ("instances", 20, True),
        ("instances", {"ge": 20}, True),
        ("instances", {"not": {"ge": 20}}, False),
        ("instances", {"le": 19}, False),
    ],
)
def test_how_it_came_is_compared(key: str, condition: Any, expected: bool) -> None:
    assert matches({key: condition}, facts(instances=20)) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [("::ffff:10.0.0.7", True), ("fe80::1%eth0", True), ("fe81::1", False), ("", False)],
)
def test_addresses_of_every_form_are_compared(address: str, expected: bool) -> None:
    known = Facts(
        attributes=Attributes(),
        origin=Origin(calling_ae_title="", called_ae_title="", peer_address=address),
        transfer_syntax="",
        sop_class_uid="",
    )

    assert matches({"peer_address": ["10.0.0.0/24", "fe80::/16"]}, known) is expected


def test_all_conditions_of_a_rule_must_hold() -> None:
    match = {"Modality": "CT", "calling_ae_title": "CT1"}

    assert matches(match, facts(Modality="CT"))
    assert not matches(match, facts(Modality="MR"))
    assert not matches({**match, "called_ae_title": "OTHER"}, facts(Modality="CT"))


def test_a_rule_without_match_matches_everything() -> None:
    assert matches({}, facts())


def test_the_first_rule_that_matches_wins() -> None:
    rules = RuleSet([rule("mr", {"Modality": "MR"}), rule("b", CT), rule("c", CT)], DEFAULT)

    assert rules.decide(facts(Modality="CT")).rule == "b"


def test_a_decision_says_what_the_rule_asks_for() -> None:
    asked = rule("a", CT, convert="original", deliver="at_once", send_to=["x"], quiet_seconds=3)

    decision = RuleSet([asked], DEFAULT).decide(facts(Modality="CT"))

    assert decision == Decision(
        rule="a",
        convert=Form.ORIGINAL,
        deliver=Deliver.AT_ONCE,
        send_to=("x",),
        quiet_seconds=3,
        is_urgent=True,
    )


@pytest.mark.parametrize(
    ("asked", "is_urgent"),
    [
        ({}, False),
        ({"deliver": "at_once"}, True),
        ({"deliver": "at_once", "priority": "normal"}, False),
        ({"priority": "urgent"}, True),
        ({"deliver": "at_once", "convert": "enhanced"}, False),
    ],
)
def test_what_is_delivered_at_once_is_urgent_unless_its_rule_says_otherwise(
    asked: dict[str, Any], is_urgent: bool
) -> None:
    decision = RuleSet([rule("a", CT, **asked)], DEFAULT).decide(facts(Modality="CT"))

    assert decision.is_urgent is is_urgent


def test_where_no_rule_matches_the_default_decides() -> None:
    decision = RuleSet([rule("a", CT)], DEFAULT).decide(facts(Modality="MR"))

    assert decision.rule == "default"
    assert decision.send_to == ("archive",)
    assert decision.quiet_seconds is None


def test_a_series_that_collapses_is_not_delivered_at_once() -> None:
    rules = RuleSet([rule("a", CT, convert="enhanced", deliver="at_once")], DEFAULT)

    assert rules.decide(facts(Modality="CT")).deliver is Deliver.WHEN_QUIET


@pytest.mark.parametrize(
    ("rules", "decided"),
    [
        ([("a", CT)], "a"),
        ([("a", {"Modality": "MR"})], "default"),
        ([("a", {"instances": 3}), ("b", CT)], None),
        ([("a", {"instances": {"not": 3}}), ("b", CT)], None),
        ([("a", {"instances": 3, "Modality": "MR"}), ("b", CT)], "b"),
        ([("a", {"Modality": "MR"}), ("b", {"Modality": "CT", "instances": 3})], None),
        ([("a", CT), ("b", {"instances": 3})], "a"),
        ([("a", {"instances": 3})], None),
    ],
)
def test_while_the_series_is_open_only_what_is_sure_is_decided(
    rules: list[tuple[str, dict[str, Any]]], decided: str | None
) -> None:
    rule_set = RuleSet([rule(name, match) for name, match in rules], DEFAULT)

    decision = rule_set.decide_open(facts(Modality="CT", instances=None))

    assert (decision and decision.rule) == decided


@pytest.mark.parametrize("instances", [1, 3, 4])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_what_is_decided_early_is_decided_in_the_end(instances: int, modality: str) -> None:
    rule_set = RuleSet(
        [
            rule("a", {"Modality": "MR", "instances": {"ge": 3}}),
            rule("b", {"instances": 4, "Modality": "PT"}),
            rule("c", CT),
        ],
        DEFAULT,
    )

    early = rule_set.decide_open(facts(Modality=modality, instances=None))

    assert early in (None, rule_set.decide(facts(Modality=modality, instances=instances)))
    assert (early is None) is (modality == "MR")


def test_a_series_is_split_where_a_matched_attribute_differs() -> None:
    rule_set = RuleSet([rule("scouts", {"ImageType": "LOCALIZER"})], DEFAULT)
    contents = {
        "scout": image(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "first": image(),
        "second": image(SOPInstanceUID="1.2.9"),
    }
    members = {
        name: Facts(
            attributes=read_attributes(content, rule_set.wanted),
            origin=facts().origin,
            transfer_syntax="",
            sop_class_uid="",
            instances=3,
        )
        for name, content in contents.items()
    }

    parts = rule_set.split(members)

    assert [(decision.rule, names) for decision, names in parts.items()] == [
        ("scouts", ["scout"]),
        ("default", ["first", "second"]),
    ]


def test_only_what_is_matched_on_is_read() -> None:
    rule_set = RuleSet([rule("a", {"Modality": "CT", "instances": 3})], DEFAULT)

    assert rule_set.wanted.public == {0x00080060: "Modality"}
    assert rule_set.wanted.stop_before == 0x00080061


def test_the_identity_changes_with_the_rules_and_only_with_them() -> None:
    identity = RuleSet([rule("a", CT)], DEFAULT).identity

    assert RuleSet([rule("a", CT)], DEFAULT).identity == identity
    changed = [
        RuleSet([rule("b", CT)], DEFAULT),
        RuleSet([rule("a", {"Modality": "MR"})], DEFAULT),
        RuleSet([rule("a", CT, quiet_seconds=3)], DEFAULT),
        RuleSet([rule("a", CT, convert="original")], DEFAULT),
        RuleSet([rule("a", CT), rule("b", CT)], DEFAULT),
        RuleSet([rule("a", CT)], Outcome(send_to=())),
    ]
    assert identity not in {rule_set.identity for rule_set in changed}
    assert len({rule_set.identity for rule_set in changed}) == len(changed)


def test_every_rule_says_which_condition_failed() -> None:
    rule_set = RuleSet([rule("a", {"Modality": "MR", "instances": 3}), rule("b", CT)], DEFAULT)

    first, second = rule_set.answers(facts(Modality="CT", instances=None))

    assert first.answer is Answer.NO
    assert first.conditions == (("Modality", Answer.NO), ("instances", Answer.UNKNOWN))
    assert second.answer is Answer.YES


SLOW = {"PatientComments": {"regex": "(a|aa)+$"}}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("match", "expected"),
    [(SLOW, False), ({"PatientComments": {"not": SLOW["PatientComments"]}}, True)],
)
def test_a_regex_that_takes_too_long_is_no_match(match: dict[str, Any], expected: bool) -> None:
    hostile = "a" * 60 + "b"

    assert matches(match, facts(PatientComments="aaa")) is not expected
    assert matches(match, facts(PatientComments=hostile)) is expected
    assert matches(match, facts(PatientComments=(hostile,) * 1000)) is expected


@pytest.mark.timeout(20)
def test_many_values_have_no_more_time_than_one(caplog: pytest.LogCaptureFixture) -> None:
    spent = time.process_time()

    assert not matches(SLOW, facts(PatientComments=("a" * 20 + "b",) * 5000))

    assert time.process_time() - spent < 0.5
    assert len(caplog.messages) == 1


@pytest.mark.timeout(20)
def test_a_regex_that_takes_too_long_is_said_once_a_rule_and_without_the_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rules = RuleSet([rule("first", SLOW), rule("second", SLOW | CT)], DEFAULT)

    for number in range(3):
        hostile = "a" * (60 + number) + "b"
        rules.decide(facts(PatientComments=hostile, Modality="CT"))

    first, second = caplog.messages
    assert first.startswith("rule 'first': the regex for PatientComments took too long")
    assert second.startswith("rule 'second': ")
    assert "aaa" not in caplog.text


@pytest.mark.timeout(20)
def test_a_value_that_takes_too_long_does_so_once_for_all_instances_of_a_series() -> None:
    rules = RuleSet([rule("a", SLOW)], DEFAULT)
    spent = time.process_time()

    for number in range(1000):
        rules.decide(facts(PatientComments="a" * 60 + "b", instances=number))

    assert time.process_time() - spent < 2


@pytest.mark.timeout(10)
def test_a_glob_takes_no_exponential_time_whatever_a_sender_writes() -> None:
    pattern = "*" + "a*" * 50 + "b"

    assert not matches({"Modality": pattern}, facts(Modality="a" * 16_000))
