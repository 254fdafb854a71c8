"""The watcher over kqueue's EVFILT_VNODE: every watched name is an open file.

How files get their notes is in pollers.watch.knotes, and what these say in pollers.watch.vnodes;
how changes are found is in pollers.watch.looking.

What EVFILT_VNODE means for us
------------------------------
*   A knote is on an open file: one fd for each directory *and each file* watched, and with 20,000
    of them that is the end.  Links are not opened, nor, where O_PATH does not do, FIFOs, sockets
    and devices: of those only the names are told.
*   An open file keeps its inode number, so that a rename can be told by it.
*   A directory says that a name came or went.  It is listed again, which costs an lstat(2) for
    each of its names, and what came and went in between was never there.
*   A file is opened and its knote made *before* its status is taken: what changes afterwards says
    so.  A write by any of its names does (`Capability.LINKS`), as the note is the file's.
*   Notes do not queue: they are joined in the knote, and nothing overflows.
*   libkqueue is told by inotify, which is silent of the end of a directory that is open.  So there
    the parent of what was added is watched too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from pollers.kqueue import Opened, open_kqueue
from pollers.watch.base import AnyPath, Capability, Change, Price, as_path, join, split
from pollers.watch.knotes import FLAGS, RECORDS, Knotes
from pollers.watch.known import KnownTrees
from pollers.watch.roots import Root
from pollers.watch.tree import UNREADABLE, VANISHED, Snapshot, Status
from pollers.watch.vnodes import NOTE_CLOSE_WRITE, NOTE_WRITE, said

#: Calls of one `read()`.
CALLS: Final = 64


class Held(NamedTuple):
    """An open file with a knote."""

    root: Root
    path: bytes
    #: Device and inode.
    identity: tuple[int, int]
    directory: bool


class KqueueWatcher(KnownTrees):
    """The adapter over EVFILT_VNODE.

    Raises what `kq_factory` (by default `pollers.kqueue.open_kqueue`) raises, and OSError where
    no open file has notes.
    """

    name = "kqueue"
    capabilities = Capability.PROMPT | Capability.LINKS

    def __init__(self, kq_factory: Callable[[], Opened] = open_kqueue) -> None:
        super().__init__()
        self._knotes = Knotes(kq_factory)
        self.emulated = self._knotes.emulated
        # libkqueue has an inotify instance for each open file.
        self.price = Price(2, 2) if self.emulated else Price(1, 1)
        if self._knotes.dialect.notes & NOTE_CLOSE_WRITE:
            self.capabilities |= Capability.CLOSE_WRITE
        #: fd -> what it is open for.
        self._held: dict[int, Held] = {}
        self._fds: dict[Root, dict[bytes, int]] = {}
        #: How many of a root's fds are this inode's.
        self._inodes: dict[tuple[Root, tuple[int, int]], int] = {}
        #: Over libkqueue: the open parents of what was added.
        self._parents: dict[int, Root] = {}
        try:
            self._wait_for(self._knotes.fileno())
        except BaseException:
            self._knotes.close()
            raise

    def add(self, path: AnyPath, recursive: bool = False) -> None:
        super().add(path, recursive)
        if self.emulated:
            root = self._roots[as_path(path)]
            try:
                self._knotes.register(root.parent, NOTE_WRITE)
            except BaseException:
                self.remove(path)
                raise
            self._parents[root.parent] = root

    def read(self) -> list[Change]:
        self._check_open()
        for _ in range(CALLS):
            records = self._knotes.read()
            self.counters.events += len(records)
            for record in records:
                held = self._held.get(record.ident)
                if held is not None:
                    self._hear(held, record.fflags)
                elif record.ident in self._parents:
                    self._hint(self._parents[record.ident])
            if len(records) < RECORDS:
                break
        return self._take()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._knotes.close()
            for fd in self._held:
                os.close(fd)
            self._held.clear()
            self._fds.clear()
            self._inodes.clear()
            self._parents.clear()

    def _hear(self, held: Held, fflags: int) -> None:
        """Take up what a record says of an open file."""
        root, path, identity, directory = held
        what, list_it, renamed, gone = said(fflags, directory, self._knotes.dialect)
        if list_it and path in root.known:
            self._hint(root).listed.add(path)
        if path == root.path:
            if gone:
                self._hint(root).ended = True
        elif what or gone:
            self._hint(root).add(*split(path), what)
        if renamed:
            root.moved.add(identity[1])

    def _enter(self, root: Root, path: bytes, fd: int) -> None:
        held = self._holding(root, path)
        status = os.fstat(fd)
        if held is None or held.identity != (status.st_dev, status.st_ino):
            try:
                directory = os.open(b".", self._knotes.flags, dir_fd=fd)
            except OSError as error:
                raise self._knotes.explained(error) from None
            self._hold(root, path, directory)

    def _leave(self, root: Root, path: bytes) -> None:
        """Its name tells (`_left`): it may be there, and may not be read."""

    def _left(self, root: Root, old: Snapshot[Status], new: Snapshot[Status]) -> None:
        for path, was in old.items():
            now = new.get(path, {})
            for name in was:
                if name not in now:
                    self._release(root, join(path, name))

    def _drop(self, root: Root) -> None:
        for path in list(self._fds.get(root, ())):
            self._release(root, path)
        self._fds.pop(root, None)
        if self._parents.pop(root.parent, None) is not None:
            self._knotes.unregister(root.parent)

    def _statuses(self, root: Root, path: bytes, fd: int) -> dict[bytes, Status]:
        there = super()._statuses(root, path, fd).items()
        found = ((name, self._opened(root, path, fd, name, status)) for name, status in there)
        return {name: status for name, status in found if status is not None}

    def _status(self, root: Root, path: bytes, fd: int, name: bytes) -> Status | None:
        found = super()._status(root, path, fd, name)
        return None if found is None else self._opened(root, path, fd, name, found)

    def _opened(
        self, root: Root, path: bytes, fd: int, name: bytes, found: Status
    ) -> Status | None:
        """What `name` is once it is held open, if it may be; None where it has gone."""
        full = join(path, name)
        held = self._holding(root, full)
        if held is not None and held.identity[1] == found.identity:
            return found
        if self._may_open(found.mode):
            try:
                file = os.open(name, self._knotes.flags | os.O_NOFOLLOW, dir_fd=fd)
                self._hold(root, full, file)
                return Status.of(os.fstat(file))
            except OSError as error:
                if error.errno in VANISHED:  # its directory says so once more
                    return None
                if error.errno not in UNREADABLE:
                    raise self._knotes.explained(error) from None
                self._unreadable(full)
        self._release(root, full)
        return found

    def _may_open(self, mode: int) -> bool:
        """Whether opening does nothing to it: a FIFO's other end would go on, a device start."""
        if self._knotes.flags == FLAGS[-1]:
            return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        return not stat.S_ISLNK(mode)

    def _holding(self, root: Root, path: bytes) -> Held | None:
        fd = self._fds.get(root, {}).get(path)
        return None if fd is None else self._held[fd]

    def _hold(self, root: Root, path: bytes, fd: int) -> None:
        """Have an open file's notes for a path; it is closed where that fails."""
        try:
            self._knotes.register(fd, self._knotes.dialect.notes)
            status = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        held = Held(root, path, (status.st_dev, status.st_ino), stat.S_ISDIR(status.st_mode))
        before = self._inodes.get((root, held.identity), 0)
        if before and held.directory:  # directories have one name: it was elsewhere
            root.moved.add(status.st_ino)
        self._release(root, path)
        self._inodes[root, held.identity] = self._inodes.get((root, held.identity), 0) + 1
        self._held[fd] = held
        self._fds.setdefault(root, {})[path] = fd
        self.counters.watches = len(self._held)

    def _release(self, root: Root, path: bytes) -> None:
        """Close what is open for a path."""
        fd = self._fds.get(root, {}).pop(path, None)
        if fd is None:
            return
        held = self._held.pop(fd)
        key = root, held.identity
        self._inodes[key] -= 1
        if not self._inodes[key]:
            del self._inodes[key]
        self._knotes.unregister(fd)
        os.close(fd)
        self.counters.watches = len(self._held)
