"""`python -m loadtest compare`: which poller or loop serves best on this machine, and why.

Exit codes: 0 where something was compared, 1 where nothing could be, where the report could not be
written or where a process is left, 2 for what was asked wrongly (one line on stderr says what, why
and what to do), 130 after Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import datetime
import math
import random
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from loadtest import (
    _analyse,
    _cells,
    _compare,
    _echo_cells,
    _environment,
    _file_cells,
    _results,
    _terminal,
)
from loadtest._options import LARGEST_MESSAGE
from loadtest._workload import FILE
from pollers import system
from pollers.limits import OTHER_FDS, raise_nofile

SUITES: Final = {"echo": _echo_cells.SUITE, "file": _file_cells.SUITE}
#: Seconds of the budget that are kept for stopping, analysing and writing.
RESERVE: Final = 6.0
#: Bytes of a message unless --size says else.
MESSAGE: Final = 64
OK, NOTHING, BAD, INTERRUPTED = 0, 1, 2, 130


class BadInput(ValueError):
    """What was asked cannot be; `str()` is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit code."""
    started = time.monotonic()
    parsed = parser().parse_args(arguments)
    try:
        code: int = parsed.command(parsed, started)
    except (BadInput, _cells.Unknown) as error:
        print(f"loadtest {parsed.name}: {error}", file=sys.stderr)
        return BAD
    except KeyboardInterrupt:
        print(f"loadtest {parsed.name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    return code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__.splitlines()[0])
    commands = made.add_subparsers(required=True, metavar="command")
    compare = commands.add_parser(
        "compare",
        help="measure every loop and poller, interleaved, and report",
        description="Measures every loop and poller with fresh servers in interleaved rounds.",
        epilog="\n\n".join(
            [
                *map(_about, SUITES),
                "A row is also chosen by its loop's name, and every row by all.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the paragraphs are filled already
    )
    compare.set_defaults(command=run_compare, name="compare")
    add = compare.add_argument
    add("workload", nargs="?", choices=SUITES, help="what is served (echo)")
    add("--workload", dest="asked", choices=SUITES, help="the same")
    add("--quick", action="store_true", help="fewer connections, loads and rounds: 90 seconds")
    add("--rounds", type=_whole(1), help="measurements of each cell (5; quick: 3)")
    add(
        "--connections",
        type=_whole(1),
        help="echo: 10,000, or the most that fit; quick: 900; file: of a load of many, 1,000",
    )
    add("--size", type=_whole(1, LARGEST_MESSAGE), help="echo: bytes of a message (64)")
    add("--only", type=_names, default=[], metavar="ROW,...", help="these rows (and epoll, A/A)")
    add("--skip", type=_names, default=[], metavar="ROW,...", help="all rows but these")
    add("--loads", help="under which loads, see below")
    add("--seed", type=int, help="decides the order of measurements (random)")
    add("--out", type=Path, default=Path("report"), metavar="DIR", help="for the results (report)")
    add("--warmup", type=_seconds, metavar="S", help="longest warm-up (1; quick: 0.3)")
    add("--measure", type=_seconds, metavar="S", help="measured window (1; quick: 0.5)")
    add("--server-cpu", default="auto", metavar="N", help="the server's core; auto, none")
    add("--load-cpu", default="auto", metavar="N", help="the load's core; auto, none")
    add("--budget", type=_seconds, metavar="S", help="when to have ended (476; quick: 88)")
    return made


def _about(name: str) -> str:
    """What --help says of one workload."""
    suite = SUITES[name]
    rows = ", ".join(row.key if row.usual else f"({row.key})" for row in suite.rows)
    usual, quick = suite.default, suite.quick
    return textwrap.fill(
        f"{name}: rows {rows}; those in brackets only where they are named. Loads "
        f"{suite.load_names}. By itself {usual['rounds']} rounds of {usual['loads']}, at most "
        f"{usual['budget'] / 60:.0f} minutes; with --quick {quick['rounds']} of {quick['loads']}, "
        f"at most {quick['budget']:.0f} seconds.",
        width=79,
        break_on_hyphens=False,
    )


def run_compare(parsed: argparse.Namespace, started: float) -> int:
    """The subcommand `compare`."""
    suite = SUITES[_workload(parsed)]
    chosen = suite.quick if parsed.quick else suite.default
    options = {name: _given(parsed, name, chosen) for name in chosen}
    out = _directory(parsed.out)
    options["connections"] = _connections(parsed.connections, options["connections"])
    server_cpu, load_cpu = _cpus(parsed.server_cpu, parsed.load_cpu)
    seed = random.SystemRandom().randrange(2**31) if parsed.seed is None else parsed.seed
    rows = _cells.choose(suite.rows, parsed.only, parsed.skip)
    if suite.workload is FILE and parsed.size is not None:
        raise BadInput("--size is for echo: name sizes of files by --loads, as in 16k-hot-many")
    size = parsed.size or MESSAGE
    loads = suite.loads(_names(options["loads"]), options["connections"], size)
    cells, unavailable = _cells.matrix(rows, loads)
    runnable = [cell for cell in cells if cell.key not in unavailable]
    if reason := unavailable.get(_cells.Cell(rows[0], loads[0]).key):
        raise BadInput(f"the baseline cannot run here, so nothing can be compared: {reason}")
    begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    environment = _environment.environment(server_cpu, load_cpu)
    bar_output, output = _terminal.console(stderr=True), _terminal.console()
    for load in loads:
        bar_output.print(f"{load.key}: {load.title}", markup=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="pollmark-") as scratch:
        if suite.workload is FILE:
            environment["document_root"] = _environment.filesystem(Path(scratch))
        plan = _compare.Plan(
            cells=runnable,
            rounds=options["rounds"],
            seed=seed,
            warmup=options["warmup"],
            measure=options["measure"],
            server_cpu=server_cpu,
            load_cpu=load_cpu,
            until=started + options["budget"] - RESERVE,
            scratch=Path(scratch),
        )
        with _terminal.Bar(bar_output, len(runnable), plan.rounds) as bar:
            outcome = _compare.run(plan, bar)
    unavailable |= outcome.unavailable
    measured = [one["measurements"] for one in outcome.rounds]
    analysis = _analyse.analyse(cells, unavailable, measured)
    results = {
        "workload": suite.workload.name,
        "started": begun,
        "seconds": time.monotonic() - started,
        "environment": environment,
        "options": options
        | {"quick": parsed.quick}
        | ({} if suite.workload is FILE else {"size": size}),
        "seed": seed,
        "cells": [cell.as_dict() for cell in cells],
        "schedule": outcome.schedule,
        "unavailable": unavailable,
        "rounds": outcome.rounds,
        "unfinished": outcome.unfinished,
        "stopped": outcome.stopped,
        "analysis": analysis,
    }
    wrong = []
    if outcome.remains:
        wrong.append(outcome.stopped)
    compared = any(load["basis"] for load in analysis["loads"])
    if not compared:
        wrong.append("nothing could be compared, see above")
    _results.save(out / "results.json", results)  # first, as it is what cannot be made again
    _terminal.show(output, results)
    if why := _write_report(out / "report.html", results):
        wrong.append(f"report.html cannot be written: {why}; {out / 'results.json'} is whole")
        output.print(f"\n{out / 'results.json'}", markup=False, soft_wrap=True)
    else:
        both = f"\n{out / 'report.html'}  {out / 'results.json'}"
        output.print(both, markup=False, soft_wrap=True)
    for line in wrong:
        print(f"loadtest compare: {line}", file=sys.stderr)
    if outcome.interrupted:
        return INTERRUPTED
    return NOTHING if wrong else OK


def _workload(parsed: argparse.Namespace) -> str:
    """What is served, by either way to say it.  Raises BadInput."""
    if parsed.workload and parsed.asked and parsed.workload != parsed.asked:
        raise BadInput(f"{parsed.workload} or --workload {parsed.asked}: name one workload")
    return str(parsed.workload or parsed.asked or "echo")


def _write_report(path: Path, results: dict[str, Any]) -> str:
    """Write the report whole or not at all; return why it could not be, in one line, or ""."""
    try:
        # Not before: matplotlib takes half a second.
        from loadtest._report import render

        _results.replace(path, render(results))
    except Exception as error:  # whatever plotting met: the results are saved and shown already
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


def _directory(out: Path) -> Path:
    """`out`, made and shown to be writable.  Raises BadInput."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise BadInput(
            f"--out {out} cannot be written: {error.strerror}; name another directory"
        ) from None
    return out


