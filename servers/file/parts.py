"""A plan cut into what a loop can send: bytes, and ranges of its file."""

from __future__ import annotations

import os
from collections.abc import Iterator

from servers.file.plan import Part, Plan
from servers.file.transfers.base import Truncated


def parts(plan: Plan, gone: int = 0) -> list[Part]:
    """What follows a plan's first `gone` bytes, which end in its head or in its first range.

    No part is empty.
    """
    done = gone - len(plan.head)
    found: list[Part] = [plan.head[gone:]] if done < 0 else []
    done = max(done, 0)
    found += [(plan.offset + done, plan.count - done), *plan.rest]
    return [part for part in found if (part if isinstance(part, bytes) else part[1])]


def chunks(plan: Plan, most: int) -> Iterator[bytes]:
    """All bytes of a plan, `most` at a time, each read from its file when it is asked for.

    Raises OSError, and Truncated behind the last bytes that there are.
    """
    held: list[bytes] = []
    room = most
    for part in parts(plan):
        at, left = (0, len(part)) if isinstance(part, bytes) else part
        while left:
            count = min(left, room)
            if isinstance(part, bytes):
                piece = part[at : at + count]
            else:
                piece = os.pread(plan.fd, count, at)
            if not piece:
                if held:
                    yield b"".join(held)
                raise Truncated
            held.append(piece)
            at += len(piece)
            left -= len(piece)
            room -= len(piece)
            if not room:
                yield b"".join(held)
                held.clear()
                room = most
    if held:
        yield b"".join(held)
