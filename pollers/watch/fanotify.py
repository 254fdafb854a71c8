"""The watcher over fanotify(7): a mark for each directory.  Its facts are in pollers.fanotify.

What they mean for us
---------------------
*   The queue's order is not that of what happened, and one event may be several that were merged.
    So an event says which names to look at again, and what it was about (pollers.watch.looking).
    There is no `Capability.ORDER`.
*   A directory is known by its handle, which events carry.  What was moved in between is found by
    where its parent has it now.
*   Nothing has to wait: FAN_RENAME has both names.  Kernels before 5.17 lack it, and renames are
    those that inode numbers show.
*   An event of a directory's own attributes names that directory and ".": in a tree it is marked
    and known, or left out, and all that are left out are looked at; where the root is not
    recursive all names are.
*   A mark can only be removed by an fd of its directory.  That is opened by its handle, or without
    CAP_DAC_READ_SEARCH by its path.  What was moved out has none: then its mark stays until it is
    deleted or the watcher closed, and what it says is thrown away.
*   It tells of what was added by FAN_DELETE_SELF and FAN_MOVE_SELF; of those below, the parent
    tells.
*   Unmounting is not reported: the added directory goes on as if nothing ever happened in it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Final

from pollers.fanotify import (
    FAN_ATTRIB,
    FAN_CLOSE_WRITE,
    FAN_CREATE,
    FAN_DELETE,
    FAN_DELETE_SELF,
    FAN_EVENT_ON_CHILD,
    FAN_MODIFY,
    FAN_MOVE_SELF,
    FAN_MOVED_FROM,
    FAN_MOVED_TO,
    FAN_ONDIR,
    FAN_Q_OVERFLOW,
    FAN_RENAME,
    Event,
    Fanotify,
    Place,
)
from pollers.filehandle import Handle, handle_of, open_by_handle
from pollers.watch.base import Capability, Change, Price, split
from pollers.watch.hints import ALTERED, CAME, IS_DIRECTORY, WENT, WRITTEN
from pollers.watch.known import KnownTrees
from pollers.watch.roots import Root, open_path

_ALWAYS: Final = (
    FAN_MODIFY
    | FAN_ATTRIB
    | FAN_CLOSE_WRITE
    | FAN_CREATE
    | FAN_DELETE
    | FAN_DELETE_SELF
    | FAN_MOVE_SELF
    | FAN_ONDIR
    | FAN_EVENT_ON_CHILD
)
_HALVES: Final = FAN_MOVED_FROM | FAN_MOVED_TO

#: What an event says of its name.
_SAYS: Final = {
    FAN_MODIFY: WRITTEN,
    FAN_CLOSE_WRITE: WRITTEN,
    FAN_ATTRIB: ALTERED,
    FAN_CREATE: CAME,
    FAN_MOVED_TO: CAME,
    FAN_DELETE: WENT,
    FAN_MOVED_FROM: WENT,
    FAN_ONDIR: IS_DIRECTORY,
}


@functools.lru_cache(maxsize=1024)  # a handful of masks make up all events
def says(mask: int) -> int:
    """What an event's mask says of the name in it."""
    what = 0
    for bit, meaning in _SAYS.items():
        if mask & bit:
            what |= meaning
    return what


