"""Disk reads to be awaited in asyncio, on its own loop or uvloop's.

Facts
-----
*   A loop with add_reader() hosts Linux AIO: completions make an eventfd readable.  That is every
    loop on Linux; none needs a thread for it.
*   `call_soon` runs after everything that is ready in this turn: reads that many tasks ask for in
    one turn go to the kernel by one io_submit(2).
*   A cancelled task is gone at once, and the disk is not: direct reads cannot be called back.

What does this mean for us?
---------------------------
*   Whoever awaits gets `bytes` of their own.  Buffers belong to the reader; the one of a read
    whose task was cancelled is used again only after its completion.
*   Leaving `async with` waits, without blocking the loop, until the kernel holds no buffer more.
*   What the page cache has of a CachedFile is returned without giving other tasks a turn, except
    in reads of more than one block.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from pollers.aio.cached import CachedFile
from pollers.aio.direct import ALIGNMENT, DirectFile
from pollers.aio.disk import DiskReader
from pollers.aio.hosted import Hosted
from pollers.aio.whole import WholeRead


class AsyncioReader(Hosted["asyncio.Future[bytes]"]):
    """Up to `depth` direct reads under way, in blocks of `block` bytes; the rest waits in order.

    The arguments are DiskReader's.  To be used by `async with`, which raises OSError, with the
    reason and what to do, where io_setup(2) is refused; then from tasks of that loop only.
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
        self._flushing = False
        #: Set when a reader that is being left has nothing under way any more.
        self._drained: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        self._check_new()
        self._loop = asyncio.get_running_loop()
        reader = self._make()
        try:
            self._loop.add_reader(reader.fileno(), self._reap)
        except BaseException:
            reader.close()
            raise
        self._reader = reader
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        reader = self._leave()
        self._drained = self._loop.create_future()
        try:
            if reader.pending and self._broken is None:
                # What a task had queued when a signal handler raised in it was never sent.
                self._loop.call_soon(self._flush)
                await self._drained
        finally:
            self._loop.remove_reader(reader.fileno())
            reader.close()  # where the wait was cancelled, it is this that waits

    async def read(self, file: DirectFile | CachedFile, offset: int, count: int) -> bytes:
        """`count` bytes at `offset`; fewer at the end of the file.  May be cancelled.

        Raises OSError for what the disk or the kernel refuses, ValueError for an alignment beyond
        the reader's, and where the reader is not open or is closed meanwhile.
        """
        reader = self._usable()
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
                break
            await asyncio.sleep(0)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_direct(
        self, reader: DiskReader, file: DirectFile, offset: int, count: int
    ) -> bytes:
        future: asyncio.Future[bytes] = self._loop.create_future()

        def done(answer: bytes | OSError) -> None:
            if future.done():  # cancelled in this very turn, or told before
                return
            if isinstance(answer, OSError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        whole = self._awaited[future] = WholeRead(reader, file, offset, count, done)
        try:
            whole.begin()
            if not self._flushing:
                self._loop.call_soon(self._flush)
                self._flushing = True
            return await future
        finally:
            if self._awaited.pop(future, None) is not None:
                whole.cancel()

    def _flush(self) -> None:
        self._flushing = False
        reader = self._open()
        if not reader.closed:
            reader.flush()

    def _reap(self) -> None:
        reader = self._open()
        going = self._tell(reader)
        if not going:
            self._loop.remove_reader(reader.fileno())
        drained = self._drained
        if drained is not None and not drained.done() and not (going and reader.pending):
            drained.set_result(None)

    def _end(self, waiter: asyncio.Future[bytes], error: Exception) -> None:
        if not waiter.done():
            waiter.set_exception(error)
