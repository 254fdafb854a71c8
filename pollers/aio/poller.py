"""The Poller on Linux AIO: IOCB_CMD_POLL, Linux 4.18 (5.16 or a stable backport is sound).

Some facts about IOCB_CMD_POLL
------------------------------
*   It is one-shot: it completes once, through the ring, with poll(2)'s bits in `res`.  Armed
    again, it completes at once if the condition still holds.
*   `res` is the raw wake-up key when the completion was asynchronous: POLLIN comes as 0xc3.
*   An armed poll holds a reference to its *file*.  After close(2) the peer sees no FIN, and the
    poll may complete later for a number that now means something else.
*   io_cancel(2) completes it, through the ring too, and searches a list of all that is armed.
*   Files with two wait queues (O_RDWR FIFOs, pty masters) are refused, EINVAL, at io_submit,
    unless the condition holds at once.

What does this mean for us?
---------------------------
*   Level-triggered by lazy re-arming: what fired at the last poll() and is still registered goes,
    with new registrations, into *one* io_submit at the next poll().  Completions are read from the
    ring; io_getevents is called to wait.  Registering costs no kernel call, but errors such as
    EINVAL are known only at poll().
*   A registration owns a *slot*: one iocb at a fixed address (pollers.aio.arming).  The event
    carries the slot, not the fd, and a slot is used again only after its completion was reaped.
    A completion of a slot whose registration has gone is dropped (`counters.stale`), whatever the
    fd number means by then.  That is the generation check, at no cost on the hot path.
*   `unregister()` of an armed slot cancels it, so that close(2) is really a close.  Mostly it is
    not armed: handlers close an fd that has just fired.  Before it cancels it reaps without
    waiting: a socket that was shut down has completed by then, and the search is spared.
*   Everything per event is a numpy operation over all events: ctypes and Python objects cost
    about as much as the system calls do.
*   Batches of socket reads and writes (pollers.aio.sockets) may go through the same context:
    `transfer()` submits them together with what is to be armed.  They complete at once; what
    polls completed meanwhile waits for the next poll().
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import Final

from pollers.aio.arming import Arming
from pollers.aio.sockets import Addresses, Integers
from pollers.arrays import Arrays, from_events
from pollers.base import (
    MAX_EVENTS,
    POLLIN,
    Adapter,
    Capability,
    Events,
    check_max_events,
    check_registration,
)
from pollers.wakeup import Wakeup

#: Slots of a new poller.  It grows by doubling, for as long as fs.aio-max-nr lets it.
FIRST_CAPACITY: Final = 1024


class AioPoller(Adapter):
    """The adapter over Linux AIO; the contract is in pollers.base.

    Raises OSError, with the reason and what to do, where io_setup(2) is refused.
    """

    name = "aio"
    capabilities = Capability.ONESHOT | Capability.SUBMILLISECOND

    def __init__(self, capacity: int = FIRST_CAPACITY) -> None:
        super().__init__()
        self._arming = Arming(capacity, self.counters)
        try:
            self._wakeup = Wakeup()
        except OSError:
            self._arming.context.close()
            raise
        slots = self._slots = self._arming.slots
        # Nothing of it is reported: its completion may be reaped long after the wake was noticed.
        slots.masks[self._arming.take(self._wakeup.fd, POLLIN, False)] = 0

    def register(
        self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False
    ) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        if fd in self._slots.of:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._check_fd(fd)
        self._arming.need_free_slot()
        self._arming.take(fd, interest, oneshot)

    def modify(self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        slot = self._find(fd)
        self._check_fd(fd)
        if not self._slots.waiting[slot]:
            # Before anything changes.  It may leave this slot waiting.
            self._arming.need_free_slot()
        if self._slots.waiting[slot]:
            # It is submitted at the next poll(), with what stands in its iocb by then.
            self._slots.set_interest(slot, interest)
            self._arming.set_oneshot(slot, oneshot)
        else:
            self._arming.release(slot)
            self._arming.take(fd, interest, oneshot)

    def unregister(self, fd: int) -> None:
        self._check_open()
        self._arming.release(self._find(fd))

    def poll(self, timeout: float | None = None, max_events: int = MAX_EVENTS) -> Events:
        fds, bits = self.poll_arrays(timeout, max_events)
        return list(zip(fds.tolist(), bits.tolist(), strict=True))

    def poll_arrays(self, timeout: float | None, max_events: int) -> Arrays:
        """As poll(), with arrays for an answer (pollers.arrays)."""
        self._check_open()
        check_max_events(max_events)
        deadline = None
        if timeout is not None and timeout > 0:
            deadline = time.monotonic() + timeout
        arming = self._arming
        while True:
            arming.submit()
            if arming.refused:
                fds, bits = from_events(arming.refused[:max_events])
                arming.refused = arming.refused[max_events:]
                break
            fds, bits = arming.deliver(*arming.take_completions(timeout, max_events))
            if self._wakeup.pending:
                self._wakeup.clear()
                self.counters.kernel_calls += 2  # the write that woke us, and the read
                break
            if len(fds) or (timeout is not None and timeout <= 0):
                break
            # What came, if anything, concerned nobody: a stale completion, a bit nobody asked for.
            if deadline is not None:
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    break
        self.counters.count(len(fds))
        return fds, bits

    def transfer(self, addresses: Addresses, at: int, *, arm: bool) -> Integers:
        """Do these transfers (pollers.aio.sockets.Submitter), and arm what waits for it with them.

        Completions of polls that come with theirs are kept for the next poll().
        """
        self._check_open()
        return self._arming.transfer(addresses, at, arm=arm)

    def wake(self) -> None:
        self._wakeup.set()
        self.counters.wakes += 1

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._arming.context.close()
            self._wakeup.close()

    # -- registrations

    def _find(self, fd: int) -> int:
        slot = self._slots.of.get(fd)
        if slot is None:
            number = errno.EBADF if fd < 0 else errno.ENOENT
            raise OSError(number, os.strerror(number))  # ENOENT makes it FileNotFoundError
        return slot

    def _check_fd(self, fd: int) -> None:
        """Raise OSError(EBADF) for a closed fd now: io_submit would say so at the next poll()."""
        fcntl.fcntl(fd, fcntl.F_GETFD)
        self.counters.kernel_calls += 1