class FanotifyWatcher(KnownTrees):
    """The adapter over fanotify.  Raises OSError, with what to do, where there can be none."""

    name = "fanotify"
    capabilities = (
        Capability.NAMES | Capability.PROMPT | Capability.CLOSE_WRITE | Capability.OVERFLOW
    )
    price = Price(root=1)

    def __init__(self) -> None:
        super().__init__()
        self._group = Fanotify()
        if self._group.targets:  # FAN_RENAME came with them
            self.capabilities |= Capability.MOVES
            self._mask = _ALWAYS | FAN_RENAME
        else:
            self._mask = _ALWAYS | _HALVES
        #: What is marked -> where it is.
        self._places: dict[Handle, set[tuple[Root, bytes]]] = {}
        #: The same the other way round.
        self._handles: dict[Root, dict[bytes, Handle]] = {}
        try:
            self._wait_for(self._group.fileno())
        except OSError:
            self._group.close()
            raise

    def read(self) -> list[Change]:
        self._check_open()
        events = self._group.read()
        self.counters.events += len(events)
        for event in events:
            if event.mask & FAN_Q_OVERFLOW:
                self.counters.overflows += 1
                for root in self._roots.values():
                    self._hint(root).lost = True
            elif event.place is not None:
                self._hear(event.place, event.mask)
            else:
                self._hear_rename(event)
        return self._take()

    def close(self) -> None:
        if not self.closed:
            self._group.close()
            self._places.clear()
            self._handles.clear()
            super().close()

    def _hear(self, place: Place, mask: int) -> None:
        """Take up what an event says of one name."""
        directory, name = place
        places = self._places.get(directory, ())
        if name != b".":
            what = says(mask)
            for root, path in places:
                self._hint(root).add(path, name, what)
            return
        for root, path in places:
            if path != root.path:
                self._hint(root).add(*split(path), says(mask) & ALTERED)
            elif mask & (FAN_DELETE_SELF | FAN_MOVE_SELF):
                self._hint(root).ended = True
        if mask & FAN_ATTRIB:
            for root in self._roots.values():
                if not root.recursive:
                    self._hint(root).listed.add(root.path)
                elif not places:
                    root.shut = set(filter(root.is_left_out, root.shut))
                    for path in root.shut | root.missed:
                        self._hint(root).add(*split(path), 0)

    def _hear_rename(self, event: Event) -> None:
        """Take up both sides of a rename, as far as they are watched."""
        what = says(event.mask)
        old = self._at(event.old)
        new = self._at(event.new)
        for root, path, name in old:
            hints = self._hint(root)
            hints.add(path, name, what | WENT)
            known = root.known.get(path, {}).get(name)
            if known is not None:
                root.moved.add(known.identity)
        for root, path, name in new:
            hints = self._hint(root)
            hints.add(path, name, what | CAME)
            hints.renames += [
                ((source, was), (path, name)) for other, source, was in old if other is root
            ]

    def _at(self, place: Place | None) -> list[tuple[Root, bytes, bytes]]:
        """Where a name is: in which roots, by which path of its directory."""
        if place is None:
            return []
        return [(root, path, place.name) for root, path in self._places.get(place.directory, ())]

    def _enter(self, root: Root, path: bytes, fd: int) -> None:
        handle = handle_of(fd)
        handles = self._handles.setdefault(root, {})
        if handles.get(path) == handle:
            return
        places = self._places.get(handle)
        if places is None:
            self._group.add_fd(fd, self._mask)
            places = self._places[handle] = set()
            self.counters.watches = len(self._places)
        if path in handles:
            self._leave(root, path)
        if any(other is root for other, _ in places):  # it was elsewhere
            root.moved.add(os.fstat(fd).st_ino)
        handles[path] = handle
        places.add((root, path))

    def _leave(self, root: Root, path: bytes) -> None:
        handle = self._handles[root].pop(path, None)
        if handle is None:
            return
        places = self._places[handle]
        places.discard((root, path))
        if not places:
            del self._places[handle]
            self.counters.watches = len(self._places)
            self._unmark(root, path, handle)

    def _drop(self, root: Root) -> None:
        for path in list(self._handles.get(root, ())):
            self._leave(root, path)
        self._handles.pop(root, None)

    def _unmark(self, root: Root, path: bytes, handle: Handle) -> None:
        """Remove the mark of what was at `path`, as far as it can be opened by anything."""
        with contextlib.suppress(OSError):  # deleted, or out of reach
            try:
                fd = open_by_handle(root.parent, handle)
            except PermissionError:
                fd = open_path(root, path)
            try:
                if handle_of(fd) == handle:
                    self._group.remove_fd(fd, self._mask)
            finally:
                os.close(fd)
