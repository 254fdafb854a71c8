"""The open-file cache is never out of date, whether changes are reported or not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filecache import STEPS, Clock, content, overflow, replace, serve_what_is_there
from hypothesis import given, settings
from hypothesis import strategies as st
from leaks import open_fds

from pollers import inotify
from servers.file.cache import UNWATCHED_EVERY, WATCHED_EVERY, FileCache
from servers.file.changes import EVERYTHING, Change, Changes

# Changes, reported.


def test_replaced_is_new_at_once(watched: FileCache, site: Path) -> None:
    before = watched.open(b"a/file")
    inode = before.identity.inode
    etag = before.etag
    replace(site / "a" / "file", b"new")
    assert Change(b"a/file") in watched.read_changes()
    after = watched.open(b"a/file")
    assert content(after) == b"new"
    assert after.identity.inode != inode
    assert after.etag != etag


def test_a_transfer_keeps_its_file(watched: FileCache, site: Path) -> None:
    file = watched.open(b"file")
    file.take()
    file.take()
    replace(site / "file", b"new")
    watched.read_changes()
    assert content(watched.open(b"file")) == b"new"
    assert content(file) == b"old"
    file.release()
    assert content(file) == b"old"
    fd = file.fd
    file.release()
    assert file.fd == -1
    assert fd not in open_fds()


def test_written_in_place(watched: FileCache, site: Path) -> None:
    etag = watched.open(b"file").etag
    (site / "file").write_bytes(b"longer")
    watched.read_changes()
    file = watched.open(b"file")
    assert (file.size, content(file)) == (6, b"longer")
    assert file.etag != etag


def test_deleted(watched: FileCache, site: Path) -> None:
    watched.open(b"file")
    (site / "file").unlink()
    watched.read_changes()
    with pytest.raises(FileNotFoundError):
        watched.open(b"file")


def test_only_what_changed_is_forgotten(watched: FileCache, site: Path) -> None:
    file, other = watched.open(b"file"), watched.open(b"a/file")
    replace(site / "file", b"new")
    watched.read_changes()
    assert file.fd == -1
    assert watched.open(b"a/file") is other


def test_a_directory_that_was_replaced(watched: FileCache, site: Path) -> None:
    watched.open(b"a/file")
    (site / "next").mkdir()
    (site / "next" / "file").write_bytes(b"new")
    (site / "a").rename(site / "was")
    (site / "next").rename(site / "a")
    watched.read_changes()
    assert content(watched.open(b"a/file")) == b"new"
    assert content(watched.open(b"was/file")) == b"old"
    assert watched.open(b"a/file").watched


def test_an_overflow_forgets_everything(watched: FileCache, site: Path) -> None:
    file, used = watched.open(b"file"), watched.open(b"a/file")
    used.take()
    overflow(site)
    replace(site / "a" / "file", b"lost")  # its event finds no room
    while watched.read_changes() is not EVERYTHING:
        pass
    assert len(watched) == 0
    assert file.fd == -1
    assert content(used) == b"old"
    assert content(watched.open(b"a/file")) == b"lost"
    assert watched.covered(b"a/file")
    used.release()


# Changes that nobody reports.


def test_unwatched_it_is_looked_at_once_a_second(
    unwatched: FileCache, site: Path, clock: Clock
) -> None:
    file = unwatched.open(b"file")
    clock.advance(UNWATCHED_EVERY)
    assert unwatched.open(b"file") is file  # it is the same
    replace(site / "file", b"new")
    clock.advance(UNWATCHED_EVERY * 0.99)
    assert content(unwatched.open(b"file")) == b"old"
    clock.advance(UNWATCHED_EVERY * 0.02)
    assert content(unwatched.open(b"file")) == b"new"
    assert not unwatched.covered(b"file")
    assert unwatched.read_changes() == set()


def test_watched_it_is_not_looked_at_for_ten(watched: FileCache, site: Path, clock: Clock) -> None:
    """For what inotify does not see: here by not reading its events."""
    watched.open(b"file")
    replace(site / "file", b"new")
    clock.advance(WATCHED_EVERY * 0.99)
    assert content(watched.open(b"file")) == b"old"
    clock.advance(WATCHED_EVERY * 0.02)
    assert content(watched.open(b"file")) == b"new"


def test_a_second_hard_link_is_not_trusted(
    watched: FileCache, site: Path, tmp_path: Path, clock: Clock
) -> None:
    os.link(site / "file", tmp_path / "elsewhere")
    assert not watched.open(b"file").watched
    assert not watched.covered(b"file")
    (tmp_path / "elsewhere").write_bytes(b"longer")
    assert watched.read_changes() == set()  # inotify has nothing to say
    clock.advance(UNWATCHED_EVERY)
    assert content(watched.open(b"file")) == b"longer"


def test_a_hard_link_made_later_is_found_within_ten_seconds(
    watched: FileCache, site: Path, tmp_path: Path, clock: Clock
) -> None:
    assert watched.open(b"file").watched
    os.link(site / "file", tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"longer")
    clock.advance(WATCHED_EVERY)
    file = watched.open(b"file")
    assert content(file) == b"longer"
    assert not file.watched


@pytest.mark.parametrize("path", [b"link", b"directory/file", b"directory/chain"])
def test_a_symbolic_link_is_not_trusted(
    watched: FileCache, site: Path, clock: Clock, path: bytes
) -> None:
    (site / "link").symlink_to("a/file")
    (site / "directory").symlink_to("a")
    (site / "a" / "chain").symlink_to("../a/file")
    file = watched.open(path)
    assert content(file) == b"old"
    assert not file.watched
    assert not watched.covered(path)
    watched.read_changes()  # the links themselves
    file = watched.open(path)
    replace(site / "a" / "file", b"new")
    clock.advance(UNWATCHED_EVERY)
    assert content(watched.open(path)) == b"new"


def test_a_link_to_the_next_release_is_followed_at_once(watched: FileCache, site: Path) -> None:
    (site / "releases" / "1").mkdir(parents=True)
    (site / "releases" / "2").mkdir()
    (site / "releases" / "1" / "file").write_bytes(b"one")
    (site / "releases" / "2" / "file").write_bytes(b"two")
    (site / "current").symlink_to("releases/1")
    watched.read_changes()
    assert content(watched.open(b"current/file")) == b"one"
    (site / "next").symlink_to("releases/2")
    os.replace(site / "next", site / "current")
    watched.read_changes()
    assert content(watched.open(b"current/file")) == b"two"


def test_covered(watched: FileCache, site: Path) -> None:
    assert watched.covered(b"")
    assert not watched.covered(b"a")
    watched.open(b"a/file")
    assert watched.covered(b"a/file")
    assert watched.covered(b"a")
    assert not watched.covered(b"a/none")
    replace(site / "a" / "file", b"new")
    watched.read_changes()
    assert not watched.covered(b"a/file")  # until it is opened again


# Whatever happens.


@pytest.mark.skipif(inotify._init1 is None, reason="this system has no inotify")
@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=15, max_size=30))
def test_after_any_changes_it_serves_what_is_there(steps: list[tuple[str, ...]]) -> None:
    serve_what_is_there(steps, lambda root: Changes(root, limit=4))
