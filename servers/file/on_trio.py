"""The file service on trio: one task a connection (trio_connection.py).

Facts
-----
*   Accepting is trio's (`serve_listeners`, and what it does at EMFILE).  The socket is then taken
    out of its stream, and waited for with `trio.lowlevel`, so that the transfer backends of the
    reactor move the bytes here too.
*   SocketStream limits what is unsent in the kernel to 16 KiB (TCP_NOTSENT_LOWAT), which is for
    those who want to change their mind about the next byte.  A file server does not: it would only
    wake up more often, so its own limit takes the place of that one.  (With 16 KiB, 1 MiB by
    sendfile(2) cost 2.4 times the CPU of no limit.)
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import trio
from trio.lowlevel import wait_readable

from servers import trio_loop
from servers.file.hosted import HostedService
from servers.file.options import FileOptions
from servers.file.service import FULL, RECEIVE, limit_unsent
from servers.file.transfers.choice import choose
from servers.file.trio_connection import Connection


class Stalls(trio.abc.Instrument):
    """Keeps the longest turn between two waits for I/O."""

    def __init__(self) -> None:
        #: Seconds.
        self.longest = 0.0
        self._since = math.inf  # starting is no stall

    def before_io_wait(self, timeout: float) -> None:
        self.longest = max(self.longest, monotonic() - self._since)

    def after_io_wait(self, timeout: float) -> None:
        self._since = monotonic()


class TrioService(HostedService):
    """Every connection of one process, and what ends them."""

    def __init__(self, options: FileOptions, stalls: Stalls) -> None:
        super().__init__(options)
        self.transfer = choose(options.backend)
        self.connections: set[Connection] = set()
        self.drained = trio.Event()
        self._stalls = stalls

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        tally = self.tally
        tally.accepted += 1
        with _taken(stream) as sock:
            try:
                if len(self.connections) < self.options.max_connections:
                    await self._serve(sock)
                else:
                    self._turn_away(sock)
            finally:
                tally.closed += 1

    async def _serve(self, sock: socket.socket) -> None:
        host = ""
        if self.access_log is not None:
            with contextlib.suppress(OSError):  # it has gone already
                host = sock.getpeername()[0]
        connection = Connection(sock, self, host)
        self.connections.add(connection)
        try:
            await connection.live()
        finally:
            self.connections.discard(connection)
            if self.draining and not self.connections:
                self.drained.set()

    def _turn_away(self, sock: socket.socket) -> None:
        self.tally.refused += 1
        with contextlib.suppress(OSError):
            sock.send(FULL)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(RECEIVE)  # unread, it would turn the answer into a reset

    async def follow_changes(self) -> None:
        """Let go of what changed, also while nobody asks for anything."""
        assert self.changes is not None
        while True:
            await wait_readable(self.changes.fileno())
            self.site.read_changes()

    async def sweep_often(self) -> None:
        """End who has waited too long."""
        while True:
            await trio.sleep(self.sweep_period)
            self.sweep(self.connections)

    def drain(self) -> None:
        self.draining = self.site.draining = True
        self.site.forget_all()  # what is remembered would keep its connection open
        for connection in self.connections:
            connection.drain()
        if not self.connections:
            self.drained.set()

    def abort(self) -> None:
        for connection in self.connections:
            connection.abort()

    def say_counters(self, final: bool) -> None:
        """Print the counters line."""
        self.report(None, self._stalls.longest, final)

    def close(self) -> None:
        self.transfer.close()
        super().close()


async def _serve(
    options: FileOptions, listener: socket.socket, announce: Callable[..., Any], stalls: Stalls
) -> None:
    with contextlib.closing(TrioService(options, stalls)) as service:
        background: list[Callable[[], Awaitable[None]]] = [service.sweep_often]
        if service.changes is not None:
            background.append(service.follow_changes)

        def announce_all() -> None:
            announce(poller=trio_loop.facility(), **service.choices())

        await trio_loop.run(service, options, listener, announce_all, *background)
        service.say_counters(final=True)


def _taken(stream: trio.SocketStream) -> socket.socket:
    """The socket out of a stream, which is of no use afterwards."""
    family, proto = stream.socket.family, stream.socket.proto
    sock = socket.socket(family, socket.SOCK_STREAM, proto, fileno=stream.socket.detach())
    sock.setblocking(False)
    limit_unsent(sock)
    return sock


def serve(options: FileOptions, listener: socket.socket, announce: Callable[..., Any]) -> None:
    """Run until a signal ends the drain.  `announce(**actual)` is called once it serves."""
    stalls = Stalls()
    trio.run(_serve, options, listener, announce, stalls, instruments=[stalls])
