"""The servers that the file tests run over: every loop, poller and backend (see `require`).

Backend aio reads with O_DIRECT, which not every file system has: where the one below pytest's
temporary directory has not, it is skipped with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fileserving import (
    COMBINATIONS,
    Combination,
    FileServer,
    build,
    quiet,
    require,
    serving_files,
)


@pytest.fixture(scope="session")
def no_direct_io(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Why files here cannot be read with O_DIRECT; empty where they can."""
    from pollers.aio.direct import open_direct

    with open(tmp_path_factory.mktemp("direct") / "probe", "w+b") as probe:
        probe.write(bytes(4096))
        probe.flush()
        try:
            open_direct(probe.fileno()).close()
        except OSError as error:
            return str(error)
    return ""


@pytest.fixture(params=COMBINATIONS, ids=str, scope="module")
def combination(request: pytest.FixtureRequest, no_direct_io: str) -> Combination:
    """Each one that works here."""
    require(request.param)
    assert isinstance(request.param, Combination)
    if request.param.backend == "aio" and no_direct_io:
        pytest.skip(no_direct_io)
    return request.param


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document root of `build`, which no test changes."""
    directory = tmp_path_factory.mktemp("root")
    build(directory)
    return directory


@pytest.fixture(scope="module")
def server(combination: Combination, root: Path) -> Iterator[FileServer]:
    """One server of each combination for all tests of a module."""
    with quiet(FileServer(root, *combination.words)) as server:
        yield server


@pytest.fixture
def start(combination: Combination) -> Iterator[Callable[..., FileServer]]:
    """Starts servers of each combination for a root, with further options, for one test."""
    with ExitStack() as stack:

        def start(root: Path | str, *words: str, nofile: int | None = None) -> FileServer:
            return stack.enter_context(
                serving_files(root, *combination.words, *words, nofile=nofile)
            )

        yield start
