"""The access log, in the Common Log Format: a line for each answer, when the last byte has gone.

    127.0.0.1 - - [25/Nov/2026:14:07:43 +0000] "GET / HTTP/1.1" 200 1234

Facts
-----
*   The format comes from NCSA httpd.  The second and third fields (identd, user) are always "-".
*   A request line is what a client chose to send: quotes, backslashes and what is not printable
    are escaped, so that nobody can forge a line.
*   Lines are collected and written a few times a second, with O_APPEND: several workers may share
    one file, and a full disk costs lines, never the server.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

from servers.file.plan import Plan
from servers.http.dates import MONTHS
from servers.lifecycle import CannotServe, RateLimit

#: Lines that are collected before they are written.
GATHER: Final = 256

_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(32), 34, 92, *range(127, 256))}


class AccessLog:
    """Appends to a file, or to stderr where it is called "-".  Raises CannotServe."""

    def __init__(self, name: str) -> None:
        if name == "-":
            self._fd = os.dup(2)
        else:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            try:
                self._fd = os.open(name, flags, 0o640)
            except OSError as error:
                raise CannotServe(
                    f"--access-log {name} cannot be written: {error.strerror}; name another file"
                ) from None
        self._lines: list[str] = []
        self._limit = RateLimit()
        self._second = 0
        self._stamp = ""

    def add(self, host: str, plan: Plan, length: int) -> None:
        """One answer of `length` bytes of content, finished now."""
        line = plan.line.decode("latin-1").translate(_ESCAPES) or "-"
        size = length or "-"
        self._lines.append(f'{host} - - [{self._time()}] "{line}" {plan.status} {size}\n')
        if len(self._lines) >= GATHER:
            self.flush()

    def flush(self) -> None:
        """Write what was collected; what cannot be written is lost, which is said."""
        data = "".join(self._lines).encode()
        self._lines.clear()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            with contextlib.suppress(OSError):  # stderr may be what cannot be written
                self._limit.log(f"lines of the access log are lost: {error.strerror}")

    def close(self) -> None:
        self.flush()
        os.close(self._fd)

    def _time(self) -> str:
        second = int(time.time())
        if second != self._second:
            now = time.gmtime(second)
            self._second = second
            self._stamp = (
                f"{now.tm_mday:02}/{MONTHS[now.tm_mon - 1]}/{now.tm_year}:"
                f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} +0000"
            )
        return self._stamp
