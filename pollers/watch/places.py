"""Watched directories: which there are, how they get their watches, and how they lose them.

How it stays correct
--------------------
*   *Watch first, list afterwards.*  What changes between the two is told by the kernel and found
    by the listing, and whoever takes events apart drops what is known already.
*   *A directory is opened in the directory that it is in* (openat(2)), once that is known to be
    the inode that is watched.  Where a path leads elsewhere, a rename is unread that will tell;
    what could not be opened is tried again then (`_missed`).
*   Directories are known by path.  One inode may have several: then there is one watch, and one
    place for each path.
*   What was added may lie in something else that was.  A place stays while anything asks for it.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Hashable

from pollers.watch.base import Adapter, AnyPath, Change, as_path, join, split
from pollers.watch.tree import FULL, UNREADABLE, Name, list_names, open_below, open_root, walk


class Place:
    """A watched directory."""

    __slots__ = ("identity", "key", "names", "path", "recursive")

    def __init__(self, path: bytes, key: Hashable, identity: tuple[int, int]) -> None:
        self.path = path
        #: The kernel's name of the watch, by which events come.
        self.key = key
        #: Device and inode.
        self.identity = identity
        self.names: dict[bytes, Name] = {}
        self.recursive = False


class PlaceWatcher(Adapter):
    """The tables of what is watched."""

    def __init__(self) -> None:
        super().__init__()
        #: What was added, and whether with all below.
        self._roots: dict[bytes, bool] = {}
        self._places: dict[bytes, Place] = {}
        self._by_key: dict[Hashable, list[Place]] = {}
        #: Directories that are known, to be watched and not watched.
        self._missed: set[bytes] = set()
        self._told: list[Change] = []
        #: What kept a new directory from being watched: raised by the next `_take`.
        self._refusal: OSError | None = None

    # -- for the adapter to give

    @abstractmethod
    def _mark(self, fd: int, root: bool) -> Hashable:
        """Watch an open directory; its key, the same for the same inode.  Raises OSError."""

    @abstractmethod
    def _unmark(self, key: Hashable) -> None:
        """End a watch, which may have ended by itself."""

    # -- for who follows what is told

    @abstractmethod
    def _refuse(self, path: bytes, error: OSError) -> None:
        """A directory below cannot be watched now, and has to be later."""

    # -- the contract

    def add(self, path: AnyPath, recursive: bool = False) -> None:
        self._check_open()
        path = as_path(path)
        if path in self._roots:
            raise FileExistsError(f"{os.fsdecode(path)} is watched already; remove it first")
        fd = open_root(path)
        self._roots[path] = recursive
        try:
            self._cover(path, fd, recursive, strict=True)
        except BaseException:
            del self._roots[path]
            self._trim(path)
            raise
        finally:
            os.close(fd)

    def remove(self, path: AnyPath) -> None:
        self._check_open()
        path = as_path(path)
        if path not in self._roots:
            raise FileNotFoundError(f"{os.fsdecode(path)} is not watched; add it first")
        del self._roots[path]
        self._trim(path)
        self._told = [change for change in self._told if self._wanted(change.path)]

    def close(self) -> None:
        super().close()
        self._roots.clear()
        self._places.clear()
        self._by_key.clear()
        self._missed.clear()
        self._told.clear()
        self.counters.watches = 0

    def _take(self) -> list[Change]:
        """What was told, for `read()` to return.

        Raises the OSError that kept a new directory from being watched, once; the changes then
        are left for the next call.
        """
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal
        told, self._told = self._told, []
        self.counters.changes += len(told)
        return told

    def _tell(self, change: Change) -> None:
        """Several in a row that are the same are one."""
        if not self._told or self._told[-1] != change:
            self._told.append(change)

    # -- places

    def _cover(self, path: bytes, fd: int, recursive: bool, strict: bool) -> int:
        """Watch the open directory `fd`, and what is below; return how many are new.

        Raises OSError, where `strict` also for what cannot be watched below.  Then nothing more is
        watched than was.
        """
        fresh: list[bytes] = []

        def enter(path: bytes, fd: int) -> bool:
            try:
                place = self._place(path, fd)
            except OSError as error:
                if strict or error.errno in UNREADABLE:
                    raise
                self._refuse(path, error)
                return False
            if place is not None:
                self._enter(place)
                fresh.append(path)
            return True

        try:
            found = walk(fd, path, list_names, enter, self._unreadable, recursive)
        except BaseException:
            for path in fresh:
                self._leave(path)
            raise
        for directory in fresh:
            if directory in found:
                self._places[directory].names = found[directory]
            else:  # it turned out to be unreadable
                self._leave(directory)
        for directory in found:
            self._places[directory].recursive |= recursive
        return len(fresh)

    def _place(self, path: bytes, fd: int) -> Place | None:
        """Watch an open directory; None where it was watched by this path already."""
        key = self._mark(fd, path in self._roots)
        place = self._places.get(path)
        if place is not None and place.key == key:
            return None
        status = os.fstat(fd)
        return Place(path, key, (status.st_dev, status.st_ino))

    def _enter(self, place: Place) -> None:
        for stale in self._below(place.path):
            self._leave(stale)
        self._places[place.path] = place
        self._by_key.setdefault(place.key, []).append(place)
        self.counters.watches = len(self._by_key)

    def _leave(self, path: bytes) -> None:
        """End the watch of one path."""
        place = self._places.pop(path)
        places = self._by_key.get(place.key)
        if places is not None and place in places:
            places.remove(place)
            if not places:
                del self._by_key[place.key]
                self._unmark(place.key)
                self.counters.watches = len(self._by_key)

    def _replace(self, old: dict[bytes, Place], new: dict[bytes, Place]) -> None:
        """Have some places instead of others; one that is among both stays."""
        for path, place in old.items():
            if self._places.get(path) is place:
                del self._places[path]
                if place in (places := self._by_key.get(place.key, [])):
                    places.remove(place)
        for path, place in new.items():
            if path in self._places:
                self._leave(path)
            self._places[path] = place
            self._by_key.setdefault(place.key, []).append(place)
        for place in old.values():
            if place.key is not None and not self._by_key.get(place.key):
                self._by_key.pop(place.key, None)
                self._unmark(place.key)
        for root in [root for root in self._roots if root not in self._places]:
            del self._roots[root]
        self.counters.watches = len(self._by_key)

    def _below(self, path: bytes) -> list[bytes]:
        """The watched directories from `path` downwards, each before what is in it."""
        paths = [path] if path in self._places else []
        for above in paths:  # which grows meanwhile
            paths += [
                below
                for name, entry in self._places[above].names.items()
                if entry.directory and (below := join(above, name)) in self._places
            ]
        return paths

    def _is_here(self, place: Place) -> bool:
        """Whether a place is one still, after what was told since it was looked up."""
        return self._places.get(place.path) is place

    # -- paths

    def _open(self, path: bytes) -> int | None:
        """Open a directory in the one that it is in.

        None where it has vanished, may not be read, or where the path leads elsewhere by now.
        """
        above, name = split(path)
        parent = self._places.get(above)
        fd = self._reopen(parent) if parent is not None else None
        if fd is None:
            return None
        try:
            return open_below(fd, name, path, self._unreadable)
        finally:
            os.close(fd)

    def _reopen(self, place: Place) -> int | None:
        """Open a watched directory; None where its path does not lead there any more."""
        try:
            fd = open_root(place.path)
        except OSError as error:
            if error.errno in FULL:
                raise
            return None
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) == place.identity:
            return fd
        os.close(fd)
        return None

    def _unreadable(self, path: bytes) -> None:
        self.counters.unreadable += 1

    # -- what is asked for

    def _trim(self, path: bytes) -> None:
        """End the watches at and below `path` that nothing asks for."""
        for below in self._below(path):
            if self._wants(below):
                self._places[below].recursive = self._covered_from_above(below, itself=True)
            else:
                self._leave(below)
        if self._missed:
            self._missed = {missed for missed in self._missed if self._wants(missed)}

    def _wants(self, directory: bytes) -> bool:
        """Whether changes of the names in a directory are asked for."""
        return directory in self._roots or self._covered_from_above(directory)

    def _wanted(self, path: bytes) -> bool:
        """Whether a change of `path` is asked for; what is above it may be gone."""
        roots = self._roots
        above, name = split(path)
        if path in roots or above in roots:
            return True
        while name and above:
            if roots.get(above):
                return True
            above, name = split(above)
        return False

    def _covered_from_above(self, path: bytes, itself: bool = False) -> bool:
        """Whether `path` is below one (or is one) that was added with all below it.

        Directories alone lead there from it: below a link is another tree.
        """
        if itself and self._roots.get(path):
            return True
        while True:
            path, name = split(path)
            place = self._places.get(path)
            entry = place.names.get(name) if place is not None else None
            if entry is None or not entry.directory:
                return False
            if self._roots.get(path):
                return True
