"""What the path of a request's target names below a document root.

Facts
-----
*   `%2e` is `.` (RFC 3986 6.2.2.2: unreserved characters are the same with and without escape),
    so dot segments are looked for in what was decoded, segment by segment.  Decoding happens
    once: `%252e` names a file called `%2e`.
*   `%2f` is not `/`: it is a character of a segment, which no file name can have.  NUL neither.
    Both are valid URIs, so the answer is "there is no such file" (404), not 400.
*   `..` above the root is left to nobody's interpretation: there is no such file.
*   An empty segment (`//`) names no file either.  Collapsing it would give one file many names.
    And as no path that comes out of here begins with a slash, a redirect to "/" + path never
    begins with "//", which would lead to another host.  (A browser takes `\\` for `/`, so a
    backslash has to be escaped there.)
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from servers.http.errors import BadRequest

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Location(NamedTuple):
    """A path below the root: relative, decoded, normalised; the root itself is b""."""

    path: bytes
    directory: bool  # it was asked for as a directory: with a slash (or a dot segment) at the end


def decode_path(path: bytes) -> Location | None:
    """Percent-decode once and normalise.  None: no file can be there (404).

    Raises BadRequest for an escape that is not two hexadecimal digits.
    """
    if path[:1] != b"/":  # b"*", or CONNECT's b""
        return None
    segments = path[1:].split(b"/")
    if b"%" in path:
        if _BAD_ESCAPE.search(path):
            raise BadRequest(400, "bad percent-escape in the target")
        segments = [unquote_to_bytes(segment) for segment in segments]
    directory = segments[-1] in (b"", b".", b"..")
    if not segments[-1]:
        segments.pop()
    names: list[bytes] = []
    for segment in segments:
        if segment == b"..":
            if not names:
                return None
            names.pop()
        elif segment != b".":
            if not segment or b"/" in segment or b"\0" in segment:
                return None
            names.append(segment)
    return Location(b"/".join(names), directory)
