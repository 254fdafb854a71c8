"""Thousands of connections at once, each shown to work.

What this file is
-----------------
The kernel completes a connection before the server accepts it, and drops connects beyond the
listen queue for a second each.  So a connection counts as open only when the server has answered
one message on it, and only `AT_ONCE` are on their way at any time, well below any backlog.

Sockets are closed by RST (SO_LINGER with 0 s), so that no port waits in TIME_WAIT for a minute.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from loadtest._sources import Sources
from pollers.base import POLLIN, POLLOUT, Poller

#: Connections that are on their way at the same time.
AT_ONCE: Final = 256
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
UNDER_WAY: Final = (0, errno.EINPROGRESS)
#: Bytes read at once of a first answer that is no echo.
ANSWER: Final = 65536

#: Judges what came so far of a first answer: whether it is whole.  Raises CannotConnect.
Answer: TypeAlias = Callable[[bytes], bool]


class CannotConnect(Exception):
    """The block of connections cannot be opened; `str()` is one line that says why."""


def echo_of(probe: bytes) -> Answer:
    """The first answer of an echo server."""

    def whole(received: bytes) -> bool:
        if not probe.startswith(received):
            raise CannotConnect("the server sent back other bytes than a first message had")
        return received == probe

    return whole


def open_socket(sources: Sources, receive_buffer: int = 0) -> socket.socket:
    """A non-blocking TCP socket, bound to the next source, without Nagle's delay.

    `receive_buffer` is what SO_RCVBUF is set to; 0 leaves it to the kernel.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sources.bind(sock)
    except OSError:
        sock.close()
        raise
    return sock


class Connector:
    """Opens `count` connections to `address`; `run` returns them in order, registered for POLLIN.

    Each has answered one `probe` by then: with the same bytes, unless `answer` judges it.
    """

    def __init__(
        self,
        poller: Poller,
        address: tuple[str, int],
        sources: Sources,
        count: int,
        probe: bytes,
        *,
        answer: Answer | None = None,
        receive_buffer: int = 0,
    ) -> None:
        self._poller = poller
        self._address = address
        self._sources = sources
        self._count = count
        self._probe = probe
        self._whole = answer or echo_of(probe)
        self._room = ANSWER if answer else len(probe)
        self._receive_buffer = receive_buffer
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
        sock = open_socket(self._sources, self._receive_buffer)
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
            data = sock.recv(self._room)
        except BlockingIOError:
            return
        received += data
        if not data:
            raise OSError(errno.ECONNRESET, "end of file before its first answer")
        if self._whole(received):
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
