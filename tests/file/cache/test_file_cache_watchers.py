"""The cache over every watcher of pollers.watch: what was reported is never served old."""

from __future__ import annotations

import os
import select
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filecache import (
    STEPS,
    Clock,
    content,
    no_more_fds,
    overflow,
    replace,
    serve_what_is_there,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pollers import watch
from pollers.watch import Capability
from servers.file.cache import WATCHED_EVERY, FileCache
from servers.file.changes import EVERYTHING, Changes
from servers.file.root import Root
from servers.file.sources import WatcherSource

PATIENCE = 15.0


@pytest.fixture
def changes(watcher: str, root: Root) -> Iterator[Changes]:
    with Changes(root, source=WatcherSource(watcher, root)) as changes:
        assert changes.name == watcher
        yield changes


@pytest.fixture
def cache(root: Root, changes: Changes, clock: Clock) -> Iterator[FileCache]:
    cache = FileCache(root, changes, clock=clock)
    yield cache
    cache.close()


def until_new(cache: FileCache, changes: Changes, path: bytes, wanted: bytes) -> None:
    """Read changes until the file is the new one; at once, where the watcher is prompt."""
    deadline = time.monotonic() + PATIENCE
    prompt = Capability.PROMPT in watch.probe(changes.name).capabilities
    cache.read_changes()
    while content(cache.open(path)) != wanted:
        assert not prompt, "reported late"
        left = deadline - time.monotonic()
        assert left > 0, "not reported"
        select.select([changes], [], [], left)
        cache.read_changes()


def test_replaced_is_new_once_it_is_reported(
    cache: FileCache, changes: Changes, site: Path
) -> None:
    for number in range(20):
        for path in "file", "a/file":
            cache.open(path.encode())
            assert cache.covered(path.encode())
            replace(site / path, b"%d" % number)
            until_new(cache, changes, path.encode(), b"%d" % number)


def test_written_in_place_is_new(cache: FileCache, changes: Changes, site: Path) -> None:
    cache.open(b"file")
    (site / "file").write_bytes(b"longer")
    until_new(cache, changes, b"file", b"longer")


def test_a_directory_that_was_replaced_is_new(
    cache: FileCache, changes: Changes, site: Path
) -> None:
    for number in range(5):
        cache.open(b"a/file")
        (site / "next").mkdir()
        (site / "next" / "file").write_bytes(b"%d" % number)
        (site / "a").rename(site / "was")
        (site / "next").rename(site / "a")
        until_new(cache, changes, b"a/file", b"%d" % number)
        shutil.rmtree(site / "was")
        cache.read_changes()
    replace(site / "a" / "file", b"last")
    until_new(cache, changes, b"a/file", b"last")


def test_a_file_that_was_moved_in_is_new(cache: FileCache, changes: Changes, site: Path) -> None:
    """And what happens behind a file that was moved out is known at once as well."""
    cache.open(b"file")
    (site / "a" / "file").rename(site.parent / "away")
    replace(site / "file", b"behind")
    until_new(cache, changes, b"file", b"behind")


def test_a_request_does_not_look_at_a_watched_file(
    cache: FileCache, site: Path, clock: Clock
) -> None:
    """Shown by changes that are not read: it would have seen them."""
    file = cache.open(b"a/file")
    replace(site / "a" / "file", b"new")
    for _ in range(9):
        clock.advance(WATCHED_EVERY / 10)
        assert cache.open(b"a/file") is file


def test_the_root_may_be_renamed(cache: FileCache, changes: Changes, site: Path) -> None:
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("a watcher goes by the root's path here")
    cache.open(b"a/file")
    site.rename(site.with_name("moved"))
    cache.read_changes()
    cache.open(b"a/file")
    replace(site.with_name("moved") / "a" / "file", b"new")
    until_new(cache, changes, b"a/file", b"new")


def test_an_overflow_is_no_reason_to_be_old(
    cache: FileCache, changes: Changes, site: Path
) -> None:
    if Capability.OVERFLOW not in watch.probe(changes.name).capabilities:
        pytest.skip(f"{changes.name} cannot fall behind")
    cache.open(b"a/file")
    overflow(site)
    replace(site / "a" / "file", b"lost")
    while cache.read_changes() is EVERYTHING:  # fanotify has few: equal ones are one
        pass
    assert content(cache.open(b"a/file")) == b"lost"
    replace(site / "a" / "file", b"new")
    until_new(cache, changes, b"a/file", b"new")


def test_without_descriptors_nothing_old_is_served_either(
    cache: FileCache, changes: Changes, site: Path
) -> None:
    """What the watcher cannot look at may have changed."""
    cache.open(b"a/file")
    replace(site / "a" / "file", b"new")
    with no_more_fds():
        assert select.select([changes], [], [], PATIENCE)[0]
        cache.read_changes()
    until_new(cache, changes, b"a/file", b"new")
    replace(site / "a" / "file", b"newer")
    until_new(cache, changes, b"a/file", b"newer")


@pytest.mark.parametrize("name", watch.names())
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, min_size=15, max_size=30))
def test_after_any_changes_it_serves_what_is_there(
    name: str, steps: list[tuple[str, ...]]
) -> None:
    found = watch.probe(name) if name not in _known else _known[name]
    _known[name] = found
    if not found.available or Capability.PROMPT not in found.capabilities:
        pytest.skip(found.reason or f"{name} does not tell at once")
    serve_what_is_there(
        steps, lambda root: Changes(root, limit=4, source=WatcherSource(name, root))
    )


_known: dict[str, watch.Availability] = {}
