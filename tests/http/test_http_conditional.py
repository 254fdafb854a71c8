"""Preconditions are judged as RFC 9110 13.2.2 says, step by step."""

from __future__ import annotations

import string
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.http.conditional import Outcome, evaluate, range_applies
from servers.http.dates import format_date

PROCEED, NOT_MODIFIED, FAILED = Outcome.PROCEED, Outcome.NOT_MODIFIED, Outcome.FAILED
ETAG = '"a,b"'
MODIFIED = 784111777
BEFORE, SAME, AFTER = (format_date(MODIFIED + n).decode() for n in (-1, 0, 1))


def judged(method: str = "GET", **conditions: str) -> Outcome:
    fields = {name.replace("_", "-"): value for name, value in conditions.items()}
    return evaluate(method, fields, ETAG, MODIFIED)


def test_without_conditions_it_proceeds() -> None:
    assert judged() is PROCEED


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (ETAG, PROCEED),
        ("*", PROCEED),
        (f'"x", {ETAG}', PROCEED),
        (f',,"x" ,\t{ETAG} ,', PROCEED),
        (f'W/"x",{ETAG}', PROCEED),
        (f"W/{ETAG}", FAILED),  # compared strongly
        ('"x"', FAILED),
        ('"a", "b"', FAILED),
        ('"A,B"', FAILED),
        ("", FAILED),
        ("a,b", FAILED),
        ('"a,b', FAILED),
        (f"{ETAG} x", FAILED),
        (f"{ETAG}, x", FAILED),
        (f"w/{ETAG}", FAILED),
        (f"{ETAG}{ETAG}", FAILED),
        (f"*, {ETAG}", FAILED),
        ("'a,b'", FAILED),
    ],
)
def test_if_match(value: str, outcome: Outcome) -> None:
    assert judged(if_match=value) is outcome
    # it silences If-Unmodified-Since, whichever way that would go
    assert judged(if_match=value, if_unmodified_since=BEFORE) is outcome
    assert judged(if_match=value, if_unmodified_since=AFTER) is outcome


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (ETAG, NOT_MODIFIED),
        (f"W/{ETAG}", NOT_MODIFIED),  # compared weakly
        ("*", NOT_MODIFIED),
        (f'"x", W/"y", {ETAG}', NOT_MODIFIED),
        ('"x"', PROCEED),
        ('"a", "b"', PROCEED),
        ("", PROCEED),
        ("a,b", PROCEED),
        (f"{ETAG} x", PROCEED),
        (f"{ETAG}, x", PROCEED),
        (f"W/ {ETAG}", PROCEED),
    ],
)
def test_if_none_match(value: str, outcome: Outcome) -> None:
    assert judged(if_none_match=value) is outcome
    # it silences If-Modified-Since
    assert judged(if_none_match=value, if_modified_since=BEFORE) is outcome
    assert judged(if_none_match=value, if_modified_since=AFTER) is outcome
    refused = FAILED if outcome is NOT_MODIFIED else PROCEED
    assert judged("HEAD", if_none_match=value) is outcome
    assert judged("PUT", if_none_match=value) is refused


@pytest.mark.parametrize(
    ("value", "outcome"),
    [(BEFORE, PROCEED), (SAME, NOT_MODIFIED), (AFTER, NOT_MODIFIED), ("now", PROCEED)],
)
def test_if_modified_since(value: str, outcome: Outcome) -> None:
    assert judged(if_modified_since=value) is outcome
    assert judged("HEAD", if_modified_since=value) is outcome
    assert judged("PUT", if_modified_since=value) is PROCEED


@pytest.mark.parametrize(
    ("value", "outcome"), [(BEFORE, FAILED), (SAME, PROCEED), (AFTER, PROCEED), ("now", PROCEED)]
)
def test_if_unmodified_since(value: str, outcome: Outcome) -> None:
    assert judged(if_unmodified_since=value) is outcome
    assert judged("PUT", if_unmodified_since=value) is outcome


def test_what_must_hold_is_judged_before_what_must_have_changed() -> None:
    assert judged(if_match='"x"', if_none_match=ETAG) is FAILED
    assert judged(if_match=ETAG, if_none_match=ETAG) is NOT_MODIFIED
    assert judged(if_unmodified_since=BEFORE, if_modified_since=AFTER) is FAILED
    assert judged(if_unmodified_since=AFTER, if_modified_since=AFTER) is NOT_MODIFIED


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT"])
def test_methods_without_a_representation_have_no_conditions(method: str) -> None:
    assert judged(method, if_match='"x"', if_unmodified_since=BEFORE, if_none_match="*") is PROCEED


