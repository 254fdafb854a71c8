"""What is measured of a watcher: the load, the cell, and the place.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loadtest._rounds import Cell
from loadtest._watch_rows import WatchRow
from loadtest._workload import WATCH

#: Writes on the way in a flood, if there are files enough; a window later a file may be written
#: again.  A quarter of fs.inotify.max_queued_events.
WINDOW: Final = 4096
#: Seconds that the last report of a phase is waited for.
SETTLE: Final = 4.0


@dataclass(frozen=True)
class Load:
    """The tree, and what is done in each phase; a phase of 0 is left out.  Times are seconds."""

    #: Files that are there, and watched, all the time.
    files: int = 10_000
    #: Of the journal, and a second.
    operations: int = 1000
    rate: float = 1000.0
    flood: float = 0.5
    hold: float = 0.4
    #: How often the watcher is stopped until it has every open file's write to tell.
    backlogs: int = 9
    #: Operations of the burst.
    burst: int = 50_000

    @property
    def key(self) -> str:
        return "tree"

    @property
    def window(self) -> int:
        """Writes on the way in a flood; each goes to a file of its own."""
        return min(WINDOW, self.files // 2)

    @property
    def longest(self) -> float:
        """Seconds of the longest phase whose length was chosen."""
        return max(self.operations / self.rate, self.flood, self.hold)

    @property
    def workload(self) -> str:
        return WATCH.name

    @property
    def title(self) -> str:
        """For people."""
        return f"a tree of {self.files:,} files"


class WatchCell(Cell[WatchRow, Load]):
    """One row under the load."""

    def facts(self) -> dict[str, Any]:
        return {"peer": self.row.peer, **asdict(self.load)}


@dataclass(frozen=True)
class Place:
    """Where it is measured."""

    #: The watched directory, `files` below it, and a directory for all else.
    root: Path
    files: Sequence[str]
    scratch: Path
    #: The cores; None leaves a process where the kernel puts it.
    watcher_core: int | None
    writer_core: int | None
    #: Decides what the journal does.
    seed: int
