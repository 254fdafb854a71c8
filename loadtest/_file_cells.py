"""The rows and loads of the file workload.

What this file is
-----------------
Usually measured are every backend on one poller, every loop with what it can do best, and nginx
beside them; the other pollers and each loop's plain copies are rows too, for who names them.

A load is named by its size, whether the files are in the page cache, and how many connections ask:
`16k-hot-many`, `4m-cold-few`.  A size is any that --file-mix takes, or `mix` for its default.
`few` are 16; `many` are --connections.  A cold load that would need too large a root has fewer of
its connections active, which its title says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from loadtest._cells import BASELINE, CONTROL, Load, Row, Suite, Unknown
from loadtest._options import MIX
from loadtest._site import CACHES, HOT_FILES, SPARE, parse_size
from loadtest._workload import FILE

FEW: Final = 16
#: The largest cold root of `compare` (bytes); a round must not write more than it measures.
COLD_BYTES: Final = 256 << 20
CROWDS: Final = ("few", "many")


def _row(key: str, label: str, loop: str, poller: str | None, backend: str, usual: bool) -> Row:
    return Row(key, label, loop, poller, backend, server="file", usual=usual)


ROWS: Final = (
    _row(BASELINE, "epoll, sendfile", "reactor", "epoll", "sendfile", True),
    _row(CONTROL, "epoll, sendfile (A/A)", "reactor", "epoll", "sendfile", True),
    _row("epoll-copy", "epoll, copy", "reactor", "epoll", "copy", True),
    _row("epoll-splice", "epoll, splice", "reactor", "epoll", "splice", True),
    _row("epoll-aio", "epoll, aio (O_DIRECT)", "reactor", "epoll", "aio", True),
    _row("aio", "aio, sendfile", "reactor", "aio", "sendfile", False),
    _row("poll", "poll, sendfile", "reactor", "poll", "sendfile", False),
    _row("select", "select, sendfile", "reactor", "select", "sendfile", False),
    _row("kqueue", "kqueue, sendfile", "reactor", "kqueue", "sendfile", False),
    _row("asyncio-copy", "asyncio, copy", "asyncio", None, "copy", False),
    _row("asyncio-sendfile", "asyncio, sendfile", "asyncio", None, "sendfile", True),
    _row("uvloop", "uvloop, copy", "uvloop", None, "copy", True),
    _row("trio-copy", "trio, copy", "trio", None, "copy", False),
    _row("trio-sendfile", "trio, sendfile", "trio", None, "sendfile", True),
    Row("nginx", "nginx (peer)", "nginx", None, "sendfile", server="nginx", peer=True),
)


@dataclass(frozen=True)
class FileLoad(Load):
    """Files of one size or of a mix, in the page cache or not."""

    mix: str
    cache: str

    user = "FileSwarm"
    workload = FILE.name

    @property
    def files(self) -> int:
        """Files that a server may have open for it."""
        return self.active + SPARE if self.cache == "cold" else HOT_FILES * len(self.sizes)

    @property
    def sizes(self) -> list[str]:
        return [part.partition(":")[0] for part in self.mix.split(",")]

    @property
    def title(self) -> str:
        """For people: "1,000 connections, all active, files of 16k, hot"."""
        return f"{self.who}, files of {', '.join(self.sizes)}, {self.cache}"

    def words(self) -> list[str]:
        return [
            *("--file-mix", self.mix, "--cache", self.cache),
            *("--swarm-connections", str(self.connections), "--swarm-active", str(self.active)),
        ]


def loads(names: Iterable[str], connections: int, size: int) -> list[Load]:
    """The loads of these names.  Raises Unknown.  `size` is not used: each name has its own."""
    return [_load(name, connections) for name in dict.fromkeys(names)]


def _load(name: str, connections: int) -> Load:
    label, cache, crowd = [*name.split("-"), "", ""][:3]
    try:
        if name.count("-") != 2 or cache not in CACHES or crowd not in CROWDS:
            raise ValueError("it has no such parts")
        size = 0 if label == "mix" else parse_size(label)
    except ValueError as error:
        raise Unknown(
            f"no load is called {name!r} ({error}); a name is a size or mix, hot or cold, few or "
            "many: 16k-hot-many, 4m-cold-few"
        ) from None
    count = min(FEW, connections) if crowd == "few" else connections
    active = count
    if cache == "cold" and size:
        active = max(1, min(count, COLD_BYTES // size - SPARE))
    elif cache == "cold":
        active = min(count, FEW)
    return FileLoad(name, count, active, size, MIX if label == "mix" else label, cache)


SUITE: Final = Suite(
    workload=FILE,
    rows=ROWS,
    loads=loads,
    load_names="SIZE-hot-few, -hot-many, -cold-few, -cold-many (SIZE is 1k, 256k, 4m, mix ...)",
    quick={
        "rounds": 3,
        "connections": 1000,
        "loads": "16k-hot-few",
        "warmup": 0.3,
        "measure": 0.5,
        "budget": 88.0,
    },
    default={
        "rounds": 5,
        "connections": 1000,
        "loads": "1k-hot-many,256k-hot-many,256k-cold-few",
        "warmup": 0.6,
        "measure": 0.6,
        "budget": 476.0,
    },
)
