"""The echo service on trio, as its tutorial would write it: one task a connection.

`SocketStream` sets TCP_NODELAY.  `send_all` returns only when the kernel took everything, so that
a peer that does not read costs one chunk; for the idle timeout it has taken nothing until it took
all of that.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from servers import idle, lifecycle, trio_loop
from servers.echo.options import EchoOptions
from servers.lifecycle import Tally
from servers.listen import CHUNK


class Connection:
    """One echo connection: what the idle sweep needs to know of it."""

    __slots__ = ("quiet", "received", "scope", "seen", "stream")

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.scope = trio.CancelScope()
        self.received = 0
        self.seen = 0
        self.quiet = -1


class EchoService:
    """Every connection of one process."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.connections: set[Connection] = set()
        self.drained = trio.Event()
        self.draining = False

    async def handle(self, stream: trio.SocketStream) -> None:
        tally = self.tally
        tally.accepted += 1
        connection = Connection(stream)
        self.connections.add(connection)
        try:
            with connection.scope:
                async with stream:
                    while data := await stream.receive_some(CHUNK):
                        connection.received += len(data)
                        await stream.send_all(data)
                        connection.quiet = -1
        except trio.BrokenResourceError:
            tally.resets += 1
        finally:
            tally.closed += 1
            tally.received += connection.received
            self.connections.discard(connection)
            if self.draining and not self.connections:
                self.drained.set()

    async def sweep(self, timeout: float) -> None:
        while True:
            await trio.sleep(timeout / idle.SWEEPS)
            for connection in idle.sweep(self.connections):
                self.tally.idle_closes += 1
                connection.scope.cancel()

    def drain(self) -> None:
        self.draining = True
        if not self.connections:
            self.drained.set()

    def abort(self) -> None:
        """Nothing here withstands a cancellation."""

    def say_counters(self, final: bool) -> None:
        lifecycle.say(lifecycle.counters(self.tally, self.connections, None, final))


async def _serve(
    options: EchoOptions, listener: socket.socket, announce: Callable[..., Any]
) -> None:
    service = EchoService()
    background: list[Callable[[], Awaitable[object]]] = []
    if options.idle_timeout:
        background.append(lambda: service.sweep(options.idle_timeout))
    await trio_loop.run(
        service,
        options,
        listener,
        lambda: announce(poller=trio_loop.facility()),
        *background,
    )
    service.say_counters(final=True)


def serve(options: EchoOptions, listener: socket.socket, announce: Callable[..., Any]) -> None:
    """Run until a signal ends the drain.  `announce(**actual)` is called once it serves."""
    trio.run(_serve, options, listener, announce)
