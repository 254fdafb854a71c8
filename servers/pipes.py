"""A pool of pipes for splice(2).

Facts
-----
*   A pipe holds 16 segments, 64 KiB of full pages, unless F_SETPIPE_SZ says otherwise.
*   An unprivileged user gets about 1,024 default pipes (pipe-user-pages-soft), and one page each
    beyond them: a pipe per connection at C10K is neither possible nor needed.
*   A pipe that still holds bytes must never go back to a pool: they would reach a stranger.
"""

from __future__ import annotations

import os
from typing import Final

from pollers import system

#: Pipes beyond which a pool answers None: two fds each.
LIMIT: Final = 256


class Pipe:
    """The two ends of one pipe, non-blocking and close-on-exec, with the bytes inside counted."""

    __slots__ = ("read_fd", "write_fd")

    def __init__(self) -> None:
        self.read_fd, self.write_fd = system.pipe()

    def resize(self, size: int) -> int:
        """Ask for room for `size` bytes; return what there is.

        A user with many pipes already (pipe-user-pages-soft) is refused, and it stays as it was.
        """
        return system.resize_pipe(self.write_fd, size)

    def take_out(self, count: int) -> bytes:
        """Read the `count` bytes that are known to be inside, into memory."""
        parts = []
        while count:
            part = os.read(self.read_fd, count)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """Empty pipes, made when needed, kept when given back, at most `limit` of them in all."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._made = 0
        self._free: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe; None when `limit` are in use or the process is out of fds."""
        if self._free:
            return self._free.pop()
        if self._made >= self._limit:
            return None
        try:
            pipe = Pipe()
        except OSError:  # EMFILE, ENFILE: the caller keeps the bytes in memory instead
            return None
        self._made += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Return an *empty* pipe."""
        self._free.append(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Close a pipe that may hold bytes."""
        self._made -= 1
        pipe.close()

    def close(self) -> None:
        while self._free:
            self.discard(self._free.pop())
