"""Thousands of connections at once, each shown to work.

What this file is
-----------------
The kernel completes a connection before the server accepts it, and drops connects beyond the
listen queue for a second each.  So a connection counts as open only when the server has echoed
one message on it, and only `AT_ONCE` are on their way at any time, well below any backlog.

Sockets are closed by RST (SO_LINGER with 0 s), so that no port waits in TIME_WAIT for a minute.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import Final

from loadtest._sources import Sources
from pollers.base import POLLIN, POLLOUT, Poller

#: Connections that are on their way at the same time.
AT_ONCE: Final = 256
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
UNDER_WAY: Final = (0, errno.EINPROGRESS)


class CannotConnect(Exception):
    """The block of connections cannot be opened; `str()` is one line that says why."""


def open_socket(sources: Sources) -> socket.socket:
    """A non-blocking TCP socket, bound to the next source, without Nagle's delay."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        sources.bind(sock)
    except OSError:
        sock.close()
        raise
    return sock


class Connector:
    """Opens `count` connections to `address`; `run` returns them in order, registered for POLLIN.

    Each has echoed one `probe` by then.
    """

    def __init__(
        self, poller: Poller, address: tuple[str, int], sources: Sources, count: int, probe: bytes
    ) -> None:
        self._poller = poller
        self._address = address
        self._sources = sources
        self._count = count
        self._probe = probe
        self._under_way: dict[int, tuple[socket.socket, bytes]] = {}
        self._sockets: list[socket.socket] = []

    def run(self, timeout: float) -> list[socket.socket]:
        """Raises CannotConnect after `timeout` seconds or at the first failure."""
        deadline = time.monotonic() + timeout
        try:
            while len(self._sockets) < self._count or self._under_way:
                while len(self._under_way) < AT_ONCE and len(self._sockets) < self._count:
                    self._start()
                if time.monotonic() > deadline:
                    done = len(self._sockets) - len(self._under_way)
                    raise CannotConnect(
                        f"{done} of {self._count} connections were open after {timeout:g} s; "
                        "is the server overloaded, or its backlog (somaxconn) too low?"
                    )
                for fd, bits in self._poller.poll(0.1):
                    self._advance(fd, bits)
        except OSError as error:
            self._close()
            raise CannotConnect(self._explain(error)) from error
        except CannotConnect:
            self._close()
            raise
        return self._sockets

    def _start(self) -> None:
        sock = open_socket(self._sources)
        self._sockets.append(sock)
        result = sock.connect_ex(self._address)
        if result not in UNDER_WAY:
            raise OSError(result, os.strerror(result))
        self._poller.register(sock.fileno(), POLLOUT)
        self._under_way[sock.fileno()] = sock, b""

    def _advance(self, fd: int, bits: int) -> None:
        sock, received = self._under_way[fd]
        result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            raise OSError(result, os.strerror(result))
        if bits & POLLOUT and not received:
            sock.send(self._probe)
            self._poller.modify(fd, POLLIN)
            return
        try:
            data = sock.recv(len(self._probe))
        except BlockingIOError:
            return
        received += data
        if not data or not self._probe.startswith(received):
            if not data:
                raise OSError(errno.ECONNRESET, "end of file before its first echo")
            raise CannotConnect("the server sent back other bytes than a first message had")
        if received == self._probe:
            del self._under_way[fd]
        else:
            self._under_way[fd] = sock, received

    def _explain(self, error: OSError) -> str:
        where = f"connection {len(self._sockets)} of {self._count} to tcp://%s:%d" % self._address
        why = error.strerror or str(error)
        if error.errno == errno.EADDRNOTAVAIL:
            why += "; no free port: widen net.ipv4.ip_local_port_range or use fewer connections"
        elif error.errno in (errno.EPIPE, errno.ECONNRESET):
            why += "; the server closed it: are that many beyond its poller or its nofile limit?"
        return f"{where} failed: {why}"

    def _close(self) -> None:
        for sock in self._sockets:
            sock.close()
