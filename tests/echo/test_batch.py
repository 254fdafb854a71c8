"""The backend `batch`: that messages go in batches, and that nothing is lost or mixed up in them.

What it has in common with the other backends is tested with them; there most messages come alone,
and go the plain way.  Here they come together: the server is stopped until all of them are there.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from churn import Churn
from serverprocess import injecting
from serving import (
    COMBINATIONS,
    Combination,
    EchoServer,
    quiet,
    read_exactly,
    require,
    reset,
)

BATCHES = [each for each in COMBINATIONS if each.backend == "batch"]
#: Those that have a ring of their own, and the one that shares the poller's.
TWO = [each for each in BATCHES if each.poller in ("epoll", "aio")]

MANY = 100
CHUNK = 16384  # of one place

every = pytest.mark.parametrize("combination", BATCHES, ids=str, indirect=True)
both = pytest.mark.parametrize("combination", TWO, ids=str, indirect=True)


@contextmanager
def stopped(server: EchoServer) -> Iterator[None]:
    """What its clients do meanwhile, the server finds all at once."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.fixture
def socks(server: EchoServer) -> Iterator[list[socket.socket]]:
    """Connections that the server has accepted; they are closed after the test."""
    with ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(MANY)]
        server.until(lambda line: line["open"] == MANY)
        yield socks
    server.until(lambda line: line["open"] == 0)


