"""Reads of any length over a DiskReader, whose buffers have one length.

Facts
-----
*   A direct read beyond the end of the file is short.  So is the first part of a longer read that
    reaches there, and what its later parts brought is nothing.
*   The queue of a DiskReader is first come, first served.  A read of a gigabyte that was queued in
    one piece would keep every other reader waiting for as long.

What does this mean for us?
---------------------------
*   A long read is cut into blocks, `depth` of which are asked for at once; each that comes asks
    for the next.  Two long reads take turns in this way.
*   Bytes are copied out of a buffer the moment that they come, and the buffer is free again.  That
    costs 10 us for 128 KiB, and nobody can hold a buffer back.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from pollers.aio.direct import DirectFile
from pollers.aio.disk import DiskReader
from pollers.aio.reads import Block, Ticket

#: What came of it: called once, by `DiskReader.reap()`.  Where a signal handler raises in it, it
#: is called once more, with InterruptedError, and does what it had not done yet.
WholeDone: TypeAlias = Callable[[bytes | OSError], None]


class WholeRead:
    """A read of `count` bytes, more than a block or not.

    Its maker notes it, calls `begin()`, and the reader's flush(); whatever is raised in between
    and after, `cancel()` is the end of it.  As with pread(2) the bytes are fewer at the end of the
    file.  An error of any part before that is the error of the whole; InterruptedError where a
    signal handler raised while bytes were taken.
    """

    __slots__ = (
        "_count",
        "_done",
        "_end",
        "_file",
        "_next",
        "_offset",
        "_parts",
        "_reader",
        "_under_way",
    )

    def __init__(
        self, reader: DiskReader, file: DirectFile, offset: int, count: int, done: WholeDone
    ) -> None:
        self._reader = reader
        self._file = file
        self._offset = offset
        self._count = count
        self._done: WholeDone | None = done
        #: By position in the whole: what is under way, and what has come.
        self._parts: dict[int, Ticket | bytes | OSError] = {}
        self._under_way = 0
        #: Where the next part begins, and where the whole ends: at a short part or an error.
        self._next = 0
        self._end = count

    def begin(self) -> None:
        """Ask for its first parts.  Raises ValueError for what the reader cannot read."""
        count, offset = self._count, self._offset
        if count < 0:
            raise ValueError(f"count must not be negative, not {count}")
        if not 0 <= offset < (1 << 63) - count:
            raise ValueError(f"offset must be from 0 to 2**63 - 1 - count, not {offset}")
        for _ in range(self._reader.depth):
            self._ask()
            if self._next >= count:
                break

    def cancel(self) -> None:
        """See to it that `done` is not called any more.  It may have been called by now."""
        self._done = None
        for part in self._parts.values():
            if isinstance(part, Ticket):
                self._reader.cancel(part)
        self._parts.clear()

    def _ask(self) -> None:
        """Ask for the next part."""
        at = self._next
        count = min(self._count - at, self._reader.block)
        self._parts[at] = self._reader.submit(
            self._file, self._offset + at, count, lambda block: self._came(at, count, block)
        )
        self._next += max(count, 1)  # an empty read has one part too
        self._under_way += 1

    def _came(self, at: int, count: int, block: Block) -> None:
        """Take a part.  Whatever is raised meanwhile, its buffer goes back, and `done` is told."""
        try:
            self._take(at, count, block)
        except BaseException:
            with suppress(ValueError):  # where it was
                block.release()
            done = self._done
            if done is not None:
                self.cancel()
                done(InterruptedError(errno.EINTR, "a signal handler raised during this read"))
            raise

    def _take(self, at: int, count: int, block: Block) -> None:
        if self._done is None:  # its ticket was not noted, for a signal handler raised
            block.release()
            return
        part = self._parts[at] = block.error or bytes(block.view)
        block.release()
        self._under_way -= 1
        if isinstance(part, OSError) or len(part) < count:
            self._end = min(self._end, at)
        if self._next < min(self._count, self._end):
            self._ask()
        elif not self._under_way:
            self._finish()

    def _finish(self) -> None:
        assert self._done is not None, "a cancelled read is not told of"
        self._done(self._answer())
        self._done = None
        self._parts.clear()

    def _answer(self) -> bytes | OSError:
        """The parts in order, up to the one that ended it."""
        parts: list[bytes] = []
        for at in sorted(self._parts):
            part = self._parts[at]
            if isinstance(part, OSError) and at <= self._end:
                return part
            if isinstance(part, bytes) and at <= self._end:
                parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
