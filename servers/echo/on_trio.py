"""The echo service on trio, as its tutorial would write it: one task a connection.

trio's `serve_listeners` already has an EMFILE policy (it waits 100 ms and logs), and
`SocketStream` sets TCP_NODELAY.  `send_all` returns only when the kernel took everything, so that
a peer that does not read costs one chunk; for the idle timeout it has taken nothing until it took
all of that.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from servers import idle, lifecycle
from servers.echo.options import EchoOptions
from servers.lifecycle import RateLimit, Tally
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


class AcceptErrors(logging.Handler):
    """Counts what `trio.serve_listeners` logs at EMFILE, ten times a second, and says it once."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally
        self._limit = RateLimit()

    def emit(self, record: logging.LogRecord) -> None:
        self._tally.accept_errors += 1
        error = record.exc_info[1] if record.exc_info else None
        self._limit.log(f"not accepting for 0.1 s: {error}; raise `ulimit -n` or lower the load")


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

    def report(self, final: bool) -> None:
        lifecycle.say(lifecycle.counters(self.tally, self.connections, None, final))


async def _until_stopped(service: EchoService, signals: AsyncIterator[int]) -> None:
    async for number in signals:
        if number != lifecycle.COUNTERS_SIGNAL:
            return
        service.report(final=False)


async def _serve(
    options: EchoOptions, listener: socket.socket, announce: Callable[..., Any]
) -> None:
    service = EchoService()
    logger = logging.getLogger("trio.serve_listeners")
    logger.addHandler(AcceptErrors(service.tally))
    logger.propagate = False
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
    with trio.open_signal_receiver(*lifecycle.STOP_SIGNALS, lifecycle.COUNTERS_SIGNAL) as signals:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as background:
                await background.start(
                    lambda task_status: trio.serve_listeners(
                        service.handle,
                        listeners,
                        handler_nursery=connections,
                        task_status=task_status,
                    )
                )
                if options.idle_timeout:
                    background.start_soon(service.sweep, options.idle_timeout)
                announce(poller=_facility())
                await _until_stopped(service, signals)
                background.cancel_scope.cancel()
            service.draining = True
            if service.connections:
                with trio.move_on_after(options.drain_timeout):
                    async with trio.open_nursery() as drain:
                        drain.start_soon(_second_signal, service, signals, drain.cancel_scope)
                        await service.drained.wait()
                        drain.cancel_scope.cancel()
            connections.cancel_scope.cancel()
    service.report(final=True)


async def _second_signal(
    service: EchoService, signals: AsyncIterator[int], scope: trio.CancelScope
) -> None:
    await _until_stopped(service, signals)
    scope.cancel()


def _facility() -> str:
    """What really waits: "epoll" or "kqueue", from trio's own statistics."""
    return trio.lowlevel.current_statistics().io_statistics.backend


def serve(options: EchoOptions, listener: socket.socket, announce: Callable[..., Any]) -> None:
    """Run until a signal ends the drain.  `announce(**actual)` is called once it serves."""
    trio.run(_serve, options, listener, announce)
