"""Changes applied to a set of names: the fourth paragraph of the contract, executed.

For who keeps a copy of what is there, and for tests: after all changes have been replayed, the
names are those that a look at the tree finds, and what was altered since is `dirty`.
"""

from __future__ import annotations

from collections.abc import Iterable

from pollers.watch.base import Change, Kind


class Contradiction(Exception):
    """A change that cannot follow from the names: one was lost, or told twice."""


class Replica:
    """The names below some watched directories, as told.

    `strict`: raise Contradiction where a change cannot follow: a name created that is there, or
    one deleted, moved or modified that is not.
    """

    def __init__(self, names: Iterable[tuple[bytes, bool]] = (), strict: bool = True) -> None:
        """`names`: the paths that are there, and whether each is a directory."""
        #: Path -> whether it is a directory.
        self.names = dict(names)
        #: Paths whose bytes are other than when they were last known.
        self.dirty: set[bytes] = set()
        #: The same of mode, owner, times and links.
        self.changed: set[bytes] = set()
        self._strict = strict

    def apply(self, changes: Iterable[Change]) -> None:
        """Replay `changes`, in order.  Raises Contradiction."""
        for change in changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        kind, path, source, directory = change
        if kind is Kind.OVERFLOW:
            return
        if kind is Kind.CREATED:
            self._demand(path not in self.names, change)
            self.names[path] = directory
            self.dirty.add(path)
        elif kind is Kind.DELETED:
            self._demand(path in self.names, change)
            self._remove(path)
        elif source is not None:
            self._demand(source in self.names, change)
            self._demand((path in self.names) is (kind is Kind.MODIFIED), change)
            self._move(source, path)
        elif kind is Kind.MODIFIED:
            self._demand(self.names.get(path) is False, change)
            self.dirty.add(path)
        else:
            self._demand(path in self.names, change)
            self.changed.add(path)

    def _remove(self, path: bytes) -> None:
        for name in self._tree(path):
            del self.names[name]
            self.dirty.discard(name)
            self.changed.discard(name)

    def _move(self, source: bytes, path: bytes) -> None:
        if path in self.names:
            self._remove(path)
            self.dirty.add(path)
        for name in self._tree(source):
            to = path + name[len(source) :]
            self.names[to] = self.names.pop(name)
            for kept in (self.dirty, self.changed):
                if name in kept:
                    kept.remove(name)
                    kept.add(to)

    def _tree(self, path: bytes) -> list[bytes]:
        """`path` and all that is below it, as far as it is there."""
        if not self.names.get(path):
            return [path] if path in self.names else []
        below = path + b"/"
        return [path, *(name for name in self.names if name.startswith(below))]

    def _demand(self, true: bool, change: Change) -> None:
        if self._strict and not true:
            raise Contradiction(f"{change} cannot follow from what is there")
