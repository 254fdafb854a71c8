"""asyncio's own loop and uvloop, as every server of ours uses them.

Facts
-----
*   asyncio's accept loop runs `backlog` times a wake-up, also after EMFILE, and hands each failure
    to the loop's exception handler.  It is given a small backlog, and the socket's real one is set
    again after it.
*   A second after such a failure it listens again, once for each, also to a socket that was closed
    meanwhile, by the drain: a ValueError each, which means nothing.
*   A selector sees where each turn begins and ends, and SelectorEventLoop takes one of ours:
    that is how the longest turn is known.  libuv tells of its turns to nobody.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from servers.lifecycle import CannotServe, RateLimit, Tally
from servers.listen import listen

ACCEPTS_A_WAKE: Final = 128
#: In the message of asyncio's about a callback of its that failed.
LISTENING_AGAIN: Final = "BaseSelectorEventLoop._start_serving("


class StallSelector(selectors.DefaultSelector):
    """The stock selector, which also keeps the longest turn between two of its select() calls."""

    def __init__(self) -> None:
        super().__init__()
        #: Seconds.
        self.longest_stall = 0.0
        self._since = math.inf  # starting is no stall

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.longest_stall = max(self.longest_stall, monotonic() - self._since)
        ready = super().select(timeout)
        self._since = monotonic()
        return ready


class LoopErrors:
    """A loop's exception handler: accept(2) out of fds comes here, many times a wake-up."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._limit = RateLimit()

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, ValueError) and LISTENING_AGAIN in context["message"]:
            return
        if not isinstance(error, OSError) or "socket" not in context:
            loop.default_exception_handler(context)
            return
        self._tally.accept_errors += 1
        self._limit.log(f"{context['message']}: {error.strerror}")


def factory(
    name: str, selector: selectors.BaseSelector | None = None
) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop `name`, "asyncio" (on `selector`) or "uvloop".  Raises CannotServe."""
    if name != "uvloop":
        return lambda: asyncio.SelectorEventLoop(selector)
    try:
        import uvloop
    except ImportError as error:
        raise CannotServe(f"--loop uvloop: {error}; `pip install uvloop`") from None
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make


def facility(name: str) -> str:
    """What really waits: the facility of the stock selector, or libuv."""
    if name == "uvloop":
        return "libuv"
    return selectors.DefaultSelector.__name__.removesuffix("Selector").lower()


async def accept(
    protocol: Callable[[], asyncio.BaseProtocol], listener: socket.socket
) -> asyncio.Server:
    """Make a `protocol` for each connection from now on."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, sock=listener, backlog=ACCEPTS_A_WAKE)
    listen(listener)
    return server
