"""`python -m loadtest compare disk`: who reads a disk best, and what a loop feels of it.

What this file is
-----------------
The order of things: what was asked is checked, the file is written, every cell is measured in
interleaved rounds, the file goes, the results stay.  SIGINT and SIGTERM end all of that in order
at any time; while the file is written they do so by KeyboardInterrupt.
"""

from __future__ import annotations

import argparse
import datetime
import errno
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from loadtest import (
    _cells,
    _disk_analyse,
    _disk_cells,
    _disk_fio,
    _disk_measure,
    _disk_table,
    _environment,
    _terminal,
)
from loadtest._asked import BadInput, Standalone, cpus, directory, given, names
from loadtest._compare import Rounds, run_rounds
from loadtest._conclude import Asked, collect, conclude
from loadtest._disk_await import NO_NOWAIT, NOWAIT
from loadtest._disk_file import CHUNK, DataFile
from loadtest._interrupts import scratch, sigterm_interrupts
from loadtest._site import UNITS
from loadtest._workload import DISK
from pollers import probe, system

#: Seconds of the budget that are kept for analysing and writing.
RESERVE: Final = 5.0
SIZES: Final = {**UNITS, "g": 1 << 30}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that only this workload has."""
    add = parser.add_argument
    add(
        "--path",
        type=Path,
        metavar="DIR",
        help="disk: where its file is written (--out); watch: where its tree is (/dev/shm)",
    )
    add("--keep", action="store_true", help="disk: leave the file there")


def run(parsed: argparse.Namespace, started: float) -> int:
    """Compare; return the exit code.  Raises BadInput, Unknown, KeyboardInterrupt."""
    if parsed.connections is not None:
        raise BadInput(
            "--connections is for echo and file: name a depth by --loads, random-direct-8"
        )
    if parsed.load_cpu != "auto":
        raise BadInput(
            "--load-cpu is for other workloads: disk has one process, the reader, and --server-cpu"
        )
    chosen = _disk_cells.QUICK if parsed.quick else _disk_cells.DEFAULT
    options = {name: given(parsed, name, chosen) for name in chosen if name != "size"}
    size = _size(parsed.size) if parsed.size else chosen["size"]
    out = directory(parsed.out)
    place: Path = out if parsed.path is None else parsed.path
    core = _core(parsed.server_cpu)
    seed = random.SystemRandom().randrange(2**31) if parsed.seed is None else parsed.seed
    rows = _cells.choose(_disk_cells.ROWS, parsed.only, parsed.skip, {DISK.baseline, DISK.control})
    loads = _disk_cells.loads(names(options["loads"]))
    if deepest := [load for load in loads if load.depth * load.block > size]:
        raise BadInput(
            f"--size {size >> 20}m has fewer blocks than {deepest[0].key} reads at a time"
        )
    cells = [_disk_cells.Cell(row, load) for load in loads for row in rows if row.fits(load)]
    bar_output = _terminal.console(stderr=True)
    for load in loads:
        bar_output.print(f"{load.key}: {load.title}", markup=False, soft_wrap=True)
    for row in _disk_cells.left_out(rows, loads):
        bar_output.print(
            f"{row.key} is left out: under these loads it does what the rows beside it do",
            markup=False,
            soft_wrap=True,
        )
    begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with sigterm_interrupts(), _file(place, size, seed, parsed.keep, bar_output) as file:
        unavailable = missing(cells, file)
        if reason := unavailable.get(cells[0].key):
            raise BadInput(f"the baseline cannot run here, so nothing can be compared: {reason}")
        environment = _environment.environment("none" if core is None else str(core), "none")
        environment |= _disk_environment(place, file)
        runnable = [cell for cell in cells if cell.key not in unavailable]
        with scratch(None) as outside:
            measuring = _disk_measure.Measuring(
                file, seed, options["warmup"], options["measure"], core, outside
            )
            until = started + options["budget"] - RESERVE
            plan = Rounds(runnable, options["rounds"], seed, until)
            bar = _terminal.Bar(bar_output, len(runnable), plan.rounds)
            measure = partial(_disk_measure.measure, measuring)
            chosen = options | {"quick": parsed.quick, "size": size, "path": str(place)}
            asked = Asked(DISK, begun, started, environment, chosen, seed, cells, unavailable)
            with run_rounds(plan, bar, measure) as outcome:
                results = collect(asked, outcome, _disk_analyse.disk)
                return conclude(out, results, outcome, _show, _render)


def missing(cells: list[_disk_cells.Cell], file: DataFile) -> dict[str, str]:
    """For the cells that cannot run here (by key) the reason in one line."""
    engines = {cell.row.how for cell in cells if cell.row.peer}
    of_fio = {how: _disk_fio.missing(how) for how in engines}
    aio = probe("aio")
    of_aio = "" if aio.available else aio.reason
    direct = of_aio or _why_not_direct(file)
    waiting = _why_not_nowait(file)
    found = {}
    for cell in cells:
        row = cell.row
        by_aio = row.how in _disk_cells.BY_AIO
        reason = of_fio.get(row.how, "") or (of_aio if by_aio else "")
        if row.how == "nowait":
            reason = waiting
        if cell.load.direct or by_aio:
            reason = reason or direct
        if reason:
            found[cell.key] = reason
    return found


def _why_not_direct(file: DataFile) -> str:
    """Why the file cannot be read by O_DIRECT; "" where it can."""
    from pollers.aio.direct import open_direct  # there is none where there is no AIO

    try:
        open_direct(file.fd).close()
    except OSError as error:
        return error.strerror or os.strerror(error.errno or errno.EIO)
    return ""


def _why_not_nowait(file: DataFile) -> str:
    """Why the page cache cannot be asked for what it has of the file; "" where it can."""
    if not NOWAIT:
        return NO_NOWAIT
    try:
        os.preadv(file.fd, [bytearray(1)], 0, NOWAIT)
    except BlockingIOError:
        return ""  # it has nothing, and said so
    except OSError as error:
        return f"RWF_NOWAIT is refused for a file there ({error.strerror}): name another --path"
    return ""


@contextmanager
def _file(place: Path, size: int, seed: int, keep: bool, output: Any) -> Iterator[DataFile]:
    """The file, whose writing is told of."""
    output.print(f"writing {size >> 20:,} MiB to {place} ...", markup=False, soft_wrap=True)
    with DataFile(place, size, seed, keep) as file:
        yield file
    if file.kept is not None:
        output.print(f"{file.kept} was kept", markup=False, soft_wrap=True)


def _disk_environment(place: Path, file: DataFile) -> dict[str, Any]:
    """What the file is on, and the peer's version."""
    number = os.fstat(file.fd).st_dev
    queue = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue")
    if not queue.is_dir():  # a partition: the queue is its disk's
        queue = queue.parent.parent / "queue"
    facts = ("rotational", "scheduler", "nr_requests", "read_ahead_kb", "logical_block_size")
    read: dict[str, str | None] = {name: _environment.read(queue / name) for name in facts}
    return {
        "file": _environment.filesystem(place),
        "disk_queue": read,
        "fio": _disk_fio.version(),
        "network": "none",
    }


