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
    completed is replaced before the caller sees it, by control blocks that were filled while
    nothing had completed.
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
from pollers.aio.counters import DiskCounters, submit
from pollers.aio.direct import ALIGNMENT, DirectFile, check_alignment
from pollers.aio.places import Places, places
from pollers.aio.prepared import GIVEN_UP, NONE, Integers, Prepared
from pollers.aio.reads import PATIENCE
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
            self._context = Context(depth)
            undo.callback(self._context.close)
            if spin and self._context.ring is None:
                raise OSError(errno.ENOTSUP, f"no spin here: {self._context.unmapped}")
            # As in pollers.aio.disk: rounding outwards adds one unit at most.
            self._buffers = Buffers(2 * depth, count + alignment, alignment)
            undo.pop_all()
        #: uint8[2 * depth, bytes of a row], read-only: row `slot` holds what its read has brought.
        self.rows = self._buffers.rows()
        self._prepared = Prepared(self._buffers.addresses, depth)
        self._heads = NONE
        self._wanted = 0
        #: Whether every head is 0 and every length what was asked for.
        self._plain = True
        self._in_flight = 0
        self._given_up = 0
        #: The rows of the last batch, whose bytes the caller may look at.
        self._shown: Integers = NONE
        self._sent_at = np.zeros(2 * depth if timed else 0)
        #: (slot, -errno) of reads that the kernel did not take.
        self._refused: list[tuple[int, int]] = []
        self._refusals = 0
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
        while self._in_flight:  # they were given up
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
        self._file = file
        self._prepared.plan(file.fd, starts, lengths)

    def _places(self, file: DirectFile, offsets: ArrayLike, count: int | None) -> Places:
        """What is to be read.  Raises ValueError, and OSError where `file` is closed."""
        self._check_open()
        if self.left:
            raise ValueError(f"{self.left} reads are not done; step() on, or give_up() first")
        single = self._single
        if single is not None and single.reading:
            raise ValueError("a read_each() is not done; exhaust it, or close() it first")
        if single is not None and single.unsure:
            self._renew()
            single.unsure = False
        wanted = self.count if count is None else count
        if not 1 <= wanted <= self.count:
            raise ValueError(f"count must be from 1 to {self.count}, not {wanted}")
        check_alignment(file, self.alignment)
        self._check_file(file)
        return places(offsets, wanted, file.alignment.offset, 2 * self.rows.size)

    def _renew(self) -> None:
        """Wait for whatever the context has under way, and go on with another one."""
        old = self._context
        old.close()
        self._context = Context(old.capacity, mapped=old.ring is not None)
        self._context.taken, self._context.getevents_calls = old.taken, old.getevents_calls

    @property
    def left(self) -> int:
        """Reads that no step() has returned yet."""
        unasked = self._prepared.unasked
        return unasked + self._in_flight - self._given_up + len(self._refused)

    def give_up(self) -> None:
        """Ask for nothing more.  Reads under way keep their rows until they have completed."""
        self._prepared.give_up()
        self._given_up = self._in_flight
        self._prepared.free(np.array([slot for slot, _ in self._refused], np.int64))
        self._refused.clear()
        self._hide()

    # -- being told

    def step(self, timeout: float | None = None) -> Batch:
        """Take the rows of the last batch back, and return what has completed.

        Reads are sent so that `depth` are under way, before the wait and after it.

        Waits up to `timeout` seconds (None: for ever) for one read, where any is under way.
        Raises OSError(EBADF) where the file was closed meanwhile; give_up() then.
        """
        self._check_open()
        if self._eventfd >= 0:
            eventfd.clear(self._eventfd)
        self._hide()
        prepared = self._prepared
        if self._in_flight < self.depth and prepared.unasked:
            prepared.fill()
            self._send(self.depth - self._in_flight)
        if not self._in_flight:
            return self._with_refused(_EMPTY) if self._refused else _EMPTY
        prepared.fill()  # what will be sent the moment that something has completed
        context, depth = self._context, self.depth
        wait = not self._refused and (timeout is None or timeout > 0)
        slots = results = NONE
        ring = context.ring
        if ring is not None and wait and self.spin:
            ring.watch(self.spin if timeout is None else min(self.spin, timeout))
        if ring is not None or not wait:
            slots, results = context.completions(0, depth, 0)
        if len(slots):
            self._replace(len(slots))
        elif wait:
            # What has completed is replaced first, and looked at while the disk works again.
            count = context.gather(1, depth, timeout)
            self._replace(count)
            slots, results = context.gathered(count)
        batch = self._batch(slots, results)
        return self._with_refused(batch) if self._refused else batch

    def fileno(self) -> int:
        """An eventfd, readable when reads have completed: then step(0) until it returns nothing.

        Raises ValueError where reads are under way that it would not hear of.
        """
        self._check_open()
        if self._eventfd < 0:
            if self._in_flight:
                raise ValueError("ask for fileno() before the first step()")
            self._eventfd = eventfd.new()
            self._prepared.hear_by(self._eventfd)
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
        if self.closed:
            return
        self.closed = True
        try:
            self._context.close()
        finally:
            self._buffers.close()
            if self._single is not None:
                self._single.close()
            if self._eventfd >= 0:
                os.close(self._eventfd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- slots

    def _hide(self) -> None:
        """The rows of the last batch are the reader's again."""
        shown, self._shown = self._shown, NONE
        if len(shown):
            self._prepared.free(shown)

    def _replace(self, completed: int) -> None:
        self._in_flight -= completed
        # A file that was closed is the next step()'s error: what this one has is to be told first.
        if self._prepared.filled and self._file.fd >= 0:
            self._send(completed)

    def _send(self, most: int) -> None:
        """Submit up to `most` of what is prepared, in one call unless one of it is bad.

        The disk waits for this: it does what it must, and all else is done while the disk works.
        """
        if self._file.fd < 0:
            self._check_file(self._file)
        prepared = self._prepared
        most = min(most, prepared.filled)
        while most > 0:
            if self.timed:
                self._sent_at[prepared.idle[:most]] = time.monotonic()
            address = prepared.address
            # Counted before: when a signal handler raises, the kernel may have them.
            self._in_flight += most
            prepared.advance(most)
            number = 0
            try:
                sent = submit(self._context, self._counters, address, most)
                self._refusals = 0
                if sent == most:
                    return
            except OSError as error:
                if self._context.foreign:
                    raise
                sent, number = 0, error.errno or errno.EIO
            most -= sent
            self._in_flight -= most
            prepared.take_back(most)
            if number == errno.EAGAIN:
                if self._in_flight:  # a completion will come, and it goes on after that
                    return
                self._refusals += 1
                if self._refusals < PATIENCE:
                    continue
            if number:
                self._refused.append((int(prepared.idle[0]), -number))
                prepared.advance(1)
                most -= 1

    def _batch(self, slots: Integers, results: Integers) -> Batch:
        if not len(slots):
            return _EMPTY
        indices = self._prepared.index[slots]
        if self._given_up:
            stale = indices == GIVEN_UP
            gone = slots[stale]
            self._given_up -= len(gone)
            self._prepared.free(gone)
            indices, slots, results = indices[~stale], slots[~stale], results[~stale]
            if not len(slots):
                return _EMPTY
        self._shown = slots
        heads = self._heads[indices]
        total = sum(results.tolist())  # faster than numpy's for as few
        if not self._plain or total != len(slots) * self._wanted:
            got = np.clip(results - heads, 0, self._wanted)
            bad = results < 0
            total = int(got[~bad].sum())
            results = np.where(bad, results, got)
            self._counters.errors += int(np.count_nonzero(bad))
            self._counters.reads -= int(np.count_nonzero(bad))
        self._counters.reads += len(slots)
        self._counters.bytes += total
        seconds = time.monotonic() - self._sent_at[slots] if self.timed else _NO_TIMES
        return Batch(indices, slots, heads, results, seconds)

    def _with_refused(self, batch: Batch) -> Batch:
        """And those that io_submit did not take."""
        slots = np.array([slot for slot, _ in self._refused], np.int64)
        results = np.array([result for _, result in self._refused], np.int64)
        self._refused.clear()
        self._counters.errors += len(slots)
        indices = self._prepared.index[slots]
        self._shown = np.concatenate((self._shown, slots))
        seconds = np.zeros(len(slots)) if self.timed else _NO_TIMES
        more = Batch(indices, slots, self._heads[indices], results, seconds)
        return Batch(*(np.concatenate(pair) for pair in zip(batch, more, strict=True)))

    @staticmethod
    def _check_file(file: DirectFile) -> None:
        """Its number may be another file's by now."""
        if file.fd < 0:
            raise OSError(errno.EBADF, "this file was closed before all of it was asked for")

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError(CLOSED)
        self._context.check_ours()
