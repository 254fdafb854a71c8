"""Peers that do what no polite client does: half-close, reset, stop reading, never finish a head.

What each may cost a server is stated here: the time until it is rid of them (its deadlines), the
memory of one that takes nothing (BOUND), no fd, and no line of log, as a client is no news.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fileserving import (
    BACKENDS,
    COMBINATIONS,
    Combination,
    FileServer,
    Incoming,
    content,
    get,
    request_bytes,
    reset,
    until,
)

MIB = 1 << 20
BIG = 6 * MIB + 5

#: Every backend once, on every loop that has it.
CHOSEN = [*BACKENDS, *(each for each in COMBINATIONS if each.poller is None)]

#: What a peer on Ethernet has.  The send buffer of a connection is sized in segments: with those
#: of the loopback interface (64 KiB) the kernel takes megabytes for a peer that reads nothing.
SEGMENT = 1460

#: Seconds without a byte taken after which a client is given up.
SEND_TIMEOUT = 1.0

#: Connections that close, and as many that open, within one batch.
AT_ONCE = 60

#: Bytes of resident memory that a peer may cost which asked for 64 MiB and takes none of it: on
#: the reactor a few objects and a file offset.  asyncio and uvloop hold what the backend `copy`
#: has written to the transport and the socket has not taken, and the aio backend a share of a
#: pool of buffers that all connections have in common.
BOUND = 16 * 1024
BOUND_ELSEWHERE = 320 * 1024

#: The same bytes are wanted again and again.
known = functools.cache(content)

pytestmark = pytest.mark.parametrize("combination", CHOSEN, ids=str, indirect=True, scope="module")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files small, big, and so huge that no buffer takes them."""
    directory = tmp_path_factory.mktemp("peers")
    (directory / "small").write_bytes(b"small\n")
    (directory / "big").write_bytes(known(BIG))
    with open(directory / "huge", "wb") as huge:
        huge.truncate(64 * MIB)
    return directory


@pytest.fixture
def crowd() -> Iterator[ExitStack]:
    """Closes what enters it, in the end."""
    with ExitStack() as stack:
        yield stack


def test_half_close(server: FileServer) -> None:
    """A client that says it has nothing more to send still gets every byte, and then the end."""
    for target, wanted in (("/small", b"small\n"), ("/big", known(BIG))):
        with server.connect() as sock:
            sock.sendall(request_bytes(target))
            sock.shutdown(socket.SHUT_WR)
            incoming = Incoming(sock)
            assert incoming.response().body == wanted
            incoming.end()


def test_half_close_behind_a_pipeline(server: FileServer) -> None:
    """The same with several requests before the end, of which the first one fills the socket."""
    with server.connect(receive_buffer=16384, segment=SEGMENT) as sock:
        asked = ("/big", "/small", "/nothing", "/big", "/small")
        sock.sendall(b"".join(map(request_bytes, asked)))
        sock.shutdown(socket.SHUT_WR)
        incoming = Incoming(sock)
        statuses = [incoming.response().status for _ in asked]
        assert statuses == [200, 200, 404, 200, 200]
        incoming.end()


def test_half_close_in_a_head(server: FileServer) -> None:
    """A head that will never end: the connection is closed, and no deadline is waited for."""
    with server.connect() as sock:
        sock.sendall(b"GET /small HTTP/1.1\r\nHo")
        sock.shutdown(socket.SHUT_WR)
        begin = time.monotonic()
        while sock.recv(65536):  # an answer (400, 408) may come, and need not
            pass
        assert time.monotonic() - begin < 5  # the header timeout is 10


def test_reset_in_mid_transfer(server: FileServer) -> None:
    """200 clients die with RST at every stage: all is freed, and nobody else notices."""
    server.until(lambda line: line["open"] == 0)
    with server.connect() as other:
        assert get(other, "/huge", range="bytes=0-0").status == 206  # from now on it is open
        before, fds = server.counters(), server.fds()
        for taken in (0, 1, 1000, 65536, 200_000) * 40:
            sock = server.connect(receive_buffer=16384, segment=SEGMENT)
            sock.sendall(request_bytes("/huge"))
            while taken > 0:
                taken -= len(sock.recv(min(taken, 65536)))
            reset(sock)
        after = server.until(lambda line: line["open"] == 1)
        assert after["closed"] - before["closed"] == 200
        assert server.fds() <= fds
        assert get(other, "/big").body == known(BIG)


def test_reset_before_it_is_accepted(server: FileServer) -> None:
    """Connections that are dead before the server gets to them cost it nothing but the accept."""
    server.until(lambda line: line["open"] == 0)
    with server.connect() as other:
        assert get(other, "/small").status == 200
        assert get(other, "/huge", range="bytes=0-0").status == 206
        fds = server.fds()  # both files are open from now on
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for _ in range(100):
                sock = server.connect()
                sock.sendall(request_bytes("/huge"))
                reset(sock)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert get(other, "/small").body == b"small\n"
        with server.connect() as behind:  # the backlog is in order: all the dead come before it
            assert get(behind, "/small").body == b"small\n"
        server.until(lambda line: line["open"] == 1)
        assert server.fds() <= fds


