"""The adapters that the contract tests run over.

An adapter that this platform should have and that does not work fails every test of it; one that
this platform does not have is skipped with the probe's reason.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from expectations import Pair

import pollers
from pollers.base import Poller
from pollers.fake import FakePoller

#: Once for all tests: a poller of aio takes a while to close.
probe = functools.cache(pollers.probe)


def available(name: str) -> Callable[[], Poller]:
    """What makes the adapter `name`; fails or skips where that does not work here."""
    found = probe(name)
    if found.available:
        return lambda: pollers.create(name)
    if found.expected:
        pytest.fail(f"this platform should have {name}, but: {found.reason}", pytrace=False)
    pytest.skip(found.reason)


@pytest.fixture(scope="session", autouse=True)
def _probed() -> None:
    """Have what libkqueue keeps for the whole process made before the first test."""
    pollers.probe("kqueue")


@pytest.fixture(params=pollers.names())
def adapter(request: pytest.FixtureRequest) -> str:
    """The name of each adapter that works here."""
    available(request.param)
    return str(request.param)


@pytest.fixture
def make(adapter: str) -> Iterator[Callable[[], Poller]]:
    """Makes pollers of the adapter, which are closed after the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(pollers.create(adapter))


@pytest.fixture
def poller(make: Callable[[], Poller]) -> Poller:
    """A poller of each adapter that works here."""
    return make()


@pytest.fixture(params=[*pollers.names(), "fake"])
def any_poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    """The same and the fake, which has to keep the part of the contract that needs no kernel."""
    create = FakePoller if request.param == "fake" else available(request.param)
    with create() as poller:
        yield poller


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected stream sockets, non-blocking."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(end) for end in non_blocking(*socket.socketpair()))


@pytest.fixture
def tcp_pairs() -> Iterator[Callable[[], Pair]]:
    """Makes two ends of one TCP connection, non-blocking."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def connect() -> Pair:
            near = stack.enter_context(socket.create_connection(listener.getsockname()))
            far = stack.enter_context(listener.accept()[0])
            return non_blocking(near, far)

        yield connect


@pytest.fixture
def tcp(tcp_pairs: Callable[[], Pair]) -> Pair:
    """The two ends of one TCP connection, non-blocking."""
    return tcp_pairs()


def non_blocking(near: socket.socket, far: socket.socket) -> Pair:
    near.setblocking(False)
    far.setblocking(False)
    return near, far
