"""Our event loop: readiness from any Poller, a table of handlers, timers, signals.

How it stays correct
--------------------
*   A handler is called with the fd's ready bits.  It may be called for nothing (contract, 8), so
    it reads or writes without blocking and takes EAGAIN for an answer.
*   An fd removed by one handler can still stand later in the same batch.  Its table entry
    becomes `_ignore` at once, and its socket is closed only when the batch is done: within a
    batch no number is used twice, so no event can reach the wrong connection.
*   A signal arrives as its number in a pipe that the poller watches (`signal.set_wakeup_fd`), and
    what it asks for is done between batches.  A handler written in Python is not enough: it runs
    between bytecodes, so that a signal which comes when poll() has been entered and its system
    call has not would wait for the next event, on an idle server for ever.

How it stays fast
-----------------
*   One turn is one poll(), then one dict look-up and one call an event.  Timers cost a turn one
    comparison, and the clock is read only when there are any.
*   Handlers change the table themselves to change what they do next (see servers/echo), instead
    of testing a state at each event.
*   An edge-triggered fd is told of once: its handler goes on until EAGAIN, or asks with `soon()`
    to be called again after the others had their turn.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import math
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol, TypeAlias

from pollers.base import MAX_EVENTS, POLLIN, Events, Poller

Handler: TypeAlias = Callable[[int], None]


class Closable(Protocol):
    def close(self) -> None: ...


class Timer:
    """A call that waits for its time; `cancel()` forgets it."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


def _ignore(bits: int) -> None:
    """The handler of an fd that was removed while its batch is still being handled."""


def _leave_to_pipe(number: int, frame: FrameType | None) -> None:
    """The handler of every signal: by now its number is in the pipe."""


