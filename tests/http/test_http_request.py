"""What parse() takes for a request, what it makes of it, and what it refuses with which status."""

from __future__ import annotations

import pytest
from http_heads import FIELDS, LIMITS, MEANINGFUL, TARGETS, head, heads, parsed, status
from hypothesis import example, given
from hypothesis import strategies as st

from servers.http.request import CHUNKED, METHODS, BadRequest, Limits, Request, parse


def test_a_browsers_request() -> None:
    request = parse(
        b"GET /static/app.js?v=1?2 HTTP/1.1\r\n"
        b"Host: example.com:8080\r\n"
        b"Connection: keep-alive\r\n"
        b'sec-ch-ua: "Chromium";v="124"\r\n'
        b"Accept-Encoding:gzip, br \t\r\n"
        b"X-Empty:\r\n"
        b"Cache-Control: no-cache\r\n"
        b"cache-control: \tno-store\r\n\r\n",
        LIMITS,
    )
    assert request == Request(
        method="GET",
        target=b"/static/app.js?v=1?2",
        path=b"/static/app.js",
        query=b"v=1?2",
        version=(1, 1),
        fields={
            "host": "example.com:8080",
            "connection": "keep-alive",
            "sec-ch-ua": '"Chromium";v="124"',
            "accept-encoding": "gzip, br",
            "x-empty": "",
            "cache-control": "no-cache, no-store",
        },
        keep_alive=True,
        body=0,
        continues=False,
    )


@given(FIELDS, TARGETS)
@example([("a", ""), ("b", ""), ("a", "1")], "/")
def test_every_field_arrives_as_it_was_sent(fields: list[tuple[str, str]], target: str) -> None:
    request = parsed(*(f"{n}: {v}\t" for n, v in fields), line=f"GET {target} HTTP/1.1")
    expected: dict[str, list[str]] = {}
    for name, value in [("host", "localhost"), *fields]:
        expected.setdefault(name.lower(), []).append(value)
    assert request.fields == {name: ", ".join(values) for name, values in expected.items()}
    assert request.target == target.encode()
    assert b"?".join(filter(None, (request.path, request.query))) in (
        request.target,
        request.target.rstrip(b"?"),
    )


# -- the request line


@pytest.mark.parametrize("method", sorted(METHODS - {"CONNECT"}))
def test_methods_of_the_rfc_are_known(method: str) -> None:
    assert parsed(line=f"{method} /a HTTP/1.1").method == method


@pytest.mark.parametrize("method", ["get", "PROPFIND", "SOURCE", "PRI", "GETX", "!"])
def test_other_methods_are_not_implemented(method: str) -> None:
    assert status(head(line=f"{method} / HTTP/1.1")) == 501


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.0", (1, 0)), ("1.1", (1, 1)), ("1.2", (1, 1)), ("1.9", (1, 1))],
)
def test_a_minor_version_above_ours_is_served_as_ours(
    version: str, expected: tuple[int, int]
) -> None:
    assert parsed(line=f"GET / HTTP/{version}").version == expected


@pytest.mark.parametrize("version", ["0.9", "2.0", "3.0", "0.0"])
def test_other_major_versions_are_505(version: str) -> None:
    assert status(head(line=f"GET / HTTP/{version}")) == 505


def test_the_preface_of_http_2_is_505() -> None:
    assert status(b"PRI * HTTP/2.0\r\n\r\n") == 505


@pytest.mark.parametrize(
    "line",
    [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/11",
        "GET / http/1.1",
        "GET / HTTP/1.\xb9",  # isdigit(), and no digit
        "GET / ICE/1.0",
        "GET /",
        "GET HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\x00 HTTP/1.1",
        "GET /a\x7f HTTP/1.1",
        "G\x00T / HTTP/1.1",
        "G(T / HTTP/1.1",
        "/ HTTP/1.1",
        "",
        "\r\nGET / HTTP/1.1",  # framing.py takes these away
        "GET /#fragment HTTP/1.1",
        "GET a HTTP/1.1",
        "GET a.example:80 HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET \\a HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://:80/a HTTP/1.1",
        "GET http://user@a/ HTTP/1.1",
        "GET http://user:password@a/ HTTP/1.1",
        "GET http://a:x/ HTTP/1.1",
        "GET http://a%2/ HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "GET http://a\\b/ HTTP/1.1",
        "GET http://a/#b HTTP/1.1",
    ],
)
def test_malformed_request_lines_are_400(line: str) -> None:
    assert status(head(line=line)) == 400


