"""What a file server says and obeys: counters, access log, the drain, workers."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from fileserving import (
    BACKENDS,
    COMBINATIONS,
    DEADLINE,
    LOOPS,
    MIB,
    REACTORS,
    FileServer,
    Incoming,
    content,
    exchange,
    get,
    request_bytes,
    reset,
    until,
)
from rawrequests import asks

loops = pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True)
#: One of the pollers with edges and one of those without.
EDGES = [each for each in REACTORS if each.poller in ("epoll", "poll") and each.backend == "copy"]
#: Every loop, and the reactor with either.
readers = pytest.mark.parametrize(
    "combination",
    [*EDGES, *(each for each in LOOPS if each.poller is None)],
    ids=str,
    indirect=True,
)
#: A transfer is finished by the backend's own code.
moved = pytest.mark.parametrize(
    "combination",
    [*BACKENDS, *(each for each in COMBINATIONS if each.poller is None)],
    ids=str,
    indirect=True,
)

Start = Callable[..., FileServer]

BIG = 5 * MIB


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A root with one file that no socket's buffer takes, and a small one."""
    (tmp_path / "big").write_bytes(content(BIG))
    (tmp_path / "small").write_bytes(b"small")
    return tmp_path


@loops
def test_counters(start: Start, root: Path) -> None:
    """Every answer and every byte of it, and the longest that the loop did not listen."""
    server = start(root)
    received = 0
    with server.connect() as sock:
        for target, method in [
            *(("/1.bin", "GET"), ("/1.bin", "HEAD"), ("/none", "GET"), ("/", "OPTIONS")),
            *((f"/{MIB + 3}.bin", "GET"), ("/listed/", "GET"), ("/1.bin", "GET")),
        ]:
            response = get(sock, target, method)
            received += len(response.head) + len(response.body)
        line = server.until(lambda line: line["sent"] >= received)
        assert (line["requests"], line["sent"]) == (7, received)
        assert (line["open"], line["timeouts"], line["refused"]) == (1, 0, 0)
        assert (line["truncated"], line["resets"]) == (0, 0)
        if server.ready["loop"] == "uvloop":
            assert line["longest_stall"] is None, "uvloop has no hook that would tell"
        else:
            assert 0 < line["longest_stall"] < 60
        if server.ready["loop"] == "reactor":
            assert line["kernel_calls"] == line["poller"]["kernel_calls"] > 0
        else:
            assert line["poller"] is line["kernel_calls"] is None
    last = server.stop()
    assert (last["requests"], last["sent"], last["open"]) == (7, received, 0)


# -- the access log

LINE = re.compile(
    r'127\.0\.0\.1 - - \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "([^"]*)" (\d{3}) '
    r"(-|[1-9]\d*)"
)


def logged(lines: list[str]) -> list[tuple[str, int, str]]:
    """(request line, status, bytes) of each line; the times are of the last minute."""
    entries = []
    for line in lines:
        found = LINE.fullmatch(line)
        assert found is not None, line
        at = time.strptime(found[1], "%d/%b/%Y:%H:%M:%S +0000")
        assert abs(time.mktime(at) - time.timezone - time.time()) < 60
        entries.append((found[2], int(found[3]), found[4]))
    return entries


