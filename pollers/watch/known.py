"""Watched trees of which is known what was there at the last look.

For facilities that say *where* something happened and not what, or not in which order: fanotify
merges events out of their order, and a kqueue says of a directory that it changed.  Their records
become hints (`pollers.watch.hints`); the changes are what lstat(2) finds there, compared with what
was known (`pollers.watch.looking`).
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from typing import Final

from pollers.watch.base import AnyPath, Change, Kind, as_path, lies_in, split
from pollers.watch.hints import Hints
from pollers.watch.looking import Looking
from pollers.watch.roots import Root, make_root
from pollers.watch.tree import open_root
from pollers.watch.waiting import AnyOf, Timer

#: Seconds until what could not be looked at, or entered, is tried again.
AGAIN: Final = 1.0


class KnownTrees(Looking):
    """All of a watcher but its facility.

    An adapter fills what `_hint` gives and calls `_take`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._roots: dict[bytes, Root] = {}
        self._hints: dict[Root, Hints] = {}
        #: Roots with directories that could not be entered, and when that is tried again.
        self._short: dict[Root, float] = {}
        self._told: list[Change] = []
        self._timer_set = False

    @abstractmethod
    def _drop(self, root: Root) -> None:
        """Leave everything that was entered for `root`."""

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
        self._short.clear()
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

    # -- what was said, and what is told

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
        now = time.monotonic()
        for root in [root for root, again_at in self._short.items() if again_at <= now]:
            self._hint(root)
        hints, self._hints = self._hints, {}
        # What another root tells of too is told by that one.
        covered = {root for root in hints if self._is_covered(root)}
        #: Roots that are there no more, of which others tell by name.
        ended: list[Root] = []
        for root, where in hints.items():
            if self._roots.get(root.path) is not root:
                continue  # it ended with what another root told
            if now < where.again_at:
                self._hints[root] = where
                continue
            try:
                found = None if where.ended else self._look_from(root, where)
            except OSError as error:
                if not isinstance(error, PermissionError):
                    self._refusal = error
                elif not where.whole:
                    self._unreadable(root.path)
                where.whole, where.again_at = True, now + AGAIN
                self._hints[root] = where
                self._short.pop(root, None)
                continue
            if found is None:
                named = self._is_named(root)
                if not named:
                    self._tell([Change(Kind.DELETED, root.path, None, True)])
                if self._roots.get(root.path) is root:
                    self._end([root])
                    ended += [root] if named else []
                continue
            if root.missed:
                self._short[root] = now + AGAIN
            else:
                self._short.pop(root, None)
            if where.lost:
                found.insert(0, Change(Kind.OVERFLOW, root.path, None, True))
            if root not in covered:
                self._tell(found)
        for root in ended:
            # Where another directory has its name, those who know names only see no difference.
            if not any(root.path in (change.path, change.source) for change in self._told):
                self._tell([Change(Kind.DELETED, root.path, None, True)])
                self._tell([Change(Kind.CREATED, root.path, None, True)])
        self._set_timer(now)
        if self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            raise refusal
        told, self._told = self._told, []
        self.counters.changes += len(told)
        return told

    def _set_timer(self, now: float) -> None:
        """Have the fd readable when what is left can be told, or looked at again."""
        left = self._refusal is not None and self._told
        if left or self._hints or self._short:
            times = [*(hints.again_at for hints in self._hints.values()), *self._short.values()]
            self._timer.set(0.0 if left else min(times) - now)
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
            self._short.pop(root, None)
            self._forget(root)

    def _forget(self, root: Root) -> None:
        self._drop(root)
        os.close(root.parent)
