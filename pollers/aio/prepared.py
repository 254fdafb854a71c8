"""Control blocks that are filled before there is room for their reads, for pollers.aio.flight.

Facts
-----
*   io_submit(2) copies a control block.  It may be filled for another read while the first one is
    under way; only its buffer may not be used.
*   A numpy operation costs about 0.5 us, however few elements it has; setting one item of a
    memoryview costs 0.04 us.

What does this mean for us?
---------------------------
*   Rows without a read are used in the order in which they became free, and offsets in theirs.
    What is filled ahead is then always the head of both, and never filled twice.
*   The addresses of what is filled stand one behind the other, as io_submit wants them.

Everything here is plain data: no system call is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pollers.aio.abi import IOCB, IOCB_CMD_PREAD, IOCB_FLAG_RESFD

Integers: TypeAlias = NDArray[np.int64]
NONE: Final[Integers] = np.empty(0, np.int64)
#: In place of an index: a read that was given up.
GIVEN_UP: Final = -1


class Prepared:
    """A control block for each of the `buffers` (addresses), `depth` of them filled ahead."""

    def __init__(self, buffers: Sequence[int], depth: int) -> None:
        rows = len(buffers)
        self._depth = depth
        iocbs = self._iocbs = np.zeros(rows, IOCB)
        iocbs["data"] = np.arange(rows)
        iocbs["opcode"] = IOCB_CMD_PREAD
        iocbs["buf"] = buffers
        self._offsets, self._lengths = iocbs["offset"], iocbs["nbytes"]
        self._offset_items, self._length_items = self._offsets.data, self._lengths.data
        first = np.uint64(iocbs.ctypes.data)
        self._addresses = np.arange(rows, dtype=np.uint64) * np.uint64(IOCB.itemsize) + first
        self._address_items = self._addresses.data
        # Longer than what is ever filled, so that it is seldom moved back to the beginning.
        self._to_submit = np.zeros(8 * depth, np.uint64)
        self._to_submit_items = self._to_submit.data
        self._to_submit_at = self._to_submit.ctypes.data
        #: Row -> which of the offsets it reads, or GIVEN_UP.
        self.index = np.full(rows, GIVEN_UP)
        self._index_items = self.index.data
        #: Rows without a read; the first `filled` of them have one that can be submitted.
        self.idle: Integers = np.arange(rows)
        self.filled = 0
        #: Where these begin in `_to_submit`, and which of the offsets is theirs.
        self.at = 0
        self.next = 0
        self._plan_starts, self._plan_lengths = NONE, NONE
        self._same = True
        #: Whether an eventfd hears of completions.
        self.heard = False

    def hear_by(self, eventfd: int) -> None:
        """Have each completion add one to `eventfd`.  Nothing is called here: all, or nothing."""
        self._iocbs["resfd"] = eventfd
        self._iocbs["flags"] = IOCB_FLAG_RESFD
        self.heard = True

    def plan(self, fd: int, starts: Integers, lengths: Integers) -> None:
        """From now on read from `fd`, `lengths` bytes at `starts`, in that order."""
        self._plan_starts, self._plan_lengths = starts, lengths
        self._start_items, self._plan_length_items = starts.data, lengths.data
        self.next = self.filled = 0
        self._iocbs["fd"] = fd
        self._same = bool(len(lengths)) and bool((lengths == lengths[0]).all())
        if self._same:
            self._lengths[:] = lengths[0]

    def give_up(self) -> None:
        """Ask for nothing more."""
        self._plan_starts = self._plan_starts[: self.next]
        self.filled = 0
        self.index[:] = GIVEN_UP

    @property
    def planned(self) -> int:
        """How many reads the plan has, submitted or not."""
        return len(self._plan_starts)

    @property
    def address(self) -> int:
        """Where the addresses of what is filled begin."""
        return self._to_submit_at + 8 * self.at

    def fill(self) -> None:
        """Fill control blocks for the next offsets, up to `depth` of them."""
        filled, at = self.filled, self.at
        want = min(self._depth, len(self.idle), len(self._plan_starts) - self.next)
        fresh = want - filled
        if fresh <= 0:
            return
        if at + want > len(self._to_submit):
            self._to_submit[:filled] = self._to_submit[at : at + filled]
            at = self.at = 0
        first = self.next + filled
        if fresh == 1:
            row = int(self.idle[filled])
            self._offset_items[row] = self._start_items[first]
            if not self._same:
                self._length_items[row] = self._plan_length_items[first]
            self._index_items[row] = first
            self._to_submit_items[at + filled] = self._address_items[row]
        else:
            rows = self.idle[filled:want]
            self._offsets[rows] = self._plan_starts[first : first + fresh]
            if not self._same:
                self._lengths[rows] = self._plan_lengths[first : first + fresh]
            self.index[rows] = np.arange(first, first + fresh)
            np.take(self._addresses, rows, out=self._to_submit[at + filled : at + want])
        self.filled = want

    def advance(self, count: int) -> None:
        """The first `count` of what is filled have gone."""
        self.idle = self.idle[count:]
        self.at += count
        self.filled -= count
        self.next += count

    def restore(self, rows: Integers, following: int) -> None:
        """Fill `rows` alone, with what they were filled with last; then comes read `following`."""
        filled = len(rows)
        others = np.delete(np.arange(len(self.index)), rows)
        self.idle = np.concatenate((rows, others))
        self._to_submit[:filled] = self._addresses[rows]
        self.at, self.filled, self.next = 0, filled, following - filled

    def free(self, rows: Integers) -> None:
        """`rows` have no read any more, and may have another."""
        self.idle = np.concatenate((self.idle, rows)) if len(self.idle) else rows
