"""The contract of every watcher that works here: what is told of one name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from watching import Copy, names, of, raw, read_until, settle

from pollers.watch import Capability, Change, Kind, Watcher

CREATED, MODIFIED, DELETED = Kind.CREATED, Kind.MODIFIED, Kind.DELETED
MOVED, ATTRIBUTES = Kind.MOVED, Kind.ATTRIBUTES


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
