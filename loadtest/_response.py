"""As much of an HTTP response as a load must understand.  Pure.

A load asks for whole files that exist, so the only answer it takes is 200 with the Content-Length
of the file, on a connection that stays open.  Everything else is an error with its own name.
"""

from __future__ import annotations

import re
from typing import Final

END: Final = b"\r\n\r\n"
#: The largest head (bytes).
HEAD: Final = 16384

_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:[^\r]*\bclose\b", re.IGNORECASE)
_ENCODED: Final = re.compile(rb"\r\n(transfer|content)-encoding:", re.IGNORECASE)


def trouble(head: bytes, size: int) -> str:
    """Why this head, with its empty line, is not that of a whole file of `size` bytes; or ""."""
    status = _STATUS.match(head)
    if status is None:
        return "no HTTP response"
    if status[1] != b"200":
        return f"status {status[1].decode()}"
    if found := _ENCODED.search(head):
        return f"{found[1].decode().lower()}-encoding without being asked for one"
    length = _LENGTH.search(head)
    if length is None:
        return "no Content-Length"
    if int(length[1]) != size:
        return "another Content-Length than the file has bytes"
    if _CLOSE.search(head):
        return "Connection: close from the server"
    return ""
