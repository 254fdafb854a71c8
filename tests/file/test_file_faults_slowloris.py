"""Slowloris: heads that never end, a thousand at once, on one loop of each kind.

The header deadline is absolute.  A byte now and then does not move it, so that a client can hold
a connection without a request for as long as `--header-timeout` says, and no longer.  No backend
moves anything here, so each loop is there once, and each poller.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fileserving import DEADLINE, LOOPS, REACTORS, Combination, FileServer, get

HEADER_TIMEOUT = 0.8

WHOLE = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
#: Ways to begin a head and not to end it.  The first one sends nothing at all; one trickles.
UNFINISHED = (
    b"",
    b"G",
    b"\r\n",
    b"GET /small HTTP/1.1",
    b"GET /small HTTP/1.1\r\nHost: a\r\n",
    b"GET /small HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 5000,
    b"GET /small HTTP/1.1\r\nHost: a\r\n\r",
    WHOLE + b"GET /small HTTP/1.1\r\nHost: ",  # who was served once is no safer than the others
)
TRICKLES = 5

CHOSEN = [*(each for each in REACTORS if each.backend == "copy"), *LOOPS[1:]]

pytestmark = pytest.mark.parametrize("combination", CHOSEN, ids=str, indirect=True, scope="module")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("slowloris")
    (directory / "small").write_bytes(b"small\n")
    return directory


def test_unfinished_heads(
    combination: Combination, start: Callable[..., FileServer], root: Path
) -> None:
    """Each is ended at the deadline of its own, trickle or not, and a healthy client is served."""
    server = start(root, "--header-timeout", str(HEADER_TIMEOUT))
    with ExitStack() as stack:
        healthy = stack.enter_context(server.connect())
        poll = select.poll()
        since: dict[int, float] = {}
        socks: dict[int, socket.socket] = {}
        heard: dict[int, bytes] = {}
        for i in range(combination.most):
            begin = time.monotonic()
            sock = stack.enter_context(server.connect())
            sock.sendall(UNFINISHED[i % len(UNFINISHED)])
            sock.setblocking(False)
            since[sock.fileno()], socks[sock.fileno()] = begin, sock
            heard[sock.fileno()] = b""
            poll.register(sock, select.POLLIN)
        trickling = [fd for i, fd in enumerate(socks) if i % len(UNFINISHED) == TRICKLES]
        waits: list[float] = []
        next_trickle = 0.0
        while len(waits) < len(socks):
            for fd, _ in poll.poll(20):
                try:
                    data = socks[fd].recv(65536)
                except ConnectionResetError:  # what had been sent meanwhile was not read
                    data = b""
                if data:
                    heard[fd] += data
                else:
                    waits.append(time.monotonic() - since[fd])
                    poll.unregister(fd)
            assert get(healthy, "/small").body == b"small\n"
            if time.monotonic() > next_trickle:
                next_trickle = time.monotonic() + 0.1
                for fd in trickling:
                    with suppress(OSError):  # it may be closed by now
                        socks[fd].send(b"x")
            assert not waits or max(waits) < HEADER_TIMEOUT + DEADLINE / 4
        assert min(waits) >= HEADER_TIMEOUT
        for i, said in enumerate(heard.values()):
            begun = UNFINISHED[i % len(UNFINISHED)]
            answers = [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]]
            if begun.startswith(WHOLE):
                assert answers == [b"200", b"408"], said
            elif i % len(UNFINISHED) == TRICKLES:  # a reset may have taken the answer with it
                assert answers in ([b"408"], []), said
            elif begun.strip():
                assert answers == [b"408"], said
            else:
                assert answers in ([b"408"], []), said
        assert server.counters()["timeouts"] == len(socks)
        assert get(healthy, "/small").body == b"small\n"
    server.terminate()
    server.ends()
