"""Random histories of registrations, writes, reads and closes, against a model of a few lines.

The model: a socket can be read while bytes wait in it or its peer is closed, and can be written
always (nothing here fills a buffer).  What is registered and ready has to be returned; what is not
registered must never be; what is registered and not ready may be returned once, not twice.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    rule,
    run_state_machine_as_test,
)

import pollers
from pollers import POLLIN, POLLOUT, READABLE, WRITABLE
from pollers.base import Poller

INTERESTS = st.sampled_from([POLLIN, POLLOUT, POLLIN | POLLOUT])


@dataclass(eq=False)
class Connection:
    near: socket.socket
    far: socket.socket
    waiting: int = 0
    ended: bool = False
    interest: int = 0
    fd: int = field(init=False)

    def __post_init__(self) -> None:
        self.fd = self.near.fileno()

    @property
    def expected(self) -> int:
        """The ready bits of which at least one has to come, or 0."""
        bits = 0
        if self.interest & POLLIN and (self.waiting or self.ended):
            bits |= READABLE
        if self.interest & POLLOUT:
            bits |= WRITABLE
        return bits


class History(RuleBasedStateMachine):
    """One poller and its connections; `make` is set by the test."""

    make: Callable[[], Poller]
    connections = Bundle("connections")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.poller = self.stack.enter_context(type(self).make())
        self.open: list[Connection] = []

    def teardown(self) -> None:
        self.stack.close()
        for connection in self.open:
            connection.near.close()
            connection.far.close()

    @rule(target=connections)
    def connect(self) -> Connection:
        near, far = socket.socketpair()
        near.setblocking(False)
        connection = Connection(near, far)
        self.open.append(connection)
        return connection

    @rule(connection=connections, interest=INTERESTS)
    def register(self, connection: Connection, interest: int) -> None:
        if connection.interest:
            with pytest.raises(FileExistsError):
                self.poller.register(connection.fd, interest)
        else:
            self.poller.register(connection.fd, interest)
            connection.interest = interest

    @rule(connection=connections, interest=INTERESTS)
    def modify(self, connection: Connection, interest: int) -> None:
        if connection.interest:
            self.poller.modify(connection.fd, interest)
            connection.interest = interest
        else:
            with pytest.raises(FileNotFoundError):
                self.poller.modify(connection.fd, interest)

    @rule(connection=connections)
    def unregister(self, connection: Connection) -> None:
        if connection.interest:
            self.poller.unregister(connection.fd)
            connection.interest = 0
        else:
            with pytest.raises(FileNotFoundError):
                self.poller.unregister(connection.fd)

    @rule(connection=connections)
    def peer_writes(self, connection: Connection) -> None:
        if not connection.ended:
            connection.far.send(b"x")
            connection.waiting += 1

    @rule(connection=connections)
    def peer_closes(self, connection: Connection) -> None:
        connection.far.close()
        connection.ended = True

    @rule(connection=connections)
    def read(self, connection: Connection) -> None:
        if connection.waiting:
            connection.waiting -= len(connection.near.recv(1))

    @rule(connection=consumes(connections), by_dup2=st.booleans())
    def close(self, connection: Connection, by_dup2: bool) -> None:
        """In the order of the contract; the next connect() gets the same number."""
        if connection.interest:
            self.poller.unregister(connection.fd)
        if by_dup2:  # the number names another file before it is free
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, connection.fd)
            os.close(null)
        connection.near.close()
        connection.far.close()
        self.open.remove(connection)

    @rule(max_events=st.integers(1, 3))
    def poll_a_few(self, max_events: int) -> None:
        """Leaves some of what is ready for later, wherever the adapter keeps that."""
        events = self.poller.poll(0, max_events)
        assert len(events) <= max_events
        assert {fd for fd, _ in events} <= {c.fd for c in self.open if c.interest}

    @rule()
    def wake(self) -> None:
        self.poller.wake()

    @rule()
    def poll_all(self) -> None:
        registered = {c.fd: c for c in self.open if c.interest}
        required = {fd: c.expected for fd, c in registered.items() if c.expected}
        seen: dict[int, int] = {}
        for _ in range(3 * (len(registered) + 1)):
            for fd, bits in self.poller.poll(0, max_events=2):
                assert fd in registered, f"fd {fd} is not registered"
                seen[fd] = seen.get(fd, 0) | bits
        # The kernel may complete an AIO poll from a work queue, a moment after it became true.
        deadline = time.monotonic() + 5
        while missing := [fd for fd, bits in required.items() if not seen.get(fd, 0) & bits]:
            assert time.monotonic() < deadline, f"no event of fds {missing}"
            seen |= dict(self.poller.poll(0.1))
        for _ in range(2):
            last = dict(self.poller.poll(0))
        assert last.keys() <= required.keys()


def test_random_histories(adapter: str) -> None:
    class OfThisAdapter(History):
        make = staticmethod(lambda: pollers.create(adapter))

    run_state_machine_as_test(
        OfThisAdapter,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
        ),
    )
