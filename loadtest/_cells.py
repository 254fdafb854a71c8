"""The matrix as data: which rows, under which loads, and what cannot run here.

What this file is
-----------------
A *row* is a server's choice of loop, poller and backend, with the environment variables that
change it.  A *load* is a number of connections, how many of them are active, and a message size.
A *cell* is one row under one load.  The first row is the baseline of every comparison; the second
is the same again, the A/A control, and whatever difference it shows is noise.

Whether a row can run is answered by the registry of pollers, which tries; what it says goes into
the report instead of a number.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pollers
from pollers import system
from pollers.limits import OTHER_FDS

#: select(2) holds fd numbers below FD_SETSIZE, which CPython cannot change.
FD_SETSIZE: Final = 1024
#: fds of a server besides its connections: standard streams, listener, wake-up, log, spare.
SERVER_FDS: Final = 24

BASELINE: Final = "epoll"
CONTROL: Final = "epoll-again"


class Unknown(ValueError):
    """A name that is none; `str()` lists the ones there are."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    label: str
    loop: str
    #: None where the loop brings its own.
    poller: str | None
    backend: str = "copy"
    env: tuple[tuple[str, str], ...] = ()

    def words(self) -> list[str]:
        """The options of the locustfile that choose this row."""
        words = ["--loop", self.loop, "--backend", self.backend]
        return words + (["--poller", self.poller] if self.poller else [])


@dataclass(frozen=True)
class Load:
    """How many connections, how many of them active, and how many bytes a message has."""

    key: str
    connections: int
    active: int
    size: int

    @property
    def title(self) -> str:
        """For people: "10,000 connections, 100 active, messages of 64 B"."""
        active = "all" if self.active == self.connections else f"{self.active:,}"
        return f"{self.connections:,} connections, {active} active, messages of {self.size:,} B"


@dataclass(frozen=True)
class Cell:
    """One row under one load."""

    row: Row
    load: Load

    @property
    def key(self) -> str:
        return f"{self.row.key}@{self.load.key}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "row": self.row.key,
            "label": self.row.label,
            "load": self.load.key,
            "loop": self.row.loop,
            "poller": self.row.poller,
            "backend": self.row.backend,
            "env": dict(self.row.env),
            "connections": self.load.connections,
            "active": self.load.active,
            "size": self.load.size,
            "title": self.load.title,
        }


ROWS: Final = (
    Row(BASELINE, "epoll", "reactor", "epoll"),
    Row(CONTROL, "epoll (A/A)", "reactor", "epoll"),
    Row("epoll-splice", "epoll, splice", "reactor", "epoll", "splice"),
    Row("aio", "aio", "reactor", "aio"),
    Row("poll", "poll", "reactor", "poll"),
    Row("select", "select", "reactor", "select"),
    Row("kqueue", "kqueue", "reactor", "kqueue"),
    Row("asyncio", "asyncio", "asyncio", None),
    Row("uvloop-0", "uvloop, UV_USE_IO_URING=0", "uvloop", None, env=(("UV_USE_IO_URING", "0"),)),
    Row("uvloop-1", "uvloop, UV_USE_IO_URING=1", "uvloop", None, env=(("UV_USE_IO_URING", "1"),)),
    Row("trio", "trio", "trio", None),
)

LOADS: Final = ("busy", "idle", "small")


def loads(names: Iterable[str], connections: int, size: int) -> list[Load]:
    """The loads of these names.  Raises Unknown.

    busy: every connection is active.  idle: one in a hundred is.  small: as many, all active, as
    select(2) can hold too.
    """
    small = min(900, connections)
    known = {
        "busy": Load("busy", connections, connections, size),
        "idle": Load("idle", connections, max(1, connections // 100), size),
        "small": Load("small", small, small, size),
    }
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise Unknown(f"no load is called {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in wanted]


def choose(only: Iterable[str], skip: Iterable[str]) -> list[Row]:
    """The rows of these names, in the table's order; baseline and control are always among them.

    A name is a row's key or a loop's ("uvloop": both of its rows).  Raises Unknown.
    """
    wanted, unwanted = _keys(only), _keys(skip)
    fixed = {BASELINE, CONTROL}
    if lost := sorted(fixed & unwanted):
        raise Unknown(f"{lost[0]} cannot be skipped: the comparison rests on it")
    chosen = (wanted or {row.key for row in ROWS}) - unwanted | fixed
    return [row for row in ROWS if row.key in chosen]


def _keys(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        keys = {row.key for row in ROWS if name == row.key}
        keys = keys or {row.key for row in ROWS if name == row.loop}
        if not keys:
            known = ", ".join([*(row.key for row in ROWS), "uvloop", "reactor"])
            raise Unknown(f"no row is called {name!r}; there are: {known}")
        found |= keys
    return found


def matrix(rows: Sequence[Row], loads: Sequence[Load]) -> tuple[list[Cell], dict[str, str]]:
    """The cells, and for those that cannot run here (by key) the reason in one line."""
    cells = [Cell(row, load) for load in loads for row in rows]
    reasons = {row.key: missing(row) for row in rows}
    unavailable = {}
    for cell in cells:
        if reason := reasons[cell.row.key] or too_many(cell):
            unavailable[cell.key] = reason
    return cells, unavailable


def missing(row: Row) -> str:
    """Why this system cannot run `row` at all; "" where it can."""
    if row.poller is not None:
        found = pollers.probe(row.poller)
        if not found.available:
            return found.reason
    elif row.loop in ("uvloop", "trio") and importlib.util.find_spec(row.loop) is None:
        return f"{row.loop} is not installed: pip install {row.loop}"
    if row.backend == "splice" and not system.HAS_SPLICE:
        return "this system's Python has no os.splice (Linux, Python 3.10)"
    return ""


def too_many(cell: Cell) -> str:
    """Why this row cannot hold the load's connections; "" where it can."""
    room = FD_SETSIZE - SERVER_FDS
    if cell.row.poller == "select" and cell.load.connections > room:
        return (
            f"select(2) holds fds below {FD_SETSIZE}: {cell.load.connections:,} connections do "
            f"not fit, {room:,} do (--loads small compares it)"
        )
    return ""


def largest(hard_limit: int) -> int:
    """How many connections fit into one process's `hard_limit` of file descriptors."""
    return max(0, hard_limit - OTHER_FDS)
