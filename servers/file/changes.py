"""Which paths below a document root may be answered differently now, as a source reports it.

How it stays correct
--------------------
*   A watch on a file would end with the next atomic save (rename over it), so directories are
    watched: each one that has an open file in it and every directory above it, as what
    happens to those moves or hides all that lies below.
*   *Cover first, open afterwards.*  What changes between the two is then reported once too often;
    the other way round it would be lost.  Within `cover` too: from the root downwards, so that the
    watch above sees when the directory that is watched next is no longer what its name says.
*   A watch may sit on an inode, not on a name.  Whatever happens to the name of a watched
    directory ends its watch and those below it, and the next `cover` begins anew.
*   A path with a symbolic link in it is not covered: what happens where the link leads has other
    paths.  A link that was met is remembered, and all below it reported when its own name changes.
*   After an overflow nothing is known: no watch is trusted, and EVERYTHING may have changed.  So
    it is where more has happened than one `read` takes: what is unread may be about any path.
*   A watch may hold descriptors, which connections need more.  What these leave of the process's
    limit (`spare`) is for watches; the last quarter of that is for names that come to directories
    that are watched already, where each is a descriptor.  Where even that is not enough, all
    watches end, and directories are covered anew as they are asked for.
*   An event is queued before the call that caused it returns.  Who calls `read` before a request
    that has just arrived is answered never answers with what was replaced before it was sent.
    The order of a poll()'s events is no substitute: epoll may return the connection first.

Most sources do not report (see pollers.watch) writes by mmap(2) or another hard link, mounts,
what others do to a network file system, and names written otherwise than the directory has them,
where a file system ignores case.  Who needs to know looks at the file now and then.
"""

from __future__ import annotations

import enum
import errno
import os
import resource
import sys
from collections.abc import Collection, Container, Iterator
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, TypeAlias

from pollers.beneath import LOOK, open_beneath
from pollers.limits import CONNECTIONS, OTHER_FDS
from servers.file.root import Root
from servers.file.sources import InotifySource, Source
from servers.http.negotiate import ENCODINGS
from servers.lifecycle import log

#: The most directories that are watched; each pins some 1 KiB in the kernel.
WATCHES: Final = 4096
#: What watches may hold of a limit that is too low for all connections: one in so many.
SHARE: Final = 8
#: What a source says where it can watch no more.
EXHAUSTED: Final = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE})

_SUFFIXES: Final = tuple(suffix.encode() for _, suffix in ENCODINGS)


class Change(NamedTuple):
    """A path that may be answered differently now."""

    path: bytes
    #: And every path below it.
    below: bool = False


class Everything(enum.Enum):
    """Instead of a set of changes: any path may be answered differently."""

    EVERYTHING = "everything"


EVERYTHING: Final = Everything.EVERYTHING
Reported: TypeAlias = set[Change] | Literal[Everything.EVERYTHING]


