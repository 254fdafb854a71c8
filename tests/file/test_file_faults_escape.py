"""Whatever a client writes into a target, and whatever links there are: nothing from outside.

The secret lies where a mistake would find it: beside the root, in a directory whose name begins
with the root's, and in the file system's root, seen through links.  No answer may contain a word
of it, no answer may be a 5xx, and none may tell whether something outside exists.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fileserving import LOOPS, FileServer, Incoming, Response, get
from fileserving import MIB as MIB

SECRET = b"the secret"
#: A name that no listing may show.
HIDDEN = b"hidden-name"

TRAVERSALS = (
    *("/..", "/../", "/../secret", "/../../../../../../../etc/passwd", "/a/../../secret"),
    *("/a/b/../../../secret", "/./../secret", "/.../secret", "/..//secret", "//../secret"),
    *("/%2e%2e/secret", "/%2E%2E/secret", "/.%2e/secret", "/%2e./secret", "/%2e%2e%2fsecret"),
    *("/..%2fsecret", "/..%2Fsecret", "/..%5csecret", "/..\\secret", "/\\..\\secret"),
    *("/%252e%252e/secret", "/%252e%252e%252fsecret", "/%25%32%65%25%32%65/secret"),
    *("/%c0%ae%c0%ae/secret", "/%e0%80%ae%e0%80%ae/secret", "/%c0%ae%c0%ae%c0%afsecret"),
    *("/%u002e%u002e/secret", "/%uff0e%uff0e/secret", "/..%00/secret", "/%00/../secret"),
    *("/a%00", "/a/file%00.html", "/a/file%00/../../../secret", "/%00", "/secret%00"),
    *("//secret", "///secret", "//etc/passwd", "////etc/passwd", "//localhost/../secret"),
    *("/%2fetc/passwd", "/%2f%2fetc/passwd", "/etc/passwd", "/%2Fsecret", "/a/%2fetc/passwd"),
    *("/~/secret", "/~root/secret", "/;/../secret", "/..;/secret", "/a;/../../secret"),
    *("/a/..;/..;/secret", "/a/../..?/secret", "/../site-secret/secret", "/../?/a/file"),
    *("/..%2fsite-secret%2fsecret", "/-secret/secret", "/../site-secret", "/../site"),
    *("/C:/secret", "/C:%5csecret", "/file:///etc/passwd", "/proc/self/root/etc/passwd"),
    *("/a/" + "../" * 64 + "etc/passwd", "/" + "a/" * 500 + "../" * 501 + "secret"),
    *("/" + "n" * 300, "/a/" + "n" * 300 + "/../../secret", "/" + "x/" * 2000, "/" + "é" * 200),
    *("http://localhost/../secret", "http://localhost/%2e%2e/secret", "http://localhost//secret"),
)

#: Bytes that no target may contain as they are; they go over the wire all the same.
RAW = (
    *(
        b"/..\0/secret",
        b"/..\x01/secret",
        b"/.\t./secret",
        b"/../secret\x7f",
        b"/\xff\xfe/../secret",
    ),
    *(b"/..\xc0\xafsecret", b"../secret", b"secret", b"..", b"~/secret", b"file:///etc/passwd"),
    *(b"/..\r/secret", b"http://localhost@/../secret", b"http://../secret", b"http:/../secret"),
)

chosen = pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True, scope="module")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with links of every kind, and secrets around it."""
    above = tmp_path_factory.mktemp("escape")
    site = above / "site"
    site.mkdir()
    (above / "secret").write_bytes(SECRET)
    sibling, outside = above / "site-secret", above / "outside"
    for directory in (sibling, outside):
        directory.mkdir()
        (directory / "secret").write_bytes(SECRET)
        (directory / "index.html").write_bytes(SECRET)
        (directory / "page.html.gz").write_bytes(SECRET)
        (directory / HIDDEN.decode()).write_bytes(SECRET)
    (site / "a" / "b").mkdir(parents=True)
    (site / "a" / "file").write_bytes(b"inside\n")
    (site / "links").mkdir()
    for name, target in {
        "relative": "../../secret",
        "absolute": str(above / "secret"),
        "passwd": "/etc/passwd",
        "directory": "../../outside",
        "absolute-directory": str(outside),
        "filesystem": "/",
        "chain": "chained",
        "chained": "chained-again",
        "chained-again": "relative",
        "through": "directory/secret",
        "sibling": "../../site-secret/secret",
        "by-itself": f"../../{site.name}/a/file",
        "process": "/proc/self/root/etc/passwd",
        "loop": "loop",
        "dangling": "../../there-is-no-such-file",
        "inside": "../a/file",
        "inside-directory": "../a",
    }.items():
        (site / "links" / name).symlink_to(target)
    (site / "indexed").mkdir()
    (site / "indexed" / "index.html").symlink_to("../../outside/index.html")
    (site / "page.html").write_bytes(b"page\n")
    for suffix in ("gz", "br", "zst"):
        (site / f"page.html.{suffix}").symlink_to("../outside/page.html.gz")
    return site


def harmless(response: Response) -> bool:
    """Nothing from outside is in it, and it is not a 5xx."""
    everything = response.head + response.body
    return (
        SECRET not in everything
        and HIDDEN not in everything
        and b"root:" not in everything
        and response.status < 500
    )


