"""What is answered: resources, methods, targets, directories.

Over one server of each loop; that the others answer alike is test_file_bodies.py's.
"""

from __future__ import annotations

import html
import re
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from fileserving import (
    LOOPS,
    SIZES,
    Combination,
    FileServer,
    ask,
    content,
    exchange,
    get,
    serving_files,
)
from rawrequests import asks

from servers.http.dates import parse_date

loops = pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True)

#: For what no loop has a part in.
REFERENCE = LOOPS[0]
reference = pytest.mark.parametrize("combination", [REFERENCE], ids=str, indirect=True)


@loops
def test_a_listing_has_a_tag_and_no_date(server: FileServer) -> None:
    with server.connect() as sock:
        page = get(sock, "/listed/")
        tag = page.fields["etag"]
        assert "last-modified" not in page.fields
        known = get(sock, "/listed/", if_none_match=tag)
        assert (known.status, known.body, known.fields["etag"]) == (304, b"", tag)
        assert get(sock, "/listed/", if_match=tag).body == page.body
        assert get(sock, "/listed/", if_match='"another"').status == 412
        long_ago = "Thu, 01 Jan 1970 00:00:01 GMT"
        assert get(sock, "/listed/", if_unmodified_since=long_ago).body == page.body
        assert get(sock, "/listed/", if_modified_since=page.fields["date"]).body == page.body
        assert get(sock, "/deep/", if_none_match=tag).status == 200


@loops
@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/page.html",
        "/1.bin",
        "/0.bin",
        "/listed/",
        "/listed",
        "/none",
        "/text.txt",
        "/with%20index/",
        f"/{SIZES[-1]}.bin",
    ],
)
def test_head_is_get_without_content(server: FileServer, target: str) -> None:
    with server.connect() as sock:
        whole = get(sock, target)
        silent = get(sock, target, "HEAD")
    assert (silent.status, silent.body) == (whole.status, b"")
    assert {**silent.fields, "date": ""} == {**whole.fields, "date": ""}
    assert int(whole.fields["content-length"]) == len(whole.body)


@loops
def test_date(server: FileServer) -> None:
    before = int(time.time())
    response = ask(server, "/1.bin")
    after = int(time.time())
    said = parse_date(response.fields["date"])
    assert said is not None
    assert before <= said <= after


@loops
def test_date_goes_on(server: FileServer) -> None:
    """What comes from the memo has the time of its sending: two dates within three seconds."""
    with server.connect() as sock:
        dates: set[int] = set()
        deadline = time.monotonic() + 3
        while len(dates) < 2:
            assert time.monotonic() < deadline, dates
            before = int(time.time())
            said = parse_date(get(sock, "/1.bin").fields["date"])
            assert said is not None
            assert before <= said <= int(time.time())
            dates.add(said)


@loops
def test_methods(server: FileServer) -> None:
    with server.connect() as sock:
        for target in ("/", "/1.bin", "/none", "*"):
            response = get(sock, target, "OPTIONS")
            assert (response.status, response.body) == (200, b"")
            assert response.fields["allow"] == "GET, HEAD, OPTIONS"
        for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
            response = get(sock, "/1.bin", method)
            assert response.status == 405
            assert response.fields["allow"] == "GET, HEAD, OPTIONS"
        connect = exchange(sock, asks("localhost:80", "CONNECT"))
        assert (connect.status, connect.fields["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert get(sock, "/1.bin").status == 200


@loops
@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/page.html", "text/html; charset=utf-8"),
        ("/text.txt", "text/plain; charset=utf-8"),
        ("/only.css", "text/css; charset=utf-8"),
        ("/deep/er/and/deeper/leaf.json", "application/json"),
        ("/1.bin", "application/octet-stream"),
        ("/listed/zeta", "application/octet-stream"),
        ("/text.txt.gz", "application/gzip"),
    ],
)
def test_media_types(server: FileServer, target: str, kind: str) -> None:
    assert ask(server, target).fields["content-type"] == kind


@loops
@pytest.mark.parametrize(
    "target",
    [
        "/none",
        "/none/",
        "/1.bin/",
        "/1.bin/x",
        "/page.html%00",
        "/..",
        "/../1.bin",
        "/%2e%2e/1.bin",
        "/deep/../../1.bin",
        "/..%2f1.bin",
        "/listed%2fzeta",
        "/%c0%ae%c0%ae/1.bin",
        "//1.bin",
        "/listed//zeta",
        "//localhost/listed",
        "/" + "a" * 300,
        "/" + "a/" * 3000,
        "/deep/%FF",
    ],
)
def test_no_such_file(server: FileServer, target: str) -> None:
    with server.connect() as sock:
        response = get(sock, target)
        assert (response.status, response.body) == (404, b"404 Not Found\n")
        assert get(sock, "/1.bin").status == 200


@loops
def test_percent_decoding_once(server: FileServer) -> None:
    with server.connect() as sock:
        assert get(sock, "/listed/%2541.txt").body == b"percent\n"
        assert get(sock, "/listed/%41.txt").status == 404
        assert get(sock, "/listed/%25%34%31.txt").body == b"percent\n"
        assert get(sock, "/%31.%62in?x=%zz").body == content(1)
        assert get(sock, "/%6Cisted/a&b%20%3cc%3E.txt").body == b"markup\n"


