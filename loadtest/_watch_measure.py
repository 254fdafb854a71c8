"""One measurement of one watcher: a fresh reporter, a fresh writer, the phases, the matching.

What this file is
-----------------
The order is: the writer starts and opens its files; the reporter starts and watches the tree; then
phase by phase the writer works and the end of its work is waited for in the reports.  Between the
phases the reporter is asked what it has used, so that CPU time belongs to a phase.  At last both
write down what they know, and what was new in the tree is taken away.

Whatever happens, cancellation included, both processes are gone when `measure` returns.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from loadtest import _watch_journal, _watch_reporter, _watch_writer
from loadtest._child import Child, Failed
from loadtest._watch_cells import SETTLE, Load, Place, WatchCell
from loadtest._watch_figures import BACKLOG, FRESH, figures
from loadtest._watch_held import held, other_than
from loadtest._watch_match import Report, match

HERE: Final = Path(__file__).resolve().parent
#: Seconds more than that which the reporter has to say so, and the writer for a phase.
GRACE: Final = 60.0
#: A watcher whose last report is not older (seconds) has more to tell.
QUIET: Final = 1.0
#: The load of the phase "hold", as a part of what the flood has shown.
HELD: Final = 0.8


@dataclass
class Stall:
    """Stop the watcher for so many seconds in the phase "hold": does the measuring show it?"""

    seconds: float
    #: How long it was stopped.
    lasted: float = field(default=0.0)


async def measure(place: Place, cell: WatchCell, stall: Stall | None = None) -> dict[str, Any]:
    """Measure `cell` once.  What does not come to figures is returned as "failed", with why.

    Raises only _processes.Remains.
    """
    try:
        return await _measured(place, cell, stall)
    except (Failed, OSError) as error:  # OSError: no room for the journal or the reports
        return {"schema": 1, "cell": cell.as_dict(), "failed": str(error)}
    finally:
        clean(place)


async def _measured(place: Place, cell: WatchCell, stall: Stall | None) -> dict[str, Any]:
    load, scratch = cell.load, place.scratch
    told = scratch / "told"
    told.write_bytes(bytes(8))
    writes = _watch_writer.Setup(
        str(place.root),
        list(place.files[: 2 * load.window]),
        str(told),
        load.window,
        place.writer_core,
    )
    watches = _watch_reporter.Setup(cell.row.key, str(place.root), str(told), place.watcher_core)
    async with AsyncExitStack() as stack:
        start = stack.enter_async_context
        writer = await start(
            Child("loadtest._watch_writer", asdict(writes), scratch / "writer.log")
        )
        await writer.answer()
        reporter = await start(
            Child("loadtest._watch_reporter", asdict(watches), scratch / "reporter.log")
        )
        ready = await reporter.answer()
        holds = held(reporter.process.pid)
        if wrong := other_than(cell.row.facility, holds):
            raise Failed(wrong)
        work: dict[str, dict[str, Any]] = {}
        for name, order in _orders(load, place.seed, reporter.process.pid):
            if name == "hold":
                order["rate"] = HELD * _rate(work["flood"])
            within = GRACE + load.longest
            work[name] = await _phase(writer, reporter, name, order, within, stall)
        done = await reporter.ask(stop=str(scratch / "reports"))
        await writer.ask(phase="save", path=str(scratch / "journal"))
    journal = _watch_journal.load(scratch / "journal")
    reports = load_reports(scratch / "reports")
    phases = [name for name in work for _ in range(work[name]["writer"]["operations"] + 1)]
    matched = match(
        _watch_journal.expected(journal),
        reports,
        phases,
        [one.kind for one in journal],
        {
            *_watch_journal.directories(journal),
            *(path.rpartition("/")[0] for path in place.files),
        },
    )
    return {
        "schema": 1,
        "cell": cell.as_dict(),
        "ready": ready,
        "holds": holds,
        "done": done,
        **figures(matched, work, load.files),
    }


def _orders(load: Load, seed: int, watcher: int) -> list[tuple[str, dict[str, Any]]]:
    """Each phase with what the writer is told; `watcher` is the reporter's process."""
    orders: list[tuple[str, dict[str, Any]]] = [
        ("journal", {"seed": seed, "operations": load.operations, "rate": load.rate}),
        (FRESH, {"watcher": watcher}),
        ("flood", {"seconds": load.flood}),
        ("hold", {"seconds": load.hold}),
        *((f"{BACKLOG}-{n + 1}", {"watcher": watcher}) for n in range(load.backlogs)),
        ("burst", {"operations": load.burst}),
    ]
    lengths = {"journal": load.operations, "flood": load.flood, "burst": load.burst}
    lengths["hold"] = load.flood and load.hold  # the flood decides its rate
    lengths[FRESH] = load.backlogs
    return [(name, order) for name, order in orders if lengths.get(name, True)]


def _rate(flood: Mapping[str, Any]) -> float:
    """Writes a second that the flood has shown, at least what shows anything."""
    writer = flood["writer"]
    return max(writer["operations"] / writer["seconds"] if writer["seconds"] else 0.0, 1000.0)


async def _phase(
    writer: Child,
    reporter: Child,
    name: str,
    order: Mapping[str, Any],
    within: float,
    stall: Stall | None,
) -> dict[str, Any]:
    """One phase: what the writer says of it, what the reporter used before and after."""
    end = f"end-{name}"
    before = await reporter.ask(mark=True)
    failed: Failed | None = None
    async with trio.open_nursery() as nursery:
        if stall is not None and name == "hold":
            nursery.start_soon(_stop_for, reporter.process, stall)
        try:
            phase = name.partition("-")[0]
            written = await writer.ask(within, phase=phase, end=end, **order)
        except Failed as error:  # which a nursery would wrap up in a group
            failed = error
    if failed is not None:
        raise failed
    found = await reporter.ask(SETTLE + GRACE, find=end, seconds=SETTLE)
    after = await reporter.ask(mark=True)
    ended = found["found"]
    telling = not ended and found["quiet"] < QUIET
    return {
        "writer": written,
        "before": before,
        "after": after,
        "ended": ended,
        "telling": telling,
    }


async def _stop_for(process: trio.Process, stall: Stall) -> None:
    """Stop the watcher's process for a while."""
    await trio.sleep(stall.seconds / 4)
    begin = trio.current_time()
    process.send_signal(signal.SIGSTOP)
    try:
        await trio.sleep(stall.seconds)
    finally:
        process.send_signal(signal.SIGCONT)
        stall.lasted = trio.current_time() - begin


def load_reports(path: Path) -> list[Report]:
    """What the reporter wrote."""
    data = json.loads(path.read_text())
    names = data["names"]
    return [
        Report(time, names[what], names[name])
        for time, what, name in zip(data["time"], data["what"], data["path"], strict=True)
    ]


def plant(root: Path, files: int) -> list[str]:
    """Make `files` files below `root`, a hundred to a directory; their names."""
    names = []
    for number in range(files):
        directory, file = divmod(number, 100)
        if not file:
            (root / f"{directory:03}").mkdir()
        names.append(f"{directory:03}/{file:02}")
        (root / names[-1]).write_bytes(b"x")
    return names


def clean(place: Place) -> None:
    """Take away what a measurement has left below the root."""
    for directory in {path.rpartition("/")[0] for path in place.files}:
        for entry in os.scandir(place.root / directory):
            if entry.name.startswith("burst-"):
                os.unlink(entry.path)
    for entry in os.scandir(place.root):
        if entry.name.startswith("work-"):
            shutil.rmtree(entry.path)
        elif entry.name.startswith("end-"):
            os.unlink(entry.path)