def _core(asked: str) -> int | None:
    """The readers' core; None: not pinned.  Raises BadInput."""
    text, _ = cpus(asked, "none")
    known = system.cores()
    if text == "none" or (text == "auto" and len(known) < 2):
        return None
    if "," in text:
        raise BadInput(f"--server-cpu {text}: a reader is one process, name one core")
    return known[0] if text == "auto" else int(text)


def _size(text: str) -> int:
    """The bytes of "512m" or "2g", whole MiB.  Raises BadInput."""
    number, unit = text[:-1], SIZES.get(text[-1:].lower(), 0)
    size = int(number) * unit if number.isascii() and number.isdecimal() else 0
    if size < CHUNK or size % CHUNK:
        raise BadInput(f"--size {text}: give whole MiB, as in 512m or 2g")
    return size


def _show(output: Any, results: Mapping[str, Any]) -> None:
    _terminal.show(output, results, _disk_table.COLUMNS)


def _render(results: Mapping[str, Any]) -> str:
    """The report.  matplotlib takes half a second, so that it is not imported before."""
    from loadtest._report import render

    return render(results, _disk_table.COLUMNS, "disk_report.html.j2")


def _about() -> str:
    rows = ", ".join(row.key if row.usual else f"({row.key})" for row in _disk_cells.ROWS)
    usual, quick = _disk_cells.DEFAULT, _disk_cells.QUICK
    return (
        f"disk: rows {rows}; those in brackets only where they are named. A load is random "
        "(4 KiB) or sequential (128 KiB), direct or buffered, and how many reads at a time: "
        f"random-direct-64. By itself {usual['rounds']} rounds of {_listed(usual)} on a file of "
        f"{usual['size'] >> 30}g (--size), at most {usual['budget'] / 60:.0f} minutes; with "
        f"--quick {quick['rounds']} of {_listed(quick)} on {quick['size'] >> 20}m, at most "
        f"{quick['budget']:.0f} seconds. --server-cpu is the readers' core."
    )


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(names(options["loads"]))


STANDALONE: Final = Standalone(DISK.name, _about(), add_options, ("path", "keep"), run)
