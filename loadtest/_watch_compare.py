"""`python -m loadtest compare --workload watch`: who tells of changed files, how fast, how truly.

What this file is
-----------------
The order of things: what was asked is checked, a tree is made, the measuring is tested, each
watcher is measured in interleaved rounds, the tree goes, the results stay.  SIGINT and SIGTERM end
all of that in order at any time; while the tree is made they do so by KeyboardInterrupt.

The test of the measuring: the baseline is stopped by SIGSTOP for a known time while writes come.
Unless the longest latency shows it, every other latency is worth nothing, and the run says so.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from loadtest import _cells, _environment, _terminal, _watch_analyse
from loadtest._asked import BadInput, Standalone, cpus, directory, given, whole
from loadtest._compare import Rounds, run_rounds
from loadtest._conclude import Asked, collect, conclude
from loadtest._interrupts import scratch, sigterm_interrupts
from loadtest._watch_cells import Load, Place, WatchCell
from loadtest._watch_measure import Stall, measure, plant
from loadtest._watch_rows import BASELINE, CONTROL, ROWS
from loadtest._watch_terminal import show
from loadtest._workload import WATCH
from pollers import system
from pollers.limits import raise_nofile

#: Seconds of the budget that are kept for analysing and writing.
RESERVE: Final = 5.0
#: What a measurement takes besides its phases, up to 3 s of matching, leaves no room for more.
QUICK: Final[Mapping[str, Any]] = {
    "rounds": 3,
    "measure": 0.15,
    "backlogs": 3,
    "burst": 0,
    "budget": 88.0,
}
DEFAULT: Final[Mapping[str, Any]] = {
    "rounds": 6,
    "measure": 0.5,
    "backlogs": 9,
    "burst": 50_000,  # more than max_queued_events
    "budget": 476.0,
}
#: Operations of the burst at most, for each file of a small tree.
A_FILE: Final = 5
FILES: Final = 10_000
#: A file system in memory (shm_open(3)): what is measured is the telling, not a disk.
MEMORY: Final = Path("/dev/shm")
#: Bytes of it that each file takes, and that journal, reports and new names do.
A_FILE_TAKES, SPARE = 4096, 128 << 20
#: The least that a flood's window allows.
LEAST: Final = 100
#: Seconds for which the test of the measuring stops the baseline, and the part of that time which
#: must be seen: the first write after it was stopped may come late on a busy machine.
STALL, SEEN = 0.4, 0.75
#: Packages whose version can change a result.
PACKAGES: Final = ("pyinotify", "watchdog", "watchfiles")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The option that only this workload has; --path is there (_disk_compare.py)."""
    parser.add_argument("--files", type=whole(LEAST), help=f"watch: files in the tree ({FILES:,})")


def run(parsed: argparse.Namespace, started: float) -> int:
    """Compare; return the exit code.  Raises BadInput, Unknown, KeyboardInterrupt."""
    for name in ("connections", "size", "loads", "warmup"):
        if getattr(parsed, name) is not None:
            raise BadInput(f"--{name} is for other workloads: watch has --files and --measure")
    chosen = QUICK if parsed.quick else DEFAULT
    options = dict(chosen) | {
        name: given(parsed, name, chosen) for name in ("rounds", "measure", "budget")
    }
    options["files"] = parsed.files or FILES
    options["burst"] = min(chosen["burst"], A_FILE * options["files"])
    out, where = directory(parsed.out), _where(parsed.path, options["files"])
    watcher_core, writer_core = _cores(parsed.server_cpu, parsed.load_cpu)
    seed = random.SystemRandom().randrange(2**31) if parsed.seed is None else parsed.seed
    rows = _cells.choose(list(ROWS.values()), parsed.only, parsed.skip, {BASELINE, CONTROL})
    seconds = options["measure"]
    load = Load(
        files=options["files"],
        operations=int(2000 * seconds),
        flood=seconds,
        hold=seconds,
        backlogs=options["backlogs"],
        burst=options["burst"],
    )
    cells = [WatchCell(row, load) for row in rows]
    unavailable = {cell.key: reason for cell in cells if (reason := cell.row.missing())}
    if cells[0].key in unavailable:
        raise BadInput(
            "the baseline cannot run here, so nothing can be compared: "
            + unavailable[cells[0].key]
        )
    runnable = [cell for cell in cells if cell.key not in unavailable]
    raise_nofile()  # the writer holds its files open
    begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    environment = _environment.environment(_word(watcher_core), _word(writer_core))
    environment["packages"] |= {name: _environment.package_version(name) for name in PACKAGES}
    environment["network"] = "none"
    bar_output = _terminal.console(stderr=True)
    bar_output.print(f"making {load.title} ...", markup=False, soft_wrap=True)
    self_test: dict[str, Any] = {}
    with sigterm_interrupts(), scratch(where) as outside:
        root = outside / "tree"
        root.mkdir()
        environment["tree"] = _environment.filesystem(root)
        begin = time.monotonic()
        try:
            files = plant(root, load.files)
        except OSError as error:
            raise BadInput(
                f"the tree cannot be made in {outside.parent}: {error.strerror}; name another "
                "directory by --path, or fewer --files"
            ) from None
        place = Place(root, files, outside, watcher_core, writer_core, seed)
        reserve = RESERVE + time.monotonic() - begin  # as taking it away takes about as long

        async def test() -> None:
            self_test.update(await _test(place, cells[0]))

        until = started + options["budget"] - reserve
        plan = Rounds(runnable, options["rounds"], seed, until, test)
        bar = _terminal.Bar(bar_output, len(runnable), plan.rounds)
        chosen = options | {"quick": parsed.quick}
        asked = Asked(WATCH, begun, started, environment, chosen, seed, cells, unavailable)
        with run_rounds(plan, bar, partial(measure, place)) as outcome:
            results = collect(asked, outcome, _watch_analyse.analyse) | {"self_test": self_test}
            return conclude(out, results, outcome, show, _render)


