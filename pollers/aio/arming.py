"""The slots of the AIO poller on their way to the kernel and back, for pollers.aio.poller.

Facts
-----
*   What the kernel was given by io_submit(2) it gives back once, through the ring: fired,
    cancelled, or late.  Until then its control block and its place are taken.
*   io_submit stops at the first iocb that it does not take, and says why when that is the first.
*   io_destroy(2) gives nothing back.

What does this mean for us?
---------------------------
*   A slot that is owed a completion is nobody's until that was reaped, whatever became of its
    registration (a *zombie*).
*   Where the kernel refuses to cancel, the registration stays as it is.
*   To grow is to arm everything again, in a larger context.
"""

from __future__ import annotations

import errno
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pollers.aio.context import Context
from pollers.aio.slots import GONE, Slots
from pollers.aio.sockets import TRANSFER, Addresses, Integers, together
from pollers.arrays import Arrays
from pollers.base import POLLNVAL, Counters, Events
from pollers.syscall import refusal

Indices: TypeAlias = NDArray[np.intp]
#: Completions as two columns: the slot of each, and its `res`.
Completions: TypeAlias = tuple[Indices, NDArray[np.int64]]

#: How often submit() tries to submit what the kernel had no memory for.
PATIENCE: Final = 100

_NONE: Final[Indices] = np.empty(0, np.intp)
_NO_ADDRESSES: Final[Addresses] = np.empty(0, np.uint64)


