"""Which representation is answered: negotiation, and conditions.

Over one server of each loop; that the others answer alike is test_file_bodies.py's.
"""

from __future__ import annotations

import re

import pytest
from fileserving import (
    AGES_AGO,
    LOOPS,
    FileServer,
    ask,
    content,
    get,
)
from rawrequests import BEFORE, MODIFIED

from servers.http.dates import format_date

loops = pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True)


# -- negotiation


@loops
@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, br", "br"),
        ("gzip, br, zstd", "zstd"),
        ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", "gzip"),
        ("*", "zstd"),
        ("*, zstd;q=0", "br"),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0, br;q=0.000", None),
        ("deflate", None),
        ("GZIP;Q=0.1", "gzip"),
    ],
)
def test_precompressed(server: FileServer, accepted: str | None, coding: str | None) -> None:
    fields = {} if accepted is None else {"accept_encoding": accepted}
    body = {
        None: b"as it is\n" * 100,
        "gzip": b"not really gzip",
        "br": b"not really brotli",
        "zstd": b"not really zstd",
    }[coding]
    response = ask(server, "/text.txt", **fields)
    assert response.body == body
    assert response.fields.get("content-encoding") == coding
    assert response.fields["vary"] == "Accept-Encoding"
    assert response.fields["content-type"] == "text/plain; charset=utf-8"


@loops
def test_precompressed_is_a_representation_of_its_own(server: FileServer) -> None:
    """Its own ETag, size and ranges; a 304 has them as well; without siblings no Vary."""
    with server.connect() as sock:
        plain = get(sock, "/only.css")
        zipped = get(sock, "/only.css", accept_encoding="gzip")
        assert plain.fields["etag"] != zipped.fields["etag"]
        part = get(sock, "/only.css", accept_encoding="gzip", range="bytes=2-3")
        assert (part.body, part.fields["content-encoding"]) == (zipped.body[2:4], "gzip")
        assert part.fields["content-range"] == f"bytes 2-3/{len(zipped.body)}"
        tag = zipped.fields["etag"]
        same = get(sock, "/only.css", accept_encoding="gzip", if_none_match=tag)
        assert (same.status, same.fields["vary"]) == (304, "Accept-Encoding")
        assert get(sock, "/only.css", if_none_match=tag).status == 200
        assert "vary" not in get(sock, "/1.bin", accept_encoding="gzip").fields
        # A file that is compressed by name is no coding of itself.
        raw = get(sock, "/text.txt.gz", accept_encoding="gzip")
        assert "content-encoding" not in raw.fields


# -- conditions


@loops
def test_conditions(server: FileServer) -> None:
    """In RFC 9110's order of precedence, over a socket."""
    with server.connect() as sock:
        first = get(sock, "/513.bin")
        tag = first.fields["etag"]
        assert re.fullmatch('"[0-9a-f-]+"', tag), "strong"
        assert first.fields["last-modified"] == MODIFIED
        later = format_date(AGES_AGO + 1).decode()
        for status, fields in [
            (304, {"if_none_match": tag}),
            (304, {"if_none_match": f'"x", W/{tag}'}),
            (304, {"if_none_match": "*"}),
            (200, {"if_none_match": '"x"'}),
            (200, {"if_none_match": '"x"', "if_modified_since": later}),
            (304, {"if_none_match": tag, "if_modified_since": BEFORE}),
            (304, {"if_modified_since": MODIFIED}),
            (304, {"if_modified_since": later}),
            (200, {"if_modified_since": BEFORE}),
            (200, {"if_modified_since": "yesterday"}),
            (200, {"if_match": tag}),
            (200, {"if_match": "*"}),
            (412, {"if_match": '"x"'}),
            (412, {"if_match": f"W/{tag}"}),
            (412, {"if_match": '"x"', "if_none_match": tag}),
            (304, {"if_match": tag, "if_none_match": tag}),
            (412, {"if_unmodified_since": BEFORE}),
            (200, {"if_unmodified_since": MODIFIED}),
            (200, {"if_match": tag, "if_unmodified_since": BEFORE}),
            (206, {"if_match": tag, "range": "bytes=0-1"}),
            (304, {"if_none_match": tag, "range": "bytes=0-1"}),
            (412, {"if_match": '"x"', "range": "bytes=999-"}),
            (206, {"if_range": tag, "range": "bytes=0-1"}),
            (206, {"if_range": MODIFIED, "range": "bytes=0-1"}),
            (200, {"if_range": '"x"', "range": "bytes=0-1"}),
            (200, {"if_range": f"W/{tag}", "range": "bytes=0-1"}),
            (200, {"if_range": BEFORE, "range": "bytes=0-1"}),
            (200, {"if_range": later, "range": "bytes=0-1"}),
            (200, {"if_range": '"x"', "range": "bytes=999-"}),
            (416, {"if_range": tag, "range": "bytes=999-"}),
            (200, {"if_range": tag}),
        ]:
            for method in ("GET", "HEAD"):
                response = get(sock, "/513.bin", method, **fields)
                # A range is for GET alone (RFC 9110 14.2).
                expected = 200 if method == "HEAD" and status in (206, 416) else status
                assert response.status == expected, (method, fields)
                if status in (200, 206, 304):
                    assert response.fields["etag"] == tag
                if method == "GET" and status in (200, 206):
                    assert response.body == content(513)[: 2 if status == 206 else None]


@loops
def test_not_modified_says_what_200_would(server: FileServer) -> None:
    """RFC 9110 15.4.5; what describes the content is left out, as there is none."""
    with server.connect() as sock:
        whole = get(sock, "/text.txt", accept_encoding="br")
        same = get(sock, "/text.txt", accept_encoding="br", if_none_match=whole.fields["etag"])
        assert (same.status, same.body) == (304, b"")
        for name in ("etag", "last-modified", "vary", "date"):
            assert name in same.fields
        assert "content-length" not in same.fields
        assert "content-type" not in same.fields


@loops
def test_if_match_of_what_is_not_there(server: FileServer) -> None:
    """Preconditions count where the answer would be a success (RFC 9110 13.2.1)."""
    assert ask(server, "/none", if_match="*").status == 404
    assert ask(server, "/listed", if_match='"x"').status == 301
