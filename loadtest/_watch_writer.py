"""Changes a tree as it is told to, and keeps the journal: `python -m loadtest._watch_writer`.

What this file is
-----------------
A process of its own, so that what it costs is not the watcher's.  Its first argument is a JSON
object (`Setup`); then each line on stdin is one phase, done and answered by a line on stdout:

    {"phase": "journal", "seed", "operations", "rate"}   every kind of operation, in random order
    {"phase": "flood", "seconds"}             writes as fast as the watcher tells of them
    {"phase": "hold", "seconds", "rate"}      writes at a fixed rate
    {"phase": "backlog", "watcher"}           a write to each file, while that process is stopped
    {"phase": "fresh", "watcher"}             the same, as the first write to each of them
    {"phase": "burst", "operations"}          as fast as this process can
    {"phase": "save", "path"}                 write the journal

*   flood is a *closed loop*: never more than `window` writes are on the way, which fit into any
    queue, so that what it measures is what the watcher can do, not what it can lose.  The watcher
    counts in shared memory what it has told.  Each file is written twice at the earliest a window
    later, so that two writes cannot be told as one.  burst is the opposite: nobody waits.
*   Where the writer is slower than the watcher, the flood cannot say what the watcher can do.
    backlog does: SIGSTOP, half a queue of writes, SIGCONT, and then only the watcher works.
    Who remembers files is quicker at the second write to one, so that the first is one of its own.
*   Its files are open before a watcher looks, and written with pwrite(2), which costs about as
    much as the kernel's notice of it.  A write is one change: the bytes stay, the time does not.
*   Every phase ends with a new file in the root, by which the reader knows that it has seen all.
*   Waiting is spinning: a sleep would be later than asked for.  End of stdin ends the process.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from loadtest import _watch_journal
from loadtest._watch_journal import Operation
from loadtest._watch_tree import Tree
from pollers import system

#: Seconds for whoever watches to find the journal's directories.
HEAD_START: Final = 0.1
#: Seconds that a backlog is waited for.
LONGEST: Final = 2.0
#: Of a burst, every how-manieth operation makes a new file.
NEW: Final = 10

now = time.monotonic_ns


@dataclass(frozen=True)
class Setup:
    """What the process is started with."""

    #: The watched root.
    root: str
    #: Files below it that are there already and are written to, and how many of them.
    files: list[str]
    #: The file of eight bytes in which the watcher counts.
    told: str
    window: int
    core: int | None


class Writer:
    """Does the phases."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._root = setup.root
        self.journal: list[Operation] = []
        self._trees: list[Tree] = []
        flags = os.O_WRONLY | os.O_CLOEXEC
        self._files = [os.open(f"{setup.root}/{name}", flags) for name in setup.files]
        with open(setup.told, "rb") as file:
            self._told = memoryview(mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)).cast("q")
        self._burst = 0

    def journal_phase(self, seed: int, operations: int, rate: float) -> None:
        """`operations` of every kind, one each 1/rate seconds."""
        tree = Tree(self._root, f"work-{seed}", random.Random(seed), self.journal)
        self._trees.append(tree)  # with its mappings
        time.sleep(HEAD_START)
        tree.populate()
        start = now()
        for number in range(operations):
            due = start + int(number * 1e9 / rate)
            while now() < due:
                pass
            tree.step()

    def flood(self, seconds: float) -> None:
        """Writes, whenever fewer than `window` of them are not told yet."""
        window, told, files = self._setup.window, self._told, self._files
        count, begins = len(files), list[int]()
        before = told[0]
        end = now() + int(seconds * 1e9)
        number = 0
        while (begin := now()) < end:
            if number - (told[0] - before) < window:
                os.pwrite(files[number % count], b"x", 0)
                begins.append(begin)
                number += 1
        self._record("flood", begins)

    def hold(self, seconds: float, rate: float) -> None:
        """Writes at `rate` a second; what is late is made up for."""
        files, count, begins = self._files, len(self._files), list[int]()
        start = now()
        period = 1e9 / rate
        for number in range(int(seconds * rate)):
            due = start + int(number * period)
            while (begin := now()) < due:
                pass
            os.pwrite(files[number % count], b"x", 0)
            begins.append(begin)
        self._record("hold", begins)

    def backlog(self, watcher: int) -> dict[str, int]:
        """A write to each file while the process `watcher` is stopped; when it went on (ns)."""
        begins, told = list[int](), self._told
        before = told[0]
        os.kill(watcher, signal.SIGSTOP)
        try:
            _wait(lambda: psutil.Process(watcher).status() == psutil.STATUS_STOPPED)
            for file in self._files:
                begins.append(now())
                os.pwrite(file, b"x", 0)
        finally:
            resumed = now()
            os.kill(watcher, signal.SIGCONT)
        self._record("backlog", begins)
        _wait(lambda: told[0] - before >= len(begins))
        return {"resumed": resumed}

    def burst(self, operations: int) -> None:
        """Writes and new files as fast as they can be made."""
        files, count, journal = self._files, len(self._files), self.journal
        names, root = self._setup.files, self._root
        self._burst += 1
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        for number in range(operations):
            if number % NEW:
                begin = now()
                os.pwrite(files[number % count], b"x", 0)
                journal.append(Operation("burst", names[number % count], "", begin, now()))
            else:
                directory = os.path.dirname(names[number % count])
                path = f"{directory}/burst-{self._burst}-{number}"
                begin = now()
                os.close(os.open(f"{root}/{path}", flags, 0o600))
                journal.append(Operation("burst create", path, "", begin, now()))

    def end(self, name: str) -> None:
        """The new file by which the reader knows that it has seen all."""
        begin = now()
        os.close(os.open(f"{self._root}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self.journal.append(Operation(_watch_journal.END, name, "", begin, now()))

    def _record(self, kind: str, begins: list[int]) -> None:
        names, count = self._setup.files, len(self._files)
        ends = [*begins[1:], now()]
        self.journal.extend(
            Operation(kind, names[number % count], "", begin, ends[number])
            for number, begin in enumerate(begins)
        )


def main() -> int:
    setup = Setup(**json.loads(sys.argv[1]))
    if setup.core is not None:
        system.pin(setup.core)
    writer = Writer(setup)
    _say(ready=True, files=len(setup.files))
    phases: dict[str, Callable[..., dict[str, int] | None]] = {
        "journal": writer.journal_phase,
        "flood": writer.flood,
        "hold": writer.hold,
        "backlog": writer.backlog,
        "fresh": writer.backlog,
        "burst": writer.burst,
    }
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        phase = order.pop("phase")
        if phase == "save":
            _watch_journal.save(Path(order["path"]), writer.journal)
            _say(saved=len(writer.journal))
            continue
        name = order.pop("end")
        before, begin, cpu = len(writer.journal), now(), time.process_time()
        more = phases[phase](**order) or {}
        seconds = (now() - begin) / 1e9
        share = (time.process_time() - cpu) / seconds if seconds else 0.0
        writer.end(name)
        done = len(writer.journal) - before - 1
        _say(phase=phase, operations=done, seconds=seconds, cpu_share=share, end=name, **more)
    return 0


def _wait(condition: Callable[[], bool]) -> None:
    """Until it holds, or has not for LONGEST: what was told then says so."""
    deadline = now() + int(LONGEST * 1e9)
    while not condition() and now() < deadline:
        pass


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        sys.exit(main())