class Arming:
    """The slots of one poller, `capacity` to begin with, and the context that they are armed in.

    Raises OSError, with the reason and what to do, where io_setup(2) is refused.
    """

    def __init__(self, capacity: int, counters: Counters) -> None:
        self.context = Context(capacity)
        self.slots = Slots(capacity)
        self._counters = counters
        #: Slots to submit at the next submit(): those that fired, and those newly registered.
        self._again: Indices = _NONE
        self._fresh: list[int] = []
        #: Whether some of these are not to be submitted after all.
        self._thinned = False
        #: Slots given up since the last submit(), free once `_again` was submitted.
        self._retired: list[int] = []
        #: How many slots still owe a completion to a registration that has gone.
        self._zombies = 0
        self._oneshots: set[int] = set()
        #: Completions that were reaped early, not yet delivered.
        self._stash: Completions = (_NONE, np.empty(0, np.int64))
        #: POLLNVAL events of what the kernel does not watch, not yet told.
        self.refused: Events = []
        self._to_submit = np.zeros(capacity, np.uint64)
        self._to_submit_at = self._to_submit.ctypes.data
        #: The results of transfers, and how many have not come yet.
        self._outcomes: list[Integers] = []
        self._under_way = 0

    # -- registrations

    def take(self, fd: int, interest: int, oneshot: bool) -> int:
        """Give `fd` a slot, armed by the next submit().  There must be a free one."""
        slot = self.slots.take(fd, interest)
        self.set_oneshot(slot, oneshot)
        self._fresh.append(slot)
        return slot

    def set_oneshot(self, slot: int, oneshot: bool) -> None:
        """Whether it is not to be armed again by itself once it has fired."""
        if oneshot:
            self._oneshots.add(slot)
        else:
            self._oneshots.discard(slot)

    def release(self, slot: int) -> None:
        """End the registration that owns `slot`; the next owner comes after its completion.

        Raises OSError where the kernel refuses to cancel; nothing has changed then.
        """
        slots = self.slots
        if slots.armed[slot]:
            # It may have completed meanwhile, above all where the socket was shut down.
            self._stash_completions()
        armed = slots.armed[slot]
        if armed:
            # Before anything else: where it is refused, the registration stays as it is.  Where a
            # signal handler raises, the poll completes with no bits, and is armed again.
            self.context.cancel(int(slots.addresses[slot]))
            self._counters.kernel_calls += 1
        slots.disown(slot)
        self._oneshots.discard(slot)
        if armed:
            self._zombies += 1
        else:
            stashed, results = self._stash
            self._stash = stashed[stashed != slot], results[stashed != slot]
            self._thinned = True
            self._retired.append(slot)

    def need_free_slot(self) -> None:
        """Double the capacity if no slot is free: a new context, with everything armed again.

        Raises OSError where the kernel refuses the larger context; the smaller one stays.
        """
        if self.slots.free:
            return
        old = self.context
        self.context = Context(2 * old.capacity)
        old.close()  # cancels what is armed; its completions are lost, so nobody is owed one
        self._counters.kernel_calls += 2
        owned, orphans = self.slots.disarm_all()
        self._fresh.extend(owned.tolist())
        self._zombies -= orphans
        self.slots.extend(self.context.capacity)

    # -- one turn

    def submit(self, transfers: Addresses = _NO_ADDRESSES) -> dict[int, int]:
        """Do `transfers`, and arm what is to be armed; `refused` gets what cannot be watched.

        Returns the transfers that were refused, with their errno.
        """
        slots = self.slots
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
            self._counters.rearms += len(again)
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

    def transfer(self, addresses: Addresses, at: int, *, arm: bool) -> Integers:
        """See pollers.aio.sockets.Submitter."""
        outcomes = self._outcomes = []
        refused = self.submit(addresses) if arm else self._submit_all(at, len(addresses), _NONE)
        while self._under_way:
            self._stash_completions(self._under_way)
        return together(outcomes, refused)

    def _list(self, transfers: Addresses, batch: Indices) -> None:
        """Write to `_to_submit` the addresses of what is to be submitted."""
        count, total = len(transfers), len(transfers) + len(batch)
        if total > len(self._to_submit):
            self._to_submit = np.zeros(2 * total, np.uint64)
            self._to_submit_at = self._to_submit.ctypes.data
        # Transfers first: peers work on what they get while the kernel arms the rest.
        self._to_submit[:count] = transfers
        np.take(self.slots.addresses, batch, out=self._to_submit[count:total])

    def _submit_all(self, at: int, first: int, batch: Indices) -> dict[int, int]:
        """Submit what is listed at `at`, in one call unless an iocb of it is bad.

        The first ones are `first` transfers; those that were refused are returned.
        """
        done, total = 0, first + len(batch)
        refused: dict[int, int] = {}
        refusals = 0
        while done < total:
            self._counters.kernel_calls += 1
            count = self.context.try_submit(at + 8 * done, total - done)
            if count >= 0:
                self._under_way += max(0, min(done + count, first) - done)
                done += count
            elif done < first:
                refused[done] = -count
                done += 1
            elif count in (-errno.EBADF, -errno.EINVAL):
                self._refuse(int(batch[done - first]))
                done += 1
            elif count == -errno.EAGAIN and refusals < PATIENCE:
                refusals += 1
                if self._under_way:  # transfers that are done keep places until then
                    self._stash_completions()
            else:
                raise refusal("io_submit", -count)
        return refused

    def _refuse(self, slot: int) -> None:
        """The kernel does not watch such a file."""
        self.slots.armed[slot] = False
        self._oneshots.discard(slot)
        self.slots.free.append(slot)
        self.refused.append((self.slots.disown(slot), POLLNVAL))

    def _reap(self, least: int, most: int, timeout: float | None) -> Completions:
        context = self.context
        calls = context.getevents_calls
        slots, results = context.completions(least, most, timeout)
        self._counters.kernel_calls += context.getevents_calls - calls
        if self._under_way:
            transfers = slots == TRANSFER
            self._outcomes.append(results[transfers])
            self._under_way -= len(self._outcomes[-1])
            slots, results = slots[~transfers], results[~transfers]
        self.slots.armed[slots] = False
        if self._zombies:
            return self._without_zombies(slots, results)
        return slots, results

    def _without_zombies(self, slots: Indices, results: NDArray[np.int64]) -> Completions:
        """Drop the completions of registrations that have gone, and free their slots."""
        owned = self.slots.fds[slots] != GONE
        dropped = slots[~owned].tolist()
        self._zombies -= len(dropped)
        self._counters.stale += len(dropped)
        self.slots.free.extend(dropped)
        return slots[owned], results[owned]

    def _stash_completions(self, least: int = 0) -> None:
        """Reap all there is, `least` at least, for a later poll() to deliver."""
        slots, results = self._reap(least, len(self.slots) + least, None if least else 0)
        if len(slots):
            self._stash = (
                np.concatenate((self._stash[0], slots)),
                np.concatenate((self._stash[1], results)),
            )

    def take_completions(self, timeout: float | None, max_events: int) -> Completions:
        """Those that were reaped early, or else wait for some, for `timeout` seconds."""
        slots, results = self._stash
        if not len(slots):
            least = 0 if timeout is not None and timeout <= 0 else 1
            return self._reap(least, max_events, timeout)
        self._stash = slots[max_events:], results[max_events:]
        return slots[:max_events], results[:max_events]

    def deliver(self, slots: Indices, results: NDArray[np.int64]) -> Arrays:
        """Turn completions into events, and note what to arm again."""
        bits = results & self.slots.masks[slots]
        fds = self.slots.fds[slots]
        again = slots
        if self._oneshots:
            fired = bits.astype(np.bool_) & np.isin(slots, list(self._oneshots))
            again = slots[~fired]
        self.slots.waiting[again] = True
        self._again = again
        if not bits.all():
            concerned = bits != 0
            return fds[concerned], bits[concerned]
        return fds, bits
