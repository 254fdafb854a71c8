"""What watches hold of the process's descriptors: never what connections need."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from filecache import Clock, content, replace
from leaks import open_fds

from pollers.limits import CONNECTIONS, OTHER_FDS
from pollers.watch import Price
from servers.file.cache import UNWATCHED_EVERY, FileCache
from servers.file.changes import EVERYTHING, SHARE, Change, Changes, spare
from servers.file.root import Root
from servers.file.sources import News, WatcherSource

#: A process's limit, which is too low for all connections.
LOW = 512


@contextlib.contextmanager
def limited(limit: int) -> Iterator[None]:
    """Have another limit of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_low_limit_is_left_to_connections(
    watcher: str, root: Root, site: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many directories are asked for; those beyond are looked at once a second."""
    # No directory with many names: kqueue holds each of them open.
    paths = [f"{number // 8}/d{number}/file".encode() for number in range(LOW // SHARE)]
    for path in paths:
        (site / os.fsdecode(path)).parent.mkdir(parents=True)
        (site / os.fsdecode(path)).write_bytes(b"old")
    with limited(LOW):
        before = len(open_fds())
        with Changes(root, source=WatcherSource(watcher, root)) as changes:
            own = len(open_fds()) - before
            cache = FileCache(root, changes, capacity=16, clock=clock)
            assert [content(cache.open(path)) for path in paths] == [b"old"] * len(paths)
            held = len(open_fds()) - before - len(cache)
            costly = changes._source._watcher.price != Price()
            assert held - own <= (LOW // SHARE * 3 // 4 if costly else 0)
            last = cache.open(paths[-1])
            assert last.watched is not costly
            replace(site / os.fsdecode(paths[-1]), b"newer")
            if costly:
                clock.advance(UNWATCHED_EVERY)
                assert content(cache.open(paths[-1])) == b"newer"
            cache.close()
    said = capsys.readouterr().err
    assert said.count("ulimit -n") == costly
    assert said.count("\n") == costly


@pytest.mark.parametrize(
    ("limit", "needed", "left"),
    [
        (1024, CONNECTIONS, 1024 // SHARE),
        (20_000, CONNECTIONS, 20_000 - CONNECTIONS - OTHER_FDS),
        (20_000, 100, 20_000 - 100 - OTHER_FDS),
    ],
)
def test_what_is_spare(
    monkeypatch: pytest.MonkeyPatch, limit: int, needed: int, left: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, resource.RLIM_INFINITY))
    assert spare(needed) == left


def test_without_a_limit_all_is_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda which: (endless, endless))
    assert spare(CONNECTIONS) > 2**60


class Names:
    """A source that holds a descriptor for each directory and each name, as a kqueue does."""

    name = "names"

    def __init__(self, root: Root, site: Path) -> None:
        self._site = site
        self.watched: set[bytes] = set()
        self.news: list[News] = []

    def watch(self, path: bytes, fd: int) -> None:
        self.watched.add(path)

    def unwatch(self, path: bytes) -> None:
        self.watched.remove(path)

    def holds(self) -> int:
        return sum(1 + len(os.listdir(self._site / os.fsdecode(path))) for path in self.watched)

    def takes(self, fd: int, most: int) -> int:
        return 1 + len(os.listdir(f"/proc/self/fd/{fd}"))

    def read(self) -> list[News] | None:
        news, self.news = self.news, []
        return news

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.watched.clear()


@pytest.fixture
def names(root: Root, site: Path) -> Iterator[tuple[Names, Changes]]:
    """A site that may hold 24 descriptors, 18 for what is there already: the root takes 3."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("names are counted by /proc here")
    source = Names(root, site)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("servers.file.changes.spare", lambda needed: 24)
        changes = Changes(root, source=source)
    with changes:
        yield source, changes


def fill(directory: Path, count: int) -> None:
    for number in range(count):
        (directory / f"n{number}").touch()


def test_a_directory_that_is_too_large_leaves_room_for_others(
    names: tuple[Names, Changes], site: Path
) -> None:
    source, changes = names
    for name, count in ("large", 20), ("small", 5):
        (site / name).mkdir()
        fill(site / name, count)
    assert not changes.cover(b"large")
    assert changes.cover(b"small")
    assert source.watched == {b"", b"small"}


def test_names_that_come_may_take_the_rest_and_no_more(
    names: tuple[Names, Changes], site: Path
) -> None:
    """Then all watches end, and begin anew where they find room."""
    source, changes = names
    assert changes.cover(b"a/b")
    fill(site / "a", 10)
    assert source.holds() == 17
    fill(site / "a" / "b", 7)
    source.news = [News(b"a/b", b"n6", False)]
    assert Change(b"a/b/n6") in changes.read()
    fill(site, 1)
    source.news = [News(b"", b"n0", False)]
    assert changes.read() is EVERYTHING
    assert source.watched == set()
    assert changes.cover(b"a")
    assert not changes.cover(b"a/b")


@pytest.mark.parametrize(
    ("price", "most", "taken"),
    [
        (Price(), 100, 0),
        (Price(root=1), 100, 1),
        (Price(1, 1), 100, 5),
        (Price(2, 2), 100, 10),
        (Price(1, 1), 1, 2),
    ],
)
def test_what_a_watch_takes(root: Root, site: Path, price: Price, most: int, taken: int) -> None:
    """Of a directory with three names, of which no more are counted than matter."""
    fill(site, 1)
    source = WatcherSource("stat", root)
    source._watcher.price = price
    fd = os.open(site, os.O_RDONLY)
    try:
        assert source.takes(fd, most) == taken
    finally:
        os.close(fd)
        source.close()
