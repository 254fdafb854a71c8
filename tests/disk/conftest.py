"""Files and a reader, on the filesystem of pytest's temporary directory.

Where that has no direct I/O, everything here is skipped with its reason.  What needs AIO is
imported late: where there is none, the test modules are skipped, and this file must still load.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pollers.aio.disk import DirectFile, DiskReader


@pytest.fixture(scope="module", autouse=True)
def _direct_io(tmp_path_factory: pytest.TempPathFactory) -> None:
    from diskreads import opened

    path = tmp_path_factory.mktemp("probe") / "file"
    path.write_bytes(b"x")
    try:
        opened(path).close()
    except OSError as error:
        pytest.skip(f"{path.parent}: {error.strerror}")


@pytest.fixture(scope="module")
def content() -> bytes:
    return np.random.default_rng(1).bytes((1 << 20) + 3)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Path:
    """A file of 1 MiB + 3 that no test writes to."""

    path = tmp_path_factory.mktemp("disk") / "plain"
    path.write_bytes(content)
    return path


@pytest.fixture
def file(plain: Path) -> Iterator[DirectFile]:
    from diskreads import opened

    file = opened(plain)
    yield file
    file.close()


@pytest.fixture
def reader() -> Iterator[DiskReader]:
    from pollers.aio.disk import DiskReader

    with DiskReader(depth=8) as reader:
        yield reader
