"""Ranges are byte-exact, never more than the file, and their parts can be put together again."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.http.ranges import MAX_RANGES, content_range, length, multipart, parse

HUGE = "9" * 5000


@pytest.mark.parametrize(
    ("value", "size", "expected"),
    [
        # RFC 9110 14.1.2
        ("bytes=0-499", 10000, [(0, 500)]),
        ("bytes=500-999", 10000, [(500, 500)]),
        ("bytes=-500", 10000, [(9500, 500)]),
        ("bytes=9500-", 10000, [(9500, 500)]),
        ("bytes=0-0,-1", 10000, [(0, 1), (9999, 1)]),
        ("bytes= 0-999, 4500-5499, -1000", 10000, [(0, 1000), (4500, 1000), (9000, 1000)]),
        ("bytes=500-600,601-999", 10000, [(500, 500)]),
        ("bytes=500-700,601-999", 10000, [(500, 500)]),
        # ends
        ("bytes=0-", 1, [(0, 1)]),
        ("bytes=0-0", 1, [(0, 1)]),
        ("bytes=5-100", 10, [(5, 5)]),
        ("bytes=-100", 10, [(0, 10)]),
        ("bytes=9-", 10, [(9, 1)]),
        ("bytes=007-0009", 10, [(7, 3)]),
        # nothing there: 416
        ("bytes=10-", 10, []),
        ("bytes=10-11", 10, []),
        ("bytes=-0", 10, []),
        ("bytes=-0,10-", 10, []),
        ("bytes=0-", 0, []),
        ("bytes=0-5", 0, []),
        ("bytes=-0", 0, []),
        ("bytes=-5", 0, None),
        ("bytes=0-,-5", 0, None),
        # only what is there
        ("bytes=10-,0-0", 10, [(0, 1)]),
        ("bytes=-0,5-", 10, [(5, 5)]),
        # in the order asked for
        ("bytes=8-,0-1,4-5", 10, [(8, 2), (0, 2), (4, 2)]),
        ("bytes=8-,0-1,2-3", 10, [(8, 2), (0, 4)]),
        ("bytes=4-5,8-9,0-1,6-7", 10, [(4, 6), (0, 2)]),
        ("bytes=5-6,8-9,4-4", 10, [(4, 3), (8, 2)]),
        ("bytes=0-9,0-9,0-9", 10, [(0, 10)]),
        # what is ignored
        ("bytes=", 10, None),
        ("bytes=,", 10, None),
        ("bytes=-", 10, None),
        ("bytes=5", 10, None),
        ("bytes=5-4", 10, None),
        ("bytes=0-1,5-4", 10, None),
        ("bytes=0-1,x", 10, None),
        ("bytes=0--1", 10, None),
        ("bytes=--1", 10, None),
        ("bytes=+0-1", 10, None),
        ("bytes=0x0-1", 10, None),
        ("bytes=0 - 1", 10, None),
        ("bytes=0-1;2-3", 10, None),
        ("bytes=\xb2-", 10, None),
        ("bytes=\u0660-", 10, None),
        ("bytes=\xa00-", 10, None),
        ("bytes=1_0-", 100, None),
        ("bytes =0-1", 10, None),
        ("bytes 0-1", 10, None),
        ("lines=0-1", 10, None),
        ("", 10, None),
        # what is allowed
        ("BYTES=0-1", 10, [(0, 2)]),
        ("bytes=,, 0-1\t,,", 10, [(0, 2)]),
        # any number of digits
        (f"bytes=0-{HUGE}", 10, [(0, 10)]),
        (f"bytes=-{HUGE}", 10, [(0, 10)]),
        (f"bytes={HUGE}-", 10, []),
        (f"bytes={HUGE}-{HUGE}", 10, []),
        (f"bytes={'0' * 5000}1-2", 10, [(1, 2)]),
        (f"bytes={HUGE}-5", 10, None),
        ("bytes=5368709119-", 5368709120, [(5368709119, 1)]),
        (f"bytes={2**63 - 2}-", 2**63 - 1, [(2**63 - 2, 1)]),
    ],
)
def test_what_is_asked_for(value: str, size: int, expected: list[tuple[int, int]] | None) -> None:
    assert parse(value, size) == expected


def test_16_ranges_are_served_and_17_ignored() -> None:
    specs = [f"{2 * n}-{2 * n}" for n in range(MAX_RANGES + 1)]
    found = parse("bytes=" + ",".join(specs[:-1]), 100)
    assert found == [(2 * n, 1) for n in range(MAX_RANGES)]
    assert parse("bytes=" + ",".join(specs), 100) is None


@pytest.mark.parametrize("spec", ["0-", "0-0", "-1", "5-", "x"])
def test_1300_ranges_are_ignored(spec: str) -> None:
    assert parse("bytes=" + ",".join([spec] * 1300), 64 << 20) is None


# -- random sets against a set of bytes


Spec = tuple[int | None, int | None]  # (first, last), (first, None), (None, suffix)
GAPS = st.sampled_from(["", " ", "\t "])


@st.composite
def specs(draw: st.DrawFn) -> tuple[str, list[Spec]]:
    chosen: list[Spec] = draw(
        st.lists(
            st.one_of(
                st.tuples(st.integers(0, 40), st.integers(0, 40)).map(
                    lambda pair: (min(pair), max(pair))
                ),
                # short ones, so that some stay apart
                st.integers(0, 40).map(lambda first: (first, first + 1)),
                st.tuples(st.integers(0, 40), st.none()),
                st.tuples(st.none(), st.integers(0, 40)),
            ),
            min_size=1,
            max_size=MAX_RANGES,
        )
    )
    texts = [
        f"{draw(GAPS)}{'' if first is None else first}-{'' if last is None else last}{draw(GAPS)}"
        for first, last in chosen
    ]
    return "bytes=" + ",".join(texts), chosen


def bytes_of(spec: Spec, size: int) -> set[int]:
    first, last = spec
    everything = range(size)
    if first is None:
        assert last is not None
        return set(everything[max(0, size - last) :])
    return set(everything[first:] if last is None else everything[first : last + 1])


@given(specs(), st.integers(1, 40))
def test_a_random_set_is_the_same_set_of_bytes(asked: tuple[str, list[Spec]], size: int) -> None:
    value, chosen = asked
    found = parse(value, size)
    assert found is not None
    wanted = [bytes_of(spec, size) for spec in chosen]
    parts = [set(range(offset, offset + count)) for offset, count in found]
    assert set().union(*parts) == set().union(*wanted)
    assert sum(count for _, count in found) == len(set().union(*wanted)) <= size
    assert all(count > 0 for _, count in found)
    ends = {offset + count for offset, count in found}
    assert not ends & {offset for offset, _ in found}  # none touches another
    places = [min(n for n, spec in enumerate(wanted) if spec & part) for part in parts]
    assert places == sorted(places)


@given(specs(), st.binary(min_size=1, max_size=40))
def test_the_parts_of_a_multipart_can_be_put_together(
    asked: tuple[str, list[Spec]], content: bytes
) -> None:
    size = len(content)
    found = parse(asked[0], size)
    assert found is not None
    pieces = multipart(found, size, "text/plain; charset=utf-8", "BoUnDaRy")
    body = b"".join(
        piece if isinstance(piece, bytes) else content[piece[0] : piece[0] + piece[1]]
        for piece in pieces
    )
    assert len(body) == length(pieces)
    head = re.compile(
        rb"(?:\r\n)?--BoUnDaRy\r\nContent-Type: text/plain; charset=utf-8\r\n"
        rb"Content-Range: bytes ([0-9]+)-([0-9]+)/([0-9]+)\r\n\r\n"
    )
    position, seen = 0, []
    while part := head.match(body, position):
        first, last, whole = (int(digits) for digits in part.groups())
        assert whole == size
        position = part.end() + last + 1 - first
        assert body[part.end() : position] == content[first : last + 1]
        seen.append((first, last + 1 - first))
    assert seen == found
    assert body[position:] == (b"\r\n" if found else b"") + b"--BoUnDaRy--\r\n"


@given(st.text(st.characters(max_codepoint=0x2FF), max_size=30), st.integers(0, 50))
def test_any_value_is_understood_or_ignored(value: str, size: int) -> None:
    for text in (value, "bytes=" + value, "bytes=0-1," + value):
        found = parse(text, size)
        for offset, count in found or []:
            assert 0 <= offset < offset + count <= size


def test_content_range() -> None:
    assert content_range(0, 500, 1234) == b"bytes 0-499/1234"
