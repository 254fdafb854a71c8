"""The watchers that the contract tests run over.

One that this platform should have and that does not work fails every test of it; one that this
platform does not have is skipped with the probe's reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from adapters import available, probe

from pollers import watch
from pollers.watch import Watcher


@pytest.fixture(scope="session", autouse=True)
def _probed() -> None:
    """Have what libkqueue keeps for the whole process made before the first test."""
    probe("kqueue")


@pytest.fixture(params=watch.names())
def adapter(request: pytest.FixtureRequest) -> str:
    """The name of each watcher that works here."""
    available(request.param)
    return str(request.param)


@pytest.fixture
def make(adapter: str) -> Iterator[Callable[[], Watcher]]:
    """Makes watchers of the adapter, which are closed after the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(available(adapter)())


@pytest.fixture
def watcher(make: Callable[[], Watcher]) -> Watcher:
    """A watcher of each adapter that works here."""
    return make()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory to be watched; beside it is `outside`, which is not."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"
