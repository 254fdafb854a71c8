"""Runs the matrix, round by round: one headless Locust run for each measurement.

What this file is
-----------------
`run_rounds` is for every workload and is told how a cell is measured; `run` and `measure` are for
those that Locust loads.  Both measure at the beginning of a `with`, whose body makes something of
what they found.

The order of a round is _rounds.py's; a round counts when each of its cells was measured.  The run
ends after the last round, or when the next one would not fit into the budget any more (judged by
what the cells have taken so far), or at Ctrl-C or SIGTERM.  Whatever ends it, the finished rounds
are kept and no process is left; one that cannot be ended ends the run, and is named.  A signal
that comes later, in the body, is put off: what took minutes must first be analysed and saved.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import trio

from loadtest import _processes
from loadtest._cells import Cell
from loadtest._results import BadResults, load_measurement
from loadtest._rounds import AnyCell, order

HERE: Final = Path(__file__).resolve().parent
#: What Locust, a server and each connection take besides warming up and measuring (seconds).
START: Final = 2.5
PER_CONNECTION: Final = 0.0002
#: A measurement that takes this much longer (seconds) has failed.
GRACE: Final = 40.0
#: Variables that would change what is measured, or how Locust runs, without standing in the table.
DROPPED: Final = ("LOCUST_", "UV_USE_IO_URING")


C = TypeVar("C", bound=AnyCell)
#: Measures one cell once; raises only _processes.Remains.
Measure: TypeAlias = Callable[[C], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Rounds(Generic[C]):
    """What is to be measured, how often, and until when."""

    cells: Sequence[C]
    rounds: int
    seed: int
    #: time.monotonic() at which measuring must have ended.
    until: float
    #: Done once before the first round; it is of the budget, and no part of a round.
    before: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be run with Locust.  Times are seconds."""

    cells: Sequence[Cell]
    rounds: int
    seed: int
    warmup: float
    measure: float
    server_cpu: str
    load_cpu: str
    #: As in `Rounds`.
    until: float
    scratch: Path


@dataclass
class Outcome:
    """What came of it."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    schedule: list[list[str]] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    unfinished: dict[str, Any] | None = None
    stopped: str = ""
    interrupted: bool = False
    #: Whether processes of the run could not be ended; `stopped` names them.
    remains: bool = False

    def as_dict(self) -> dict[str, Any]:
        """What results.json keeps of it (_results.py), but for `unavailable`, which is more."""
        return {
            "schedule": self.schedule,
            "rounds": self.rounds,
            "unfinished": self.unfinished,
            "stopped": self.stopped,
        }

    @property
    def measured(self) -> list[dict[str, dict[str, Any]]]:
        """The measurements of each finished round, by their cell's key."""
        return [one["measurements"] for one in self.rounds]


class Progress(AbstractContextManager[object], Protocol):
    """Who is told what is being done; entered while it is."""

    def cell(self, round_number: int, rounds: int, cell: AnyCell) -> None:
        """This cell is being measured now; rounds count from 0."""

    def done(self, cell: AnyCell, measurement: Mapping[str, Any]) -> None:
        """It was measured."""

    def fewer(self, cells: int) -> None:
        """So many measurements fewer than were announced will be made."""


def run(plan: Plan, progress: Progress) -> AbstractContextManager[Outcome]:
    """Measure with Locust; see `run_rounds`."""
    rounds = Rounds(plan.cells, plan.rounds, plan.seed, plan.until)
    return run_rounds(rounds, progress, lambda cell: measure(plan, cell))


@contextmanager
def run_rounds(plan: Rounds[C], progress: Progress, measure: Measure[C]) -> Iterator[Outcome]:
    """Measure until the plan is done, the budget used up or a signal comes, then run the body.

    SIGINT and SIGTERM end the measuring in order, however often they come; in the body they only
    set `Outcome.interrupted`.  For the main thread only.
    """
    outcome = Outcome()
    scope = trio.CancelScope()
    token: trio.lowlevel.TrioToken | None = None
    measuring = True

    def stop(number: int, frame: object) -> None:
        if measuring and not outcome.interrupted:
            outcome.stopped = (
                f"{signal.Signals(number).name} during round {len(outcome.rounds) + 1}, "
                "which is left out"
            )
        outcome.interrupted = True
        if token is not None:
            token.run_sync_soon(scope.cancel)

    async def measure_all() -> None:
        nonlocal token
        token = trio.lowlevel.current_trio_token()
        with scope:
            if not outcome.interrupted:
                await _within_budget(plan, progress, measure, outcome)
        token = None

    # Before trio starts, as it takes SIGINT for itself where nobody else has.
    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            with progress:
                trio.run(measure_all)
        except _processes.Remains as error:  # they would disturb whatever is measured next
            outcome.remains = True
            outcome.stopped = "; ".join(filter(None, [outcome.stopped, str(error)]))
        measuring = False
        yield outcome
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


async def _within_budget(
    plan: Rounds[C], progress: Progress, measure: Measure[C], outcome: Outcome
) -> None:
    with trio.move_on_at(trio.current_time() + plan.until - time.monotonic()) as budget:
        await _rounds(plan, progress, measure, outcome)
    if budget.cancelled_caught:
        outcome.stopped = (
            f"the time budget ended within round {len(outcome.rounds) + 1}, which is left out"
        )


