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
    with new registrations, into *one* io_submit at the next poll(), and one io_getevents reaps.
    Registering costs no kernel call, but errors such as EINVAL are known only at poll().
*   A registration owns a *slot*: one iocb at a fixed address.  The event carries the slot, not the
    fd, and a slot is used again only after its completion was reaped.  A completion of a slot
    whose registration has gone is dropped (`counters.stale`), whatever the fd number means by
    then.  That is the generation check, at no cost on the hot path.
*   `unregister()` of an armed slot cancels it, so that close(2) is really a close.  Mostly it is
    not armed: handlers close an fd that has just fired.  Before it cancels it reaps without
    waiting: a socket that was shut down has completed by then, and the search is spared.
*   Everything per event is a numpy operation over all events: ctypes and Python objects cost
    about as much as the system calls do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pollers.aio.abi import IO_EVENT, IOCB, IOCB_CMD_POLL
from pollers.aio.context import Context
from pollers.base import (
    MAX_EVENTS,
    POLLERR,
    POLLHUP,
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

Slots = NDArray[np.intp]

_NONE: Final[Slots] = np.empty(0, np.intp)
_GONE: Final = -1


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
        self._slot_of: dict[int, int] = {}
        self._free: list[int] = []
        #: Slots to submit at the next poll(): those that fired, and those newly registered.
        self._again: Slots = _NONE
        self._fresh: list[int] = []
        #: Whether some slot of `_again` is not to be submitted after all.
        self._thinned = False
        #: Slots given up since the last poll(), free again once `_again` was submitted.
        self._retired: list[int] = []
        #: How many slots still owe a completion to a registration that has gone.
        self._zombies = 0
        self._oneshots: set[int] = set()
        #: Completions reaped by `_disarm`, not yet delivered.
        self._stash: list[tuple[Slots, NDArray[np.int64]]] = []
        #: POLLNVAL events that did not fit into the last poll().
        self._refused: Events = []
        # By slot: the fd that owns it (or _GONE), the bits that may be reported, whether its
        # iocb is with the kernel, whether it is to be submitted at the next poll().
        self._fds = np.empty(0, np.int64)
        self._masks = np.empty(0, np.int64)
        self._armed = np.empty(0, np.bool_)
        self._waiting = np.empty(0, np.bool_)
        self._iocb_fds = np.empty(0, np.uint32)
        self._iocb_masks = np.empty(0, np.uint64)
        self._allocate(capacity)
        self._make_room(MAX_EVENTS)
        self._take_slot(self._wakeup.fd, POLLIN, oneshot=False)
        # Nothing of it is reported: its completion may be reaped long after the wake was noticed.
        self._masks[self._slot_of[self._wakeup.fd]] = 0

    def register(
        self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False
    ) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        if fd in self._slot_of:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        fcntl.fcntl(fd, fcntl.F_GETFD)  # io_submit would say EBADF too late
        self.counters.kernel_calls += 1
        self._take_slot(fd, interest, oneshot)

    def modify(self, fd: int, interest: int, *, edge: bool = False, oneshot: bool = False) -> None:
        self._check_open()
        check_registration(fd, interest, edge, oneshot, self.capabilities, self.name)
        slot = self._find(fd)
        fcntl.fcntl(fd, fcntl.F_GETFD)
        self.counters.kernel_calls += 1
        if not self._armed[slot] and self._waiting[slot]:
            # It will be submitted at the next poll(), with what stands in its iocb by then.
            self._set_interest(slot, interest, oneshot)
        else:
            self._release(fd, slot)
            self._take_slot(fd, interest, oneshot)

    def unregister(self, fd: int) -> None:
        self._check_open()
        self._release(fd, self._find(fd))

    def poll(self, timeout: float | None = None, max_events: int = MAX_EVENTS) -> Events:
        self._check_open()
        check_max_events(max_events)
        deadline = None
        if timeout is not None and timeout > 0:
            deadline = time.monotonic() + timeout
        while True:
            events = self._submit()
            if events:
                events, self._refused = events[:max_events], events[max_events:]
                break
            slots, results = self._take_completions(timeout, max_events)
            events = self._deliver(slots, results)
            if self._wakeup.pending:
                self._wakeup.clear()
                self.counters.kernel_calls += 2  # the write that woke us, and the read
                break
            # What came may have concerned nobody: a stale completion, a bit nobody asked for.
            if events or not len(slots) or (timeout is not None and timeout <= 0):
                break
            if deadline is not None:
                timeout = deadline - time.monotonic()
        try:
            self.counters.sizes[len(events)] += 1
        except IndexError:
            self.counters.count(len(events))
        return events

    def wake(self) -> None:
        self._wakeup.set()
        self.counters.wakes += 1

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._context.close()
            self._wakeup.close()

    # Slots

    def _find(self, fd: int) -> int:
        try:
            return self._slot_of[fd]
        except KeyError:
            if fd < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def _allocate(self, capacity: int) -> None:
        """Make every array anew for `capacity` slots, nothing being armed; keep what they held."""
        old = len(self._fds)
        iocbs = np.zeros(capacity, IOCB)
        iocbs["data"] = np.arange(capacity)
        iocbs["opcode"] = IOCB_CMD_POLL
        iocbs["fd"][:old] = self._iocb_fds
        iocbs["buf"][:old] = self._iocb_masks
        self._iocbs = iocbs  # keeps the memory alive that `_addresses` points into
        self._iocb_fds, self._iocb_masks = iocbs["fd"], iocbs["buf"]
        first = iocbs.ctypes.data
        self._addresses = np.arange(capacity, dtype=np.uint64) * IOCB.itemsize + np.uint64(first)
        self._to_submit = np.zeros(capacity, np.uint64)
        self._to_submit_at = self._to_submit.ctypes.data
        more = capacity - old
        self._fds = np.concatenate((self._fds, np.full(more, _GONE)))
        self._masks = np.concatenate((self._masks, np.zeros(more, np.int64)))
        self._armed = np.concatenate((self._armed, np.zeros(more, np.bool_)))
        self._waiting = np.concatenate((self._waiting, np.zeros(more, np.bool_)))
        self._free.extend(range(capacity - 1, old - 1, -1))

    def _grow(self) -> None:
        """Double the capacity: a new context, in which everything that was armed is armed again.

        Raises OSError where the kernel refuses the larger context; the smaller one stays.
        """
        old, capacity = self._context, 2 * self._context.capacity
        self._context = Context(capacity)
        old.close()  # cancels what is armed: its completions are lost, so nobody is owed one
        self.counters.kernel_calls += 2
        zombies = np.flatnonzero(self._armed & (self._fds == _GONE))
        self._free.extend(zombies.tolist())
        self._zombies -= len(zombies)
        again = np.flatnonzero(self._armed & (self._fds != _GONE))
        self._armed[:] = False
        self._waiting[again] = True
        self._fresh.extend(again.tolist())
        self._allocate(capacity)

    def _take_slot(self, fd: int, interest: int, oneshot: bool) -> None:
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._slot_of[fd] = slot
        self._fds[slot] = fd
        self._iocb_fds[slot] = fd
        self._set_interest(slot, interest, oneshot)
        self._waiting[slot] = True
        self._fresh.append(slot)

    def _set_interest(self, slot: int, interest: int, oneshot: bool) -> None:
        self._iocb_masks[slot] = interest
        self._masks[slot] = interest | POLLERR | POLLHUP
        if oneshot:
            self._oneshots.add(slot)
        else:
            self._oneshots.discard(slot)

    def _release(self, fd: int, slot: int) -> None:
        """End the registration that owns `slot`; its next owner comes after its completion."""
        if self._armed[slot]:
            # It may have completed meanwhile, above all where the socket was shut down.
            self._stash_completions()
        del self._slot_of[fd]
        self._fds[slot] = _GONE
        self._oneshots.discard(slot)
        if self._armed[slot]:
            self._context.cancel(int(self._addresses[slot]))
            self.counters.kernel_calls += 1
            self._zombies += 1
        else:
            self._stash = [
                (slots[slots != slot], results[slots != slot]) for slots, results in self._stash
            ]
            self._waiting[slot] = False
            self._thinned = True
            self._retired.append(slot)

    # One turn

    def _submit(self) -> Events:
        """Arm what is to be armed; return POLLNVAL for what the kernel refused to watch."""
        again = self._again
        if self._thinned:
            again = again[self._waiting[again]]
            self._fresh = [slot for slot in self._fresh if self._waiting[slot]]
            self._thinned = False
        if self._fresh:
            slots = np.concatenate((again, np.array(self._fresh, np.intp)))
            self._fresh.clear()
        else:
            slots = again
        self._again = _NONE
        refused, self._refused = self._refused, []
        total = len(slots)
        if total:
            self.counters.rearms += len(again)
            np.take(self._addresses, slots, out=self._to_submit[:total])
            self._armed[slots] = True
            self._waiting[slots] = False
            done = 0
            while done < total:
                self.counters.kernel_calls += 1
                try:
                    done += self._context.submit(self._to_submit_at + 8 * done, total - done)
                except OSError as error:
                    if error.errno not in (errno.EBADF, errno.EINVAL):
                        raise
                    refused.append(self._refuse(int(slots[done])))
                    done += 1
        if self._retired:
            self._free.extend(self._retired)
            self._retired.clear()
        return refused

    def _refuse(self, slot: int) -> tuple[int, int]:
        fd = int(self._fds[slot])
        self._armed[slot] = False
        self._fds[slot] = _GONE
        self._oneshots.discard(slot)
        del self._slot_of[fd]
        self._free.append(slot)
        return fd, POLLNVAL

    def _reap(
        self, least: int, most: int, timeout: float | None
    ) -> tuple[Slots, NDArray[np.int64]]:
        if most > len(self._events):
            self._make_room(most)
        self.counters.kernel_calls += 1
        count = self._context.wait(self._events_at, least, most, timeout)
        events = self._events[:count]
        # Copies: the array is written again by the next call.
        slots = events["data"].astype(np.intp)
        results = events["res"].copy()
        self._armed[slots] = False
        return slots, results

    def _stash_completions(self) -> None:
        """Reap without waiting, for a later poll() to deliver."""
        slots, results = self._reap(0, len(self._iocbs), 0)
        if len(slots):
            self._stash.append(self._without_zombies(slots, results))

    def _take_completions(
        self, timeout: float | None, max_events: int
    ) -> tuple[Slots, NDArray[np.int64]]:
        if not self._stash or not any(len(slots) for slots, _ in self._stash):
            self._stash.clear()
            least = 0 if timeout is not None and timeout <= 0 else 1
            slots, results = self._reap(least, max_events, timeout)
            return self._without_zombies(slots, results) if self._zombies else (slots, results)
        slots = np.concatenate([part[0] for part in self._stash])
        results = np.concatenate([part[1] for part in self._stash])
        self._stash = []
        if len(slots) > max_events:
            self._stash.append((slots[max_events:], results[max_events:]))
        return slots[:max_events], results[:max_events]

    def _without_zombies(
        self, slots: Slots, results: NDArray[np.int64]
    ) -> tuple[Slots, NDArray[np.int64]]:
        """Drop the completions of registrations that have gone, and free their slots."""
        kept = self._fds[slots] != _GONE
        dropped = slots[~kept]
        if len(dropped):
            self._zombies -= len(dropped)
            self.counters.stale += len(dropped)
            self._free.extend(dropped.tolist())
            slots, results = slots[kept], results[kept]
        return slots, results

    def _deliver(self, slots: Slots, results: NDArray[np.int64]) -> Events:
        """Turn completions into events, and note what to arm again."""
        bits = results & self._masks[slots]
        events = list(zip(self._fds[slots].tolist(), bits.tolist(), strict=True))
        again = slots
        if not bits.all():
            events = [event for event in events if event[1]]
        if self._oneshots:
            fired = bits.astype(np.bool_) & np.isin(slots, list(self._oneshots))
            again = slots[~fired]
        self._waiting[again] = True
        self._again = again
        return events

    def _make_room(self, most: int) -> None:
        self._events = np.zeros(most, IO_EVENT)
        self._events_at = self._events.ctypes.data
