"""Reads one after another, one under way at a time, for pollers.aio.bulk.

Facts
-----
*   io_submit(2) and io_getevents(2) through ctypes, and a read of 4 KiB from memory between them,
    take 5 to 6 us.  Arrays of one take as much again (pollers.aio.prepared), and three times that
    after the sleep in which others had the processor's caches.
*   Python runs signal handlers after a call has returned, before its result is stored.  Where a
    handler raises, nobody knows whether a read was sent, or its completion taken.

What does this mean for us?
---------------------------
*   Nothing here is an array while reading: offsets, control blocks and results are items.
*   There are two buffers.  While the disk fills one, the caller looks at the other, and the next
    control block is filled: between a completion and the next io_submit there is nothing else.
*   After such an exception the context is `unsure`, and its owner makes another one.
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from itertools import repeat
from typing import Final

import numpy as np

from pollers.aio.abi import IOCB, IOCB_CMD_PREAD
from pollers.aio.buffers import Buffers
from pollers.aio.context import Context
from pollers.aio.counters import DiskCounters, submit
from pollers.aio.direct import DirectFile
from pollers.aio.places import Places
from pollers.aio.reads import PATIENCE

CLOSED: Final = "operation on a closed bulk reader"


class Single:
    """Two buffers of at least `size` bytes, and their control blocks."""

    def __init__(self, size: int, alignment: int) -> None:
        self._buffers = Buffers(2, size, alignment)
        iocbs = self._iocbs = np.zeros(2, IOCB)
        iocbs["opcode"] = IOCB_CMD_PREAD
        iocbs["buf"] = self._buffers.addresses
        self._pointers = np.arange(2, dtype=np.uint64) * np.uint64(IOCB.itemsize)
        self._pointers += np.uint64(iocbs.ctypes.data)
        self._offsets, self._lengths = iocbs["offset"].data, iocbs["nbytes"].data
        #: (which, what io_submit is told, the bytes)
        self._rows = tuple(
            (row, self._pointers.ctypes.data + 8 * row, self._buffers.view(row, 0, size))
            for row in range(2)
        )
        #: Whether a `read` has begun and has not ended.
        self.reading = False
        #: Whether the context may have a read under way that nobody will wait for.
        self.unsure = False
        self.closed = False

    def read(
        self,
        context: Context,
        counters: DiskCounters,
        file: DirectFile,
        places: Places,
        spin: float,
    ) -> Generator[memoryview | int, None, None]:
        """The bytes of each, or -errno, in order; the next one is under way by then.

        What was yielded is overwritten once the next one was.  `context` must have nothing under
        way.  Raises ValueError once this is closed, OSError in a forked child.
        """
        wanted, plain = places.wanted, places.plain
        counted = zip(
            places.starts.data,
            repeat(wanted) if plain else places.lengths.data,
            repeat(0) if plain else places.heads.data,
            strict=False,
        )
        offsets, lengths = self._offsets, self._lengths
        self._iocbs["fd"] = file.fd
        self._iocbs["nbytes"] = wanted
        ring = context.ring if spin else None
        this, that = self._rows
        self.reading = True
        known = True  # whether `sent` is what the kernel says
        sent = False
        try:
            following = next(counted, None)
            if following is None:
                return
            offsets[0], lengths[0], head = following
            known = False
            error = _send(context, counters, file, this[1])
            while following is not None:  # `this` was filled with it
                following = next(counted, None)
                if following is not None:  # filled while the disk works
                    row, address, _ = that
                    offsets[row] = following[0]
                    if not plain:
                        lengths[row] = following[1]
                if error:
                    result = -error
                else:
                    if ring is not None:
                        ring.watch(spin)
                    result = context.one()
                sent = False
                if following is not None:
                    error = _send(context, counters, file, address)
                    sent = not error
                answer: memoryview | int
                if result < 0:
                    counters.errors += 1
                    answer = result
                else:
                    if result != wanted or not plain:
                        result = min(max(result - head, 0), wanted)
                    counters.reads += 1
                    counters.bytes += result
                    answer = this[2][head : head + result]
                if following is not None:
                    head = following[2]
                this, that = that, this
                known = True
                yield answer
                if self.closed:
                    raise ValueError(CLOSED)
                known = False
            known = True
        finally:
            self.reading = False
            if not self.closed and not context.foreign:
                self.unsure = sent or not known
                if known and sent:
                    context.one()
                    self.unsure = False

    def close(self) -> None:
        """The context is closed; views that were yielded can still be read."""
        self.closed = True
        self._buffers.close()


def _send(context: Context, counters: DiskCounters, file: DirectFile, address: int) -> int:
    """Submit one; return 0, or the errno of a read that the kernel did not take."""
    if file.fd < 0:  # its number may be another file's by now
        return errno.EBADF
    refusals = 0
    while True:
        sent = submit(context, counters, address, 1)
        if sent > 0:
            return 0
        refusals += 1
        if sent != -errno.EAGAIN or refusals == PATIENCE:
            return -sent
