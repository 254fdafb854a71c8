"""One AIO context: a queue in the kernel, by io_setup(2), and the calls on it.

Facts
-----
*   `fs.aio-max-nr` is system-wide and charged with what io_setup asks for; when it is used up
    io_setup fails with EAGAIN.  The ring itself gets at least twice that many places.
*   io_submit(2) copies the control blocks, but writes `key` into them and matches io_cancel(2) by
    their address: an armed iocb is neither moved nor used for something else.
*   io_submit stops at the first bad iocb and returns how many came before it; only when the
    first one is bad does it return that one's error.
*   A context belongs to one address space: a forked child gets EINVAL from all of these, and is
    told so in words.
*   io_submit knows no EINTR and io_getevents no EAGAIN.  Tools that inject errors do, and nothing
    has happened then: the call is made again.
*   io_destroy(2) cancels what can be cancelled and waits for the rest.
*   Python runs signal handlers between its own instructions: at the beginning of a function, where
    a loop goes round, and after a call into C has returned, before its result is stored.  Where
    one raises, nobody knows what the call has done; and what it raises may be an OSError as well,
    TimeoutError for one.

What does this mean for us?
---------------------------
*   The id is kept where io_setup writes it, and forgotten the moment that io_destroy has returned:
    `close()` that was interrupted may be repeated, and destroys nobody else's context.
*   Whoever does not know what is under way starts anew: after that nothing is.
*   What the kernel refuses is a number, -errno, in all that has to go on after it: `try_submit`.
    An exception there is a signal handler's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
import weakref
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pollers.aio.abi import IO_EVENT, numbers
from pollers.aio.ring import Columns, Ring
from pollers.syscall import Timespec, check, refusal

_libc: Final = ctypes.CDLL(None, use_errno=True)
_NOW: Final = Timespec(0, 0)
#: How often in a row io_getevents may answer EAGAIN, which it never should.
_PATIENCE: Final = 100
_FORKED: Final = (
    "this AIO context belongs to the process that this one was forked from; make one here"
)

#: Reasons of io_setup's refusals, with what to do.
_REFUSALS: Final = {
    errno.EAGAIN: "fs.aio-max-nr is used up (fs.aio-nr shows by how much); "
    "raise it: sysctl -w fs.aio-max-nr=1048576",
    errno.ENOSYS: "this kernel is built without CONFIG_AIO, or a container's seccomp filter "
    "blocks it; allow io_setup in the container's profile",
    errno.EPERM: "a seccomp filter blocks it; allow io_setup in the container's profile",
    errno.ENOMEM: "the kernel has no memory for a ring of this size; ask for a smaller one",
}


def _function(*argument_types: Any) -> Any:
    """syscall(2) with its argument types set once: converting them is most of a call's cost."""
    function = _libc["syscall"]
    function.restype = ctypes.c_long
    function.argtypes = (ctypes.c_long, *argument_types)
    return function


_setup: Final = _function(ctypes.c_uint, ctypes.c_void_p)
_destroy: Final = _function(ctypes.c_ulong)
_submit: Final = _function(ctypes.c_ulong, ctypes.c_long, ctypes.c_void_p)
_getevents: Final = _function(
    ctypes.c_ulong, ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p
)
_cancel: Final = _function(ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p)


