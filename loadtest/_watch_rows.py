"""Which watchers are compared: ours, one row each, and others' as peers."""

from __future__ import annotations

import importlib.util
import os
import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pollers import watch

if TYPE_CHECKING:
    from loadtest._watch_reporter import Watching

#: How often the row `stat` looks (seconds).
PERIOD: Final = 0.1

BASELINE: Final = "inotify"
CONTROL: Final = "inotify-again"


@dataclass(frozen=True)
class WatchRow:
    """One line of the table."""

    key: str
    label: str
    #: The name of a watcher of ours, or the package of a peer.
    facility: str
    #: Makes it for a root, in a process that does nothing else.
    make: Callable[[str], Watching]
    peer: bool = False
    #: Whether it is measured where nobody chose rows.
    usual: bool = True

    @property
    def loop(self) -> str:
        """The name by which all of its kind are chosen."""
        return "peers" if self.peer else "ours"

    def missing(self) -> str:
        """Why it cannot run here, in one line; "" where it can."""
        if self.peer:
            if importlib.util.find_spec(self.facility) is None:
                return f"{self.facility} is not installed: pip install {self.facility}"
            return ""
        return watch.probe(self.facility).reason


class Ours:
    """One of pollers.watch."""

    def __init__(self, name: str, root: str) -> None:
        self._watcher = watch.create(name, period=PERIOD)
        self._root = root
        self._stop, self._stopped = os.pipe()

    def add(self) -> None:
        self._watcher.add(self._root, recursive=True)

    def run(self, record: Callable[[Any, int], None]) -> None:
        poll = select.poll()
        poll.register(self._watcher.fileno(), select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        wait, read, stop = poll.poll, self._watcher.read, self._stop
        while True:
            for fd, _ in wait():
                if fd == stop:
                    return
            if changes := read():
                record(changes, len(changes))

    def stop(self) -> None:
        os.write(self._stopped, b"x")

    def close(self) -> None:
        self._watcher.close()
        os.close(self._stop)
        os.close(self._stopped)

    def reports(self, came: list[watch.Change]) -> Iterator[tuple[str, str]]:
        for kind, path, source, _ in came:
            if kind is watch.Kind.OVERFLOW:
                yield "overflow", ""
                continue
            if source is not None:
                yield "moved from", os.fsdecode(source)
            told = "moved to" if kind is watch.Kind.MOVED else kind.value
            yield told, os.fsdecode(path)

    def about(self) -> dict[str, Any]:
        return {
            "name": self._watcher.name,
            "emulated": self._watcher.emulated,
            "capabilities": [
                one.name.lower()
                for one in watch.Capability
                if one & self._watcher.capabilities and one.name
            ],
            "counters": self._watcher.counters.as_dict(),
        }


def _ours(name: str) -> Callable[[str], Watching]:
    return lambda root: Ours(name, root)


def _watchfiles(debounce: int, step: int) -> Callable[[str], Watching]:
    def make(root: str) -> Watching:
        from loadtest._watch_watchfiles import Watchfiles

        return Watchfiles(root, debounce, step)

    return make


def _watchdog(root: str) -> Watching:
    from loadtest._watch_watchdog import Watchdog

    return Watchdog(root)


#: Every row, by its key.
ROWS: Final = {
    row.key: row
    for row in (
        WatchRow(BASELINE, "inotify", "inotify", _ours("inotify")),
        WatchRow(CONTROL, "inotify again (A/A)", "inotify", _ours("inotify")),
        WatchRow("fanotify", "fanotify", "fanotify", _ours("fanotify")),
        WatchRow("pyinotify", "pyinotify", "pyinotify", _ours("pyinotify")),
        WatchRow("kqueue", "kqueue", "kqueue", _ours("kqueue")),
        WatchRow("stat", f"stat, every {PERIOD:g} s", "stat", _ours("stat")),
        WatchRow("watchdog", "watchdog", "watchdog", _watchdog, True),
        WatchRow("watchfiles", "watchfiles", "watchfiles", _watchfiles(1600, 50), True),
        WatchRow("watchfiles-1ms", "watchfiles, step 1 ms", "watchfiles", _watchfiles(1, 1), True),
    )
}
