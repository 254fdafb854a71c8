"""`python -m loadtest compare`: which poller or loop serves best on this machine, and why.

Exit codes: 0 where something was compared, 1 where nothing could be, where the report could not be
written or where a process is left, 2 for what was asked wrongly (one line on stderr says what, why
and what to do), 130 after Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
import datetime
import random
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from loadtest import (
    _analyse,
    _cells,
    _compare,
    _disk_compare,
    _echo_cells,
    _environment,
    _file_cells,
    _terminal,
    _watch_compare,
)
from loadtest._asked import BadInput, cpus, directory, given, names, seconds, whole
from loadtest._conclude import INTERRUPTED, Asked, collect, conclude
from loadtest._interrupts import scratch, sigterm_interrupts
from loadtest._options import LARGEST_MESSAGE
from loadtest._workload import FILE
from pollers.limits import OTHER_FDS, raise_nofile

#: Workloads that Locust makes.
SUITES: Final = {"echo": _echo_cells.SUITE, "file": _file_cells.SUITE}
#: Workloads that are measured without Locust.
STANDALONE: Final = {
    one.name: one for one in (_disk_compare.STANDALONE, _watch_compare.STANDALONE)
}
WORKLOADS: Final = (*SUITES, *STANDALONE)
#: Seconds of the budget that are kept for stopping, analysing and writing.
RESERVE: Final = 6.0
#: Bytes of a message unless --size says else.
MESSAGE: Final = 64
BAD: Final = 2


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
                *(_filled(one.about) for one in STANDALONE.values()),
                "A row is also chosen by its loop's name, and every row by all.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,  # the paragraphs are filled already
    )
    compare.set_defaults(command=run_compare, name="compare")
    add = compare.add_argument
    add("workload", nargs="?", choices=WORKLOADS, help="what is compared (echo)")
    add("--workload", dest="asked", choices=WORKLOADS, help="the same")
    add("--quick", action="store_true", help="fewer connections, loads and rounds: 90 seconds")
    add("--rounds", type=whole(1), help="measurements of each cell, see below")
    add(
        "--connections",
        type=whole(1),
        help="echo: 10,000, or the most that fit; quick: 900; file: of a load of many, 1,000",
    )
    add("--size", help="echo: bytes of a message (64); disk: of the file, as in 512m or 2g")
    add("--only", type=names, default=[], metavar="ROW,...", help="these rows (and epoll, A/A)")
    add("--skip", type=names, default=[], metavar="ROW,...", help="all rows but these")
    add("--loads", help="under which loads, see below")
    add("--seed", type=int, help="decides the order of measurements (random)")
    add("--out", type=Path, default=Path("report"), metavar="DIR", help="for the results (report)")
    add("--warmup", type=seconds, metavar="S", help="longest warm-up, see below")
    add("--measure", type=seconds, metavar="S", help="measured window, see below")
    add("--server-cpu", default="auto", metavar="N", help="the server's core; auto, none")
    add("--load-cpu", default="auto", metavar="N", help="the load's core; auto, none")
    add("--budget", type=seconds, metavar="S", help="when to have ended (476; quick: 88)")
    for one in STANDALONE.values():
        one.add_options(compare)
    return made


def _about(name: str) -> str:
    """What --help says of one workload."""
    suite = SUITES[name]
    rows = ", ".join(row.key if row.usual else f"({row.key})" for row in suite.rows)
    usual, quick = suite.default, suite.quick
    return _filled(
        f"{name}: rows {rows}; those in brackets only where they are named. Loads "
        f"{suite.load_names}. By itself as many rounds of {usual['loads']} as fit into "
        f"{usual['budget'] / 60:.0f} minutes, {usual['rounds']} at most; with --quick of "
        f"{quick['loads']} into {quick['budget']:.0f} seconds, {quick['rounds']} at most."
    )


def _filled(text: str) -> str:
    """A paragraph of --help."""
    return textwrap.fill(text, width=79, break_on_hyphens=False)


def run_compare(parsed: argparse.Namespace, started: float) -> int:
    """The subcommand `compare`."""
    workload = _workload(parsed)
    _refuse_others(parsed, workload)
    if workload in STANDALONE:
        return STANDALONE[workload].run(parsed, started)
    suite = SUITES[workload]
    chosen = suite.quick if parsed.quick else suite.default
    options = {name: given(parsed, name, chosen) for name in chosen}
    out = directory(parsed.out)
    options["connections"] = _connections(parsed.connections, options["connections"])
    server_cpu, load_cpu = cpus(parsed.server_cpu, parsed.load_cpu)
    seed = random.SystemRandom().randrange(2**31) if parsed.seed is None else parsed.seed
    rows = _cells.choose(suite.rows, parsed.only, parsed.skip)
    if suite.workload is FILE and parsed.size is not None:
        raise BadInput("--size is for echo: name sizes of files by --loads, as in 16k-hot-many")
    size = _message(parsed.size)
    if suite.workload is not FILE:
        options["size"] = size
    loads = suite.loads(names(options["loads"]), options["connections"], size)
    cells, unavailable = _cells.matrix(rows, loads)
    runnable = [cell for cell in cells if cell.key not in unavailable]
    if reason := unavailable.get(_cells.Cell(rows[0], loads[0]).key):
        raise BadInput(f"the baseline cannot run here, so nothing can be compared: {reason}")
    begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    environment = _environment.environment(server_cpu, load_cpu)
    bar_output = _terminal.console(stderr=True)
    for load in loads:
        bar_output.print(f"{load.key}: {load.title}", markup=False, soft_wrap=True)
    with sigterm_interrupts(), scratch(None) as place:
        if suite.workload is FILE:
            environment["document_root"] = _environment.filesystem(place)
        plan = _compare.Plan(
            cells=runnable,
            rounds=options["rounds"],
            seed=seed,
            warmup=options["warmup"],
            measure=options["measure"],
            server_cpu=server_cpu,
            load_cpu=load_cpu,
            until=started + options["budget"] - RESERVE,
            scratch=place,
        )
        bar = _terminal.Bar(bar_output, len(runnable), plan.rounds)
        chosen = options | {"quick": parsed.quick}
        asked = Asked(
            suite.workload, begun, started, environment, chosen, seed, cells, unavailable
        )
        with _compare.run(plan, bar) as outcome:
            results = collect(asked, outcome, _analyse.analyse)
            return conclude(out, results, outcome, _terminal.show, _render)


def _render(results: dict[str, Any]) -> str:
    """The report.  matplotlib takes half a second, so that it is not imported before."""
    from loadtest._report import render

    return render(results)


def _workload(parsed: argparse.Namespace) -> str:
    """What is served, by either way to say it.  Raises BadInput."""
    if parsed.workload and parsed.asked and parsed.workload != parsed.asked:
        raise BadInput(f"{parsed.workload} or --workload {parsed.asked}: name one workload")
    return str(parsed.workload or parsed.asked or "echo")


def _refuse_others(parsed: argparse.Namespace, workload: str) -> None:
    """Raise BadInput where an option was given that `workload` does not take."""
    takers: dict[str, list[str]] = {}
    for one in STANDALONE.values():
        for option in one.options:
            takers.setdefault(option, []).append(one.name)
    for option, names_ in takers.items():
        if workload not in names_ and getattr(parsed, option):
            raise BadInput(f"--{option} is for {' and '.join(names_)}, and not for {workload}")


def _message(asked: str | None) -> int:
    """Bytes of a message.  Raises BadInput."""
    if asked is None:
        return MESSAGE
    size = int(asked) if asked.isascii() and asked.isdecimal() else 0
    if not 1 <= size <= LARGEST_MESSAGE:
        raise BadInput(f"--size must be 1 to {LARGEST_MESSAGE} bytes, not {asked}")
    return size


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


if __name__ == "__main__":
    sys.exit(main())