@pytest.mark.parametrize(
    ("value", "now", "applies"),
    [
        (ETAG, MODIFIED, True),
        (f"W/{ETAG}", MODIFIED, False),
        ('"x"', MODIFIED, False),
        ("a,b", MODIFIED, False),
        ("*", MODIFIED, False),
        (f'{ETAG}, "x"', MODIFIED, False),
        ("", MODIFIED, False),
        (SAME, MODIFIED + 1, True),
        (SAME, MODIFIED, False),  # the second is not over: it may change again and keep the date
        (SAME, MODIFIED - 5, False),
        (BEFORE, MODIFIED + 9, False),
        (AFTER, MODIFIED + 9, False),  # exact, not "at least"
        ("now", MODIFIED + 9, False),
    ],
)
def test_if_range(value: str, now: int, applies: bool) -> None:
    assert range_applies({"if-range": value}, ETAG, MODIFIED, now) is applies


def test_without_if_range_a_range_applies() -> None:
    assert range_applies({}, ETAG, MODIFIED, MODIFIED)


# -- random conditions against a model that never parses


Tags = str | list[tuple[bool, str]]  # "*", or (weak, opaque) each


@dataclass
class Conditions:
    match: Tags | None = None
    none_match: Tags | None = None
    modified_since: int | None = None
    unmodified_since: int | None = None
    fields: dict[str, str] = field(default_factory=dict)


OPAQUE = st.sampled_from(["", "a", "b", "a,b", "W/", "*", ", "[:1]]) | st.text(
    string.ascii_letters + ",;*W/!", max_size=4
)
GAPS = st.sampled_from(["", " ", "\t", " ,", ",, "])


@st.composite
def conditions(draw: st.DrawFn) -> Conditions:
    result = Conditions()
    tags = st.none() | st.just("*") | st.lists(st.tuples(st.booleans(), OPAQUE), max_size=4)
    moments = st.none() | st.integers(MODIFIED - 2, MODIFIED + 2)
    result.match, result.none_match = draw(tags), draw(tags)
    result.modified_since, result.unmodified_since = draw(moments), draw(moments)
    for name, wanted in (("if-match", result.match), ("if-none-match", result.none_match)):
        if isinstance(wanted, list):
            parts = [
                f'{draw(GAPS)}{"W/" if weak else ""}"{opaque}"{draw(GAPS)}'
                for weak, opaque in wanted
            ]
            result.fields[name] = ",".join(parts)
        elif wanted is not None:
            result.fields[name] = wanted
    for name, moment in (
        ("if-modified-since", result.modified_since),
        ("if-unmodified-since", result.unmodified_since),
    ):
        if moment is not None:
            result.fields[name] = format_date(moment).decode()
    return result


def model(method: str, asked: Conditions, opaque: str) -> Outcome:
    """RFC 9110 13.2.2, step by step."""
    step = 1
    if asked.match is not None:
        holds = asked.match == "*" or (False, opaque) in asked.match
        step = 3 if holds else 412
    elif asked.unmodified_since is not None:
        step = 3 if asked.unmodified_since >= MODIFIED else 412
    if step == 412:
        return FAILED
    if asked.none_match is not None:
        same = isinstance(asked.none_match, str) or opaque in [tag for _, tag in asked.none_match]
        if same and method in ("GET", "HEAD"):
            return NOT_MODIFIED
        return FAILED if same else PROCEED
    if (
        method in ("GET", "HEAD")
        and asked.modified_since is not None
        and asked.modified_since >= MODIFIED
    ):
        return NOT_MODIFIED
    return PROCEED


@given(st.sampled_from(["GET", "HEAD", "PUT", "DELETE"]), conditions(), OPAQUE)
def test_random_conditions_against_the_steps_of_the_rfc(
    method: str, asked: Conditions, opaque: str
) -> None:
    expected = model(method, asked, opaque)
    assert evaluate(method, asked.fields, f'"{opaque}"', MODIFIED) is expected


@given(st.text(st.characters(max_codepoint=255), max_size=30), st.sampled_from(["GET", "PUT"]))
def test_any_value_is_judged(value: str, method: str) -> None:
    for name in ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"):
        assert evaluate(method, {name: value}, ETAG, MODIFIED) in Outcome
    assert range_applies({"if-range": value}, ETAG, MODIFIED, MODIFIED + 9) in (True, False)
