"""Reads from a disk that block nobody and need no thread: O_DIRECT through io_submit(2).

Some facts about direct reads by AIO
------------------------------------
*   A read through the page cache blocks io_submit until the disk has answered.  Only a file opened
    with O_DIRECT is read asynchronously, and only where its filesystem has direct I/O
    (pollers.aio.direct).
*   Address, offset and length must be aligned (pollers.statx), else the read fails with EINVAL.
    A read that reaches beyond the end of the file returns the bytes up to there, however many.
*   With IOCB_FLAG_RESFD the kernel adds one to an eventfd for each completion, after it is in the
    ring.  One poller, of any kind, sees sockets and disk alike.
*   io_submit can still block: on metadata that is not cached, on a full device queue, or because
    a filesystem quietly falls back to the page cache (btrfs, for compressed extents).
*   Reads are not cancelled: io_cancel(2) answers EINVAL.  The kernel holds the file until a read
    has completed, whatever was closed, and io_destroy(2) waits for every one.

What does this mean for us?
---------------------------
*   A read is any offset and count.  It is rounded outwards into a buffer of ours, and what was
    asked for is handed out as a slice of that.
*   Control block, buffer and place in the ring are one thing, a *slot* (pollers.aio.diskslots).
*   Reads are queued and sent together, by one io_submit for all that are queued and have a buffer.
    Whoever runs the loop calls `flush()` at the end of a turn, and `reap()` when the eventfd is
    readable; `reap()` sends what its callbacks queued.  Nobody else has to remember a read:
    a buffer that is given back while reads wait for one makes the eventfd readable.
*   Callbacks are called by `reap()` only, never by the call that caused their outcome.
*   A cancelled read keeps its buffer until its completion.
*   Where a signal handler raises in here, nobody knows what the kernel was given or has answered.
    The next call waits for what is under way, and asks for it again (`_settle`).
*   How long io_submit took is counted, and on request how often it slept (`voluntary_switches`):
    0.1 a read or more says that this file is not read asynchronously.

A reader belongs to one thread of the process that made it.  In a forked child only `close()` is
allowed, and it leaves the parent's reads alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import OrderedDict, deque
from typing import Self

from pollers.aio import eventfd
from pollers.aio.buffers import Buffers
from pollers.aio.context import Context
from pollers.aio.counters import DiskCounters, submit
from pollers.aio.direct import ALIGNMENT as ALIGNMENT
from pollers.aio.direct import DirectFile as DirectFile
from pollers.aio.direct import check_alignment
from pollers.aio.direct import open_direct as open_direct
from pollers.aio.diskslots import DiskSlots, Finished
from pollers.aio.reads import NO_SLOT, PATIENCE, Done
from pollers.aio.reads import Block as Block
from pollers.aio.reads import Ticket as Ticket


class DiskReader:
    """Up to `depth` direct reads under way, each of `block` bytes at most.

    `alignment` is the largest that a file may ask for.  `count_switches` costs about 2 us for each
    io_submit.  Raises OSError, with the reason and what to do, where io_setup(2) is refused.
    """

    def __init__(
        self,
        depth: int = 64,
        block: int = 131072,
        *,
        alignment: int = ALIGNMENT,
        count_switches: bool = False,
    ) -> None:
        if depth < 1 or block < 1:
            raise ValueError(f"depth and block must be at least 1, not {depth} and {block}")
        if alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"alignment must be a power of two, not {alignment}")
        self.depth = depth
        self.block = block
        self.alignment = alignment
        self.closed = False
        self._counters = DiskCounters(voluntary_switches=0 if count_switches else None)
        with contextlib.ExitStack() as undo:
            self._context = Context(depth)
            undo.callback(self._context.close)
            self._eventfd = eventfd.new()
            undo.callback(os.close, self._eventfd)
            # `block` bytes that begin and end anywhere: rounding outwards adds one unit at most
            # to what rounding `block` itself up makes of it.
            self._buffers = Buffers(depth, block + alignment, alignment)
            undo.pop_all()
        self._slots = DiskSlots(self._buffers, self._eventfd)
        #: Reads that the kernel does not have yet, oldest first; a cancelled one leaves at once.
        self._queue: OrderedDict[Ticket, None] = OrderedDict()
        #: Outcomes that nobody was told of yet.
        self._finished: deque[Finished] = deque()
        #: Whether flush() left reads behind, for want of a buffer.
        self._starved = False
        #: How often in a row io_submit was out of memory.
        self._refusals = 0
        #: For Block.release().
        self.give_back = self._buffers.free.append
        #: Whether reads are on their way into the kernel or out of it: after an interruption,
        #: whether it came then.
        self._unsettled = False
        #: What was about to be told then.
        self._telling: Finished | None = None

    # -- asking

    def submit(self, file: DirectFile, offset: int, count: int, done: Done) -> Ticket:
        """Queue a read of `count` bytes at `offset`; `reap()` will call `done` with its block.

        Raises ValueError for what this reader cannot read: more than `block` bytes, an alignment
        beyond its own.
        """
        self._check_open()
        if not 0 <= count <= self.block:
            raise ValueError(f"count must be from 0 to {self.block}, not {count}")
        if not 0 <= offset < 1 << 63:
            raise ValueError(f"offset must be from 0 to 2**63 - 1, not {offset}")
        check_alignment(file, self.alignment)
        ticket = Ticket(file, offset, count, done)
        self._queue[ticket] = None
        return ticket

    def flush(self) -> None:
        """Send to the kernel all that is queued, as far as there are buffers."""
        self._check_open()
        try:
            if self._unsettled:
                self._settle()
            self._unsettled = True
            while self._queue and self._buffers.free:
                if not self._send(self._slots.load(self._queue, self._fail_closed)):
                    break
            self._unsettled = False
            self._starved = bool(self._queue)
            if self._finished:  # a read that the kernel refused; a `done` is called by reap() only
                self._nudge()
        except BaseException:
            if not self.closed:
                self._nudge()
            raise

    def cancel(self, ticket: Ticket) -> None:
        """See to it that `done` is not called any more.  It may have been called by now."""
        ticket.done = None
        self._queue.pop(ticket, None)

    # -- being told

    def fileno(self) -> int:
        """The eventfd: readable while `reap()` has something to do."""
        self._check_open()
        return self._eventfd

    def reap(self) -> int:
        """Call `done` for all that has completed, without waiting; return how many were called.

        Then flush(), for what these have queued.  An exception of a `done` goes to the caller, and
        the eventfd stays readable for the others.
        """
        self._check_open()
        called = 0
        try:
            self._starved = False  # the flush() to come makes a nudge superfluous
            # Before the ring is read, so that a completion in between is signalled again.
            eventfd.clear(self._eventfd)
            if self._unsettled:
                self._settle()
            elif self._slots.in_flight:
                self._collect()
            while self._finished:
                if self._unsettled:  # a `done` went on after an interruption in a call of ours
                    self._settle()
                called += self._tell(self._finished[0])
            if self._queue:  # nothing is left there by a `done` that closed the reader
                self.flush()
        except BaseException:
            if not self.closed:  # whoever waits for the end of all reads may not know of it yet
                self._nudge()
            raise
        return called

    def _tell(self, finished: Finished) -> bool:
        """Call the `done` of what has finished first, or release the block that nobody wants."""
        ticket, block = self._telling = finished
        self._unsettled = True
        self._finished.popleft()
        count = len(block.view)
        # From here to the call of `done` no signal handler runs.
        if ticket.done is None:
            block.release()
            self._unsettled, self._telling = False, None
            return False
        done, ticket.done = ticket.done, None
        self._unsettled, self._telling = False, None
        counters = self._counters
        if block.error is None:
            counters.reads += 1
            counters.bytes += count
        else:
            counters.errors += 1
        done(block)
        return True

    @property
    def counters(self) -> DiskCounters:
        """What this reader did since it was made."""
        counters = self._counters
        counters.taken, counters.getevents = self._context.taken, self._context.getevents_calls
        return counters

    @property
    def pending(self) -> int:
        """Reads that are queued, with the kernel (cancelled ones too), or about to be told of."""
        known = len(self._queue) + self._slots.in_flight + len(self._finished)
        return known + (self._telling is not None)

    @property
    def waiting(self) -> int:
        """Reads that are queued; after flush(), those that wait for a buffer."""
        return len(self._queue)

    def close(self) -> None:
        """Wait for what is in flight, and free everything.  May be repeated.

        No `done` is called any more.  The views of blocks that were not released can still be
        read.  In a forked child the parent's reads are left alone.
        """
        self.closed = True
        self._starved = False
        self._telling = None
        self._queue.clear()
        self._finished.clear()
        try:
            self._context.close()
        finally:
            if self._context.closed:  # else a signal handler raised too early; close() again
                self._slots.forget()
                self._buffers.close()
                fd, self._eventfd = self._eventfd, -1
                if fd >= 0:
                    os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- slots

    def _send(self, slots: list[int]) -> bool:
        """Submit what was loaded, in one call unless one of it is bad.  False: try again later."""
        at, sent, total = self._slots.to_submit_at, 0, len(slots)
        while sent < total:
            count = submit(self._context, self._counters, at + 8 * sent, total - sent)
            if count >= 0:
                sent += count
                self._refusals = 0
                continue
            if count == -errno.EAGAIN:
                if self._slots.in_flight > total - sent:
                    self._put_back(slots[sent:])  # a completion will come: reap() tries again
                    return False
                self._refusals += 1
                if self._refusals < PATIENCE:
                    continue
            self._refuse(slots[sent], -count)
            sent += 1
        return True

    def _put_back(self, slots: list[int]) -> None:
        """Return to the head of the queue what the kernel has no room for."""
        for slot in reversed(slots):
            ticket = self._slots.ticket(slot)
            self._queue[ticket] = None
            self._queue.move_to_end(ticket, last=False)
            self._buffers.free.append(slot)
            self._slots.vacate(slot)

    def _refuse(self, slot: int, number: int) -> None:
        """The kernel did not take this one: its buffer is free, and the outcome known."""
        self._fail(self._slots.ticket(slot), number)
        self._buffers.free.append(slot)
        self._slots.vacate(slot)

    def _fail_closed(self, ticket: Ticket) -> None:
        self._fail(ticket, errno.EBADF)

    def _fail(self, ticket: Ticket, number: int) -> None:
        """Leave word for reap()."""
        block = Block(self, NO_SLOT, memoryview(b""), ticket.error(number))
        self._finished.append((ticket, block))

    def _collect(self) -> None:
        """Take from the ring all that has completed: `depth` at most, so that one call will do."""
        self._unsettled = True
        slots, results = self._context.completions(0, self.depth, 0)
        buffers, ticket_of, vacate = self._buffers, self._slots.ticket, self._slots.vacate
        for slot, result in zip(slots.tolist(), results.tolist(), strict=True):
            ticket = ticket_of(slot)
            if ticket.done is None:
                buffers.free.append(slot)
            elif result < 0:
                self._fail(ticket, -result)
                buffers.free.append(slot)
            else:
                head = ticket.offset % ticket.file.alignment.offset
                # Empty where the file ends before `head`.
                view = buffers.view(slot, head, min(head + ticket.count, result))
                self._finished.append((ticket, Block(self, slot, view, None)))
            vacate(slot)
        self._unsettled = False

    def _settle(self) -> None:
        """After an interruption: wait for what is under way, and put it into the queue again.

        May be interrupted itself, and raises OSError where the kernel refuses another context: the
        next call tries again.
        """
        self._context.start_anew()
        self._slots.recover(self._queue, self._finished, self._telling)
        self._unsettled, self._telling = False, None

    def before_giving_back(self) -> None:
        """For Block.release()."""
        if self._starved:
            self._nudge()
            self._starved = False  # one will do for all that is given back until reap()

    def _nudge(self) -> None:
        """Make the eventfd readable."""
        eventfd.nudge(self._eventfd)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("operation on a closed disk reader")
        self._context.check_ours()
