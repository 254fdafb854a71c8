"""A directory as an HTML page.

Facts
-----
*   A name is bytes.  In a link each byte but letters, digits and `-._~` is percent-encoded, so
    that no name is taken for a scheme ("a:b"), a query ("?") or a fragment ("#"), and one that is
    not UTF-8 still leads to its file.
*   As text it is decoded with U+FFFD for what is not UTF-8 and for control characters, escaped,
    and isolated (<bdi>), so that a right-to-left override in it ends with it.
*   Links are relative to the page's own URL, which ends in a slash: they stay right behind a proxy
    that serves this root somewhere else, and they cannot lead to another host.
"""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote_from_bytes

from servers.file.root import ENTRIES, Entry

_STYLE: Final = """\
:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.25rem;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}
th,td{padding:.15rem .5rem;text-align:left}
th{border-bottom:1px solid}
td:first-child{overflow-wrap:anywhere}
th:nth-child(2),td:nth-child(2){text-align:right}
td:nth-child(n+2){white-space:nowrap;font-variant-numeric:tabular-nums}
"""

#: C0, DEL and C1: nothing that a page should contain.
_CONTROLS: Final = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], "\ufffd")
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def render(url_path: str, entries: Sequence[Entry], at_root: bool) -> bytes:
    """The page: directories first, then files, each by name (as bytes).  UTF-8.

    `url_path` is shown as it is: decoded.  A list of ENTRIES entries is taken for one that was
    cut short, and says so.
    """
    title = f"Index of {_text(url_path)}"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n"
        "<table>\n<thead><tr><th>Name</th><th>Size</th><th>Modified (UTC)</th></tr></thead>\n"
        "<tbody>\n"
    ]
    if not at_root:
        parts.append('<tr><td><a href="../">../</a></td><td></td><td></td></tr>\n')
    parts += map(_row, sorted(entries, key=lambda entry: (not entry.directory, entry.name)))
    parts.append("</tbody>\n</table>\n")
    if len(entries) >= ENTRIES:
        parts.append(f"<p>Only {len(entries)} names are listed; there may be more.</p>\n")
    parts.append("</body>\n</html>\n")
    return "".join(parts).encode("utf-8", "replace")


def _row(entry: Entry) -> str:
    name, directory, size, modified = entry
    slash = "/" if directory else ""
    shown = "-" if directory else _size(size)
    return (
        f'<tr><td><a href="{quote_from_bytes(name, safe="")}{slash}">'
        f"<bdi>{_text(name.decode('utf-8', 'replace'))}</bdi>{slash}</a></td>"
        f"<td>{shown}</td><td>{_time(modified)}</td></tr>\n"
    )


def _text(name: str) -> str:
    return html.escape(name.translate(_CONTROLS))


def _size(size: int) -> str:
    """In bytes below 1 KiB, else in the largest unit of which there is one, cut to a tenth."""
    if size < 1024:
        return f"{size} B"
    unit = min((size.bit_length() - 1) // 10, len(_UNITS))
    tenths = size * 10 >> 10 * unit
    return f"{tenths // 10}.{tenths % 10} {_UNITS[unit - 1]}"


def _time(seconds: int) -> str:
    try:
        at = time.gmtime(seconds)
    except (OverflowError, OSError, ValueError):  # a file system may hold any 64-bit number
        return "?"
    day = f"{at.tm_year:04}-{at.tm_mon:02}-{at.tm_mday:02}"
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f'<time datetime="{day}T{clock}Z">{day} {clock}</time>'
