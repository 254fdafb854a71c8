"""--idle-timeout: closes who is silent, between T and 1.25 T, and nobody else."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
from serving import LOOPS, EchoServer, echo, fill, read_exactly

from servers import idle

#: Seconds.
TIMEOUT = 0.25
#: What a loaded machine may add to the upper bound.
SLACK = 2.0


@dataclass
class Connection:
    received: int = 0
    seen: int = 0
    quiet: int = -1


def test_sweep() -> None:
    """Four whole quarters without a byte; a byte, in or out, begins anew."""
    reader, writer, silent = Connection(), Connection(), Connection()
    connections = [reader, writer, silent]
    for i in range(idle.SWEEPS):
        reader.received += 1
        writer.quiet = -1
        assert idle.sweep(connections) == [], i
    reader.received += 1
    writer.quiet = -1
    assert idle.sweep(connections) == [silent]
    for _ in range(idle.SWEEPS - 1):
        assert idle.sweep([reader, writer]) == []
    assert idle.sweep([reader, writer]) == [reader, writer]


def test_idle_timeout(start: Callable[..., EchoServer]) -> None:
    """The silent and those that never read are closed in time; the busy ones go on."""
    server = start("--idle-timeout", str(TIMEOUT))
    source = bytes(8 << 20)
    born = time.monotonic()
    with (
        server.connect() as busy,
        server.connect() as silent,
        server.connect() as stopped,
        server.connect(receive_buffer=4096, segment=1400) as stuck,
    ):
        began = time.monotonic()
        echo(stopped, b"once")
        fill(stuck, source)
        closed: dict[socket.socket, float] = {}
        while len(closed) < 2:
            assert time.monotonic() - began < TIMEOUT * 1.25 + SLACK, closed
            echo(busy, b"still here")
            ready, _, _ = select.select([silent, stopped], [], [], 0.01)
            for sock in ready:
                if sock not in closed:
                    closed[sock] = time.monotonic() - began
                    with suppress(ConnectionResetError):
                        assert sock.recv(1) == b""
        assert closed[stopped] >= TIMEOUT
        assert closed[silent] + (began - born) >= TIMEOUT
        while server.counters()["open"] > 1:
            assert time.monotonic() - began < 2 * (TIMEOUT * 1.25 + SLACK)
            echo(busy, b"and here")
        while time.monotonic() - began < TIMEOUT * 2.5:
            echo(busy, b"and still")
            # Nothing comes, the end neither; the time is what is tested: two more timeouts.
            assert select.select([busy], [], [], TIMEOUT / 20)[0] == []
        line = server.counters()
        assert line["idle_closes"] == 3
        assert line["open"] == 1
        busy.shutdown(socket.SHUT_WR)
        assert busy.recv(1) == b""
    assert server.stop()["idle_closes"] == 3


@pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True)
def test_no_timeout_by_default(server: EchoServer) -> None:
    with server.connect() as sock:
        assert select.select([sock], [], [], TIMEOUT * 1.5)[0] == []
        sock.sendall(b"alive")
        assert read_exactly(sock, 5) == b"alive"
    assert server.counters()["idle_closes"] == 0
