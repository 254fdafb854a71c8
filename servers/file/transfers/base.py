"""How the bytes of a file reach a socket: what a transfer backend offers to the reactor.

Facts
-----
*   A file can be read again.  So no backend keeps bytes for a peer that does not take them: what
    the socket refused is dropped, and read again from its offset when there is room.  A slow
    reader costs a file offset, not a buffer and not a pipe.
*   What was read for nothing is a waste, so a mover offers a slow peer little more than what it
    took the last time (`window`).
*   A file that shrinks under a transfer ends early.  Its Content-Length can no longer be kept, and
    zeros in its place would be a lie: `Truncated` ends the connection.
*   Whatever the backend, a read of what is not in the page cache blocks the loop for as long as
    the disk takes (only O_DIRECT with AIO does not).  Moves are therefore bounded, and the loop's
    longest turn is counted.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from servers.file.cache import OpenFile
from servers.file.plan import Plan

#: The most that one move takes, bytes: of references to pages, and of copies, which are made
#: through a buffer that should stay in the CPU's cache.
CHUNK: Final = 1024 * 1024
COPIED: Final = 128 * 1024
#: The least that is offered to a slow peer, bytes.
LEAST: Final = 16 * 1024


class Truncated(Exception):
    """The file ended before the range that was promised."""


class Pending(Exception):
    """Nothing can be moved until the disk has answered; `resume` is called then."""


class Mover(Protocol):
    """One range of one file on its way to one socket."""

    #: Bytes that are still to go.
    left: int
    #: Whether the last move has filled the socket, so that the next would be refused.
    full: bool

    def move(self, sock: socket.socket) -> int:
        """Move some bytes and return how many.

        Raises BlockingIOError where the socket is full, Pending, Truncated, and OSError.
        """

    def close(self) -> None:
        """Give back what it holds.  May be repeated."""


#: Returns how many bytes of a plan went.  Raises BlockingIOError, Truncated and OSError.
Sender: TypeAlias = Callable[[Plan], int]


class Transfer(Protocol):
    """One backend in one process."""

    name: str

    def sender(self, sock: socket.socket) -> Sender:
        """What sends a plan's head and what goes at once of its first range.

        This is the hot path of small files: a function made once a connection, with the socket's
        methods at hand.
        """

    def mover(
        self, file: OpenFile, offset: int, count: int, last: bool, resume: Callable[[], None]
    ) -> Mover:
        """Move `count` bytes from `offset`; `last`: nothing follows them."""

    def close(self) -> None:
        """Give back what the process holds for it."""


def size(fd: int) -> int:
    """How long a file is now: lseek(2) is cheaper than fstat(2), and nobody uses its position."""
    return os.lseek(fd, 0, os.SEEK_END)


class Range:
    """What every mover knows: which bytes are left, and how many the peer is offered at once."""

    __slots__ = ("_most", "file", "full", "last", "left", "offset", "window")

    def __init__(self, file: OpenFile, offset: int, count: int, last: bool, most: int) -> None:
        """`most` is what one move takes, bytes."""
        self._most = most
        self.file = file
        self.offset = offset
        self.left = count
        self.full = False
        self.last = last
        self.window = most

    def offer(self) -> int:
        """How many bytes to move now."""
        return min(self.left, self.window)

    def went(self, offered: int, count: int) -> int:
        """Note that `count` of the `offered` bytes went; return `count`."""
        self.offset += count
        self.left -= count
        self.full = count != offered
        if count == offered:
            self.window = self._most
        else:
            self.window = max(LEAST, min(self._most, 2 * count))
        return count

    def close(self) -> None:
        """Nothing is held."""
