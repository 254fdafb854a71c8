"""What watchers share that are told of names: recursion, new directories, renames, looking again.

How it stays correct
--------------------
*   An event that says what is known already is dropped: a listing was ahead.  One about what
    is not known is dropped too.  As the last event about a name says how it is, names are right
    once everything has been read, however far a listing was ahead of the events.
*   A listing that was ahead may have found another directory by the same name.  So when a rename
    of a directory is told, what is there now is compared with what is watched; if it is another,
    the rename is told as DELETED and CREATED, and looked at anew.
*   RENAME_EXCHANGE is told as two renames, of which the first seems to replace the other: the name
    that would be gone after the second is looked at.
*   After an overflow everything unread is thrown away and the trees are looked at (`_lost`).  What
    has a ctime since the last moment at which nothing was unread may have been written unseen.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Hashable
from typing import Final

from pollers.watch.base import Change, Kind, join, lies_in, split
from pollers.watch.difference import Since, diff
from pollers.watch.places import Place, PlaceWatcher
from pollers.watch.tree import (
    DIRECTORY,
    FILE,
    FULL,
    VANISHED,
    Name,
    list_statuses,
    open_root,
    walk,
)

#: Seconds until what could not be looked at, for want of fds, is tried again.
AGAIN: Final = 1.0
#: Nanoseconds by which a file system's clock may be behind: the coarsest (FAT) counts in 2 s.
GRAIN: Final = 2 * 10**9


class Moment:
    """A time by the wall clock, whatever it is set to later."""

    def __init__(self) -> None:
        self._wall = time.time_ns()
        self._ticks = time.monotonic_ns()

    def earliest(self) -> int:
        """What a ctime of then may be (ns since the epoch), by the clock of then or of now."""
        by_now = time.time_ns() - (time.monotonic_ns() - self._ticks)
        return min(self._wall, by_now) - GRAIN


class ToldWatcher(PlaceWatcher):
    """The names, and what follows from what the kernel tells of them.

    An adapter gives `_mark`, `_unmark` and `_discard`, and calls the methods from `_created` to
    `_lost` with the places of `_by_key`; they append to `_told`.
    """

    def __init__(self) -> None:
        super().__init__()
        #: When nothing was unread last.
        self._drained = Moment()
        #: (source, path) of the last rename, if it replaced what was there.
        self._replaced: tuple[bytes, bytes] | None = None
        #: What was added and could not be looked at, for want of fds, since when it has to be, and
        #: from when on it is tried again (time.monotonic()).
        self._again: dict[bytes, Moment] = {}
        self._again_at = 0.0

    def _discard(self) -> None:
        """Throw away all that is queued now.  What is queued after the call may be kept."""
        raise NotImplementedError

    def _created(self, place: Place, name: bytes, directory: bool) -> None:
        if name in place.names:  # a listing was faster, or another event is yet to come
            return
        place.names[name] = DIRECTORY if directory else FILE
        path = join(place.path, name)
        self._tell(Change(Kind.CREATED, path, None, directory))
        if directory and place.recursive:
            self._discover(path)

    def _deleted(self, place: Place, name: bytes) -> None:
        known = place.names.pop(name, None)
        if known is not None:
            path = join(place.path, name)
            self._tell(Change(Kind.DELETED, path, None, known.directory))
            if known.directory:
                self._drop(path)

    def _modified(self, place: Place, name: bytes) -> None:
        known = place.names.get(name)
        if known is not None and not known.directory:
            self._tell(Change(Kind.MODIFIED, join(place.path, name)))

    def _altered(self, place: Place, name: bytes) -> None:
        """Mode, owner, times or links of a name."""
        known = place.names.get(name)
        if known is None:
            return
        path = join(place.path, name)
        self._tell(Change(Kind.ATTRIBUTES, path, None, known.directory))
        if known.directory and place.recursive and path not in self._places:
            self._discover(path)  # it may be readable now

    def _appeared(self, place: Place, name: bytes, directory: bool) -> None:
        """It was moved here from what is not watched."""
        known = place.names.get(name)
        if known is None:
            self._created(place, name, directory)
        elif not directory:
            self._modified(place, name)
        elif known.directory and place.recursive:
            path = join(place.path, name)
            if not self._is_watched(path):  # it replaced an empty one
                self._deleted(place, name)
                self._created(place, name, True)

    def _moved(
        self, source: Place, old: bytes, target: Place, new: bytes, directory: bool
    ) -> None:
        """A rename within what is watched."""
        replaced, self._replaced = self._replaced, None
        known = source.names.get(old)
        if known is None or known.directory is not directory:  # a listing was faster
            self._appeared(target, new, directory)
            return
        was, path = join(source.path, old), join(target.path, new)
        over = target.names.get(new)
        if over is not None and not over.directory and not directory:
            del source.names[old]
            target.names[new] = known
            self._tell(Change(Kind.MODIFIED, path, was))
            self._replaced = (was, path)
            return
        other = directory and source.recursive and target.recursive
        other = other and not self._is_watched(path, was)
        if over is not None:
            self._deleted(target, new)
            self._replaced = (was, path)
        if other or not self._is_here(source):
            if self._is_here(source):
                self._deleted(source, old)
            if self._is_here(target):
                self._created(target, new, directory)
        else:
            del source.names[old]
            target.names[new] = known
            self._tell(Change(Kind.MOVED, path, was, directory))
            if directory:
                self._follow(was, path, target.recursive)
        if replaced == (path, was) and self._is_here(source):
            self._look(source, old)

    def _ended(self, path: bytes) -> None:
        """What was added is no longer there by this path."""
        if path not in self._roots:
            return
        for root in [root for root in self._roots if lies_in(root, path)]:
            del self._roots[root]
        above, name = split(path)
        parent = self._places.get(above)
        if parent is None:
            self._tell(Change(Kind.DELETED, path, None, True))
        else:
            self._deleted(parent, name)
        self._trim(path)

    def _key_ended(self, key: Hashable) -> None:
        """The kernel ended a watch by itself: its inode is gone, or its file system."""
        for place in self._by_key.pop(key, ()):
            place.key = None
            if place.path in self._roots:
                self._ended(place.path)
            elif self._places.get(place.path) is place:
                self._look_again(place.path, place.recursive, self._drained)
        self.counters.watches = len(self._by_key)

    def _lost(self) -> None:
        """The kernel said that its queue was full: look at everything."""
        self.counters.overflows += 1
        since, self._drained = self._drained, Moment()
        self._discard()
        for root, recursive in list(self._roots.items()):
            if self._roots.get(root) is None or self._covered_from_above(root):
                continue
            self._tell(Change(Kind.OVERFLOW, root, None, True))
            self._look_again(root, recursive, since)

    def _put_off(self, path: bytes, error: OSError, since: Moment) -> None:
        """There are no fds to look at `path`: say so, and look at all that was added around it."""
        self._refusal = error
        self._again_at = time.monotonic() + AGAIN
        for root in self._roots:
            if lies_in(path, root):
                self._again.setdefault(root, since)

    def _retry(self) -> None:
        """Look at what was put off, once a while."""
        if not self._again or time.monotonic() < self._again_at:
            return
        again, self._again = self._again, {}
        for root, since in again.items():
            if root in self._roots:
                self._look_again(root, self._roots[root], since)

    # -- what follows

    def _discover(self, path: bytes) -> None:
        """A new directory is there: watch it, and tell what is in it."""
        self._missed.add(path)
        try:
            fd = self._open(path)
            if fd is None:
                return
            self._missed.discard(path)
            try:
                self.counters.rescans += self._cover(path, fd, True, strict=False)
            finally:
                os.close(fd)
        except OSError as error:
            self._refuse(path, error)
            if error.errno in FULL:
                self._put_off(path, error, self._drained)
            return
        for directory in self._below(path):
            for name, entry in self._places[directory].names.items():
                self._tell(Change(Kind.CREATED, join(directory, name), None, entry.directory))

    def _follow(self, was: bytes, path: bytes, recursive: bool) -> None:
        """A directory has another path now, and all below it."""
        for root in [root for root in self._roots if lies_in(root, was)]:
            del self._roots[root]
        if not recursive:
            self._drop(was)
            return
        for below in self._below(was):
            place = self._places.pop(below)
            place.path = path + below[len(was) :]
            place.recursive = True
            self._places[place.path] = place
        for missed in [missed for missed in self._missed if lies_in(missed, was)]:
            self._missed.remove(missed)
            self._missed.add(path + missed[len(was) :])
        if path not in self._places:
            self._discover(path)
        for missed in [missed for missed in self._missed if lies_in(missed, path)]:
            self._discover(missed)

    def _is_watched(self, path: bytes, was: bytes | None = None) -> bool:
        """Whether the directory that is at `path` now is watched as `was` (as `path`).

        True as well where nothing is there, or cannot be reached: then more will be told.
        """
        place = self._places.get(path if was is None else was)
        if place is None:
            return True
        try:
            fd = self._open(path)
        except OSError as error:
            self._put_off(path, error, self._drained)
            return True
        if fd is None:
            return True
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        return place.identity == (status.st_dev, status.st_ino)

    def _look(self, place: Place, name: bytes) -> None:
        """Whether a name is there after all."""
        try:
            fd = self._reopen(place)
        except OSError as error:
            self._put_off(place.path, error, self._drained)
            return
        if fd is None:
            return
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return
        finally:
            os.close(fd)
        self._created(place, name, stat.S_ISDIR(found.st_mode))

    def _drop(self, path: bytes) -> None:
        """A directory is gone, and all below it."""
        for below in self._below(path):
            self._leave(below)
        if self._missed:
            self._missed = {missed for missed in self._missed if not lies_in(missed, path)}
        for root in [root for root in self._roots if lies_in(root, path)]:
            del self._roots[root]

    def _look_again(self, top: bytes, recursive: bool, since: Moment) -> None:
        """List a directory and what is below it, and tell how it differs from what was known."""
        entered: dict[bytes, Place] = {}

        def enter(path: bytes, fd: int) -> bool:
            try:
                entered[path] = self._place(path, fd) or self._places[path]
            except OSError as error:
                self._refuse(path, error)
                return False
            return True

        try:
            fd = open_root(top) if top in self._roots else self._open(top)
            if fd is None:
                return  # what became of it will be told
            try:
                new = walk(fd, top, list_statuses, enter, self._unreadable, recursive)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in VANISHED:
                self._ended(top)
            else:
                self._put_off(top, error, since)
            return
        self.counters.rescans += len(new)
        old = {path: self._places[path] for path in (self._below(top) if recursive else [top])}
        names = {path: place.names for path, place in old.items()}
        for change in diff(names, new, Since(since.earliest())):
            self._tell(change)
        for path in [path for path in entered if path not in new]:  # vanished in between
            old.setdefault(path, entered.pop(path))
        self._replace(old, entered)
        for path, place in entered.items():
            place.recursive |= recursive
            place.names = {n: Name(e.identity, e.directory) for n, e in new[path].items()}
        self._missed = {
            path for path in self._missed if not lies_in(path, top) or path not in self._places
        }
