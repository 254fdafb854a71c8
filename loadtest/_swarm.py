"""The helper process of one swarm user: `python -m loadtest._swarm`.

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
from typing import Any, Final

from loadtest._block import Block, Recorder
from loadtest._connect import CannotConnect
from loadtest._schedule import WINDOWS, Steadiness, active_slots, fairness
from loadtest._swarm_config import Config, Failed, create_poller, make_load

#: Seconds between looks at stdin and at the clock.
TICK: Final = 0.005
#: Seconds between samples.
SAMPLE: Final = 1.0
#: Seconds of one window of the slope test, at most; a short warm-up has shorter ones, so that it
#: holds the WINDOWS that the test needs, and some more to try again.
WINDOW: Final = 0.1
TRIES: Final = WINDOWS + 4


class Orders:
    """Lines from stdin, without blocking."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self._kept: list[dict[str, Any]] = []
        self.ended = False

    def take(self) -> list[dict[str, Any]]:
        """The commands that have come since the last call."""
        taken, self._kept = self._kept, []
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return taken
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return taken + [json.loads(line) for line in lines]

    def first(self) -> dict[str, Any] | None:
        """Wait for the first line; None where none comes.  What came with it is kept."""
        while not self._kept and not self.ended:
            self._kept = self.take()  # blocks, as stdin still does
        return self._kept.pop(0) if self._kept else None


class Swarm:
    """The connections, driven until stdin ends."""

    def __init__(self, exchange: Block, orders: Orders, reply_timeout: float) -> None:
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
            self._window = self._exchange.recorder()
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
            **window.as_dict(),
            cpu_seconds=time.process_time() - self._cpu_from,
            fairness=fairness(window.served[self._exchange.active].tolist()),
        )

    def _sample(self, now: float) -> None:
        recorder = self._exchange.collect()
        self._total += recorder.messages
        if self._window is not None:
            self._window.add(recorder)
        say("sample", **{"from": self._from, "until": now}, **recorder.as_dict())
        self._from = now


def say(event: str, **what: Any) -> None:
    """Write one line to stdout."""
    print(json.dumps({"event": event, **what}), flush=True)


def drive(config: Config, orders: Orders) -> None:
    """Open the connections, drive them until stdin ends, close them.  Raises Failed."""
    started = time.monotonic()
    load = make_load(config)
    with create_poller(config.poller) as poller:
        try:
            sockets = load.connect(poller)
            slots = active_slots(config.connections, config.active)
            exchange = load.exchange(poller, sockets, slots)
        except (CannotConnect, ValueError) as error:
            raise Failed(str(error)) from error
        say(
            "connected",
            connections=len(sockets),
            active=len(slots),
            poller=poller.name,
            seconds=time.monotonic() - started,
        )
        try:
            Swarm(exchange, orders, config.reply_timeout).run()
        finally:
            exchange.close()
    say("done")


def main() -> int:
    """Read the configuration and run; the exit code is 1 where the swarm could not."""
    orders = Orders(sys.stdin.fileno())
    try:
        first = orders.first()
        os.set_blocking(sys.stdin.fileno(), False)
        if first is None:
            raise Failed("no configuration on stdin: Locust's swarm users start this process")
        drive(Config(**first), orders)
    except Failed as error:
        say("failed", why=str(error))
        return 1
    except BrokenPipeError:  # the parent is gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
