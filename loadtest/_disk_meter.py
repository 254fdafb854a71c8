"""What one reader measures of itself: phases, latencies, CPU time, and how late its loop was.

How it is used
--------------
*   Whoever reads (_disk_bulk.py, _disk_await.py) goes on while `running`, tells of each read or of
    a batch of them, and calls `advance` every few milliseconds.  That moves the meter from warming
    up to measuring, once the reads per window have stopped rising or falling, and to its end.
*   Reads that were begun while warming up and end in the window count: as many are under way at
    its end, and do not.
*   A loop's lag is by how much a timer, due every `TICK`, came late.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import NDArray

from loadtest import _attest
from loadtest._disk_check import Check, Failed, Integers
from loadtest._histogram import Histogram
from loadtest._schedule import Steadiness

#: Seconds between a timer's calls; how long the windows of the warm-up are.
TICK: Final = 0.002
WINDOW: Final = 0.01
#: The change over the warm-up's last windows that counts as none: they are short, disks uneven.
TOLERANCE: Final = 0.2
#: Reads that are asked for before the order begins again, so that this is rare.
ENOUGH: Final = 1 << 16
#: The part of a buffered file that warming up may read, as it is cold only once.
WARMED: Final = 0.1


@dataclass(frozen=True)
class Work:
    """What is to be read, and for how long (seconds)."""

    offsets: Integers
    block: int
    depth: int
    seed: int
    warmup: float
    measure: float
    #: Whether to begin again after the last of `offsets`.
    again: bool


def places(size: int, block: int, pattern: str, seed: int, again: bool) -> Integers:
    """The offsets of all blocks of a file, in the order in which they are read."""
    numbers = np.arange(size // block, dtype=np.int64)
    if pattern == "random":
        np.random.default_rng(seed).shuffle(numbers)
    return np.tile(numbers * block, -(-ENOUGH // len(numbers)) if again else 1)


class Meter:
    """Takes what was read; says when to stop.  Latencies are in nanoseconds."""

    def __init__(self, work: Work, began: Callable[[], None] = lambda: None) -> None:
        """`began` is called when the window begins."""
        self.work = work
        self.check = Check(work.offsets, work.block, work.seed)
        self.running = True
        self.reads = 0
        #: What a reader's own counters say, asked when warming up ends and at the end.
        self.counters: Callable[[], dict[str, Any]] = dict
        #: Called when warming up has ended.
        self.warmed: Callable[[], None] = lambda: None
        self.warm: dict[str, Any] = {}
        #: What the kernel says this process holds, at the end.
        self.holds: dict[str, int] = {}
        self._began = began
        self._measuring = False
        self._steady = Steadiness(tolerance=TOLERANCE)
        self._start = self._window = time.monotonic()
        self._counted = 0
        self._latencies: list[int] = []
        self._batches: list[Integers] = []
        self._late: list[int] = []
        self._before: dict[str, Any] = {}
        self._after: dict[str, Any] = {}

    # -- while reading

    def read(self, offset: int, took: int, data: bytes | memoryview) -> None:
        """One read ended, which took so many nanoseconds.  Raises WrongBytes."""
        if self.running:
            self.check.read(offset, data)
            self._latencies.append(took)
            self.reads += 1

    def batch(
        self, indices: Integers, slots: Integers, results: Integers, seconds: NDArray[np.float64]
    ) -> None:
        """A batch of a BulkReader ended.  Raises WrongBytes."""
        self.check.batch(indices, slots, results)
        self._batches.append((seconds * 1e9).astype(np.int64))
        self.reads += len(indices)

    def late(self, seconds: float) -> None:
        """A timer came so many seconds after it was due."""
        self._late.append(int(max(seconds, 0.0) * 1e9))

    def advance(self, now: float) -> None:
        """Go on to the next phase if it is time: `now` is time.monotonic()."""
        work = self.work
        if not self._measuring:
            if now - self._window < WINDOW:
                return
            steady = self._steady.add((self.reads - self._counted) / (now - self._window))
            self._window, self._counted = now, self.reads
            spent = not work.again and self.reads > WARMED * len(work.offsets)
            if steady or spent or now - self._start >= work.warmup:
                self._measure(now, steady)
        elif now - self._start >= work.measure:
            self.end()

    def end(self) -> None:
        """Measure no more: the window is over, or the file."""
        if self.running:
            self.running = False
            self._after = self._now()
            self.holds = {
                "aio_rings": _attest.look(os.getpid())["aio_rings"],
                "threads": psutil.Process().num_threads(),
            }

    def _measure(self, now: float, steady: bool) -> None:
        self.warm = {"seconds": now - self._start, "steady": steady}
        self.warm["aio"] = self.counters()
        self.warmed()
        self._began()
        self._measuring = True
        self.reads = 0
        self._latencies.clear()
        self._batches.clear()
        self._late.clear()
        self._before = self._now()
        self._start = self._before["monotonic"]

    def _now(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "monotonic": time.monotonic(),
            "reads": self.reads,
            "user": usage.ru_utime,
            "system": usage.ru_stime,
            "switches": usage.ru_nvcsw,
            "aio": self.counters(),
        }

    # -- afterwards

    def result(self) -> dict[str, Any]:
        """The figures.  Raises WrongBytes where a sampled read was wrong, Failed for no read."""
        before, after = self._before, self._after
        reads = after.get("reads", 0)
        if not reads:
            raise Failed("no read ended within the window: give --measure more seconds")
        self.check.finish()
        span = after["monotonic"] - before["monotonic"]
        spent = {name: after[name] - before[name] for name in ("user", "system", "switches")}
        share = (spent["user"] + spent["system"]) / span
        return {
            "seconds": span,
            "reads": reads,
            "throughput": reads / span,
            "bytes_per_second": reads * self.work.block / span,
            "latency": self._histogram().summary(),
            "lag": _summary(self._late),
            "reader": {
                "user_cpu_us_per_read": spent["user"] * 1e6 / reads,
                "system_cpu_us_per_read": spent["system"] * 1e6 / reads,
                "cpu_share": share,
                "switches_per_read": spent["switches"] / reads,
                **_aio(self.warm, before["aio"], after["aio"], reads),
            },
            "holds": self.holds,
            "checked": {"numbers": reads, "digests": len(self.check.samples)},
            "warm_up": {"seconds": self.warm["seconds"], "steady": self.warm["steady"]},
        }

    def _histogram(self) -> Histogram:
        made = Histogram()
        made.record(self._latencies)
        if self._batches:
            made.record(np.concatenate(self._batches).tolist())
        return made


def _aio(
    warm: dict[str, Any], before: dict[str, Any], after: dict[str, Any], reads: int
) -> dict[str, Any]:
    """What a reader counted inside io_submit: of the window, and sleeping there of the warm-up."""
    if "submits" not in after:
        return {}
    switches, warm_reads = warm["aio"]["voluntary_switches"], warm["aio"]["reads"]
    return {
        "submits_per_read": (after["submits"] - before["submits"]) / reads,
        "submit_us_per_read": (after["submit_seconds"] - before["submit_seconds"]) * 1e6 / reads,
        "longest_submit_us": after["longest_submit"] * 1e6,
        "submit_switches_per_read": None
        if switches is None or not warm_reads
        else switches / warm_reads,
    }


def _summary(values: list[int]) -> dict[str, Any] | None:
    if not values:
        return None
    made = Histogram()
    made.record(values)
    return made.summary()
