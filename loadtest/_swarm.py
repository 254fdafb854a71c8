"""The helper process of one EchoSwarm user: `python -m loadtest._swarm`.

What this file is
-----------------
gevent takes epoll away from the process that Locust runs in, and a blocking poll there stops every
greenlet.  So a swarm's connections live in a process of their own, on pollmark's pollers.

stdin: the first line is the configuration (`Config`, one JSON object); further lines are commands.
End of file ends the process, so that it never outlives its parent.

    {"command": "warm up", "limit": seconds}    say when the throughput is steady
    {"command": "measure", "at": t, "until": t or null}    times of time.monotonic()
    {"command": "end"}                          end the measured window now

stdout: one JSON object a line, told apart by "event":

    connected   connections, active, poller, seconds
    steady      steady (false: the limit came first), seconds
    sample      what happened since the last one; one a second, and at each edge of the window
    measured    the sum over the window: from and until (its true edges), cpu_seconds, fairness
    failed      why: one line; the exit code is 1
    done        every connection is closed
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import pollers
from loadtest._connect import CannotConnect, Connector
from loadtest._exchange import Exchange, Recorder, payloads
from loadtest._pipeline import Pipeline
from loadtest._schedule import WINDOWS, Schedule, Steadiness, active_slots, fairness
from loadtest._sources import Sources, resolve
from pollers.base import Poller
from pollers.limits import OTHER_FDS, raise_nofile

#: Seconds between looks at stdin and at the clock.
TICK: Final = 0.005
#: Seconds between samples.
SAMPLE: Final = 1.0
#: Seconds of one window of the slope test, at most; a short warm-up has shorter ones, so that it
#: holds the WINDOWS that the test needs, and some more to try again.
WINDOW: Final = 0.1
TRIES: Final = WINDOWS + 4
#: Seconds between the last connect and the first message of a schedule.
LEAD: Final = 0.01


@dataclass(frozen=True)
class Config:
    """What the swarm is to do."""

    url: str
    connections: int
    active: int
    size: int
    #: Messages a second; 0 for a closed loop.
    rate: float
    #: Messages in flight on a connection.
    pipeline: int
    #: A poller's name, or "auto" for the first that is available.
    poller: str
    seed: int
    connect_timeout: float
    #: Seconds after which a connection without its echo is given up.
    reply_timeout: float


class Failed(Exception):
    """The swarm cannot run; `str()` is one line: what, why, what to do."""


def create_poller(name: str) -> Poller:
    """The poller called `name`; "auto" is the first available that is no emulation."""
    if name == "auto":
        found = (pollers.probe(known) for known in pollers.names())
        name = next((one.name for one in found if one.available and not one.emulated), "poll")
    try:
        return pollers.create(name)
    except (pollers.UnknownPoller, pollers.Unavailable) as error:
        raise Failed(str(error)) from error


def check_fds(connections: int) -> None:
    """Raise Failed unless the fd limit, raised as far as it goes, allows `connections`."""
    soft, _ = raise_nofile()
    largest = soft - OTHER_FDS
    if connections > largest:
        raise Failed(
            f"{connections} connections do not fit in one process's {soft} file descriptors: "
            f"use at most {largest}, or raise the limit (ulimit -n {connections + OTHER_FDS})"
        )


class Orders:
    """Lines from stdin, without blocking."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self.ended = False

    def take(self) -> list[dict[str, Any]]:
        """The commands that have come since the last call."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


class Swarm:
    """The connections, driven until stdin ends."""

    def __init__(self, exchange: Exchange, orders: Orders, reply_timeout: float) -> None:
        self._exchange = exchange
        self._orders = orders
        self._reply_timeout = reply_timeout
        self._from = time.monotonic()
        self._steadiness: Steadiness | None = None
        self._warm_from = self._warm_until = 0.0
        self._length = WINDOW
        self._window_end = self._counted_at = 0.0
        self._counted = 0
        self._total = 0
        self._measure: deque[float | None] = deque()
        self._window: Recorder | None = None
        self._window_from = self._cpu_from = 0.0

    def run(self) -> None:
        """Exchange messages and obey until stdin ends or no active connection is left."""
        exchange = self._exchange
        next_sample = self._from + SAMPLE
        while not self._orders.ended:
            tick = time.monotonic() + TICK
            while time.monotonic() < tick:
                exchange.turn(TICK)
            for order in self._orders.take():
                self._obey(order)
            now = time.monotonic()
            self._watch_window(now)
            if self._steadiness is not None and now >= self._window_end:
                self._watch_steadiness(now)
            if now >= next_sample:
                self._sample(now)
                exchange.expire(self._reply_timeout)
                next_sample = max(next_sample + SAMPLE, now)
                if exchange.active and not exchange.open:
                    raise Failed("every active connection was lost")
        now = time.monotonic()
        if self._window is not None:
            self._end_window(now)
        self._sample(now)

    def _obey(self, order: dict[str, Any]) -> None:
        match order["command"]:
            case "warm up":
                now = time.monotonic()
                self._steadiness = Steadiness()
                self._warm_from, self._warm_until = now, now + order["limit"]
                self._length = min(WINDOW, order["limit"] / TRIES)
                self._window_end = now
                self._start_window(now)
            case "measure":
                self._measure = deque([order["at"], order["until"]])
            case "end":
                # A window that is still to begin ends as soon as it has.
                begin = list(self._measure)[:1] if self._window is None else []
                pending = self._window is not None or self._measure
                self._measure = deque([*begin, time.monotonic()] if pending else [])
            case other:
                raise Failed(f"unknown command {other!r}")

    # -- warm-up

    def _start_window(self, now: float) -> None:
        self._exchange.flush()
        self._counted, self._counted_at = self._messages(), now
        # From the last end and not from now, or each turn's lateness would lengthen the warm-up.
        self._window_end = max(self._window_end + self._length, now)

    def _watch_steadiness(self, now: float) -> None:
        assert self._steadiness is not None
        self._exchange.flush()
        elapsed = now - self._counted_at
        steady = self._steadiness.add((self._messages() - self._counted) / elapsed)
        self._start_window(now)
        if steady or now >= self._warm_until:
            self._steadiness = None
            say("steady", steady=steady, seconds=now - self._warm_from)

    def _messages(self) -> int:
        return self._total + self._exchange.observed

    # -- the measured window

    def _watch_window(self, now: float) -> None:
        edge = self._measure[0] if self._measure else None
        if edge is None or now < edge:
            return
        self._measure.popleft()
        if self._window is None:
            self._sample(now)
            self._window = Recorder(self._exchange.fds, self._exchange.scheduled)
            self._window_from, self._cpu_from = now, time.process_time()
        else:
            self._end_window(now)

    def _end_window(self, now: float) -> None:
        self._sample(now)
        window, self._window = self._window, None
        assert window is not None
        say(
            "measured",
            **{"from": self._window_from, "until": now},
            **report(window),
            cpu_seconds=time.process_time() - self._cpu_from,
            fairness=fairness(window.served[self._exchange.active].tolist()),
        )

    def _sample(self, now: float) -> None:
        recorder = self._exchange.collect()
        self._total += recorder.messages
        if self._window is not None:
            self._window.add(recorder)
        say("sample", **{"from": self._from, "until": now}, **report(recorder))
        self._from = now


def report(recorder: Recorder) -> dict[str, Any]:
    """A recorder's part of a line."""
    return {
        "messages": recorder.messages,
        "service": recorder.service.to_json(),
        "intended": recorder.intended.to_json() if recorder.intended is not None else None,
        "errors": dict(recorder.errors),
    }


