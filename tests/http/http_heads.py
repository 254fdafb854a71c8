"""Heads of requests for the tests of servers.http: by hand, and by hypothesis."""

from __future__ import annotations

import string

import pytest
from hypothesis import strategies as st

from servers.http.request import BadRequest, Limits, Request, parse

TOKEN = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters

#: Names that mean something to parse(): a random field must not be one of them by accident.
MEANINGFUL = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}
)

NAMES = st.text(TOKEN, min_size=1, max_size=12).filter(lambda n: n.lower() not in MEANINGFUL)
VALUES = st.text(
    st.characters(max_codepoint=255, exclude_categories=["Cc"]),
    max_size=20,
).map(lambda v: v.strip(" \t"))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)
TARGETS = st.text(string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/%?", max_size=30).map(
    lambda t: "/" + t
)


def head(*fields: str, line: str = "GET / HTTP/1.1", host: str | None = "localhost") -> bytes:
    """A request head; the fields are `name: value`, a Host goes before them."""
    lines = [line, *([] if host is None else [f"Host: {host}"]), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Valid heads without a body."""
    method = draw(st.sampled_from(["GET", "HEAD", "OPTIONS"]))
    version = draw(st.sampled_from(["1.0", "1.1"]))
    fields = [f"{name}:{' ' * len(name)}{value}" for name, value in draw(FIELDS)]
    return head(*fields, line=f"{method} {draw(TARGETS)} HTTP/{version}")


LIMITS = Limits()


def parsed(*fields: str, line: str = "GET / HTTP/1.1", host: str | None = "localhost") -> Request:
    """What parse() makes of a head."""
    return parse(head(*fields, line=line, host=host), LIMITS)


def status(raw: bytes, limits: Limits = LIMITS) -> int:
    """The status with which parse() refuses what is no head."""
    with pytest.raises(BadRequest) as caught:
        parse(raw, limits)
    assert caught.value.reason
    assert caught.value.reason.isprintable()
    return caught.value.status
