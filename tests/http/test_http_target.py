"""Which path below a root a target names; none of them leads out of it, or to another host."""

from __future__ import annotations

from urllib.parse import quote_from_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from servers.http.request import BadRequest, Location, decode_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", Location(b"", True)),
        (b"/a", Location(b"a", False)),
        (b"/a/", Location(b"a", True)),
        (b"/a/b.txt", Location(b"a/b.txt", False)),
        (b"/a%20b/%c3%bc", Location(b"a b/\xc3\xbc", False)),
        (b"/\xc3\xbc", Location(b"\xc3\xbc", False)),
        (b"/%61%2Eb", Location(b"a.b", False)),
        (b"/a+b;c=d", Location(b"a+b;c=d", False)),
        (b"/%252e%252e/%2500", Location(b"%2e%2e/%00", False)),
        (b"/...", Location(b"...", False)),
        (b"/..a/.b", Location(b"..a/.b", False)),
        (b"/c%0a", Location(b"c\n", False)),
        (b"/%c0%ae%c0%ae/a", Location(b"\xc0\xae\xc0\xae/a", False)),  # bytes, not UTF-8's "."
        (b"/a\\..\\b", Location(b"a\\..\\b", False)),
        (b"/" + b"n" * 300, Location(b"n" * 300, False)),  # ENAMETOOLONG is the kernel's to say
        # dot segments
        (b"/.", Location(b"", True)),
        (b"/./", Location(b"", True)),
        (b"/a/.", Location(b"a", True)),
        (b"/a/./b", Location(b"a/b", False)),
        (b"/a/../b", Location(b"b", False)),
        (b"/a/b/..", Location(b"a", True)),
        (b"/a/b/../", Location(b"a", True)),
        (b"/a/..", Location(b"", True)),
        (b"/a/%2e%2E/b", Location(b"b", False)),
        (b"/a/.%2e", Location(b"", True)),
        (b"/a/%2e/b", Location(b"a/b", False)),
    ],
)
def test_what_a_path_names(path: bytes, expected: Location) -> None:
    assert decode_path(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        b"/..",
        b"/../etc/passwd",
        b"/a/../../b",
        b"/./../a",
        b"/%2e%2e/a",
        b"/%2e%2e%2fa",
        b"/a%2fb",
        b"/%2F",
        b"/a%00.html",
        b"/%00",
        b"//",
        b"//evil.example/dir",
        b"//evil.example/%2e%2e",
        b"/a//b",
        b"/a//",
        b"/.//a",
        b"*",
        b"",
    ],
)
def test_what_names_nothing(path: bytes) -> None:
    assert decode_path(path) is None


@pytest.mark.parametrize("path", [b"/%", b"/%2", b"/%zz", b"/a/%2g", b"/%-1", b"/% 1", b"/%%41"])
def test_a_bad_escape_is_400(path: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_path(path)
    assert caught.value.status == 400


PARTS = st.sampled_from(
    [
        *(b"/", b".", b"..", b"%2e", b"%2E%2e", b"%2f", b"%5c", b"\\", b"%00", b"a", b"%", b"%25"),
        *(b"%2", b"2e", b"evil.example", b"%0d%0a", b"\xff", b"%ff", b"//", b"/../", b"%2e%2e%2f"),
    ]
)


@given(st.lists(PARTS, max_size=10).map(b"".join) | st.binary(max_size=30))
@example(b"a/..%2f")
def test_a_path_never_leads_out_nor_to_another_host(rest: bytes) -> None:
    try:
        location = decode_path(b"/" + rest)
    except BadRequest:
        return
    if location is None:
        return
    names = location.path.split(b"/") if location.path else []
    assert not {b"", b".", b".."} & set(names)
    assert b"\0" not in location.path
    redirect = "/" + quote_from_bytes(location.path) + ("/" if location.path else "")
    assert redirect[:2] != "//"
    assert "\\" not in redirect
    assert "\n" not in redirect
    assert decode_path(redirect.encode()) == Location(location.path, True)