def say(event: str, **what: Any) -> None:
    """Write one line to stdout."""
    print(json.dumps({"event": event, **what}), flush=True)


def drive(config: Config, orders: Orders) -> None:
    """Open the connections, drive them until stdin ends, close them.  Raises Failed."""
    check_fds(config.connections)
    started = time.monotonic()
    with create_poller(config.poller) as poller:
        probe = payloads(min(config.size, 4096), config.seed)[0]
        try:
            address = resolve(config.url)
            sockets = Connector(
                poller, address, Sources(address[0]), config.connections, probe
            ).run(config.connect_timeout)
        except (CannotConnect, ValueError) as error:
            raise Failed(str(error)) from error
        slots = active_slots(config.connections, config.active)
        say(
            "connected",
            connections=len(sockets),
            active=len(slots),
            poller=poller.name,
            seconds=time.monotonic() - started,
        )
        common = poller, sockets, slots, config.size, config.seed
        exchange: Exchange
        if config.pipeline == 1 and not config.rate:
            exchange = Exchange(*common)
        else:
            start = time.monotonic_ns() + int(LEAD * 1e9)
            schedule = Schedule(config.rate, len(slots), start) if config.rate and slots else None
            exchange = Pipeline(*common, depth=config.pipeline, schedule=schedule)
        try:
            Swarm(exchange, orders, config.reply_timeout).run()
        finally:
            exchange.close()
    say("done")


def main() -> int:
    """Read the configuration and run; the exit code is 1 where the swarm could not."""
    orders = Orders(sys.stdin.fileno())
    try:
        first: list[dict[str, Any]] = []
        while not first and not orders.ended:
            first = orders.take()  # blocks, as stdin still does
        os.set_blocking(sys.stdin.fileno(), False)
        if not first:
            raise Failed("no configuration on stdin: Locust's EchoSwarm starts this process")
        drive(Config(**first[0]), orders)
    except Failed as error:
        say("failed", why=str(error))
        return 1
    except BrokenPipeError:  # the parent is gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
