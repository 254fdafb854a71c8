"""Range requests (RFC 9110 14): which bytes, and how several parts become one body.

Facts
-----
*   A server may ignore a Range header, and then sends the whole file.  It is ignored here when it
    is of another unit, malformed, or has more than MAX_RANGES members.  It counts for GET only.
*   A set of ranges is an amplifier: 1,300 times `0-` asks for 1,300 files.  So there are few, and
    those that overlap or touch become one, in the place of the first of them: never more bytes of
    the file than the file has.
*   Positions have any number of digits.  int() of 5,000 raises ValueError; what is longer than 19
    lies behind the end of every file.
*   An empty file has no byte to begin with: a first position is never satisfiable.  Its last five
    bytes are, as a set, but `Content-Range` cannot say "no bytes": the header is ignored.
*   One range that is left, of however many asked for, needs no multipart: the answer's own
    Content-Range says which it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MAX_RANGES: Final = 16

#: Longer numbers lie behind the end of any file (which ends before 2**63).
_DIGITS: Final = 19

_SPEC: Final = re.compile(r"[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*")

#: A body in pieces: bytes that go as they are, and (offset, count) of the file.
Pieces = list[bytes | tuple[int, int]]


def parse(value: str, size: int) -> list[tuple[int, int]] | None:
    """What a Range header asks of a file of `size` bytes: (offset, count) of each part to send.

    In the order asked for.  [] is for 416; None says to ignore the header.
    """
    if value[:6].lower() != "bytes=":
        return None
    if value.count(",") >= MAX_RANGES:  # empty members count as well: nobody needs them
        return None
    asked: list[tuple[int, int]] = []  # (first, behind the last)
    valid = False
    for member in value[6:].split(","):
        if not member.strip(" \t"):
            continue
        spec = _SPEC.fullmatch(member)
        if spec is None:
            return None
        first, last, suffix = spec.groups()
        valid = True
        if suffix is not None:
            count = min(_number(suffix), size)
            if count:
                asked.append((size - count, size))
            elif not size and _number(suffix):
                return None
            continue
        start = _number(first)
        stop = _number(last) + 1 if last else size
        if last and stop <= start:
            return None
        if start < size:
            asked.append((start, min(stop, size)))
    return _coalesce(asked) if valid else None


def content_range(offset: int, count: int, size: int) -> bytes:
    """The value of Content-Range for one part."""
    return b"bytes %d-%d/%d" % (offset, offset + count - 1, size)


def multipart(
    ranges: Iterable[tuple[int, int]], size: int, media_type: str, boundary: str
) -> Pieces:
    """The body of a multipart/byteranges answer.

    `boundary` must not occur in the file: a long random one does not.
    """
    pieces: Pieces = []
    lead = b""
    for offset, count in ranges:
        pieces.append(
            b"%b--%b\r\nContent-Type: %b\r\nContent-Range: %b\r\n\r\n"
            % (
                lead,
                boundary.encode("ascii"),
                media_type.encode("latin-1"),
                content_range(offset, count, size),
            )
        )
        pieces.append((offset, count))
        lead = b"\r\n"
    pieces.append(b"%b--%b--\r\n" % (lead, boundary.encode("ascii")))
    return pieces


def length(pieces: Pieces) -> int:
    """How many bytes the pieces have together: Content-Length."""
    return sum(len(piece) if isinstance(piece, bytes) else piece[1] for piece in pieces)


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return 10**_DIGITS if len(digits) > _DIGITS else int(digits or "0")


def _coalesce(asked: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[list[int]] = []  # [place of the first asked for, start, stop]
    for place, (start, stop) in sorted(enumerate(asked), key=lambda item: item[1]):
        if merged and start <= merged[-1][2]:
            last = merged[-1]
            last[0] = min(last[0], place)
            last[2] = max(last[2], stop)
        else:
            merged.append([place, start, stop])
    return [(start, stop - start) for _, start, stop in sorted(merged)]
