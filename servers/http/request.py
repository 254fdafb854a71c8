"""The head of a request: bytes in, a checked `Request` out (RFC 9110, RFC 9112).

Facts about httptools (llhttp)
------------------------------
*   It takes several spaces in a request line, a fragment in a target, and SOURCE with ICE/1.0;
    it refuses HTTP/1.2, which RFC 9110 2.5 has us serve as 1.1, and UTF-8 in a target, which
    curl sends.  So the request line is read here, by one regular expression, and llhttp gets a
    line of ours and the fields of the client.
*   It refuses what a field line must not have: obs-fold, a space before the colon, a CR or LF
    alone, control characters, names that are no tokens; and two Content-Length, an empty or odd
    one, one beside Transfer-Encoding.  All of these are 400.
*   It calls a Transfer-Encoding that it does not know an error, but only after
    on_headers_complete(): the fields are all there then, and the status (501) is ours to find.
*   It leaves white space at the end of a value, knows nothing of Host, and raises
    HttpParserUpgrade when the fields are complete and ask for one.  We never upgrade.
*   A new parser costs 0.3 us and has no past.  One that is kept would: it counts bodies, and
    refuses to go on after `Connection: close`.

What a request may ask of the connection
----------------------------------------
Whatever makes it uncertain where the next request begins is an error, and an error closes the
connection (BadRequest).  A body that is chunked or longer than `Limits.body_bytes` will not be
read at all: `keep_alive` is False then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import httptools

# Whoever parses also needs these; they have files of their own.
from servers.http.errors import BadRequest as BadRequest
from servers.http.target import Location as Location
from servers.http.target import decode_path as decode_path

#: RFC 9110's, and PATCH (RFC 5789).  They are case-sensitive.
METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)

#: What a request line has beside its target, at most: `OPTIONS ` and ` HTTP/1.1`.
AROUND_TARGET: Final = 8 + 9

CHUNKED: Final = -1

_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) HTTP/([0-9])\.([0-9])\r\n"
)
#: uri-host [":" port] of RFC 3986; a name may be empty (RFC 9112 3.2).
_AUTHORITY: Final = re.compile(
    r"(?:\[(?:[0-9A-Fa-f:.]+|v[0-9A-Fa-f]+\.[-._~!$&'()*+,;=:0-9A-Za-z]+)\]"
    r"|(?:[-._~!$&'()*+,;=0-9A-Za-z]|%[0-9A-Fa-f]{2})*)"
    r"(?::[0-9]*)?"
)
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may make us hold."""

    header_bytes: int = 16384  # a head, with its request line and empty line: 431
    fields: int = 100  # 431
    uri_bytes: int = 8192  # the target: 414
    body_bytes: int = 65536  # a longer body is not drained: the connection closes instead


@dataclass(slots=True)
class Request:
    """One request without its body."""

    method: str
    target: bytes  # as it was sent
    path: bytes  # the target's, still percent-encoded; b"*" for the server, b"" for CONNECT
    query: bytes  # what came after the first "?"
    version: tuple[int, int]  # (1, 0) or (1, 1)
    fields: dict[str, str]  # lower-case name -> value; repeated ones joined with ", "; latin-1
    keep_alive: bool
    body: int  # how many bytes follow the head; CHUNKED: as many as the chunks say
    continues: bool  # a body follows, after a "100 Continue" (or a while)


class _Fields:
    """llhttp's callbacks."""

    __slots__ = ("complete", "fields")

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower().decode("latin-1")
        text = value.rstrip(b" \t").decode("latin-1")
        if key in self.fields:
            self.fields[key] += ", " + text
        else:
            self.fields[key] = text

    def on_headers_complete(self) -> None:
        self.complete = True


def parse(head: bytes, limits: Limits) -> Request:
    """Everything from the request line to the empty line, both included.  Raises BadRequest."""
    line = _LINE.match(head)
    if line is None:
        raise BadRequest(400, "malformed request line")
    method, target, major, minor = line.groups()
    if len(target) > limits.uri_bytes:
        raise BadRequest(414, f"target longer than {limits.uri_bytes} bytes")
    if len(head) > limits.header_bytes:
        raise BadRequest(431, f"head longer than {limits.header_bytes} bytes")
    if head.count(b"\n") - 2 > limits.fields:
        raise BadRequest(431, f"more than {limits.fields} header fields")
    if major != b"1":
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    name = method.decode("ascii")
    if name not in METHODS:
        raise BadRequest(501, "unknown method")
    version = (1, 0) if minor == b"0" else (1, 1)
    fields = _fields(head, line.end())
    if "host" in fields:
        if not _AUTHORITY.fullmatch(fields["host"]):  # two are joined by ", ": no host has a space
            raise BadRequest(400, "invalid or repeated Host")
    elif version == (1, 1):
        raise BadRequest(400, "no Host")
    body = _body(fields, version)
    continues = _expectation(fields, version) and body != 0
    path, query = _split(name, target, fields)
    drained = 0 <= body <= limits.body_bytes
    return Request(
        name,
        target,
        path,
        query,
        version,
        fields,
        drained and _persistent(fields, version),
        body,
        continues,
    )


