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
from pollers.aio.counters import DiskCounters
from pollers.aio.direct import ALIGNMENT, DirectFile
from pollers.aio.disk import DiskReader
from pollers.aio.whole import WholeRead


class TrioReader:
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
        self._depth = depth
        self._block = block
        self._alignment = alignment
        self._count_switches = count_switches
        self._reader: DiskReader | None = None
        self._leaving = False
        #: Where the task that flushes is parked, until the first read of a batch of tasks.
        self._to_flush = trio.lowlevel.ParkingLot()
        #: Reads that a task awaits.
        self._awaited: dict[trio.lowlevel.Task, WholeRead] = {}
        #: Around the tasks that serve, and set at their end.
        self._serving = trio.CancelScope()
        self._served = trio.Event()
        #: Why completions cannot be had any more: the kernel refuses io_getevents(2).
        self._broken: OSError | None = None
        #: Set once nothing is under way any more.
        self._drained = trio.Event()

    async def __aenter__(self) -> Self:
        if self._reader is not None:
            raise ValueError("this disk reader was entered before; make another one")
        await trio.lowlevel.checkpoint()
        reader = self._reader = DiskReader(
            self._depth,
            self._block,
            alignment=self._alignment,
            count_switches=self._count_switches,
        )
        trio.lowlevel.spawn_system_task(self._serve, reader)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        reader = self._open()
        self._leaving = True
        self._end_all(ValueError, "the disk reader was closed during this read")
        with trio.CancelScope(shield=True):
            if reader.pending and self._broken is None:
                await self._drained.wait()
            self._serving.cancel()
            await self._served.wait()
        reader.close()

    async def read(self, file: DirectFile | CachedFile, offset: int, count: int) -> bytes:
        """`count` bytes at `offset`; fewer at the end of the file.  A checkpoint.

        Raises OSError for what the disk or the kernel refuses, ValueError for an alignment beyond
        the reader's, and where the reader is not open or is closed meanwhile.
        """
        reader = self._open()
        if self._leaving:
            raise ValueError("operation on a closed disk reader")
        if self._broken is not None:
            raise OSError(*self._broken.args)
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

    @property
    def counters(self) -> DiskCounters:
        """What this reader did since it was made; reads from the page cache are not among it."""
        return self._open().counters

    async def _read_direct(
        self, reader: DiskReader, file: DirectFile, offset: int, count: int
    ) -> bytes:
        task = trio.lowlevel.current_task()

        def done(answer: bytes | OSError) -> None:
            del self._awaited[task]
            if isinstance(answer, OSError):
                trio.lowlevel.reschedule(task, outcome.Error(answer))
            else:
                trio.lowlevel.reschedule(task, outcome.Value(answer))

        def abort(_: object) -> trio.lowlevel.Abort:
            self._awaited.pop(task).cancel()
            return trio.lowlevel.Abort.SUCCEEDED

        self._awaited[task] = WholeRead(reader, file, offset, count, done)
        self._to_flush.unpark()
        answer: bytes = await trio.lowlevel.wait_task_rescheduled(abort)
        return answer

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
            try:
                reader.reap()
            except OSError as error:
                self._broken = error
                self._end_all(OSError, *error.args)
                self._drained.set()
                return
            if self._leaving and not reader.pending:
                self._drained.set()

    def _end_all(self, kind: type[Exception], *words: object) -> None:
        """End every read that a task awaits with an exception of its own."""
        for task, whole in self._awaited.items():
            whole.cancel()
            trio.lowlevel.reschedule(task, outcome.Error(kind(*words)))
        self._awaited.clear()

    def _open(self) -> DiskReader:
        if self._reader is None:
            raise ValueError("this disk reader is not open: use it by `async with`")
        return self._reader
