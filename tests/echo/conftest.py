"""The servers that the echo tests run over: every loop, poller and backend (see `require`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from serving import COMBINATIONS, Combination, EchoServer, quiet, require, serving


@pytest.fixture(params=COMBINATIONS, ids=str, scope="module")
def combination(request: pytest.FixtureRequest) -> Combination:
    """Each one that works here."""
    require(request.param)
    assert isinstance(request.param, Combination)
    return request.param


@pytest.fixture(scope="module")
def server(combination: Combination) -> Iterator[EchoServer]:
    """One server of each combination for all tests of a module."""
    with quiet(EchoServer(*combination.words)) as server:
        yield server


@pytest.fixture
def start(combination: Combination) -> Iterator[Callable[..., EchoServer]]:
    """Starts servers of each combination, with further options, for one test."""
    with ExitStack() as stack:

        def start(*words: str, nofile: int | None = None) -> EchoServer:
            return stack.enter_context(serving(*combination.words, *words, nofile=nofile))

        yield start