def test_reset_before_its_request_is_read(server: FileServer) -> None:
    """Each such connection counts once among the resets, wherever its failure is noticed."""
    server.until(lambda line: line["open"] == 0)
    with server.connect() as other, ExitStack() as stack:
        assert get(other, "/small").status == 200
        socks = [stack.enter_context(server.connect()) for _ in range(20)]
        for sock in socks:
            assert get(sock, "/small").status == 200
        before = server.counters()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            for sock in socks:
                sock.sendall(request_bytes("/huge"))
                reset(sock)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        after = server.until(lambda line: line["open"] == 1)
        assert after["closed"] - before["closed"] == 20
        assert after["resets"] - before["resets"] == 20


def test_connections_replaced_within_one_batch(server: FileServer) -> None:
    """Old fds close, with requests unanswered, while new ones come: each gets its own answer."""
    for _ in range(5):
        old = [server.connect() for _ in range(AT_ONCE)]
        assert all(get(sock, "/small").status == 200 for sock in old[:5])
        server.until(lambda line: line["open"] == AT_ONCE)
        os.kill(server.pid, signal.SIGSTOP)
        with ExitStack() as stack:
            try:
                for i, sock in enumerate(old):
                    sock.sendall(request_bytes("/big" if i % 2 else "/small"))
                    if i % 3:
                        sock.close()
                    else:
                        reset(sock)
                new = [stack.enter_context(server.connect()) for _ in range(AT_ONCE)]
                for i, sock in enumerate(new):
                    sock.sendall(request_bytes(f"/small?{i}"))
            finally:
                os.kill(server.pid, signal.SIGCONT)
            for sock in new:
                incoming = Incoming(sock)
                assert incoming.response().body == b"small\n"
                incoming.nothing_more()
            server.until(lambda line: line["open"] == AT_ONCE)
        server.until(lambda line: line["open"] == 0)


def test_signals_during_transfers(server: FileServer) -> None:
    """200 signals interrupt whatever can be: not a byte is lost, and each is answered."""
    wanted = known(BIG)
    right: list[bool] = []
    with server.connect() as sock:
        worker = threading.Thread(
            target=lambda: right.extend(get(sock, "/big").body == wanted for _ in range(12))
        )
        worker.start()
        try:
            for _ in range(200):
                server.counters()  # waits for the answer: pending signals would coalesce
        finally:
            worker.join()
    assert right == [True] * 12
    server.until(lambda line: line["open"] == 0)


def test_never_reading(
    combination: Combination, start: Callable[..., FileServer], root: Path, crowd: ExitStack
) -> None:
    """1,000 clients ask for 64 MiB each and take nothing: memory is bounded, and time is."""
    server = start(root, "--send-timeout", str(SEND_TIMEOUT))
    with server.connect() as sock:
        assert get(sock, "/small").status == 200
    server.until(lambda line: line["open"] == 0)
    crowded = combination.most
    before, request = server.rss(), request_bytes("/huge")
    begin = time.monotonic()
    for _ in range(crowded):
        sock = crowd.enter_context(server.connect(receive_buffer=4096, segment=SEGMENT))
        sock.sendall(request)
    most = 0

    def answered() -> bool:
        nonlocal most
        most = max(most, server.rss())
        return bool(server.counters()["requests"] >= crowded)

    until(answered)
    most = max(most, server.rss())
    bound = BOUND if combination.loop == "reactor" else BOUND_ELSEWHERE
    assert (most - before) / crowded < bound
    line = server.until(lambda line: line["open"] == 0)
    assert time.monotonic() - begin >= SEND_TIMEOUT
    assert line["timeouts"] == crowded
    with server.connect() as sock:
        assert get(sock, "/big").body == known(BIG)
    server.terminate()
    server.ends()


def test_reading_slowly_is_not_never(start: Callable[..., FileServer], root: Path) -> None:
    """The send timeout counts from the last byte that was taken: who reads a little lives."""
    server = start(root, "--send-timeout", str(SEND_TIMEOUT * 0.4))
    with server.connect(receive_buffer=8192, segment=1000) as sock:
        sock.sendall(request_bytes("/big"))
        wanted, incoming = known(BIG), Incoming(sock)
        received = bytearray(incoming.take(10_000))
        begin = time.monotonic()
        while time.monotonic() - begin < SEND_TIMEOUT:
            received += sock.recv(20_000)
            # What makes it slow.  The server cannot write meanwhile: its send buffer is full of
            # what is not taken yet, and becomes writable when a third of that has gone.
            select.select([], [], [], 0.1)
        assert server.counters()["timeouts"] == 0
        head = received.index(b"\r\n\r\n") + 4
        left = head + BIG - len(received)
        assert left > 0, "it was not slow"
        assert received[head:] + incoming.take(left) == wanted
    server.terminate()
    server.ends()
