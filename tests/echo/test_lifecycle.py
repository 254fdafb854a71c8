"""What a server says and obeys: SIGUSR1, the drain, its last line, and workers that are one."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import pytest
from serving import LOOPS, REACTORS, EchoServer, echo, read_exactly, serving, until

#: One of each loop, and all pollers: a drain goes through each adapter's unregister and close.
DRAINED = [*(each for each in REACTORS if each.backend == "copy"), *LOOPS[1:], *REACTORS[1:3]]

drained = pytest.mark.parametrize("combination", DRAINED, ids=str, indirect=True)
loops = pytest.mark.parametrize("combination", LOOPS, ids=str, indirect=True)

#: What a counters line has, each a number.
NUMBERS = (
    "monotonic",
    "accepted",
    "closed",
    "open",
    "received",
    "resets",
    "stalls",
    "spills",
    "idle_closes",
    "accept_errors",
    "user_cpu",
    "system_cpu",
    "voluntary_switches",
    "involuntary_switches",
    "max_rss_kib",
)


@drained
def test_counters_line(server: EchoServer) -> None:
    before = time.monotonic()
    with server.connect() as sock:
        echo(sock, b"x" * 1000)
        line = server.counters()
        assert line["counters"] is True
        assert line["pid"] == server.pid
        assert line["open"] == line["accepted"] - line["closed"] == 1
        assert line["received"] == 1000
        assert before < line["monotonic"] < time.monotonic()
        assert all(isinstance(line[name], int | float) for name in NUMBERS)
        assert line["user_cpu"] + line["system_cpu"] > 0
        assert line["max_rss_kib"] > 1000
        if server.ready["loop"] == "reactor":
            assert line["kernel_calls"] == line["poller"]["kernel_calls"] > 0
            assert sum(line["poller"]["events_per_wakeup"].values()) == line["poller"]["polls"]
        else:
            assert line["poller"] is line["kernel_calls"] is None
    server.until(lambda line: line["open"] == 0)


@drained
def test_stop_without_connections(start: Callable[..., EchoServer]) -> None:
    """Nothing to wait for: however long the drain may take, it ends at once."""
    server = start("--drain-timeout", "60")
    with server.connect() as sock:
        echo(sock, b"one")
    server.until(lambda line: line["open"] == 0)
    last = server.stop()
    assert (last["accepted"], last["closed"], last["open"], last["received"]) == (1, 1, 0, 3)


@drained
def test_drain(start: Callable[..., EchoServer]) -> None:
    """SIGTERM: newcomers are refused, those who are there are served until they close."""
    server = start("--drain-timeout", "60")
    with server.connect() as first, server.connect() as second:
        echo(first, b"1" * 10)
        echo(second, b"2" * 10)
        server.terminate()
        server.until_it_refuses()
        echo(first, b"3" * 100_000)
        first.close()
        echo(second, b"4" * 1000)
        line = server.until(lambda line: line["open"] == 1)
        assert line["accepted"] == 2
        second.shutdown(socket.SHUT_WR)
        assert second.recv(1) == b""
        last = server.ends()
    assert (last["accepted"], last["closed"], last["open"]) == (2, 2, 0)
    assert last["received"] == 10 + 10 + 100_000 + 1000
    assert (last["resets"], last["accept_errors"], last["idle_closes"]) == (0, 0, 0)


@drained
def test_drain_timeout(start: Callable[..., EchoServer]) -> None:
    """Who does not close is closed when the time is up, and counted as closed."""
    server = start("--drain-timeout", "0.2")
    with server.connect() as sock:
        echo(sock, b"hello")
        began = time.monotonic()
        server.terminate()
        last = server.ends()
        assert time.monotonic() - began >= 0.2
        assert sock.recv(1) == b""
    assert (last["accepted"], last["closed"], last["open"], last["received"]) == (1, 1, 0, 5)


@drained
def test_second_signal(start: Callable[..., EchoServer]) -> None:
    """It ends the drain at once, however long it was to be; SIGINT counts as well."""
    server = start("--drain-timeout", "600")
    with server.connect() as sock:
        echo(sock, b"hello")
        server.terminate()
        server.until_it_refuses()
        os.kill(server.pid, signal.SIGINT)
        last = server.ends()
        assert sock.recv(1) == b""
    assert (last["accepted"], last["closed"], last["open"], last["received"]) == (1, 1, 0, 5)


@loops
def test_interrupt_drains_too(start: Callable[..., EchoServer]) -> None:
    """Ctrl-C is SIGINT: the same as SIGTERM, and no KeyboardInterrupt on the terminal."""
    server = start("--drain-timeout", "60")
    with server.connect() as sock:
        echo(sock, b"hello")
        os.kill(server.pid, signal.SIGINT)
        server.until_it_refuses()
        echo(sock, b"goodbye")
    assert server.ends()["received"] == 12


@pytest.mark.parametrize("combination", REACTORS[:1], ids=str, indirect=True)
def test_signals_during_the_end(start: Callable[..., EchoServer]) -> None:
    """However many signals come while the process winds itself up, it ends as it would have."""
    for _ in range(5):
        server = start()
        while server.process.poll() is None:
            server.terminate()
        assert server.ends()["open"] == 0


# Workers


def workers_of(server: EchoServer) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(
        each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes
    )


@loops
def test_workers(start: Callable[..., EchoServer]) -> None:
    """Several processes on one port, one ready line, one sum of counters."""
    server = start("--workers", "3", "--drain-timeout", "60")
    workers = workers_of(server)
    assert server.ready["workers"] == 3
    assert server.ready["pid"] == server.pid
    assert sorted(server.ready["pids"]) == sorted(each.pid for each in workers)
    assert len(set(server.ready["pids"])) == 3
    with ExitStack() as stack:
        idle_fds = [each.num_fds() for each in workers]
        socks = [stack.enter_context(server.connect()) for _ in range(120)]
        for i, sock in enumerate(socks):
            sock.sendall(b"%08d" % i)
        for i, sock in enumerate(socks):
            assert read_exactly(sock, 8) == b"%08d" % i
        line = server.counters()
        assert (line["accepted"], line["open"], line["received"]) == (120, 120, 960)
        assert line["pid"] == server.pid
        # The kernel spreads by a hash: 120 over 3 leave one empty once in 10**20 runs.
        spread = [each.num_fds() - idle for each, idle in zip(workers, idle_fds, strict=True)]
        assert min(spread) > 0
        assert sum(spread) == 120
        server.terminate()
        server.until_it_refuses()
        echo(socks[0], b"drained like one")
    last = server.ends()
    assert (last["accepted"], last["closed"], last["open"]) == (120, 120, 0)
    assert last["received"] == 960 + 16
    assert gone(workers)


@loops
def test_killed_worker_ends_all(start: Callable[..., EchoServer]) -> None:
    server = start("--workers", "3")
    workers = workers_of(server)
    victim = workers[1]
    os.kill(victim.pid, signal.SIGKILL)
    assert server.process.wait(20) == 2
    assert server.lines() == []
    [said] = server.stderr()
    assert f"worker {victim.pid} ended by itself" in said
    assert gone(workers)


@loops
def test_killed_parent_leaves_nobody(start: Callable[..., EchoServer]) -> None:
    server = start("--workers", "3", "--drain-timeout", "0.2")
    workers = workers_of(server)
    with server.connect() as sock:
        echo(sock, b"hello")
        server.process.kill()
        until(lambda: gone(workers))
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_counters_of_workers_under_many_signals() -> None:
    """Each line adds up every worker once, however the signals and the answers overlap."""
    with serving("--workers", "2") as server, ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(20)]
        for sock in socks:
            echo(sock, b"x")
        for _ in range(200):
            os.kill(server.pid, signal.SIGUSR1)
        line = server.line()
        assert (line["open"], line["accepted"], line["received"]) == (20, 20, 20)
        for sock in socks:
            sock.close()
        server.terminate()
        server.process.wait(20)
        lines = server.lines()
        for line in lines:
            assert line["accepted"] == 20, line
        assert lines[-1]["final"]


def test_interrupt_of_a_process_group_with_workers() -> None:
    """Ctrl-C on a terminal signals the workers too; they drain all the same."""
    with serving("--workers", "2", "--drain-timeout", "60") as server:
        with server.connect() as sock:
            echo(sock, b"hello")
            for pid in [*server.ready["pids"], server.pid]:
                os.kill(pid, signal.SIGINT)
            server.until_it_refuses()
            echo(sock, b"goodbye")
        assert server.ends()["received"] == 12
