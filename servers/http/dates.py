"""HTTP-date (RFC 9110 5.6.7), and the Date header's value, made once a second.

Facts
-----
*   One form is sent, IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`.  Three are read: that one,
    RFC 850's with a two-digit year, and asctime's.  All are case-sensitive and always GMT.
*   strftime(3) speaks the locale's language; the names here are the RFC's.
*   A two-digit year that seems to lie more than 50 years ahead is the latest past year with the
    same digits.
*   A second may be 60.  Day names are not compared with their dates: nobody does, and the date
    says all.
*   Four digits of a year end in 9999; a file's time may lie beyond, or before year 1.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable
from typing import Final

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)

#: The first and the last second that four digits of a year can say.
EARLIEST: Final = -62_135_596_800
LATEST: Final = 253_402_300_799

#: date.toordinal() of 1 January 1970.
EPOCH: Final = 719_163

_DAY: Final = "|".join(DAYS)
_LONG_DAY: Final = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_MONTH: Final = f"(?P<month>{'|'.join(MONTHS)})"
_TIME: Final = "(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_FORMS: Final = tuple(
    re.compile(form)
    for form in (
        f"(?:{_DAY}), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        f"(?:{_LONG_DAY}), (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        f"(?:{_DAY}) {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)


def format_date(seconds: int) -> bytes:
    """IMF-fixdate of a Unix time; what four digits of a year cannot say, the nearest that can."""
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(
        min(max(seconds, EARLIEST), LATEST)
    )
    return (
        f"{DAYS[weekday]}, {day:02} {MONTHS[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{second:02} GMT"
    ).encode("ascii")


def parse_date(text: str, now: int | None = None) -> int | None:
    """The Unix time that `text` says in one of the three forms, else None.

    `now` is what a two-digit year is compared with; the clock's time unless given.
    """
    for form in _FORMS:
        found = form.fullmatch(text)
        if found is not None:
            break
    else:
        return None
    year, month, day = int(found["year"]), MONTHS.index(found["month"]) + 1, int(found["day"])
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"])
    if len(found["year"]) == 2:
        today = time.gmtime(time.time() if now is None else now)
        horizon = today.tm_year + 50
        year = horizon - (horizon - year) % 100
        if (year, month, day, hour, minute, second) > (horizon, *today[1:6]):
            year -= 100
    try:
        days = datetime.date(year, month, day).toordinal() - EPOCH
    except ValueError:  # 31 February, year 0
        return None
    return days * 86400 + hour * 3600 + minute * 60 + second


class Clock:
    """The Date header's value, made once a second.

    A server keeps what `now()` gave and asks again when the monotonic clock has reached `until`:

        if monotonic() >= until:
            date, until = clock.now()

    A clock that somebody sets meanwhile is noticed within that second.
    """

    __slots__ = ("_date", "_monotonic", "_until", "_wall")

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._date = b""
        self._until = float("-inf")

    def now(self) -> tuple[bytes, float]:
        """(the value of Date, the time.monotonic() until which it stays right)."""
        began = self._monotonic()
        if began >= self._until:
            # The monotonic clock was read first: `until` may come early by the time in between,
            # and then the same date is made twice, but never late.
            seconds, fraction = divmod(self._wall(), 1)
            self._date = format_date(int(seconds))
            self._until = began + (1 - fraction)
        return self._date, self._until
