"""trio, as every server of ours uses it: accepting, signals, the drain.

Facts
-----
*   `trio.serve_listeners` has an EMFILE policy of its own: it waits 100 ms, and logs each time.
*   A task is cancelled by its nursery's scope, and by nothing else: connections have a nursery of
    their own, which outlives the one that accepts by the time of the drain.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import trio

from servers import lifecycle
from servers.cli import Options
from servers.lifecycle import RateLimit, Tally


class Service(Protocol):
    """A server's connections, and what it says of itself."""

    @property
    def tally(self) -> Tally: ...

    @property
    def drained(self) -> trio.Event:
        """Set when the drain has begun and no connection is left."""

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""

    def drain(self) -> None:
        """No connection follows: end each as soon as it owes nothing."""

    def abort(self) -> None:
        """End what the cancellation of every `handle` does not."""

    def say_counters(self, final: bool) -> None:
        """Print the counters line."""


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


async def run(
    service: Service,
    options: Options,
    listener: socket.socket,
    announce: Callable[[], object],
    *background: Callable[[], Awaitable[object]],
) -> None:
    """Serve until a signal ends the drain; `background` runs until then too."""
    logger = logging.getLogger("trio.serve_listeners")
    logger.addHandler(AcceptErrors(service.tally))
    logger.propagate = False
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
    with trio.open_signal_receiver(*lifecycle.STOP_SIGNALS, lifecycle.COUNTERS_SIGNAL) as signals:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                await accepting.start(
                    lambda task_status: trio.serve_listeners(
                        service.handle,
                        listeners,
                        handler_nursery=connections,
                        task_status=task_status,
                    )
                )
                for task in background:
                    connections.start_soon(task)
                announce()
                await _until_stopped(service, signals)
                accepting.cancel_scope.cancel()
            service.drain()
            with trio.move_on_after(options.drain_timeout):
                async with trio.open_nursery() as drain:
                    drain.start_soon(_second_signal, service, signals, drain.cancel_scope)
                    await service.drained.wait()
                    drain.cancel_scope.cancel()
            connections.cancel_scope.cancel()
            service.abort()


def facility() -> str:
    """What really waits: "epoll" or "kqueue", from trio's own statistics."""
    return trio.lowlevel.current_statistics().io_statistics.backend


async def _until_stopped(service: Service, signals: AsyncIterator[int]) -> None:
    async for number in signals:
        if number != lifecycle.COUNTERS_SIGNAL:
            return
        service.say_counters(final=False)


async def _second_signal(
    service: Service, signals: AsyncIterator[int], scope: trio.CancelScope
) -> None:
    await _until_stopped(service, signals)
    scope.cancel()
