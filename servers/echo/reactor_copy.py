"""Echo on the reactor, backend `copy`: recv(2) into user memory, send(2) from it.

A connection is in one of two states, and its handler is the state:

    reading   waits for POLLIN; what is read is written back at once (the fast path: one recv,
              one send, nothing else)
    stalled   the peer did not take all of it: waits for POLLOUT alone, so that a peer that never
              reads costs one chunk of memory and no CPU

The end of file closes the connection: in the reading state it owes nothing any more.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pollers.base import POLLOUT
from servers.listen import CHUNK

if TYPE_CHECKING:
    from servers.echo.on_reactor import EchoService


class CopyConnection:
    """One echo connection.  Made by the service for an accepted, non-blocking socket."""

    __slots__ = (
        "_pending",
        "_recv",
        "_send",
        "_service",
        "fd",
        "quiet",
        "received",
        "seen",
        "sock",
    )

    def __init__(self, sock: socket.socket, service: EchoService) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.received = 0
        self.seen = 0
        self.quiet = -1
        self._service = service
        self._recv = sock.recv
        self._send = sock.send
        self._pending = b""

    def on_readable(self, bits: int) -> None:
        try:
            data = self._recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._service.drop(self, reset=True)
            return
        if not data:
            self._service.drop(self)
            return
        self.received += len(data)
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._service.drop(self, reset=True)
            return
        if sent != len(data):
            self._stall(data[sent:])

    def on_writable(self, bits: int) -> None:
        try:
            sent = self._send(self._pending)
        except BlockingIOError:
            return
        except OSError:
            self._service.drop(self, reset=True)
            return
        self.quiet = -1
        self._pending = self._pending[sent:]
        if not self._pending:
            self._resume()

    def _stall(self, rest: bytes) -> None:
        self._pending = rest
        self._service.tally.stalls += 1
        self._service.reactor.switch(self.fd, POLLOUT, self.on_writable)

    def _resume(self) -> None:
        service = self._service
        service.reactor.switch(self.fd, service.interest, self.on_readable, service.edge)

    def close(self) -> None:
        self.sock.close()