def _connections(asked: int | None, default: int) -> int:
    """How many connections: as asked, or the default, or the most that fit, which is said."""
    _, hard = raise_nofile()
    most = _cells.largest(hard)
    if asked is not None and asked > most:
        raise BadInput(
            f"--connections {asked} do not fit in one process's {hard} file descriptors: use at "
            f"most {most}, or raise the limit as root: "
            f"prlimit --pid $$ --nofile={asked + OTHER_FDS}"
        )
    if default > most:
        print(
            f"loadtest compare: {most} connections instead of {default}: more do not fit in "
            f"{hard} file descriptors (`python -m pollers` says how to raise the limit)",
            file=sys.stderr,
        )
    return asked if asked is not None else min(default, most)


def _cpus(server: str, load: str) -> tuple[str, str]:
    """The cores as Locust's options take them.  Raises BadInput."""
    known = system.cores()
    for flag, text in (("--server-cpu", server), ("--load-cpu", load)):
        parts = text.split(",")
        if text in ("auto", "none"):
            continue
        if not all(part.isdecimal() and int(part) in known for part in parts):
            cores = ", ".join(map(str, known)) or "none that can be chosen"
            raise BadInput(f"{flag} {text!r}: cores here are {cores}; or say auto or none")
    return server, load


def _given(parsed: argparse.Namespace, name: str, chosen: Mapping[str, Any]) -> Any:
    value = getattr(parsed, name)
    return chosen[name] if value is None else value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            bound = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"must be {bound}, not {text}")
        return number

    return whole_number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0 seconds, not {text}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
