"""The slots of the AIO poller: one iocb each, at an address that stays, and who owns it.

Life of a slot
--------------
    free -> waiting      a registration takes it; its iocb goes to the kernel at the next poll()
    waiting -> armed     io_submit took it
    armed -> waiting     it fired and was delivered: level-triggered, so it is armed again
    armed -> (neither)   it fired as one-shot, or its completion was reaped but not yet delivered
    -> free              its registration ended, and no completion is owed to it any more

Every attribute is an array over all slots, so that a poll() of thousands of events is a handful
of vector operations.  The arrays are made anew, larger, only while nothing is armed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pollers.aio.abi import IOCB, IOCB_CMD_POLL
from pollers.base import POLLERR, POLLHUP

#: The fd of a slot that no registration owns.
GONE: Final = -1


class Slots:
    """Control blocks and owners.  Plain data: no system call is made here."""

    def __init__(self, capacity: int) -> None:
        #: fd -> the slot that it owns.
        self.of: dict[int, int] = {}
        self.free: list[int] = []
        #: The owner, or GONE.
        self.fds = np.empty(0, np.int64)
        #: The bits that may be reported.
        self.masks = np.empty(0, np.int64)
        #: Whether the iocb is with the kernel.
        self.armed = np.empty(0, np.bool_)
        #: Whether it is to be submitted at the next poll().
        self.waiting = np.empty(0, np.bool_)
        self._iocbs = np.zeros(0, IOCB)
        self.extend(capacity)

    def __len__(self) -> int:
        return len(self.fds)

    def extend(self, capacity: int) -> None:
        """Make room for `capacity` slots.  Nothing may be armed: iocbs change their address."""
        old = len(self)
        iocbs = np.zeros(capacity, IOCB)
        iocbs[:old] = self._iocbs
        iocbs["data"] = np.arange(capacity)
        iocbs["opcode"] = IOCB_CMD_POLL
        self._iocbs = iocbs
        self._iocb_fds, self._iocb_masks = iocbs["fd"], iocbs["buf"]
        first = np.uint64(iocbs.ctypes.data)
        #: Where each iocb is.
        self.addresses = np.arange(capacity, dtype=np.uint64) * np.uint64(IOCB.itemsize) + first
        more = capacity - old
        self.fds = np.concatenate((self.fds, np.full(more, GONE)))
        self.masks = np.concatenate((self.masks, np.zeros(more, np.int64)))
        self.armed = np.concatenate((self.armed, np.zeros(more, np.bool_)))
        self.waiting = np.concatenate((self.waiting, np.zeros(more, np.bool_)))
        self.free.extend(range(capacity - 1, old - 1, -1))

    def take(self, fd: int, interest: int) -> int:
        """Give `fd` a free slot, waiting to be submitted."""
        slot = self.free.pop()
        self.of[fd] = slot
        self.fds[slot] = fd
        self._iocb_fds[slot] = fd
        self.set_interest(slot, interest)
        self.waiting[slot] = True
        return slot

    def set_interest(self, slot: int, interest: int) -> None:
        """Change what an iocb will ask for.  It must not be armed."""
        self._iocb_masks[slot] = interest
        self.masks[slot] = interest | POLLERR | POLLHUP

    def disown(self, slot: int) -> int:
        """End the ownership of `slot`, which is not free by that.  Return the fd."""
        fd = int(self.fds[slot])
        self.fds[slot] = GONE
        self.waiting[slot] = False
        del self.of[fd]
        return fd

    def disarm_all(self) -> tuple[NDArray[np.intp], int]:
        """After the context was destroyed: (the owned slots that were armed, how many others).

        The owned ones wait for submission again; the others are free.
        """
        owned = np.flatnonzero(self.armed & (self.fds != GONE))
        orphans = np.flatnonzero(self.armed & (self.fds == GONE))
        self.armed[:] = False
        self.waiting[owned] = True
        self.free.extend(orphans.tolist())
        return owned, len(orphans)