@pytest.mark.parametrize(
    ("line", "path", "query", "host"),
    [
        ("GET /a?b HTTP/1.1", b"/a", b"b", "localhost"),
        ("GET /? HTTP/1.1", b"/", b"", "localhost"),
        ("GET //evil.example/ HTTP/1.1", b"//evil.example/", b"", "localhost"),
        ("GET /\xc3\xbc%C3%BC HTTP/1.1", b"/\xc3\xbc%C3%BC", b"", "localhost"),
        ("GET /http://a/ HTTP/1.1", b"/http://a/", b"", "localhost"),
        ("GET http://other:81/a/b?c HTTP/1.1", b"/a/b", b"c", "other:81"),
        ("GET HTTP://Other HTTP/1.1", b"/", b"", "Other"),
        ("GET https://other/ HTTP/1.1", b"/", b"", "other"),
        ("GET http://other?c/d HTTP/1.1", b"/", b"c/d", "other"),
        ("GET http://[::1]:81//a HTTP/1.1", b"//a", b"", "[::1]:81"),
        ("OPTIONS * HTTP/1.1", b"*", b"", "localhost"),
        ("OPTIONS http://other HTTP/1.1", b"*", b"", "other"),
        ("OPTIONS http://other/ HTTP/1.1", b"/", b"", "other"),
        ("CONNECT other:443 HTTP/1.1", b"", b"", "localhost"),
    ],
)
def test_the_forms_of_a_target(line: str, path: bytes, query: bytes, host: str) -> None:
    request = parsed(line=line)
    assert request.target == line.encode("latin-1").split(b" ")[1]
    assert (request.path, request.query, request.fields["host"]) == (path, query, host)


# -- Host


@pytest.mark.parametrize(
    "host",
    ["", "a", "a.example:8080", "a:", "127.0.0.1", "[::1]", "[::1]:80", "[v1.x:y]", "a_b", "%41"],
)
def test_hosts_of_any_name_are_accepted(host: str) -> None:
    assert parsed(host=host).fields["host"] == host


@pytest.mark.parametrize(
    "host",
    ["a b", "a/b", "a:b", "a:1:2", "u@a", "a?", "a#", "[::1", "::1", "[g]", "%4", "a\\b", "\xfc"],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_invalid_host_is_400(host: str, version: str) -> None:
    assert status(head(host=host, line=f"GET / HTTP/{version}")) == 400


@pytest.mark.parametrize("second", ["localhost", "other", ""])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_two_hosts_are_400(second: str, version: str) -> None:
    assert status(head(f"host: {second}", line=f"GET / HTTP/{version}")) == 400
    assert status(head(f"host: {second}", host="", line=f"GET / HTTP/{version}")) == 400


def test_a_host_is_missing_in_http_1_1_only() -> None:
    assert status(head(host=None)) == 400
    assert status(head(host=None, line="GET http://a/ HTTP/1.1")) == 400
    assert parsed(host=None, line="GET / HTTP/1.0").fields == {}


# -- the connection


@pytest.mark.parametrize(
    ("version", "connection", "expected"),
    [
        ("1.1", None, True),
        ("1.0", None, False),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "keep-alive, close", False),
        ("1.1", "x,close", False),
        ("1.1", "closed", True),
        ("1.1", "", True),
        ("1.0", "keep-alive", True),
        ("1.0", "x , Keep-Alive", True),
        ("1.0", "keep-alive, close", False),
        ("1.0", "x", False),
        ("1.1", "Upgrade, HTTP2-Settings", True),
    ],
)
def test_persistence(version: str, connection: str | None, expected: bool) -> None:
    fields = [] if connection is None else [f"Connection: {connection}"]
    assert parsed(*fields, line=f"GET / HTTP/{version}").keep_alive is expected


def test_an_upgrade_is_ignored() -> None:
    asked = ["Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Key: x"]
    request = parsed(*asked)
    assert request.keep_alive
    assert request.fields["sec-websocket-key"] == "x"


