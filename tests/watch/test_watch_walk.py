"""The walk of a tree: what it finds, how deep it goes, and what it leaves out."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from watching import names

from pollers.watch.base import join
from pollers.watch.tree import UNREADABLE, Name, list_names, list_statuses, open_root, walk


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("a")
    fd = open_root(os.fsencode(tmp_path))
    yield fd
    os.close(fd)


def test_both_listings_find_the_same_names(top: int, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path)
    entered: list[bytes] = []

    def enter(path: bytes, fd: int) -> bool:
        entered.append(path)
        return True

    for lister in list_names, partial(list_statuses, entered.append):
        found = walk(top, path, lister, enter, entered.append)
        assert {
            join(at, name): entry.directory for at, e in found.items() for name, entry in e.items()
        } == names(tmp_path)
        assert list(found) == entered
        entered.clear()


def test_a_walk_goes_deeper_than_a_path_is_long(tmp_path: Path) -> None:
    """By fds: one each level, none left over."""
    above = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 50, dir_fd=above)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)
    fd = open_root(os.fsencode(tmp_path))
    found = walk(fd, b"top", list_names, lambda path, fd: True, lambda path: None)
    os.close(fd)
    assert len(found) == 301


def test_a_walk_without_fds_says_what_to_do(top: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(top)
    os.close(free)
    try:
        for spare in range(3):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + spare, hard))
            with pytest.raises(OSError, match="ulimit -n"):
                walk(top, b"top", list_names, lambda path, fd: True, lambda path: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# What may not be read.


@pytest.mark.parametrize("number", sorted(UNREADABLE))
@pytest.mark.parametrize("at", ["entered", "listed"])
def test_what_cannot_be_read_is_left_out(top: int, tmp_path: Path, number: int, at: str) -> None:
    """Of the tree, with all below it; and told, once."""
    path = os.fsencode(tmp_path)
    (tmp_path / "c").mkdir()
    left_out: list[bytes] = []

    def fail(where: str, directory: bytes) -> None:
        if where == at and directory == path + b"/a":
            raise OSError(number, os.strerror(number))

    def enter(directory: bytes, fd: int) -> bool:
        fail("entered", directory)
        return True

    def lister(directory: bytes, fd: int) -> dict[bytes, Name]:
        fail("listed", directory)
        return list_names(directory, fd)

    fds = os.listdir("/dev/fd")
    found = walk(top, path, lister, enter, left_out.append)
    assert os.listdir("/dev/fd") == fds
    assert list(found) == [path, path + b"/c"]
    assert set(found[path]) == {b"a", b"c", b"link"}
    assert left_out == [path + b"/a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EOPNOTSUPP, errno.ENOMEM])
def test_a_limit_is_no_reason_to_leave_out(top: int, tmp_path: Path, number: int) -> None:
    def enter(directory: bytes, fd: int) -> bool:
        if directory == os.fsencode(tmp_path) + b"/a":
            raise OSError(number, os.strerror(number))
        return True

    with pytest.raises(OSError, match=os.strerror(number)):
        walk(top, os.fsencode(tmp_path), list_names, enter, lambda path: None)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_the_top_itself_is_no_exception(top: int, tmp_path: Path, number: int) -> None:
    def lister(directory: bytes, fd: int) -> dict[bytes, Name]:
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)):
        walk(top, os.fsencode(tmp_path), lister, lambda path, fd: True, lambda path: None)
