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

from loadtest import _lifecycle
from loadtest._connect import RESET_ON_CLOSE
from loadtest._exchange import payloads
from loadtest._sources import Sources, resolve
from loadtest._swarm_user import SwarmUser
from loadtest._testrun import START_ONE, TestRun
from loadtest._workload import ECHO

_lifecycle.install()

#: Seconds that a connect and an echo may take.
TIMEOUT = 60.0
#: Seconds before a connect that failed is tried again.
RETRY = 1.0


class EchoUser(User):
    """One connection; sends a message, waits for its echo and compares it."""

    host = START_ONE
    workload = ECHO.name

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


class EchoSwarm(SwarmUser):
    """A block of connections (--swarm-connections) in a helper process on pollmark's pollers."""

    host = START_ONE
    workload = ECHO.name

    def merge(self, line: dict[str, Any]) -> None:
        size = self.test.options.message_size
        name = f"{size} B"
        self.merge_into(name, line, line["service"], size, line["errors"])
        if line["intended"] is not None:
            name = f"{name} from intended send"
            self.merge_into(name, line, line["intended"], size, {}, in_total=False)