def _render(results: dict[str, Any]) -> str:
    """The report.  What it is made of loads matplotlib, so that it is not imported before."""
    from loadtest._watch_report import render

    return render(results)


async def _test(place: Place, cell: WatchCell) -> dict[str, Any]:
    """Stop the baseline for a known time and look whether its latency shows it."""
    stall = Stall(STALL)
    load = replace(cell.load, operations=0, flood=0.1, hold=2 * STALL, backlogs=0, burst=0)
    measured = await measure(place, WatchCell(cell.row, load), stall)
    if "failed" in measured:
        return {"shown": False, "said": f"The measuring could not be tested: {measured['failed']}"}
    longest = measured["phases"]["hold"]["latency"]["max"] / 1e6
    shown = longest >= SEEN * stall.lasted
    said = (
        f"The watcher was stopped for {stall.lasted:.3f} s to test the measuring: the longest "
        f"latency was {longest:.3f} s"
    )
    said += "." if shown else ". BROKEN: it does not show that; trust no latency below."
    return {"shown": shown, "stopped": stall.lasted, "longest": longest, "said": said}


def _where(asked: Path | None, files: int) -> Path | None:
    """Where the tree is made: as asked, or in memory, or in the temporary directory.  BadInput."""
    if asked is not None:
        return directory(asked, "--path")
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return None
    # A container may have 64 MiB of it only.
    return MEMORY if shutil.disk_usage(MEMORY).free >= files * A_FILE_TAKES + SPARE else None


def _cores(watcher: str, writer: str) -> tuple[int | None, int | None]:
    """The watcher's core and the writer's; None: not pinned.  Raises BadInput."""
    for flag, text in (("--server-cpu", watcher), ("--load-cpu", writer)):
        if "," in text:
            raise BadInput(f"{flag} {text}: it is one process, name one core")
    cpus(watcher, writer)
    known = system.cores()
    found: list[int | None] = []
    for place, text in enumerate((watcher, writer)):
        if text == "auto":
            found.append(known[place] if len(known) > 1 else None)
        else:
            found.append(None if text == "none" else int(text))
    return found[0], found[1]


def _word(core: int | None) -> str:
    return "none" if core is None else str(core)


def _about() -> str:
    rows = ", ".join(row.key for row in ROWS.values())
    return (
        f"watch: rows {rows}; also ours, peers. Each watches a tree of {FILES:,} files (--files) "
        "while another process works in it: a journal of every kind of change, a flood in a "
        "closed loop (--measure seconds; so long again at 80 % of that), backlogs, a burst. By "
        f"itself {DEFAULT['rounds']} rounds, at most {DEFAULT['budget'] / 60:.0f} minutes; with "
        f"--quick {QUICK['rounds']} without a burst, at most {QUICK['budget']:.0f} seconds. "
        "--server-cpu is the "
        "watcher's core, --load-cpu the writer's; the tree is made in --path (/dev/shm)."
    )


STANDALONE: Final = Standalone(WATCH.name, _about(), add_options, ("files", "path"), run)
