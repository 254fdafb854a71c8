"""No client can tell the servers apart: sizes, splits, numbers and half-closes, over them all."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import Combination, EchoServer, echo, exchange, fill, read_exactly

MIB = 1 << 20

pieces = st.lists(
    st.tuples(st.integers(1, 100_000), st.booleans()),  # (size, wait for its echo first)
    min_size=1,
    max_size=12,
)


def payload(size: int) -> bytes:
    """Bytes in which a lost, doubled or exchanged part shows."""
    return random.Random(size).randbytes(size)


def test_ready_line(combination: Combination, server: EchoServer) -> None:
    ready = server.ready
    assert (ready["server"], ready["loop"]) == ("echo", combination.loop)
    assert (ready["pid"], ready["pids"], ready["workers"]) == (server.pid, [server.pid], 1)
    assert ready["url"].startswith("tcp://127.0.0.1:")
    assert ready["backend"] == combination.backend
    if combination.poller is not None:
        assert ready["poller"] == combination.poller
    else:
        assert isinstance(ready["poller"], str)


@pytest.mark.parametrize("size", [1, 63, 65535, 65536, 65537, MIB, 8 * MIB])
def test_sizes(server: EchoServer, size: int) -> None:
    with server.connect() as sock:
        echo(sock, payload(size))
        echo(sock, b"and the connection goes on")


@given(pieces=pieces, seed=st.integers(0, 1 << 32))
@settings(max_examples=12, deadline=None)
def test_random_splits(server: EchoServer, pieces: list[tuple[int, bool]], seed: int) -> None:
    """However the bytes are cut into sends, and however many are under way, order is kept."""
    total = sum(size for size, _ in pieces)
    source = random.Random(seed).randbytes(total)
    sent, outstanding = 0, 0
    with server.connect() as sock:
        for size, wait in pieces:
            # More than the kernel may keep on both sides would need a reader meanwhile.
            if wait or outstanding + size > 100_000:
                start = sent - outstanding
                assert read_exactly(sock, outstanding) == source[start:sent]
                outstanding = 0
            sock.sendall(source[sent : sent + size])
            sent, outstanding = sent + size, outstanding + size
        sock.shutdown(socket.SHUT_WR)
        assert read_exactly(sock, outstanding) == source[sent - outstanding :]
        assert sock.recv(1) == b""


def test_many_connections_at_once(combination: Combination, server: EchoServer) -> None:
    """All are served, each gets its own bytes, and all of them are gone afterwards."""
    before = server.until(lambda line: line["open"] == 0)
    fds = server.fds()
    with ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(combination.most)]
        for round_ in range(2):
            for i, sock in enumerate(socks):
                sock.sendall(b"%08d" % (i + round_) * 8)
            for i, sock in enumerate(socks):
                assert read_exactly(sock, 64) == b"%08d" % (i + round_) * 8
        during = server.counters()
        assert during["open"] == combination.most
        assert during["accepted"] - before["accepted"] == combination.most
        assert during["received"] - before["received"] == 2 * 64 * combination.most
    after = server.until(lambda line: line["open"] == 0)
    assert after["closed"] - before["closed"] == combination.most
    assert after["resets"] == before["resets"]
    assert server.fds() == fds


def test_half_close_gets_everything(server: EchoServer) -> None:
    """SHUT_WR after 1 MiB: all of it comes back, then the end of file."""
    with server.connect() as sock:
        assert exchange(sock, payload(MIB), to_the_end=True) == payload(MIB)


def test_half_close_of_a_client_that_has_not_read_yet(server: EchoServer) -> None:
    """The end of file reaches the server while it still owes bytes that the peer did not take."""
    source = payload(16 * MIB)
    with server.connect(receive_buffer=16384, segment=1400) as sock:
        sent = fill(sock, source)
        assert MIB // 16 < sent < len(source), "the server read without bound"
        sock.shutdown(socket.SHUT_WR)
        assert read_exactly(sock, sent) == source[:sent]
        assert sock.recv(1) == b""


def test_close_without_a_byte(server: EchoServer) -> None:
    before = server.until(lambda line: line["open"] == 0)
    server.connect().close()
    after = server.until(lambda line: line["closed"] > before["closed"])
    assert after["received"] == before["received"]
    assert after["resets"] == before["resets"]


def test_options_of_a_connection(server: EchoServer) -> None:
    """TCP_NODELAY: small messages in one direction are not held back for an acknowledgement.

    Seen from outside: with Nagle's algorithm the second of two replies to small writes would wait
    for the client's delayed ACK, 40 ms; a hundred times that is beyond any noise.
    """
    with server.connect() as sock:
        for _ in range(100):
            sock.sendall(b"a")
            assert read_exactly(sock, 1) == b"a"
            sock.sendall(b"b")
            sock.sendall(b"c")
            assert read_exactly(sock, 2) == b"bc"