async def _rounds(
    plan: Rounds[C], progress: Progress, measure: Measure[C], outcome: Outcome
) -> None:
    if plan.before is not None:
        await plan.before()
    cells = list(plan.cells)
    taken: dict[str, list[float]] = {cell.key: [] for cell in cells}
    for number in range(plan.rounds):
        need = sum(sum(seconds) / len(seconds) for seconds in taken.values() if seconds)
        left = plan.until - time.monotonic()
        if number and left < need:
            outcome.stopped = (
                f"round {number + 1} of {plan.rounds} would take about {need:.0f} s, and "
                f"{max(left, 0.0):.0f} s of the time budget are left"
            )
            return
        sequence = order(cells, number, plan.seed)
        outcome.schedule.append([cell.key for cell in sequence])
        measured: dict[str, Any] = {}
        outcome.unfinished = {"number": number, "measurements": measured}
        started = time.monotonic()
        for cell in sequence:
            progress.cell(number, plan.rounds, cell)
            begun = time.monotonic()
            measured[cell.key] = await measure(cell)
            taken[cell.key].append(time.monotonic() - begun)
            progress.done(cell, measured[cell.key])
        for cell in sequence:  # what cannot run is not tried again
            if reason := measured[cell.key].get("unavailable"):
                outcome.unavailable[cell.key] = str(reason)
                cells.remove(cell)
                del taken[cell.key]
                progress.fewer(plan.rounds - number - 1)
        outcome.rounds.append(
            {
                "number": number,
                "seconds": time.monotonic() - started,
                "measurements": measured,
            }
        )
        outcome.unfinished = None


def expected(plan: Plan, cell: Cell) -> float:
    """About how long one measurement takes (seconds), for its deadline."""
    return START + PER_CONNECTION * cell.load.connections + plan.warmup + plan.measure


async def measure(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Measure one cell once, with a fresh Locust and a fresh server.

    What does not come to figures is returned as "failed" with its reason.  Raises only
    _processes.Remains.
    """
    out, log = plan.scratch / "measurement.json", plan.scratch / "locust.log"
    out.unlink(missing_ok=True)
    limit = expected(plan, cell) + GRACE
    token = secrets.token_hex(8)
    words = command(plan, cell, out, limit)
    # What a killed process leaves in its temporary directory goes when ours does.
    surroundings = environment(cell) | {"TMPDIR": str(plan.scratch)}
    try:
        code = await _processes.run(
            words, token, surroundings, plan.scratch, log, limit, result=out
        )
    except _processes.TimedOut:
        return _failed(cell, f"did not end within {limit:.0f} s and was stopped: {_last(log)}")
    try:
        measurement = load_measurement(out)
    except FileNotFoundError:
        return _failed(cell, f"Locust ended with {code} and no measurement: {_last(log)}")
    except BadResults as error:
        return _failed(cell, str(error))
    if "throughput" in measurement and (other := _substituted(cell, measurement)):
        return _failed(cell, other)
    return measurement


def command(plan: Plan, cell: Cell, out: Path, limit: float) -> list[str]:
    """Locust's command line.  -t ends it even where this process was killed."""
    # The files are written once, and not for each measurement.
    files = ["--file-root", str(plan.scratch / "files")] if cell.load.files else []
    return [
        *(sys.executable, "-m", "locust", "-f", str(HERE)),
        *("--headless", "-u", "1", "-r", "1", "-t", f"{limit:.0f}s"),
        *("--only-summary", "--loglevel", "WARNING"),
        *(*cell.row.words(), *cell.load.words(), *files),
        *("--swarm-warmup", str(plan.warmup), "--swarm-measure", str(plan.measure)),
        *("--server-cpu", plan.server_cpu, "--load-cpu", plan.load_cpu),
        *("--measurement-out", str(out), cell.load.user),
    ]


def environment(cell: Cell) -> dict[str, str]:
    """The environment of one measurement: ours, without what would change it unseen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
    path = [str(HERE.parent), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | dict(cell.row.env) | {"PYTHONPATH": os.pathsep.join(path)}


def _substituted(cell: Cell, measurement: Mapping[str, Any]) -> str:
    """What ran instead of what was asked for; "" where it is the same."""
    ready, asked = measurement["ready"], cell.row
    wanted = {"server": asked.server, "loop": asked.loop, "backend": asked.backend}
    if asked.poller is not None:
        wanted["poller"] = asked.poller
    wrong = [
        f"{name} {ready.get(name)} instead of {value}"
        for name, value in wanted.items()
        if ready.get(name) != value
    ]
    load = {"connections": cell.load.connections, "active": cell.load.active}
    wrong += [
        f"{measurement['cell'].get(name)} {name} instead of {value}"
        for name, value in load.items()
        if measurement["cell"].get(name) != value
    ]
    return f"the server ran {', '.join(wrong)}" if wrong else ""


def _failed(cell: Cell, reason: str) -> dict[str, Any]:
    return {"schema": 1, "cell": cell.as_dict(), "failed": reason}


def _last(log: Path) -> str:
    """What Locust said: its last error, or else the last line that is no part of a table."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    errors = [line.partition("/ERROR/")[2] for line in lines if "/ERROR/" in line]
    if errors:
        return errors[-1].partition(": ")[2]  # without the logger's name
    plain = [line for line in lines if line and "---|" not in line and "Aggregated" not in line]
    return plain[-1] if plain else "it said nothing"
