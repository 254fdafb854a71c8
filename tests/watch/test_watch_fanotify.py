"""What only the fanotify watcher has to get right: merged events, handles, marks.

Its facts are in tests/test_fanotify_facts.py, the contract in test_watch_contract_*.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import Copy, names, readable, settle

from pollers import fanotify
from pollers.fanotify import FAN_CREATE, FAN_DELETE, FAN_MODIFY, FAN_ONDIR, FAN_RENAME
from pollers.filehandle import handle_of, open_by_handle
from pollers.watch.base import Capability, Change, Kind
from pollers.watch.fanotify import FanotifyWatcher, says
from pollers.watch.hints import CAME, IS_DIRECTORY, WENT, WRITTEN, Hints, changes
from pollers.watch.replay import Replica
from pollers.watch.tree import Status

try:
    fanotify.Fanotify().close()
except OSError as error:
    pytest.skip(f"no fanotify here: {error}", allow_module_level=True)


@pytest.fixture
def watcher() -> Iterator[FanotifyWatcher]:
    with FanotifyWatcher() as watcher:
        yield watcher


@pytest.fixture
def old_watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[FanotifyWatcher]:
    """As before Linux 5.17: the kernel is asked for a flag that it does not know."""
    monkeypatch.setattr(fanotify, "FAN_REPORT_DFID_NAME_TARGET", 1 << 30)
    with FanotifyWatcher() as watcher:
        assert Capability.MOVES not in watcher.capabilities
        yield watcher


def since_5_17(watcher: FanotifyWatcher) -> None:
    if Capability.MOVES not in watcher.capabilities:
        pytest.skip("FAN_RENAME came with Linux 5.17")


def path(*parts: str | Path) -> bytes:
    return os.fsencode(os.path.join(*parts))


# Hints, pure.


def test_an_events_mask_may_say_several_things() -> None:
    assert says(FAN_CREATE | FAN_DELETE | FAN_MODIFY) == CAME | WENT | WRITTEN
    assert says(FAN_RENAME | FAN_ONDIR) == IS_DIRECTORY


def status(inode: int, size: int = 0, directory: bool = False) -> Status:
    mode = 0o40755 if directory else 0o100644
    return Status(inode, directory, mode, 0 if directory else 1, 0, 0, size, 1, 1)


def test_a_name_in_passing_is_told_if_both_was_said() -> None:
    hints = Hints()
    hints.add(b"t", b"both", CAME | WENT)
    hints.add(b"t", b"one", CAME)
    told = changes(hints, {b"t": {}}, {b"t": {}}, set(), True)
    assert told == [Change(Kind.CREATED, b"t/both"), Change(Kind.DELETED, b"t/both")]


def test_the_temporary_name_of_a_save_is_told_though_it_was_never_seen() -> None:
    hints = Hints()
    hints.add(b"t", b"f~", CAME | WENT)
    hints.add(b"t", b"f", CAME)
    hints.renames.append(((b"t", b"f~"), (b"t", b"f")))
    told = changes(hints, {b"t": {b"f": status(1)}}, {b"t": {b"f": status(2, 5)}}, set(), True)
    assert told == [
        Change(Kind.CREATED, b"t/f~"),
        Change(Kind.MODIFIED, b"t/f", b"t/f~"),
    ]


def test_an_inode_number_that_is_used_again_is_no_rename() -> None:
    hints = Hints()
    old = {b"t": {b"a": status(1, directory=True)}, b"t/a": {}}
    new = {b"t": {b"b": status(1, directory=True)}, b"t/b": {}}
    hints.add(b"t", b"a", WENT)
    hints.add(b"t", b"b", CAME)
    told = changes(hints, {path: dict(names) for path, names in old.items()}, new, set(), True)
    assert {change.kind for change in told} == {Kind.CREATED, Kind.DELETED}
    moved = changes(hints, old, new, {1}, True)
    assert moved == [Change(Kind.MOVED, b"t/b", b"t/a", True)]


entries = st.dictionaries(
    st.sampled_from([b"a", b"b", b"c", b"d"]),
    st.builds(status, st.integers(1, 6), st.integers(0, 2)),
    max_size=4,
)
said = st.dictionaries(
    st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.integers(0, 31), max_size=5
)
places = st.tuples(st.sampled_from([b"t", b"u"]), st.sampled_from([b"a", b"b", b"c", b"e"]))


@settings(max_examples=60)
@given(
    st.tuples(entries, entries),
    st.tuples(entries, entries),
    st.tuples(said, said),
    st.lists(st.tuples(places, places), max_size=4),
    st.sets(st.integers(1, 6)),
    st.booleans(),
)
def test_whatever_was_said_the_changes_lead_from_one_look_to_the_next(
    before: tuple[dict[bytes, Status], ...],
    after: tuple[dict[bytes, Status], ...],
    said: tuple[dict[bytes, int], ...],
    renames: list[tuple[tuple[bytes, bytes], tuple[bytes, bytes]]],
    moved: set[int],
    all_said: bool,
) -> None:
    """Hints may lie as they like: in replaying, nothing contradicts what was there."""
    hints = Hints(renames=renames)
    for directory, names_said in zip((b"t", b"u"), said, strict=True):
        for name, what in names_said.items():
            hints.add(directory, name, what)
    old = {b"t": dict(before[0]), b"u": dict(before[1])}
    new = {b"t": dict(after[0]), b"u": dict(after[1])}
    replica = Replica((d + b"/" + n, s.directory) for d in old for n, s in old[d].items())
    replica.apply(changes(hints, old, new, moved, all_said))
    assert replica.names == {d + b"/" + n: s.directory for d in new for n, s in new[d].items()}


# Merged events.


def test_renames_that_the_kernel_merged_end_where_the_file_is(
    watcher: FanotifyWatcher, tree: Path
) -> None:
    since_5_17(watcher)
    f, g = tree / "f", tree / "g"
    f.touch()
    watcher.add(tree)
    f.rename(g)
    g.rename(f)
    f.rename(g)
    assert settle(watcher, tree) == [Change(Kind.MOVED, path(g), path(f))]


def test_a_file_that_came_and_went_unseen_is_told(watcher: FanotifyWatcher, tree: Path) -> None:
    watcher.add(tree)
    (tree / "file").touch()
    (tree / "file").unlink()
    assert settle(watcher, tree) == [
        Change(Kind.CREATED, path(tree, "file")),
        Change(Kind.DELETED, path(tree, "file")),
    ]


def test_a_write_that_keeps_size_and_times_is_told(watcher: FanotifyWatcher, tree: Path) -> None:
    file = tree / "file"
    file.write_bytes(b"old")
    watcher.add(tree)
    before = file.stat()
    with open(file, "r+b") as opened:
        opened.write(b"new")
        opened.flush()
        os.utime(opened.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Change(Kind.MODIFIED, path(file)) in settle(watcher, tree)


def test_a_new_directory_with_the_old_ones_inode_is_not_it(
    watcher: FanotifyWatcher, tree: Path
) -> None:
    (tree / "old").mkdir()
    watcher.add(tree, recursive=True)
    (tree / "old").rmdir()
    (tree / "new").mkdir()  # ext4 takes the same number
    told = settle(watcher, tree)
    assert Kind.MOVED not in {change.kind for change in told}
    (tree / "new" / "file").touch()
    assert Change(Kind.CREATED, path(tree, "new", "file")) in settle(watcher, tree)


def test_a_rename_into_a_new_directory_is_told_as_one(
    watcher: FanotifyWatcher, tree: Path
) -> None:
    since_5_17(watcher)
    (tree / "file").touch()
    watcher.add(tree, recursive=True)
    (tree / "new").mkdir()
    (tree / "file").rename(tree / "new" / "file")
    assert settle(watcher, tree) == [
        Change(Kind.CREATED, path(tree, "new"), None, True),
        Change(Kind.MOVED, path(tree, "new", "file"), path(tree, "file")),
    ]


# Marks and handles.


def test_attributes_of_a_directory_that_is_not_marked_are_told(
    watcher: FanotifyWatcher, tree: Path
) -> None:
    """Its events name it and not its parent: it is looked for."""
    (tree / "below").mkdir()
    watcher.add(tree)
    (tree / "below").chmod(0o700)
    assert settle(watcher, tree) == [Change(Kind.ATTRIBUTES, path(tree, "below"), None, True)]


def test_what_was_moved_out_keeps_no_mark_where_it_may_be_opened(
    watcher: FanotifyWatcher, tree: Path
) -> None:
    (tree / "below").mkdir()
    watcher.add(tree, recursive=True)
    out = tree.parent / "outside" / "below"
    (tree / "below").rename(out)
    settle(watcher, tree)
    assert watcher.counters.watches == 1
    fd = os.open(tree.parent, os.O_RDONLY)
    out_fd = os.open(out, os.O_RDONLY)
    try:
        os.close(open_by_handle(fd, handle_of(out_fd)))
    except PermissionError:
        pytest.skip("CAP_DAC_READ_SEARCH is needed to open by a handle")
    finally:
        os.close(fd)
        os.close(out_fd)
    before = watcher.counters.events
    (out / "file").touch()
    assert not readable(watcher, 0.05)
    assert watcher.read() == []
    assert watcher.counters.events == before


def test_removing_a_tree_removes_its_marks(watcher: FanotifyWatcher, tree: Path) -> None:
    (tree / "a" / "b").mkdir(parents=True)
    watcher.add(tree, recursive=True)
    assert watcher.counters.watches == 3
    watcher.remove(tree)
    assert watcher.counters.watches == 0
    (tree / "a" / "b" / "file").touch()
    assert watcher.read() == []


def test_a_directory_that_moved_during_an_overflow_is_known_by_its_handle(
    watcher: FanotifyWatcher, tree: Path
) -> None:
    (tree / "a").mkdir()
    (tree / "a" / "file").touch()
    watcher.add(tree, recursive=True)
    (tree / "a").rename(tree / "b")
    watcher._group.read()  # as if lost
    for root in watcher._roots.values():
        watcher._hint(root).lost = True
    told = watcher.read()
    assert told[0] == Change(Kind.OVERFLOW, path(tree), None, True)
    assert Change(Kind.MOVED, path(tree, "b"), path(tree, "a"), True) in told
    (tree / "b" / "more").touch()
    assert Change(Kind.CREATED, path(tree, "b", "more")) in settle(watcher, tree)


# Before Linux 5.17.


def test_without_fan_rename_what_is_told_is_right(
    old_watcher: FanotifyWatcher, tree: Path
) -> None:
    (tree / "a").mkdir()
    (tree / "a" / "file").write_bytes(b"1")
    (tree / "kept").write_bytes(b"old")
    old_watcher.add(tree, recursive=True)
    copy = Copy(tree)
    (tree / "a").rename(tree / "b")
    (tree / "kept~").write_bytes(b"new")
    os.replace(tree / "kept~", tree / "kept")
    (tree / "b" / "file").rename(tree / "file")
    copy.apply(settle(old_watcher, tree))
    assert copy.names == names(tree)
    assert copy.stale() == set()
