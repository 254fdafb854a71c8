"""SIGTERM with 1,000 transfers in flight: they finish; a deadline or a second signal ends it.

A transfer is in flight here when the server cannot have written all of it: the file is larger
than what a socket takes for a peer of small segments that does not read.
"""

from __future__ import annotations

import functools
import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fileserving import (
    BACKENDS,
    COMBINATIONS,
    DEADLINE,
    Combination,
    FileServer,
    Incoming,
    content,
    get,
    request_bytes,
)

SIZE = 256 * 1024
#: See test_file_faults_peers.py.
SEGMENT = 1460

#: Every backend once, on every loop that has it.
CHOSEN = [*BACKENDS, *(each for each in COMBINATIONS if each.poller is None)]

#: The same bytes are wanted again and again.
known = functools.cache(content)

pytestmark = pytest.mark.parametrize("combination", CHOSEN, ids=str, indirect=True, scope="module")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("drain")
    (directory / "file").write_bytes(known(SIZE))
    return directory


def begin(server: FileServer, count: int, stack: ExitStack) -> list[socket.socket]:
    """Connections, each with an answer that is on its way and cannot be all sent."""
    socks = []
    for _ in range(count):
        sock = stack.enter_context(server.connect(receive_buffer=16384, segment=SEGMENT))
        sock.sendall(request_bytes("/file"))
        socks.append(sock)
    line = server.until(lambda line: line["requests"] >= count)
    assert line["open"] == count
    assert line["sent"] < count * SIZE
    return socks


def read_all(socks: list[socket.socket], wanted: bytes) -> None:
    """Read every answer to the end of its connection, which the server has to bring about."""
    poll = select.poll()
    received: dict[int, bytearray] = {}
    by_fd = {sock.fileno(): sock for sock in socks}
    for fd, sock in by_fd.items():
        sock.setblocking(False)
        poll.register(fd, select.POLLIN)
        received[fd] = bytearray()
    deadline = time.monotonic() + DEADLINE
    while by_fd:
        assert time.monotonic() < deadline, f"{len(by_fd)} connections have not ended"
        for fd, _ in poll.poll(1000):
            if data := by_fd[fd].recv(1 << 20):
                received[fd] += data
                continue
            poll.unregister(fd)
            del by_fd[fd]
            head, _, body = received.pop(fd).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert body == wanted


def test_drain_of_many_transfers(
    combination: Combination, start: Callable[..., FileServer], root: Path
) -> None:
    """All are complete to the byte, new connects are refused, and it ends before its deadline."""
    server = start(root, "--drain-timeout", str(2 * DEADLINE))
    with ExitStack() as stack:
        socks = begin(server, combination.most, stack)
        server.terminate()
        server.until_it_refuses()
        assert server.process.poll() is None
        read_all(socks, known(SIZE))
        final = server.ends()
    assert final["open"] == 0
    assert final["accepted"] == final["closed"] == len(socks)
    assert final["sent"] > len(socks) * SIZE


def test_second_signal_ends_the_drain(start: Callable[..., FileServer], root: Path) -> None:
    """Now means now, whatever is in flight; and the counters come all the same."""
    server = start(root, "--drain-timeout", "3600")
    with ExitStack() as stack:
        socks = begin(server, 50, stack)
        server.terminate()
        server.until_it_refuses()
        assert server.process.poll() is None
        server.terminate()
        final = server.ends(DEADLINE / 4)
    assert final["accepted"] == final["closed"] == len(socks)


def test_deadline_ends_the_drain(start: Callable[..., FileServer], root: Path) -> None:
    """Clients that never finish hold it up for --drain-timeout, and no longer."""
    server = start(root, "--drain-timeout", "0.3")
    with ExitStack() as stack:
        socks = begin(server, 50, stack)
        begun = time.monotonic()
        server.terminate()
        final = server.ends()
        assert 0.3 <= time.monotonic() - begun < 0.3 + DEADLINE / 4
    assert final["accepted"] == final["closed"] == len(socks)


def test_what_was_asked_before_a_drain(start: Callable[..., FileServer], root: Path) -> None:
    """Who asks for nothing is let go at once; a request behind the answer on its way counts."""
    wanted = known(SIZE)
    server = start(root, "--drain-timeout", str(2 * DEADLINE))
    with ExitStack() as stack:
        fresh = stack.enter_context(server.connect())
        idle = stack.enter_context(server.connect())
        assert get(idle, "/file", "HEAD").status == 200
        busy = stack.enter_context(server.connect(receive_buffer=16384, segment=SEGMENT))
        busy.sendall(request_bytes("/file") * 2)
        line = server.until(lambda line: line["requests"] >= 2)
        assert line["open"] == 3
        server.terminate()
        for sock in (fresh, idle):
            assert sock.recv(1) == b""
        server.until_it_refuses()
        incoming = Incoming(busy)
        first, second = incoming.response(), incoming.response()
        assert first.body == second.body == wanted
        assert "connection" not in first.fields
        assert second.fields["connection"] == "close"
        incoming.end()
        server.ends()
