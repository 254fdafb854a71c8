"""What watchers share that are told of names: recursion, new directories, renames.

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
*   After an overflow everything unread is thrown away and the trees are looked at (`_lost`).
"""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from collections.abc import Hashable

from pollers.watch.again import LookingAgain, Moment
from pollers.watch.base import Change, Kind, join, lies_in
from pollers.watch.places import Place
from pollers.watch.tree import DIRECTORY, FILE


class ToldWatcher(LookingAgain):
    """The names, and what follows from what the kernel tells of them.

    An adapter gives `_mark`, `_unmark` and `_discard`, and calls the methods from `_created` to
    `_lost` with the places of `_by_key`; they append to `_told`.
    """

    def __init__(self) -> None:
        super().__init__()
        #: (source, path) of the last rename, if it replaced what was there.
        self._replaced: tuple[bytes, bytes] | None = None

    @abstractmethod
    def _discard(self) -> None:
        """Throw away all that is queued now.  What is queued after the call may be kept."""

    def _created(self, place: Place, name: bytes, directory: bool) -> None:
        if name in place.names:  # a listing was faster, or another event is yet to come
            return
        place.names[name] = DIRECTORY if directory else FILE
        path = join(place.path, name)
        self._tell(Change(Kind.CREATED, path, None, directory))
        if directory and place.recursive:
            self._discover(path)

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

    # -- what follows

    def _follow(self, was: bytes, path: bytes, recursive: bool) -> None:
        """A directory has another path now, and all below it."""
        if not recursive:
            self._drop(was)
            return
        for below in self._below(was):
            place = self._places.pop(below)
            place.path = path + below[len(was) :]
            place.recursive = True
            self._places[place.path] = place
        self._end_roots(was)
        for missed in [missed for missed in self._missed if lies_in(missed, was)]:
            became = path + missed[len(was) :]
            self._missed.remove(missed)
            self._missed.add(became)
            if missed in self._again:
                self._again[became] = self._again.pop(missed)
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
