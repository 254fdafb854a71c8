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
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

from loadtest._block import CLOSED, EVENTS, GATHER, READ, WRONG, Block
from pollers.base import POLLIN, Poller

#: Different payloads, and the most memory (bytes) that they may take.
PAYLOADS: Final = 1021
PAYLOAD_MEMORY: Final = 16 << 20


def payloads(size: int, seed: int) -> list[bytes]:
    """Random messages of `size` bytes.

    They are used in turn by all connections, so that neighbours in time and in number carry
    different ones: an echo that went to the wrong connection, or came twice, is seen.
    """
    source = random.Random(seed)
    return [source.randbytes(size) for _ in range(max(3, min(PAYLOADS, PAYLOAD_MEMORY // size)))]


class Exchange(Block):
    """One message in flight on each active connection, the next as soon as it is answered."""

    awaited = "echo"

    def __init__(
        self, poller: Poller, sockets: list[socket.socket], active: list[int], size: int, seed: int
    ) -> None:
        super().__init__(poller, sockets, active)
        self.size = size
        self._take: Callable[[], bytes] = itertools.cycle(payloads(size, seed)).__next__
        #: What each fd is still to receive; None where nothing is under way.
        self._due: list[bytes | None] = [None] * self.fds
        self._room = min(size + 1, READ)

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

    def _under_way(self, fd: int) -> bool:
        return self._due[fd] is not None

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

    def _receive(self, fd: int) -> None:
        self._piece(fd, os.read(fd, self._room))

    def _lose(self, fd: int, why: str) -> None:
        self._due[fd] = None
        super()._lose(fd, why)
