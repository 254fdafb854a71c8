"""Which of a file's forms a client gets, and what kind of file it is called.

Facts about Accept-Encoding (RFC 9110 12.5.3)
---------------------------------------------
*   `gzip;q=0.5`: a weight from 0 to 1 with at most three decimals; without one it is 1, and 0
    means "not acceptable".  A member that is malformed is ignored.
*   `*` stands for every coding that is not named, `identity` (the file as it is) among them.
*   `identity` need not be named to be acceptable; unnamed, it is the least wanted of all that
    are.  Named, its weight counts: a coding below it is not what the client wants.
*   x-gzip is gzip (8.4.1.3).
*   No header: anything goes.  But who sends none is a simple program, and gets the file as it is.
    An empty one asks for that.

Media types come from a table of ours, then from the one inside Python's mimetypes.  Never from
files of the system: the same site has the same types everywhere.
"""

from __future__ import annotations

import functools
import mimetypes
import re
from typing import Final

#: (content coding, ending of the precompressed sibling), in the order of our preference.
ENCODINGS: Final = (("zstd", ".zst"), ("br", ".br"), ("gzip", ".gz"))

OCTETS: Final = "application/octet-stream"

_MEMBER: Final = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*"
    r"(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)

_TYPES: Final = {
    # text: always UTF-8 here
    "css": "text/css",
    "csv": "text/csv",
    "htm": "text/html",
    "html": "text/html",
    "ics": "text/calendar",
    "js": "text/javascript",
    "log": "text/plain",
    "markdown": "text/markdown",
    "md": "text/markdown",
    "mjs": "text/javascript",
    "py": "text/x-python",
    "rst": "text/plain",
    "txt": "text/plain",
    "vtt": "text/vtt",
    # data that says its own character set, or has one by definition
    "atom": "application/atom+xml",
    "geojson": "application/geo+json",
    "json": "application/json",
    "jsonld": "application/ld+json",
    "map": "application/json",
    "rss": "application/rss+xml",
    "svg": "image/svg+xml",
    "toml": "application/toml",
    "wasm": "application/wasm",
    "webmanifest": "application/manifest+json",
    "xhtml": "application/xhtml+xml",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    # images
    "apng": "image/apng",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "gif": "image/gif",
    "ico": "image/vnd.microsoft.icon",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "jxl": "image/jxl",
    "png": "image/png",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "webp": "image/webp",
    # sound and film
    "aac": "audio/aac",
    "flac": "audio/flac",
    "m3u8": "application/vnd.apple.mpegurl",
    "m4a": "audio/mp4",
    "m4v": "video/mp4",
    "mkv": "video/matroska",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "ogv": "video/ogg",
    "opus": "audio/ogg",
    "ts": "video/mp2t",
    "wav": "audio/wav",
    "weba": "audio/webm",
    "webm": "video/webm",
    # fonts
    "eot": "application/vnd.ms-fontobject",
    "otf": "font/otf",
    "ttf": "font/ttf",
    "woff": "font/woff",
    "woff2": "font/woff2",
    # documents and archives
    "7z": "application/x-7z-compressed",
    "br": OCTETS,
    "bz2": "application/x-bzip2",
    "epub": "application/epub+zip",
    "gz": "application/gzip",
    "jar": "application/java-archive",
    "pdf": "application/pdf",
    "tar": "application/x-tar",
    "tgz": "application/gzip",
    "xz": "application/x-xz",
    "zip": "application/zip",
    "zst": "application/zstd",
}


def acceptable(value: str | None) -> tuple[str, ...]:
    """The content codings of ENCODINGS that an Accept-Encoding prefers to none, best first."""
    if not value:
        return ()
    asked: dict[str, float] = {}
    for member in value.split(","):
        found = _MEMBER.fullmatch(member)
        if found is None:
            continue
        coding = found[1].lower()
        if coding == "x-gzip":
            coding = "gzip"
        weight = 1.0 if found[2] is None else float(found[2])
        asked[coding] = min(weight, asked.get(coding, 1.0))  # named twice: a refusal counts
    others = asked.get("*", 0.0)
    least = asked.get("identity", others)
    weights = {coding: asked.get(coding, others) for coding, _ in ENCODINGS}
    wanted = [coding for coding, weight in weights.items() if weight > 0 and weight >= least]
    return tuple(sorted(wanted, key=lambda coding: -weights[coding]))  # stable: ours breaks ties


@functools.lru_cache(maxsize=1024)
def media_type(name: str) -> str:
    """The value of Content-Type for a file of this name."""
    stem, dot, ending = name.rpartition(".")
    if not dot or not stem.rpartition("/")[2]:  # no ending, or a hidden file's only dot
        return OCTETS
    ending = ending.lower()
    found = _TYPES.get(ending) or _builtin().get("." + ending, OCTETS)
    return found + "; charset=utf-8" if found.startswith("text/") else found


@functools.cache
def _builtin() -> dict[str, str]:
    """The table inside mimetypes; a new MimeTypes has nothing of the system's files."""
    return mimetypes.MimeTypes().types_map[True]
