"""Accepting on the reactor: until EAGAIN, and sane when the process runs out of fds.

Facts
-----
*   A level-triggered listening socket stays readable while accept(2) fails with EMFILE, so a
    loop that goes on polling it spins, and one that logs each failure fills the disk.
*   accept(2) reports errors of the connection that it would have returned (ECONNABORTED, EPROTO,
    and on Linux a dozen network errors): they concern that connection and no other.

Policy: out of fds or memory, stop listening to the listener for `RETRY` seconds, say so at most
once a second, and try again.  Connections wait in the kernel's backlog meanwhile.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from pollers.base import POLLIN
from servers.lifecycle import EXHAUSTED, RateLimit, Tally
from servers.listen import BACKLOG
from servers.reactor import Reactor, Timer

#: Seconds without accepting after EMFILE and its like.
RETRY: Final = 0.25


class Acceptor:
    """Hands each accepted connection, a non-blocking socket, to `connect`."""

    def __init__(
        self,
        reactor: Reactor,
        listener: socket.socket,
        tally: Tally,
        connect: Callable[[socket.socket], None],
    ) -> None:
        self._reactor = reactor
        self._listener = listener
        self._fd = listener.fileno()
        self._tally = tally
        self._connect = connect
        self._limit = RateLimit()
        self._retry: Timer | None = None
        reactor.add(self._fd, POLLIN, self._on_ready)

    def close(self) -> None:
        """Stop accepting: new connections are refused from now on."""
        if self._retry is not None:
            self._retry.cancel()
        else:
            self._reactor.remove(self._fd)
        self._listener.close()

    def _on_ready(self, bits: int) -> None:
        # As many as the backlog can hold: a flood of connects does not starve the connected.
        for _ in range(BACKLOG):
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._tally.accept_errors += 1
                if error.errno in EXHAUSTED:
                    self._pause(error)
                    return
                self._limit.log(f"a connection failed before it was accepted: {error.strerror}")
                continue
            sock.setblocking(False)
            self._tally.accepted += 1
            try:
                self._connect(sock)
            except OSError as error:  # the poller is full: select beyond fd 1023, aio's capacity
                self._tally.closed += 1
                self._tally.accept_errors += 1
                sock.close()
                self._limit.log(f"a connection was refused: {error.strerror or error}")

    def _pause(self, error: OSError) -> None:
        self._limit.log(
            f"not accepting for {RETRY} s: {error.strerror}; raise `ulimit -n` or lower the load"
        )
        self._reactor.remove(self._fd)
        self._retry = self._reactor.call_later(RETRY, self._resume)

    def _resume(self) -> None:
        self._retry = None
        self._reactor.add(self._fd, POLLIN, self._on_ready)
