"""What fanotify does, each fact a test: on it rests the watcher of that name.

`pollers/fanotify.py` states them; sources are fanotify(7), fs/notify/fanotify/ and trying.  What
it cannot do, or not for everybody, is in test_fanotify_limits.py.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from fanotifygroup import ENTRIES, NAMES, Marked, kernel, seen, since_5_17

from pollers import fanotify
from pollers.fanotify import (
    FAN_ATTRIB,
    FAN_CLOSE_WRITE,
    FAN_CREATE,
    FAN_DELETE,
    FAN_DELETE_SELF,
    FAN_MODIFY,
    FAN_MOVED_FROM,
    FAN_MOVED_TO,
    FAN_ONDIR,
    FAN_RENAME,
    METADATA,
    Event,
    Fanotify,
)
from pollers.filehandle import handle_of


@pytest.fixture
def group() -> Iterator[Fanotify]:
    with Fanotify() as group:
        yield group


# The group and its marks.


@kernel
def test_it_does_not_block_and_is_not_inherited(group: Fanotify) -> None:
    assert group.read() == []
    assert not os.get_blocking(group.fileno())
    assert not os.get_inheritable(group.fileno())


@kernel
def test_closing_twice_is_closing_once(group: Fanotify) -> None:
    group.close()
    assert group.fileno() == -1
    group.close()


@kernel
def test_name_to_handle_at_gives_what_events_carry(group: Fanotify, tmp_path: Path) -> None:
    """So that a table of the marked directories is enough to resolve them, without any right."""
    marked = Marked(group, tmp_path, NAMES)
    (tmp_path / "sub").mkdir()
    (event,) = group.read()
    assert event.place == marked.place("sub")
    fd = os.open(tmp_path / "sub", getattr(os, "O_PATH", 0) | os.O_DIRECTORY)
    try:
        if group.targets:
            assert event.target == handle_of(fd)
    finally:
        os.close(fd)


@kernel
@pytest.mark.parametrize("name", [b"n", b"x" * 15, b"x" * 255, b"\xff\xfe", b"a\nb"])
def test_any_name_arrives_whole(group: Fanotify, tmp_path: Path, name: bytes) -> None:
    Marked(group, tmp_path, NAMES)
    os.mkdir(os.path.join(os.fsencode(tmp_path), name))
    assert seen(group) == [(FAN_CREATE | FAN_ONDIR, name)]


@kernel
def test_an_event_is_queued_before_its_cause_returns(group: Fanotify, tmp_path: Path) -> None:
    Marked(group, tmp_path, NAMES)
    for number in range(100):
        (tmp_path / f"file-{number}").touch()
        assert seen(group) == [(FAN_CREATE, b"file-%d" % number)]


@kernel
def test_the_fd_is_readable_until_all_is_read(group: Fanotify, tmp_path: Path) -> None:
    Marked(group, tmp_path, NAMES)
    assert not select.select([group], [], [], 0)[0]
    (tmp_path / "file").touch()
    assert select.select([group], [], [], 0)[0]
    assert len(group.read()) == 1
    assert not select.select([group], [], [], 0)[0]


@kernel
def test_reads_are_bounded_and_the_next_goes_on(group: Fanotify, tmp_path: Path) -> None:
    Marked(group, tmp_path, NAMES)
    names = [b"file-%d" % number for number in range(6000)]
    (tmp_path / "file").touch()
    group.read()
    for name in names:
        os.link(tmp_path / "file", os.fsencode(tmp_path) + b"/" + name)
    first = group.read()
    assert len(first) <= fanotify.READS * fanotify.BUFFER // METADATA.size
    rest: list[Event] = []
    while more := group.read():
        rest += more
    assert rest
    assert [e.place.name for e in first + rest if e.place] == names


@kernel
def test_a_mark_is_of_the_entries_and_not_of_their_entries(
    group: Fanotify, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    Marked(group, tmp_path, NAMES)
    (tmp_path / "sub" / "file").touch()
    assert seen(group) == []


@kernel
def test_the_directory_itself_is_a_dot(group: Fanotify, tmp_path: Path) -> None:
    """Its own events come by its own mark; its parent's tells of them too, by name."""
    Marked(group, tmp_path / "sub", FAN_ATTRIB | ENTRIES)
    Marked(group, tmp_path, FAN_ATTRIB | ENTRIES)
    (tmp_path / "sub").chmod(0o700)
    assert (FAN_ATTRIB | FAN_ONDIR, b".") in seen(group)


@kernel
def test_a_removed_directory_ends_its_mark(group: Fanotify, tmp_path: Path) -> None:
    marked = Marked(group, tmp_path / "sub", NAMES | FAN_DELETE_SELF)
    (tmp_path / "sub").rmdir()
    (event,) = group.read()
    assert (event.mask, event.place) == (FAN_DELETE_SELF | FAN_ONDIR, marked.place("."))
    Marked(group, tmp_path / "sub", NAMES)
    assert seen(group) == []


