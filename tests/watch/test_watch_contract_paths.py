"""The contract of every watcher that works here: links, and what was added below what was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from watching import of, raw, settle

from pollers.watch import Capability, Change, Kind, Watcher

CREATED, MOVED = Kind.CREATED, Kind.MOVED


def test_a_directory_by_two_paths_is_told_by_both(watcher: Watcher, tree: Path) -> None:
    other = tree.parent / "other"
    other.symlink_to(tree)
    (tree / "below").mkdir()
    (tree / "old").touch()
    watcher.add(tree, recursive=True)
    watcher.add(other, recursive=True)
    (tree / "file").touch()
    (tree / "below" / "file").touch()
    (tree / "old").rename(tree / "below" / "new")
    told = settle(watcher, tree)
    for top in tree, other:
        assert [c.path for c in told if c.kind is CREATED].count(raw(top / "file")) == 1
        assert raw(top / "below" / "file") in {c.path for c in told}
        moved = Change(MOVED, raw(top / "below" / "new"), raw(top / "old"))
        if Capability.MOVES in watcher.capabilities:
            assert told.count(moved) == 1
    watcher.remove(other)
    (tree / "more").touch()
    assert {c.path for c in settle(watcher, tree)} == {raw(tree / "more")}


@pytest.mark.parametrize("order", [1, -1])
def test_a_tree_in_a_tree_is_told_once(watcher: Watcher, tree: Path, order: int) -> None:
    (tree / "below").mkdir()
    for path in [tree, tree / "below"][::order]:
        watcher.add(path, recursive=True)
    (tree / "below" / "file").touch()
    told = settle(watcher, tree)
    assert told.count(Change(CREATED, raw(tree / "below" / "file"))) == 1
    watcher.remove(tree)
    (tree / "file").touch()
    (tree / "below" / "more").touch()
    told = settle(watcher, tree / "below")
    assert {c.path for c in told} == {raw(tree / "below" / "more")}


@pytest.mark.parametrize("order", [1, -1])
def test_a_link_in_a_tree_is_followed_where_it_was_added(
    watcher: Watcher, tree: Path, order: int
) -> None:
    """What it leads to is not in the tree, whatever its path begins with."""
    away, link = tree.parent / "outside", tree / "link"
    link.symlink_to(away)
    for path, recursive in [(tree, True), (link, False)][::order]:
        watcher.add(path, recursive=recursive)
    (away / "file").touch()
    told = settle(watcher, tree)
    assert told.count(Change(CREATED, raw(link / "file"))) == 1
    watcher.remove(link)
    (away / "more").touch()
    (tree / "file").touch()
    assert {c.path for c in settle(watcher, tree)} == {raw(tree / "file")}
    watcher.add(link)
    watcher.remove(tree)
    (tree / "more").touch()
    (away / "again").touch()
    assert {c.path for c in settle(watcher, link)} == {raw(link / "again")}


def test_a_new_hard_link_is_a_name(watcher: Watcher, tree: Path) -> None:
    (tree / "file").touch()
    watcher.add(tree)
    os.link(tree / "file", tree / "link")
    assert CREATED in of(settle(watcher, tree), tree / "link")


@pytest.mark.parametrize("recursive", [False, True])
def test_a_link_that_goes_with_its_directory_is_told_no_more(
    watcher: Watcher, tree: Path, recursive: bool
) -> None:
    """By its old path, which leads nowhere; and nothing is left of it."""
    away, link = tree.parent / "outside", tree / "above" / "link"
    (away / "below").mkdir()
    link.parent.mkdir()
    link.symlink_to(away)
    watcher.add(tree, recursive=True)
    before = watcher.counters.watches
    watcher.add(link, recursive=recursive)
    (tree / "above").rename(tree / "moved")
    settle(watcher, tree)
    (away / "file").touch()
    (away / "below" / "file").touch()
    assert settle(watcher, tree) == []
    assert watcher.counters.watches == before
    with pytest.raises(FileNotFoundError):
        watcher.remove(link)
    (tree / "moved").rename(tree / "above")  # and may come back
    settle(watcher, tree)
    watcher.add(link, recursive=recursive)
    (away / "more").touch()
    told = settle(watcher, tree)
    assert [c.path for c in told if c.kind is CREATED] == [raw(link / "more")]