def message(i: int, size: int) -> bytes:
    return (b"%06d" % i * (size // 6 + 1))[:size]


@every
def test_what_comes_together_goes_in_one_batch(
    server: EchoServer, socks: list[socket.socket]
) -> None:
    before = server.counters()
    with stopped(server):
        for i, sock in enumerate(socks):
            sock.sendall(message(i, 1 + 37 * i))
    for i, sock in enumerate(socks):
        assert read_exactly(sock, 1 + 37 * i) == message(i, 1 + 37 * i)
    after = server.counters()
    assert after["batched"] - before["batched"] > 0.9 * MANY
    assert after["batches"] - before["batches"] < 10


@every
def test_messages_longer_than_a_place(server: EchoServer, socks: list[socket.socket]) -> None:
    """They are echoed in several turns, each part in order."""
    sizes = [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 1]
    with stopped(server):
        for i, sock in enumerate(socks):
            sock.sendall(message(i, sizes[i % 5]))
    for i, sock in enumerate(socks):
        assert read_exactly(sock, sizes[i % 5]) == message(i, sizes[i % 5])


@every
def test_ends_and_messages_in_one_batch(server: EchoServer, socks: list[socket.socket]) -> None:
    """FIN behind a message, FIN alone, RST, and messages between them: each gets its own."""
    before = server.counters()
    with stopped(server):
        for i, sock in enumerate(socks):
            if i % 5 != 1:
                sock.sendall(message(i, 100))
            if i % 5 in (0, 1):
                sock.shutdown(socket.SHUT_WR)
            elif i % 5 == 2:
                reset(sock)
    for i, sock in enumerate(socks):
        if i % 5 not in (1, 2):
            assert read_exactly(sock, 100) == message(i, 100)
        if i % 5 in (0, 1):
            assert sock.recv(1) == b""
    line = server.until(lambda line: line["open"] == MANY * 2 // 5)
    assert line["resets"] - before["resets"] == MANY // 5


@every
def test_urgent_bytes_hold_nothing_up(server: EchoServer, socks: list[socket.socket]) -> None:
    """A receive stops at the urgent mark: one that was short has not emptied the socket."""
    with stopped(server):
        for i, sock in enumerate(socks):
            sock.sendall(b"abc")
            if i % 2:
                sock.send(b"!", socket.MSG_OOB)
            sock.sendall(b"def")
    for sock in socks:
        assert read_exactly(sock, 6) == b"abcdef"


@both
def test_peers_that_do_not_read_leave_the_batch(
    server: EchoServer, socks: list[socket.socket]
) -> None:
    """They stall, the others are served, and what is owed comes as soon as they read."""
    source = os.urandom(64 * CHUNK)
    before = server.counters()
    sent: dict[socket.socket, int] = {}
    slow = [server.connect(receive_buffer=4096, segment=1400) for _ in range(MANY // 4)]
    with ExitStack() as stack:
        for sock in slow:
            stack.enter_context(sock)
            sock.setblocking(False)
        for round_ in range(400):
            with stopped(server):
                for sock in slow:
                    done = sent.get(sock, 0)
                    try:
                        sent[sock] = done + sock.send(source[done : done + CHUNK])
                    except BlockingIOError:
                        sent[sock] = done
                for i, sock in enumerate(socks):
                    sock.sendall(message(i + round_, 64))
            for i, sock in enumerate(socks):
                assert read_exactly(sock, 64) == message(i + round_, 64)
            stalls = server.counters()["stalls"] - before["stalls"]
            if stalls >= len(slow):
                break
        assert stalls >= len(slow), "nobody stalled"
        for sock in slow:
            sock.settimeout(20)
            assert read_exactly(sock, sent[sock]) == source[: sent[sock]]
        # They are back: the next message of each goes in a batch again.
        before = server.counters()
        with stopped(server):
            for i, sock in enumerate(slow):
                sock.sendall(message(i, 100))
        for i, sock in enumerate(slow):
            assert read_exactly(sock, 100) == message(i, 100)
        assert server.counters()["batched"] - before["batched"] > len(slow) // 2


@both
def test_churn(server: EchoServer) -> None:
    """Random sizes, sleepers, resets, shutdowns: every reply is right."""
    before = server.counters()
    churn = Churn(server.address, seed=4, count=200)
    try:
        churn.run(2.0)
        churn.finish()
    finally:
        churn.close()
    assert min(churn.ends.values()) > 0
    line = server.until(lambda line: line["open"] == 0)
    assert line["batched"] - before["batched"] > 1000


#: Receives and sends take turns, but for encores that find nothing; what failed is called again
#: for the rest.  So both are hit, now the one and now the other.
FAULTS = {
    "refused": ("io_submit:error=EAGAIN:when=7+13",),
    "refused more often": ("io_submit:error=EAGAIN:when=6+3",),
    "interrupted": ("io_submit:error=EINTR:when=5+7", "io_getevents:error=EINTR:when=2+3"),
}


@both
@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_churn_while_calls_fail(combination: Combination, faults: tuple[str, ...]) -> None:
    """What io_submit refuses for want of memory, or a signal ends, is done in another way."""
    require(combination)
    with quiet(EchoServer(*combination.words)) as server:
        churn = Churn(server.address, seed=5, count=100)
        try:
            with injecting(server.pid, *faults):
                churn.run(1.0)
                churn.finish()
        finally:
            churn.close()
        assert server.until(lambda line: line["open"] == 0)["batched"] > 100


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_other_loops_refuse_it(loop: str) -> None:
    words = [sys.executable, "-m", "servers.echo", "--loop", loop, "--backend", "batch"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "--backend batch needs --loop reactor" in done.stderr


@pytest.mark.parametrize(
    ("poller", "when"),
    [("poll", "1+"), ("poll", "2+"), ("aio", "1+")],
    ids=["poll", "poll-later", "aio"],
)
def test_without_linux_aio_it_is_refused(poller: str, when: str) -> None:
    """As where aio-max-nr is used up, or is since the probe: what, why, and what to do."""
    if (strace := shutil.which("strace")) is None:
        pytest.skip("strace, which injects the fault, is not installed: apt-get install strace")
    inject = [strace, "-f", "-o", os.devnull, "-e", f"inject=io_setup:error=EAGAIN:when={when}"]
    words = [sys.executable, "-m", "servers.echo", "--backend", "batch", "--poller", poller]
    done = subprocess.run([*inject, *words], capture_output=True, text=True, timeout=60)
    if "PTRACE" in done.stderr:
        pytest.skip(f"strace cannot trace here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "not available here" in done.stderr or "--backend batch" in done.stderr
    assert "sysctl -w fs.aio-max-nr" in done.stderr
    assert "; use --backend copy" in done.stderr or poller == "aio"