@kernel
def test_removing_a_mark_that_is_not_there_is_no_error(group: Fanotify, tmp_path: Path) -> None:
    marked = Marked(group, tmp_path, NAMES)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(2):
            group.remove_fd(fd, marked.mask)
        (tmp_path / "file").touch()
        assert seen(group) == []
    finally:
        os.close(fd)


@kernel
def test_an_o_path_descriptor_cannot_be_marked(group: Fanotify, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError, match="fanotify_mark") as refused:
            group.add_fd(fd, NAMES)
        assert refused.value.errno == errno.EBADF
    finally:
        os.close(fd)


# What a rename says, and what merging makes of it.


@kernel
@since_5_17
def test_a_rename_is_one_event_with_both_names(group: Fanotify, tmp_path: Path) -> None:
    one = Marked(group, tmp_path / "one", FAN_RENAME | ENTRIES)
    two = Marked(group, tmp_path / "two", FAN_RENAME | ENTRIES)
    (one.path / "file").touch()
    (one.path / "file").rename(two.path / "other")
    (event,) = group.read()
    assert (event.mask, event.old, event.new) == (
        FAN_RENAME,
        one.place("file"),
        two.place("other"),
    )


@kernel
@since_5_17
def test_a_rename_over_the_edge_has_one_side(group: Fanotify, tmp_path: Path) -> None:
    one = Marked(group, tmp_path / "one", FAN_RENAME | ENTRIES)
    (one.path / "file").touch()
    (one.path / "file").rename(tmp_path / "out")
    (tmp_path / "out").rename(one.path / "in")
    out, back = group.read()
    assert (out.old, out.new) == (one.place("file"), None)
    assert (back.old, back.new) == (None, one.place("in"))


@kernel
def test_the_halves_of_a_rename_have_nothing_that_joins_them(
    group: Fanotify, tmp_path: Path
) -> None:
    """Before FAN_RENAME: no cookie; from 5.17 on the target's handle does."""
    Marked(group, tmp_path, FAN_MOVED_FROM | FAN_MOVED_TO | ENTRIES)
    (tmp_path / "file").touch()
    (tmp_path / "file").rename(tmp_path / "other")
    gone, come = group.read()
    assert (gone.mask, come.mask) == (FAN_MOVED_FROM, FAN_MOVED_TO)
    assert gone.target == come.target
    assert (gone.target is not None) == group.targets


@kernel
def test_what_happened_to_a_name_is_merged_and_its_order_lost(
    group: Fanotify, tmp_path: Path
) -> None:
    """After the same event the file may be there or not."""
    Marked(group, tmp_path, NAMES)
    (tmp_path / "file").touch()
    os.link(tmp_path / "file", tmp_path / "a")
    os.unlink(tmp_path / "a")
    group.read()
    os.link(tmp_path / "file", tmp_path / "a")
    os.unlink(tmp_path / "a")
    gone = seen(group)
    os.link(tmp_path / "file", tmp_path / "a")
    os.unlink(tmp_path / "a")
    os.link(tmp_path / "file", tmp_path / "a")
    assert seen(group) == gone == [(FAN_CREATE | FAN_DELETE, b"a")]


@kernel
@since_5_17
def test_merging_goes_past_what_lies_between(group: Fanotify, tmp_path: Path) -> None:
    """The file ends as g, and reading the events in order says f."""
    marked = Marked(group, tmp_path, FAN_RENAME | FAN_CREATE | ENTRIES)
    f, g = tmp_path / "f", tmp_path / "g"
    f.touch()
    f.rename(g)
    g.rename(f)
    f.rename(g)
    assert [(e.place, e.old, e.new) for e in group.read()] == [
        (marked.place("f"), None, None),
        (None, marked.place("f"), marked.place("g")),
        (None, marked.place("g"), marked.place("f")),
    ]
    assert g.exists()


@kernel
@since_5_17
def test_another_file_of_the_same_name_is_another_event(group: Fanotify, tmp_path: Path) -> None:
    """By its generation, even where it has the inode number of the one before."""
    Marked(group, tmp_path, NAMES)
    for _ in range(2):
        (tmp_path / "file").touch()
        (tmp_path / "file").unlink()
    first, second = group.read()
    assert first.mask == second.mask == FAN_CREATE | FAN_DELETE
    assert first.target != second.target


# What is not reported.


@kernel
def test_writes_through_a_mapping_are_silent(group: Fanotify, tmp_path: Path) -> None:
    """Until the file is closed, where it was open for writing."""
    (tmp_path / "file").write_bytes(b"old")
    Marked(group, tmp_path, FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB | ENTRIES)
    with open(tmp_path / "file", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[:] = b"new"
        mapping.flush()
        assert seen(group) == []
    assert seen(group) == [(FAN_CLOSE_WRITE, b"file")]


@kernel
def test_writes_by_another_hard_link_are_silent(group: Fanotify, tmp_path: Path) -> None:
    marked = Marked(group, tmp_path / "inside", FAN_MODIFY | FAN_ATTRIB | NAMES)
    (marked.path / "file").write_bytes(b"old")
    group.read()
    os.link(marked.path / "file", tmp_path / "outside")
    (tmp_path / "outside").write_bytes(b"new")
    assert seen(group) == []
