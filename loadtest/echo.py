"""Locustfile for echo servers: `locust -f loadtest/`.

`EchoUser` is one connection in gevent, a message at a time: the idiomatic Locust user, and the one
that runs unless another is named.  `EchoSwarm` drives a block of connections in a helper process
on pollmark's own pollers, many times faster.  The server is chosen by options, started with the
test, verified, and stopped with it; `-H tcp://host:port` loads one that already runs.
"""

from __future__ import annotations

import itertools
import socket
import time
from typing import Any

import gevent
from locust import User, task

from loadtest import _lifecycle, _stats
from loadtest._connect import RESET_ON_CLOSE
from loadtest._exchange import payloads
from loadtest._histogram import Histogram
from loadtest._sources import Sources, resolve
from loadtest._swarm_link import SwarmLink, config
from loadtest._testrun import START_ONE, TestRun

_lifecycle.install()

#: Seconds that a connect and an echo may take.
TIMEOUT = 60.0
#: Seconds before a connect that failed is tried again.
RETRY = 1.0


class EchoUser(User):
    """One connection; sends a message, waits for its echo and compares it."""

    host = START_ONE

    def wait_time(self) -> float:
        return self.test.options.think_time

    def on_start(self) -> None:
        self.test = _lifecycle.current(self.environment)
        self.size = self.test.options.message_size
        self.name = f"{self.size} B"
        self.sock: Any = None
        self.take = _Shared.of(self.test, str(self.host))
        self.connect()

    def on_stop(self) -> None:
        self.disconnect()

    def connect(self) -> None:
        """Open the connection; a failure is reported and `sock` stays None."""
        started = time.perf_counter()
        sock = socket.socket()
        try:
            sock.settimeout(TIMEOUT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.take.sources.bind(sock)
            sock.connect(self.take.address)
        except OSError as error:
            sock.close()
            self.report("CONNECT", started, 0, error)
            gevent.sleep(RETRY)
        else:
            self.sock = sock

    def disconnect(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    @task
    def echo(self) -> None:
        if self.sock is None:
            self.connect()
            return
        message = next(self.take.messages)
        started = time.perf_counter()
        try:
            self.sock.sendall(message)
            reply = self.sock.recv(self.size)
            while len(reply) < self.size:
                more = self.sock.recv(self.size - len(reply))
                if not more:
                    raise ConnectionResetError("closed by the server")
                reply += more
            if reply != message:
                raise ValueError("wrong bytes")
        except (OSError, ValueError) as error:
            self.disconnect()
            self.report("ECHO", started, 0, error)
        else:
            self.report("ECHO", started, self.size, None)

    def report(self, kind: str, started: float, length: int, error: Exception | None) -> None:
        """Fire Locust's request event, with fractions of a millisecond."""
        self.environment.events.request.fire(
            request_type=kind,
            name=self.name,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=length,
            exception=error,
            context={},
        )


class _Shared:
    """What all EchoUsers of one test share: the address, the sources, and messages in turn."""

    _latest: _Shared | None = None

    def __init__(self, test: TestRun, url: str) -> None:
        self.test = test
        self.address = resolve(url)
        self.sources = Sources(self.address[0])
        self.messages = itertools.cycle(payloads(test.options.message_size, seed=0))

    @classmethod
    def of(cls, test: TestRun, url: str) -> _Shared:
        if cls._latest is None or cls._latest.test is not test:
            cls._latest = cls(test, url)
        return cls._latest


class EchoSwarm(User):
    """A block of connections (--swarm-connections) in a helper process on pollmark's pollers."""

    host = START_ONE
    _seeds = itertools.count(1)

    def on_start(self) -> None:
        self.test = _lifecycle.current(self.environment)
        options = self.test.options
        self.size = options.message_size
        self.link = SwarmLink(
            config(options, str(self.host), next(self._seeds)), self.test.next_core()
        )
        if self.test.measurement:
            self.test.measurement.add(self.link)

    def on_stop(self) -> None:
        for line in self.link.stop():
            self.take(line)

    @task
    def drive(self) -> None:
        """Take the helper's lines until the user is stopped."""
        for line in self.link.lines():
            self.take(line)
        _lifecycle.abort(self.environment, "a swarm's helper ended by itself", _lifecycle.BROKE)
        gevent.sleep(TIMEOUT)

    def take(self, line: dict[str, Any]) -> None:
        """Merge a sample into Locust's statistics; hand everything to the measurement."""
        match line["event"]:
            case "sample":
                self.merge(line)
            case "failed":
                _lifecycle.abort(self.environment, line["why"], _lifecycle.BROKE)
        if self.test.measurement:
            self.test.measurement.take(self.link, line)

    def merge(self, line: dict[str, Any]) -> None:
        name, stats = f"{self.size} B", self.environment.stats
        seconds = line["until"] - line["from"]
        service = Histogram.from_json(line["service"])
        _stats.merge(
            stats,
            "SWARM",
            name,
            service,
            length=self.size,
            seconds=seconds,
            errors=line["errors"],
        )
        if line["intended"] is not None:
            _stats.merge(
                stats,
                "SWARM",
                f"{name} from intended send",
                Histogram.from_json(line["intended"]),
                length=self.size,
                seconds=seconds,
                errors={},
                in_total=False,
            )
