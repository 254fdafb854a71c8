"""Files that are open, so that a request need not open them: bounded, and never out of date.

How it stays correct
--------------------
*   A file that changed, by name or by content, leaves the cache, and the next `open` opens what is
    there now.  Who is sending the old one has taken it: its fd stays open, and its inode with
    it, until it is released.
*   Where a change would be reported (`watched`) a file is looked at every ten seconds only, for
    what inotify does not see (see changes.py).  Elsewhere it is once a second: without a watcher,
    behind a symbolic link, and where a file has a second hard link, by which it can be written
    unseen.
*   A file is covered first and opened afterwards, so that nothing falls in between.
*   What is missing is not remembered: a 404 costs an open(2), and bounds nothing.

What an ETag is worth
---------------------
It is made of the inode, its ctime in nanoseconds and its size.  ctime, because mtime can be set
back by whoever writes the file.  It is as good as the kernel's clock for files: before Linux 6.13
two writes within a tick (up to 10 ms) of each other that keep the size can leave the same ETag, if
the file was looked at between them.  A change of mode or links makes a new ETag for the same
bytes, which costs a transfer and is never wrong.

One thread only, as all of a server's loop is.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from servers.file.changes import EVERYTHING, Changes, Reported, affected
from servers.file.root import Identity, LinkFound, Root
from servers.http.negotiate import ENCODINGS

CAPACITY: Final = 1024
#: Seconds between two looks at a file whose changes are reported, and at others.
WATCHED_EVERY: Final = 10.0
UNWATCHED_EVERY: Final = 1.0
#: How many idle files make room when the process is out of fds: one open takes two at most,
#: and the next connection one.
SHED: Final = 8
#: The last files that were asked for are never closed to make room: to answer one request takes a
#: file and its precompressed siblings.
NEWEST: Final = 1 + len(ENCODINGS)


class Closable(Protocol):
    def close(self) -> None: ...


class OpenFile:
    """A regular file, open for reading, as it was when it was opened.

    It stays open while it is one of the NEWEST that were asked for and no change of it was read,
    and from `take` to `release` whatever happens.
    """

    __slots__ = (
        "check_at",
        "companion",
        "etag",
        "fd",
        "identity",
        "in_cache",
        "modified",
        "path",
        "size",
        "users",
        "watched",
    )

    def __init__(self, path: bytes, fd: int, identity: Identity, watched: bool) -> None:
        self.path = path
        #: -1 when closed.
        self.fd = fd
        self.identity = identity
        self.size = identity.size
        #: Whole seconds since the epoch.
        self.modified = identity.mtime_ns // 10**9
        #: Strong, with its quotes.
        self.etag = f'"{identity.inode:x}-{identity.ctime_ns:x}-{identity.size:x}"'
        #: Whether a change of it would be reported.
        self.watched = watched
        #: When it has to be looked at again, by the cache's clock.
        self.check_at = 0.0
        self.users = 0
        self.in_cache = True
        #: Another opening of the same file, which is closed with this one.
        self.companion: Closable | None = None

    def take(self) -> None:
        """Keep it open until it is released as often as taken."""
        assert self.fd >= 0, "taken after it was closed"
        self.users += 1

    def release(self) -> None:
        """Let go of what was taken.  The last one closes what is no longer in the cache."""
        assert self.users > 0, "released more often than taken"
        self.users -= 1
        if not self.users and not self.in_cache:
            self._close()

    def leave(self) -> None:
        """The cache has forgotten it."""
        self.in_cache = False
        if not self.users:
            self._close()

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        os.close(fd)
        if self.companion is not None:
            self.companion.close()


class FileCache:
    """Open files by path; the one that was asked for longest ago goes first."""

    def __init__(
        self,
        root: Root,
        changes: Changes | None,
        capacity: int = CAPACITY,
        clock: Callable[[], float] = time.monotonic,
        on_drop: Callable[[OpenFile], None] = lambda file: None,
    ) -> None:
        """`capacity` is at least NEWEST.  Neither `root` nor `changes` is closed with it."""
        self._root = root
        self._changes = changes
        self._capacity = max(capacity, NEWEST)
        self._clock = clock
        #: Called with each file that leaves, before it may be closed: who remembers it forgets it.
        self.on_drop = on_drop
        self._files: OrderedDict[bytes, OpenFile] = OrderedDict()

    def open(self, path: bytes) -> OpenFile:
        """The regular file at `path`.  Raises as Root.open does."""
        now = self._clock()
        file = self._files.get(path)
        if file is not None:
            if now < file.check_at:
                self._files.move_to_end(path)
                return file
            if self._root.is_same(path, file.identity):
                file.check_at = now + (WATCHED_EVERY if file.watched else UNWATCHED_EVERY)
                self._files.move_to_end(path)
                return file
            self._drop(path)
        file = self._opened(path)
        file.check_at = now + (WATCHED_EVERY if file.watched else UNWATCHED_EVERY)
        while len(self._files) >= self._capacity:
            self._drop(next(iter(self._files)))
        self._files[path] = file
        return file

    def covered(self, path: bytes) -> bool:
        """Whether a change of what `path` names would be reported.

        Of a file: one that is in the cache.  Of a directory: that its names are watched.
        """
        file = self._files.get(path)
        if file is not None:
            return file.watched
        return self._changes is not None and self._changes.covers(path)

    def read_changes(self) -> Reported:
        """What may be answered differently, after forgetting the files among it."""
        if self._changes is None:
            return set()
        reported = self._changes.read()
        if reported is EVERYTHING:
            self.close()
        elif reported:
            for path in affected(reported, self._files):
                self._drop(path)
        return reported

    def shed(self, count: int = SHED) -> int:
        """Close up to `count` files that nobody uses, oldest first; return how many."""
        older = itertools.islice(self._files.items(), max(0, len(self._files) - NEWEST))
        idle = [path for path, file in older if not file.users][:count]
        for path in idle:
            self._drop(path)
        return len(idle)

    def close(self) -> None:
        """Forget every file.  The cache may be used again."""
        while self._files:
            self._drop(next(iter(self._files)))

    def __len__(self) -> int:
        return len(self._files)

    def _opened(self, path: bytes) -> OpenFile:
        """Open a file; where the process is out of fds, after closing some that are idle."""
        try:
            return self._open(path)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self.shed():
                raise
        return self._open(path)

    def _open(self, path: bytes) -> OpenFile:
        changes = self._changes
        watched = changes is not None and changes.cover(path.rpartition(b"/")[0])
        try:
            fd, found = self._root.open(path, links=not watched)
        except LinkFound:
            watched = False
            fd, found = self._root.open(path)
        return OpenFile(path, fd, Identity.of(found), watched and found.st_nlink == 1)

    def _drop(self, path: bytes) -> None:
        file = self._files.pop(path)
        self.on_drop(file)
        file.leave()
