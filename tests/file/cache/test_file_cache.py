"""The open-file cache: what it hands out, and never more fds than it may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filecache import content, no_more_fds
from leaks import open_fds

from servers.file.cache import NEWEST, SHED, FileCache
from servers.file.root import Root

# What it hands out.


def test_a_file_is_opened_once(cache: FileCache) -> None:
    file = cache.open(b"a/file")
    assert (file.path, file.size, content(file)) == (b"a/file", 3, b"old")
    assert cache.open(b"a/file") is file
    assert len(cache) == 1


def test_what_it_says_of_a_file(cache: FileCache, site: Path) -> None:
    os.utime(site / "file", ns=(0, 5_999_999_999))
    file = cache.open(b"file")
    assert file.modified == 5
    assert file.etag.startswith('"')
    assert file.etag.endswith('"')
    assert all("!" <= character <= "~" for character in file.etag)
    assert '"' not in file.etag[1:-1]


@pytest.mark.parametrize(
    ("path", "error"),
    [(b"none", FileNotFoundError), (b"..", FileNotFoundError), (b"a", IsADirectoryError)],
)
def test_it_raises_as_the_root_does(cache: FileCache, path: bytes, error: type[OSError]) -> None:
    for _ in range(2):
        with pytest.raises(error):
            cache.open(path)
    assert len(cache) == 0


def test_what_was_missing_is_found_at_once(cache: FileCache, site: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cache.open(b"new")
    (site / "new").write_bytes(b"new")
    assert content(cache.open(b"new")) == b"new"


# Bounds.


def fds() -> int:
    return len(open_fds())


def fill(site: Path, count: int) -> list[bytes]:
    for number in range(count):
        (site / f"{number}").write_bytes(b"%d" % number)
    return [b"%d" % number for number in range(count)]


def test_at_most_so_many_files(root: Root, site: Path) -> None:
    names = fill(site, 30)
    cache = FileCache(root, None, capacity=10)
    before = fds()
    for name in names:
        assert content(cache.open(name)) == name
        assert fds() - before == len(cache) <= 10
    cache.close()
    assert fds() == before


def test_the_one_asked_for_longest_ago_goes_first(root: Root, site: Path) -> None:
    names = fill(site, 12)
    cache = FileCache(root, None, capacity=10)
    files = [cache.open(name) for name in names[:10]]
    cache.open(names[0])
    cache.open(names[10])
    cache.open(names[11])
    assert [file.fd == -1 for file in files] == [False, True, True] + [False] * 7
    cache.close()


def test_what_is_in_use_is_closed_by_its_last_user(root: Root, site: Path) -> None:
    names = fill(site, 30)
    cache = FileCache(root, None, capacity=10)
    before = fds()
    files = [cache.open(name) for name in names if cache.open(name).take() is None]
    assert len(cache) == 10
    assert fds() - before == 30
    assert [content(file) for file in files] == names
    for file in files:
        file.release()
    assert fds() - before == 10
    cache.close()
    assert fds() == before


def test_the_files_of_one_answer_stay_together(root: Root, site: Path) -> None:
    """However small the cache, and however short of fds."""
    names = fill(site, NEWEST)
    cache = FileCache(root, None, capacity=1)
    files = [cache.open(name) for name in names]
    assert cache.shed(100) == 0
    assert [content(file) for file in files] == names
    cache.close()


def test_releasing_too_often_is_a_mistake(cache: FileCache) -> None:
    file = cache.open(b"file")
    with pytest.raises(AssertionError, match="released more often"):
        file.release()
    cache.close()
    with pytest.raises(AssertionError, match="after it was closed"):
        file.take()


def test_out_of_fds_idle_files_make_room(cache: FileCache, site: Path) -> None:
    names = fill(site, 30)
    files = [cache.open(name) for name in names[:20]]
    files[0].take()
    with no_more_fds():
        assert content(cache.open(names[20])) == names[20]
    assert [file.fd == -1 for file in files] == [False] + [True] * SHED + [False] * (19 - SHED)
    files[0].release()


def test_out_of_fds_and_nothing_idle(cache: FileCache, site: Path) -> None:
    files = [cache.open(name) for name in fill(site, 6)]
    for file in files:
        file.take()
    with no_more_fds(), pytest.raises(OSError, match="Too many open files"):
        cache.open(b"file")
    for file in files:
        file.release()
