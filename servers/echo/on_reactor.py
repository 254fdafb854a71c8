"""The echo service on our reactor, over any poller: accepting, idle timeout, drain, counters."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pollers
from pollers.base import POLLIN, Poller
from pollers.system import HAS_SPLICE
from servers import idle, lifecycle
from servers.accept import Acceptor
from servers.echo.options import EchoOptions
from servers.echo.reactor_copy import CopyConnection
from servers.echo.reactor_splice import SharedPipe, SpliceConnection
from servers.lifecycle import CannotServe, Tally
from servers.reactor import Reactor

if TYPE_CHECKING:  # it needs numpy, and Linux
    from servers.echo.reactor_batch import Batches

Connection: TypeAlias = CopyConnection | SpliceConnection


class EchoService:
    """Every connection of one process, and what ends them."""

    def __init__(
        self,
        poller: Poller,
        listener: socket.socket,
        options: EchoOptions,
        make: Callable[..., Connection],
        batches: Batches | None = None,
    ) -> None:
        self.tally = Tally()
        self.reactor = Reactor(poller, options.max_events)
        self.connections: set[Connection] = set()
        self._options = options
        self._make = make
        self._draining = False
        self.batches = batches
        #: How a connection that reads is registered.
        self.interest, self.edge = POLLIN, False
        self._progress: Callable[[Connection], int] = idle.RECEIVED
        if batches is not None:
            self.reactor.poll_by(batches.poll)
            self.interest, self.edge = batches.interest, batches.edge
            self._progress = batches.progress
        self._acceptor = Acceptor(self.reactor, listener, self.tally, self._connect)
        if options.idle_timeout:
            self._period = options.idle_timeout / idle.SWEEPS
            self.reactor.call_later(self._period, self._sweep)
        for number in lifecycle.STOP_SIGNALS:
            self.reactor.on_signal(number, self._drain)
        self.reactor.on_signal(lifecycle.COUNTERS_SIGNAL, lambda: self.report(final=False))

    def drop(self, connection: Connection, reset: bool = False) -> None:
        """End a connection; its socket closes when the batch is done."""
        self.reactor.close(connection.fd, connection)
        self.connections.discard(connection)
        self.tally.closed += 1
        self.tally.received += connection.received
        if reset:
            self.tally.resets += 1
        if self._draining and not self.connections:
            self.reactor.stop()

    def report(self, final: bool) -> None:
        poller = self.reactor.poller.counters
        further = {}
        if self.batches is not None:
            self.tally.received += self.batches.take_received()
            further = self.batches.counters()
        lifecycle.say(lifecycle.counters(self.tally, self.connections, poller, final, **further))

    def close(self) -> None:
        """Close what the drain left open."""
        while self.connections:
            connection = self.connections.pop()
            connection.close()
            self.tally.closed += 1
            self.tally.received += connection.received

    def _connect(self, sock: socket.socket) -> None:
        connection = self._make(sock, self)
        try:
            self.reactor.add(connection.fd, self.interest, connection.on_readable, self.edge)
        except OSError:
            connection.close()
            raise
        self.connections.add(connection)

    def _sweep(self) -> None:
        for connection in idle.sweep(self.connections, self._progress):
            self.tally.idle_closes += 1
            # Before unregistering: it completes a poll that aio still has armed (pollers.base).
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            self.drop(connection)
        self.reactor.call_later(self._period, self._sweep)

    def _drain(self) -> None:
        if self._draining:
            self.reactor.stop()
            return
        self._draining = True
        self._acceptor.close()
        if self.connections:
            self.reactor.call_later(self._options.drain_timeout, self.reactor.stop)
        else:
            self.reactor.stop()


def _batches(poller: Poller, options: EchoOptions) -> Batches:
    """Raises CannotServe where there is no Linux AIO, no numpy, or no context to be had."""
    found = pollers.probe("aio")
    if not found.available:
        raise CannotServe(
            f"--backend batch rests on Linux AIO: {found.reason}; use --backend copy"
        )
    from servers.echo.reactor_batch import Batches

    try:
        return Batches(poller, options.max_events)
    except OSError as error:  # fs.aio-max-nr was used up since
        raise CannotServe(
            f"--backend batch rests on Linux AIO: {error.strerror}; use --backend copy"
        ) from error


def serve(options: EchoOptions, listener: socket.socket, announce: Callable[..., Any]) -> None:
    """Run until a signal ends the drain.  `announce(**actual)` is called once it serves."""
    assert options.poller is not None
    if options.backend == "splice" and not HAS_SPLICE:
        raise CannotServe("--backend splice: splice(2) exists on Linux only; use --backend copy")
    with contextlib.ExitStack() as stack:
        poller = stack.enter_context(pollers.create(options.poller))
        make: Callable[..., Connection] = CopyConnection
        if options.backend == "splice":
            make = partial(
                SpliceConnection, shared=stack.enter_context(contextlib.closing(SharedPipe()))
            )
        batches = None
        if options.backend == "batch":
            batches = stack.enter_context(contextlib.closing(_batches(poller, options)))
            make = batches.connection
        service = EchoService(poller, listener, options, make, batches)
        stack.callback(service.close)
        announce(poller=poller.name, emulated=poller.emulated)
        service.reactor.run()
        service.close()  # first, so that the final counters tell of nothing open
        service.report(final=True)
