"""Several messages in flight on a connection, and messages sent at fixed times.

What this file is
-----------------
The general exchange: up to `depth` messages in flight on each active connection, in a closed loop
or by a `Schedule`.  It costs a few microseconds a message more than the plain closed loop of
_exchange.py, which has no queue.

By a schedule a connection sends when its next message is due *and* fewer than `depth` are in
flight.  A message that had to wait keeps the time at which it was meant to go.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from dataclasses import dataclass
from time import monotonic_ns
from typing import Final

from loadtest._block import CLOSED, EVENTS, GATHER, READ, WRONG
from loadtest._exchange import Exchange
from loadtest._schedule import Schedule
from pollers.base import POLLIN, Capability, Poller

#: Below this (seconds) a wait is spun through where the poller's timeouts are milliseconds.
SPIN: Final = 0.001
#: The shortest wait (seconds) otherwise: about what a sleeping thread is late by anyway (Linux's
#: timer slack is 50 us), and enough that a fast schedule is sent a few messages at a time.
NAP: Final = 0.0001


@dataclass(slots=True)
class Flight:
    """One active connection: its slot, how many messages it sent, and those under way."""

    slot: int
    turns: int
    #: (payload, sent, intended) of each, the oldest first.
    queue: deque[tuple[bytes, int, int]]


class Pipeline(Exchange):
    """Up to `depth` messages in flight on each active connection, by `schedule` if any."""

    def __init__(
        self,
        poller: Poller,
        sockets: list[socket.socket],
        active: list[int],
        size: int,
        seed: int,
        *,
        depth: int,
        schedule: Schedule | None,
    ) -> None:
        self.scheduled = schedule is not None
        super().__init__(poller, sockets, active, size, seed)
        self.schedule = schedule
        self._depth = depth
        self._room = min(size * depth + 1, READ)
        self._precise = bool(poller.capabilities & Capability.SUBMILLISECOND)
        self._flights = {fd: Flight(slot, 0, deque()) for slot, fd in enumerate(self.active)}
        self._late: list[int] = []
        if schedule is not None:
            self._waiting = []  # nothing is sent before its time

    def turn(self, timeout: float) -> None:
        if self.schedule is not None:
            timeout = min(timeout, self._send_due(self.schedule))
        elif self._waiting:
            self._send_first()
            timeout = 0
        for fd, bits in self.poller.poll(timeout, EVENTS):
            if bits != POLLIN:
                self._uncommon(fd, bits)
                continue
            try:
                data = os.read(fd, self._room)
            except OSError as error:
                self._failed(fd, error)
                continue
            self._piece(fd, data)
        if len(self._latencies) > GATHER:
            self.flush()

    def flush(self) -> None:
        if self._recorder.intended is not None:
            self._recorder.intended.record(self._late)
        self._late.clear()
        super().flush()

    def expire(self, longest: float) -> None:
        oldest = monotonic_ns() - int(longest * 1e9)
        for fd, flight in self._flights.items():
            if fd in self._sockets and flight.queue and flight.queue[0][1] < oldest:
                self._lose(fd, f"no echo within {longest:g} s")

    def _send_due(self, schedule: Schedule) -> float:
        """Send what has become due; return the seconds until more does."""
        now = monotonic_ns()
        for number in schedule.due(now):
            turn, slot = divmod(number, schedule.slots)
            fd = self.active[slot]
            # A connection that is behind goes on by itself when its echo comes.
            if self._flights[fd].turns == turn and fd in self._sockets:
                self._refill(fd, now)
        wait = schedule.wait(monotonic_ns())
        if self._precise:
            return max(wait, NAP) if wait else 0.0
        return wait if wait > SPIN else 0.0

    def _send(self, fd: int, now: int) -> None:
        self._refill(fd, now)

    def _refill(self, fd: int, now: int) -> None:
        """Send as many messages as are due and may be in flight."""
        flight, schedule = self._flights[fd], self.schedule
        queue, out = flight.queue, []
        while len(queue) < self._depth:
            intended = now
            if schedule is not None:
                intended = schedule.intended(flight.slot, flight.turns)
                if intended > now:
                    break
            payload = self._take()
            queue.append((payload, now, intended))
            flight.turns += 1
            out.append(payload)
        if out:
            if self._due[fd] is None:
                self._due[fd] = out[0]
            self._write(fd, out[0] if len(out) == 1 else b"".join(out))

    def _piece(self, fd: int, data: bytes) -> None:
        now = monotonic_ns()
        if not data:
            self._lose(fd, CLOSED)
            return
        flight = self._flights.get(fd)
        while data:
            due = self._due[fd]
            if flight is None or due is None or not due.startswith(data[: len(due)]):
                self._lose(fd, WRONG)
                return
            if len(data) < len(due):
                self._due[fd] = due[len(data) :]
                break
            data = data[len(due) :]
            _, sent, intended = flight.queue.popleft()
            self._latencies.append(now - sent)
            self._answered.append(fd)
            if self.scheduled:
                self._late.append(now - intended)
            self._due[fd] = flight.queue[0][0] if flight.queue else None
        self._refill(fd, now)