def _fields(head: bytes, start: int) -> dict[str, str]:
    if head.find(b"\r\n\r\n", start - 2) != len(head) - 4:
        raise BadRequest(400, "a head ends with its first empty line")
    collected = _Fields()
    try:
        httptools.HttpRequestParser(collected).feed_data(b"GET / HTTP/1.1\r\n" + head[start:])
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        if not collected.complete:
            raise BadRequest(400, _one_line(str(error))) from None
    return collected.fields


def _one_line(text: str) -> str:
    """What llhttp said, fit for a log and a body whatever it may say one day."""
    return "".join(c for c in text if c.isprintable()) or "malformed header fields"


def _body(fields: dict[str, str], version: tuple[int, int]) -> int:
    """RFC 9112 6.3.  llhttp has seen all of this too; where a body ends is worth two looks."""
    length = fields.get("content-length")
    coding = fields.get("transfer-encoding")
    if coding is None:
        if length is None:
            return 0
        if not (length.isascii() and length.isdigit()):  # "5, 5" is two of them
            raise BadRequest(400, "invalid or repeated Content-Length")
        if len(length) > 18:  # int() of 5,000 digits raises; no such body exists
            raise BadRequest(413, "Content-Length of an absurd size")
        return int(length)
    if length is not None:
        raise BadRequest(400, "Content-Length beside Transfer-Encoding")
    if version == (1, 0):
        raise BadRequest(400, "Transfer-Encoding in HTTP/1.0")
    codings = tokens(coding)
    if codings == ["chunked"]:
        return CHUNKED
    if "chunked" in codings[:-1] or not codings:  # it is the last, once
        raise BadRequest(400, "invalid Transfer-Encoding")
    raise BadRequest(501, "only the chunked transfer coding is understood")


def _expectation(fields: dict[str, str], version: tuple[int, int]) -> bool:
    """Whether "100 Continue" is waited for; HTTP/1.0 cannot (RFC 9110 10.1.1)."""
    if "expect" not in fields:
        return False
    expected = tokens(fields["expect"])
    if any(member != "100-continue" for member in expected):
        raise BadRequest(417, "the only expectation met here is 100-continue")
    return bool(expected) and version == (1, 1)


def _persistent(fields: dict[str, str], version: tuple[int, int]) -> bool:
    """RFC 9112 9.3."""
    if "connection" not in fields:
        return version == (1, 1)
    options = tokens(fields["connection"])
    return "close" not in options and (version == (1, 1) or "keep-alive" in options)


def _split(method: str, target: bytes, fields: dict[str, str]) -> tuple[bytes, bytes]:
    """(path, query) of a target in the form that its method may have (RFC 9112 3.2)."""
    if b"#" in target:
        raise BadRequest(400, "a fragment is not sent to a server")
    if method == "CONNECT":
        return b"", b""
    if target[:1] == b"/":
        path, _, query = target.partition(b"?")
        return path, query
    if target == b"*":
        if method != "OPTIONS":
            raise BadRequest(400, "only OPTIONS is for the server as a whole")
        return b"*", b""
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise BadRequest(400, "the target is neither a path nor a URL of http")
    authority = absolute[1].decode("latin-1")
    # No user names (RFC 9110 4.2.4), and a URL of http names its host (4.2.1).
    if authority[:1] in ("", ":") or not _AUTHORITY.fullmatch(authority):
        raise BadRequest(400, "invalid host in the target")
    fields["host"] = authority  # it wins (RFC 9112 3.2.2)
    path, _, query = target[absolute.end() :].partition(b"?")
    return path or (b"*" if method == "OPTIONS" and not query else b"/"), query


def tokens(value: str) -> list[str]:
    """The members of a comma-separated list, in lower case; empty ones do not count."""
    return [member for part in value.split(",") if (member := part.strip(" \t").lower())]
