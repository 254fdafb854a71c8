"""Disk reads to be awaited in trio.

Facts
-----
*   trio waits for an eventfd as for a socket (`wait_readable`): Linux AIO needs no thread in it.
*   A task that is made runnable runs in the *next* batch of tasks: one that was parked to flush
    does so after every task of this batch has asked for what it wants to read.
*   Every await of trio's own is a checkpoint: it gives others a turn and sees a cancellation.
*   A cancelled task is gone at once, and the disk is not: direct reads cannot be called back.

What does this mean for us?
---------------------------
*   Two tasks serve a reader: one waits for completions, one flushes.  They run below a system
    task, so that no ExceptionGroup is put around what the body of `async with` raises.
*   Whoever awaits gets `bytes` of their own.  Buffers belong to the reader; the one of a read
    whose task was cancelled is used again only after its completion.
*   Leaving `async with` waits, shielded from cancellation, until the kernel holds no buffer more:
    milliseconds, unless the disk hangs.
*   A read is a checkpoint, from the page cache too.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import outcome
import trio

from pollers.aio.cached import CachedFile
from pollers.aio.direct import ALIGNMENT, DirectFile
from pollers.aio.disk import DiskReader
from pollers.aio.hosted import Hosted
from pollers.aio.whole import WholeRead


class TrioReader(Hosted[trio.lowlevel.Task]):
    """Up to `depth` direct reads under way, in blocks of `block` bytes; the rest waits in order.

    The arguments are DiskReader's.  To be used by `async with`, which raises OSError, with the
    reason and what to do, where io_setup(2) is refused; then from tasks of that run only.
    """

    def __init__(
        self,
        depth: int = 64,
        block: int = 131072,
        *,
        alignment: int = ALIGNMENT,
        count_switches: bool = False,
    ) -> None:
        super().__init__(depth, block, alignment=alignment, count_switches=count_switches)
        #: Where the task that flushes is parked, until the first read of a batch of tasks.
        self._to_flush = trio.lowlevel.ParkingLot()
        #: Around the tasks that serve, and set at their end.
        self._serving = trio.CancelScope()
        self._served = trio.Event()
        #: Set once nothing is under way any more.
        self._drained = trio.Event()

    async def __aenter__(self) -> Self:
        self._check_new()
        await trio.lowlevel.checkpoint()
        reader = self._reader = self._make()
        trio.lowlevel.spawn_system_task(self._serve, reader)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        reader = self._leave()
        with trio.CancelScope(shield=True):
            if reader.pending and self._broken is None:
                # What a task had queued when a signal handler raised in it was never sent.
                self._to_flush.unpark()
                await self._drained.wait()
            self._serving.cancel()
            await self._served.wait()
        reader.close()

    async def read(self, file: DirectFile | CachedFile, offset: int, count: int) -> bytes:
        """`count` bytes at `offset`; fewer at the end of the file.  A checkpoint.

        Raises OSError for what the disk or the kernel refuses, ValueError for an alignment beyond
        the reader's, and where the reader is not open or is closed meanwhile.
        """
        reader = self._usable()
        await trio.lowlevel.checkpoint_if_cancelled()
        if not isinstance(file, CachedFile):
            return await self._read_direct(reader, file, offset, count)
        parts: list[bytes] = []
        while True:
            part, whole = file.read(offset, min(count, reader.block))
            parts.append(part)
            offset += len(part)
            count -= len(part)
            if not whole:
                parts.append(await self._read_direct(reader, file.direct, offset, count))
                break
            if not count or len(part) < reader.block:
                await trio.lowlevel.cancel_shielded_checkpoint()
                break
            await trio.lowlevel.checkpoint()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_direct(
        self, reader: DiskReader, file: DirectFile, offset: int, count: int
    ) -> bytes:
        task = trio.lowlevel.current_task()

        def done(answer: bytes | OSError) -> None:
            if self._awaited.get(task) is not whole:  # a signal handler raised while it was left
                return
            del self._awaited[task]
            if isinstance(answer, OSError):
                trio.lowlevel.reschedule(task, outcome.Error(answer))
            else:
                trio.lowlevel.reschedule(task, outcome.Value(answer))

        def abort(_: object) -> trio.lowlevel.Abort:
            self._awaited.pop(task).cancel()
            return trio.lowlevel.Abort.SUCCEEDED

        whole = self._awaited[task] = WholeRead(reader, file, offset, count, done)
        try:
            whole.begin()
            self._to_flush.unpark()
            answer: bytes = await trio.lowlevel.wait_task_rescheduled(abort)
            return answer
        finally:
            if self._awaited.pop(task, None) is not None:  # a signal handler raised before that
                whole.cancel()

    async def _serve(self, reader: DiskReader) -> None:
        try:
            with self._serving:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._flush_for_ever, reader)
                    nursery.start_soon(self._reap_for_ever, reader)
        finally:
            self._served.set()

    async def _flush_for_ever(self, reader: DiskReader) -> None:
        while True:
            reader.flush()  # first of all, for reads that were asked for before this task ran
            await self._to_flush.park()

    async def _reap_for_ever(self, reader: DiskReader) -> None:
        while True:
            await trio.lowlevel.wait_readable(reader.fileno())
            if not self._tell(reader):
                self._drained.set()
                return
            if self._leaving and not reader.pending:
                self._drained.set()

    def _end(self, waiter: trio.lowlevel.Task, error: Exception) -> None:
        trio.lowlevel.reschedule(waiter, outcome.Error(error))
