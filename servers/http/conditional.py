"""Preconditions (RFC 9110 13).

Facts
-----
*   The order is fixed (13.2.2): If-Match, else If-Unmodified-Since; then If-None-Match, else
    If-Modified-Since; then Range with If-Range.  The one of a pair that has an entity tag
    silences the one that has a date, even when its own value makes no sense.
*   If-Match and If-Range compare strongly (a weak tag equals nothing), If-None-Match weakly (the
    W/ does not count).  Our tags are strong.
*   An entity tag may contain commas, so a list of them is not split at commas.
*   A date that is none is ignored, as is If-Modified-Since where the method is not GET or HEAD.
*   Preconditions are only looked at where the answer without them would be a 2xx (13.2.1): the
    caller asks after it has found the file.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final

from servers.http.dates import parse_date

#: One member of a list of entity tags, with the commas before it and the one after it.
_MEMBER: Final = re.compile(r'[ \t,]*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')
_WEAK: Final = "W/"

#: Methods that select no representation, for which preconditions mean nothing (13.2.1).
_UNCONDITIONAL: Final = frozenset({"CONNECT", "OPTIONS", "TRACE"})


class Outcome(enum.Enum):
    """What the preconditions of a request make of it."""

    PROCEED = enum.auto()
    NOT_MODIFIED = enum.auto()  # 304
    FAILED = enum.auto()  # 412


def evaluate(method: str, fields: Mapping[str, str], etag: str, modified: int | None) -> Outcome:
    """Judge a request for a representation that exists, with this (strong, quoted) entity tag.

    `modified` is the Last-Modified of the answer, in seconds; where there is none (None), no
    condition that has a date means anything (13.1.3, 13.1.4).
    """
    if method in _UNCONDITIONAL:
        return Outcome.PROCEED
    reading = method in ("GET", "HEAD")

    wanted = fields.get("if-match")
    if wanted is not None:
        if wanted != "*" and etag not in _tags(wanted, strong=True):
            return Outcome.FAILED
    elif modified is not None:
        since = _date(fields, "if-unmodified-since")
        if since is not None and modified > since:
            return Outcome.FAILED

    known = fields.get("if-none-match")
    if known is not None:
        if known == "*" or etag in _tags(known, strong=False):
            return Outcome.NOT_MODIFIED if reading else Outcome.FAILED
    elif reading and modified is not None:
        since = _date(fields, "if-modified-since")
        if since is not None and modified <= since:
            return Outcome.NOT_MODIFIED
    return Outcome.PROCEED


def range_applies(fields: Mapping[str, str], etag: str, modified: int, now: int) -> bool:
    """Whether If-Range lets a Range header be heeded (13.1.5); True without If-Range.

    A date must be the exact one, and a strong validator: the second that it names is over, so
    that the file cannot change once more and keep it.  (That it did not change twice within that
    second is what the client has to know, by the Date of the answer that it has.)
    """
    value = fields.get("if-range")
    if value is None:
        return True
    if value.startswith(('"', _WEAK)):
        return value == etag
    return parse_date(value) == modified < now


def _date(fields: Mapping[str, str], name: str) -> int | None:
    value = fields.get(name)
    return None if value is None else parse_date(value)


def _tags(value: str, *, strong: bool) -> set[str]:
    """The opaque tags of a list, only the strong ones if asked; none if it is no such list."""
    tags: set[str] = set()
    position = 0
    while found := _MEMBER.match(value, position):
        if not strong or _WEAK not in value[position : found.start(1)]:
            tags.add(found[1])
        position = found.end()
    return set() if value[position:].strip(" \t,") else tags
