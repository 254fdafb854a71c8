"""Reads that a task waits for: by AIO, or by preadv(2) in a thread, under asyncio, uvloop or trio.

What this file is
-----------------
As many tasks as reads may be under way, each of which reads one block after another; and one more
that is due every few milliseconds and says by how much it came late.  There are as many threads as
tasks: asyncio's own default, six on two cores, would be another depth.

uvloop and trio are imported by whoever asks for them: a measurement is a process, and short.
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Final, TypeAlias

from loadtest._disk_bulk import stop_counting
from loadtest._disk_meter import TICK, Meter

#: Reads one block at an offset.
Read: TypeAlias = Callable[[int], Awaitable[bytes | memoryview]]
#: Calls a function in a thread.
InThread: TypeAlias = Callable[..., Awaitable[int]]
#: "Answer with EAGAIN instead of waiting for the disk"; 0 where preadv(2) knows no such flag.
NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
NO_NOWAIT: Final = "this system's preadv has no RWF_NOWAIT (Linux 4.14, Python 3.7)"


def on_asyncio(meter: Meter, fd: int, how: str, direct: bool) -> None:
    """Read until the meter has enough.  Raises OSError, WrongBytes, in a group of exceptions."""
    asyncio.run(_asyncio(meter, fd, how, direct))


def on_uvloop(meter: Meter, fd: int, how: str, direct: bool) -> None:
    """As `on_asyncio`."""
    import uvloop

    uvloop.run(_asyncio(meter, fd, how, direct))


def on_trio(meter: Meter, fd: int, how: str, direct: bool) -> None:
    """As `on_asyncio`."""
    import trio

    trio.run(_trio, meter, fd, how, direct)


async def _asyncio(meter: Meter, fd: int, how: str, direct: bool) -> None:
    order, loop = _order(meter), asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        if how == "await":
            from pollers.aio.on_asyncio import AsyncioReader

            made = AsyncioReader(meter.work.depth, meter.work.block, count_switches=True)
            read = _by_aio(meter, await stack.enter_async_context(made), fd, direct, stack)
            reads = [read] * meter.work.depth
        else:
            loop.set_default_executor(ThreadPoolExecutor(meter.work.depth))
            reads = [
                _by_preadv(fd, meter.work.block, asyncio.to_thread, how == "nowait")
                for _ in range(meter.work.depth)
            ]
        async with asyncio.TaskGroup() as group:
            for each in reads:
                group.create_task(_work(meter, order, each))
            group.create_task(_timer(meter, asyncio.sleep))


async def _trio(meter: Meter, fd: int, how: str, direct: bool) -> None:
    import trio

    order = _order(meter)
    async with AsyncExitStack() as stack:
        if how == "await":
            from pollers.aio.on_trio import TrioReader

            made = TrioReader(meter.work.depth, meter.work.block, count_switches=True)
            read = _by_aio(meter, await stack.enter_async_context(made), fd, direct, stack)
            reads = [read] * meter.work.depth
        else:
            limiter = trio.CapacityLimiter(meter.work.depth)

            def in_thread(function: Any, *arguments: Any) -> Awaitable[int]:
                return trio.to_thread.run_sync(function, *arguments, limiter=limiter)

            reads = [
                _by_preadv(fd, meter.work.block, in_thread, how == "nowait")
                for _ in range(meter.work.depth)
            ]
        async with trio.open_nursery() as nursery:
            for each in reads:
                nursery.start_soon(_work, meter, order, each)
            nursery.start_soon(_timer, meter, trio.sleep)


async def _work(meter: Meter, order: Iterator[int], read: Read) -> None:
    """One task: read what is next until the meter has enough."""
    clock = time.perf_counter_ns
    for offset in order:
        started = clock()
        data = await read(offset)
        meter.read(offset, clock() - started, data)
        if not meter.running:
            return
    meter.end()


async def _timer(meter: Meter, sleep: Callable[[float], Awaitable[object]]) -> None:
    due = time.monotonic() + TICK
    while meter.running:
        await sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        meter.late(now - due)
        due = max(due + TICK, now)
        meter.advance(now)


def _order(meter: Meter) -> Iterator[int]:
    offsets = meter.work.offsets.tolist()
    return itertools.cycle(offsets) if meter.work.again else iter(offsets)


def _by_aio(meter: Meter, reader: Any, fd: int, direct: bool, stack: AsyncExitStack) -> Read:
    """Reads by an AsyncioReader or a TrioReader, which have the same methods."""
    from pollers.aio.cached import open_cached
    from pollers.aio.direct import open_direct

    file = open_direct(fd) if direct else open_cached(fd)
    stack.callback(file.close)
    meter.counters = lambda: reader.counters.as_dict()
    meter.warmed = lambda: stop_counting(reader.counters)
    block, read = meter.work.block, reader.read

    def by_aio(offset: int) -> Awaitable[bytes]:
        waited: Awaitable[bytes] = read(file, offset, block)
        return waited

    return by_aio


def _by_preadv(fd: int, block: int, in_thread: InThread, nowait: bool) -> Read:
    """Reads into one buffer of its own, which begins at a page as O_DIRECT needs it.

    With `nowait` a read is tried without a thread first; what the page cache lacks is left to one.
    """
    if nowait and not NOWAIT:
        raise OSError(NO_NOWAIT)
    buffer = memoryview(mmap.mmap(-1, block))
    preadv = os.preadv

    async def by_preadv(offset: int) -> memoryview:
        return buffer[: await in_thread(preadv, fd, [buffer], offset)]

    async def without_waiting(offset: int) -> memoryview:
        try:
            got = preadv(fd, [buffer], offset, NOWAIT)
        except BlockingIOError:
            got = 0
        if got < block:
            got += await in_thread(preadv, fd, [buffer[got:]], offset + got)
        return buffer[:got]

    return without_waiting if nowait else by_preadv
