"""A small document root, and caches of it: with a watcher, and without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from filecache import Clock

from pollers import inotify, watch
from servers.file.cache import FileCache
from servers.file.changes import Changes
from servers.file.root import Root


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "a" / "b").mkdir(parents=True)
    (site / "file").write_bytes(b"old")
    (site / "a" / "file").write_bytes(b"old")
    return site


@pytest.fixture
def root(site: Path) -> Iterator[Root]:
    with Root(str(site)) as root:
        yield root


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=watch.names())
def watcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of each watcher that works here; one that looks, looks often."""
    found = watch.probe(request.param)
    if not found.available:
        if found.expected:
            pytest.fail(f"this platform should have {found.name}, but: {found.reason}")
        pytest.skip(found.reason)
    monkeypatch.setattr("servers.file.sources.PERIOD", 0.02)
    return found.name


@pytest.fixture
def changes(root: Root) -> Iterator[Changes]:
    if inotify._init1 is None:
        pytest.skip("this system has no inotify")
    with Changes(root) as changes:
        yield changes


@pytest.fixture
def watched(root: Root, changes: Changes, clock: Clock) -> Iterator[FileCache]:
    """A cache with a watcher, whose clock stands still."""
    cache = FileCache(root, changes, clock=clock)
    yield cache
    cache.close()


@pytest.fixture
def unwatched(root: Root, clock: Clock) -> Iterator[FileCache]:
    """A cache without one."""
    cache = FileCache(root, None, clock=clock)
    yield cache
    cache.close()


@pytest.fixture(params=["watched", "unwatched"])
def cache(request: pytest.FixtureRequest) -> FileCache:
    found: FileCache = request.getfixturevalue(request.param)
    return found
