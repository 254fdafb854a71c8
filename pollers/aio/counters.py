"""What disk reads cost, and whether io_submit(2) is as asynchronous as it says.

Facts
-----
*   io_submit blocks, and says nothing, where a read goes through the page cache, metadata is not
    in memory, the device's queue is full, or pages are dirty and are written first.
*   A thread that blocks is switched away from, *voluntarily*: ru_nvcsw of RUSAGE_THREAD counts
    that, and nothing else inside of a system call.  0.1 a read or more is not asynchronous.
*   getrusage(2) costs about 1 us from Python, so that it is asked for, not always on.
"""

from __future__ import annotations

import errno
import resource
import sys
import time
from dataclasses import asdict, dataclass

from pollers.aio.context import Context


@dataclass(slots=True)
class DiskCounters:
    """What a reader did since it was made."""

    #: Reads that were told of, cancelled ones not among them, and the bytes that were asked for.
    reads: int = 0
    bytes: int = 0
    errors: int = 0
    #: Calls of io_submit(2), the time inside all of them, and inside the longest one (seconds).
    submits: int = 0
    submit_seconds: float = 0.0
    longest_submit: float = 0.0
    #: How often this thread slept in them; None unless it was asked for.
    voluntary_switches: int | None = None
    #: Completions that were taken from the ring without a call, and calls of io_getevents(2).
    taken: int = 0
    getevents: int = 0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def submit(context: Context, counters: DiskCounters, addresses: int, count: int) -> int:
    """`context.try_submit(addresses, count)`, counted."""
    counters.submits += 1
    switches = 0 if counters.voluntary_switches is None else voluntary_switches()
    start = time.perf_counter()
    try:
        return context.try_submit(addresses, count)
    finally:
        took = time.perf_counter() - start
        counters.submit_seconds += took
        if took > counters.longest_submit:
            counters.longest_submit = took
        if counters.voluntary_switches is not None:
            counters.voluntary_switches += voluntary_switches() - switches


def voluntary_switches() -> int:
    """How often this thread has slept since it began."""
    if sys.platform == "linux":
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    else:  # noqa: RET505 - mypy would call what follows unreachable
        raise OSError(errno.ENOSYS, "RUSAGE_THREAD is asked for on Linux only")
