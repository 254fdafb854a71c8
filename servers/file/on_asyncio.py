"""The file service on asyncio's own loop and on uvloop: the same protocol classes on both.

`longest_stall` is null on uvloop: libuv tells nobody when it waits and when it calls.  uvloop has
no `loop.sendfile()` either, so that its one backend is `copy`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from servers import asyncio_loop, lifecycle
from servers.asyncio_loop import StallSelector
from servers.file.asyncio_copy import FileProtocol
from servers.file.asyncio_sendfile import SendfileProtocol
from servers.file.hosted import HostedService
from servers.file.options import FileOptions
from servers.file.service import RECEIVE, limit_unsent


class AsyncioService(HostedService):
    """Every connection of one process, and what ends them.  Made where its loop runs."""

    def __init__(self, options: FileOptions, stalls: StallSelector | None) -> None:
        """`stalls` is the selector of the loop, where it has one."""
        super().__init__(options)
        self.loop = asyncio.get_running_loop()
        self.connections: set[FileProtocol] = set()
        self.stopped = asyncio.Event()
        #: What every connection reads into.
        self.view = memoryview(bytearray(RECEIVE))
        self._stalls = stalls
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept from now on, and obey signals."""
        if self.changes is not None:
            self.loop.add_reader(self.changes.fileno(), self.site.read_changes)
        limit_unsent(listener)
        protocol = SendfileProtocol if self.options.backend == "sendfile" else FileProtocol
        self._server = await asyncio_loop.accept(lambda: protocol(self), listener)
        self._sweeper = self.loop.call_later(self.sweep_period, self._sweep)
        for number in lifecycle.STOP_SIGNALS:
            self.loop.add_signal_handler(number, self._drain)
        self.loop.add_signal_handler(lifecycle.COUNTERS_SIGNAL, self.say_counters, False)

    def connect(self, connection: FileProtocol) -> bool:
        """Count a new connection; False where it is one too many."""
        self.tally.accepted += 1
        if len(self.connections) >= self.options.max_connections:
            self.tally.refused += 1
            return False
        self.connections.add(connection)
        return True

    def disconnect(self, connection: FileProtocol, reset: bool) -> None:
        """Count a connection that has ended."""
        self.connections.discard(connection)
        self.tally.closed += 1
        if reset:
            self.tally.resets += 1
        if self.draining and not self.connections:
            self.stopped.set()

    def say_counters(self, final: bool) -> None:
        """Print the counters line."""
        stalls = self._stalls
        self.report(None, None if stalls is None else stalls.longest_stall, final)

    async def close_connections(self) -> None:
        """Close what the drain left open."""
        for connection in list(self.connections):
            connection.abort()
        while self.connections:  # connection_lost() is called in one of the loop's next turns
            await asyncio.sleep(0)

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self.changes is not None:
            self.loop.remove_reader(self.changes.fileno())
        super().close()

    def _sweep(self) -> None:
        self.sweep(self.connections)
        self._sweeper = self.loop.call_later(self.sweep_period, self._sweep)

    def _drain(self) -> None:
        if self.draining:
            self.stopped.set()
            return
        assert self._server is not None
        self.draining = self.site.draining = True
        self._server.close()
        self.site.forget_all()  # what is remembered would keep its connection open
        for connection in self.connections:
            connection.drain()
        if self.connections:
            self.loop.call_later(self.options.drain_timeout, self.stopped.set)
        else:
            self.stopped.set()


async def _serve(
    options: FileOptions,
    listener: socket.socket,
    announce: Callable[..., Any],
    stalls: StallSelector | None,
) -> None:
    with contextlib.closing(AsyncioService(options, stalls)) as service:
        service.loop.set_exception_handler(asyncio_loop.LoopErrors(service.tally))
        await service.start(listener)
        announce(poller=asyncio_loop.facility(options.loop), **service.choices())
        await service.stopped.wait()
        await service.close_connections()
        service.say_counters(final=True)


def serve(options: FileOptions, listener: socket.socket, announce: Callable[..., Any]) -> None:
    """Run until a signal ends the drain.  `announce(**actual)` is called once it serves."""
    stalls = StallSelector() if options.loop == "asyncio" else None
    with asyncio.Runner(loop_factory=asyncio_loop.factory(options.loop, stalls)) as runner:
        runner.run(_serve(options, listener, announce, stalls))
