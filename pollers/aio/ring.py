"""The ring of an AIO context, read where the kernel writes it: completions without a system call.

Some facts about the ring
-------------------------
*   io_setup(2) maps it, shared, and returns its address as the context's id.  It begins with eight
    u32 (id, nr, head, tail, magic, compat, incompat, header length), then `nr` io_events.
    No man page has this; magic, features and header length are there to be checked, and have been
    the same since Linux 2.6 (fs/aio.c, struct aio_ring).
*   The kernel writes an event, then, after a write barrier, the tail.  Who reaps reads the tail,
    then the events, then writes the head.  What was reaped in this way is counted as free again
    by io_submit(2), at the moment when it would otherwise be out of places.
*   x86 moves no load before an older load and no store before an older load: there the order of
    the program is enough.  Elsewhere it takes acquire and release, which Python does not have.
*   io_getevents(2) moves the same head, under a lock that is not ours.  One thread may mix the
    two; two threads may not.
*   io_destroy(2) unmaps it: a look at it afterwards is the end of the process.
*   A forked child inherits the mapping, though not the context: whoever reaped there would take
    the completions from the parent.

What does this mean for us?
---------------------------
*   The ring is looked at once, when its context is made; where it is not as expected, or the
    machine is another one, there is no Ring, and io_getevents is called instead.
*   Its context makes it forget its memory before that goes, and in a forked child.
"""

from __future__ import annotations

import ctypes
import errno
import time
from collections.abc import Sequence
from typing import Final, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pollers.aio.abi import IO_EVENT
from pollers.syscall import MACHINE

#: struct aio_ring before its events: u32 each, and where they stand.
HEADER_LENGTH: Final = 32
NR, HEAD, TAIL, MAGIC, COMPAT, INCOMPAT, LENGTH = range(1, 8)
RING_MAGIC: Final = 0xA10A10A1
COMPAT_FEATURES: Final = 1

#: Machines that keep the order of loads and stores which the kernel relies on.
ORDERED: Final = frozenset({"x86_64"})

#: Completions as two columns: the `data` and the `res` of each.
Columns: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]

_NOTHING: Final[Columns] = (np.empty(0, np.int64), np.empty(0, np.int64))


def why_not(header: Sequence[int], machine: str = MACHINE) -> str:
    """Why a ring with this header must not be read without a call; "" where it may be."""
    if machine not in ORDERED:
        return f"{machine} does not keep the order of loads that reading the ring takes"
    if header[MAGIC] != RING_MAGIC:
        return f"the ring's magic number is {header[MAGIC]:#x}, not {RING_MAGIC:#x}"
    if header[INCOMPAT]:
        return f"the ring has incompatible features ({header[INCOMPAT]:#x})"
    if not header[COMPAT] & COMPAT_FEATURES:
        return f"the ring lacks the features that are expected ({header[COMPAT]:#x})"
    if header[LENGTH] != HEADER_LENGTH:
        return f"the ring's header has {header[LENGTH]} bytes, not {HEADER_LENGTH}"
    if not header[HEAD] < header[NR] or not header[TAIL] < header[NR]:
        return f"the ring's head or tail is beyond its {header[NR]} places"
    return ""


class Ring:
    """The completions of the context whose id is `address`; for one thread.

    Raises OSError(ENOTSUP), with the reason, where they must not be read without a call.
    """

    __slots__ = ("_data", "_header", "_result_items", "_results", "nr")

    def __init__(self, address: int, machine: str = MACHINE) -> None:
        header = _memory(address, HEADER_LENGTH).cast("I")
        reason = why_not(header, machine)
        if reason:
            raise OSError(errno.ENOTSUP, reason)
        #: Its places; one fewer can be in use.
        self.nr = header[NR]
        memory = _memory(address + HEADER_LENGTH, self.nr * IO_EVENT.itemsize)
        events = np.frombuffer(memory, IO_EVENT)
        self._header: memoryview[int] | _Gone = header
        # Read as signed: it holds indices, and numpy wants those signed.
        self._data: NDArray[np.int64] = events["data"].view(np.int64)
        self._results: NDArray[np.int64] = events["res"]
        self._result_items = self._results.data

    def __len__(self) -> int:
        """How many completions can be taken now."""
        header = self._header
        return (header[TAIL] - header[HEAD]) % self.nr

    def watch(self, seconds: float) -> None:
        """Look until there is something to take, for so long at most, and without sleeping."""
        header, clock = self._header, time.perf_counter
        deadline = clock() + seconds
        while header[HEAD] == header[TAIL] and clock() < deadline:
            pass

    def take(self, most: int) -> Columns:
        """Up to `most` completions, oldest first, as copies.  Raises OSError once it is gone."""
        header = self._header
        head, tail = header[HEAD], header[TAIL]
        if head == tail:
            return _NOTHING
        # Up to the tail, or up to the end of the memory and on from its beginning.
        end = min(tail if tail > head else self.nr, head + most)
        data, results = self._data[head:end].copy(), self._results[head:end].copy()
        if end == self.nr:
            end = min(tail, most - len(data))
            if end:
                data = np.concatenate((data, self._data[:end]))
                results = np.concatenate((results, self._results[:end]))
        header[HEAD] = end
        return data, results

    def take_results(self, count: int) -> NDArray[np.int64] | None:
        """The `res` of the completions where they are `count`, no more, no fewer, in one piece.

        Else None, and nothing is taken.  Raises as `take` does.
        """
        header = self._header
        head = header[HEAD]
        end = head + count
        if header[TAIL] != end:  # the tail of a ring that goes round is smaller
            return None
        results = self._results[head:end].copy()
        header[HEAD] = end
        return results

    def take_one(self) -> int | None:
        """The `res` of the oldest completion, where there is one.  Raises as `take` does."""
        header = self._header
        head = header[HEAD]
        if head == header[TAIL]:
            return None
        result: int = self._result_items[head]
        header[HEAD] = (head + 1) % self.nr
        return result

    def forget(self, reason: str) -> None:
        """Touch the memory no more, and let whoever asks know why."""
        self._header = _Gone(reason)
        self._data, self._results = _NOTHING
        self._result_items = self._results.data


class _Gone:
    """Stands where a header was, so that taking needs no check of its own."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __getitem__(self, index: int) -> NoReturn:
        raise OSError(errno.EINVAL, self._reason)

    def __setitem__(self, index: int, value: int) -> NoReturn:
        raise OSError(errno.EINVAL, self._reason)


def _memory(address: int, size: int) -> memoryview[int]:
    """The `size` bytes of this process at `address`, which must be mapped."""
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