class Changes:
    """Watches the directories of a root that are asked for.

    `source`, inotify by default, is closed with it.  `needed`: how many descriptors connections
    and files need.  Raises OSError, with the reason and what to do, where not even the root can be
    watched.
    """

    def __init__(
        self,
        root: Root,
        limit: int = WATCHES,
        source: Source | None = None,
        needed: int = CONNECTIONS,
    ) -> None:
        self._root = root
        self._limit = limit
        #: How many descriptors watches may hold.
        self._spare = spare(needed)
        self._remedy = f"raise the limit: ulimit -n {needed + OTHER_FDS + WATCHES * 4 // 3}"
        #: Watched directories.  Where one is, all above it are.
        self._watched: set[bytes] = set()
        #: Links met in watched directories.
        self._links: set[bytes] = set()
        self._complained = False
        self._source = InotifySource() if source is None else source
        #: What the ready line calls it.
        self.name = self._source.name
        try:
            self._watch(b"")
        except OSError:
            self._source.close()
            raise

    def cover(self, directory: bytes) -> bool:
        """Have every later change of a name in `directory` reported; whether that can be had.

        It cannot where a symbolic link is in the path, where there is no such directory, and
        where watches have run out, which is said once.
        """
        if directory in self._watched:
            return True
        for path in _from_root(directory):
            if path in self._watched:
                continue
            if path in self._links:
                return False
            if len(self._watched) >= self._limit:
                self._complain(f"{self._limit} directories are watched, which is the limit")
                return False
            try:
                self._watch(path)
            except OSError as error:
                if error.errno == errno.ELOOP and len(self._links) < self._limit:
                    self._links.add(path)
                elif error.errno in EXHAUSTED:
                    self._complain(error.strerror or str(error))
                return False
        return True

    def covers(self, directory: bytes) -> bool:
        """Whether changes of names in `directory` are being reported."""
        return directory in self._watched

    def read(self) -> Reported:
        """What may be answered differently since the last call.  It does not wait.

        For each name that something happened to: its path, the path without the suffix of a
        precompressed sibling, and the directory (its index, its listing); and all below, where it
        is a directory or a link that was met.
        """
        paths: set[bytes] = set()
        trees: set[bytes] = set()
        news = self._source.read()
        if news is None:
            trees.add(b"")
        for directory, name, is_directory in news or ():
            if not name:  # the directory itself: its mode, its end, its file system's
                trees.add(directory)
                continue
            path = directory + b"/" + name if directory else name
            paths.add(directory)
            paths.add(path)
            if path.endswith(_SUFFIXES):
                paths.add(path.rpartition(b".")[0])
            if is_directory or path in self._links:
                trees.add(path)
        if news and self._source.holds() > self._spare:
            trees.add(b"")
        if trees:
            self._uncover(trees)
            if b"" in trees:
                return EVERYTHING
        return {Change(path, path in trees) for path in paths | trees}

    @property
    def watches(self) -> int:
        """How many directories are watched."""
        return len(self._watched)

    def fileno(self) -> int:
        """Readable when there is something to `read`."""
        return self._source.fileno()

    def close(self) -> None:
        """End every watch.  May be repeated."""
        self._source.close()
        self._watched.clear()
        self._links.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _watch(self, path: bytes) -> None:
        """Watch one directory.  Raises OSError; ELOOP for a link, EMFILE beyond what is spare."""
        fd = open_beneath(self._root.fd, path, LOOK | os.O_DIRECTORY, links=False)
        try:
            held = self._source.holds()
            left = self._spare * 3 // 4 - held
            if (taken := self._source.takes(fd, left)) and taken > left:
                raise OSError(
                    errno.EMFILE,
                    f"{self.name} holds {held} descriptors, and connections may need the others; "
                    f"{self._remedy}",
                )
            self._source.watch(path, fd)
        finally:
            os.close(fd)
        self._watched.add(path)

    def _uncover(self, trees: set[bytes]) -> None:
        """End the watches in `trees`, each with all that is below it."""
        if not self._links.isdisjoint(trees):
            self._links -= trees
        if self._watched.isdisjoint(trees):  # then none below them is watched either
            return
        for path in [path for path in self._watched if _lies_in(path, trees)]:
            self._watched.remove(path)
            self._source.unwatch(path)
        self._links = {path for path in self._links if not _lies_in(path, trees)}

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            log(
                f"{reason}; files elsewhere below the root are looked at once a second "
                "instead of being watched"
            )


def spare(needed: int) -> int:
    """How many descriptors watches may hold: what `needed` leave of this process's limit.

    Where that is little it is one in SHARE, so that a small site is watched whatever the limit.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(limit - needed - OTHER_FDS, limit // SHARE)


def affected(reported: set[Change], paths: Collection[bytes]) -> list[bytes]:
    """Those of `paths` (a dict or a set) that are among the changes, or below one of them."""
    trees = {path for path, below in reported if below}
    if trees:
        exact = {path for path, _ in reported}
        return [path for path in paths if path in exact or _lies_in(path, trees)]
    return [path for path, _ in reported if path in paths]


def _lies_in(path: bytes, trees: Container[bytes]) -> bool:
    """Whether `path` or a directory above it is one of `trees`."""
    while path not in trees:
        if not path:
            return False
        path = path.rpartition(b"/")[0]
    return True


def _from_root(directory: bytes) -> Iterator[bytes]:
    """The root, and each directory on the way down to `directory`."""
    yield b""
    at = directory.find(b"/")
    while at != -1:
        yield directory[:at]
        at = directory.find(b"/", at + 1)
    if directory:
        yield directory
