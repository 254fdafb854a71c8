"""What breaks a careless server: resets, no fds left, signals without end, a dead stdout."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
from serving import (
    COMBINATIONS,
    LOOPS,
    REACTORS,
    Combination,
    EchoServer,
    echo,
    injecting,
    read_exactly,
    reset,
    until,
)

MIB = 1 << 20

#: Hard limit of open files for a server that is to run out of them, and the connects it gets.
NOFILE = 64
CONNECTS = 200

#: What a server without fds may do while it waits for one: share of a core, log lines a second.
WINDOW = 0.5
SHARE = 0.15  # a spinning loop takes all of it; less would count single clock ticks


def test_reset_in_mid_message(server: EchoServer) -> None:
    """The peer dies with RST at every stage: counted, freed, and nobody else notices."""
    before = server.until(lambda line: line["open"] == 0)
    fds = server.fds()
    source = random.Random(1).randbytes(MIB)
    with server.connect() as other:
        for sent in (1, 1000, 65536, 65537, 300_000) * 8:
            sock = server.connect()
            sock.setblocking(False)
            with suppress(BlockingIOError):
                sock.send(source[:sent])
            reset(sock)
        # Only one may be open before all have been accepted, too.
        accepted = before["accepted"] + 41
        after = server.until(lambda line: line["accepted"] == accepted and line["open"] == 1)
        echo(other, source)
    assert after["closed"] - before["closed"] == 40
    assert after["resets"] - before["resets"] == 40
    server.until(lambda line: line["open"] == 0)
    assert server.fds() <= fds


def test_reset_before_accept(server: EchoServer) -> None:
    """Connections that are dead before the server gets to them cost it nothing but the accept."""
    before = server.until(lambda line: line["open"] == 0)
    fds = server.fds()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for _ in range(100):
            sock = server.connect()
            sock.send(b"never to be seen")
            reset(sock)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    with server.connect() as sock:  # behind them in the backlog
        echo(sock, b"still here")
        after = server.until(lambda line: line["open"] == 1)
    # Linux hands them out and lets recv fail; other kernels may drop them with ECONNABORTED.
    assert after["resets"] - before["resets"] <= 100
    server.until(lambda line: line["open"] == 0)
    assert server.fds() <= fds


def test_signals_while_echoing(server: EchoServer) -> None:
    """200 signals interrupt whatever can be: not a byte is lost, and each is answered."""
    source = random.Random(2).randbytes(4 * MIB)
    with server.connect() as sock:
        worker = threading.Thread(target=lambda: [echo(sock, source) for _ in range(4)])
        worker.start()
        try:
            for _ in range(200):
                # One that waits for its answer is handled for sure: pending ones coalesce.
                line = server.counters()
        finally:
            worker.join()
        total = server.counters()["received"]
        assert line["received"] <= total
        echo(sock, source)
        assert server.counters()["received"] == total + len(source)


def test_burst_of_signals(server: EchoServer) -> None:
    """Signals that come faster than they are handled may coalesce, and lose nothing else."""
    with server.connect() as sock:
        for _ in range(300):
            os.kill(server.pid, signal.SIGUSR1)
        echo(sock, b"served meanwhile")
    lines = 0
    while select.select([server.stdout], [], [], 0.1)[0]:
        assert server.line()["final"] is False
        lines += 1
    assert 1 <= lines <= 300


def answered(socks: list[socket.socket]) -> list[socket.socket]:
    """Those on which something has come: an answer, or the end."""
    poll = select.poll()
    by_fd = {sock.fileno(): sock for sock in socks}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(0)]


@pytest.mark.parametrize("combination", REACTORS, ids=str, indirect=True)
def test_out_of_fds(start: Callable[..., EchoServer]) -> None:
    """EMFILE: it serves whom it has, waits without spinning or chatting, and goes on after."""
    server = start(nofile=NOFILE)
    with ExitStack() as stack:
        waiting = [stack.enter_context(server.connect()) for _ in range(CONNECTS)]
        for sock in waiting:
            sock.sendall(b"hello")
        line = server.until(lambda line: line["accept_errors"] > 0)
        assert NOFILE / 2 < line["open"] < NOFILE
        until(lambda: len(answered(waiting)) == line["open"])
        said, cpu, since = len(server.stderr()), server.cpu(), time.monotonic()
        errors = line["accept_errors"]
        time.sleep(WINDOW)  # of what it does while it can do nothing, this much is looked at
        passed = time.monotonic() - since
        assert server.cpu() - cpu < SHARE * passed
        assert len(server.stderr()) - said <= passed + 1
        assert server.counters()["accept_errors"] - errors <= passed / 0.25 + 1
        assert all("Too many open files" in text for text in server.stderr()), server.stderr()
        while waiting:
            for sock in answered(waiting):
                assert read_exactly(sock, 5) == b"hello"
                echo(sock, b"and again")
                sock.close()
                waiting.remove(sock)
            if waiting:
                until(lambda: bool(answered(waiting)))
    line = server.until(lambda line: line["open"] == 0)
    assert line["accepted"] == line["closed"] == CONNECTS
    server.terminate()
    assert server.process.wait(20) == 0


@pytest.mark.parametrize(
    "combination", [each for each in COMBINATIONS if each.poller is None], ids=str, indirect=True
)
def test_out_of_fds_elsewhere(combination: Combination, start: Callable[..., EchoServer]) -> None:
    """What the other loops do at EMFILE, as they are (facts about them, not promises of ours).

    asyncio   stops accepting for a second (ACCEPT_RETRY_DELAY) and tries again; the others wait
              in the backlog.  It reports the failure 128 times a try (its backlog), which our
              exception handler turns into one line a second.
    uvloop    (libuv's "emfile trick") gives up a reserved fd to accept and close every connection
              that is too many: its client sees the end of file at once.
    trio      waits 100 ms and tries again; what it logs each time our handler counts, and says
              at most once a second.
    """
    server = start(nofile=NOFILE)
    begin = time.monotonic()
    with ExitStack() as stack:
        waiting = [stack.enter_context(server.connect()) for _ in range(CONNECTS)]
        for sock in waiting:
            with suppress(ConnectionError):  # uvloop may have closed it already
                sock.sendall(b"hello")
        until(lambda: len(answered(waiting)) > NOFILE / 2)
        cpu, since = server.cpu(), time.monotonic()
        time.sleep(WINDOW)  # of what it does while it can do nothing, this much is looked at
        assert server.cpu() - cpu < 0.25 * (time.monotonic() - since)
        closed = 0
        while waiting:
            for sock in answered(waiting):
                data = b""
                with suppress(ConnectionError):
                    data = sock.recv(5)
                closed += not data
                sock.close()
                waiting.remove(sock)
            if waiting:
                until(lambda: bool(answered(waiting)), seconds=4)
    said = " ".join(server.stderr())
    if combination.loop == "uvloop":
        assert closed > CONNECTS - NOFILE
        assert not said
    else:
        assert closed == 0
        assert "Too many open files" in said or "EMFILE" in said, said
    if combination.loop != "uvloop":
        assert server.counters()["accept_errors"] > 0
        assert len(server.stderr()) <= time.monotonic() - begin + 1
    server.until(lambda line: line["open"] == 0)  # else uvloop may close the next one too
    with server.connect() as sock:
        echo(sock, b"recovered")
    server.terminate()
    assert server.process.wait(20) == 0


@pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True)
def test_stdout_closed_by_its_reader(start: Callable[..., EchoServer]) -> None:
    """Nobody reads the counters any more: said once, and no reason to stop or to fail."""
    server = start()
    server.stdout.close()
    with server.connect() as sock:
        os.kill(server.pid, signal.SIGUSR1)
        until(lambda: bool(server.stderr()))
        echo(sock, b"served all the same")
    server.terminate()
    assert server.process.wait(20) == 0
    assert server.stderr() == ["stdout is closed: nobody reads the counters"]


def test_stderr_closed_by_its_reader() -> None:
    """Nobody reads the log any more: no reason to stop, or to end with another code."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    program = "from servers.lifecycle import log; log('one'); log('two'); print('went on')"
    try:
        words = [sys.executable, "-c", program]
        ended = subprocess.run(words, stdout=subprocess.PIPE, stderr=write_end, timeout=60)
    finally:
        os.close(write_end)
    assert (ended.returncode, ended.stdout) == (0, b"went on\n")


@pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True)
def test_connections_that_end_before_they_are_accepted(start: Callable[..., EchoServer]) -> None:
    """accept(2) tells of them by ECONNABORTED: no reason to stop, or to forget the others."""
    server = start()
    with injecting(server.pid, "accept4:error=ECONNABORTED:when=1+2"), ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(10)]
        for sock in socks:
            echo(sock, b"accepted after all")
    server.terminate()
    assert server.process.wait(20) == 0
    assert len(server.stderr()) <= 2, "a line a second at the most"
