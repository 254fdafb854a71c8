"""HTTP-date is written in one form and read in three; the Date header is made once a second."""

from __future__ import annotations

import calendar
import email.utils
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.http.dates import EARLIEST, LATEST, Clock, format_date, parse_date

SECONDS = st.integers(EARLIEST, LATEST)
MOMENT = 784111777  # RFC 9110's example
NOW = calendar.timegm((2026, 6, 15, 12, 0, 0))


def test_the_example_of_the_rfc() -> None:
    assert format_date(MOMENT) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert parse_date("Sun, 06 Nov 1994 08:49:37 GMT") == MOMENT
    assert parse_date("Sunday, 06-Nov-94 08:49:37 GMT") == MOMENT
    assert parse_date("Sun Nov  6 08:49:37 1994") == MOMENT


@given(SECONDS)
def test_what_is_written_is_what_the_standard_library_writes(seconds: int) -> None:
    text = format_date(seconds).decode()
    assert parse_date(text) == seconds
    if seconds >= -59_000_000_000:  # below year 100 format_datetime() leaves digits out
        expected = datetime(*time.gmtime(seconds)[:6], tzinfo=UTC)
        assert text == email.utils.format_datetime(expected, usegmt=True)


@given(SECONDS)
def test_asctime_is_read(seconds: int) -> None:
    year, *rest = time.gmtime(seconds)
    text = time.asctime(time.struct_time((2000, *rest)))  # asctime(3) pads no year
    assert parse_date(f"{text[:-4]}{year:04}") == seconds


@given(st.integers(calendar.timegm((1977, 1, 1, 0, 0, 0)), NOW + 49 * 365 * 86400))
def test_two_digits_of_a_year_mean_the_nearest(seconds: int) -> None:
    text = time.strftime("%d-", time.gmtime(seconds))
    text += format_date(seconds)[8:11].decode() + time.strftime("-%y %T", time.gmtime(seconds))
    assert parse_date(f"Monday, {text} GMT", now=NOW) == seconds


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("Monday, 15-Jun-76 12:00:00 GMT", 2076),  # just 50 years ahead
        ("Monday, 15-Jun-76 12:00:01 GMT", 1976),  # more
        ("Monday, 16-Jun-76 00:00:00 GMT", 1976),
        ("Monday, 01-Jan-77 00:00:00 GMT", 1977),
        ("Monday, 01-Jan-00 00:00:00 GMT", 2000),
        ("Monday, 01-Jan-99 00:00:00 GMT", 1999),
    ],
)
def test_more_than_50_years_ahead_is_the_past(text: str, year: int) -> None:
    seconds = parse_date(text, now=NOW)
    assert seconds is not None
    assert time.gmtime(seconds).tm_year == year


def test_a_leap_second_is_read() -> None:
    assert parse_date("Sat, 31 Dec 2016 23:59:60 GMT") == calendar.timegm((2017, 1, 1, 0, 0, 0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "784111777",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 29 Feb 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun, \xb26 Nov 1994 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-094 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 94",
        "Sun Nov  6 08:49:37 1994 GMT",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert parse_date(text) is None


@given(SECONDS, st.integers(0, 28), st.characters())
def test_a_spoilt_date_is_another_date_or_none(seconds: int, where: int, spoilt: str) -> None:
    text = format_date(seconds).decode()
    text = text[:where] + spoilt + text[where + 1 :]
    found = parse_date(text)
    assert found is None or format_date(found)[5:].decode() == text[5:] or ":60 GMT" in text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(LATEST + 1, LATEST), (1 << 80, LATEST), (EARLIEST - 1, EARLIEST), (-(1 << 80), EARLIEST)],
)
def test_years_that_four_digits_cannot_say(seconds: int, expected: int) -> None:
    assert format_date(seconds) == format_date(expected)


def test_the_date_is_made_once_a_second() -> None:
    wall, monotonic = MOMENT + 0.25, 100.0
    clock = Clock(lambda: wall, lambda: monotonic)
    first, until = clock.now()
    assert (first, until) == (format_date(MOMENT), 100.75)
    wall, monotonic = MOMENT + 0.875, 100.625
    assert clock.now()[0] is first
    wall, monotonic = MOMENT + 1.0, 100.75
    assert clock.now() == (format_date(MOMENT + 1), 101.75)


def test_a_clock_that_was_set_is_noticed_within_a_second() -> None:
    wall, monotonic = float(MOMENT), 100.0
    clock = Clock(lambda: wall, lambda: monotonic)
    clock.now()
    wall, monotonic = MOMENT - 3600.0, 101.0
    assert clock.now()[0] == format_date(MOMENT - 3600)


def test_the_real_date_is_the_present_one() -> None:
    clock = Clock()
    before, asked = int(time.time()), time.monotonic()
    date, until = clock.now()
    seconds = parse_date(date.decode())
    assert seconds is not None
    assert before <= seconds <= time.time()
    assert asked < until <= time.monotonic() + 1
