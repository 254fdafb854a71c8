"""A stream is cut into the same heads however it is split, and nobody makes us hold more."""

from __future__ import annotations

import pytest
from http_heads import head, heads
from hypothesis import given
from hypothesis import strategies as st

from servers.http.framing import EMPTY_LINES, HeadBuffer
from servers.http.request import BadRequest, Limits

SMALL = Limits(header_bytes=300, fields=5, uri_bytes=100, body_bytes=1000)


def refused(*parts: bytes, limits: Limits = SMALL) -> int | None:
    """The status with which a stream is refused before or at the end of its first head."""
    buffer = HeadBuffer(limits)
    for part in parts:
        buffer.feed(part)
        try:
            if buffer.next_head() is not None:
                return None
        except BadRequest as bad:
            return bad.status
    return None


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[bytes, list[tuple[bytes, int]]]:
    """A stream, and the heads in it with the lengths of their bodies."""
    requests = draw(st.lists(st.tuples(heads(), st.integers(0, 40)), max_size=5))
    stream = b""
    for raw, body in requests:
        stream += b"\r\n" * draw(st.integers(0, 2)) + raw + draw(st.binary(min_size=body))[:body]
    return stream, [(raw, body) for raw, body in requests]


@st.composite
def splits(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    if draw(st.booleans()):
        return [stream[i : i + 1] for i in range(len(stream))]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(st.data())
def test_any_split_gives_the_same_heads(data: st.DataObject) -> None:
    stream, expected = data.draw(pipelines())
    buffer = HeadBuffer(Limits())
    found: list[bytes] = []
    for part in data.draw(splits(stream)):
        buffer.feed(part)
        while (raw := buffer.next_head()) is not None:
            found.append(raw)
            buffer.skip(expected[len(found) - 1][1])
    assert found == [raw for raw, _ in expected]
    assert buffer.empty
    assert not buffer.partial


@given(st.lists(st.binary(min_size=1, max_size=400) | heads(), max_size=8))
def test_no_stream_makes_it_hold_more_than_a_head(parts: list[bytes]) -> None:
    buffer = HeadBuffer(SMALL)
    for part in parts:
        buffer.feed(part)
        assert buffer.held < SMALL.header_bytes + len(part)
        try:
            while (raw := buffer.next_head()) is not None:
                assert len(raw) <= SMALL.header_bytes
        except BadRequest as bad:
            assert bad.status in (400, 414, 431)  # noqa: PT017 - both are right
            assert buffer.held == 0
        assert buffer.held < SMALL.header_bytes


@given(st.data())
def test_a_stream_is_refused_however_it_is_split(data: st.DataObject) -> None:
    bad = data.draw(
        st.sampled_from(
            [
                b"GET / HTTP/1.1\nHost: a\n\n",
                b"GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n",
                b"GET / HTTP/1.1\r\nHost: a\rb",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                b"GET /" + b"a" * 120,
                b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 7,
                b"GET / HTTP/1.1\r\nX: " + b"a" * 300,
                b"\r\n" * (EMPTY_LINES + 1),
                b"\n",
            ]
        )
    )
    expected = refused(bad)
    assert expected is not None
    assert refused(*data.draw(splits(bad))) == expected


def test_the_limits_are_refused_at_the_first_byte_that_makes_it_certain() -> None:
    line = b"GET /" + b"a" * 99 + b" HTTP/1.1"
    longest = b"OPTIONS /" + b"a" * 99 + b" HTTP/1.1\r"
    assert refused(longest) is None
    assert refused(b"OPTIONS /" + b"a" * 99 + b" HTTP/1.1a\r") == 414
    assert refused(line + b"\r\n") is None

    fields = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5
    assert refused(fields) is None
    assert refused(fields + b"\r\n") is None
    assert refused(fields + b"c") is None
    assert refused(fields + b"c: d\r\n") == 431

    begun = b"GET / HTTP/1.1\r\na: "
    assert refused(begun + b"b" * (299 - len(begun))) is None
    assert refused(begun + b"b" * (300 - len(begun))) == 431
    assert refused(begun + b"b" * (296 - len(begun)) + b"\r\n\r\n") is None
    assert refused(begun + b"b" * (297 - len(begun)) + b"\r\n\r\n") == 431


def test_a_whole_head_with_too_long_a_line_is_414() -> None:
    assert refused(head(line=f"GET /{'a' * 500} HTTP/1.1")) == 414
    assert refused(head(f"X: {'a' * 500}")) == 431


def test_128_kilobytes_of_line_and_2000_fields_are_refused() -> None:
    assert refused(b"GET /" + b"a" * 131072, limits=Limits()) == 414
    assert refused(b"A" * 131072, limits=Limits()) == 414
    assert refused(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2000, limits=Limits()) == 431
    assert refused(b"GET / HTTP/1.1\r\na: " + b"b" * 131072, limits=Limits()) == 431


def test_after_a_refusal_everything_is_refused() -> None:
    buffer = HeadBuffer(SMALL)
    buffer.feed(b"\n")
    for _ in range(3):
        with pytest.raises(BadRequest) as caught:
            buffer.next_head()
        assert caught.value.status == 400
        buffer.feed(head())
        assert buffer.held == 0


def test_a_lone_lf_between_two_heads_is_not_the_end_of_the_first() -> None:
    """It stays one head, which parse() refuses."""
    raw = b"GET / HTTP/1.1\r\nHost: a\n\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
    buffer = HeadBuffer(SMALL)
    buffer.feed(raw)
    assert buffer.next_head() == raw


@pytest.mark.parametrize("count", range(EMPTY_LINES + 1))
def test_empty_lines_before_a_request_are_ignored(count: int) -> None:
    buffer = HeadBuffer(SMALL)
    for byte in b"\r\n" * count + head():
        assert not buffer.partial or buffer.next_head() is None
        buffer.feed(bytes([byte]))
    assert buffer.next_head() == head()


def test_what_is_held_is_told() -> None:
    buffer = HeadBuffer(SMALL)
    assert (buffer.empty, buffer.partial) == (True, False)
    buffer.feed(head()[:5])
    assert buffer.next_head() is None
    assert (buffer.empty, buffer.partial, buffer.held) == (False, True, 5)
    buffer.feed(head()[5:] + b"ab")
    assert buffer.next_head() == head()
    buffer.skip(4)
    assert (buffer.empty, buffer.partial, buffer.held) == (False, False, 0)
    assert buffer.next_head() is None
    buffer.feed(b"c")
    assert (buffer.empty, buffer.partial) == (False, False)
    buffer.feed(b"dG")
    assert buffer.next_head() is None
    assert (buffer.empty, buffer.partial) == (False, True)


def test_a_body_that_looks_like_a_request_is_not_read_as_one() -> None:
    first, inner, last = head(line="POST / HTTP/1.1"), head(line="GET /no HTTP/1.1"), head()
    buffer = HeadBuffer(SMALL)
    buffer.feed(first + inner + last)
    assert buffer.next_head() == first
    buffer.skip(len(inner))
    assert buffer.next_head() == last


def test_one_byte_at_a_time_each_is_searched_a_bounded_number_of_times() -> None:
    """A search that began at the front again would take minutes here."""
    limits = Limits(header_bytes=1 << 20, uri_bytes=1 << 20)
    buffer = HeadBuffer(limits)
    buffer.feed(b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 19))
    assert buffer.next_head() is None
    for _ in range(20_000):
        buffer.feed(b"a")
        assert buffer.next_head() is None
