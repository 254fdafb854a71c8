"""Messages out, echoes back: the hot path of a swarm.

Facts about this loop
---------------------
*   A send(2) and a recv(2) of 64 bytes over loopback cost about 7 us together, as the sender's
    CPU does the receiver's kernel work.  The aim is that Python adds little: one read, one
    comparison, one clock, one write and three list operations a message.
*   os.read and os.write take the fd, so that no table of sockets is looked up.
*   Latencies go to a list, and to a histogram some thousands at a time.
*   What a connection is due to receive is kept as one bytes object.  An echo that comes in pieces
    shortens it; an echo that differs from it is an error, and the connection is closed.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections import Counter
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtest._histogram import Histogram
from pollers.base import POLLIN, POLLOUT, Poller

#: Events taken from one poll(): a turn then lasts about a millisecond.
EVENTS: Final = 128
#: Latencies gathered before they are counted.
GATHER: Final = 4096
#: First messages sent in one turn, so that a start does not starve the replies.
FIRST: Final = 256
#: Different payloads, and the most memory (bytes) that they may take.
PAYLOADS: Final = 1021
PAYLOAD_MEMORY: Final = 16 << 20
#: The largest read (bytes).
READ: Final = 256 << 10

#: Errors by kind, as they are reported.
CLOSED: Final = "closed by the server"
WRONG: Final = "wrong bytes"


def payloads(size: int, seed: int) -> list[bytes]:
    """Random messages of `size` bytes.

    They are used in turn by all connections, so that neighbours in time and in number carry
    different ones: an echo that went to the wrong connection, or came twice, is seen.
    """
    source = random.Random(seed)
    return [source.randbytes(size) for _ in range(max(3, min(PAYLOADS, PAYLOAD_MEMORY // size)))]


class Recorder:
    """What was observed since it was made."""

    def __init__(self, fds: int, scheduled: bool) -> None:
        self.messages = 0
        self.service = Histogram()
        self.intended = Histogram() if scheduled else None
        self.errors: Counter[str] = Counter()
        self.served: NDArray[np.int64] = np.zeros(fds, dtype=np.int64)

    def add(self, other: Recorder) -> None:
        """Count everything that `other` has counted."""
        self.messages += other.messages
        self.service.add(other.service)
        if self.intended is not None and other.intended is not None:
            self.intended.add(other.intended)
        self.errors.update(other.errors)
        self.served += other.served


class Exchange:
    """One message in flight on each active connection, the next as soon as it is answered."""

    scheduled = False

    def __init__(
        self, poller: Poller, sockets: list[socket.socket], active: list[int], size: int, seed: int
    ) -> None:
        self.poller = poller
        self.size = size
        self._sockets = {sock.fileno(): sock for sock in sockets}
        self.fds = max(self._sockets, default=0) + 1
        self.active = [sockets[slot].fileno() for slot in active]
        self._waiting = self.active[::-1]
        self._take: Callable[[], bytes] = itertools.cycle(payloads(size, seed)).__next__
        #: What each fd is still to receive; None where nothing is under way.
        self._due: list[bytes | None] = [None] * self.fds
        #: When the message under way was sent (ns).
        self._sent: list[int] = [0] * self.fds
        self._unsent: dict[int, bytes] = {}
        self._latencies: list[int] = []
        self._answered: list[int] = []
        self._room = min(size + 1, READ)
        self._recorder = Recorder(self.fds, self.scheduled)

    @property
    def open(self) -> int:
        """How many of the active connections are open."""
        return sum(fd in self._sockets for fd in self.active)

    @property
    def observed(self) -> int:
        """Messages counted since the last `collect`, as of the last `flush`."""
        return self._recorder.messages

    def turn(self, timeout: float) -> None:
        """Take one poll()'s events and answer each with the next message."""
        if self._waiting:
            self._send_first()
            timeout = 0
        read, write, clock = os.read, os.write, monotonic_ns
        due, sent, take = self._due, self._sent, self._take
        latency, answered = self._latencies.append, self._answered.append
        size, room = self.size, self._room
        for fd, bits in self.poller.poll(timeout, EVENTS):
            if bits != POLLIN:
                self._uncommon(fd, bits)
                continue
            try:
                data = read(fd, room)
            except OSError as error:
                self._failed(fd, error)
                continue
            if data != due[fd]:
                self._piece(fd, data)
                continue
            now = clock()
            latency(now - sent[fd])
            answered(fd)
            due[fd] = payload = take()
            sent[fd] = now
            try:
                count = write(fd, payload)
            except OSError as error:
                self._failed(fd, error)
                count = 0
            if count != size:
                self._blocked(fd, payload[count:])
        if len(self._latencies) > GATHER:
            self.flush()

    def flush(self) -> None:
        """Count the latencies that were gathered."""
        recorder = self._recorder
        recorder.messages += len(self._latencies)
        recorder.service.record(self._latencies)
        if self._answered:
            recorder.served += np.bincount(self._answered, minlength=self.fds)
        self._latencies.clear()
        self._answered.clear()

    def collect(self) -> Recorder:
        """What was observed since the last call."""
        self.flush()
        done, self._recorder = self._recorder, Recorder(self.fds, self.scheduled)
        return done

    def expire(self, longest: float) -> None:
        """Give up connections that have waited more than `longest` seconds for an echo."""
        oldest = monotonic_ns() - int(longest * 1e9)
        sent, due = self._sent, self._due
        for fd in [fd for fd in self.active if due[fd] is not None and sent[fd] < oldest]:
            self._lose(fd, f"no echo within {longest:g} s")

    def close(self) -> None:
        """Close every connection by RST."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _send_first(self) -> None:
        for fd in self._waiting[: -FIRST - 1 : -1]:
            if fd in self._sockets:
                self._send(fd, monotonic_ns())
        del self._waiting[-FIRST:]

    def _send(self, fd: int, now: int) -> None:
        payload = self._take()
        self._due[fd] = payload
        self._sent[fd] = now
        self._write(fd, payload)

    def _answer(self, fd: int) -> None:
        """A whole message came back, in pieces."""
        now = monotonic_ns()
        self._latencies.append(now - self._sent[fd])
        self._answered.append(fd)
        self._send(fd, now)

    def _piece(self, fd: int, data: bytes) -> None:
        """Something other than exactly the message that was due."""
        due = self._due[fd]
        if not data:
            self._lose(fd, CLOSED)
        elif due is None or not due.startswith(data):
            self._lose(fd, WRONG)
        elif len(data) < len(due):
            self._due[fd] = due[len(data) :]
        else:
            self._answer(fd)

    def _write(self, fd: int, data: bytes) -> None:
        """Send `data`, or as much of it as fits and the rest when there is room."""
        count = 0
        if fd not in self._unsent:
            try:
                count = os.write(fd, data)
            except OSError as error:
                self._failed(fd, error)
        if count < len(data):
            self._blocked(fd, data[count:])

    def _blocked(self, fd: int, rest: bytes) -> None:
        """Keep what did not fit until there is room, unless the connection was lost."""
        if fd in self._unsent:
            self._unsent[fd] += rest
        elif fd in self._sockets:
            self._unsent[fd] = rest
            self.poller.modify(fd, POLLIN | POLLOUT)

    def _uncommon(self, fd: int, bits: int) -> None:
        """Room to send, a hang-up, or an error, with or without something to read."""
        if bits & POLLOUT and fd in self._unsent:
            rest = self._unsent.pop(fd)
            self.poller.modify(fd, POLLIN)
            self._write(fd, rest)
        if bits & ~POLLOUT and fd in self._sockets:
            try:
                self._piece(fd, os.read(fd, self._room))
            except OSError as error:
                self._failed(fd, error)

    def _failed(self, fd: int, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self._lose(fd, error.strerror or str(error))

    def _lose(self, fd: int, why: str) -> None:
        """Close a connection for good and count the reason."""
        self._recorder.errors[why] += 1
        self._due[fd] = None
        self._unsent.pop(fd, None)
        self.poller.unregister(fd)
        self._sockets.pop(fd).close()
