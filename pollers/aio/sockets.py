"""Many socket calls in one entry of the kernel: batches of recv and send through io_submit(2).

Some facts about reads and writes of sockets by AIO
---------------------------------------------------
*   IOCB_CMD_PREAD and PWRITE of a non-blocking socket (offset 0) are done before io_submit
    returns, one after the other in the order given: recv(2) and send(2) without a system call
    each.  A socket that has nothing, or takes nothing, completes with -EAGAIN.  *A blocking
    socket blocks io_submit, and everything behind it.*
*   Their completions are in the ring when io_submit returns, in the order of submission.
*   io_submit stops at the first iocb that it cannot start (EBADF; EAGAIN where memory is short),
    and returns how many came before it.
*   A call costs the kernel about as much either way: the control block that it copies, allocates
    and completes against the entry that it saves.  What is saved is the time in user space.

What does this mean for us?
---------------------------
*   A batch has *places*, not connections: place i is one iocb to receive, one to send, and the
    buffer that both point to, for ever.  A turn writes the fds of what is ready, and the lengths
    of what was received; everything else, the addresses of the iocbs too, was prepared.  The
    same few hundred iocbs and first lines of buffers are used each turn, and stay in the cache.
*   All that is ready is received first and then sent: both are one call, and the peer's process,
    if it sleeps, is woken for the batch and not for each message.
*   Buffers begin at different cache lines (`STRIDE_EXTRA`): with a power of two between them the
    first line of each would compete for the same few places in the cache.
*   Results are what the calls would have returned, or -errno.  What io_submit did not start for
    lack of memory has -EAGAIN, and is for the caller to do in another way.
*   The order of completions is that of submission, so that no result is looked up by its `data`.

A batch belongs to one thread of the process that made it.
"""

from __future__ import annotations

import mmap
from typing import Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pollers.aio.abi import IOCB, IOCB_CMD_PREAD, IOCB_CMD_PWRITE
from pollers.aio.context import Context

Integers: TypeAlias = NDArray[np.int64]
Addresses: TypeAlias = NDArray[np.uint64]

#: Between the end of a buffer and the beginning of the next, bytes: one cache line.
STRIDE_EXTRA: Final = 64

#: In the `data` of an iocb: this is a transfer.  The slots of the aio poller, with which it may
#: share a ring, are smaller numbers.
TRANSFER: Final = 1 << 32

_NONE: Final[Integers] = np.empty(0, np.int64)


@runtime_checkable
class Submitter(Protocol):
    """Who has a context: `OwnContext`, or the aio poller."""

    def transfer(self, addresses: Addresses, at: int, *, arm: bool) -> Integers:
        """Do the transfers whose iocbs are at `addresses`; return their results, in this order.

        `at` is where `addresses` begins in memory.  `arm`: what else waits for an io_submit goes
        behind them.
        """


class OwnContext:
    """A context for `size` transfers and nothing else."""

    def __init__(self, size: int) -> None:
        self._context = Context(size)

    def transfer(self, addresses: Addresses, at: int, *, arm: bool) -> Integers:
        """See Submitter.  Nothing else waits here."""
        context, total, done = self._context, len(addresses), 0
        refused: dict[int, int] = {}
        while done < total:
            count = context.try_submit(at + 8 * done, total - done)
            if count < 0:
                refused[done] = -count
                count = 1
            done += count
        return together(context.results(total - len(refused)), refused)

    def close(self) -> None:
        self._context.close()


def together(outcomes: list[Integers], refused: dict[int, int]) -> Integers:
    """The results of transfers, in the order of submission.

    `outcomes` are those of the ones that were started; `refused` are the others, each with its
    place in the order and its errno.
    """
    started = outcomes[0] if len(outcomes) == 1 else np.concatenate((_NONE, *outcomes))
    if not refused:
        return started
    results = np.zeros(len(started) + len(refused), np.int64)
    for index, number in refused.items():
        results[index] = -number
    results[results == 0] = started
    return results


class SocketBatch:
    """`size` places, each of which receives up to `chunk` bytes and sends them.

    Raises OSError, with the reason and what to do, where the kernel refuses a context.
    """

    def __init__(self, size: int, chunk: int, submitter: Submitter | None = None) -> None:
        self.size = size
        self.chunk = chunk
        self._submitter = OwnContext(size) if submitter is None else submitter
        self._stride = chunk + STRIDE_EXTRA
        memory = mmap.mmap(-1, size * self._stride)
        self._memory = memoryview(memory)
        buffers = np.frombuffer(memory, np.uint8).ctypes.data
        self._receives, self._receive_at = self._prepare(IOCB_CMD_PREAD, buffers)
        self._receives["nbytes"] = chunk
        self._sends, self._send_at = self._prepare(IOCB_CMD_PWRITE, buffers)
        # Asked for once: it costs as much as the operations of a whole turn.
        self._receive_first = self._receive_at.ctypes.data
        self._send_first = self._send_at.ctypes.data
        # The columns that each turn writes.
        self._receive_fds = self._receives["fd"]
        self._send_fds, self._send_lengths = self._sends["fd"], self._sends["nbytes"]

    def receive(self, fds: Integers) -> Integers:
        """Receive from `fds[i]` into place i, for all of them; return the results.

        `fds` are non-blocking sockets, at most `size`.
        """
        count = len(fds)
        self._receive_fds[:count] = fds
        # Who waits for more from these is armed with the send: some may be closed until then.
        transfer = self._submitter.transfer
        return transfer(self._receive_at[:count], self._receive_first, arm=False)

    def send(
        self,
        fds: Integers,
        lengths: Integers,
        places: Integers | None = None,
        *,
        arm: bool = True,
    ) -> Integers:
        """Send `lengths[i]` bytes to `fds[i]` from `places[i]`, by itself from place i.

        Returns the results, in this order.  `arm` False leaves what else waits for an io_submit
        (see Submitter) to a later send, or the next poll().
        """
        if places is None:
            count = len(fds)
            self._send_fds[:count] = fds
            self._send_lengths[:count] = lengths
            addresses, at = self._send_at[:count], self._send_first
        else:
            self._send_fds[places] = fds
            self._send_lengths[places] = lengths
            addresses = self._send_at[places]
            at = addresses.ctypes.data
        return self._submitter.transfer(addresses, at, arm=arm)

    def take_out(self, place: int, start: int, stop: int) -> bytes:
        """A copy of some bytes of a place, of which the next `receive` may make others."""
        base = place * self._stride
        return bytes(self._memory[base + start : base + stop])

    def close(self) -> None:
        """Give the context up, where it is this batch's own."""
        if isinstance(self._submitter, OwnContext):
            self._submitter.close()

    def _prepare(self, opcode: int, buffers: int) -> tuple[NDArray[np.void], Addresses]:
        """An iocb for each place, and where they are."""
        places = np.arange(self.size, dtype=np.uint64)
        iocbs = np.zeros(self.size, IOCB)
        iocbs["data"] = TRANSFER
        iocbs["opcode"] = opcode
        iocbs["buf"] = places * np.uint64(self._stride) + np.uint64(buffers)
        return iocbs, places * np.uint64(IOCB.itemsize) + np.uint64(iocbs.ctypes.data)
