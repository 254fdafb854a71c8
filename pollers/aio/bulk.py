"""Many equal reads at once, whole arrays at a time: what a benchmark or a scan of a file wants.

Some facts about what a read costs
----------------------------------
*   A direct read of 4 KiB takes some 5 us of the kernel's time, and a fast disk completes 100,000
    and more a second.  One Python callback or future a read costs as much as that again.
*   At depth 1 a read is a sleep and a wake-up, after which others have had the processor's caches.
    *Measured*, 70 us a read: looking at the ring for 100 us instead brought 1.1 times the reads,
    for the same 50 us of CPU each.  A core is busy all the time then, and other threads of the
    process wait for the GIL.

What does this mean for us?
---------------------------
*   Nothing here is done for each read.  Completions come as arrays, the next control blocks are
    filled by assigning columns (pollers.aio.prepared), and one io_submit(2) sends them.  (Bursts
    of 8, 16 and 32 made no difference that 25 interleaved rounds could show.)
*   The disk does not wait for Python.  There are twice as many rows as reads under way: what has
    completed is replaced before the caller sees it (pollers.aio.flight), by control blocks that
    were filled while nothing had completed.
*   A signal handler that raises, in whatever place, costs no read: see `step()`.
*   The bytes stay where the disk put them: slot number i is row i of one 2-D array, and is used
    again after the next `step()`.  What is wanted for longer is copied.
*   At depth 1 an array would hold one read: `read_each` has none (pollers.aio.single).
*   For single reads that somebody awaits see pollers.aio.on_asyncio and on_trio; for callbacks,
    pollers.aio.disk.

A reader belongs to one thread of the process that made it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Generator, Iterator
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pollers.aio import eventfd
from pollers.aio.buffers import Buffers
from pollers.aio.context import Context
from pollers.aio.counters import DiskCounters
from pollers.aio.direct import ALIGNMENT, DirectFile, check_alignment
from pollers.aio.flight import Flight, check_file
from pollers.aio.places import Places, places
from pollers.aio.prepared import NONE, Integers
from pollers.aio.single import CLOSED, Single

_NO_TIMES: Final = np.empty(0, np.float64)


class Batch(NamedTuple):
    """Reads that have completed, in no order: arrays of equal length."""

    #: Which of the offsets, by position.
    indices: Integers
    #: Which rows of `BulkReader.rows`, until the next step().
    slots: Integers
    #: Where the bytes asked for begin in each row: 0 for an aligned offset.
    heads: Integers
    #: How many of the bytes asked for came, fewer at the end of the file; or -errno.
    results: Integers
    #: Seconds from submission until the batch was taken; empty unless `timed`.
    seconds: NDArray[np.float64]


_EMPTY: Final = Batch(NONE, NONE, NONE, NONE, _NO_TIMES)


class BulkReader:
    """Up to `depth` direct reads under way, each of `count` bytes at most.

    `alignment` is the largest that a file may ask for; `count_switches` costs about 2 us and
    `timed` about 1 us for each step.  `spin` is how long, in seconds, a step() that may wait looks
    at the ring before it sleeps in the kernel: see "Some facts".  Raises OSError, with the reason
    and what to do, where io_setup(2) is refused, and ENOTSUP for a `spin` where the ring cannot
    be read (pollers.aio.ring).
    """

    def __init__(
        self,
        depth: int = 64,
        count: int = 4096,
        *,
        alignment: int = ALIGNMENT,
        count_switches: bool = False,
        timed: bool = False,
        spin: float = 0.0,
    ) -> None:
        if depth < 1 or count < 1:
            raise ValueError(f"depth and count must be at least 1, not {depth} and {count}")
        if alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"alignment must be a power of two, not {alignment}")
        self.depth = depth
        self.count = count
        self.alignment = alignment
        self.timed = timed
        self.spin = spin
        self.closed = False
        self._counters = DiskCounters(voluntary_switches=0 if count_switches else None)
        self._eventfd = -1
        with contextlib.ExitStack() as undo:
            context = self._context = Context(depth)
            undo.callback(context.close)
            if spin and context.ring is None:
                raise OSError(errno.ENOTSUP, f"no spin here: {context.unmapped}")
            # As in pollers.aio.disk: rounding outwards adds one unit at most.
            self._buffers = Buffers(2 * depth, count + alignment, alignment)
            undo.pop_all()
        #: uint8[2 * depth, bytes of a row], read-only: row `slot` holds what its read has brought.
        self.rows = self._buffers.rows()
        self._flight = Flight(
            context, self._buffers.addresses, depth, self._counters, timed=timed, spin=spin
        )
        self._heads = NONE
        self._wanted = 0
        #: Whether every head is 0 and every length what was asked for.
        self._plain = True
        #: What read_each() needs, once that was asked for.
        self._single: Single | None = None

    # -- asking

    def read_many(
        self, file: DirectFile, offsets: ArrayLike, count: int | None = None
    ) -> Iterator[Batch]:
        """Read `count` bytes at each of `offsets`; yield them as they come, until all have.

        Raises as `begin()` does.  Whoever stops early leaves reads under way, which is no harm.
        """
        self.begin(file, offsets, count)
        try:
            while self.left:
                yield self.step()
        finally:
            self.give_up()

    def read_each(
        self, file: DirectFile, offsets: ArrayLike, count: int | None = None
    ) -> Generator[memoryview | int, None, None]:
        """As `read_many`, one after another: yield the bytes of each in order, or -errno.

        One read is under way at a time, whatever `depth` is, and the next one is when the bytes
        of the last are yielded.  These are read-only, fewer at the end of the file, and stay until
        the next ones are asked for.  Raises as `begin()` does; reads that were still to be asked
        for when the file was closed are -EBADF.
        """
        asked = self._places(file, offsets, count)
        while self._flight.in_flight:  # they were given up
            self.step()
        if self._single is None:
            self._single = Single(self.count + self.alignment, self.alignment)
        yield from self._single.read(self._context, self._counters, file, asked, self.spin)

    def begin(self, file: DirectFile, offsets: ArrayLike, count: int | None = None) -> None:
        """Have the next steps read `count` bytes (the most, by default) at each of `offsets`.

        Raises ValueError for what this reader cannot read, and while `left` is not 0.
        """
        starts, lengths, self._heads, self._wanted, self._plain = self._places(
            file, offsets, count
        )
        self._flight.plan(file, starts, lengths)

    def _places(self, file: DirectFile, offsets: ArrayLike, count: int | None) -> Places:
        """What is to be read.  Raises ValueError, and OSError where `file` is closed."""
        self._check_open()
        if self.left:
            raise ValueError(f"{self.left} reads are not done; step() on, or give_up() first")
        single = self._single
        if single is not None and single.reading:
            raise ValueError("a read_each() is not done; exhaust it, or close() it first")
        self._flight.settle()
        if single is not None and single.unsure:
            self._context.start_anew()
            single.unsure = False
        wanted = self.count if count is None else count
        if not 1 <= wanted <= self.count:
            raise ValueError(f"count must be from 1 to {self.count}, not {wanted}")
        check_alignment(file, self.alignment)
        check_file(file)
        return places(offsets, wanted, file.alignment.offset, 2 * self.rows.size)

    @property
    def left(self) -> int:
        """Reads that no step() has returned yet."""
        return self._flight.left

    def give_up(self) -> None:
        """Ask for nothing more.  Reads under way keep their rows until they have completed."""
        self._flight.give_up()

    # -- being told

    def step(self, timeout: float | None = None) -> Batch:
        """Take the rows of the last batch back, and return what has completed.

        Reads are sent so that `depth` are under way, before the wait and after it.

        Waits up to `timeout` seconds (None: for ever) for one read, where any is under way.
        Raises OSError(EBADF) where the file was closed meanwhile; give_up() then.  Where a signal
        handler raised, the next step() goes on: it first waits for what is under way, and reads
        again what was not told (OSError where io_setup(2) is refused).
        """
        self._check_open()
        try:
            if self._eventfd >= 0:
                eventfd.clear(self._eventfd)
            flight = self._flight
            slots, results = flight.turn(timeout)
            count = len(slots)
            if not count:
                flight.before = None
                return _EMPTY
            indices = flight.prepared.index[slots]
            heads = self._heads[indices]
            total, bad = sum(results.tolist()), 0  # faster than numpy's for as few
            if not self._plain or total != count * self._wanted:
                failed = results < 0
                got = np.clip(results - heads, 0, self._wanted)
                bad, total = int(np.count_nonzero(failed)), int(got[~failed].sum())
                results = np.where(failed, results, got)
            seconds = time.monotonic() - flight.sent_at[slots] if self.timed else _NO_TIMES
            batch, counters = Batch(indices, slots, heads, results, seconds), self._counters
            # From here on nothing is called, and so nothing raises: all of it is told, or nothing.
            counters.reads += count - bad
            counters.errors += bad
            counters.bytes += total
            flight.before = None
            return batch
        except BaseException:
            if self._eventfd >= 0:
                eventfd.nudge(self._eventfd)  # what it told of has not been told on
            raise

    def fileno(self) -> int:
        """An eventfd, readable when reads have completed: then step(0) until it returns nothing.

        Raises ValueError where reads are under way that it would not hear of.
        """
        self._check_open()
        prepared = self._flight.prepared
        if not prepared.heard:
            self._flight.settle()
            if self._flight.in_flight:
                raise ValueError("ask for fileno() before the first step()")
            if self._eventfd < 0:  # else a signal handler raised between the two
                self._eventfd = eventfd.new()
            prepared.hear_by(self._eventfd)
        return self._eventfd

    @property
    def counters(self) -> DiskCounters:
        """What this reader did since it was made."""
        counters = self._counters
        counters.taken, counters.getevents = self._context.taken, self._context.getevents_calls
        return counters

    def close(self) -> None:
        """Wait for what is under way, and free everything.  May be repeated.

        `rows` can still be read.  In a forked child the parent's reads are left alone.
        """
        self.closed = True
        context = self._context
        try:
            context.close()
        finally:
            if context.closed:  # else a signal handler raised too early; close() again
                self._buffers.close()
                if self._single is not None:
                    self._single.close()
                fd, self._eventfd = self._eventfd, -1
                if fd >= 0:
                    os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(CLOSED)
        self._context.check_ours()
