"""The loops that await disk reads, behind one face, so that the tests are the same for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
import uvloop

import pollers.aio.on_asyncio as on_asyncio
import pollers.aio.on_trio as on_trio

Thunk = Callable[[], Awaitable[Any]]


class AsyncioHost:
    """asyncio on its own loop."""

    Reader: Any = on_asyncio.AsyncioReader
    Cancelled: type[BaseException] = asyncio.CancelledError

    def run(self, main: Callable[[], Any]) -> Any:
        return asyncio.run(main())

    async def gather(self, thunks: Sequence[Thunk]) -> list[Any]:
        """Run all at once; what each returned, or the exception that it raised."""
        return await asyncio.gather(*(thunk() for thunk in thunks), return_exceptions=True)

    async def turn(self) -> None:
        await asyncio.sleep(0)

    async def cancelled(self, thunk: Thunk, turns: int) -> Any:
        """Run it, and cancel it after some turns.  Its result, or None."""
        task: asyncio.Task[Any] = asyncio.ensure_future(thunk())  # type: ignore[arg-type]
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return None


class UvloopHost(AsyncioHost):
    """asyncio on uvloop."""

    def run(self, main: Callable[[], Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())


class TrioHost:
    """trio."""

    Reader: Any = on_trio.TrioReader
    Cancelled: type[BaseException] = trio.Cancelled

    def run(self, main: Callable[[], Any]) -> Any:
        return trio.run(main)

    async def gather(self, thunks: Sequence[Thunk]) -> list[Any]:
        results: list[Any] = [None] * len(thunks)

        async def one(number: int) -> None:
            try:
                results[number] = await thunks[number]()
            except Exception as error:
                results[number] = error

        async with trio.open_nursery() as nursery:
            for number in range(len(thunks)):
                nursery.start_soon(one, number)
        return results

    async def turn(self) -> None:
        await trio.lowlevel.checkpoint()

    async def cancelled(self, thunk: Thunk, turns: int) -> Any:
        result = None
        scope = trio.CancelScope()

        async def one() -> None:
            nonlocal result
            with scope:
                result = await thunk()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            scope.cancel()
        return result


# uvloop opens a pipe of the process at its first loop, and keeps it.
uvloop.new_event_loop().close()

HOSTS = {"asyncio": AsyncioHost, "uvloop": UvloopHost, "trio": TrioHost}
