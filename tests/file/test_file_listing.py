"""A directory as a page: what a browser makes of it, by the rules that browsers have."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.file.listing import render
from servers.file.root import ENTRIES, Entry

BASE = "http://host:1/some/directory/"


class Page(HTMLParser):
    """The rows of a page, as text and links."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.title = ""
        self.paragraphs: list[str] = []
        self._inside = ""
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag if tag not in ("bdi", "a", "time") else self._inside
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "p":
            self.paragraphs.append("")
        elif tag == "a":
            self.links.append(dict(attrs)["href"] or "")

    def handle_data(self, data: str) -> None:
        if self._inside in ("td", "th"):
            self.rows[-1][-1] += data
        elif self._inside == "title":
            self.title += data
        elif self._inside == "p":
            self.paragraphs[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag in ("td", "th", "title", "p") else self._inside


def file(name: bytes, size: int = 0, modified: int = 0) -> Entry:
    return Entry(name, False, size, modified)


def directory(name: bytes) -> Entry:
    return Entry(name, True, 4096, 0)


def leads_to(link: str) -> tuple[str, bytes]:
    """The host, and the path as a server decodes it, that a browser asks for."""
    where = urlsplit(urljoin(BASE, link))
    assert not where.query
    assert not where.fragment
    return where.netloc, unquote_to_bytes(where.path)


def test_a_page() -> None:
    page = Page(
        render(
            "/some/directory/",
            [file(b"b", 1536, 1_700_000_000), directory(b"z"), file(b"B", 5), directory(b"a")],
            False,
        )
    )
    assert page.title == "Index of /some/directory/"
    assert page.rows == [
        ["Name", "Size", "Modified (UTC)"],
        ["../", "", ""],
        ["a/", "-", "1970-01-01 00:00:00"],
        ["z/", "-", "1970-01-01 00:00:00"],
        ["B", "5 B", "1970-01-01 00:00:00"],
        ["b", "1.5 KiB", "2023-11-14 22:13:20"],
    ]
    assert page.links == ["../", "a/", "z/", "B", "b"]
    assert page.paragraphs == []


def test_the_root_has_no_parent() -> None:
    page = Page(render("/", [], True))
    assert page.title == "Index of /"
    assert page.links == []


@pytest.mark.parametrize(
    "name",
    [
        b"javascript:alert(1)",
        b"http:",
        b"a:b",
        b"?query",
        b"#fragment",
        b"a?b#c",
        b"%2e%2e",
        b"%",
        b" leading",
        b"trailing ",
        b"\xff\xfe",
        "\N{SNOWMAN}".encode(),
        "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe".encode(),
        b"\\\\host\\x",
        b"\n",
        b"\t",
        b"a&amp;b",
        b'"><script>',
        b"'",
        b"...",
        b"&copy",
        b"</table>",
    ],
)
def test_an_awkward_name(name: bytes) -> None:
    page = render("/x/", [file(name), directory(name)], True)
    found = Page(page)
    assert [leads_to(link) for link in found.links] == [
        ("host:1", b"/some/directory/" + name + b"/"),
        ("host:1", b"/some/directory/" + name),
    ]
    assert "script" not in found.tags
    assert not set(page) & (set(range(0x20)) - {0x0A})  # control characters
    assert len(found.rows) == 3


def test_text_of_a_name() -> None:
    names = [b"a<b>&\"'", b"\xffz", b"x\ny", b"y\x1b[1m", "z\x85".encode()]
    rows = Page(render("/", [file(name) for name in names], True)).rows[1:]
    shown = sorted(row[0] for row in rows)
    assert shown == sorted(["a<b>&\"'", "\ufffdz", "x\ufffdy", "y\ufffd[1m", "z\ufffd"])


def test_the_path_is_escaped() -> None:
    page = render("/<script>&\n\udcff/", [], False)
    assert b"<script>" not in page
    assert Page(page).title == "Index of /<script>&\ufffd?/"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1535, "1.4 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1023.9 KiB"),
        (2**20, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**40, "1.0 TiB"),
        (2**63 - 1, "7.9 EiB"),
    ],
)
def test_sizes(size: int, shown: str) -> None:
    assert Page(render("/", [file(b"f", size)], True)).rows[1][1] == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "1969-12-31 23:59:59"),
        (2**31, "2038-01-19 03:14:08"),
        (253_402_300_799, "9999-12-31 23:59:59"),
        (2**62, "?"),
        (-(2**62), "?"),
    ],
)
def test_times(seconds: int, shown: str) -> None:
    assert Page(render("/", [file(b"f", 0, seconds)], True)).rows[1][2] == shown


def test_a_list_that_was_cut_short_says_so() -> None:
    entries = [file(b"%d" % number) for number in range(ENTRIES)]
    assert Page(render("/", entries[1:], True)).paragraphs == []
    (said,) = Page(render("/", entries, True)).paragraphs
    assert f"Only {ENTRIES} names are listed" in said


NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@given(st.dictionaries(NAMES, st.booleans(), max_size=8), st.booleans())
def test_every_name_leads_to_its_file(names: dict[bytes, bool], at_root: bool) -> None:
    entries = [Entry(name, is_directory, 1, 1) for name, is_directory in names.items()]
    page = Page(render("/d/", entries, at_root))
    links = page.links if at_root else page.links[1:]
    expected = sorted(names.items(), key=lambda item: (not item[1], item[0]))
    assert [leads_to(link) for link in links] == [
        ("host:1", b"/some/directory/" + name + (b"/" if is_directory else b""))
        for name, is_directory in expected
    ]
    assert set(page.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "table", "thead", "tbody"),
        *("tr", "th", "td", "a", "bdi", "time"),
    }
