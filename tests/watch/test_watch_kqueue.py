"""The kqueue watcher: what vnode notes mean, and its logic over a model of FreeBSD's.

The contract runs over the real one where there is one (test_watch_contract_*.py).
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, run_state_machine_as_test
from test_watch_stateful import PATHS, Tree
from vnodemodel import open_model
from watching import Copy, names, settle

from pollers import inotify
from pollers.watch.base import Capability, Change, Kind
from pollers.watch.hints import ALTERED, WRITTEN
from pollers.watch.knotes import FLAGS
from pollers.watch.kqueue import KqueueWatcher
from pollers.watch.vnodes import (
    COMMON,
    DIALECTS,
    NOTE_ATTRIB,
    NOTE_CLOSE_WRITE,
    NOTE_DELETE,
    NOTE_EXTEND,
    NOTE_LINK,
    NOTE_RENAME,
    NOTE_REVOKE,
    NOTE_TRUNCATE,
    NOTE_WRITE,
    OTHER,
    Said,
    dialect_of,
    said,
)

FREEBSD = DIALECTS["freebsd"]

# Notes, as FreeBSD's kernel joins them.


def test_the_numbers_are_those_of_sys_event_h() -> None:
    assert [NOTE_DELETE, NOTE_WRITE, NOTE_EXTEND, NOTE_ATTRIB] == [1, 2, 4, 8]
    assert [NOTE_LINK, NOTE_RENAME, NOTE_REVOKE, NOTE_CLOSE_WRITE] == [0x10, 0x20, 0x40, 0x200]
    assert COMMON == 0x7F


def test_each_system_is_asked_for_its_own_notes_only() -> None:
    assert dialect_of("freebsd14").notes & NOTE_CLOSE_WRITE
    assert not dialect_of("freebsd14").notes & NOTE_TRUNCATE  # NOTE_OPEN there
    assert dialect_of("openbsd7").notes & NOTE_TRUNCATE
    assert dialect_of("netbsd10").filter == 3
    assert dialect_of("darwin") == dialect_of("dragonfly6") == OTHER
    assert OTHER.notes == COMMON


@pytest.mark.parametrize(
    ("fflags", "directory", "expected"),
    [
        # write(2) at the end of a file; within it
        (NOTE_WRITE | NOTE_EXTEND, False, Said(WRITTEN, False, False, False)),
        (NOTE_WRITE, False, Said(WRITTEN, False, False, False)),
        # close(2) of what was open for writing
        (NOTE_CLOSE_WRITE, False, Said(WRITTEN, False, False, False)),
        # chmod(2), utimes(2), truncate(2)
        (NOTE_ATTRIB, False, Said(ALTERED, False, False, False)),
        # link(2)
        (NOTE_LINK, False, Said(ALTERED, False, False, False)),
        # unlink(2) of one of several names, and of the last one
        (NOTE_DELETE | NOTE_LINK, False, Said(0, False, False, True)),
        (NOTE_DELETE, False, Said(0, False, False, True)),
        # rename(2)
        (NOTE_RENAME, False, Said(0, False, True, True)),
        (NOTE_RENAME, True, Said(0, False, True, True)),
        # written, and then moved
        (NOTE_WRITE | NOTE_RENAME, False, Said(WRITTEN, False, True, True)),
        # a file made in a directory; a directory; a rename into it
        (NOTE_WRITE, True, Said(0, True, False, False)),
        (NOTE_WRITE | NOTE_LINK, True, Said(0, True, False, False)),
        (NOTE_WRITE | NOTE_EXTEND, True, Said(0, True, False, False)),
        # rmdir(2), revoke(2) or unmounted
        (NOTE_DELETE, True, Said(0, False, False, True)),
        (NOTE_REVOKE, True, Said(0, False, False, True)),
    ],
)
def test_what_notes_say(fflags: int, directory: bool, expected: Said) -> None:
    assert said(fflags, directory, FREEBSD) == expected


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.booleans())
def test_joined_notes_say_no_less(one: int, other: int, directory: bool) -> None:
    """As the kernel joins them: nothing but attributes of what is gone may get lost."""
    both, first = said(one | other, directory, FREEBSD), said(one, directory, FREEBSD)
    assert both.list_it >= first.list_it
    assert both.renamed >= first.renamed
    assert both.gone >= first.gone
    assert first.what & ~both.what in (0, ALTERED)
    assert not first.what & ~both.what or both.gone


# The adapter over the model.

model = pytest.mark.skipif(inotify._init1 is None, reason="the model needs inotify")


@pytest.fixture
def watcher() -> Iterator[KqueueWatcher]:
    with KqueueWatcher(open_model) as watcher:
        watcher._knotes.dialect = FREEBSD
        yield watcher


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """Have no more than `count` descriptors left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(fd) for fd in os.listdir("/proc/self/fd")}
    limit = next(n for n in range(soft) if n - len([fd for fd in used if fd < n]) == count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@model
def test_it_is_not_marked_as_emulated_and_has_the_kqueues_fd(watcher: KqueueWatcher) -> None:
    assert not watcher.emulated
    assert watcher.capabilities & Capability.LINKS


@model
def test_every_name_is_an_open_file(watcher: KqueueWatcher, tree: Path) -> None:
    (tree / "a").mkdir()
    for number in range(5):
        (tree / "a" / str(number)).touch()
    watcher.add(tree, recursive=True)
    assert watcher.counters.watches == 7
    (tree / "a" / "0").unlink()
    (tree / "b").touch()
    settle(watcher, tree)
    assert watcher.counters.watches == 7
    watcher.remove(tree)
    assert watcher.counters.watches == 0


@model
def test_links_and_devices_are_names_only(watcher: KqueueWatcher, tree: Path) -> None:
    (tree / "link").symlink_to("nowhere")
    watcher.add(tree)
    assert watcher.counters.watches == 1
    (tree / "link").unlink()
    told = settle(watcher, tree)
    assert told == [Change(Kind.DELETED, os.fsencode(tree / "link"))]


@model
def test_a_fifo_is_not_opened_where_that_would_be_seen(watcher: KqueueWatcher, tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    watcher._knotes.flags = FLAGS[-1]
    watcher.add(tree)
    assert watcher.counters.watches == 1
    with pytest.raises(OSError, match="No such device"):  # ENXIO: nobody reads
        os.open(tree / "fifo", os.O_WRONLY | os.O_NONBLOCK)


@model
def test_a_write_by_another_hard_link_is_told(watcher: KqueueWatcher, tree: Path) -> None:
    (tree / "file").write_bytes(b"old")
    os.link(tree / "file", tree.parent / "outside" / "file")
    watcher.add(tree)
    (tree.parent / "outside" / "file").write_bytes(b"new, and longer")
    assert Change(Kind.MODIFIED, os.fsencode(tree / "file")) in settle(watcher, tree)


@model
def test_a_file_that_was_written_and_moved_is_moved_and_modified(
    watcher: KqueueWatcher, tree: Path
) -> None:
    (tree / "a").write_bytes(b"old")
    watcher.add(tree)
    (tree / "a").write_bytes(b"new, and longer")
    (tree / "a").rename(tree / "b")
    told = settle(watcher, tree)
    a, b = os.fsencode(tree / "a"), os.fsencode(tree / "b")
    assert told[0] == Change(Kind.MOVED, b, a)
    assert Change(Kind.MODIFIED, b) in told


@model
def test_a_truncation_is_modification_though_the_note_is_of_attributes(
    watcher: KqueueWatcher, tree: Path
) -> None:
    (tree / "file").write_bytes(b"long")
    watcher.add(tree)
    os.truncate(tree / "file", 1)
    assert Change(Kind.MODIFIED, os.fsencode(tree / "file")) in settle(watcher, tree)


@model
def test_without_descriptors_it_says_what_to_do_and_changed_nothing(
    watcher: KqueueWatcher, tree: Path
) -> None:
    for number in range(200):
        (tree / str(number)).touch()
    with room_for(50), pytest.raises(OSError, match="ulimit -n"):
        watcher.add(tree)
    assert watcher.counters.watches == 0
    watcher.add(tree)
    (tree / "0").unlink()
    assert Change(Kind.DELETED, os.fsencode(tree / "0")) in settle(watcher, tree)


@model
def test_without_descriptors_while_reading_nothing_is_lost(
    watcher: KqueueWatcher, tree: Path
) -> None:
    """It is raised, once a second, until there are some; then all is told."""
    watcher.add(tree, recursive=True)
    copy = Copy(tree)
    for number in range(200):
        (tree / str(number)).touch()
    with room_for(50), pytest.raises(OSError, match="ulimit -n"):
        watcher.read()
    copy.apply(settle(watcher, tree))
    assert copy.names == names(tree)


class ModelTree(Tree):
    """The state machine of every adapter, over the model."""

    @initialize(before=st.lists(PATHS, max_size=4))
    def begin(self, before: list[bytes]) -> None:
        self.root.mkdir()
        (self.top / "outside").mkdir()
        for path in before:
            self.make_directories(path, "tree")
        self.watcher = KqueueWatcher(open_model)
        self.watcher._knotes.dialect = FREEBSD
        self.watcher.add(self.root, recursive=True)
        self.copy = Copy(self.root)


@model
@pytest.mark.timeout(300)
def test_what_is_told_over_the_model_gives_what_is_there() -> None:
    run_state_machine_as_test(
        ModelTree,
        settings=settings(
            max_examples=int(os.environ.get("WATCH_EXAMPLES", "6")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_flags_never_wait_for_a_fifo_and_are_not_inherited() -> None:
    for flags in FLAGS:
        assert flags & os.O_CLOEXEC
        assert flags & os.O_NONBLOCK
