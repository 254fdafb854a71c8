"""What is known of watched trees, and looks at the parts of them of which something was said.

For facilities that say *where* something happened and not what, or not in which order: fanotify
merges events out of their order, and a kqueue says of a directory that it changed.  Their records
become hints (`pollers.watch.hints`); the changes are what lstat(2) finds there, compared with what
was known.

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
from dataclasses import dataclass, field
from typing import Final

from pollers.watch.base import (
    Adapter,
    AnyPath,
    Capability,
    Change,
    Kind,
    as_path,
    join,
    lies_in,
    split,
)
from pollers.watch.hints import ALTERED, CAME, WENT, Hints, changes
from pollers.watch.roots import Root, identity, make_root, open_known
from pollers.watch.tree import (
    OPEN,
    VANISHED,
    Snapshot,
    Status,
    list_statuses,
    open_below,
    open_root,
    subtree,
    walk,
)
from pollers.watch.waiting import AnyOf, Timer

#: Seconds until a look that failed for want of descriptors is tried again.
AGAIN: Final = 1.0


@dataclass(slots=True)
class Look:
    """One look at parts of a tree: what was known of them, and what is found."""

    root: Root
    hints: Hints
    old: Snapshot[Status] = field(default_factory=dict)
    new: Snapshot[Status] = field(default_factory=dict)
    #: Directories of which only the hinted names are in these.
    partly: set[bytes] = field(default_factory=set)


class KnownTrees(Adapter):
    """All of a watcher but its facility.

    An adapter gives `_enter`, `_leave` and `_drop`, perhaps `_left`, `_status` and `_statuses`; it
    fills what `_hint` gives and calls `_take`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._roots: dict[bytes, Root] = {}
        self._hints: dict[Root, Hints] = {}
        self._told: list[Change] = []
        #: What kept something from being looked at: raised by the next `_take`.
        self._refusal: OSError | None = None
        self._timer_set = False

    # -- for the adapter to give

    def _enter(self, root: Root, path: bytes, fd: int) -> None:
        """Have the open directory reported as `path` from now on.  Raises OSError at a limit."""
        raise NotImplementedError

    def _leave(self, root: Root, path: bytes) -> None:
        """A directory is no longer at `path`; it may have been entered by another one."""
        raise NotImplementedError

    def _drop(self, root: Root) -> None:
        """Leave everything that was entered for `root`."""
        raise NotImplementedError

    def _left(self, root: Root, old: Snapshot[Status], new: Snapshot[Status]) -> None:
        """Names that are not in `new` any more are of no interest."""

    def _statuses(self, root: Root, path: bytes, fd: int) -> dict[bytes, Status]:
        """All names in the open directory."""
        return list_statuses(fd)

    def _status(self, root: Root, path: bytes, fd: int, name: bytes) -> Status | None:
        """One name in the open directory; None where it is not there."""
        try:
            return Status.of(os.stat(name, dir_fd=fd, follow_symlinks=False))
        except FileNotFoundError:
            return None

    # -- the contract

    def add(self, path: AnyPath, recursive: bool = False) -> None:
        self._check_open()
        path = as_path(path)
        if path in self._roots:
            raise FileExistsError(f"{os.fsdecode(path)} is watched already; remove it first")
        fd = open_root(path)
        try:
            root = make_root(path, fd, recursive)
            try:
                root.known = self._walk(root, path, fd, strict=True)
            except BaseException:
                self._forget(root)
                raise
        finally:
            os.close(fd)
        root.moved.clear()
        self._roots[path] = root

    def remove(self, path: AnyPath) -> None:
        self._check_open()
        path = as_path(path)
        if path not in self._roots:
            raise FileNotFoundError(f"{os.fsdecode(path)} is not watched; add it first")
        self._end([self._roots[path]])
        self._told = [
            change
            for change in self._told
            if any(lies_in(change.path, root) for root in self._roots)
        ]

    def fileno(self) -> int:
        self._check_open()
        return self._any.fileno()

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        for root in self._roots.values():
            os.close(root.parent)
        self.counters.watches = 0
        self._roots.clear()
        self._hints.clear()
        self._told.clear()
        self._any.close()
        self._timer.close()

    def _wait_for(self, fd: int) -> None:
        """Have `fileno()` readable when `fd` is, and when the timer says so.  Raises OSError."""
        self._timer = Timer()
        try:
            self._any = AnyOf(fd, self._timer.fileno())
        except OSError:
            self._timer.close()
            raise

    # -- looking

    def _hint(self, root: Root) -> Hints:
        """The hints for a root, to be filled."""
        hints = self._hints.get(root)
        if hints is None:
            hints = self._hints[root] = Hints()
        return hints

    def _take(self) -> list[Change]:
        """Look where the hints lead; the changes, for `read()` to return.

        Raises the OSError that kept something from being looked at or entered, once; the changes
        then are left for the next call.
        """
        hints, self._hints = self._hints, {}
        # What another root tells of too is told by that one.
        covered = {root for root in hints if self._is_covered(root)}
        #: Roots that are there no more, of which others tell by name.
        ended: list[Root] = []
        for root, where in hints.items():
            if self._roots.get(root.path) is not root:
                continue  # it ended with what another root told
            try:
                found = None if where.ended else self._look_from(root, where)
            except OSError as error:
                self._refusal = error
                where.whole = True
                self._hints[root] = where
                continue
            if found is None:
                named = self._is_named(root)
                if not named:
                    self._tell([Change(Kind.DELETED, root.path, None, True)])
                if self._roots.get(root.path) is root:
                    self._end([root])
                    ended += [root] if named else []
                continue
            if where.lost:
                found.insert(0, Change(Kind.OVERFLOW, root.path, None, True))
            if root not in covered:
                self._tell(found)
        for root in ended:
            # Where another directory has its name, those who know names only see no difference.
            if not any(root.path in (change.path, change.source) for change in self._told):
                self._tell([Change(Kind.DELETED, root.path, None, True)])
                self._tell([Change(Kind.CREATED, root.path, None, True)])
        self._set_timer()
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal
        told, self._told = self._told, []
        self.counters.changes += len(told)
        return told

    def _set_timer(self) -> None:
        """Have the fd readable when what is left can be told, or looked at again."""
        left = self._refusal is not None and self._told
        if left or self._hints:
            self._timer.set(0.0 if left else AGAIN)
            self._timer_set = True
        elif self._timer_set:
            self._timer.clear()
            self._timer_set = False

    def _tell(self, told: list[Change]) -> None:
        """Tell, and end the roots of which that was the end."""
        self._told += told
        if len(self._roots) == 1:
            return
        for change in told:
            gone = change.path if change.kind is Kind.DELETED else change.source
            if gone is not None and change.directory:
                self._end([root for root in self._roots.values() if lies_in(root.path, gone)])

    def _is_covered(self, root: Root) -> bool:
        """Whether another root has this directory by the same path in its tree."""
        return any(
            other is not root and other.recursive and root.path in other.known
            for other in self._roots.values()
        )

    def _is_named(self, root: Root) -> bool:
        """Whether it is a name in another root, which tells of its end."""
        above, name = split(root.path)
        return any(
            other is not root and name in other.known.get(above, ())
            for other in self._roots.values()
        )

    def _end(self, roots: list[Root]) -> None:
        for root in roots:
            del self._roots[root.path]
            self._hints.pop(root, None)
            self._forget(root)

    def _forget(self, root: Root) -> None:
        self._drop(root)
        os.close(root.parent)

    def _look_from(self, root: Root, hints: Hints) -> list[Change] | None:
        """Look from where a root is; None where it is there no more."""
        try:
            fd = os.open(root.name, OPEN, dir_fd=root.parent)
        except PermissionError:
            self._unreadable(root.path)
            return []
        except OSError as error:
            if error.errno not in VANISHED:
                raise
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
            self.counters.overflows += hints.lost
            look.old = {path: names.copy() for path, names in root.known.items()}
            look.new = self._walk(root, root.path, top)
        else:
            for path in sorted({*hints.names, *hints.listed}, key=lambda path: path.count(b"/")):
                self._look_at(look, top, path)
        new, gone = look.new, look.old.keys() - look.new.keys()
        root.missed -= new.keys()
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
        return told

    def _look_at(self, look: Look, top: int, path: bytes) -> None:
        """Look at one directory, and at all that is below those that came to it or went."""
        root, hints = look.root, look.hints
        if path in look.new or path in look.old or path not in root.known:
            return  # done already
        fd = open_known(top, path[len(root.path) :].lstrip(b"/"))
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
        child = open_below(fd, name, path, self._unreadable) if there else None
        try:
            if child is not None and stays:
                return  # it can still be read
            if was is not None and was.directory:
                look.old.update((below, known[below].copy()) for below in subtree(known, path))
            if child is not None:
                look.new.update(self._walk(look.root, path, child))
        finally:
            if child is not None:
                os.close(child)

    def _walk(self, root: Root, path: bytes, fd: int, strict: bool = False) -> Snapshot[Status]:
        """Enter and list the open directory and, if the root is recursive, all that is below.

        Raises OSError, where `strict` also for what cannot be entered.
        """
        at = path

        def enter(path: bytes, fd: int) -> bool:
            nonlocal at
            at = path
            try:
                self._enter(root, path, fd)
            except OSError as error:
                if error.errno in VANISHED and path != root.path:
                    return False
                if strict:
                    raise
                if path not in root.missed:
                    root.missed.add(path)
                    self._refusal = error
                return False
            self.counters.rescans += not strict
            return True

        def lister(fd: int) -> dict[bytes, Status]:
            return self._statuses(root, at, fd)

        return walk(fd, path, lister, enter, self._unreadable, root.recursive)

    def _unreadable(self, path: bytes) -> None:
        self.counters.unreadable += 1