class Reactor:
    """Runs handlers on one thread until `stop()`."""

    def __init__(self, poller: Poller, max_events: int = MAX_EVENTS) -> None:
        self.poller = poller
        self._poll: Callable[[float | None, int], Events] = poller.poll
        self.max_events = max_events
        #: fd -> what to call with its ready bits.
        self.handlers: dict[int, Handler] = {}
        self._removed: list[int] = []
        self._graveyard: list[Closable] = []
        self._soon: list[Callable[[], None]] = []
        self._after: Callable[[], None] | None = None
        self._timers: list[tuple[float, int, Timer]] = []
        self._ties = itertools.count()
        self._signals: list[int] = []
        self._signal_pipe: tuple[int, int] | None = None
        self._signal_calls: dict[int, Callable[[], None]] = {}
        self._running = False
        #: What tells whether the first fd is ready, and what is done then.
        self._first: tuple[Callable[[int], object], Callable[[], None]] | None = None
        #: The longest turn so far, seconds from a poll()'s return to the next (`watch_stalls`).
        self.longest_stall = 0.0

    def watch_stalls(self) -> None:
        """Keep `longest_stall` from now on, at the price of two looks at the clock a turn."""
        poll, since = self.poller.poll, math.inf  # starting is no stall

        def timed(timeout: float | None, max_events: int) -> Events:
            nonlocal since
            self.longest_stall = max(self.longest_stall, time.monotonic() - since)
            events = poll(timeout, max_events)
            since = time.monotonic()
            return events

        self._poll = timed

    def poll_by(self, poll: Callable[[float | None, int], Events]) -> None:
        """Call `poll` from now on in place of the poller's own.

        It may handle events itself, whole batches of them, and returns those that are left.
        """
        self._poll = poll

    def add(self, fd: int, interest: int, handler: Handler, edge: bool = False) -> None:
        """Call `handler` when `fd` is ready for `interest`.  Raises as Poller.register does."""
        self.poller.register(fd, interest, edge=edge)
        self.handlers[fd] = handler

    def add_first(self, fd: int, handler: Handler) -> None:
        """As `add` for POLLIN; where it is ready when a batch begins, it is handled first.

        A poller returns what is ready in an order of its own, and aio may tell of one thing a
        batch later than of another that came after it.  So it is asked once more, by a poll(2) of
        about a microsecond a batch.  One such fd at a time.
        """
        self.add(fd, POLLIN, handler)
        look = select.poll()
        look.register(fd, POLLIN)
        self._first = look.poll, functools.partial(handler, POLLIN)

    def switch(self, fd: int, interest: int, handler: Handler, edge: bool = False) -> None:
        """Wait for something else on `fd`, and handle it otherwise."""
        self.poller.modify(fd, interest, edge=edge)
        self.handlers[fd] = handler

    def remove(self, fd: int) -> None:
        """Forget `fd`, which stays open.  No handler of it is called any more."""
        self.poller.unregister(fd)
        self.handlers[fd] = _ignore
        self._removed.append(fd)

    def close(self, fd: int, owner: Closable) -> None:
        """Forget `fd`, and close its owner when the batch is done."""
        self.remove(fd)
        self._graveyard.append(owner)

    def soon(self, call: Callable[[], None]) -> None:
        """Call `call` once, after the batch that is being handled."""
        self._soon.append(call)

    def after_batch(self, call: Callable[[], None]) -> None:
        """Call `call` after every batch and what it wanted done `soon`: for what handlers collect.

        One such call at a time, asked for before `run()`.
        """
        self._after = call

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        """Call `call` once, `delay` seconds from now."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._ties), timer))
        return timer

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call `call` between two batches after the signal arrived, until `run()` returns.

        Main thread only, and one reactor of a process at a time.
        """
        if self._signal_pipe is None:
            read_fd, write_fd = self._signal_pipe = os.pipe()  # close-on-exec since PEP 446
            os.set_blocking(read_fd, False)
            os.set_blocking(write_fd, False)
            self.add(read_fd, POLLIN, self._read_signals)
            # A full pipe holds thousands of signals that are still to be handled: one may go.
            signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        self._signal_calls[number] = call
        signal.signal(number, _leave_to_pipe)

    def stop(self) -> None:
        """Make `run()` return after the batch that is being handled."""
        self._running = False
        self.poller.wake()

    def run(self) -> None:
        """Handle events until `stop()`.  The signals of `on_signal()` are blocked from then on:
        one more of them must not kill what is being closed.
        """
        try:
            self._run()
        finally:
            self._block_signals()

    def _run(self) -> None:
        poll, handlers, max_events = self._poll, self.handlers, self.max_events
        first, after = self._first, self._after
        self._running = True
        while self._running:
            wait = 0 if self._soon else self._wait() if self._timers else None
            events = poll(wait, max_events)
            if first is not None and first[0](0):
                first[1]()  # called once more below, it finds nothing
            for fd, bits in events:
                handlers[fd](bits)
            if self._soon:
                self._run_soon()
            if after is not None:
                after()
            if self._removed:
                self._bury()
            if self._timers:
                self._run_timers()
            if self._signals:
                self._run_signals()

    def _wait(self) -> float:
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _bury(self) -> None:
        for fd in self._removed:
            # A removed fd that stayed open may have been added again by a later handler.
            if self.handlers.get(fd) is _ignore:
                del self.handlers[fd]
        self._removed.clear()
        for owner in self._graveyard:
            owner.close()
        self._graveyard.clear()

    def _run_soon(self) -> None:
        calls, self._soon = self._soon, []  # what they ask for in turn waits for the next batch
        for call in calls:
            call()

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.call is not None:
                timer.call()
        if self._removed:
            self._bury()

    def _read_signals(self, bits: int) -> None:
        assert self._signal_pipe is not None
        with contextlib.suppress(BlockingIOError):
            # Also the numbers of signals that others handle: Python writes every one.
            numbers = os.read(self._signal_pipe[0], 4096)
            self._signals += [number for number in numbers if number in self._signal_calls]

    def _block_signals(self) -> None:
        # SIG_IGN would not do: Python complains of a signal that it had noted before.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signal_calls)
        if self._signal_pipe is not None:
            signal.set_wakeup_fd(-1)
            read_fd, write_fd = self._signal_pipe
            self._signal_pipe = None
            self.remove(read_fd)
            os.close(read_fd)
            os.close(write_fd)

    def _run_signals(self) -> None:
        while self._signals:
            self._signal_calls[self._signals.pop(0)]()
        if self._removed:
            self._bury()
