"""The difference of two states of a tree, replayed on the old one, is the new one: no kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watching import Carrying

from pollers.watch.base import Change, Kind, as_path, join, lies_in, split
from pollers.watch.difference import Compared, Since, diff
from pollers.watch.replay import Contradiction, Replica
from pollers.watch.tree import (
    Name,
    Snapshot,
    Status,
)

#: On a machine that is busy with something else.
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
#: Few inode numbers and few names, so that renames, links and reuse are common.
INODES = st.integers(1, 8)
NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
FILES = st.builds(
    Status,
    INODES,
    st.just(False),
    st.sampled_from([0o100600, 0o100644]),
    st.just(1),
    st.just(0),
    st.just(0),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 2),
)
MODES = st.sampled_from([0o040700, 0o040755])
TREES = st.recursive(
    st.dictionaries(NAMES, FILES, max_size=4),
    lambda below: st.dictionaries(NAMES, FILES | st.tuples(INODES, MODES, below), max_size=4),
    max_leaves=12,
)


def snapshot(tree: dict, path: bytes = b"r") -> Snapshot[Status]:  # type: ignore[type-arg]
    """A tree of dicts as a snapshot."""
    found: Snapshot[Status] = {path: {}}
    for name, entry in tree.items():
        if isinstance(entry, Status):
            found[path][name] = entry
        else:
            inode, mode, below = entry
            found[path][name] = Status(inode, True, mode, 0, 0, 0, 0, 0, 0)
            found |= snapshot(below, join(path, name))
    return found


def flat(tree: Snapshot[Status]) -> dict[bytes, Status]:
    return {join(path, name): e for path, found in tree.items() for name, e in found.items()}


def replayed(old: Snapshot[Status], told: list[Change]) -> Carrying:
    before = flat(old)
    replica = Carrying(
        {path: entry.directory for path, entry in before.items()},
        {path: entry for path, entry in before.items() if not entry.directory},
    )
    replica.apply(told)
    return replica


@patiently
@given(TREES, TREES)
def test_the_difference_replayed_is_the_new_state(old: dict, new: dict) -> None:  # type: ignore[type-arg]
    before, after = snapshot(old), snapshot(new)
    replica = replayed(before, diff(before, after, Compared()))
    found = flat(after)
    assert replica.names == {path: entry.directory for path, entry in found.items()}
    for path, entry in found.items():
        if entry.directory or path in replica.dirty:
            continue
        was = replica.held[path]
        assert isinstance(was, Status)
        assert (was.size, was.mtime) == (entry.size, entry.mtime)
        assert was.mode == entry.mode or path in replica.changed


@patiently
@given(TREES, TREES, st.integers(0, 3))
def test_so_it_is_where_only_names_were_known(old: dict, new: dict, since: int) -> None:  # type: ignore[type-arg]
    before, after = snapshot(old), snapshot(new)
    known = {
        path: {name: Name(entry.identity, entry.directory) for name, entry in found.items()}
        for path, found in before.items()
    }
    replica = replayed(before, diff(known, after, Since(since)))
    found = flat(after)
    assert replica.names == {path: entry.directory for path, entry in found.items()}
    for path, entry in found.items():
        if not entry.directory and entry.ctime >= since:
            assert path in replica.dirty


@patiently
@given(TREES)
def test_the_same_differs_in_nothing(tree: dict) -> None:  # type: ignore[type-arg]
    assert diff(snapshot(tree), snapshot(tree), Compared()) == []


def status(inode: int, size: int = 0, ctime: int = 0, mode: int = 0o100644) -> Status:
    return Status(inode, False, mode, 1, 0, 0, size, 0, ctime)


DIRECTORY = Status(9, True, 0o040755, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({}, {b"a": status(1)}, [Change(Kind.CREATED, b"r/a")]),
        ({b"a": status(1)}, {}, [Change(Kind.DELETED, b"r/a")]),
        ({b"a": status(1)}, {b"b": status(1, ctime=1)}, [Change(Kind.MOVED, b"r/b", b"r/a")]),
        ({b"a": status(1)}, {b"a": status(1, size=1)}, [Change(Kind.MODIFIED, b"r/a")]),
        ({b"a": status(1)}, {b"a": status(1, ctime=1)}, [Change(Kind.MODIFIED, b"r/a")]),
        ({b"a": status(1)}, {b"a": status(2)}, [Change(Kind.MODIFIED, b"r/a")]),
        (
            {b"a": status(1)},
            {b"a": status(1, ctime=1, mode=0o100600)},
            [Change(Kind.ATTRIBUTES, b"r/a")],
        ),
        (
            {b"a": status(1), b"t": status(2)},
            {b"a": status(2, ctime=1)},
            [Change(Kind.MODIFIED, b"r/a", b"r/t")],
        ),
        (  # the number of a file that is gone, used again
            {b"a": status(1)},
            {b"b": status(1, size=1)},
            [Change(Kind.DELETED, b"r/a"), Change(Kind.CREATED, b"r/b")],
        ),
        (
            {b"a": status(1)},
            {b"a": DIRECTORY},
            [Change(Kind.DELETED, b"r/a"), Change(Kind.CREATED, b"r/a", None, True)],
        ),
        ({b"a": DIRECTORY}, {b"b": DIRECTORY}, [Change(Kind.MOVED, b"r/b", b"r/a", True)]),
    ],
)
def test_each_difference_has_its_change(
    old: dict[bytes, Status], new: dict[bytes, Status], told: list[Change]
) -> None:
    assert diff({b"r": old}, {b"r": new}, Compared()) == told


def test_a_directory_moves_with_what_is_in_it() -> None:
    file = status(1)
    old = {b"r": {b"a": DIRECTORY}, b"r/a": {b"f": file}}
    new = {b"r": {b"b": DIRECTORY}, b"r/b": {b"f": file, b"g": status(2)}}
    assert diff(old, new, Compared()) == [
        Change(Kind.MOVED, b"r/b", b"r/a", True),
        Change(Kind.CREATED, b"r/b/g"),
    ]


def test_what_may_not_be_read_any_more_is_gone() -> None:
    old = {b"r": {b"a": DIRECTORY}, b"r/a": {b"f": status(1)}}
    new = {b"r": {b"a": DIRECTORY}}
    assert diff(old, new, Compared()) == [Change(Kind.DELETED, b"r/a/f")]


# Paths, and replaying.


@pytest.mark.parametrize("path", [b"a", b"a/b", b"/", b"/a", b"./a"])
def test_join_and_split_are_inverse(path: bytes) -> None:
    assert split(join(path, b"name")) == (path, b"name")
    assert lies_in(join(path, b"name"), path)
    assert not lies_in(path + b"x", path) or path == b"/"


def test_a_path_is_bytes_without_a_slash_at_its_end() -> None:
    assert as_path("a//") == as_path(Path("a")) == b"a"
    assert as_path("//") == b"/"


@pytest.mark.parametrize(
    "change",
    [
        Change(Kind.CREATED, b"a"),
        Change(Kind.DELETED, b"x"),
        Change(Kind.MODIFIED, b"x"),
        Change(Kind.MOVED, b"y", b"x"),
        Change(Kind.MOVED, b"a", b"d"),
        Change(Kind.MODIFIED, b"d"),
        Change(Kind.ATTRIBUTES, b"x"),
    ],
)
def test_a_contradiction_is_noticed(change: Change) -> None:
    with pytest.raises(Contradiction):
        Replica({b"a": False, b"d": True}.items()).apply([change])
