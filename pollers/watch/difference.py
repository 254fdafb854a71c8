"""The changes that lead from one state of a tree to another: pure.

What two states can tell
------------------------
*   A rename is one inode that left one name and has another.  Inode numbers are used again at once
    (ext4), so that size and mtime have to be the same as well, or older than what was lost; else
    it is told as DELETED and CREATED, which is as true.
*   A name is the same one if it is in the same directory by path; the directory may be another.
*   ctime alone, changed without mode, owner or links, may be a write whose mtime was set back: it
    is told as MODIFIED, which is never wrong.
*   Of a directory only mode and owner are compared: its times change with its names.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from pollers.watch.base import Change, Kind, join, split
from pollers.watch.tree import E, Entry, Name, Snapshot, Status, subtree

C = TypeVar("C", bound=Entry, contravariant=True)


class Judge(Protocol[C]):
    """How two entries of one name, an old one and a status, compare."""

    def same(self, old: C, new: Status) -> bool:
        """Whether one with the same inode number may be the same file, under another name."""

    def altered(self, old: C, new: Status, moved: bool) -> tuple[Kind, ...]:
        """What happened to a name that is of the same type as it was; `moved` from another."""


class Compared:
    """Judges by comparing all that lstat(2) tells."""

    def same(self, old: Status, new: Status) -> bool:
        return (old.size, old.mtime) == (new.size, new.mtime)

    def altered(self, old: Status, new: Status, moved: bool) -> tuple[Kind, ...]:
        if old == new:
            return ()
        attributes = (old.mode, old.links, old.owner, old.group) != (
            *(new.mode, new.links, new.owner, new.group),
        )
        if new.directory:
            modified = False
        elif (old.identity, old.size, old.mtime) != (new.identity, new.size, new.mtime):
            modified = True
        else:
            modified = old.ctime != new.ctime and not attributes and not moved
        return ((Kind.MODIFIED,) if modified else ()) + ((Kind.ATTRIBUTES,) if attributes else ())


class Since:
    """Judges by time: what was altered after `since` (ns since the epoch) may have been missed."""

    def __init__(self, since: int) -> None:
        self._since = since

    def same(self, old: Name, new: Status) -> bool:
        return new.mtime < self._since

    def altered(self, old: Name, new: Status, moved: bool) -> tuple[Kind, ...]:
        other = old.identity not in (0, new.identity)
        if new.directory:
            return (Kind.ATTRIBUTES,) if new.ctime >= self._since else ()
        if other or new.ctime >= self._since:
            return (Kind.MODIFIED, Kind.ATTRIBUTES)
        return ()


def diff(old: Snapshot[E], new: Snapshot[Status], judge: Judge[E]) -> list[Change]:
    """The changes that, replayed in order on `old`, give `new`; [] where they are the same.

    Renames first, then what is gone, what is new, and what is altered.
    """
    renames, work = _renames(old, new, judge)
    told = {change.path: change.kind for change in renames}
    gone, fresh, altered = [], [], []
    for path, names in new.items():
        was: dict[bytes, E] = work.get(path, {})
        if was == names:
            continue
        for name, entry in was.items():
            left = names.get(name)
            if left is None or left.directory is not entry.directory:
                gone.append(Change(Kind.DELETED, join(path, name), None, entry.directory))
        for name, now in names.items():
            full = join(path, name)
            before = was.get(name)
            if before is None or before.directory is not now.directory:
                fresh.append(Change(Kind.CREATED, full, None, now.directory))
                continue
            kind = told.get(full)
            altered += [
                Change(what, full, None, now.directory)
                for what in judge.altered(before, now, kind is not None)
                if what is not kind
            ]
    for path in work.keys() - new.keys():
        above, name = split(path)
        still = new.get(above, {}).get(name)
        if still is not None and still.directory:
            gone += [  # it is there and may not be read any more
                Change(Kind.DELETED, join(path, below), None, known.directory)
                for below, known in work[path].items()
            ]
    return renames + gone + fresh + altered


def _renames(
    old: Snapshot[E], new: Snapshot[Status], judge: Judge[E]
) -> tuple[list[Change], Snapshot[E]]:
    """The renames between two states, and the old one with these done.

    Both names' directories have to be in both states, except that the old one's may be gone: what
    was in it is moved out first.  A rename in which more changed is not seen as one.
    """
    sources: list[tuple[bytes, bytes, E]] = []
    targets: dict[int, tuple[bytes, bytes, Status]] = {}
    for path, was in old.items():
        names = new.get(path)
        if names is None:
            sources += [(path, name, entry) for name, entry in was.items()]
        elif was != names:
            sources += [(path, name, entry) for name, entry in was.items() if name not in names]
            for name, now in names.items():
                before = was.get(name)
                if before is None or (
                    not (before.directory or now.directory)
                    and before.identity not in (0, now.identity)
                ):
                    targets.setdefault(now.identity, (path, name, now))
    if not targets or not sources:
        return [], old
    changes = []
    work = dict(old)
    copied: set[bytes] = set()
    for path, name, entry in reversed(sources):  # what is deepest leaves first
        target = targets.get(entry.identity)
        if target is None:
            continue
        to, called, now = target
        if entry.directory is not now.directory or not judge.same(entry, now):
            continue
        del targets[entry.identity]
        full, source = join(to, called), join(path, name)
        kind = Kind.MODIFIED if called in old[to] else Kind.MOVED
        changes.append(Change(kind, full, source, now.directory))
        for touched in {path, to} - copied:
            work[touched] = dict(work[touched])
            copied.add(touched)
        del work[path][name]
        work[to][called] = entry
        for below in subtree(work, source) if entry.directory else ():
            work[full + below[len(source) :]] = work.pop(below)
    return changes, work