def ask(server: FileServer, target: bytes, method: bytes = b"GET") -> Response:
    """One request on a connection of its own, as such bytes may be the connection's last."""
    with server.connect() as sock:
        sock.sendall(method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return Incoming(sock).response(method.decode())


@chosen
def test_traversal(server: FileServer) -> None:
    """The list of what has worked elsewhere, and the way that a browser would never send it."""
    for target in TRAVERSALS:
        for method in (b"GET", b"HEAD"):
            response = ask(server, target.encode(), method)
            assert harmless(response), (target, response)
            assert response.status in (301, 400, 404, 414), (target, response)
            if response.status == 301:
                assert re.match(r"/(?![/\\])", response.fields["location"]), (target, response)
    for raw in RAW:
        response = ask(server, raw)
        assert harmless(response), (raw, response)
        assert response.status in (400, 404), (raw, response)
    with server.connect() as sock:
        assert get(sock, "/a/b/../file").body == b"inside\n"
        assert get(sock, "/%61/%66ile").body == b"inside\n"


@chosen
def test_links_that_lead_outside(server: FileServer, root: Path) -> None:
    """Relative, absolute, in a chain, by a directory: all are 404, and none is listed."""
    with server.connect() as sock:
        for name in (
            *("relative", "absolute", "passwd", "directory", "directory/", "directory/secret"),
            *("absolute-directory", "absolute-directory/", "absolute-directory/secret"),
            *("filesystem", "filesystem/", "filesystem/etc/passwd", "chain", "chained"),
            *("through", "sibling", "by-itself", "process", "loop", "dangling", "loop/"),
            *("directory/../secret", "directory/../../secret", "inside-directory/../../secret"),
        ):
            for method in ("GET", "HEAD"):
                response = get(sock, f"/links/{name}", method)
                assert harmless(response), (name, response)
                assert response.status == 404, (name, response)
        assert get(sock, "/links/inside").body == b"inside\n"
        assert get(sock, "/links/inside-directory/file").body == b"inside\n"
        listing = get(sock, "/links/")
        listed = re.findall(rb'href="([^"]*)"', listing.body)
        assert sorted(listed) == [b"../", b"inside", b"inside-directory/"]
        assert harmless(listing)
        # An index that leads outside is none: what is left is the list, without it.
        indexed = get(sock, "/indexed/")
        assert harmless(indexed)
        assert b"index.html" not in indexed.body
        assert get(sock, "/indexed/index.html").status == 404


# Known failures of others, by their names.


@chosen
def test_cve_2024_23334_dots_behind_a_followed_link(server: FileServer) -> None:
    """aiohttp with follow_symlinks: `..` was looked for after the link had been followed."""
    for target in (b"/links/inside-directory/../../../secret", b"/links/../../secret"):
        response = ask(server, target)
        assert response.status == 404
        assert harmless(response)


@chosen
def test_cve_2024_42367_compressed_variant_is_a_link(server: FileServer) -> None:
    """aiohttp checked the file, and then sent a .gz beside it that led elsewhere."""
    with server.connect() as sock:
        for coding in ("gzip", "br", "zstd", "gzip, br, zstd", "*"):
            response = get(sock, "/page.html", accept_encoding=coding)
            assert (response.status, response.body) == (200, b"page\n")
            assert "content-encoding" not in response.fields
        assert get(sock, "/page.html.gz").status == 404


@chosen
def test_cve_2025_69226_no_oracle(server: FileServer) -> None:
    """aiohttp said 403 for what exists outside and 404 for what does not."""
    with server.connect() as sock:
        for there, missing in (
            ("/links/relative", "/links/dangling"),
            ("/links/directory/secret", "/links/directory/no-such-name"),
            ("/links/filesystem/etc/passwd", "/links/filesystem/etc/no-such-name"),
            ("/links/passwd", "/links/no-such-name"),
            ("/../secret", "/../no-such-name"),
            ("/../site-secret/", "/../no-such-name/"),
        ):
            answers = []
            for target in (there, missing):
                response = get(sock, target)
                fields = {k: v for k, v in response.fields.items() if k != "date"}
                answers.append((response.status, fields, response.body))
            assert answers[0] == answers[1], (there, missing)


@chosen
def test_cve_2023_29159_sibling_with_the_same_prefix(server: FileServer) -> None:
    """Starlette compared paths as strings: /site-secret begins with /site."""
    for target in (b"/../site-secret/secret", b"/..%2fsite-secret/secret", b"-secret/secret"):
        response = ask(server, target)
        assert response.status in (400, 404)
        assert harmless(response)


@chosen
def test_cve_2021_28861_redirect_to_another_host(server: FileServer) -> None:
    """CPython's http.server answered //evil.example/.. with a redirect to that host."""
    for target in (
        *(
            b"//evil.example/..",
            b"//evil.example/%2e%2e",
            b"//evil.example/../a",
            b"///evil.example",
        ),
        *(b"/%2f/evil.example", b"/%5cevil.example/..", b"/\\evil.example/../a", b"//a", b"/./a"),
        *(b"/a/..//evil.example/../a", b"/%09/evil.example", b"/.//evil.example/..", b"/a"),
        *(b"http://evil.example/a", b"http://evil.example//a", b"/a?//evil.example", b"/a/b"),
    ):
        response = ask(server, target)
        assert response.status in (301, 400, 404, 200), (target, response)
        if response.status == 301:
            assert re.match(r"/(?![/\\])", response.fields["location"]), (target, response)
