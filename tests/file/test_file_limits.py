"""What a client may cost: connections, requests, bytes of a head, and time, each with an end.

Times have a strict lower bound and a generous upper one.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fileserving import (
    DEADLINE,
    LOOPS,
    MIB,
    FileServer,
    Incoming,
    content,
    exchange,
    get,
    request_bytes,
)
from rawrequests import GET, HIDDEN, HOST, asks, lines

loops = pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True)
#: For what no loop has a part in.
reference = pytest.mark.parametrize("combination", LOOPS[:1], ids=str, indirect=True)

Start = Callable[..., FileServer]


def ended(sock: socket.socket) -> bytes:
    """All that comes until the server closes, with or without a reset."""
    received = bytearray()
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


def trickle(sock: socket.socket, data: bytes) -> float:
    """Send a byte every now and then until something comes; return how long it took."""
    began = time.monotonic()
    for byte in data:
        sock.sendall(bytes([byte]))
        if select.select([sock], [], [], 0.05)[0]:
            return time.monotonic() - began
    raise AssertionError(f"nothing came in {time.monotonic() - began} s")


@loops
def test_requests_of_a_connection(start: Start, root: Path) -> None:
    """The last one is told so; what is pipelined behind it is not answered."""
    server = start(root, "--max-requests", "3")
    for targets in (["/1.bin"] * 3, ["/1.bin", "/none", "/513.bin"]):
        for pipelined in (True, False):
            with server.connect() as sock:
                incoming = Incoming(sock)
                if pipelined:
                    sock.sendall(b"".join(map(request_bytes, targets)) + HIDDEN)
                for i, target in enumerate(targets):
                    if not pipelined:
                        sock.sendall(request_bytes(target))
                    fields = incoming.response().fields
                    assert fields.get("connection") == (None, None, "close")[i]
                incoming.end()
    assert server.stop()["requests"] == 12


@loops
def test_connections(start: Start, root: Path) -> None:
    """One too many is told to come back, and others go on; then there is room again."""
    server = start(root, "--max-connections", "2")
    with server.connect() as first, server.connect() as second:
        assert get(first, "/1.bin").status == get(second, "/1.bin").status == 200
        for _ in range(3):
            with server.connect() as third:
                incoming = Incoming(third)
                response = incoming.response()
                assert (response.status, response.fields["connection"]) == (503, "close")
                assert response.fields["retry-after"] == "1"
                incoming.end()
        assert get(first, "/1.bin").status == get(second, "/1.bin").status == 200
        line = server.counters()
        assert (line["accepted"], line["open"], line["refused"]) == (5, 2, 3)
    server.until(lambda line: line["open"] == 0)
    with server.connect() as fourth:
        assert get(fourth, "/1.bin").body == content(1)
    last = server.stop()
    assert (last["accepted"], last["closed"], last["refused"]) == (6, 6, 3)


@loops
def test_keep_alive_timeout(start: Start, root: Path) -> None:
    """It counts from the last answer on, and ends without a word."""
    server = start(root, "--keep-alive-timeout", "0.3", "--header-timeout", "60")
    with server.connect() as sock:
        for _ in range(5):
            asked = time.monotonic()
            assert get(sock, "/513.bin").status == 200
            assert not select.select([sock], [], [], 0.15)[0], "closed before its time"
        assert ended(sock) == b""
        assert 0.3 <= time.monotonic() - asked < DEADLINE
    last = server.stop()
    assert (last["timeouts"], last["accepted"], last["resets"]) == (1, 1, 0)


@loops
def test_header_timeout(start: Start, root: Path) -> None:
    """Absolute: bytes that trickle in do not move it.  408 and close; the others are served."""
    server = start(root, "--header-timeout", "0.4")
    endless = b"GET /1.bin HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 1000
    with server.connect() as other:
        assert get(other, "/1.bin").status == 200
        for already in (0, 2):  # on a new connection, and after some answers
            with server.connect() as slow:
                for _ in range(already):
                    assert get(slow, "/1.bin").status == 200
                assert 0.4 <= trickle(slow, endless) < DEADLINE
                incoming = Incoming(slow)
                response = incoming.response()
                assert (response.status, response.fields["connection"]) == (408, "close")
                incoming.end()
            assert get(other, "/1.bin").status == 200
    assert server.stop()["timeouts"] == 2


@loops
def test_header_timeout_of_each_head(start: Start, root: Path) -> None:
    """Each has a deadline of its own, however many come without the connection being idle."""
    server = start(root, "--header-timeout", "0.4")
    head = asks("/1.bin")
    with server.connect() as sock:
        incoming = Incoming(sock)
        sock.sendall(head[:20])
        began = time.monotonic()
        while time.monotonic() - began < 1.0:
            sock.sendall(head[20:] + head[:20])  # what is read ends within a head, always
            assert incoming.response().body == content(1)
        sock.sendall(head[20:])
        assert incoming.response().body == content(1)
        incoming.nothing_more()
    assert server.stop()["timeouts"] == 0


@loops
def test_header_timeout_without_a_byte(start: Start, root: Path) -> None:
    """Who connects and says nothing is not told anything either."""
    server = start(root, "--header-timeout", "0.4", "--keep-alive-timeout", "60")
    began = time.monotonic()
    with server.connect() as silent, server.connect() as unfinished:
        # A body that never comes is waited for as a head is.
        assert exchange(unfinished, asks("/1.bin", Content_Length="1000")).body == content(1)
        assert ended(silent) == b""
        assert 0.4 <= time.monotonic() - began < DEADLINE
        assert ended(unfinished) == b""
        assert 0.4 <= time.monotonic() - began < DEADLINE
    last = server.stop()
    assert (last["timeouts"], last["requests"]) == (2, 1)


@loops
def test_send_timeout(start: Start, root: Path) -> None:
    """Who takes nothing is cut off; who takes little at a time is not."""
    server = start(root, "--send-timeout", "0.6")
    big = MIB + 3
    began = time.monotonic()
    with server.connect(receive_buffer=4096) as stuck, server.connect() as slow:
        # Answers enough for no buffer to take them all.
        for sock in (stuck, slow):
            sock.sendall(request_bytes(f"/{big}.bin") * 16)
        server.until(lambda line: line["stalls"] >= 2)
        received, pace = bytearray(1 << 20), 0
        while server.counters()["timeouts"] < 1 or time.monotonic() - began < 1.2:
            pace += slow.recv_into(received, 200_000)
            assert time.monotonic() - began < DEADLINE
            select.select([], [], [], 0.02)
        assert len(ended(stuck)) < 16 * big
        while pace < 16 * big:
            count = slow.recv_into(received)
            assert count, "the slow one was cut off as well"
            pace += count
        line = server.until(lambda line: line["open"] <= 1)
        assert line["timeouts"] == 1, "only the stuck one"


@reference
def test_smaller_heads(start: Start, root: Path) -> None:
    server = start(
        *(root, "--max-header-bytes", "200", "--max-header-fields", "3", "--max-uri-bytes", "20")
    )
    host = {"Host": "a"}
    for request, status in [
        (request_bytes("/1.bin".ljust(20, "?"), fields=host), 200),
        (request_bytes("/1.bin".ljust(21, "?"), fields=host), 414),
        (lines(GET, HOST, b"A: b", b"C: d"), 200),
        (lines(GET, HOST, b"A: b", b"C: d", b"E: f"), 431),
        (lines(GET, HOST, b"A: " + b"b" * 200), 431),
        (lines(GET, HOST, b"A: " + b"b" * 100), 200),
    ]:
        with server.connect() as sock:
            assert exchange(sock, request).status == status, request
    server.stop()


@reference
def test_few_open_files(start: Start, tmp_path: Path) -> None:
    """Many more files than may stay open, in turn, from many connections."""
    for i in range(100):
        (tmp_path / str(i)).write_bytes(content(600, i))
    server = start(tmp_path, "--open-files", "16")
    with server.connect() as sock:
        fds = server.fds()
        for _ in range(2):
            for i in range(100):
                assert get(sock, f"/{i}").body == content(600, i)
        # 16 of the cache; the memo keeps those of its plans, 100 at the most.
        assert server.fds() - fds <= 16 + 100 + 8
    server.stop()
