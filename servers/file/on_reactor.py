"""The file service on our reactor, over any poller: accepting, deadlines, drain, counters."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pollers
from pollers.base import POLLIN, POLLOUT, POLLRDHUP, Capability, Poller
from servers import lifecycle
from servers.accept import Acceptor
from servers.file.options import FileOptions
from servers.file.reactor_connection import Connection
from servers.file.root import Root
from servers.file.service import FULL, RECEIVE, Service, limit_unsent
from servers.file.transfers.base import Transfer
from servers.file.transfers.choice import choose
from servers.file.transfers.copy import CopyTransfer
from servers.file.turn import Turn
from servers.reactor import Reactor


class ReactorService(Service):
    """Every connection of one process, and what ends them."""

    def __init__(self, options: FileOptions, poller: Poller) -> None:
        super().__init__(options)
        self.reactor = Reactor(poller, options.max_events)
        self.reactor.watch_stalls()
        # libkqueue's edges do not tell of an end of file that comes with the last bytes.
        self.edge = bool(poller.capabilities & Capability.EDGE) and not poller.emulated
        self.transfer = _transfer(options.backend, self.reactor, self.root)
        self.connections: set[Connection] = set()
        #: Who sends the small answers, where they are copied.
        self.turn: Turn | None = None
        if isinstance(self.transfer, CopyTransfer):
            self.turn = Turn(self.tally)
            self.reactor.after_batch(self.turn.flush)
        self._acceptor: Acceptor | None = None

    def start(self, listener: socket.socket) -> None:
        """Accept from now on, and obey signals.  Raises OSError where the poller is full."""
        reactor = self.reactor
        # First, so that a request which came after a change is never answered as before it.
        if self.changes is not None:
            reactor.add_first(self.changes.fileno(), lambda bits: self.site.read_changes())
        limit_unsent(listener)
        self._acceptor = Acceptor(reactor, listener, self.tally, self._connect)
        reactor.call_later(self.sweep_period, self._sweep)
        for number in lifecycle.STOP_SIGNALS:
            reactor.on_signal(number, self._drain)
        reactor.on_signal(lifecycle.COUNTERS_SIGNAL, lambda: self.say_counters(final=False))

    def drop(self, connection: Connection, reset: bool = False) -> None:
        """End a connection; its socket closes when the batch is done."""
        if connection not in self.connections:
            return
        if connection.registered:
            self.reactor.close(connection.fd, connection)
        else:
            self.reactor.soon(connection.close)
        self.connections.discard(connection)
        self.tally.closed += 1
        if reset:
            self.tally.resets += 1
        if self.draining and not self.connections:
            self.reactor.stop()

    def say_counters(self, final: bool) -> None:
        """Print the counters line."""
        self.report(self.reactor.poller.counters, self.reactor.longest_stall, final)

    def close_connections(self) -> None:
        """Close what the drain left open."""
        while self.connections:
            self.connections.pop().close()
            self.tally.closed += 1

    def close(self) -> None:
        self.close_connections()
        self.transfer.close()
        super().close()

    def _connect(self, sock: socket.socket) -> None:
        if len(self.connections) >= self.options.max_connections:
            self._turn_away(sock)
            return
        host = ""
        if self.access_log is not None:
            with contextlib.suppress(OSError):  # it has gone already
                host = sock.getpeername()[0]
        connection = Connection(sock, self, host)
        interest = POLLIN | POLLOUT | POLLRDHUP if self.edge else POLLIN
        self.reactor.add(connection.fd, interest, connection.on_readable, self.edge)
        self.connections.add(connection)

    def _turn_away(self, sock: socket.socket) -> None:
        self.tally.refused += 1
        self.tally.closed += 1
        with contextlib.suppress(OSError), sock:
            sock.send(FULL)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(RECEIVE)  # what is unread at close(2) would turn the answer into a reset

    def _sweep(self) -> None:
        self.sweep(self.connections)
        self.reactor.call_later(self.sweep_period, self._sweep)

    def _drain(self) -> None:
        if self.draining:
            self.reactor.stop()
            return
        assert self._acceptor is not None
        self.draining = self.site.draining = True
        self._acceptor.close()
        self.site.forget_all()  # what is remembered would keep its connection open
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            self.reactor.call_later(self.options.drain_timeout, self.reactor.stop)
        else:
            self.reactor.stop()


def _transfer(backend: str, reactor: Reactor, root: Root) -> Transfer:
    """The backend of that name.  Raises CannotServe, OSError."""
    if backend != "aio":
        return choose(backend)
    from servers.file.transfers.aio import AioTransfer  # which needs numpy

    return AioTransfer(reactor, root)


def serve(options: FileOptions, listener: socket.socket, announce: Callable[..., Any]) -> None:
    """Run until a signal ends the drain.  `announce(**actual)` is called once it serves."""
    assert options.poller is not None
    with (
        pollers.create(options.poller) as poller,
        contextlib.closing(ReactorService(options, poller)) as service,
    ):
        service.start(listener)
        announce(poller=poller.name, emulated=poller.emulated, **service.choices())
        service.reactor.run()
        service.close_connections()  # first, so that the final counters tell of nothing open
        service.say_counters(final=True)
