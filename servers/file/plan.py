"""A Plan: an answer that is decided and not yet sent.

Everything that an answer is, and nothing about how it travels: the bytes before the first byte of
a file (status line, fields, perhaps a short body), then ranges of one open file with bytes in
between.  Whoever sends it needs no HTTP, and whoever decides it no socket.

A plan may be sent many times: the site remembers it under the exact bytes of the request head.
Only its Date changes, once a second; a plan that is due again is stamped or decided anew.
"""

from __future__ import annotations

import http
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from servers.file.cache import OpenFile

#: What follows a plan's first range: bytes, or an (offset, count) of the same file.
Part: TypeAlias = bytes | tuple[int, int]
Field: TypeAlias = tuple[str, str]

PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus} | {
    413: "Content Too Large",  # RFC 9110 15.5.14; http.HTTPStatus has the older names
    414: "URI Too Long",
    416: "Range Not Satisfiable",
}


class Plan:
    """One answer: `head`, then `count` bytes of `file` from `offset`, then `rest`."""

    __slots__ = (
        "_after",
        "_before",
        "close",
        "count",
        "expires",
        "fd",
        "file",
        "head",
        "length",
        "line",
        "offset",
        "path",
        "rest",
        "status",
        "total",
    )

    def __init__(
        self,
        status: int,
        fields: Iterable[Field],
        date: bytes,
        *,
        body: bytes = b"",
        file: OpenFile | None = None,
        offset: int = 0,
        count: int = 0,
        rest: Sequence[Part] = (),
        close: bool = False,
    ) -> None:
        """`body` is sent right behind the fields, before any of `file`."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self._before = f"HTTP/1.1 {status} {PHRASES[status]}\r\nDate: ".encode("latin-1")
        self._after = f"\r\n{lines}\r\n".encode("latin-1") + body
        self.status = status
        self.file = file
        self.fd = file.fd if file is not None else -1
        self.offset = offset
        self.count = count
        self.rest = tuple(rest)
        #: Whether the connection ends with it.
        self.close = close
        #: The path below the root that it answers for; the site sets it where it remembers.
        self.path = b""
        #: The request line, for the access log.
        self.line = b""
        #: When it may no longer be sent as it is (time.monotonic()); 0: it is not for repetition.
        self.expires = 0.0
        #: Bytes of content, without the fields.
        self.length = len(body) + count + sum(map(_length, self.rest))
        self.stamp(date, 0.0)
        #: All bytes, fields included.
        self.total = len(self.head) - len(body) + self.length

    def stamp(self, date: bytes, expires: float) -> None:
        """Give it another Date, which is right until `expires`."""
        self.head = self._before + date + self._after
        self.expires = expires


def _length(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part[1]