@loops
def test_other_forms_of_a_target(server: FileServer) -> None:
    """A whole URL, whose host wins; dot segments; a query, which selects nothing."""
    with server.connect() as sock:
        for target in (
            "http://example.com/1.bin",
            "HTTPS://EXAMPLE.com:8080/1.bin?x",
            "http://[::1]/1.bin",
            "/./1.bin",
            "/deep/../1.bin",
            "/deep/%2E%2e/1.bin",
            "/1.bin?/../../",
            "/1.bin??",
        ):
            assert get(sock, target).body == content(1), target
        assert get(sock, "http://example.com").body == get(sock, "/").body
        assert get(sock, "http://example.com?x").body == get(sock, "/").body


# -- directories


@loops
def test_index(server: FileServer) -> None:
    with server.connect() as sock:
        index = get(sock, "/with%20index/")
        assert index.body == b"<!DOCTYPE html><title>index</title>\n"
        assert index.fields["content-type"] == "text/html; charset=utf-8"
        assert get(sock, "/with%20index/index.html").fields["etag"] == index.fields["etag"]
        assert get(sock, "/").body == b"<!DOCTYPE html><title>root</title>\n"
        assert get(sock, "/", if_none_match=get(sock, "/").fields["etag"]).status == 304


@loops
def test_directory_without_its_slash(server: FileServer) -> None:
    """To the same host, with what was asked of it."""
    with server.connect() as sock:
        for target, where in [
            ("/listed", "/listed/"),
            ("/with%20index", "/with%20index/"),
            ("/with%20index?a=b&c=%20", "/with%20index/?a=b&c=%20"),
            ("/%6cisted?", "/listed/"),
            ("http://example.com/deep/er?x", "/deep/er/?x"),
            ("/deep/../listed", "/listed/"),
        ]:
            response = get(sock, target)
            assert response.status == 301
            assert response.fields["location"] == where
        assert get(sock, "/listed/").status == 200


#: Names after which a careless redirect leads elsewhere.
ODD = (
    "\\evil.example",
    "evil.example",
    "@evil.example",
    "a:b",
    "a?b#c",
    "%2f",
    "é\x01\r\n",
    "..x",
)


def test_redirects_never_lead_to_another_host(tmp_path: Path) -> None:
    """CVE-2021-28861 and its kin: Location is one of our paths, whatever directories exist."""
    for name in ODD:
        (tmp_path / name / name).mkdir(parents=True)
    with serving_files(tmp_path, *REFERENCE.words) as server, server.connect() as sock:
        for target in (
            "//evil.example",
            "//evil.example/evil.example",
            "///evil.example",
            "/%2fevil.example",
            "/%5cevil.example/..",
            "/./%2f/evil.example",
            "http://evil.example//evil.example",
            "//evil.example/..",
            "/evil.example/..//evil.example",
        ):
            response = get(sock, target)
            if response.status == 301:
                assert re.match(r"/[^/\\]", response.fields["location"]), target
            else:
                assert response.status in (200, 404)
        for name in ODD:
            for path in (quote(name), f"{quote(name)}/{quote(name)}"):
                response = get(sock, f"/{path}")
                assert (response.status, response.fields["location"]) == (301, f"/{path}/")
                assert get(sock, response.fields["location"]).status == 200


@loops
def test_listing(server: FileServer) -> None:
    """Directories first, then names in order, with sizes and times; every link leads there."""
    with server.connect() as sock:
        page = get(sock, "/listed/")
        assert page.fields["content-type"] == "text/html; charset=utf-8"
        text = page.body.decode()
        assert "<title>Index of /listed/</title>" in text
        links = re.findall('<a href="([^"]*)"><bdi>([^<]*)</bdi>', text)
        shown = [html.unescape(name) for _, name in links]
        assert shown == ["sub", "%41.txt", "a&b <c>.txt", "zeta"]
        assert "1.5 KiB" in text
        assert "2001-09-09 01:46:40" in text
        assert '<a href="../">' in text
        for (link, _), body in zip(
            links[1:], (b"percent\n", b"markup\n", bytes(1536)), strict=True
        ):
            assert get(sock, f"/listed/{link}").body == body
        assert get(sock, f"/listed/{links[0][0]}").status == 200


def test_listing_of_the_root_and_of_odd_names(tmp_path: Path) -> None:
    """Nothing above the root; markup, quotes and names that are no UTF-8 are only names."""
    names = [b"<script>", b"\xff\xfe", b"a\"b'c", b"javascript:alert(1)", b"\xe2\x80\xaegnp.txt"]
    for name in names:
        Path(str(tmp_path), name.decode("utf-8", "surrogateescape")).write_bytes(name)
    with serving_files(tmp_path, *REFERENCE.words) as server, server.connect() as sock:
        page = get(sock, "/").body.decode()
        assert "../" not in page
        assert "<script>" not in page
        links = re.findall('<a href="([^"]*)">', page)
        assert sorted(get(sock, f"/{link}").body for link in links) == sorted(names)


@reference
def test_no_listing(combination: Combination, root: Path) -> None:
    """A directory without an index is then nothing; one with an index is what it was."""
    with (
        serving_files(root, *combination.words, "--no-listing") as server,
        server.connect() as sock,
    ):
        assert get(sock, "/listed/").status == 404
        assert get(sock, "/listed").status == 301
        assert get(sock, "/with%20index/").status == 200
        server.stop()
