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
*   A registration owns a *slot*: one iocb at a fixed address.  The event carries the slot, not the
    fd, and a slot is used again only after its completion was reaped.  A completion of a slot
    whose registration has gone is dropped (`counters.stale`), whatever the fd number means by
    then.  That is the generation check, at no cost on the hot path.
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
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pollers.aio.context import Context
from pollers.aio.slots import GONE, Slots
from pollers.aio.sockets import TRANSFER, Addresses, Integers, together
from pollers.arrays import Arrays, from_events
from pollers.base import (
    MAX_EVENTS,
    POLLIN,
    POLLNVAL,
    Adapter,
    Capability,
    Events,
    check_max_events,
    check_registration,
)
from pollers.wakeup import Wakeup

#: Slots of a new poller.  It grows by doubling, for as long as fs.aio-max-nr lets it.
FIRST_CAPACITY: Final = 1024

Indices: TypeAlias = NDArray[np.intp]
#: Completions as two columns: the slot of each, and its `res`.
Completions: TypeAlias = tuple[Indices, NDArray[np.int64]]

#: How often poll() tries to submit what the kernel had no memory for.
PATIENCE: Final = 100

_NONE: Final[Indices] = np.empty(0, np.intp)
_NO_ADDRESSES: Final[Addresses] = np.empty(0, np.uint64)


