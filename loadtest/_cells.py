"""What a matrix is made of: rows, loads and cells, and what cannot run here.

What this file is
-----------------
A *row* is a server's choice of loop, poller and backend, with the environment variables that
change it; or another's server beside ours, a peer.  A *load* is a number of connections, how many
of them are active, and what they ask for.  A *cell* is one row under one load.  Each workload has
its own (_echo_cells.py, _file_cells.py), as a `Suite`.

The row called `BASELINE` is what all others are compared with; `CONTROL` is the same again, the
A/A control, and whatever difference it shows is noise.

Whether a row can run is answered by the registry of pollers, which tries; what it says goes into
the report instead of a number.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import pollers
from loadtest import _peers, _rounds
from loadtest._workload import Workload
from pollers import system
from pollers.limits import OTHER_FDS

#: select(2) holds fd numbers below FD_SETSIZE, which CPython cannot change.
FD_SETSIZE: Final = 1024
#: fds of a server besides its connections: standard streams, listener, wake-up, log, spare.
SERVER_FDS: Final = 24

BASELINE: Final = "epoll"
CONTROL: Final = "epoll-again"
#: Chooses every row.
ALL: Final = "all"


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
    server: str = "echo"
    #: Whether it is somebody else's, and brings loop, poller and backend with it.
    peer: bool = False
    #: Whether it is measured where nobody chose rows.
    usual: bool = True

    def words(self) -> list[str]:
        """The options of the locustfile that choose this row."""
        words = ["--server", self.server]
        if self.peer:
            return words
        words += ["--loop", self.loop, "--backend", self.backend]
        return words + (["--poller", self.poller] if self.poller else [])


@dataclass(frozen=True)
class Load:
    """How many connections, how many of them active, and how many bytes each asks for."""

    key: str
    connections: int
    active: int
    size: int

    #: The user class that makes it, and the workload that it belongs to.
    user = "EchoSwarm"
    workload = "echo"

    @property
    def files(self) -> int:
        """Files that a server may have open for it."""
        return 0

    @property
    def title(self) -> str:
        """For people: "10,000 connections, 100 active, messages of 64 B"."""
        return f"{self.who}, messages of {self.size:,} B"

    @property
    def who(self) -> str:
        """How many connections there are, in words."""
        active = "all" if self.active == self.connections else f"{self.active:,}"
        return f"{self.connections:,} connections, {active} active"

    def words(self) -> list[str]:
        """The options of the locustfile that choose this load."""
        return [
            *("--message-size", str(self.size)),
            *("--swarm-connections", str(self.connections), "--swarm-active", str(self.active)),
        ]


class Cell(_rounds.Cell[Row, Load]):
    """One row under one load."""

    def facts(self) -> dict[str, Any]:
        return {
            "server": self.row.server,
            "loop": self.row.loop,
            "poller": self.row.poller,
            "backend": self.row.backend,
            "env": dict(self.row.env),
            "connections": self.load.connections,
            "active": self.load.active,
            "size": self.load.size,
        }


@dataclass(frozen=True)
class Suite:
    """What `compare` knows of one workload."""

    workload: Workload
    rows: tuple[Row, ...]
    #: The loads of these names, with so many connections and a message of so many bytes.  Raises
    #: Unknown.
    loads: Callable[[Iterable[str], int, int], list[Load]]
    #: What --loads can be, for people.
    load_names: str
    #: What --quick and the default choose, unless an option says otherwise.  Times are seconds.
    quick: Mapping[str, Any]
    default: Mapping[str, Any]


class Choosable(Protocol):
    """A row of any workload, as far as the choice goes."""

    @property
    def key(self) -> str: ...
    @property
    def loop(self) -> str: ...
    @property
    def usual(self) -> bool: ...


R = TypeVar("R", bound=Choosable)


def choose(
    rows: Sequence[R],
    only: Iterable[str],
    skip: Iterable[str],
    fixed: Set[str] = frozenset((BASELINE, CONTROL)),
) -> list[R]:
    """Those of `rows` with these names, in their order, and always the `fixed` ones.

    A name is a row's key or a loop's ("uvloop": each of its rows), or "all"; without any, the
    usual rows are chosen.  Raises Unknown.
    """
    wanted, unwanted = _keys(rows, only), _keys(rows, skip)
    if lost := sorted(fixed & unwanted):
        raise Unknown(f"{lost[0]} cannot be skipped: the comparison rests on it")
    chosen = ((wanted or {row.key for row in rows if row.usual}) - unwanted) | fixed
    return [row for row in rows if row.key in chosen]


def _keys(rows: Sequence[Choosable], names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        keys = {row.key for row in rows if name in (row.key, ALL)}
        keys = keys or {row.key for row in rows if name == row.loop}
        if not keys:
            loops = dict.fromkeys(row.loop for row in rows)
            known = ", ".join(dict.fromkeys([*(row.key for row in rows), *loops, ALL]))
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
    if row.peer:
        return _peers.missing(row.server)
    if row.poller is not None:
        found = pollers.probe(row.poller)
        if not found.available:
            return found.reason
    elif row.loop in ("uvloop", "trio") and importlib.util.find_spec(row.loop) is None:
        return f"{row.loop} is not installed: pip install {row.loop}"
    if row.backend == "splice" and not system.HAS_SPLICE:
        return "this system's Python has no os.splice (Linux, Python 3.10)"
    if row.backend == "batch" and not (found := pollers.probe("aio")).available:
        return found.reason
    return ""


def too_many(cell: Cell) -> str:
    """Why this row cannot hold the load's connections; "" where it can."""
    room = FD_SETSIZE - SERVER_FDS
    if cell.row.poller == "select" and cell.load.connections + cell.load.files > room:
        other = "--connections" if cell.load.files else "--loads small compares it"
        return (
            f"select(2) holds fds below {FD_SETSIZE}: {cell.load.connections:,} connections do "
            f"not fit, {room - cell.load.files:,} do ({other})"
        )
    return ""


def largest(hard_limit: int) -> int:
    """How many connections fit into one process's `hard_limit` of file descriptors."""
    return max(0, hard_limit - OTHER_FDS)
