"""The registries whose adapters the skip matrix has a row for, and whose test is whose.

A test is about an adapter when one of its parameters names it: by the name alone, or as a server's
command line (serverprocess.Combination).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from serverprocess import Combination
from skipmatrix import Kind

import pollers
from pollers import watch
from pollers.system import HAS_SPLICE
from servers.cli import LOOPS
from servers.echo.options import BACKENDS as ECHO
from servers.file.options import BACKENDS as FILE

#: The fixtures whose parameter is a poller's name.
POLLERS = ("adapter", "any_poller")


def kinds() -> Sequence[Kind]:
    """Every kind, in the order of the table."""
    return [
        Kind("poller", pollers.names(), pollers.expected_names(), _poller),
        Kind("loop", LOOPS, LOOPS, _loop),
        Kind("echo backend", [*ECHO], _possible(ECHO), _echo_backend),
        Kind("file backend", [*FILE], _possible(FILE), _file_backend),
        Kind("watcher", watch.names(), watch.expected_names(), _watcher),
    ]


def _possible(backends: Iterable[str]) -> list[str]:
    """The backends that this system should have: some stand on what only one kernel has."""
    aio = "aio" in pollers.expected_names()
    lacking = {"splice": not HAS_SPLICE, "aio": not aio, "batch": not aio}
    return [name for name in backends if not lacking.get(name, False)]


def _poller(item: pytest.Item, fixture: str, value: Any) -> Iterable[str]:
    if isinstance(value, Combination):
        return [value.poller] if value.poller else []
    return [value] if fixture in POLLERS and item.path.parent.name != "watch" else []


def _loop(item: pytest.Item, fixture: str, value: Any) -> Iterable[str]:
    return [value.loop] if isinstance(value, Combination) else []


def _echo_backend(item: pytest.Item, fixture: str, value: Any) -> Iterable[str]:
    echo = isinstance(value, Combination) and item.path.parent.name == "echo"
    return [value.backend] if echo else []


def _file_backend(item: pytest.Item, fixture: str, value: Any) -> Iterable[str]:
    file = isinstance(value, Combination) and item.path.parent.name == "file"
    return [value.backend] if file else []


def _watcher(item: pytest.Item, fixture: str, value: Any) -> Iterable[str]:
    return [value] if item.path.parent.name == "watch" and isinstance(value, str) else []
