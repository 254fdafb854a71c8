"""Echo on the reactor, backend `splice`: the bytes stay in the kernel (splice(2), Linux 2.6.17).

    socket --splice--> pipe --splice--> socket

Facts
-----
*   One pipe serves every connection, because it is empty again when a handler returns.  Only a
    connection whose peer does not read keeps it, bytes and all, and the next takes another from
    the pool.  When the pool is at its limit the bytes are moved to memory instead (`spills`), so
    that peers which never read can neither use up the fds nor stop the others.
*   SPLICE_F_NONBLOCK concerns the pipe; the sockets are non-blocking by themselves.  EAGAIN is
    ambiguous in general.  Here the pipe is empty before the first splice, so that it means "the
    socket has nothing", and not empty before the second, so that it means "the peer is full".
*   Small segments fill the pipe's 16 slots long before its 64 KiB: a splice then moves less than
    was asked, and level-triggered readiness brings the rest.
*   SPLICE_F_MOVE does nothing since Linux 2.6.21 and SPLICE_F_MORE is MSG_MORE, which would hold
    a reply back: neither is given.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pollers.base import POLLIN, POLLOUT
from pollers.system import SPLICE_F_NONBLOCK, splice
from servers.listen import CHUNK
from servers.pipes import Pipe, PipePool

if TYPE_CHECKING:
    from servers.echo.on_reactor import EchoService


class SharedPipe:
    """The pipe that every connection of one reactor splices through, and the pool behind it."""

    def __init__(self) -> None:
        self.pool = PipePool()
        self.current = Pipe()

    def keep(self) -> Pipe | None:
        """Let the caller keep the current pipe; None where there is no other to replace it."""
        replacement = self.pool.take()
        if replacement is None:
            return None
        kept, self.current = self.current, replacement
        return kept

    def close(self) -> None:
        self.current.close()
        self.pool.close()


class SpliceConnection:
    """One echo connection.  Made by the service for an accepted, non-blocking socket."""

    __slots__ = (
        "_kept",
        "_left",
        "_service",
        "_shared",
        "_spilled",
        "fd",
        "quiet",
        "received",
        "seen",
        "sock",
    )

    def __init__(self, sock: socket.socket, service: EchoService, shared: SharedPipe) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.received = 0
        self.seen = 0
        self.quiet = -1
        self._service = service
        self._shared = shared
        self._kept: Pipe | None = None
        self._left = 0
        self._spilled = b""

    def on_readable(self, bits: int) -> None:
        fd = self.fd
        pipe = self._shared.current
        try:
            count = splice(fd, pipe.write_fd, CHUNK, flags=SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return
        except OSError:
            self._service.drop(self, reset=True)
            return
        if not count:
            self._service.drop(self)
            return
        self.received += count
        try:
            sent = splice(pipe.read_fd, fd, count, flags=SPLICE_F_NONBLOCK)
        except BlockingIOError:
            sent = 0
        except OSError:
            pipe.take_out(count)  # it serves the others next
            self._service.drop(self, reset=True)
            return
        if sent != count:
            self._stall(count - sent)

    def _stall(self, left: int) -> None:
        tally = self._service.tally
        tally.stalls += 1
        self._kept = self._shared.keep()
        self._left = left
        handler = self.on_writable
        if self._kept is None:
            tally.spills += 1
            self._spilled = self._shared.current.take_out(left)
            handler = self.on_writable_spilled
        self._service.reactor.switch(self.fd, POLLOUT, handler)

    def on_writable(self, bits: int) -> None:
        pipe = self._kept
        assert pipe is not None
        try:
            sent = splice(pipe.read_fd, self.fd, self._left, flags=SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return
        except OSError:
            self._service.drop(self, reset=True)
            return
        self.quiet = -1
        self._left -= sent
        if not self._left:
            self._kept = None
            self._shared.pool.give_back(pipe)
            self._service.reactor.switch(self.fd, POLLIN, self.on_readable)

    def on_writable_spilled(self, bits: int) -> None:
        try:
            sent = self.sock.send(self._spilled)
        except BlockingIOError:
            return
        except OSError:
            self._service.drop(self, reset=True)
            return
        self.quiet = -1
        self._spilled = self._spilled[sent:]
        if not self._spilled:
            self._service.reactor.switch(self.fd, POLLIN, self.on_readable)

    def close(self) -> None:
        if self._kept is not None:
            self._shared.pool.discard(self._kept)
            self._kept = None
        self.sock.close()
