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
*   A ticket that moves is first where it goes, and then no more where it was: whoever is
    interrupted in between (pollers.aio.context) finds it twice, and not nowhere.

Everything here is plain data: no system call is made.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from pollers.aio.abi import IOCB, IOCB_CMD_PREAD, IOCB_FLAG_RESFD
from pollers.aio.buffers import Buffers
from pollers.aio.reads import NO_SLOT, Block, Ticket

#: A read and its outcome.
Finished: TypeAlias = tuple[Ticket, Block]


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
            ticket = next(iter(queue))
            file = ticket.file
            if file.fd < 0:
                closed(ticket)
                queue.pop(ticket, None)
                continue
            slot = free[-1]
            unit = file.alignment.offset
            start = ticket.offset - ticket.offset % unit
            self._fds[slot] = file.fd
            self._offsets[slot] = start
            self._lengths[slot] = -(-(ticket.offset + ticket.count) // unit) * unit - start
            self._to_submit[len(slots)] = self._iocbs_at[slot]
            self._tickets[slot] = ticket
            self.in_flight += 1
            free.pop()
            queue.pop(ticket, None)
            slots.append(slot)
        return slots

    def ticket(self, slot: int) -> Ticket:
        """Whose read the kernel has, or had."""
        ticket = self._tickets[slot]
        assert ticket is not None, f"slot {slot} is nobody's"
        return ticket

    def vacate(self, slot: int) -> None:
        """The kernel does not have the read of `slot` any more, and its ticket is elsewhere."""
        self._tickets[slot] = None
        self.in_flight -= 1

    def recover(
        self,
        queue: OrderedDict[Ticket, None],
        finished: deque[Finished],
        telling: Finished | None,
    ) -> None:
        """After an interruption, and with nothing under way: queue again what nobody was told of.

        `telling` is what was about to leave `finished`.  May be interrupted, and called again.
        """
        free = self._buffers.free
        idle = {slot for slot, ticket in enumerate(self._tickets) if ticket is not None}
        if telling is not None and telling not in finished:
            if telling[0].done is not None:
                finished.appendleft(telling)
            else:
                idle.add(telling[1].slot)
        for ticket in reversed(self._tickets):
            if ticket is not None and ticket.done is not None:
                queue[ticket] = None
                queue.move_to_end(ticket, last=False)
        for ticket, block in finished:
            queue.pop(ticket, None)
            idle.discard(block.slot)
        idle.discard(NO_SLOT)
        free[:] = [slot for slot in free if slot not in idle] + list(idle)
        self.forget()

    def forget(self) -> None:
        """The kernel has none any more, and nobody waits for them."""
        self.in_flight = 0
        self._tickets[:] = [None] * len(self._tickets)
