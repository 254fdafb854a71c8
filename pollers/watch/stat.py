"""The watcher that looks: every name's lstat(2), once a period.

Some facts about looking
------------------------
*   It works wherever there are files: on network file systems, over FUSE, for writes by mmap(2)
    and by other hard links.  It needs no kernel object but a timer, and no limit ends it.
*   It costs a system call a file and a period, whether anything happens or not: 100,000 files
    are some 0.5 s of CPU.  `read()` takes as long.
*   What happened between two looks is told as the difference: several writes are one MODIFIED,
    what was created and deleted was never there, and the order is lost.
*   A file is known by inode, size, mtime and ctime.  Before Linux 6.13 these count in ticks (up to
    10 ms): a write within a tick of the last look that keeps the size is not seen.

What does this mean for us?
---------------------------
*   The period begins when a look has ended, so that the process is never all looks.
*   What was added and is found in another tree that was is looked at with that, so that both tell
    the same.  What a link leads to is not found there, and has looks of its own.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Final

from pollers.watch.base import (
    Adapter,
    AnyPath,
    Capability,
    Change,
    Kind,
    as_path,
    lies_in,
)
from pollers.watch.difference import Compared, diff
from pollers.watch.tree import VANISHED, Snapshot, Status, list_statuses, open_root, walk
from pollers.watch.waiting import Timer

#: Seconds between two looks.
PERIOD: Final = 1.0


class StatWatcher(Adapter):
    """The adapter over lstat(2).  Raises OSError where there can be no timer."""

    name = "stat"
    capabilities = Capability.MMAP | Capability.LINKS | Capability.REMOTE

    def __init__(self, period: float = PERIOD) -> None:
        if period <= 0:
            raise ValueError(f"period must be more than 0 seconds, not {period:g}")
        super().__init__()
        self.period = period
        #: What was added, and whether with all below.
        self._roots: dict[bytes, bool] = {}
        #: What was there at the last look, of those that are not in another one's.
        self._seen: dict[bytes, Snapshot[Status]] = {}
        self._told: list[Change] = []
        self._due = 0.0
        self._timer = Timer()

    def add(self, path: AnyPath, recursive: bool = False) -> None:
        self._check_open()
        path = as_path(path)
        if path in self._roots:
            raise FileExistsError(f"{os.fsdecode(path)} is watched already; remove it first")
        snapshot = self._look(path, recursive)
        if not self._roots:
            self._rest()
        if self._above(path) is None:
            for below in [below for below in self._seen if below in snapshot]:
                now = {key: snapshot[key] for key in self._seen[below] if key in snapshot}
                if self._roots[below]:
                    now = {key: snapshot[key] for key in snapshot if lies_in(key, below)}
                self._told += diff(self._seen.pop(below), now, Compared())
            self._seen[path] = snapshot
        self._roots[path] = recursive
        if self._told:
            self._timer.set(0.0)

    def remove(self, path: AnyPath) -> None:
        self._check_open()
        path = as_path(path)
        if path not in self._roots:
            raise FileNotFoundError(f"{os.fsdecode(path)} is not watched; add it first")
        del self._roots[path]
        seen = self._seen.pop(path, None)
        if seen is not None:  # those below it are looked at by themselves from now on
            for below in sorted(root for root in self._roots if root in seen):
                if self._above(below) is None:  # it is not in one that was before it
                    self._seen[below] = {
                        key: seen[key]
                        for key in seen
                        if key == below or (self._roots[below] and lies_in(key, below))
                    }
        self._told = [
            change
            for change in self._told
            if any(lies_in(change.path, root) for root in self._roots)
        ]

    def fileno(self) -> int:
        self._check_open()
        return self._timer.fileno()

    def read(self) -> list[Change]:
        self._check_open()
        if not (self._roots or self._told):
            self._timer.clear()
            return []
        if time.monotonic() >= self._due:
            self._look_at_all()
        told, self._told = self._told, []
        self._timer.set(self._due - time.monotonic())
        self.counters.changes += len(told)
        return told

    def close(self) -> None:
        super().close()
        self._roots.clear()
        self._seen.clear()
        self._timer.close()

    def _look_at_all(self) -> None:
        """Add to what is to be told.  Raises the OSError of a tree that could not be looked at.

        What the others had is left for the next `read()`, and that tree for the next look.
        """
        refusal: OSError | None = None
        for path, old in list(self._seen.items()):
            try:
                self._told += self._compare(path, old)
            except OSError as error:
                refusal = error
        self._rest()
        if refusal is not None:
            if self._told:
                self._timer.set(0.0)
            raise refusal

    def _compare(self, path: bytes, old: Snapshot[Status]) -> list[Change]:
        """What has changed in one tree since it was looked at."""
        try:
            new = self._look(path, self._roots[path])
        except PermissionError:
            self._unreadable(path)
            return []
        except OSError as error:
            if error.errno not in VANISHED:
                raise
            new = {}
        for root in [root for root in self._roots if root in old and root not in new]:
            if root == path or root not in self._seen:
                del self._roots[root]
        if not new:
            del self._seen[path]
            return [Change(Kind.DELETED, path, None, True)]
        self._seen[path] = new
        return diff(old, new, Compared())

    def _look(self, path: bytes, recursive: bool) -> Snapshot[Status]:
        """What is there now.  Raises OSError where `path` is no directory that can be read."""
        fd = open_root(path)
        try:
            lister = partial(list_statuses, self._unreadable)
            found = walk(fd, path, lister, _enter, self._unreadable, recursive)
        finally:
            os.close(fd)
        self.counters.events += len(found)
        return found

    def _above(self, path: bytes) -> bytes | None:
        """What was added in whose tree `path` was found, and that it is looked at with."""
        return next((root for root, seen in self._seen.items() if path in seen), None)

    def _rest(self) -> None:
        self._due = time.monotonic() + self.period
        self._timer.set(self.period)

    def _unreadable(self, path: bytes) -> None:
        self.counters.unreadable += 1


def _enter(path: bytes, fd: int) -> bool:
    return True
