"""A directory and a link to outside change places while files below them are asked for.

A path that is looked at first and opened afterwards can be changed in between.  Only a walk that
cannot leave is safe from that (pollers.beneath), and what is remembered of it (the open files, the
plans, the watches) must not make up for it.  100,000 requests, and not one leak.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fileserving import LOOPS, FileServer, get, request_bytes

SECRET = b"the secret"
#: A name that no listing may show.
HIDDEN = b"hidden-name"

#: Requests, half with a watcher and half without, and how many are under way on a connection.
REQUESTS = 100_000
ROUND = 400
CONNECTIONS = 4


@pytest.fixture
def swapped(tmp_path: Path) -> Iterator[Path]:
    """A root in which `d` is a directory, a link to outside, a directory, ... all the time."""
    site, outside = tmp_path / "site", tmp_path / "outside"
    for directory, data in ((site / "d" / "sub", b"inside\n"), (outside / "sub", SECRET)):
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(data)
        (directory.parent / "file").write_bytes(data)
    (outside / HIDDEN.decode()).write_bytes(SECRET)
    (site / "steady").write_bytes(b"steady\n")
    (site / "link").symlink_to(outside)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for one, other in (("d", "was-d"), ("link", "d"), ("d", "link"), ("was-d", "d")):
                os.rename(site / one, site / other)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield site
    finally:
        over.set()
        swapper.join()


def answers_of(sock: socket.socket, requests: bytes) -> bytes:
    """Send a round, read until as many answers have come."""
    sock.sendall(requests)
    received = bytearray()
    while received.count(b"HTTP/1.1 ") < ROUND or not received.endswith(b"\n"):
        data = sock.recv(1 << 18)
        assert data, "it closed the connection"
        received += data
    return bytes(received)


@pytest.mark.parametrize("combination", LOOPS[:1], ids=str, indirect=True)
@pytest.mark.parametrize("watcher", ["auto", "none"])
@pytest.mark.timeout(240)  # it is about a number of requests, not about a time
def test_link_race(start: Callable[..., FileServer], swapped: Path, watcher: str) -> None:
    """50,000 requests: what came is from inside, or a 404."""
    server = start(swapped, "--watcher", watcher)
    asked = ["/d/file"] * 8 + ["/d/sub/file"] * 8 + ["/link/file", "/d/", "/d/sub/", "/d/sub"]
    requests = b"".join(request_bytes(asked[i % len(asked)]) for i in range(ROUND))
    found = leaks = missing = 0
    with ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(CONNECTIONS)]
        for i in range(REQUESTS // 2 // ROUND):
            received = answers_of(socks[i % CONNECTIONS], requests)
            leaks += received.count(SECRET) + received.count(HIDDEN)
            found += received.count(b"HTTP/1.1 200 ")
            missing += received.count(b"HTTP/1.1 404 ")
            assert b"HTTP/1.1 5" not in received
        assert leaks == 0
        # It was a race: both states were met, often.
        assert found > REQUESTS / 100
        assert missing > REQUESTS / 100
        assert get(socks[0], "/steady").body == b"steady\n"
    server.terminate()
    server.ends()
