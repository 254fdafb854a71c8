"""What every test here is held to: nothing that it opened, started or spawned stays behind.

Warnings are errors by pyproject.toml, ResourceWarning among them, and a test that hangs is ended
by pytest-timeout.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from adapterkinds import kinds
from hypothesis import settings
from leaks import child_processes, open_fds, running_threads, until_none_left
from skipmatrix import SkipMatrix, add_option

import pollers

# A machine that is busy with something else takes longer than hypothesis's 200 ms for anything.
settings.register_profile("pollmark", deadline=None)
settings.load_profile("pollmark")


def pytest_addoption(parser: pytest.Parser) -> None:
    add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SkipMatrix(config, kinds), "skip-matrix")


@pytest.fixture(scope="session", autouse=True)
def _many_files() -> None:
    pollers.raise_nofile()


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    fds, threads, children = open_fds(), running_threads(), child_processes()
    yield
    left = [
        *(f"thread {name}" for name in until_none_left(running_threads, threads)),
        *(f"process {name}" for name in until_none_left(child_processes, children)),
    ]
    if open_fds() != fds:
        gc.collect()  # what only a reference cycle keeps open warns by itself
        now = open_fds()
        left += [f"fd {fd} -> {now[fd]}" for fd in now if now[fd] != fds.get(fd)]
        left += [f"fd {fd} (was {fds[fd]}) closed by the test" for fd in fds if fd not in now]
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)
