"""A block of connections on one poller: what every exchange has, whatever goes to and fro.

What this file is
-----------------
The hot path belongs to each exchange (_exchange.py, _file_exchange.py) and is written out there,
as a call costs more than what it would do.  Here is the rest: counting, what does not fit into a
socket at once, failures, and the end.
"""

from __future__ import annotations

import abc
import os
import socket
from collections import Counter
from time import monotonic_ns
from typing import Any, Final, Self

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
#: The largest read (bytes).
READ: Final = 256 << 10

#: Errors by kind, as they are reported.
CLOSED: Final = "closed by the server"
WRONG: Final = "wrong bytes"


class Recorder:
    """What was observed since it was made."""

    def __init__(self, fds: int, scheduled: bool = False) -> None:
        self.messages = 0
        self.service = Histogram()
        self.intended = Histogram() if scheduled else None
        self.errors: Counter[str] = Counter()
        self.served: NDArray[np.int64] = np.zeros(fds, dtype=np.int64)

    def add(self, other: Self) -> None:
        """Count everything that `other` has counted."""
        self.messages += other.messages
        self.service.add(other.service)
        if self.intended is not None and other.intended is not None:
            self.intended.add(other.intended)
        self.errors.update(other.errors)
        self.served += other.served

    def as_dict(self) -> dict[str, Any]:
        """What a sample's line holds of it."""
        return {
            "messages": self.messages,
            "service": self.service.to_json(),
            "intended": self.intended.to_json() if self.intended is not None else None,
            "errors": dict(self.errors),
        }


class Block(abc.ABC):
    """Connections that are open and registered for POLLIN, some of them active."""

    scheduled = False
    #: What a connection waits for.
    awaited = "answer"

    def __init__(self, poller: Poller, sockets: list[socket.socket], active: list[int]) -> None:
        self.poller = poller
        self._sockets = {sock.fileno(): sock for sock in sockets}
        self.fds = max(self._sockets, default=0) + 1
        self.active = [sockets[slot].fileno() for slot in active]
        self._waiting = self.active[::-1]
        #: When the message under way was sent (ns).
        self._sent: list[int] = [0] * self.fds
        self._unsent: dict[int, bytes] = {}
        self._latencies: list[int] = []
        self._answered: list[int] = []
        self._recorder: Recorder = self.recorder()

    def recorder(self) -> Recorder:
        """An empty one."""
        return Recorder(self.fds, self.scheduled)

    @property
    def open(self) -> int:
        """How many of the active connections are open."""
        return sum(fd in self._sockets for fd in self.active)

    @property
    def observed(self) -> int:
        """Messages counted since the last `collect`, as of the last `flush`."""
        return self._recorder.messages

    @abc.abstractmethod
    def turn(self, timeout: float) -> None:
        """Take one poll()'s events and answer each with the next message."""

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
        done, self._recorder = self._recorder, self.recorder()
        return done

    def expire(self, longest: float) -> None:
        """Give up connections that have waited more than `longest` seconds for an answer."""
        oldest = monotonic_ns() - int(longest * 1e9)
        sent = self._sent
        for fd in [fd for fd in self.active if sent[fd] < oldest and self._under_way(fd)]:
            self._lose(fd, f"no {self.awaited} within {longest:g} s")

    def close(self) -> None:
        """Close every connection by RST."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    # -- what each exchange does in its own way

    @abc.abstractmethod
    def _under_way(self, fd: int) -> bool:
        """Whether an answer is awaited on `fd`."""

    @abc.abstractmethod
    def _send(self, fd: int, now: int) -> None:
        """Send the next message."""

    @abc.abstractmethod
    def _receive(self, fd: int) -> None:
        """Read what there is, off the hot path.  Raises OSError."""

    # -- what is alike

    def _send_first(self) -> None:
        for fd in self._waiting[: -FIRST - 1 : -1]:
            if fd in self._sockets:
                self._send(fd, monotonic_ns())
        del self._waiting[-FIRST:]

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
                self._receive(fd)
            except OSError as error:
                self._failed(fd, error)

    def _failed(self, fd: int, error: OSError) -> None:
        if not isinstance(error, BlockingIOError):
            self._lose(fd, error.strerror or str(error))

    def _lose(self, fd: int, why: str) -> None:
        """Close a connection for good and count the reason."""
        self._recorder.errors[why] += 1
        self._unsent.pop(fd, None)
        self.poller.unregister(fd)
        self._sockets.pop(fd).close()
