"""Expressions mean what they mean to Python's ``re``, and can be stopped."""

import re
import warnings

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scp.config.regexes import compile_regex

PIECES = st.sampled_from(
    [
        *"aab2[]{}(),|*+?^$.-:#e \n",
        *("(?:", "(?=", "(?!", "(?<=", "(?>", "(?i)", "(?x)", "(?#", "(?P<n>", "(?P=n)", "[^"),
        *("[:alpha:]", "--", "&&", "{2}", "{,2}", "{1,2}", "{e}", "{e<=1}", "{ 2 }", "*+", "+?"),
        *("\\d", "\\b", "\\1", "\\[", "\\{", "\\N{DIGIT TWO}"),
    ]
)


@given(
    st.lists(PIECES, min_size=1, max_size=9).map("".join),
    st.lists(st.text("aab2[]{}e:-,# \n", max_size=6), min_size=4, max_size=4),
)
def test_what_re_takes_means_the_same(pattern: str, values: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = re.compile(pattern)
        except re.error:
            assume(False)

    found = compile_regex(pattern)

    for value in values:
        assert bool(found.search(value, timeout=5)) is bool(expected.search(value))


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("^a{e<=1}$", "b", False),
        ("^a{e<=1}$", "a{e<=1}", True),
        ("^[[:alpha:]]$", "b", False),
        ("^[[:alpha:]]$", ":]", True),
        (r"^[\[[:alpha:]]$", "[]", True),
        ("(?x) ^a { 2 }$", "aa", False),
        (r"^\N{DIGIT TWO}{2}$", "22", True),
        ("(?#{)^a{2}$", "aa", True),
    ],
)
def test_what_only_the_library_takes_for_syntax_is_text(
    pattern: str, value: str, expected: bool
) -> None:
    assert bool(compile_regex(pattern).search(value)) is expected


@pytest.mark.parametrize("pattern", ["(", "[a", "a{2}{3}", r"\p{L}", "(?R)", "(?|a|b)", "(?<=a*)b"])
def test_what_re_does_not_take_is_none(pattern: str) -> None:
    with pytest.raises(re.error) as expected:
        re.compile(pattern)

    with pytest.raises(ValueError, match=re.escape(str(expected.value))):
        compile_regex(pattern)


@pytest.mark.timeout(20)
def test_a_search_can_be_stopped() -> None:
    search = compile_regex("(a|aa)+$").search

    with pytest.raises(TimeoutError):
        search("a" * 60 + "b", timeout=0.02)