@pytest.mark.parametrize(
    ("version", "fields", "expected"),
    [
        ("1.1", ["Content-Length: 5", "Expect: 100-continue"], True),
        ("1.1", ["Transfer-Encoding: chunked", "Expect: 100-Continue, 100-continue"], True),
        ("1.1", ["Expect: 100-continue"], False),  # no body to wait for
        ("1.1", ["Content-Length: 5", "Expect:"], False),
        ("1.0", ["Content-Length: 5", "Expect: 100-continue"], False),
    ],
)
def test_an_expectation(version: str, fields: list[str], expected: bool) -> None:
    assert parsed(*fields, line=f"PUT / HTTP/{version}").continues is expected


@pytest.mark.parametrize("expect", ["200-ok", "100-continue, x", "100-continued"])
def test_another_expectation_is_417(expect: str) -> None:
    assert status(head(f"Expect: {expect}")) == 417


# -- limits


def test_the_limits_are_exact() -> None:
    limits = Limits(header_bytes=200, fields=3, uri_bytes=50)
    longest = head(line=f"GET /{'a' * 49} HTTP/1.1")
    assert len(parse(longest, limits).target) == 50
    assert status(head(line=f"GET /{'a' * 50} HTTP/1.1"), limits) == 414

    assert len(parse(head("a: b", "c: d"), limits).fields) == 3
    assert status(head("a: b", "c: d", "e: f"), limits) == 431

    room = 200 - len(head("a: "))
    assert parse(head(f"a: {'b' * room}"), limits).fields["a"] == "b" * room
    assert status(head(f"a: {'b' * (room + 1)}"), limits) == 431


def test_many_fields_of_one_name_count() -> None:
    assert status(head(*["a: b"] * 100)) == 431
    assert parsed(*["a: b"] * 99).fields["a"].count("b") == 99


@pytest.mark.parametrize(
    "raw", [b"", head()[:-2], head()[:-1], head() + b"x", head() + head(), b"\r\n\r\n"]
)
def test_what_is_not_exactly_one_head_is_400(raw: bytes) -> None:
    assert status(raw) == 400


# -- whatever comes


def check_accepted(raw: bytes) -> None:
    """If parse() takes it, then a plain reading of the lines finds nothing ambiguous."""
    try:
        request = parse(raw, LIMITS)
    except BadRequest as bad:
        assert bad.status in (400, 413, 414, 417, 431, 501, 505)  # noqa: PT017 - both are right
        return
    assert raw.endswith(b"\r\n\r\n")
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    _, *lines = raw[:-4].split(b"\r\n")
    names = [line.partition(b":")[0].lower().decode() for line in lines]
    assert all(names)
    assert not any(name[-1] in " \t" or name[0] in " \t" for name in names)
    assert names.count("host") == 1 or (names.count("host") == 0 and request.version == (1, 0))
    assert names.count("content-length") + names.count("transfer-encoding") <= 1
    assert set(request.fields) == set(names) | (
        {"host"} if request.target[:4].lower() == b"http" else set()
    )
    if "transfer-encoding" in names:
        assert request.body == CHUNKED
        assert request.version == (1, 1)
    elif "content-length" not in names:
        assert request.body == 0
    assert request.path[:1] == b"/" or (request.method, request.path) in (
        ("OPTIONS", b"*"),
        ("CONNECT", b""),
    )


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_bad_request(raw: bytes) -> None:
    check_accepted(raw)
    check_accepted(raw + b"\r\n\r\n")
    check_accepted(b"GET " + raw + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    check_accepted(b"GET / HTTP/1.1\r\nHost: a\r\n" + raw + b"\r\n\r\n")


PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"\r\n ", b"\r\n\r\n", b"\xff"),
        *(b"Host: b\r\n", b"Host : b\r\n", b"Content-Length: 3\r\n", b"Content-Length: 4, 4\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: xchunked\r\n", b"HTTP/1.0"),
        *(b"Upgrade: x\r\nConnection: upgrade\r\n", b"Expect: 100-continue\r\n", b"#", b"http://"),
    ]
)


@given(heads(), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), PIECES), max_size=4))
def test_mutated_heads_raise_nothing_but_bad_request(
    raw: bytes, mutations: list[tuple[int, int, bytes]]
) -> None:
    for where, removed, inserted in mutations:
        where %= len(raw) + 1
        raw = raw[:where] + inserted + raw[where + removed :]
    check_accepted(raw)


@given(heads())
def test_valid_heads_are_accepted(raw: bytes) -> None:
    request = parse(raw, LIMITS)
    assert request.fields["host"] == "localhost"
    assert not MEANINGFUL & (set(request.fields) - {"host"})
    assert request.keep_alive is (request.version == (1, 1))
