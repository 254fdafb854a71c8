"""Direct reads under way, as many as may be: what the kernel has, and what it has not, by rows.

Facts
-----
*   Python runs signal handlers after a call into C has returned, before its result is stored, and
    in some more places (pollers.aio.context).  Where one raises, as it does for KeyboardInterrupt,
    nobody knows whether io_submit(2) took reads, or whether completions were reaped.
*   After io_destroy(2) no buffer belongs to the kernel, whatever was known before.
*   A read changes nothing: it may be done twice.

What does this mean for us?
---------------------------
*   A turn notes how things were before it, and whoever tells of its reads forgets the note as the
    last of all.  Where anything is raised in between, the note stays.  The next turn finds it,
    starts the context anew, and asks for every read again that nobody was told of.  So each is
    told once, and no row has two reads.
*   The note costs nothing: it refers to arrays, which are replaced and not written to.
*   What has completed is replaced before anything else is done with it: the disk waits for that.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from pollers.aio.context import Context
from pollers.aio.counters import DiskCounters, submit
from pollers.aio.direct import DirectFile
from pollers.aio.prepared import GIVEN_UP, NONE, Integers, Prepared
from pollers.aio.reads import PATIENCE
from pollers.aio.ring import Columns

#: The rows without a read, prepared or under way; which of the offsets comes next; the rows that
#: were shown; and whether all reads were given up since.
Before: TypeAlias = tuple[Integers, int, Integers, bool]

_NOTHING: Final[Columns] = (NONE, NONE)


class Flight:
    """Up to `depth` reads under way, into `buffers` (addresses), twice as many.

    `spin` is how long, in seconds, a turn() that may wait looks at the ring first.
    """

    def __init__(
        self,
        context: Context,
        buffers: Sequence[int],
        depth: int,
        counters: DiskCounters,
        *,
        timed: bool,
        spin: float,
    ) -> None:
        self.context = context
        self.prepared = Prepared(buffers, depth)
        self._depth = depth
        self._counters = counters
        self._timed = timed
        self._spin = spin
        #: With the kernel, and how many of these nobody wants any more.
        self.in_flight = 0
        self._given_up = 0
        #: The rows of the last turn, whose bytes the caller may look at.
        self._shown: Integers = NONE
        #: When the read of each row was sent (seconds), if that is asked for.
        self.sent_at = np.zeros(len(buffers) if timed else 0)
        #: (row, -errno) of reads that the kernel did not take.
        self._refused: list[tuple[int, int]] = []
        self._refusals = 0
        #: How it was before what is not done yet; None where all is known.  Whoever tells of the
        #: reads of a turn() makes it None.
        self.before: Before | None = None

    # -- asking

    def plan(self, file: DirectFile, starts: Integers, lengths: Integers) -> None:
        """Have the next turns read these.  Nothing may be `left`."""
        self.settle()
        self.before = (self.prepared.idle, self.prepared.next, self._shown, True)
        self._file = file
        self.prepared.plan(file.fd, starts, lengths)
        self.before = None

    @property
    def left(self) -> int:
        """Reads that nobody was told of."""
        prepared, before = self.prepared, self.before
        if before is None:
            unasked = prepared.planned - prepared.next
            return unasked + self.in_flight - self._given_up + len(self._refused)
        return 0 if before[3] else prepared.planned - before[1] + len(self._untold(before))

    def give_up(self) -> None:
        """Ask for nothing more.  Reads under way keep their rows until they have completed."""
        before = self.before
        if before is not None:
            self.before = (*before[:3], True)
            return
        self.before = (self.prepared.idle, self.prepared.next, self._shown, True)
        self.prepared.give_up()
        self._given_up = self.in_flight
        self.prepared.free(np.array([row for row, _ in self._refused], np.int64))
        self._refused.clear()
        self._hide()
        self.before = None

    # -- a turn

    def turn(self, timeout: float | None) -> Columns:
        """Send what may be sent; return what has completed: rows, and results.

        Waits up to `timeout` seconds (None: for ever) for one read, where any is under way.  The
        rows belong to the caller until the next turn.  Raises OSError(EBADF) where the file was
        closed meanwhile.
        """
        if self.before is not None:
            self.settle()
        prepared, depth = self.prepared, self._depth
        room = self.in_flight < depth and prepared.planned > prepared.next
        if room:
            check_file(self._file)
        filled = prepared.filled  # these are asked for: nobody knows any more in which order
        self.before = (prepared.idle[filled:], prepared.next + filled, self._shown, False)
        self._hide()
        if room:
            prepared.fill()
            self._send(depth - self.in_flight)
        rows, results = _NOTHING
        if self.in_flight:
            prepared.fill()  # what will be sent the moment that something has completed
            context = self.context
            wait = not self._refused and (timeout is None or timeout > 0)
            ring = context.ring
            if ring is not None and wait and self._spin:
                ring.watch(self._spin if timeout is None else min(self._spin, timeout))
            if ring is not None or not wait:
                rows, results = context.completions(0, depth, 0)
            if len(rows):
                self._replace(len(rows))
            elif wait:
                # What has completed is replaced first, and looked at while the disk works again.
                count = context.gather(1, depth, timeout)
                self._replace(count)
                rows, results = context.gathered(count)
        if self._given_up:
            rows, results = self._wanted(rows, results)
        if self._refused:
            rows, results = self._with_refused(rows, results)
        self._shown = rows
        return rows, results

    def _replace(self, completed: int) -> None:
        self.in_flight -= completed
        # A file that was closed is the next turn's error: what this one has is to be told first.
        if self.prepared.filled and self._file.fd >= 0:
            self._send(completed)

    def _send(self, most: int) -> None:
        """Submit up to `most` of what is prepared, in one call unless one of it is bad.

        The disk waits for this: it does what it must, and all else is done while the disk works.
        """
        prepared = self.prepared
        most = min(most, prepared.filled)
        while most > 0:
            if self._timed:
                self.sent_at[prepared.idle[:most]] = time.monotonic()
            sent = submit(self.context, self._counters, prepared.address, most)
            if sent >= 0:
                self._refusals = 0
                self.in_flight += sent
                prepared.advance(sent)
                most -= sent
                continue
            if sent == -errno.EAGAIN:
                if self.in_flight:  # a completion will come, and it goes on after that
                    return
                self._refusals += 1
                if self._refusals < PATIENCE:
                    continue
            self._refused.append((int(prepared.idle[0]), sent))
            prepared.advance(1)
            most -= 1

    def _wanted(self, rows: Integers, results: Integers) -> Columns:
        """Drop, and free, those that were given up."""
        stale = self.prepared.index[rows] == GIVEN_UP
        gone = rows[stale]
        self._given_up -= len(gone)
        self.prepared.free(gone)
        return rows[~stale], results[~stale]

    def _with_refused(self, rows: Integers, results: Integers) -> Columns:
        """And those that io_submit did not take."""
        columns = np.array(self._refused, np.int64)
        self._refused.clear()
        return np.concatenate((rows, columns[:, 0])), np.concatenate((results, columns[:, 1]))

    def _hide(self) -> None:
        """The rows of the last turn have no read any more."""
        shown, self._shown = self._shown, NONE
        if len(shown):
            self.prepared.free(shown)

    # -- what was interrupted

    def settle(self) -> None:
        """Where something was interrupted, go on from before that, with nothing under way.

        Waits for what is.  May be interrupted itself, and raises OSError where the kernel refuses
        another context: the next call tries again.
        """
        before = self.before
        if before is None:
            return
        self.context.start_anew()
        prepared = self.prepared
        again = self._untold(before)
        prepared.restore(again, prepared.planned if before[3] else before[1])
        self.in_flight = self._given_up = 0
        self._refused.clear()
        self._shown = NONE
        self.before = None

    def _untold(self, before: Before) -> Integers:
        """The rows whose reads were prepared or sent before that, and are still waited for."""
        idle, _, shown, given_up = before
        if given_up:
            return NONE
        busy = self.prepared.index != GIVEN_UP
        busy[idle] = busy[shown] = False
        return np.flatnonzero(busy)


def check_file(file: DirectFile) -> None:
    """Raise OSError(EBADF) where it was closed: its number may be another file's by now."""
    if file.fd < 0:
        raise OSError(errno.EBADF, "this file was closed before all of it was asked for")
