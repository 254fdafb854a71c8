"""Writes that are told without being looked into again: told as they would be otherwise."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from adapters import available
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import exchange, readable

from pollers import watch
from pollers.watch.base import Change, Kind
from pollers.watch.inotify import InotifyWatcher
from pollers.watch.memo import MOST, Memo

available("inotify")

#: Two directories that may be each other's, and files that may be either's.
NAMES = ("one", "sub", "sub/one", "sub/deep", "sub/deep/one", "two", "two/one", "two/deep/one")
RENAMES = (
    ("sub", "two"),
    ("two", "sub"),
    ("sub/deep", "two/deep"),
    ("one", "sub/one"),
    ("two/one", "one"),
)
WHICH = st.sampled_from(NAMES)
STEPS = st.one_of(
    st.tuples(st.just("write"), WHICH, WHICH),
    st.tuples(st.just("write"), WHICH, WHICH),
    st.tuples(st.sampled_from(["unlink", "mkdir", "rmdir", "touch", "link"]), WHICH, WHICH),
    st.sampled_from([("rename", *names) for names in RENAMES]),
)


def all_of(watcher: InotifyWatcher) -> list[Change]:
    """What is told of all that has happened: nothing more comes but halves of renames."""
    told: list[Change] = []
    while readable(watcher, 1.0 if watcher._pairing else 0.0):
        told += watcher.read()
    return told


class Forgetful(InotifyWatcher):
    """It looks into every record."""

    def read(self) -> list[Change]:
        self._memo.clear()
        return super().read()


def do(root: Path, step: tuple[str, str, str]) -> None:
    what, name, other = step
    path = root / name
    with suppress(OSError):
        if what == "write":
            fd = os.open(path, os.O_WRONLY | os.O_CREAT)
            os.write(fd, b"x")
            os.close(fd)
        elif what == "unlink":
            path.unlink()
        elif what == "mkdir":
            path.mkdir()
        elif what == "rmdir":
            shutil.rmtree(path)
        elif what == "touch":
            os.utime(path)
        elif what == "rename":
            path.rename(root / other)
        else:
            os.link(path, root / other)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(STEPS, min_size=1, max_size=6), min_size=2, max_size=10))
def test_who_remembers_tells_the_same_as_who_does_not(
    turns: list[list[tuple[str, str, str]]],
) -> None:
    """Both read after the same steps, so that no listing is ahead of one of them only."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (root / "sub/deep").mkdir(parents=True)
        (root / "sub/one").touch()
        (root / "sub/deep/one").touch()
        one = stack.enter_context(InotifyWatcher())
        other = stack.enter_context(Forgetful())
        for watcher in (one, other):
            watcher.add(root, recursive=True)
        for turn in turns:
            for step in turn:
                do(root, step)
            assert all_of(one) == all_of(other)


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[InotifyWatcher]:
    (tmp_path / "sub").mkdir()
    for name in ("file", "sub/file"):
        (tmp_path / name).write_bytes(b"x")
    with InotifyWatcher() as watcher:
        watcher.add(tmp_path, recursive=True)
        (tmp_path / "file").write_bytes(b"y")
        (tmp_path / "sub/file").write_bytes(b"y")
        all_of(watcher)
        assert remembered(watcher, tmp_path) == {"file", "sub/file"}
        yield watcher


def remembered(watcher: InotifyWatcher, root: Path) -> set[str]:
    return {os.path.relpath(os.fsdecode(one.path), root) for one in watcher._memo.changes.values()}


def test_what_becomes_of_one_file_is_no_matter_to_others(
    watcher: InotifyWatcher, tmp_path: Path
) -> None:
    (tmp_path / "new").touch()
    (tmp_path / "file").unlink()
    all_of(watcher)
    assert remembered(watcher, tmp_path) == {"sub/file", "new"}
    (tmp_path / "new").rename(tmp_path / "sub/file")
    all_of(watcher)
    assert remembered(watcher, tmp_path) == set()


@pytest.mark.parametrize("change", ["rename", "mkdir", "rmdir", "remove", "add"])
def test_what_becomes_of_a_directory_may_be_a_matter_to_all(
    watcher: InotifyWatcher, tmp_path: Path, change: str
) -> None:
    if change == "rename":
        (tmp_path / "sub").rename(tmp_path / "other")
    elif change == "mkdir":
        (tmp_path / "third").mkdir()
    elif change == "rmdir":
        shutil.rmtree(tmp_path / "sub")
    elif change == "remove":
        watcher.remove(tmp_path)
    else:  # another path of the same: then a write is told by both
        other = tmp_path.with_suffix(".link")
        other.symlink_to(tmp_path / "sub")
        watcher.add(other)
    all_of(watcher)
    assert remembered(watcher, tmp_path) == set()
    if change == "rename":
        (tmp_path / "other/file").write_bytes(b"z")
        (told,) = set(all_of(watcher))
        assert told == Change(Kind.MODIFIED, os.fsencode(tmp_path / "other/file"))


def test_a_directory_that_changes_places_with_a_file_is_forgotten(
    watcher: InotifyWatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is two renames, of which the first is one of a file, and may be read by itself."""
    exchange(tmp_path / "file", tmp_path / "sub")
    (tmp_path / "file/file").write_bytes(b"z")
    records = watcher._inotify.records()
    parts = iter([records[:2], records[4:], records[2:4], []])
    with monkeypatch.context() as patch:
        patch.setattr(watcher._inotify, "records", lambda: next(parts))
        watcher.read()
        assert remembered(watcher, tmp_path) == set()
        assert watcher.read() == [], "what was deleted is not modified"
        watcher.read()


def test_a_memo_has_an_end() -> None:
    memo = Memo(lambda record: (record, 2, 0, b"name"))
    change = Change(Kind.MODIFIED, b"path")
    for number in range(MOST + 1):
        memo.remember(number, change)
    assert len(memo.changes) == 1
    memo.forget(MOST, b"another")
    assert memo.changes == {MOST: change}
    memo.forget(MOST, b"name")
    assert not memo.changes
    assert not memo._records


def test_the_package_is_remembered_as_well(tmp_path: Path) -> None:
    available("pyinotify")
    (tmp_path / "file").touch()
    with watch.create("pyinotify") as watcher:
        assert isinstance(watcher, InotifyWatcher)
        watcher.add(tmp_path)
        for _ in range(2):
            (tmp_path / "file").write_bytes(b"x")
            assert {one.kind for one in all_of(watcher)} == {Kind.MODIFIED}
        assert remembered(watcher, tmp_path) == {"file"}
