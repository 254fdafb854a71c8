"""Signal handlers that raise: by a timer, and at every point where they can, one after another.

Facts
-----
*   CPython runs signal handlers at the beginning of a function, where a loop goes round, and after
    each call, before the next instruction (ceval.c, CHECK_EVAL_BREAKER).
*   A trace function that raises has the same effect there, and is not called again.
"""

from __future__ import annotations

import ctypes
import dis
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import pytest

import pollers
from pollers.aio import context
from pollers.aio.abi import IO_EVENT, IOCB
from pollers.aio.bulk import BulkReader
from pollers.aio.context import Context
from pollers.aio.ring import Columns

_OURS = os.path.dirname(pollers.__file__)
#: Instructions after which a signal handler may run.
_POINTS = {number for name, number in dis.opmap.items() if name.startswith(("CALL", "RESUME"))} | {
    dis.opmap["JUMP_BACKWARD"]
}


class Interrupted(TimeoutError):
    """What the signal handler raised: an OSError, and none of the kernel's."""


@contextmanager
def interrupted_at(point: int, within: str = "") -> Iterator[list[int]]:
    """Raise at the point of that number, if the code of pollers comes so far.

    `within`: only those in the function of that name, and in what it calls, are counted.
    Yields a list with one item: how many points are still to come, less than 0 once it raised.
    """
    left = [point]

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(_OURS) or not _inside(frame, within):
            return None
        frame.f_trace_opcodes = True
        code = frame.f_code.co_code
        before = code[frame.f_lasti]  # RESUME, for which there is no event of its own

        def local(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
            nonlocal before
            if event == "opcode":
                if before in _POINTS:
                    left[0] -= 1
                    if left[0] < 0:
                        raise Interrupted
                before = code[frame.f_lasti]
            return local

        return local

    others = sys.gettrace()
    sys.settrace(trace)
    try:
        yield left
    finally:
        sys.settrace(others)


def _inside(frame: FrameType | None, function: str) -> bool:
    while function and frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


def points(action: Callable[[int], bool], most: int = 1000) -> int:
    """Do `action` with 0, 1, 2, ... until it says that it was not interrupted; how often that was.

    Where it ends depends on what the disk has answered: it ends twice in a row.
    """
    quiet = point = 0
    while quiet < 2:
        quiet = 0 if action(point) else quiet + 1
        point += 1
        assert point < most
    return point - 2


@contextmanager
def interrupted_after(seconds: float, only_in: str = "") -> Iterator[None]:
    """Have a signal's handler raise, wherever that is, or when it is first in one file."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if only_in and (frame is None or frame.f_code.co_filename != only_in):
            signal.setitimer(signal.ITIMER_REAL, 10e-6)
        else:
            raise Interrupted

    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


class Kernel:
    """Which control blocks the kernel has, by their `data`, whatever Python knows of it.

    For contexts whose ring is not mapped: completions come by io_getevents(2) only.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has: set[int] = set()
        self._calls = context._submit, context._getevents, context._destroy
        monkeypatch.setattr(context, "_submit", self._submit)
        monkeypatch.setattr(context, "_getevents", self._getevents)
        monkeypatch.setattr(context, "_destroy", self._destroy)

    def _submit(self, number: int, handle: int, count: int, addresses: int) -> int:
        pointers = _array(addresses, count, np.dtype(np.uint64)).tolist()
        asked = [int(_array(pointer, 1, IOCB)["data"][0]) for pointer in pointers]
        assert not self.has & set(asked), "the kernel still writes to that row"
        started: int = self._calls[0](number, handle, count, addresses)
        self.has.update(asked[: max(0, started)])
        return started

    def _getevents(
        self, number: int, handle: int, least: int, most: int, events: int, limit: int | None
    ) -> int:
        count: int = self._calls[1](number, handle, least, most, events, limit)
        self.has -= set(_array(events, max(0, count), IO_EVENT)["data"].tolist())
        return count

    def _destroy(self, number: int, handle: object) -> int:
        result: int = self._calls[2](number, handle)
        self.has.clear()
        return result


def _array(address: int, count: int, kind: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """A copy of `count` items of memory."""
    return np.frombuffer(ctypes.string_at(address, count * kind.itemsize), kind)


# -- ways of a kernel


def unmapped(reader: BulkReader) -> None:
    reader._context.close()
    reader._context = reader._flight.context = Context(reader.depth, mapped=False)


def refuse_some(reader: BulkReader) -> None:
    """Have io_submit take half of what it is given, or one bad, or nothing, now and then."""
    context, calls = reader._context, 0

    def submit(addresses: int, count: int) -> int:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            return Context.try_submit(context, addresses, (count + 1) // 2)
        if calls % 4 == 0:
            return -errno.EBADF if calls % 8 else -errno.EAGAIN
        return Context.try_submit(context, addresses, count)

    context.try_submit = submit  # type: ignore[method-assign]


def disorder(reader: BulkReader) -> None:
    """Have the first offset's completion held back, as long as nobody waits for the last ones."""
    context, index = reader._context, reader._flight.prepared.index
    held: list[Columns] = []

    def completions(least: int, most: int, timeout: float | None) -> Columns:
        count = Context.gather(context, least, most, timeout)
        rows, results = Context.gathered(context, count)
        first = index[rows] == 0
        if first.any():
            held.append((rows[first], results[first]))
        return rows[~first], results[~first]

    def gather(least: int, most: int, timeout: float | None) -> int:
        return 1 if held else Context.gather(context, least, most, timeout)

    def gathered(count: int) -> Columns:
        return held.pop() if held else Context.gathered(context, count)

    def start_anew() -> None:
        Context.start_anew(context)
        held.clear()

    for function in (completions, gather, gathered, start_anew):
        setattr(context, function.__name__, function)
