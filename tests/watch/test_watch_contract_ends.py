"""The contract of every watcher that works here: adding, removing, ending, and the fd."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from watching import of, raw, read_until, readable, settle

from pollers.watch import Capability, Change, Kind, Watcher
from pollers.watch.replay import Replica

CREATED, DELETED = Kind.CREATED, Kind.DELETED


def test_what_cannot_be_added_is_refused(watcher: Watcher, tree: Path) -> None:
    (tree / "file").touch()
    with pytest.raises(NotADirectoryError):
        watcher.add(tree / "file")
    with pytest.raises(FileNotFoundError):
        watcher.add(tree / "missing")
    with pytest.raises(ValueError, match="empty"):
        watcher.add("")
    watcher.add(tree)
    with pytest.raises(FileExistsError, match="remove it first"):
        watcher.add(os.fsencode(tree) + b"/")
    watcher.remove(tree)
    with pytest.raises(FileNotFoundError, match="add it first"):
        watcher.remove(tree)


def test_what_was_removed_is_not_told(watcher: Watcher, tree: Path) -> None:
    away = tree.parent / "outside"
    watcher.add(away)
    watcher.add(tree, recursive=True)
    (tree / "before").touch()
    watcher.remove(tree)
    (tree / "after").touch()
    assert settle(watcher, away) == []
    watcher.add(tree)  # and may come back
    (tree / "again").touch()
    assert CREATED in of(settle(watcher, tree), tree / "again")


def test_a_root_that_is_deleted_is_told_and_removed(watcher: Watcher, tree: Path) -> None:
    (tree / "below").mkdir()
    watcher.add(tree, recursive=True)
    shutil.rmtree(tree)
    told = read_until(watcher, DELETED, raw(tree))
    assert told[-1] == Change(DELETED, raw(tree), None, True)
    tree.mkdir()
    watcher.add(tree)
    (tree / "file").touch()
    assert CREATED in of(settle(watcher, tree), tree / "file")


def test_a_root_that_is_moved_away_is_told_and_removed(watcher: Watcher, tree: Path) -> None:
    watcher.add(tree, recursive=True)
    tree.rename(tree.parent / "outside" / "away")
    assert read_until(watcher, DELETED, raw(tree))[-1] == Change(DELETED, raw(tree), None, True)
    with pytest.raises(FileNotFoundError):
        watcher.remove(tree)


def test_a_root_that_is_replaced_is_told(watcher: Watcher, tree: Path) -> None:
    """Also where what is above was added too, without recursion, and still has the name."""
    (tree / "a").mkdir()
    (tree / "next").mkdir()
    (tree / "next" / "file").touch()
    watcher.add(tree)
    watcher.add(tree / "a")
    (tree / "a").rename(tree / "was")
    (tree / "next").rename(tree / "a")
    told = settle(watcher, tree)
    said = {path for c in told for path in (c.path, c.source)}
    assert said & {raw(tree / "a"), raw(tree / "a" / "file")}
    Replica({raw(tree / "a"): True, raw(tree / "next"): True}.items()).apply(
        change for change in told if change.path != raw(tree / "a" / "file")
    )


def test_a_closed_one_says_so(watcher: Watcher, tree: Path) -> None:
    watcher.close()
    watcher.close()
    for use in (
        lambda: watcher.add(tree),
        lambda: watcher.remove(tree),
        watcher.read,
        watcher.fileno,
    ):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_its_fd_is_not_inherited_and_stays(watcher: Watcher, tree: Path) -> None:
    fd = watcher.fileno()
    assert not os.get_inheritable(fd)
    watcher.add(tree)
    settle(watcher, tree)
    assert watcher.fileno() == fd


def test_reading_never_waits(watcher: Watcher, tree: Path) -> None:
    assert watcher.read() == []
    watcher.add(tree)
    assert watcher.read() == []


def test_the_fd_is_readable_once_something_happened(watcher: Watcher, tree: Path) -> None:
    watcher.add(tree)
    watcher.read()
    (tree / "file").touch()
    prompt = Capability.PROMPT in watcher.capabilities
    assert readable(watcher, 0 if prompt else 15)


def test_many_watchers_stand_side_by_side(make: Callable[[], Watcher], tree: Path) -> None:
    watchers = [make() for _ in range(3)]
    for watcher in watchers:
        watcher.add(tree)
    (tree / "file").touch()
    for watcher in watchers:
        assert CREATED in of(settle(watcher, tree), tree / "file")
        watcher.read()


def test_counters_count(watcher: Watcher, tree: Path) -> None:
    watcher.add(tree, recursive=True)
    (tree / "file").touch()
    told = read_until(watcher, CREATED, raw(tree / "file"))
    counters = watcher.counters.as_dict()
    assert counters["changes"] >= len(told)
    assert counters["events"] > 0
    assert counters["overflows"] == 0
