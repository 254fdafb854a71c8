"""The helper process of a swarm, by its lines, against servers good and bad."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from swarm_process import Line, Swarm

from loadtest import _swarm
from loadtest._histogram import Histogram
from loadtest._sources import Sources, parse_url, resolve


@contextmanager
def server(answer: Callable[[bytes], bytes], backlog: int = 128) -> Iterator[str]:
    """A server in a thread which sends `answer(data)` back; b"" closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    stop, stopped = socket.socketpair()

    def serve() -> None:
        watched: list[socket.socket] = [listener, stopped]
        while stopped not in (ready := select.select(watched, [], [])[0]):
            for sock in ready:
                if sock is listener:
                    watched.append(listener.accept()[0])
                    continue
                try:
                    data = sock.recv(65536)
                    reply = answer(data) if data else b""
                    if reply:
                        sock.sendall(reply)
                        continue
                except ConnectionError:
                    pass
                watched.remove(sock)
                sock.close()
        for sock in watched:
            sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield address(listener)
    finally:
        stop.close()
        thread.join()


def address(listener: socket.socket) -> str:
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def echo(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize("changes", [{}, {"pipeline": 4}, {"rate": 2000.0}, {"size": 100_000}])
def test_a_window_is_measured_and_its_samples_add_up(changes: Line) -> None:
    with server(echo) as url, Swarm(url, **changes) as swarm:
        connected = swarm.until("connected")
        assert (connected["connections"], connected["active"]) == (20, 20)
        begin = time.monotonic() + 0.05
        swarm.send({"command": "measure", "at": begin, "until": begin + 0.3})
        measured = swarm.until("measured")
        assert swarm.finish() == 0
    assert begin <= measured["from"] < measured["until"]
    assert measured["until"] >= begin + 0.3
    inside = [
        line
        for line in swarm.lines
        if line["event"] == "sample" and measured["from"] < line["until"] <= measured["until"]
    ]
    assert measured["messages"] == sum(line["messages"] for line in inside) > 0
    assert Histogram.from_json(measured["service"]).total == measured["messages"]
    assert (measured["intended"] is not None) == bool(changes.get("rate"))
    assert measured["fairness"]["max"] >= measured["fairness"]["min"] > 0
    assert swarm.errors() == {}
    assert swarm.lines[-1]["event"] == "done"


def test_only_the_active_connections_are_busy() -> None:
    with server(echo) as url, Swarm(url, active=5) as swarm:
        assert swarm.until("connected")["active"] == 5
        swarm.send({"command": "measure", "at": time.monotonic(), "until": None})
        while not swarm.until("sample")["messages"]:
            pass
        swarm.send({"command": "end"})
        measured = swarm.until("measured")
        assert swarm.finish() == 0
    total = measured["messages"]
    assert 5 * measured["fairness"]["min"] <= total <= 5 * measured["fairness"]["max"]


def test_warm_up_ends_when_the_throughput_is_steady_or_at_its_limit() -> None:
    with server(echo) as url, Swarm(url, rate=1000.0) as swarm:
        swarm.until("connected")
        swarm.send({"command": "warm up", "limit": 20.0})
        steady = swarm.until("steady")
        swarm.send({"command": "warm up", "limit": 0.01})
        limited = swarm.until("steady")
        assert swarm.finish() == 0
    assert steady["steady"]
    assert steady["seconds"] < 20
    assert not limited["steady"]


@pytest.mark.parametrize("limit", [0.2, 0.3, 1.0])
@pytest.mark.parametrize("late", [0.0, 0.004, 0.009])
def test_a_short_warm_up_has_windows_enough_to_be_steady(
    limit: float, late: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where each look at the clock comes `late`."""
    exchange: Any = SimpleNamespace(flush=lambda: None, observed=0)
    now = 1000.0
    monkeypatch.setattr(_swarm, "time", SimpleNamespace(monotonic=lambda: now))
    swarm: Any = _swarm.Swarm(exchange, _swarm.Orders(-1), 1.0)
    swarm._obey({"command": "warm up", "limit": limit})
    while swarm._steadiness is not None:
        now += 0.005 + late
        exchange.observed = int((now - 1000) * 1e6)
        if now >= swarm._window_end:
            swarm._watch_steadiness(now)
    line = json.loads(capsys.readouterr().out)
    assert (line["event"], line["steady"]) == ("steady", True)
    assert line["seconds"] <= limit


def test_the_end_of_stdin_ends_the_window_and_the_process() -> None:
    with server(echo) as url, Swarm(url) as swarm:
        swarm.until("connected")
        swarm.send({"command": "measure", "at": time.monotonic(), "until": None})
        swarm.until("sample")
        assert swarm.finish() == 0
    assert [line["event"] for line in swarm.lines][-3:] == ["measured", "sample", "done"]


def test_an_order_that_comes_with_the_configuration_is_obeyed() -> None:
    with server(echo) as url, Swarm(url) as swarm:
        begin = time.monotonic()
        swarm.send({"command": "measure", "at": begin, "until": begin})
        assert swarm.until("measured")["from"] >= begin
        assert swarm.finish() == 0


def test_a_window_that_is_ended_before_it_began_is_still_reported() -> None:
    with server(echo) as url, Swarm(url) as swarm:
        swarm.until("connected")
        begin = time.monotonic() + 0.1
        swarm.send({"command": "measure", "at": begin, "until": None})
        swarm.send({"command": "end"})
        assert swarm.until("measured")["from"] >= begin
        assert swarm.finish() == 0


@pytest.mark.parametrize("connections", [1, 2])
def test_wrong_bytes_under_load_end_the_swarm_though_idle_connections_are_left(
    connections: int,
) -> None:
    answered = 0

    def corrupt_once_connected(data: bytes) -> bytes:
        nonlocal answered
        answered += 1
        return data if answered <= connections else data[::-1]

    with (
        server(corrupt_once_connected) as url,
        Swarm(url, connections=connections, active=1) as swarm,
    ):
        assert "lost" in swarm.until("failed")["why"]
        assert swarm.finish() == 1
    assert swarm.errors() == {"wrong bytes": 1}


@pytest.mark.parametrize(
    ("answer", "why"),
    [(lambda data: data[::-1], "other bytes"), (lambda _: b"", "the server closed it")],
)
def test_a_server_that_does_not_echo_is_refused_before_the_load(
    answer: Callable[[bytes], bytes], why: str
) -> None:
    with server(answer) as url, Swarm(url) as swarm:
        assert why in swarm.until("failed")["why"]
        assert swarm.finish() == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"poller": "nope"}, "no poller is called 'nope'"),
        ({"connections": 10**6}, "use at most"),
        ({"url": "tcp://127.0.0.1:1"}, "Connection refused"),
        ({"url": "tcp://::1:80"}, "no IPv4 address"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(changes: Line, why: str) -> None:
    with server(echo) as url, Swarm(**{"url": url} | changes) as swarm:
        failed = swarm.until("failed")
        assert why in failed["why"]
        assert "\n" not in failed["why"]
        assert swarm.finish() == 1


def test_a_server_that_never_accepts_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        url = address(listener)
        with Swarm(url, connect_timeout=0.3) as swarm:
            assert "0 of 20 connections were open after 0.3 s" in swarm.until("failed")["why"]
            assert swarm.finish() == 1


def test_sources_are_spread_over_the_loopback_and_leave_the_port_to_connect() -> None:
    sources = Sources("127.0.0.1")
    if not sources.addresses:
        pytest.skip("no aliases on the loopback interface")
    used = set()
    for _ in range(2 * len(sources.addresses)):
        with socket.socket() as sock:
            sources.bind(sock)
            address, port = sock.getsockname()
            used.add(address)
            assert (port == 0) == sources.late_port
    assert used == set(sources.addresses)
    elsewhere = Sources("192.0.2.1")
    with socket.socket() as sock:
        elsewhere.bind(sock)
        assert sock.getsockname() == ("0.0.0.0", 0)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "http://h:80", "tcp://h", "tcp://h:0", "tcp://:1"]
)
def test_an_address_is_tcp_host_port(url: str) -> None:
    assert parse_url("tcp://localhost:80/") == ("localhost", 80)
    assert resolve("tcp://127.0.0.1:80") == ("127.0.0.1", 80)
    with pytest.raises(ValueError, match="tcp://host:port"):
        parse_url(url)
