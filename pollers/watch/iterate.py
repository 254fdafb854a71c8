"""Changes as an async iterator, under asyncio and under trio.

Facts
-----
*   Both loops can wait for an fd to become readable, which is all that is needed: `fileno()` also
    tells when what was held back is due.
*   asyncio has one reader an fd: `add_reader` replaces another one's.  So a watcher is iterated by
    one task.  And a reader is called in every turn while its fd is readable, so that there is one
    only while somebody waits: not while changes are being worked on.
*   Neither loop is imported by importing this module.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from pollers.watch.base import Change, Watcher

if TYPE_CHECKING:
    from asyncio import Future


async def changes_asyncio(watcher: Watcher) -> AsyncGenerator[list[Change], None]:
    """What `watcher` reads, as it comes; never an empty list.

    It ends with the task's cancellation, or by `aclose()`.  The watcher is not closed with it, and
    has to stay open as long.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    fd = watcher.fileno()
    while True:
        readable = loop.create_future()
        loop.add_reader(fd, _resolve, readable)
        try:
            await readable
        finally:
            loop.remove_reader(fd)
        if changes := watcher.read():
            yield changes


async def changes_trio(watcher: Watcher) -> AsyncGenerator[list[Change], None]:
    """What `watcher` reads, as it comes; never an empty list.

    It ends with a cancelled scope, or by `aclose()`.  The watcher is not closed with it, and has
    to stay open as long.
    """
    import trio

    fd = watcher.fileno()
    while True:
        await trio.lowlevel.wait_readable(fd)
        if changes := watcher.read():
            yield changes


def _resolve(readable: Future[None]) -> None:
    if not readable.done():  # cancelled, in the same turn
        readable.set_result(None)