class Context:
    """An AIO context for `capacity` operations that are under way or not yet reaped.

    `mapped` False keeps it from reading completions out of the ring (pollers.aio.ring).
    Raises OSError, with the reason and what to do, where the kernel refuses one.
    """

    def __init__(self, capacity: int, *, mapped: bool = True) -> None:
        self._numbers = numbers()
        self._pid = os.getpid()
        self._cancelled = np.zeros(1, IO_EVENT)
        self._make_room(1)
        #: Calls of io_getevents, and completions that were taken without one.
        self.getevents_calls = 0
        self.taken = 0
        #: Whether this is a forked child's copy, which can do nothing but close().
        self.foreign = False
        self.capacity = capacity
        #: Where completions are read without a call; None where they are not, and why.
        self.ring: Ring | None = None
        self.unmapped = "" if mapped else "it was not asked for"
        self._mapped = mapped
        self._handle, self._id = ctypes.c_ulong(0), 0
        _contexts.add(self)
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def start_anew(self) -> None:
        """Wait for whatever is under way, forget what has completed, and go on with neither.

        Raises OSError where the kernel refuses another context: this one is closed then, and may
        be asked again.
        """
        self.close()
        self._set_up()

    def _set_up(self) -> None:
        if _setup(self._numbers.setup, self.capacity, ctypes.addressof(self._handle)) == -1:
            number = ctypes.get_errno()
            reason = _REFUSALS.get(number, os.strerror(number))
            raise OSError(number, f"io_setup({self.capacity}): {reason}")
        self._id = self._handle.value
        if self._mapped:
            try:
                self.ring = Ring(self._id)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                self.ring, self.unmapped = None, error.strerror or str(error)

    def submit(self, addresses: int, count: int) -> int:
        """Start operations: `addresses` points to `count` addresses of iocbs.  Return how many.

        Fewer than `count` means that the next one is bad, or that the context is full: submit
        again from there to learn which.  Raises OSError: EBADF, EINVAL (the first one), EAGAIN.
        """
        started = self.try_submit(addresses, count)
        if started < 0:
            raise refusal("io_submit", -started)
        return started

    def try_submit(self, addresses: int, count: int) -> int:
        """As `submit`, but returns -errno for what the kernel refuses.

        Raises OSError(EINVAL) in a forked child.
        """
        started: int = _submit(self._numbers.submit, self._id, count, addresses)
        if started >= 0:
            return started
        while started == -1 and ctypes.get_errno() == errno.EINTR:
            started = _submit(self._numbers.submit, self._id, count, addresses)
        if started == -1:
            number = ctypes.get_errno()
            self.check_ours()
            return -number
        return started

    def reap(self, events: int, least: int, most: int, timeout: float | None) -> int:
        """Wait up to `timeout` seconds for `least` completions; write up to `most` to `events`.

        Returns how many came.  Raises InterruptedError when a signal ended the wait; its handler
        has run by then.
        """
        count = self._try_reap(events, least, most, timeout)
        if count < 0:
            raise refusal("io_getevents", -count)
        return count

    def _try_reap(self, events: int, least: int, most: int, timeout: float | None) -> int:
        """As `reap`, but returns -errno for what the kernel refuses."""
        limit: int | None = None
        if timeout is not None:
            wait = Timespec.of(timeout) if timeout > 0 else _NOW
            limit = ctypes.addressof(wait)
        self.getevents_calls += 1
        count: int = _getevents(self._numbers.getevents, self._id, least, most, events, limit)
        if count == -1:
            number = ctypes.get_errno()
            self.check_ours()
            return -number
        return count

    def wait(self, events: int, least: int, most: int, timeout: float | None) -> int:
        """As `reap`, but a signal does not end the wait: what remains of it is waited for."""
        deadline = time.monotonic() + timeout if timeout is not None and timeout > 0 else None
        refusals = 0
        while True:
            count = self._try_reap(events, least, most, timeout)
            if count >= 0:
                return count
            if count != -errno.EINTR:
                refusals += 1
                if count != -errno.EAGAIN or refusals == _PATIENCE:
                    raise refusal("io_getevents", -count)
            if deadline is not None:
                timeout = max(0.0, deadline - time.monotonic())

    def completions(self, least: int, most: int, timeout: float | None) -> Columns:
        """Up to `most` completions as two columns, the `data` and `res` of each.

        From the ring, without a call, where that has any; else as `wait` gets them.
        """
        ring = self.ring
        if ring is not None:
            columns = ring.take(most)
            if len(columns[0]) or not least:
                self.taken += len(columns[0])
                return columns
        return self.gathered(self.gather(least, most, timeout))

    def gather(self, least: int, most: int, timeout: float | None) -> int:
        """As `wait`, into an array of the context's own; `gathered()` has what came."""
        if most > len(self._events):
            self._make_room(most)
        events = self._events_at
        if timeout is None:  # the short way, as long as nothing goes wrong
            self.getevents_calls += 1
            count: int = _getevents(self._numbers.getevents, self._id, least, most, events, None)
            if count >= 0:
                return count
        return self.wait(events, least, most, timeout)

    def gathered(self, count: int) -> Columns:
        """The first `count` that the last `gather()` brought, as copies."""
        return self._data[:count].copy(), self._results[:count].copy()

    def results(self, count: int) -> list[NDArray[np.int64]]:
        """The `res` of the `count` operations that are under way, waited for, in parts."""
        ring = self.ring
        if ring is not None and count:
            whole = ring.take_results(count)
            if whole is not None:
                self.taken += count
                return [whole]
        parts: list[NDArray[np.int64]] = []
        while count:
            parts.append(self.completions(count, count, None)[1])
            count -= len(parts[-1])
        return parts

    def one(self) -> int:
        """The `res` of the only operation that is under way, waited for: items, no arrays."""
        ring = self.ring
        if ring is not None:
            result = ring.take_one()
            if result is not None:
                self.taken += 1
                return result
        self.getevents_calls += 1
        events = self._events_at
        if _getevents(self._numbers.getevents, self._id, 1, 1, events, None) != 1:
            self.wait(events, 1, 1, None)
        only: int = self._result_items[0]
        return only

    def cancel(self, address: int) -> None:
        """Ask for the end of the operation whose iocb is at `address`.

        Its completion comes through the ring, whether this was in time or not.  The kernel
        searches a list of everything that is under way, oldest first.
        """
        result = _cancel(self._numbers.cancel, self._id, address, self._cancelled.ctypes.data)
        # EINPROGRESS is success; EINVAL means that it has completed by itself.
        if result == -1 and ctypes.get_errno() not in (errno.EINPROGRESS, errno.EINVAL):
            check(result, "io_cancel")

    def close(self) -> None:
        """Destroy the context.  In a forked child it does nothing: there is none."""
        if self.ring is not None and not self.foreign:
            self.ring.forget("this AIO context is closed")
        if self._handle.value and os.getpid() == self._pid:
            try:  # no signal handler runs in here before the call
                result = _destroy(self._numbers.destroy, self._handle)
            finally:
                self._handle.value = self._id = 0
            check(result, "io_destroy")
        self._handle.value = self._id = 0

    @property
    def closed(self) -> bool:
        """Whether nothing can be under way any more, here."""
        return not self._handle.value

    def leave(self) -> None:
        """For the hook of fork(2): this is the child's copy."""
        self.foreign = True
        if self.ring is not None:
            self.ring.forget(_FORKED)

    def check_ours(self) -> None:
        """Raise OSError(EINVAL) in a forked child, which has no part in its parent's context."""
        if self.foreign:
            raise OSError(errno.EINVAL, _FORKED)

    def _make_room(self, most: int) -> None:
        events = np.zeros(most, IO_EVENT)
        address, data, results = events.ctypes.data, events["data"].view(np.int64), events["res"]
        items = results.data
        # From here on nothing is called, and so nothing raises: what the kernel writes to, and
        # what is read, is the same memory.
        self._events, self._events_at = events, address
        self._data, self._results, self._result_items = data, results, items


#: What a forked child has to leave alone.
_contexts: Final[weakref.WeakSet[Context]] = weakref.WeakSet()


def _leave_all() -> None:
    for context in _contexts:
        context.leave()


os.register_at_fork(after_in_child=_leave_all)
