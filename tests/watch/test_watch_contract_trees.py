"""The contract of every watcher that works here: trees, and what comes, goes and moves in them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from watching import Copy, exchange, names, of, raw, read_until, settle

from pollers.watch import Change, Kind, Watcher
from pollers.watch.replay import Replica

CREATED, DELETED, ATTRIBUTES = Kind.CREATED, Kind.DELETED, Kind.ATTRIBUTES


def test_without_recursion_nothing_below_is_told(watcher: Watcher, tree: Path) -> None:
    (tree / "below").mkdir()
    watcher.add(tree)
    (tree / "below" / "file").touch()
    (tree / "new").mkdir()
    (tree / "new" / "file").touch()
    told = settle(watcher, tree)
    assert [c for c in told if c.kind is not ATTRIBUTES] == [
        Change(CREATED, raw(tree / "new"), None, True)
    ]


def test_new_directories_lose_nothing_and_tell_nothing_twice(watcher: Watcher, tree: Path) -> None:
    """Whatever part was listed and what part the kernel told."""
    watcher.add(tree, recursive=True)
    replica = Replica()
    for number in range(30):
        below = tree / f"{number}" / "a" / "b"
        below.mkdir(parents=True)
        (below / "file").write_bytes(b"x")
        if number % 3 == 0:
            replica.apply(watcher.read())
        (below / "late").touch()
    replica.apply(settle(watcher, tree))
    assert replica.names == names(tree)


def test_a_moved_directory_goes_on_by_its_new_path(watcher: Watcher, tree: Path) -> None:
    (tree / "old" / "below").mkdir(parents=True)
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    (tree / "old").rename(tree / "new")
    (tree / "new" / "below" / "file").touch()
    copy.apply(settle(watcher, tree))
    (tree / "new" / "below" / "more").touch()
    told = settle(watcher, tree)
    assert CREATED in of(told, tree / "new" / "below" / "more")
    copy.apply(told)
    assert copy.names == names(tree)


def test_what_is_moved_out_is_deleted_and_silent(watcher: Watcher, tree: Path) -> None:
    (tree / "below").mkdir()
    (tree / "file").touch()
    watcher.add(tree, recursive=True)
    away = tree.parent / "outside"
    (tree / "below").rename(away / "below")
    (tree / "file").rename(away / "file")
    told = settle(watcher, tree)
    assert of(told, tree / "below") == of(told, tree / "file") == [DELETED]
    (away / "below" / "file").touch()
    assert settle(watcher, tree) == []


def test_a_half_without_the_other_comes_by_itself(watcher: Watcher, tree: Path) -> None:
    """The fd becomes readable when the wait is over, and nothing else has to happen."""
    (tree / "file").touch()
    watcher.add(tree)
    (tree / "file").rename(tree.parent / "outside" / "file")
    told = read_until(watcher, DELETED, raw(tree / "file"))
    assert [change.kind for change in told] == [DELETED]


def test_what_is_moved_in_is_created_with_what_is_in_it(watcher: Watcher, tree: Path) -> None:
    away = tree.parent / "outside"
    (away / "below" / "deep").mkdir(parents=True)
    (away / "below" / "deep" / "file").touch()
    watcher.add(tree, recursive=True)
    replica = Replica()
    (away / "below").rename(tree / "below")
    replica.apply(settle(watcher, tree))
    assert replica.names == names(tree)
    (tree / "below" / "deep" / "more").touch()
    assert of(settle(watcher, tree), tree / "below" / "deep" / "more")[0] is CREATED


def test_a_directory_may_be_replaced_by_another(watcher: Watcher, tree: Path) -> None:
    (tree / "one").mkdir()
    (tree / "two" / "below").mkdir(parents=True)
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    os.rename(tree / "two", tree / "one")
    copy.apply(settle(watcher, tree))
    assert copy.names == names(tree)
    (tree / "one" / "below" / "file").touch()
    copy.apply(settle(watcher, tree))
    assert copy.names == names(tree)


@pytest.mark.parametrize("directory", [False, True])
def test_two_names_may_change_places(watcher: Watcher, tree: Path, directory: bool) -> None:
    one, two = tree / "one", tree / "two"
    for path in one, two:
        path.mkdir() if directory else path.write_bytes(path.name.encode())
    if directory:
        (one / "in-one").touch()
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    exchange(one, two)
    copy.apply(settle(watcher, tree))
    assert copy.names == names(tree)
    assert copy.stale() == set()
    if directory:
        (one / "file").touch()
        (two / "file").touch()
        copy.apply(settle(watcher, tree))
        assert copy.names == names(tree)


def test_a_tree_that_goes_is_all_gone(watcher: Watcher, tree: Path) -> None:
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    shutil.rmtree(tree / "a")
    copy.apply(settle(watcher, tree))
    assert copy.names == {}
    (tree / "a").mkdir()
    (tree / "a" / "file").touch()
    copy.apply(settle(watcher, tree))
    assert copy.names == names(tree)


def test_links_are_not_followed(watcher: Watcher, tree: Path) -> None:
    away = tree.parent / "outside"
    (tree / "before").symlink_to(away)
    watcher.add(tree, recursive=True)
    (tree / "link").symlink_to(away)
    (away / "file").touch()
    (away / "below").mkdir()
    told = settle(watcher, tree)
    assert [c for c in told if c.kind is CREATED] == [Change(CREATED, raw(tree / "link"))]
    assert {change.path for change in told} == {raw(tree / "link")}
