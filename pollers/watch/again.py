"""Looking again at watched directories, where names alone do not tell, and trying again.

When that is
------------
*   A new directory is watched and then listed: what is found in it is told as created.
*   Where an overflow or the kernel's end of a watch left unsaid what happened, a tree is listed
    and compared with what is known.  What has a ctime since the last moment at which nothing was
    unread may have been written unseen.
*   What cannot be looked at for want of fds is looked at again, from what was added on, after
    AGAIN.  It is raised each time.
*   A directory that cannot be watched, as there are no watches left, is raised once, and tried
    again after AGAIN, or as soon as a watch of ours was given back.  Where the first of
    several is refused again the others wait: that costs two system calls a time.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Final

from pollers.watch.base import Change, Kind, join, lies_in, split
from pollers.watch.difference import Since, diff
from pollers.watch.places import Place, PlaceWatcher
from pollers.watch.tree import FULL, UNREADABLE, VANISHED, Name, list_statuses, open_root, walk

#: Seconds until what could not be looked at, or watched, is tried again.
AGAIN: Final = 1.0
#: Nanoseconds by which a file system's clock may be behind: the coarsest (FAT) counts in 2 s.
GRAIN: Final = 2 * 10**9


class Moment:
    """A time by the wall clock, whatever it is set to later."""

    __slots__ = ("_ticks", "_wall")

    def __init__(self) -> None:
        self._wall = time.time_ns()
        self._ticks = time.monotonic_ns()

    def earliest(self) -> int:
        """What a ctime of then may be (ns since the epoch), by the clock of then or of now."""
        by_now = time.time_ns() - (time.monotonic_ns() - self._ticks)
        return min(self._wall, by_now) - GRAIN


class LookingAgain(PlaceWatcher):
    """What is looked at, and told as it is found."""

    def __init__(self) -> None:
        super().__init__()
        #: When nothing was unread last.
        self._drained = Moment()
        #: What is tried again: what was added and could not be looked at, with the moment since
        #: which it has to be; and directories that could not be watched, with None.
        self._again: dict[bytes, Moment | None] = {}
        #: From when on (time.monotonic()), or with fewer watches than these.
        self._again_at = 0.0
        self._again_below = 0

    def _refuse(self, path: bytes, error: OSError) -> None:
        """Say, once, that a directory cannot be watched, and have it tried again."""
        if path not in self._again:
            self._refusal = error
            self._again[path] = None
        self._missed.add(path)
        self._try_later()

    def _put_off(self, path: bytes, error: OSError, since: Moment) -> None:
        """There are no fds to look at `path`: say so, and look at all that was added around it."""
        self._refusal = error
        for root in self._roots:
            if lies_in(path, root) and self._again.get(root) is None:
                self._again[root] = since
        self._try_later()

    def _try_later(self) -> None:
        self._again_at = time.monotonic() + AGAIN
        self._again_below = self.counters.watches

    def _retry(self) -> None:
        """Look at what was put off, and watch what could not be, once a while."""
        early = self.counters.watches >= self._again_below and time.monotonic() < self._again_at
        if early or not self._again:
            return
        for path, since in list(self._again.items()):
            if since is not None:
                del self._again[path]
                if path in self._roots:
                    self._look_again(path, self._roots[path], since)
        for path in [path for path, since in self._again.items() if since is None]:
            if path in self._missed:
                self._discover(path)
                if path in self._missed and path in self._again:  # there still is no room
                    return
            self._again.pop(path, None)

    def _discover(self, path: bytes) -> None:
        """A new directory is there: watch it, and tell what is in it."""
        self._missed.add(path)
        try:
            fd = self._open(path)
            if fd is None:
                self._again.pop(path, None)  # what became of it will be told
                return
            self._missed.discard(path)
            try:
                self.counters.rescans += self._cover(path, fd, True, strict=False)
            finally:
                os.close(fd)
        except OSError as error:
            self._missed.add(path)
            if error.errno in UNREADABLE:
                self._unreadable(path)
                self._again.pop(path, None)
            elif error.errno in FULL:
                self._put_off(path, error, self._drained)
            else:
                self._refuse(path, error)
            return
        for directory in self._below(path):
            for name, entry in self._places[directory].names.items():
                self._tell(Change(Kind.CREATED, join(directory, name), None, entry.directory))

    def _deleted(self, place: Place, name: bytes) -> None:
        known = place.names.pop(name, None)
        if known is not None:
            path = join(place.path, name)
            self._tell(Change(Kind.DELETED, path, None, known.directory))
            if known.directory:
                self._drop(path)

    def _ended(self, path: bytes) -> None:
        """What was added is no longer there by this path."""
        if path not in self._roots:
            return
        self._end_roots(path)
        above, name = split(path)
        parent = self._places.get(above)
        if parent is None:
            self._tell(Change(Kind.DELETED, path, None, True))
        else:
            self._deleted(parent, name)

    def _drop(self, path: bytes) -> None:
        """A directory is gone, and all below it."""
        for below in self._below(path):
            self._leave(below)
        if self._missed:
            self._missed = {missed for missed in self._missed if not lies_in(missed, path)}
        self._end_roots(path)

    def _end_roots(self, path: bytes) -> None:
        """What was added at `path` or below it, also through links, is there no more."""
        for root in [root for root in self._roots if lies_in(root, path)]:
            del self._roots[root]
            self._trim(root)

    def _look_again(self, top: bytes, recursive: bool, since: Moment) -> None:
        """List a directory and what is below it, and tell how it differs from what was known."""
        entered: dict[bytes, Place] = {}

        def enter(path: bytes, fd: int) -> bool:
            try:
                entered[path] = self._place(path, fd) or self._places[path]
            except OSError as error:
                if error.errno in UNREADABLE:
                    raise
                self._refuse(path, error)
                return False
            return True

        try:
            fd = open_root(top) if top in self._roots else self._open(top)
            if fd is None:
                return  # what became of it will be told
            try:
                lister = partial(list_statuses, self._unreadable)
                new = walk(fd, top, lister, enter, self._unreadable, recursive)
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
