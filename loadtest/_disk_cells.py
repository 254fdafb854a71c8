"""The rows and loads of the disk workload: who reads, and what is read how.

What this file is
-----------------
A row is a way to read a file without stopping an event loop, or a peer that has no loop to stop.
Its `how` is what makes the system calls, its `loop` is who waits for them.

A load is named by its pattern, whether it goes past the page cache, and how many reads are under
way at a time: `random-direct-64`, `sequential-buffered-8`.  Random reads are of 4 KiB, each block
of the file at most once; sequential ones are of 128 KiB.  `direct` is O_DIRECT; `buffered` is
through the page cache, from which the file is evicted before each measurement.

A reader that is *awake* looks at the ring until something has completed, and sleeps in
io_getevents(2) only after `SPIN`: it keeps its core, and the caches, to itself.  With more than
one read under way there is hardly ever nothing to take, and no reader sleeps.

In a buffered load the rows of AIO differ by what they are for: those that are awaited ask the page
cache first (RWF_NOWAIT) and read the rest by O_DIRECT, those in bulk read all of it by O_DIRECT.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from loadtest import _rounds
from loadtest._cells import Unknown
from loadtest._workload import DISK

BASELINE: Final = DISK.baseline
CONTROL: Final = DISK.control

#: Hows that read by AIO.
BY_AIO: Final = ("bulk", "spin", "await")
#: How long a reader that is awake looks (seconds): longer than a read takes, unless it is late.
SPIN: Final = 0.001
#: Pattern -> bytes of one read.
BLOCKS: Final = {"random": 4096, "sequential": 131072}
PATHS: Final = ("direct", "buffered")
DEPTHS: Final = (1, 8, 64, 256)
#: The most reads that may be under way: each costs a thread in some rows.
DEEPEST: Final = 1024

QUICK: Final[dict[str, Any]] = {
    "rounds": 3,
    "loads": "random-direct-1,random-direct-64",
    "warmup": 0.2,
    "measure": 0.4,
    "budget": 88.0,
    "size": 512 << 20,
}
DEFAULT: Final[dict[str, Any]] = {
    "rounds": 3,
    "loads": "random-direct-1,random-direct-8,random-direct-64,random-direct-256,"
    "sequential-direct-1,sequential-direct-64,"
    "random-buffered-1,random-buffered-64,sequential-buffered-8",
    "warmup": 0.2,
    "measure": 0.6,
    "budget": 476.0,
    "size": 2 << 30,
}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    label: str
    #: bulk, spin (in bulk too), await; threads, nowait (both by preadv); or fio's engine.
    how: str
    #: none, reactor, asyncio, uvloop, trio; fio.
    loop: str
    usual: bool = True

    @property
    def peer(self) -> bool:
        """Whether it is somebody else's program."""
        return self.loop == "fio"

    def fits(self, load: Load) -> bool:
        """Whether it is another thing under this load than the rows beside it.

        RWF_NOWAIT asks the page cache, and a direct read does not look there.  Being awake is for
        who would sleep.
        """
        if self.how == "spin":
            return load.depth == 1
        return self.how != "nowait" or not load.direct


@dataclass(frozen=True)
class Load:
    """Reads of one size in one order, so many at a time."""

    pattern: str
    direct: bool
    depth: int

    workload = DISK.name

    @property
    def block(self) -> int:
        """Bytes of one read."""
        return BLOCKS[self.pattern]

    @property
    def key(self) -> str:
        return f"{self.pattern}-{PATHS[not self.direct]}-{self.depth}"

    @property
    def title(self) -> str:
        """For people: "random reads of 4 KiB, O_DIRECT, 64 at a time"."""
        path = "O_DIRECT" if self.direct else "through the page cache, cold"
        many = f"{self.depth} at a time" if self.depth > 1 else "one at a time"
        return f"{self.pattern} reads of {self.block >> 10} KiB, {path}, {many}"


class Cell(_rounds.Cell[Row, Load]):
    """One row under one load."""

    def facts(self) -> dict[str, Any]:
        return {
            "how": self.row.how,
            "loop": self.row.loop,
            "pattern": self.load.pattern,
            "direct": self.load.direct,
            "depth": self.load.depth,
            "block": self.load.block,
        }


ROWS: Final = (
    Row(BASELINE, "AIO, in bulk", "bulk", "none"),
    Row(CONTROL, "AIO, in bulk (A/A)", "bulk", "none"),
    Row("aio-spin", "AIO, in bulk, awake", "spin", "none"),
    Row("aio-reactor", "AIO, in bulk, reactor", "bulk", "reactor"),
    Row("aio-asyncio", "AIO, asyncio", "await", "asyncio"),
    Row("aio-uvloop", "AIO, uvloop", "await", "uvloop", usual=False),
    Row("aio-trio", "AIO, trio", "await", "trio"),
    Row("threads-asyncio", "preadv, asyncio.to_thread", "threads", "asyncio"),
    Row("threads-trio", "preadv, trio.to_thread", "threads", "trio"),
    Row("nowait-asyncio", "RWF_NOWAIT, asyncio.to_thread", "nowait", "asyncio"),
    Row("nowait-trio", "RWF_NOWAIT, trio.to_thread", "nowait", "trio", usual=False),
    Row("fio-libaio", "fio, libaio (peer)", "libaio", "fio"),
    Row("fio-libaio-batch", "fio, libaio, batches (peer)", "libaio-batch", "fio"),
    Row("fio-psync", "fio, psync (peer)", "psync", "fio"),
)


def left_out(rows: Iterable[Row], loads: Sequence[Load]) -> list[Row]:
    """Those that are another thing than the rows beside them under none of the loads."""
    return [row for row in rows if not any(row.fits(load) for load in loads)]


def loads(names: Iterable[str]) -> list[Load]:
    """The loads of these names.  Raises Unknown."""
    return [_load(name) for name in dict.fromkeys(names)]


def _load(name: str) -> Load:
    pattern, path, depth = [*name.split("-"), "", ""][:3]
    number = int(depth) if depth.isascii() and depth.isdecimal() else 0
    right = pattern in BLOCKS and path in PATHS and 1 <= number <= DEEPEST
    if not right or name.count("-") != 2:
        raise Unknown(
            f"no load is called {name!r}; a name is random or sequential, direct or buffered, and "
            f"how many reads at a time, 1 to {DEEPEST}: random-direct-64"
        )
    return Load(pattern, path == "direct", number)