class AioPoller(Adapter):
    """The adapter over Linux AIO; the contract is in pollers.base.

    Raises OSError, with the reason and what to do, where io_setup(2) is refused.
    """

    name = "aio"
    capabilities = Capability.ONESHOT | Capability.SUBMILLISECOND

    def __init__(self, capacity: int = FIRST_CAPACITY) -> None:
        super().__init__()
        self._context = Context(capacity)
        try:
            self._wakeup = Wakeup()
        except OSError:
            self._context.close()
            raise
        self._slots = Slots(capacity)
        #: Slots to submit at the next poll(): those that fired, and those newly registered.
        self._again: Indices = _NONE
        self._fresh: list[int] = []
        #: Whether some of these are not to be submitted after all.
        self._thinned = False
        #: Slots given up since the last poll(), free once `_again` was submitted.
        self._retired: list[int] = []
        #: How many slots still owe a completion to a registration that has gone.
        self._zombies = 0
        self._oneshots: set[int] = set()
        #: Completions reaped by `_release`, not yet delivered.
        self._stash: Completions = (_NONE, np.empty(0, np.int64))
        #: POLLNVAL events that did not fit into the last poll().
        self._refused: Events = []
        self._to_submit = np.zeros(capacity, np.uint64)
        self._to_submit_at = self._to_submit.ctypes.data
        #: The results of transfers, and how many have not come yet.
        self._outcomes: list[Integers] = []
        self._under_way = 0
        wake = self._slots.take(self._wakeup.fd, POLLIN)
        self._fresh.append(wake)
        # Nothing of it is reported: its completion may be reaped long after the wake was noticed.
        self._slots.masks[wake] = 0

    def register(
        self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False
    ) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        if fd in self._slots.of:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._check_fd(fd)
        self._need_free_slot()
        self._take(fd, interest, oneshot)

    def modify(self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        slot = self._find(fd)
        self._check_fd(fd)
        if not self._slots.waiting[slot]:
            self._need_free_slot()  # before anything changes; it may leave this slot waiting
        if self._slots.waiting[slot]:
            # It is submitted at the next poll(), with what stands in its iocb by then.
            self._slots.set_interest(slot, interest)
            self._set_oneshot(slot, oneshot)
        else:
            self._release(slot)
            self._take(fd, interest, oneshot)

    def unregister(self, fd: int) -> None:
        self._check_open()
        self._release(self._find(fd))

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
        while True:
            self._submit()
            if self._refused:
                fds, bits = from_events(self._refused[:max_events])
                self._refused = self._refused[max_events:]
                break
            fds, bits = self._deliver(*self._take_completions(timeout, max_events))
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
        outcomes = self._outcomes = []
        refused = self._submit(addresses) if arm else self._submit_all(at, len(addresses), _NONE)
        while self._under_way:
            self._stash_completions(self._under_way)
        return together(outcomes, refused)

    def wake(self) -> None:
        self._wakeup.set()
        self.counters.wakes += 1

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._context.close()
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

    def _take(self, fd: int, interest: int, oneshot: bool) -> None:
        slot = self._slots.take(fd, interest)
        self._set_oneshot(slot, oneshot)
        self._fresh.append(slot)

    def _set_oneshot(self, slot: int, oneshot: bool) -> None:
        if oneshot:
            self._oneshots.add(slot)
        else:
            self._oneshots.discard(slot)

    def _release(self, slot: int) -> None:
        """End the registration that owns `slot`; the next owner comes after its completion."""
        slots = self._slots
        if slots.armed[slot]:
            # It may have completed meanwhile, above all where the socket was shut down.
            self._stash_completions()
        slots.disown(slot)
        self._oneshots.discard(slot)
        if slots.armed[slot]:
            self._context.cancel(int(slots.addresses[slot]))
            self.counters.kernel_calls += 1
            self._zombies += 1
        else:
            stashed, results = self._stash
            self._stash = stashed[stashed != slot], results[stashed != slot]
            self._thinned = True
            self._retired.append(slot)

    def _need_free_slot(self) -> None:
        """Double the capacity if no slot is free: a new context, with everything armed again.

        Raises OSError where the kernel refuses the larger context; the smaller one stays.
        """
        if self._slots.free:
            return
        old = self._context
        self._context = Context(2 * old.capacity)
        old.close()  # cancels what is armed; its completions are lost, so nobody is owed one
        self.counters.kernel_calls += 2
        owned, orphans = self._slots.disarm_all()
        self._fresh.extend(owned.tolist())
        self._zombies -= orphans
        self._slots.extend(self._context.capacity)

    # -- one turn

    def _submit(self, transfers: Addresses = _NO_ADDRESSES) -> dict[int, int]:
        """Do `transfers`, and arm what is to be armed; `_refused` gets what cannot be watched.

        Returns the transfers that were refused, with their errno.
        """
        slots = self._slots
        again = self._again
        if self._thinned:
            again = again[slots.waiting[again]]
            self._fresh = [slot for slot in self._fresh if slots.waiting[slot]]
            self._thinned = False
        batch = again
        if self._fresh:
            batch = np.concatenate((again, np.array(self._fresh, np.intp)))
            self._fresh.clear()
        self._again = _NONE
        if len(batch):
            self.counters.rearms += len(again)
            slots.armed[batch] = True
            slots.waiting[batch] = False
        refused = {}
        if len(transfers) or len(batch):
            self._list(transfers, batch)
            refused = self._submit_all(self._to_submit_at, len(transfers), batch)
        if self._retired:
            slots.free.extend(self._retired)
            self._retired.clear()
        return refused

    def _list(self, transfers: Addresses, batch: Indices) -> None:
        """Write to `_to_submit` the addresses of what is to be submitted."""
        count, total = len(transfers), len(transfers) + len(batch)
        if total > len(self._to_submit):
            self._to_submit = np.zeros(2 * total, np.uint64)
            self._to_submit_at = self._to_submit.ctypes.data
        # Transfers first: peers work on what they get while the kernel arms the rest.
        self._to_submit[:count] = transfers
        np.take(self._slots.addresses, batch, out=self._to_submit[count:total])

    def _submit_all(self, at: int, first: int, batch: Indices) -> dict[int, int]:
        """Submit what is listed at `at`, in one call unless an iocb of it is bad.

        The first ones are `first` transfers; those that were refused are returned.
        """
        done, total = 0, first + len(batch)
        refused: dict[int, int] = {}
        refusals = 0
        while done < total:
            self.counters.kernel_calls += 1
            try:
                count = self._context.submit(at + 8 * done, total - done)
                self._under_way += max(0, min(done + count, first) - done)
            except OSError as error:
                count = 1
                if done < first:
                    refused[done] = error.errno or errno.EIO
                elif error.errno in (errno.EBADF, errno.EINVAL):
                    self._refuse(int(batch[done - first]))
                elif error.errno == errno.EAGAIN and refusals < PATIENCE:
                    refusals += 1
                    count = 0
                    if self._under_way:  # transfers that are done keep places until then
                        self._stash_completions()
                else:
                    raise
            done += count
        return refused

    def _refuse(self, slot: int) -> None:
        """The kernel does not watch such a file."""
        self._slots.armed[slot] = False
        self._oneshots.discard(slot)
        self._slots.free.append(slot)
        self._refused.append((self._slots.disown(slot), POLLNVAL))

    def _reap(self, least: int, most: int, timeout: float | None) -> Completions:
        context = self._context
        calls = context.getevents_calls
        slots, results = context.completions(least, most, timeout)
        self.counters.kernel_calls += context.getevents_calls - calls
        if self._under_way:
            transfers = slots == TRANSFER
            self._outcomes.append(results[transfers])
            self._under_way -= len(self._outcomes[-1])
            slots, results = slots[~transfers], results[~transfers]
        self._slots.armed[slots] = False
        if self._zombies:
            return self._without_zombies(slots, results)
        return slots, results

    def _without_zombies(self, slots: Indices, results: NDArray[np.int64]) -> Completions:
        """Drop the completions of registrations that have gone, and free their slots."""
        owned = self._slots.fds[slots] != GONE
        dropped = slots[~owned].tolist()
        self._zombies -= len(dropped)
        self.counters.stale += len(dropped)
        self._slots.free.extend(dropped)
        return slots[owned], results[owned]

    def _stash_completions(self, least: int = 0) -> None:
        """Reap all there is, `least` at least, for a later poll() to deliver."""
        slots, results = self._reap(least, len(self._slots) + least, None if least else 0)
        if len(slots):
            self._stash = (
                np.concatenate((self._stash[0], slots)),
                np.concatenate((self._stash[1], results)),
            )

    def _take_completions(self, timeout: float | None, max_events: int) -> Completions:
        slots, results = self._stash
        if not len(slots):
            least = 0 if timeout is not None and timeout <= 0 else 1
            return self._reap(least, max_events, timeout)
        self._stash = slots[max_events:], results[max_events:]
        return slots[:max_events], results[:max_events]

    def _deliver(self, slots: Indices, results: NDArray[np.int64]) -> Arrays:
        """Turn completions into events, and note what to arm again."""
        bits = results & self._slots.masks[slots]
        fds = self._slots.fds[slots]
        again = slots
        if self._oneshots:
            fired = bits.astype(np.bool_) & np.isin(slots, list(self._oneshots))
            again = slots[~fired]
        self._slots.waiting[again] = True
        self._again = again
        if not bits.all():
            concerned = bits != 0
            return fds[concerned], bits[concerned]
        return fds, bits
