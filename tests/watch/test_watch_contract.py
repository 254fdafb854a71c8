"""The contract of pollers.watch.base, over every watcher that works here."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from watching import Copy, names, read_until, readable, settle

from pollers.watch import Capability, Change, Kind, Watcher
from pollers.watch.replay import Replica

CREATED, MODIFIED, DELETED = Kind.CREATED, Kind.MODIFIED, Kind.DELETED
MOVED, ATTRIBUTES = Kind.MOVED, Kind.ATTRIBUTES


def raw(path: Path) -> bytes:
    return os.fsencode(path)


def of(changes: list[Change], path: Path) -> list[Kind]:
    """What was told of one path, several in a row as one."""
    kinds = [change.kind for change in changes if change.path == raw(path)]
    return [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] is not kind]


# What is told.


def test_what_is_there_already_is_not_told(watcher: Watcher, tree: Path) -> None:
    (tree / "file").touch()
    (tree / "below").mkdir()
    watcher.add(tree, recursive=True)
    assert settle(watcher, tree) == []


def test_a_new_file_is_created(watcher: Watcher, tree: Path) -> None:
    watcher.add(tree)
    (tree / "file").write_bytes(b"x")
    told = settle(watcher, tree)
    assert told[0] == Change(CREATED, raw(tree / "file"))
    assert {change.path for change in told} == {raw(tree / "file")}


def test_a_new_directory_is_one(watcher: Watcher, tree: Path) -> None:
    watcher.add(tree)
    (tree / "below").mkdir()
    assert settle(watcher, tree)[0] == Change(CREATED, raw(tree / "below"), None, True)


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b"])
def test_a_write_modifies(watcher: Watcher, tree: Path, mode: str) -> None:
    (tree / "file").write_bytes(b"before")
    watcher.add(tree)
    with open(tree / "file", mode) as file:
        file.write(b"other")
    assert MODIFIED in of(settle(watcher, tree), tree / "file")


def test_truncating_modifies(watcher: Watcher, tree: Path) -> None:
    (tree / "file").write_bytes(b"before")
    watcher.add(tree)
    os.truncate(tree / "file", 0)
    assert MODIFIED in of(settle(watcher, tree), tree / "file")


def test_a_mode_is_an_attribute(watcher: Watcher, tree: Path) -> None:
    (tree / "file").touch(0o644)
    (tree / "below").mkdir(0o755)
    watcher.add(tree, recursive=True)
    (tree / "file").chmod(0o600)
    (tree / "below").chmod(0o700)
    told = settle(watcher, tree)
    assert of(told, tree / "file") == of(told, tree / "below") == [ATTRIBUTES]


def test_a_name_that_goes_is_deleted(watcher: Watcher, tree: Path) -> None:
    (tree / "file").touch()
    (tree / "below").mkdir()
    watcher.add(tree)
    (tree / "file").unlink()
    (tree / "below").rmdir()
    told = [change for change in settle(watcher, tree) if change.kind is DELETED]
    assert sorted(told) == [
        Change(DELETED, raw(tree / "below"), None, True),
        Change(DELETED, raw(tree / "file")),
    ]


@pytest.mark.parametrize("directory", [False, True])
def test_a_rename_is_one_change(watcher: Watcher, tree: Path, directory: bool) -> None:
    (tree / "above").mkdir()
    (tree / "above" / "old").mkdir() if directory else (tree / "above" / "old").touch()
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    (tree / "above" / "old").rename(tree / "new")
    told = settle(watcher, tree)
    copy.apply(told)
    assert copy.names == names(tree)
    if told != [Change(MOVED, raw(tree / "new"), raw(tree / "above" / "old"), directory)]:
        assert Capability.MOVES not in watcher.capabilities
        assert {change.kind for change in told} <= {MOVED, CREATED, DELETED, ATTRIBUTES, MODIFIED}


def test_an_atomic_save_is_one_modification_of_the_name(watcher: Watcher, tree: Path) -> None:
    (tree / "file").write_bytes(b"old")
    watcher.add(tree)
    (tree / "file~").write_bytes(b"new")
    before = settle(watcher, tree)
    assert of(before, tree / "file") == []
    os.replace(tree / "file~", tree / "file")
    told = settle(watcher, tree)
    assert [change.kind for change in told if change.path == raw(tree / "file")] == [MODIFIED]
    assert [c for c in told if c.kind in (CREATED, MOVED)] == []
    if Capability.MOVES in watcher.capabilities:
        assert told == [Change(MODIFIED, raw(tree / "file"), raw(tree / "file~"))]


def test_a_save_in_between_two_reads_too(watcher: Watcher, tree: Path) -> None:
    (tree / "file").write_bytes(b"old")
    watcher.add(tree)
    copy = Copy(tree)
    (tree / "file~").write_bytes(b"new")
    os.replace(tree / "file~", tree / "file")
    told = settle(watcher, tree)
    assert of(told, tree / "file") == [MODIFIED]
    copy.apply(told)
    assert copy.names == {raw(tree / "file"): False}


@pytest.mark.parametrize("name", [b"a\xff\xfe", b"a\nb", b"x" * 255, "ä€".encode(), b" "])
def test_names_are_any_bytes(watcher: Watcher, tree: Path, name: bytes) -> None:
    watcher.add(tree)
    path = raw(tree) + b"/" + name
    os.mkdir(path)
    assert Change(CREATED, path, None, True) in read_until(watcher, CREATED, path)


def test_paths_begin_as_they_were_given(
    watcher: Watcher, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.parent)
    watcher.add("tree//")
    (tree / "file").touch()
    assert read_until(watcher, CREATED, b"tree/file")


# Trees.


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


def exchange(one: Path, two: Path) -> None:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None or renameat2(-100, raw(one), -100, raw(two), 2):
        pytest.skip("this system or file system cannot exchange two names (renameat2)")


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


# One inode, several paths.


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


# Adding, removing, ending.


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
