"""`python -m servers.echo` as a real process, and the client's side of its connections.

What is common to all servers is in tests/serverprocess.py.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from serverprocess import (
    DEADLINE,
    Combination,
    Line,
    ServerProcess,
    fill,
    injecting,
    killed_afterwards,
    quiet,
    read_exactly,
    require,
    reset,
    until,
)

import pollers

__all__ = [
    "COMBINATIONS",
    "DEADLINE",
    "LOOPS",
    "REACTORS",
    "Combination",
    "EchoServer",
    "Line",
    "echo",
    "exchange",
    "fill",
    "injecting",
    "quiet",
    "read_exactly",
    "require",
    "reset",
    "serving",
    "until",
]

#: Every one that this project knows, whether it works here or not.
COMBINATIONS = [
    *(
        Combination("reactor", name, backend)
        for name in pollers.names()
        for backend in ("copy", "splice", "batch")
    ),
    *(Combination(loop) for loop in ("asyncio", "uvloop", "trio")),
]
REACTORS = [each for each in COMBINATIONS if each.poller is not None]
#: One of each loop, for what does not depend on how the reactor's poller and backend work.
LOOPS = [REACTORS[0], *(each for each in COMBINATIONS if each.poller is None)]


class EchoServer(ServerProcess):
    """One running echo server."""

    def __init__(self, *words: str, nofile: int | None = None) -> None:
        super().__init__("servers.echo", *words, nofile=nofile)


@contextmanager
def serving(*words: str, nofile: int | None = None) -> Iterator[EchoServer]:
    """A server that is killed at the end if it still runs."""
    with killed_afterwards(EchoServer(*words, nofile=nofile)) as server:
        yield server


def echo(sock: socket.socket, payload: bytes) -> None:
    """Send a payload and read it back, both at once, as big ones fit in no buffer."""
    assert exchange(sock, payload) == payload


def exchange(sock: socket.socket, payload: bytes, *, to_the_end: bool = False) -> bytes:
    """Send a payload and return as many bytes; `to_the_end`: shut down, and read until EOF."""
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    unsent = memoryview(payload)
    received = bytearray()
    deadline = time.monotonic() + DEADLINE
    while to_the_end or len(received) < len(payload):
        assert time.monotonic() < deadline, f"{len(received)} of {len(payload)} bytes came back"
        for _, bits in poll.poll(1000):
            if bits & select.POLLOUT and unsent:
                with suppress(BlockingIOError):
                    unsent = unsent[sock.send(unsent) :]
                if not unsent:
                    poll.modify(sock, select.POLLIN)
                    if to_the_end:
                        sock.shutdown(socket.SHUT_WR)
            if bits & ~select.POLLOUT:
                data = sock.recv(1 << 20)
                if not data:
                    sock.settimeout(DEADLINE)
                    return bytes(received)
                received += data
    sock.settimeout(DEADLINE)
    return bytes(received)
