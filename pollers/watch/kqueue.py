"""The watcher over kqueue's EVFILT_VNODE: every watched name is an open file.

What the notes say is in pollers.watch.vnodes; how changes are found is in pollers.watch.looking.

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
*   Open for reading, a file keeps its file system mounted.  macOS has O_EVTONLY, which does not;
    Linux and FreeBSD 13.1 have O_PATH, which asks for no permission to read.  Whether notes come
    of what is open so is tried out.
*   Notes do not queue: they are joined in the knote, and nothing overflows.

Over libkqueue, on Linux
------------------------
*   It keeps an inotify instance for each knote, of which a user has 128.
*   It adds its watch by the path that the fd has at the moment (readlink(2) in /proc).  Where the
    file is renamed right then that fails, and is tried again; where another one took its name,
    that is watched instead, which cannot be seen.
*   Its fd is never readable.  Behind it is an epoll instance that is, found by what it watches.
*   inotify is silent of the end of a directory that is open.  So the parent of what was added is
    watched too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pollers.kevents import EV_ADD, EV_CLEAR, EV_DELETE
from pollers.kqueue import Opened, open_kqueue
from pollers.watch.base import AnyPath, Capability, Change, as_path, join, split
from pollers.watch.known import KnownTrees
from pollers.watch.roots import Root
from pollers.watch.tree import VANISHED, Snapshot, Status
from pollers.watch.vnodes import NOTE_CLOSE_WRITE, NOTE_WRITE, OTHER, dialect_of, said

_ALWAYS: Final = os.O_CLOEXEC | os.O_NONBLOCK
#: How a file may be opened for its notes, the best first.
FLAGS: Final[tuple[int, ...]] = tuple(
    flag | _ALWAYS
    for flag in (
        getattr(os, "O_PATH", None),
        getattr(os, "O_EVTONLY", None),
        os.O_RDONLY,
    )
    if flag is not None
)
#: Records of one call, and calls of one `read()`.
RECORDS: Final = 512
CALLS: Final = 64
#: What an open file or a knote too many is.
LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
#: How often libkqueue may find that a file was just renamed.
TRIES: Final = 20


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
        opened = kq_factory()
        self._kq, self._kevent, _, self.emulated = opened
        self._dialect = OTHER if self.emulated else dialect_of(sys.platform)
        if self._dialect.notes & NOTE_CLOSE_WRITE:
            self.capabilities |= Capability.CLOSE_WRITE
        #: fd -> what it is open for.
        self._held: dict[int, Held] = {}
        self._fds: dict[Root, dict[bytes, int]] = {}
        #: How many of a root's fds are this inode's.
        self._inodes: dict[tuple[Root, tuple[int, int]], int] = {}
        #: Over libkqueue: the open parents of what was added.
        self._parents: dict[int, Root] = {}
        try:
            self._flags = self._find_flags()
            self._wait_for(_epoll_behind(opened) if self.emulated else self._kq.fileno())
        except BaseException:
            self._kq.close()
            raise

    def add(self, path: AnyPath, recursive: bool = False) -> None:
        super().add(path, recursive)
        if self.emulated:
            root = self._roots[as_path(path)]
            try:
                self._register(root.parent, NOTE_WRITE)
            except BaseException:
                self.remove(path)
                raise
            self._parents[root.parent] = root

    def read(self) -> list[Change]:
        self._check_open()
        for _ in range(CALLS):
            records = self._kq.control(None, RECORDS, 0)
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
            self._kq.close()
            for fd in self._held:
                os.close(fd)
            self._held.clear()
            self._fds.clear()
            self._inodes.clear()
            self._parents.clear()

    def _hear(self, held: Held, fflags: int) -> None:
        """Take up what a record says of an open file."""
        root, path, identity, directory = held
        what, list_it, renamed, gone = said(fflags, directory, self._dialect)
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
                directory = os.open(b".", self._flags, dir_fd=fd)
            except OSError as error:
                raise self._limit(error) from None
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
            self._unregister(root.parent)

    def _statuses(self, root: Root, path: bytes, fd: int) -> dict[bytes, Status]:
        found = ((name, self._status(root, path, fd, name)) for name in _list(fd))
        return {name: status for name, status in found if status is not None}

    def _status(self, root: Root, path: bytes, fd: int, name: bytes) -> Status | None:
        found = super()._status(root, path, fd, name)
        if found is None:
            return None
        full = join(path, name)
        held = self._holding(root, full)
        if held is not None and held.identity[1] == found.identity:
            return found
        if self._may_open(found.mode):
            try:
                file = os.open(name, self._flags | os.O_NOFOLLOW, dir_fd=fd)
                self._hold(root, full, file)
                return Status.of(os.fstat(file))
            except PermissionError:
                self._unreadable(full)
            except OSError as error:
                if error.errno in VANISHED:  # its directory says so once more
                    return None
                raise self._limit(error) from None
        self._release(root, full)
        return found

    def _may_open(self, mode: int) -> bool:
        """Whether opening does nothing to it: a FIFO's other end would go on, a device start."""
        if self._flags == FLAGS[-1]:
            return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        return not stat.S_ISLNK(mode)

    def _holding(self, root: Root, path: bytes) -> Held | None:
        fd = self._fds.get(root, {}).get(path)
        return None if fd is None else self._held[fd]

    def _hold(self, root: Root, path: bytes, fd: int) -> None:
        """Have an open file's notes for a path; it is closed where that fails."""
        try:
            self._register(fd, self._dialect.notes)
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
        self._unregister(fd)
        os.close(fd)
        self.counters.watches = len(self._held)

    def _register(self, fd: int, notes: int) -> None:
        """Raises OSError; over libkqueue FileNotFoundError where the file has no name any more."""
        for last in [not self.emulated, *[False] * (TRIES - 2), True]:
            try:
                self._change(fd, EV_ADD | EV_CLEAR, notes)
                return
            except OSError as error:
                if last or error.errno not in (errno.EINVAL, errno.ENOENT):
                    raise self._limit(error) from None
                if not os.fstat(fd).st_nlink:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def _unregister(self, fd: int) -> None:
        """libkqueue does not see a close(fd); a kernel does it by itself."""
        if self.emulated:
            with contextlib.suppress(OSError):
                self._change(fd, EV_DELETE, 0)

    def _change(self, fd: int, flags: int, notes: int) -> None:
        self._kq.control([self._kevent(fd, self._dialect.filter, flags, notes, 0)], 0, 0)

    def _limit(self, error: OSError) -> OSError:
        """The same error, with what to do where it is a limit."""
        if error.errno not in LIMITS or ";" in str(error.strerror):
            return error
        if self.emulated:
            remedy = "libkqueue has an inotify instance for each name: as root sysctl -w "
            remedy += "fs.inotify.max_user_instances=20000, or use inotify"
        else:
            remedy = "kqueue needs an open file for each name that is watched: ulimit -n 20000"
        return OSError(error.errno, f"{error.strerror}; {remedy}")

    def _find_flags(self) -> int:
        """The first of FLAGS with which notes come.  Raises OSError."""
        refusal: OSError | None = None
        with tempfile.TemporaryDirectory(prefix="pollers-watch-") as directory:
            for number, flags in enumerate(FLAGS):
                try:
                    fd = os.open(directory, flags)
                    try:
                        self._register(fd, NOTE_WRITE)
                        os.mkdir(os.path.join(directory, str(number)))
                        if any(r.ident == fd for r in self._kq.control(None, RECORDS, 0)):
                            return flags
                    finally:
                        self._unregister(fd)
                        os.close(fd)
                except OSError as error:
                    refusal = error
        raise refusal or OSError(errno.ENOTSUP, "EVFILT_VNODE says nothing of a new directory")


def _list(fd: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(fd)]


def _epoll_behind(opened: Opened) -> int:
    """The epoll instance of a libkqueue kqueue: the one that watches a pipe given to it.

    Raises OSError where there is none, or /proc is not mounted.
    """
    pipe = os.pipe()
    change: Callable[[int], Any] = lambda flags: opened.kq.control(  # noqa: E731
        [opened.kevent(pipe[0], opened.dialect.read, flags, 0, 0)], 0, 0
    )
    try:
        change(EV_ADD)
        try:
            for number in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{number}") != "anon_inode:[eventpoll]":
                        continue
                    with open(f"/proc/self/fdinfo/{number}") as lines:
                        watched = [line.split()[1] for line in lines if line.startswith("tfd:")]
                    if str(pipe[0]) in watched:
                        return int(number)
        finally:
            change(EV_DELETE)
    finally:
        for fd in pipe:
            os.close(fd)
    raise OSError(errno.ENOTSUP, "libkqueue's epoll instance was not found in /proc/self/fdinfo")
