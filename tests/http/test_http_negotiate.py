"""Content codings are chosen as the client weighs them; media types are the same everywhere."""

from __future__ import annotations

import mimetypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.http import negotiate
from servers.http.negotiate import ENCODINGS, OCTETS, acceptable, media_type

ALL = ("zstd", "br", "gzip")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ()),
        ("", ()),
        (" ", ()),
        ("gzip, deflate, br, zstd", ALL),
        ("gzip, deflate, br", ("br", "gzip")),
        ("GZIP", ("gzip",)),
        ("x-gzip", ("gzip",)),
        ("gzip,,br", ("br", "gzip")),
        ("deflate", ()),
        ("identity", ()),
        # weights
        ("gzip;q=1.0, br;q=0.5", ("gzip", "br")),
        ("gzip ; q=0.8 ,br;Q=0.9", ("br", "gzip")),
        ("gzip;q=0.5, br;q=0.5, zstd;q=0.499", ("br", "gzip", "zstd")),
        ("gzip;q=0", ()),
        ("gzip;q=0.000, br", ("br",)),
        ("gzip;q=0.001", ("gzip",)),  # identity is not named: it is the least wanted
        # identity, named
        ("gzip, identity", ("gzip",)),
        ("gzip;q=0.5, identity;q=0.5", ("gzip",)),
        ("gzip;q=0.5, identity", ()),
        ("gzip;q=0.5, br;q=0.1, identity;q=0.3", ("gzip",)),
        ("identity;q=0", ()),
        ("gzip;q=0.1, identity;q=0", ("gzip",)),
        # the rest
        ("*", ALL),
        ("*;q=0", ()),
        ("gzip, *;q=0", ("gzip",)),
        ("*;q=0.5, gzip;q=0.3", ("zstd", "br")),  # identity has 0.5 as well
        ("*, gzip;q=0", ("zstd", "br")),
        ("identity;q=0.1, *;q=0.5, br", ("br", "zstd", "gzip")),
        ("identity, *;q=0.5", ()),
        ("identity;q=0, *", ALL),
        # named twice: a refusal counts
        ("gzip, gzip;q=0", ()),
        ("gzip;q=0, x-gzip", ()),
        # malformed members count as if they were not there
        ("gzip;q=1.5", ()),
        ("gzip;q=2, br", ("br",)),
        ("gzip;q=0.1234", ()),
        ("gzip;q=-1", ()),
        ("gzip;q=", ()),
        ("gzip;q=.5", ()),
        ("gzip;q=1.001", ()),
        ("gzip;q =1", ()),
        ("gzip;level=9", ()),
        ("gzip;q=1;q=1", ()),
        ("gz ip, br", ("br",)),
        ("gzip;q=\xb2", ()),
        ("identity;q=x, gzip;q=0.1", ("gzip",)),
    ],
)
def test_which_codings_a_client_accepts(value: str | None, expected: tuple[str, ...]) -> None:
    assert acceptable(value) == expected


@given(
    st.dictionaries(
        st.sampled_from(["zstd", "br", "gzip", "identity", "*", "deflate"]), st.integers(0, 1000)
    )
)
def test_random_weights_against_the_rule(weights: dict[str, int]) -> None:
    value = ", ".join(f"{coding};q={weight / 1000:.3f}" for coding, weight in weights.items())
    found = acceptable(value)

    def weight(coding: str, unnamed: int) -> int:
        return weights.get(coding, weights.get("*", unnamed))

    floor = max(1, weight("identity", 0))
    assert set(found) == {coding for coding in ALL if weight(coding, 0) >= floor}
    order = [(-weight(coding, 0), ALL.index(coding)) for coding in found]
    assert order == sorted(order)


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_value_gives_codings_of_ours(value: str) -> None:
    found = acceptable(value)
    assert len(set(found)) == len(found)
    assert set(found) <= {coding for coding, _ in ENCODINGS}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("INDEX.HTM", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.min.mjs", "text/javascript; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.avif", "image/avif"),
        ("a.webp", "image/webp"),
        ("a.mp4", "video/mp4"),
        ("a.tar.gz", "application/gzip"),
        ("a.pdf", "application/pdf"),
        (".hidden.png", "image/png"),
        ("a.doc", "application/msword"),  # Python's table
        ("a.tsv", "text/tab-separated-values; charset=utf-8"),
        ("a.unheard-of", OCTETS),
        ("a.", OCTETS),
        ("a", OCTETS),
        ("", OCTETS),
        (".html", OCTETS),
        ("html", OCTETS),
        ("d.html/a", OCTETS),
        ("d.html/.txt", OCTETS),
        ("a.\udcff", OCTETS),
    ],
)
def test_media_types(name: str, expected: str) -> None:
    assert media_type(name) == expected


def test_media_types_of_the_system_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "mime.types"
    system.write_text("application/x-of-the-system html systemtype\n")
    for name in ("inited", "types_map", "common_types", "encodings_map", "suffix_map", "_db"):
        monkeypatch.setattr(mimetypes, name, getattr(mimetypes, name))  # put back afterwards
    mimetypes.init([str(system)])
    assert mimetypes.guess_type("a.systemtype")[0] == "application/x-of-the-system"
    negotiate._builtin.cache_clear()
    media_type.cache_clear()
    assert media_type("a.systemtype") == OCTETS
    assert media_type("a.html") == "text/html; charset=utf-8"
    assert media_type("a.doc") == "application/msword"
