"""What a record of a write is told as, remembered until it may be something else.  Pure.

Facts
-----
*   Writes are what comes by the hundred thousand, most of them to a few files, and the kernel's
    records of two writes to one file are equal, byte for byte.
*   What a write is told as depends on which path its directory has, and on whether the name is
    known there as a file.  A change of one file's name is no matter to other files; a change of a
    directory may be one to all below it.
*   Most records are never forgotten one by one, so that which names they are about is found out
    when the first one is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final

from pollers.inotify import IN_CLOSE_WRITE, IN_MODIFY, Fields
from pollers.watch.base import Change

#: The masks of what is remembered.
WRITES: Final = (IN_MODIFY, IN_CLOSE_WRITE)

#: How many records are remembered: as many as the kernel's queue holds.
MOST: Final = 16384


class Memo:
    """Records of writes, and the Change of each; `changes` is for looking up."""

    def __init__(self, decode: Callable[[Any], Fields]) -> None:
        self.changes: dict[Hashable, Change] = {}
        self._decode = decode
        #: What the records say -> the records; and those that are not there yet.
        self._records: dict[Fields, Hashable] = {}
        self._fresh: list[Hashable] = []

    def remember(self, record: Hashable, change: Change) -> None:
        """Have `record`, which is of a write, stand for `change`."""
        if len(self.changes) == MOST:
            self.clear()
        self.changes[record] = change
        self._fresh.append(record)

    def forget(self, wd: int, name: bytes) -> None:
        """Something became of that name, which is no directory."""
        for record in self._fresh:
            self._records[self._decode(record)] = record
        self._fresh.clear()
        for mask in WRITES:
            record = self._records.pop((wd, mask, 0, name), None)
            if record is not None:
                del self.changes[record]

    def clear(self) -> None:
        """Directories, or what is watched of them, may be others."""
        self.changes.clear()
        self._records.clear()
        self._fresh.clear()
