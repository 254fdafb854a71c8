"""A stream of bytes cut into heads of requests, with the bodies in between thrown away.

How it is used: after each `feed()`, `next_head()` until it gives None; after a head whose request
has a body, `skip()` it.  Between feeds at most one unfinished head is kept, so that no client can
make us hold more than `Limits.header_bytes` and what one read brought.

Facts
-----
*   A head ends with CRLF CRLF.  RFC 9112 2.2 allows a recipient to take an LF alone for a line's
    end; a proxy before us may not, and then the two disagree where a request ends.  400.
*   A head may never end.  What can be known early is said early: control characters (somebody
    speaks TLS to us), a request line or a head over its limit, too many fields.
*   CRLFs before a request line are to be ignored (RFC 9112 2.2: an old client sends one after a
    body).  A few; they are no way to keep a connection.
*   The bytes come in any portions.  Each is looked at a bounded number of times whatever the
    portions are: every search goes on where the last one ended.  A bytearray forgets bytes at
    its front, and takes them at its end, without moving the others.
"""

from __future__ import annotations

import re
from typing import Final

from servers.http.errors import BadRequest
from servers.http.request import AROUND_TARGET, Limits

#: CRLFs ignored before one request line.
EMPTY_LINES: Final = 8

#: What no head may contain.  A CR at the very end may yet get its LF.
_FORBIDDEN: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class HeadBuffer:
    """What one connection has received and nobody has read yet."""

    __slots__ = ("_data", "_empty_lines", "_error", "_limits", "_lines", "_searched", "_skip")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._data = bytearray()
        self._skip = 0  # bytes of a body that are still to come
        self._searched = 0  # bytes of an unfinished head that were searched for its end
        self._lines = 0  # CRLFs in those
        self._empty_lines = 0
        self._error: BadRequest | None = None

    def feed(self, data: bytes) -> None:
        """Take what a read brought.  After BadRequest it is forgotten."""
        if self._error is not None:
            return
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._data += data

    def next_head(self) -> bytes | None:
        """The next head, its empty line included; None until there is one.

        Raises BadRequest as soon as it is certain, and again whenever it is asked after that.
        """
        if self._error is not None:
            raise self._error
        data = self._data
        if self._searched <= 1:  # a lone CR may have been searched
            self._ignore_empty_lines()
        end = data.find(b"\r\n\r\n", max(0, self._searched - 3)) + 4
        if end < 4:
            self._check_unfinished()
            self._searched = len(data)
            return None
        if end > self._limits.header_bytes:
            self._check_line(data.index(b"\r\n"))
            self._refuse(431, f"head longer than {self._limits.header_bytes} bytes")
        head = bytes(data[:end])
        del data[:end]
        self._searched = self._lines = self._empty_lines = 0
        return head

    def skip(self, count: int) -> None:
        """Throw away the body, `count` bytes, that follows the head given last."""
        here = min(count, len(self._data))
        del self._data[:here]
        self._skip = count - here

    @property
    def empty(self) -> bool:
        """Nothing is held, no body is being waited for, and no empty line came before a head."""
        return not self._data and not self._skip and not self._empty_lines

    @property
    def partial(self) -> bool:
        """A head has begun and not ended (once next_head() gave None)."""
        return bool(self._data)

    @property
    def held(self) -> int:
        """How many bytes are in memory."""
        return len(self._data)

    def _ignore_empty_lines(self) -> None:
        while self._data.startswith(b"\r\n"):
            self._empty_lines += 1
            if self._empty_lines > EMPTY_LINES:
                self._refuse(400, "empty lines instead of a request")
            del self._data[:2]
            self._searched = 0

    def _check_unfinished(self) -> None:
        data, limits = self._data, self._limits
        news = max(0, self._searched - 1)  # a CR that was last may have got its LF, or not
        if _FORBIDDEN.search(data, news):
            self._refuse(400, "control character or lone LF in the head")
        if not self._lines:
            line = data.find(b"\r\n", news)
            self._check_line(len(data) - 1 if line < 0 else line)  # the last may be its CR
        self._lines += data.count(b"\r\n", news)
        if self._lines - 1 > limits.fields:
            self._refuse(431, f"more than {limits.fields} header fields")
        if len(data) >= limits.header_bytes:  # its end is yet to come
            self._refuse(431, f"head longer than {limits.header_bytes} bytes")

    def _check_line(self, length: int) -> None:
        if length > self._limits.uri_bytes + AROUND_TARGET:
            self._refuse(414, f"target longer than {self._limits.uri_bytes} bytes")

    def _refuse(self, status: int, reason: str) -> None:
        self._data.clear()
        self._error = BadRequest(status, reason)
        raise self._error
