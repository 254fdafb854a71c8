"""One watcher at work: `python -m loadtest._watch_reporter SETUP`, a fresh process a measurement.

What this file is
-----------------
It watches a tree and writes down what it is told and when.  Its argument is a JSON object
(`Setup`); it answers each line of its stdin by a line on stdout:

    {"find": NAME, "seconds": S}   wait until NAME was reported, at most so long: {"found"}, and
                                   {"quiet"}, the seconds since the last report of anything
    {"mark": true}                 what it has used and holds: {"user_cpu", "rss", "fds", ...}
    {"stop": PATH}                 end watching, write the reports there: {"reports", "overflows"}

Its first line says what it is and what the tree cost it.  End of stdin ends it.

*   Its main thread is the watcher's, as in any program; the orders are taken by another one, which
    sleeps in a read while something is measured.
*   What is told is kept as it came, and put into words when all is over.  The time of a report is
    that at which the program had it in hand, the first of a batch like the last.
*   Python's cyclic garbage collector is off: what it would walk through, again and again, are the
    reports that this process keeps and another program would not.
*   The number of reports so far is in shared memory, where the writer looks (_watch_writer.py).
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

from loadtest._watch_rows import ROWS
from pollers import system

#: Seconds between two looks for a name.
LOOK: Final = 0.002
#: Reports, counted from the last one, among which a name is looked for.
RECENT: Final = 4096

now = time.monotonic_ns


@dataclass(frozen=True)
class Setup:
    """What the process is started with."""

    row: str
    root: str
    #: The file of eight bytes in which the reports are counted.
    told: str
    core: int | None


class Watching(Protocol):
    """A row at work."""

    def add(self) -> None:
        """Begin to watch; when it returns every later change is told."""

    def run(self, record: Callable[[Any, int], None]) -> None:
        """Call `record(what came at once, how many changes)` until `stop()`."""

    def stop(self) -> None:
        """From another thread: have `run` return soon."""

    def close(self) -> None:
        """Give everything back."""

    def reports(self, came: Any) -> Iterator[tuple[str, str]]:
        """(what, path) of what was recorded; ("overflow", "") where something was lost."""

    def about(self) -> dict[str, Any]:
        """What is worth knowing of it: version, counters."""


class Log:
    """What came, and when."""

    def __init__(self, told: str) -> None:
        self.came: list[tuple[int, Any]] = []
        self._count = 0
        with open(told, "r+b") as file:
            self._told = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")

    def record(self, came: Any, changes: int) -> None:
        self.came.append((now(), came))
        self._count += changes
        self._told[0] = self._count


class Orders(threading.Thread):
    """Does what stdin says."""

    def __init__(self, watching: Watching, log: Log, root: str) -> None:
        super().__init__(daemon=True)
        self._watching = watching
        self._log = log
        self._root = root + "/"
        self._process = psutil.Process()
        self.save_to: Path | None = None

    def run(self) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            if "find" in order:
                found = self._find(order["find"], order["seconds"])
                last = self._log.came[-1][0] if self._log.came else 0
                say(found=found, quiet=(now() - last) / 1e9)
            elif "mark" in order:
                say(**self.mark())
            else:
                self.save_to = Path(order["stop"])
                self._watching.stop()
                return
        os._exit(1)  # who started this has gone, and the main thread may wait forever

    def mark(self) -> dict[str, Any]:
        """What the process has used so far, and what it holds."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "time": now(),
            "user_cpu": used.ru_utime,
            "system_cpu": used.ru_stime,
            "switches": used.ru_nvcsw,
            "rss": self._process.memory_info().rss,
            "fds": self._process.num_fds(),
        }

    def _find(self, name: str, seconds: float) -> bool:
        wanted, came = self._root + name, self._log.came
        deadline = time.monotonic() + seconds
        seen = 0
        while True:
            upto = len(came)
            left = RECENT
            for position in range(upto - 1, seen - 1, -1):
                for _, path in self._watching.reports(came[position][1]):
                    if path == wanted:
                        return True
                    left -= 1
                if left < 0:
                    break
            seen = upto
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK)

    def reports(self) -> tuple[dict[str, Any], int]:
        """All that came as columns, and how many overflows."""
        names: dict[str, int] = {}
        times: list[int] = []
        whats: list[int] = []
        paths: list[int] = []
        overflows = 0
        for moment, came in self._log.came:
            for what, path in self._watching.reports(came):
                if what == "overflow":
                    overflows += 1
                    continue
                times.append(moment)
                whats.append(names.setdefault(what, len(names)))
                paths.append(names.setdefault(path.removeprefix(self._root), len(names)))
        return {"names": list(names), "what": whats, "path": paths, "time": times}, overflows


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


def main() -> int:
    setup = Setup(**json.loads(sys.argv[1]))
    if setup.core is not None:
        system.pin(setup.core)
    gc.disable()
    log = Log(setup.told)
    watching = ROWS[setup.row].make(setup.root)
    orders = Orders(watching, log, setup.root)
    before, begin = orders.mark(), now()
    watching.add()
    say(
        ready=True,
        seconds=(now() - begin) / 1e9,
        before=before,
        after=orders.mark(),
        about=watching.about(),
    )
    orders.start()
    watching.run(log.record)
    orders.join()
    about = watching.about()
    watching.close()
    reports, overflows = orders.reports()
    assert orders.save_to is not None
    orders.save_to.write_text(json.dumps(reports))
    say(reports=len(reports["time"]), overflows=overflows, about=about)
    return 0


if __name__ == "__main__":
    sys.exit(main())
