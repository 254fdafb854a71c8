"""The echo service on asyncio's own loop and on uvloop: the same protocol class on both.

Facts
-----
*   `BufferedProtocol` reads into a buffer of ours, which bounds a read to CHUNK on both loops:
    `data_received` would be given up to 256 KiB by asyncio and 250 KiB by libuv.  It is also the
    faster one on both.  The copy into `bytes` is needed: a transport may keep what it was given.
*   `set_write_buffer_limits(0)` makes the transport say `pause_writing()` as soon as it could
    not send everything, and we stop reading until `resume_writing()`: one chunk a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, cast

from servers import asyncio_loop, idle, lifecycle
from servers.echo.options import EchoOptions
from servers.lifecycle import Tally
from servers.listen import CHUNK


class EchoService:
    """Every connection of one process."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.connections: set[EchoProtocol] = set()
        self.stopped = asyncio.Event()
        self.draining = False
        self.buffer = bytearray(CHUNK)
        self.view = memoryview(self.buffer)

    def drain(self, server: asyncio.Server, seconds: float) -> None:
        if self.draining or not self.connections:
            self.stopped.set()
        else:
            asyncio.get_running_loop().call_later(seconds, self.stopped.set)
        self.draining = True
        server.close()

    def report(self, final: bool) -> None:
        lifecycle.say(lifecycle.counters(self.tally, self.connections, None, final))

    async def sweep(self, timeout: float) -> None:
        while True:
            await asyncio.sleep(timeout / idle.SWEEPS)
            for connection in self.connections:
                connection.note_progress()
            for connection in idle.sweep(self.connections):
                self.tally.idle_closes += 1
                connection.transport.abort()


class EchoProtocol(asyncio.BufferedProtocol):
    """One echo connection."""

    __slots__ = ("_owed", "_service", "_view", "_write", "quiet", "received", "seen", "transport")

    transport: asyncio.Transport

    def __init__(self, service: EchoService) -> None:
        self._service = service
        self._view = service.view
        self._owed = 0
        self.received = 0
        self.seen = 0
        self.quiet = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without being registered as its subclasses.
        self.transport = cast(asyncio.Transport, transport)
        self._write = self.transport.write
        self.transport.set_write_buffer_limits(0)
        self._service.tally.accepted += 1
        self._service.connections.add(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._service.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes
        self._write(bytes(self._view[:nbytes]))

    def pause_writing(self) -> None:
        self._service.tally.stalls += 1
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.quiet = -1
        self.transport.resume_reading()

    def note_progress(self) -> None:
        """For the sweep: a peer that took some of what it is owed is not idle."""
        owed = self.transport.get_write_buffer_size()
        if owed != self._owed:
            self._owed = owed
            self.quiet = 0

    def eof_received(self) -> bool:
        return False  # the transport closes itself, after what is left was sent

    def connection_lost(self, exc: Exception | None) -> None:
        service = self._service
        service.connections.discard(self)
        service.tally.closed += 1
        service.tally.received += self.received
        if exc is not None:
            service.tally.resets += 1
        if service.draining and not service.connections:
            service.stopped.set()


async def _serve(
    options: EchoOptions, listener: socket.socket, announce: Callable[..., Any]
) -> None:
    loop = asyncio.get_running_loop()
    service = EchoService()
    loop.set_exception_handler(asyncio_loop.LoopErrors(service.tally))
    server = await asyncio_loop.accept(lambda: EchoProtocol(service), listener)
    for number in lifecycle.STOP_SIGNALS:
        loop.add_signal_handler(number, service.drain, server, options.drain_timeout)
    loop.add_signal_handler(lifecycle.COUNTERS_SIGNAL, service.report, False)
    async with contextlib.AsyncExitStack() as stack:
        if options.idle_timeout:
            sweeper = asyncio.create_task(service.sweep(options.idle_timeout))
            stack.callback(sweeper.cancel)
        announce(poller=asyncio_loop.facility(options.loop))
        await service.stopped.wait()
    for connection in list(service.connections):
        connection.transport.abort()
    while service.connections:  # abort() reports connection_lost from the loop's next turn
        await asyncio.sleep(0)
    service.report(final=True)


def serve(options: EchoOptions, listener: socket.socket, announce: Callable[..., Any]) -> None:
    """Run until a signal ends the drain.  `announce(**actual)` is called once it serves."""
    with asyncio.Runner(loop_factory=asyncio_loop.factory(options.loop)) as runner:
        runner.run(_serve(options, listener, announce))
