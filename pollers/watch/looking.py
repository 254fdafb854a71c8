"""Looks at the parts of a tree of which something was said.

What follows from looking
-------------------------
*   It is right at the end whatever the order of the hints was, and whatever was said twice.
*   What one `read()` returns is the difference of two looks: within it the order of different
    names is not that of what happened.
*   A directory that came is walked after it was entered (marked, opened): what is made in it
    meanwhile is found, and said as well.  Told it is once, since what was found is known.
*   A hint may lead to a directory that was moved or removed since (pollers.watch.roots).  That is
    said of its parent, now or later, and then all of it is looked at.
*   Every name costs a `Status`, some 300 bytes, and an lstat(2) when it is first seen.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import partial

from pollers.watch.base import Adapter, Capability, Change, join, split
from pollers.watch.hints import ALTERED, CAME, WENT, Hints, changes
from pollers.watch.roots import Root, identity, open_known
from pollers.watch.tree import (
    OPEN,
    UNREADABLE,
    VANISHED,
    Snapshot,
    Status,
    explained,
    list_statuses,
    open_below,
    subtree,
    walk,
)


@dataclass(slots=True)
class Look:
    """One look at parts of a tree: what was known of them, and what is found."""

    root: Root
    hints: Hints
    old: Snapshot[Status] = field(default_factory=dict)
    new: Snapshot[Status] = field(default_factory=dict)
    #: Directories of which only the hinted names are in these.
    partly: set[bytes] = field(default_factory=set)


class Looking(Adapter):
    """How a tree is looked at.  An adapter may also give `_left`, `_status` and `_statuses`."""

    def __init__(self) -> None:
        super().__init__()
        #: What kept something from being looked at or entered: raised by the next `read()`.
        self._refusal: OSError | None = None

    # -- for the adapter to give

    @abstractmethod
    def _enter(self, root: Root, path: bytes, fd: int) -> None:
        """Have the open directory reported as `path` from now on.  Raises OSError at a limit."""

    @abstractmethod
    def _leave(self, root: Root, path: bytes) -> None:
        """A directory is no longer at `path`; it may have been entered by another one."""

    def _left(self, root: Root, old: Snapshot[Status], new: Snapshot[Status]) -> None:
        """Names that are not in `new` any more are of no interest."""

    def _statuses(self, root: Root, path: bytes, fd: int) -> dict[bytes, Status]:
        """All names in the open directory."""
        return list_statuses(partial(self._shut, root), path, fd)

    def _status(self, root: Root, path: bytes, fd: int, name: bytes) -> Status | None:
        """One name in the open directory; None where it is not there, or may not be looked at."""
        try:
            return Status.of(os.stat(name, dir_fd=fd, follow_symlinks=False))
        except OSError as error:
            if error.errno not in UNREADABLE | VANISHED:
                raise
            return None

    # -- looking

    def _look_from(self, root: Root, hints: Hints) -> list[Change] | None:
        """Look from where a root is; None where it is there no more.  Raises OSError."""
        try:
            fd = os.open(root.name, OPEN, dir_fd=root.parent)
        except OSError as error:
            if error.errno not in VANISHED:
                raise explained(error, root.path) from None
            return None
        try:
            return self._look(root, fd, hints) if identity(fd) == root.identity else None
        finally:
            os.close(fd)

    def _look(self, root: Root, top: int, hints: Hints) -> list[Change]:
        """Look where the hints lead, and know what is found.  Raises OSError, and knows nothing.

        What they say of names is told as well.
        """
        look = Look(root, hints)
        for path in root.missed:
            hints.add(*split(path), 0)
        whole = hints.lost or hints.whole
        if whole:
            look.old = {path: names.copy() for path, names in root.known.items()}
            look.new = self._walk(root, root.path, top)
        else:
            for path in sorted({*hints.names, *hints.listed}, key=lambda path: path.count(b"/")):
                self._look_at(look, top, path)
        new, gone = look.new, look.old.keys() - look.new.keys()
        self._left(root, look.old, new)
        all_said = Capability.MOVES in self.capabilities and not whole
        told = changes(hints, look.old, new, root.moved, all_said)
        root.moved.clear()
        for path in gone:
            if root.known.pop(path, None) is not None:
                self._leave(root, path)
        for path, now in new.items():
            if path in look.partly:
                names = root.known[path]
                for name in hints.names[path]:
                    names.pop(name, None)
                names.update(now)
            else:
                root.known[path] = now
        if root.missed:
            root.missed = set(filter(root.is_left_out, root.missed))
        return told

    def _look_at(self, look: Look, top: int, path: bytes) -> None:
        """Look at one directory, and at all that is below those that came to it or went."""
        root, hints = look.root, look.hints
        if path in look.new or path in look.old or path not in root.known:
            return  # done already
        try:
            fd = open_known(top, path[len(root.path) :].lstrip(b"/"))
        except OSError as error:
            raise explained(error, path) from None
        if fd is None:
            return
        try:
            known, said = root.known[path], hints.names.get(path, {})
            if path in hints.listed:
                was, now = known.copy(), self._statuses(root, path, fd)
                self.counters.rescans += 1
            else:
                was = {name: known[name] for name in said if name in known}
                found = ((name, self._status(root, path, fd, name)) for name in said)
                now = {name: status for name, status in found if status is not None}
                look.partly.add(path)
            look.old[path], look.new[path] = was, now
            if root.recursive:
                for name in {*was, *now}:
                    self._look_below(look, fd, path, name)
        finally:
            os.close(fd)

    def _look_below(self, look: Look, fd: int, directory: bytes, name: bytes) -> None:
        """Look at all below a name in the open directory `fd`, if it came or went as one."""
        was, now = look.old[directory].get(name), look.new[directory].get(name)
        path, known = join(directory, name), look.root.known
        said = look.hints.names.get(directory, {}).get(name, 0)
        there = now is not None and now.directory
        # A new directory may have the old one's inode number; then it is said that it came.
        stays = was is not None and now is not None and was.identity == now.identity
        stays = stays and path in known and not said & (CAME | WENT)
        if there and stays and not said & ALTERED:
            return
        child = open_below(fd, name, path, partial(self._shut, look.root)) if there else None
        try:
            if child is not None and stays:
                return  # it can still be read
            if was is not None and was.directory:
                look.old.update((below, known[below].copy()) for below in subtree(known, path))
            if child is not None:
                look.new.update(self._walk(look.root, path, child))
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            self._shut(look.root, path)
        finally:
            if child is not None:
                os.close(child)

    def _walk(self, root: Root, path: bytes, fd: int, strict: bool = False) -> Snapshot[Status]:
        """Enter and list the open directory and, if the root is recursive, all that is below.

        Raises OSError, where `strict` also for what cannot be entered.
        """
        entered: list[bytes] = []

        def enter(path: bytes, fd: int) -> bool:
            try:
                self._enter(root, path, fd)
            except OSError as error:
                if error.errno in UNREADABLE:
                    raise
                if error.errno in VANISHED and path != root.path:
                    return False
                if strict:
                    raise
                if path not in root.missed:
                    root.missed.add(path)
                    self._refusal = error
                return False
            self.counters.rescans += not strict
            entered.append(path)
            return True

        lister, shut = partial(self._statuses, root), partial(self._shut, root)
        found: Snapshot[Status] = {}
        try:
            found = walk(fd, path, lister, enter, shut, root.recursive)
        finally:
            for path in entered:
                if path not in found and path not in root.known:  # it could not be listed
                    self._leave(root, path)
        return found

    def _shut(self, root: Root, path: bytes) -> None:
        """A directory below may not be read."""
        if path not in root.shut:
            root.shut.add(path)
            self._unreadable(path)

    def _unreadable(self, path: bytes) -> None:
        self.counters.unreadable += 1
