"""The servers that the echo tests run over: every loop, poller and backend.

A poller that this platform should have and that does not work fails every test of it; one that
this platform does not have is skipped with the probe's reason.  The other loops are dependencies
of the package: one that is missing fails by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from serving import COMBINATIONS, Combination, EchoServer, serving

import pollers
from pollers.system import HAS_SPLICE

probe = functools.cache(pollers.probe)


def require(combination: Combination) -> None:
    """Fail or skip where the combination does not work here."""
    if combination.poller is None:
        return
    found = probe(combination.poller)
    if not found.available:
        if found.expected:
            pytest.fail(f"this platform should have it, but: {found.reason}", pytrace=False)
        pytest.skip(found.reason)
    if combination.backend == "splice" and not HAS_SPLICE:
        pytest.skip("this system has no splice(2)")


@pytest.fixture(params=COMBINATIONS, ids=str, scope="module")
def combination(request: pytest.FixtureRequest) -> Combination:
    """Each one that works here."""
    require(request.param)
    assert isinstance(request.param, Combination)
    return request.param


@contextmanager
def _quiet(server: EchoServer) -> Iterator[EchoServer]:
    """The server, which must afterwards end cleanly and have nothing to complain about."""
    try:
        yield server
        final = server.stop()
        assert final["open"] == 0, final
        assert final["accepted"] == final["closed"], final
    finally:
        server.kill()


@pytest.fixture(scope="module")
def server(combination: Combination) -> Iterator[EchoServer]:
    """One server of each combination for all tests of a module."""
    with _quiet(EchoServer(*combination.words)) as server:
        yield server


@pytest.fixture
def start(combination: Combination) -> Iterator[Callable[..., EchoServer]]:
    """Starts servers of each combination, with further options, for one test."""
    with ExitStack() as stack:

        def start(*words: str, nofile: int | None = None) -> EchoServer:
            return stack.enter_context(serving(*combination.words, *words, nofile=nofile))

        yield start
