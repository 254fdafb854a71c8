"""What tells that something happened in a directory: inotify itself, or any watcher of pollers.

Two sources
-----------
*   `InotifySource` takes inotify's events as they are: a watch is one system call, and nothing is
    kept of the names in a directory, however many there are.  It is the default where it can be.
*   `WatcherSource` takes the changes of a watcher of pollers.watch.  These list a directory before
    they watch it, and keep its names: a directory of 10,000 is some 10 ms of the loop, once.
*   A watcher is told to hold nothing back (`pairing=0`): a rename's half that waits for the other
    would keep what came later from being known.
*   A watcher goes by paths.  The root's is the one that its fd has in /proc, so that the root may
    be renamed; where there is no /proc it is the path that was given.  A directory that was
    swapped for a link, between the look that found none and the watch, is told by the watch above.
*   What a watcher cannot look at, for want of fds, it raises.  Then everything may have changed.
*   A watcher may hold descriptors (`watcher.price`): fanotify's one for each directory, a kqueue
    two, and one for each name in it, which it takes as names come.  inotify's hold none.
*   Only a watcher that is PROMPT lets nobody be answered with what was replaced before he asked.
    One that looks now and then (stat) tells within its period.
"""

from __future__ import annotations

import itertools
import os
import select
from typing import Final, NamedTuple, Protocol

from pollers import watch
from pollers.base import POLLIN
from pollers.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_EXCL_UNLINK,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    Inotify,
)
from pollers.watch.base import join, split
from servers.file.root import Root

#: IN_CLOSE_WRITE is there for who wrote by mmap(2) and closes afterwards.
MASK: Final = (
    IN_ATTRIB
    | IN_CLOSE_WRITE
    | IN_CREATE
    | IN_DELETE
    | IN_MODIFY
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_EXCL_UNLINK
    | IN_ONLYDIR
)
#: Seconds between two looks of a watcher that looks: what a file that is not watched gets.
PERIOD: Final = 1.0
#: The most times that a watcher is read before everything is called changed.
READS: Final = 4


class News(NamedTuple):
    """Something happened to a name."""

    #: A watched directory, relative to the root.
    directory: bytes
    #: b"" where it is the directory itself.
    name: bytes
    is_directory: bool


class Source(Protocol):
    """Watches single directories.  Paths are relative to the root, as Root has them."""

    #: What it is called in the ready line.
    name: str

    def watch(self, path: bytes, fd: int) -> None:
        """Tell of the names in a directory from now on; `fd` has it open.  Raises OSError."""

    def unwatch(self, path: bytes) -> None:
        """End that.  What has ended by itself is no error."""

    def holds(self) -> int:
        """How many descriptors the watches hold."""

    def takes(self, fd: int, most: int) -> int:
        """How many a watch of the open directory would hold; beyond `most` it is not counted."""

    def read(self) -> list[News] | None:
        """What has happened; it does not wait.  None: more than can be told."""

    def fileno(self) -> int:
        """Readable when there is something to `read`; -1 when closed."""

    def close(self) -> None:
        """End everything.  May be repeated."""


class InotifySource:
    """inotify(7).  Raises OSError, with the reason and what to do."""

    name = "inotify"

    def __init__(self) -> None:
        self._inotify = Inotify()
        self._wds: dict[bytes, int] = {}
        #: wd -> the paths of that directory; more than one while a rename is unread.
        self._paths: dict[int, list[bytes]] = {}

    def watch(self, path: bytes, fd: int) -> None:
        wd = self._inotify.add_fd(fd, MASK)
        self._wds[path] = wd
        self._paths.setdefault(wd, []).append(path)

    def unwatch(self, path: bytes) -> None:
        wd = self._wds.pop(path)
        paths = self._paths[wd]
        paths.remove(path)
        if not paths:
            del self._paths[wd]
            self._inotify.remove(wd)

    def holds(self) -> int:
        return 0

    def takes(self, fd: int, most: int) -> int:
        return 0

    def read(self) -> list[News] | None:
        events = self._inotify.read()
        if self._inotify.behind or any(event.mask & IN_Q_OVERFLOW for event in events):
            return None
        return [
            News(directory, name, mask & IN_ISDIR != 0)
            for wd, mask, _, name in events
            for directory in self._paths.get(wd, ())  # none: a watch that was ended
        ]

    def fileno(self) -> int:
        return self._inotify.fileno()

    def close(self) -> None:
        self._inotify.close()
        self._wds.clear()
        self._paths.clear()


class WatcherSource:
    """A watcher of pollers.watch, by its name.  Raises OSError, with the reason and what to do."""

    def __init__(self, name: str, root: Root) -> None:
        self._top = root.reachable()
        self._watcher = watch.create(name, period=PERIOD, pairing=0)
        self.name = self._watcher.name
        self._prefix = len(join(self._top, b""))
        #: How many directories are watched, some of which may have ended by themselves.
        self._added = 0
        self._fd = self._watcher.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, POLLIN)

    def watch(self, path: bytes, fd: int) -> None:
        self._watcher.add(self._full(path))
        self._added += 1

    def unwatch(self, path: bytes) -> None:
        self._added -= 1
        try:
            self._watcher.remove(self._full(path))
        except FileNotFoundError:
            return  # deleted or moved away, which ended it

    def holds(self) -> int:
        root, watch = self._watcher.price
        return root * self._added + watch * self._watcher.counters.watches

    def takes(self, fd: int, most: int) -> int:
        root, watch = self._watcher.price
        if not watch or root + watch > most:
            return root + watch
        return root + watch * (1 + _names(fd, most))

    def read(self) -> list[News] | None:
        told: list[watch.Change] = []
        for _ in range(READS):
            try:
                told += self._watcher.read()
            except OSError:  # who opens a file next is told why
                return None
            if not self._poll.poll(0):
                break
        else:
            return None
        if any(change.kind is watch.Kind.OVERFLOW for change in told):
            return None
        return [
            self._news(path, change.directory)
            for change in told
            for path in (change.path, change.source)
            if path is not None
        ]

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        self._fd = -1
        self._watcher.close()

    def _full(self, path: bytes) -> bytes:
        return join(self._top, path) if path else self._top

    def _news(self, path: bytes, is_directory: bool) -> News:
        if path == self._top:
            return News(b"", b"", True)
        directory, name = split(path[self._prefix :])
        return News(directory, name, is_directory)


def _names(fd: int, most: int) -> int:
    """How many names are in an open directory; one more than `most` stands for all beyond."""
    readable = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        with os.scandir(readable) as names:
            return sum(1 for _ in itertools.islice(names, most + 1))
    finally:
        os.close(readable)


def open_source(name: str, root: Root) -> Source:
    """What `--watcher` calls `name`.  Raises OSError, with the reason and what to do."""
    if name == InotifySource.name:
        return InotifySource()
    return WatcherSource(name, root)
