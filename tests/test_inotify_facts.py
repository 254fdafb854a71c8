"""What inotify does, each fact a test: on it rests what drops files from a server's cache.

`pollers/inotify.py` states them; sources are inotify(7), fs/notify/ and trying.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from namespaces import limited

from pollers import inotify
from pollers.inotify import (
    HEADER,
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    Event,
    Inotify,
)

if inotify._init1 is None:  # where libc has it, it has to work
    pytest.skip("this system has no inotify", allow_module_level=True)

NAMES = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO


@pytest.fixture
def watch() -> Iterator[Inotify]:
    with Inotify() as watch:
        yield watch


def seen(watch: Inotify) -> list[tuple[int, bytes]]:
    """The masks and names of what is queued."""
    return [(event.mask, event.name) for event in watch.read()]


# The instance.


def test_it_does_not_block_and_is_not_inherited(watch: Inotify) -> None:
    assert watch.read() == []
    assert not os.get_blocking(watch.fileno())
    assert not os.get_inheritable(watch.fileno())


def test_closing_twice_is_closing_once(watch: Inotify) -> None:
    watch.close()
    assert watch.fileno() == -1
    watch.close()


@pytest.mark.parametrize("name", [b"n", b"x" * 15, b"x" * 16, b"x" * 255, b"\xff\xfe", b"a\nb"])
def test_any_name_arrives_whole(watch: Inotify, tmp_path: Path, name: bytes) -> None:
    wd = watch.add(os.fsencode(tmp_path), IN_CREATE)
    os.mkdir(os.path.join(os.fsencode(tmp_path), name))
    assert watch.read() == [Event(wd, IN_CREATE | IN_ISDIR, 0, name)]


# When an event is there.


def test_an_event_is_queued_before_its_cause_returns(watch: Inotify, tmp_path: Path) -> None:
    """So that who reads before it answers a request knows what happened before the request."""
    watch.add(os.fsencode(tmp_path), NAMES)
    for number in range(100):
        (tmp_path / "new").touch()
        os.replace(tmp_path / "new", tmp_path / "file")
        assert seen(watch)[-1] == (IN_MOVED_TO, b"file"), number


def test_epoll_may_return_what_came_later_first(watch: Inotify, tmp_path: Path) -> None:
    """A connection that the last poll returned is still in epoll's list, before the inotify fd.

    So the order within a batch does not tell whether a change came before a request.
    """
    if not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
    watch.add(os.fsencode(tmp_path), IN_CREATE)
    near, far = socket.socketpair()
    with near, far, select.epoll() as epoll:
        epoll.register(watch.fileno(), select.EPOLLIN)
        epoll.register(near.fileno(), select.EPOLLIN)
        far.send(b"x")
        assert epoll.poll(5) == [(near.fileno(), select.EPOLLIN)]
        near.recv(1)
        (tmp_path / "file").touch()
        far.send(b"x")
        assert [fd for fd, _ in epoll.poll(5)] == [near.fileno(), watch.fileno()]


def test_the_fd_is_readable_until_all_is_read(watch: Inotify, tmp_path: Path) -> None:
    watch.add(os.fsencode(tmp_path), NAMES)
    assert not select.select([watch], [], [], 0)[0]
    (tmp_path / "file").touch()
    assert select.select([watch], [], [], 0)[0]
    assert len(watch.read()) == 1
    assert not select.select([watch], [], [], 0)[0]


@pytest.fixture
def burst(tmp_path: Path) -> Iterator[Callable[[int], list[bytes]]]:
    """Causes that many events, no two in a row equal, and returns their names in order."""
    names = [b"file-1", b"file-2"]
    with ExitStack() as stack:
        files = [stack.enter_context(open(tmp_path / os.fsdecode(n), "wb")) for n in names]

        def touch(count: int) -> list[bytes]:
            for number in range(count):
                os.utime(files[number % 2].fileno())  # IN_ATTRIB
            return [names[number % 2] for number in range(count)]

        yield touch


def test_one_read_is_bounded_and_the_next_goes_on(
    watch: Inotify, tmp_path: Path, burst: Callable[[int], list[bytes]]
) -> None:
    watch.add(os.fsencode(tmp_path), IN_ATTRIB)
    names = burst(6000)
    first = watch.read()
    assert len(first) <= inotify.READS * inotify.BUFFER // (HEADER.size + 16)
    rest = []
    while events := watch.read():
        rest += events
    assert rest
    assert [event.name for event in first + rest] == names


def test_equal_events_in_a_row_are_one(watch: Inotify, tmp_path: Path) -> None:
    watch.add(os.fsencode(tmp_path), IN_MODIFY)
    with open(tmp_path / "file", "wb", buffering=0) as file:
        for _ in range(5):
            file.write(b"x")
    assert seen(watch) == [(IN_MODIFY, b"file")]


# What a watch sits on.


def test_the_same_inode_has_one_watch(watch: Inotify, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    wd = watch.add(os.fsencode(one), IN_CREATE)
    one.rename(other)
    assert watch.add(os.fsencode(other), IN_DELETE) == wd
    (other / "file").touch()
    assert seen(watch) == []  # the mask was replaced
    assert watch.add(os.fsencode(other), IN_CREATE | IN_MASK_ADD) == wd
    (other / "file").unlink()
    assert seen(watch) == [(IN_DELETE, b"file")]


def test_a_directory_that_was_moved_away_goes_on_reporting(watch: Inotify, tmp_path: Path) -> None:
    """Which is why its parent is watched too, and its own watch ended."""
    inside, elsewhere = tmp_path / "inside", tmp_path / "elsewhere"
    (inside / "directory").mkdir(parents=True)
    elsewhere.mkdir()
    parent = watch.add(os.fsencode(inside), NAMES)
    wd = watch.add(os.fsencode(inside / "directory"), NAMES)
    (inside / "directory").rename(elsewhere / "directory")
    (elsewhere / "directory" / "file").touch()
    moved, created = watch.read()
    assert (moved.wd, moved.mask, moved.name) == (parent, IN_MOVED_FROM | IN_ISDIR, b"directory")
    assert (created.wd, created.mask, created.name) == (wd, IN_CREATE, b"file")


def test_an_atomic_save_ends_the_watch_of_a_file(watch: Inotify, tmp_path: Path) -> None:
    """Which is why directories are watched, where it is a name that came."""
    file = tmp_path / "file"
    file.touch()
    wd = watch.add(os.fsencode(file), IN_MODIFY)
    (tmp_path / "new").touch()
    os.replace(tmp_path / "new", file)
    assert watch.read() == [Event(wd, IN_IGNORED, 0, b"")]
    file.write_bytes(b"x")
    assert watch.read() == []


def test_a_removed_directory_ends_its_watch(watch: Inotify, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    wd = watch.add(os.fsencode(tmp_path / "directory"), NAMES | IN_ONLYDIR)
    (tmp_path / "directory").rmdir()
    assert watch.read() == [Event(wd, IN_IGNORED, 0, b"")]
    watch.remove(wd)  # which is no error


def test_an_open_directory_keeps_its_watch_when_removed(watch: Inotify, tmp_path: Path) -> None:
    """Its inode is still there; only the parent reports."""
    (tmp_path / "directory").mkdir()
    fd = os.open(tmp_path / "directory", os.O_RDONLY)
    watch.add(os.fsencode(tmp_path), NAMES)
    watch.add_fd(fd, NAMES)
    (tmp_path / "directory").rmdir()
    assert seen(watch) == [(IN_DELETE | IN_ISDIR, b"directory")]
    os.close(fd)
    assert seen(watch) == [(IN_IGNORED, b"")]


def test_a_number_is_not_used_again_and_old_events_still_come(
    watch: Inotify, tmp_path: Path
) -> None:
    wd = watch.add(os.fsencode(tmp_path), IN_CREATE)
    (tmp_path / "file").touch()
    watch.remove(wd)
    again = watch.add(os.fsencode(tmp_path), IN_CREATE)
    assert again > wd
    (tmp_path / "another").touch()
    assert watch.read() == [
        Event(wd, IN_CREATE, 0, b"file"),
        Event(wd, IN_IGNORED, 0, b""),
        Event(again, IN_CREATE, 0, b"another"),
    ]


def test_an_fd_can_be_watched_whatever_its_path_is_now(watch: Inotify, tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    fd = os.open(directory, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
    directory.rename(tmp_path / "moved")
    directory.mkdir()
    wd = watch.add_fd(fd, NAMES | IN_ONLYDIR)
    os.close(fd)
    (directory / "file").touch()
    (tmp_path / "moved" / "right").touch()
    assert watch.read() == [Event(wd, IN_CREATE, 0, b"right")]


def test_onlydir_refuses_a_file(watch: Inotify, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="inotify_add_watch"):
        watch.add(os.fsencode(tmp_path / "file"), IN_CREATE | IN_ONLYDIR)


# What is reported, and what is not.


def test_a_new_mode_of_a_directory_is_reported_twice(watch: Inotify, tmp_path: Path) -> None:
    """By itself and by its parent."""
    (tmp_path / "directory").mkdir()
    watch.add(os.fsencode(tmp_path), IN_ATTRIB)
    watch.add(os.fsencode(tmp_path / "directory"), IN_ATTRIB)
    (tmp_path / "directory").chmod(0o700)
    assert sorted(seen(watch)) == [
        (IN_ATTRIB | IN_ISDIR, b""),
        (IN_ATTRIB | IN_ISDIR, b"directory"),
    ]


def test_a_link_is_no_directory(watch: Inotify, tmp_path: Path) -> None:
    """Its event has no IN_ISDIR, though a whole tree appears or goes with it."""
    watch.add(os.fsencode(tmp_path), IN_CREATE)
    (tmp_path / "link").symlink_to(".")
    assert seen(watch) == [(IN_CREATE, b"link")]


def test_writes_through_a_mapping_are_silent(watch: Inotify, tmp_path: Path) -> None:
    """Until the file is closed, where it was open for writing."""
    (tmp_path / "file").write_bytes(b"old")
    watch.add(os.fsencode(tmp_path), IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB)
    with open(tmp_path / "file", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[:] = b"new"
        mapping.flush()
        assert (tmp_path / "file").read_bytes() == b"new"
        assert seen(watch) == []
    assert seen(watch) == [(IN_CLOSE_WRITE, b"file")]


def test_writes_by_another_hard_link_are_silent(watch: Inotify, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "file").write_bytes(b"old")
    watch.add(os.fsencode(inside), IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | NAMES)
    os.link(inside / "file", outside / "file")
    assert seen(watch) == []  # nor is the link itself
    (outside / "file").write_bytes(b"new")
    assert (inside / "file").read_bytes() == b"new"
    assert seen(watch) == []


# Limits.


def test_a_full_queue_says_so_once_and_forgets(
    watch: Inotify, tmp_path: Path, burst: Callable[[int], list[bytes]]
) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    watch.add(os.fsencode(tmp_path), IN_ATTRIB)
    burst(limit + 1000)
    events = []
    while more := watch.read():
        events += more
    assert len(events) == limit + 1
    assert events[-1] == Event(-1, IN_Q_OVERFLOW, 0, b"")
    burst(1)
    assert seen(watch) == [(IN_ATTRIB, b"file-1")]  # it goes on


FEW = """
import os
from pollers.inotify import IN_CREATE, Inotify
watches = [Inotify()]
try:
    for name in "abcd":
        if sys.argv[1] == "instances":
            watches.append(Inotify())
        os.mkdir(name)
        watches[0].add(name, IN_CREATE)
except OSError as error:
    print(name, error)
"""


@pytest.mark.parametrize(
    ("what", "last", "number"),
    [("instances", "c", errno.EMFILE), ("watches", "d", errno.ENOSPC)],
)
def test_a_limit_says_what_to_raise(tmp_path: Path, what: str, last: str, number: int) -> None:
    said = limited(FEW, {f"max_inotify_{what}": 3}, what, cwd=tmp_path)
    assert said.startswith(f"{last} [Errno {number}] "), said
    assert f"sysctl -w fs.inotify.max_user_{what}=" in said


def test_without_inotify_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where libc has no such function; importing the module worked all the same."""
    monkeypatch.setattr(inotify, "_init1", None)
    with pytest.raises(OSError, match="this system has no inotify") as refused:
        Inotify()
    assert refused.value.errno == errno.ENOSYS