@loops
def test_access_log(start: Start, root: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("kept\n")
    server = start(root, "--access-log", str(log))
    with server.connect() as sock:
        for _ in range(2):  # the second time from the memo
            get(sock, "/513.bin")
        get(sock, "/513.bin", "HEAD")
        get(sock, "/513.bin", range="bytes=3-5")
        get(sock, "/513.bin", if_none_match="*")
        get(sock, "/none?a=b")
        get(sock, f"/{MIB + 3}.bin")
        exchange(sock, b'GET /"forged\\ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
        exchange(sock, b"GET /caf\xe9 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: log.read_text().count("\n") > 9)  # without being asked
        exchange(sock, b'G"E\nT / HTTP/1.1\r\n\r\n')
    server.stop()
    first, *lines = log.read_text().splitlines()
    assert first == "kept"
    assert logged(lines) == [
        ("GET /513.bin HTTP/1.1", 200, "513"),
        ("GET /513.bin HTTP/1.1", 200, "513"),
        ("HEAD /513.bin HTTP/1.1", 200, "-"),
        ("GET /513.bin HTTP/1.1", 206, "3"),
        ("GET /513.bin HTTP/1.1", 304, "-"),
        ("GET /none?a=b HTTP/1.1", 404, "14"),
        (f"GET /{MIB + 3}.bin HTTP/1.1", 200, str(MIB + 3)),
        (r"GET /\x22forged\x5c HTTP/1.0", 404, "14"),
        (r"GET /caf\xe9 HTTP/1.1", 404, "14"),
        ("-", 400, "16"),
    ]


@loops
def test_access_log_on_stderr(start: Start, shelf: Path) -> None:
    """What went of an answer whose client left, too."""
    server = start(shelf, "--access-log", "-")
    with server.connect() as sock:
        get(sock, "/small")
    with server.connect(receive_buffer=4096) as sock:
        sock.sendall(request_bytes("/big"))
        assert sock.recv(10)
        server.until(lambda line: line["stalls"] > 0)
    server.until(lambda line: line["open"] == 0)
    until(lambda: len(server.stderr()) == 2)
    first, second = logged(server.stderr())
    assert first == ("GET /small HTTP/1.1", 200, "5")
    assert second[:2] == ("GET /big HTTP/1.1", 200)
    assert 0 < int(second[2]) < BIG


@loops
def test_access_log_and_who_left_before_it_was_accepted(
    start: Start, shelf: Path, tmp_path: Path
) -> None:
    """A peer without an address is counted as any other, and is no news."""
    server = start(shelf, "--access-log", str(tmp_path / "access.log"))
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for _ in range(5):
            reset(server.connect())
    finally:
        os.kill(server.pid, signal.SIGCONT)
    with server.connect() as sock:
        assert get(sock, "/small").body == b"small"
        line = server.until(lambda line: line["closed"] == 5)
    assert (line["accepted"], line["open"]) == (6, 1)
    assert not any("Error" in line for line in server.stderr())


@loops
def test_access_log_that_cannot_be_written(start: Start, shelf: Path) -> None:
    """Lines are lost, which is said; nobody is served less for it."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    server = start(shelf, "--access-log", "/dev/full")
    with server.connect() as sock:
        get(sock, "/small")
        until(lambda: bool(server.stderr()))
        assert get(sock, "/small").body == b"small"
    server.terminate()
    assert server.process.wait(DEADLINE) == 0
    for line in server.stderr():
        assert line.startswith("lines of the access log are lost: No space left on device")


# -- the drain


@moved
def test_drain(start: Start, shelf: Path) -> None:
    """Transfers finish, and end their connections; who waits for nothing is closed at once."""
    server = start(shelf, "--drain-timeout", "60", "--keep-alive-timeout", "600")
    with ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(3)]
        for sock in idle[1:]:
            get(sock, "/small")
        busy = [stack.enter_context(server.connect(receive_buffer=16384)) for _ in range(4)]
        for sock in busy:
            sock.sendall(request_bytes("/big"))
        server.until(lambda line: line["stalls"] >= len(busy))
        server.terminate()
        server.until_it_refuses()
        for sock in idle:
            assert sock.recv(1) == b""
        line = server.until(lambda line: line["open"] == len(busy))
        assert line["accepted"] == len(idle) + len(busy)
        for sock in busy:
            incoming = Incoming(sock)
            assert incoming.response().body == content(BIG)
            incoming.end()
        last = server.ends()
    assert (last["open"], last["resets"], last["requests"]) == (0, 0, 6)


@loops
def test_drain_answers_what_has_come(start: Start, shelf: Path) -> None:
    """What is pipelined behind a transfer, and a head that has begun: answered, as the last."""
    server = start(shelf, "--drain-timeout", "60")
    with server.connect(receive_buffer=16384) as busy, server.connect() as half:
        busy.sendall(request_bytes("/big") + request_bytes("/small"))
        half.sendall(asks("/small")[:20])
        server.until(lambda line: line["stalls"] >= 1)
        server.terminate()
        server.until_it_refuses()
        incoming = Incoming(busy)
        assert incoming.response().body == content(BIG)
        response = incoming.response()
        assert (response.body, response.fields["connection"]) == (b"small", "close")
        incoming.end()
        half.sendall(asks("/small")[20:])
        incoming = Incoming(half)
        response = incoming.response()
        assert (response.body, response.fields["connection"]) == (b"small", "close")
        incoming.end()
        last = server.ends()
    assert (last["open"], last["resets"], last["requests"]) == (0, 0, 3)


@readers
def test_drain_while_a_body_is_awaited(start: Start, shelf: Path) -> None:
    """Its request was answered as not the last; the end comes behind the body all the same."""
    server = start(shelf, "--drain-timeout", "600")
    with server.connect() as sock:
        asked = asks("/small", "POST", Content_Length="20")
        assert exchange(sock, asked + b"0123456789", "POST").status == 405
        server.terminate()
        server.until_it_refuses()
        sock.sendall(b"0123456789")
        Incoming(sock).end()
        last = server.ends()
    assert (last["open"], last["requests"], last["timeouts"]) == (0, 1, 0)


@readers
def test_drain_amid_a_long_pipeline(start: Start, shelf: Path) -> None:
    """It takes more than one turn to answer, and the last answer says that it is the last."""
    for i in range(1000):
        (shelf / f"{i}").touch()
    server = start(shelf, "--drain-timeout", "600")
    with server.connect() as sock:
        incoming = Incoming(sock)
        assert get(sock, "/small").body == b"small"
        os.kill(server.pid, signal.SIGSTOP)
        sock.sendall(asks("/") * 100)  # a listing each, of some milliseconds
        server.terminate()
        os.kill(server.pid, signal.SIGCONT)
        while "connection" not in (response := incoming.response()).fields:
            assert response.status == 200
        assert response.fields["connection"] == "close"
        incoming.end()
        server.ends()


@loops
@pytest.mark.parametrize("second_signal", [True, False])
def test_end_of_the_drain(start: Start, shelf: Path, second_signal: bool) -> None:
    """After its time, or at once by a second signal: what is left is cut off."""
    server = start(shelf, "--drain-timeout", "600" if second_signal else "0.4")
    with server.connect(receive_buffer=4096) as stuck:
        stuck.sendall(request_bytes("/big"))
        server.until(lambda line: line["stalls"] >= 1)
        began = time.monotonic()
        server.terminate()
        if second_signal:
            server.until_it_refuses()
            os.kill(server.pid, signal.SIGINT)
        last = server.ends()
        assert second_signal or time.monotonic() - began >= 0.4
    assert (last["accepted"], last["closed"], last["open"]) == (1, 1, 0)


@loops
def test_stop_with_idle_connections(start: Start, shelf: Path) -> None:
    """They are no reason to wait."""
    server = start(shelf, "--drain-timeout", "600")
    with server.connect() as idle, server.connect() as silent:
        assert get(idle, "/small").body == b"small"
        server.until(lambda line: line["open"] == 2)
        last = server.stop()
        for sock in (idle, silent):
            assert sock.recv(1) == b""
    assert (last["accepted"], last["closed"], last["resets"]) == (2, 2, 0)


@loops
def test_workers(start: Start, root: Path, tmp_path: Path) -> None:
    """Two processes, one port, one log, one sum of counters."""
    log = tmp_path / "access.log"
    server = start(root, "--workers", "2", "--access-log", str(log))
    assert len(set(server.ready["pids"])) == server.ready["workers"] == 2
    with ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(60)]
        for sock in socks:
            sock.sendall(request_bytes("/4097.bin") * 2)
        received = 0
        for sock in socks:
            incoming = Incoming(sock)
            for _ in range(2):
                response = incoming.response()
                assert response.body == content(4097)
                received += len(response.head) + len(response.body)
            incoming.nothing_more()
        line = server.until(lambda line: line["sent"] >= received)
        assert (line["open"], line["requests"], line["sent"]) == (60, 120, received)
    last = server.stop()
    assert (last["accepted"], last["closed"], last["requests"]) == (60, 60, 120)
    assert logged(log.read_text().splitlines()) == [("GET /4097.bin HTTP/1.1", 200, "4097")] * 120
