"""The slots of a DiskReader: control block, buffer and place in the ring, as one thing each.

Facts
-----
*   The kernel holds a buffer until the read's completion.  A control block it copies.
*   Setting an item of a numpy array costs twice as much as one of a memoryview, and whole columns
    pay only for hundreds of reads at once.

What does this mean for us?
---------------------------
*   Addresses never change: a read writes its fd, length and offset into a control block that is
    otherwise ready.
*   A slot is free, or it is a ticket's, or its buffer is with a block that was not released.

Everything here is plain data: no system call is made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from pollers.aio.abi import IOCB, IOCB_CMD_PREAD, IOCB_FLAG_RESFD
from pollers.aio.buffers import Buffers
from pollers.aio.reads import Ticket


class DiskSlots:
    """A slot for each of `buffers`; completions add one to `eventfd`."""

    def __init__(self, buffers: Buffers, eventfd: int) -> None:
        count = len(buffers.addresses)
        self._buffers = buffers
        #: slot -> the read that it is for, while the kernel has it.
        self._tickets: list[Ticket | None] = [None] * count
        #: How many of these there are.
        self.in_flight = 0
        iocbs = np.zeros(count, IOCB)
        iocbs["data"] = np.arange(count)
        iocbs["opcode"] = IOCB_CMD_PREAD
        iocbs["buf"] = buffers.addresses
        iocbs["flags"] = IOCB_FLAG_RESFD
        iocbs["resfd"] = eventfd
        # The columns that each read writes.
        self._fds = iocbs["fd"].data
        self._lengths = iocbs["nbytes"].data
        self._offsets = iocbs["offset"].data
        first = iocbs.ctypes.data
        self._iocbs_at = [first + slot * IOCB.itemsize for slot in range(count)]
        to_submit = np.zeros(count, np.uint64)
        #: Where the addresses stand of what load() has filled last.
        self.to_submit_at = to_submit.ctypes.data
        self._to_submit = to_submit.data

    def load(
        self, queue: OrderedDict[Ticket, None], closed: Callable[[Ticket], None]
    ) -> list[int]:
        """Fill control blocks from the queue, as far as there are buffers.  Return the slots.

        `closed` is called with the reads whose file was closed meanwhile.
        """
        free = self._buffers.free
        slots: list[int] = []
        while queue and free:
            ticket, _ = queue.popitem(last=False)
            file = ticket.file
            if file.fd < 0:
                closed(ticket)
                continue
            slot = free.pop()
            unit = file.alignment.offset
            start = ticket.offset - ticket.offset % unit
            self._fds[slot] = file.fd
            self._offsets[slot] = start
            self._lengths[slot] = -(-(ticket.offset + ticket.count) // unit) * unit - start
            self._tickets[slot] = ticket
            self._to_submit[len(slots)] = self._iocbs_at[slot]
            slots.append(slot)
        return slots

    def vacate(self, slot: int) -> Ticket:
        """The kernel does not have the read of `slot` any more.  Return it."""
        ticket = self._tickets[slot]
        assert ticket is not None, f"slot {slot} is nobody's"
        self._tickets[slot] = None
        self.in_flight -= 1
        return ticket

    def forget(self) -> None:
        """The kernel has none any more, and nobody waits for them."""
        self.in_flight = 0
        self._tickets.clear()
