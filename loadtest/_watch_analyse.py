"""From the measurements of finished rounds to a table of what may be said of each watcher.  Pure.

What may be said
----------------
*   _statistics.py says how a ratio and its interval are made; the A/A control is the baseline
    measured again, and a ratio of it that is shown to differ from 1 makes the run unstable.
*   What a watcher *sustains* are the changes a second of the flood, the closed loop, in which
    nothing may be lost.  In a closed loop the number on the way is the throughput times the
    latency (Little's law): where it is below half of the window, it was the writer who could do no
    more, and the watcher's own limit is higher than the figure.
*   What it *takes in* are the changes a second of a backlog, with no writer at work: the limit
    that nobody else sets, and so what rows are ranked by.  Of the backlogs of one measurement
    the median counts, and the one of files that were not written before (*fresh*) by itself.
*   A latency is that of the phase "journal": the same operations at the same rate for every row.
*   CPU time is that of the flood, for one change that became known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from loadtest._statistics import ENOUGH_FOR_BOOTSTRAP, compare, coverage, typical_noise
from loadtest._watch_cells import WatchCell
from loadtest._watch_figures import BACKLOG, FRESH, PER_FILES
from loadtest._watch_rows import BASELINE, CONTROL
from loadtest._workload import WATCH

Measurement = Mapping[str, Any]
Value = Callable[[Measurement], float | None]

#: Of a kind of operation or a phase, what is counted.
COUNTS: Final = ("facts", "told", "halves", "misnamed", "coalesced", "lost", "wrong")
REPORTS: Final = ("reports", "duplicated", "allowed", "wrong_name", "out_of_order")
#: Of a phase: its operations; the rounds whose end was reported, or that ended amid reports.
WHOLE: Final = ("operations", "ended", "telling")


def analyse(
    cells: Sequence[WatchCell],
    unavailable: Mapping[str, str],
    rounds: Sequence[Mapping[str, Measurement]],
) -> dict[str, Any]:
    """Everything that the terminal and the report say, from finished rounds.

    Each round maps the cell's key to its measurement.
    """
    table = []
    series: dict[str, dict[str, list[float]]] = {name: {} for name in RATIOS}
    for cell in cells:
        measured = [one[cell.key] for one in rounds if cell.key in one]
        row = _row(cell, unavailable.get(cell.key, ""), measured)
        table.append(row)
        if row["status"] in ("ok", "emulated"):
            for name, value in RATIOS.items():
                values = [value(one) for one in measured]
                if all(value is not None and value > 0 for value in values):
                    series[name][cell.row.key] = [float(value or 0) for value in values]
    for name, of_rows in series.items():
        _add_ratios(table, name, of_rows)
    control = next((one for one in table if one["key"] == CONTROL), None)
    stable = not any(
        control[name] and control[name]["shown"] for name in RATIOS if control is not None
    )
    baseline = next(one for one in table if one["key"] == BASELINE)
    return {
        "rounds": len(rounds),
        "coverage": coverage(len(rounds)) if rounds else None,
        "interval": "bootstrap" if len(rounds) >= ENOUGH_FOR_BOOTSTRAP else "range",
        "stable": stable,
        "loads": [
            {
                "key": cells[0].load.key,
                "title": cells[0].load.title,
                "workload": WATCH.name,
                "basis": "rate" if baseline["rate"] else None,
                "rows": table,
            }
        ],
    }


def _row(cell: WatchCell, unavailable: str, measured: Sequence[Measurement]) -> dict[str, Any]:
    status, reason = _judge(unavailable, measured)
    good = [] if status in ("failed", "unavailable") else measured
    last = good[-1] if good else {}
    figures = {name: _median([value(one) for one in good]) for name, value in FIGURES.items()}
    on_the_way = _median([_on_the_way(one) for one in good])
    limit = (
        None
        if on_the_way is None
        else "writer"
        if on_the_way < cell.load.window / 2
        else "watcher"
    )
    return {
        "key": cell.row.key,
        "label": cell.row.label,
        "peer": cell.row.peer,
        "status": status,
        "reason": reason,
        "rounds": len(good),
        "about": last.get("ready", {}).get("about", {}),
        "holds": last.get("holds", {}),
        "limit": limit,
        "kinds": _sum([one["kinds"] for one in good], COUNTS),
        "phases": _sum([one["phases"] for one in good], (*COUNTS, *REPORTS, *WHOLE)),
        "overflows": sum(one["done"]["overflows"] for one in good),
        "wrong_names": last.get("wrong_names", []),
        **figures,
        **dict.fromkeys(RATIOS),
    }


def _judge(unavailable: str, measured: Sequence[Measurement]) -> tuple[str, str]:
    """(status, reason): ok, emulated, failed or unavailable."""
    if unavailable:
        return "unavailable", unavailable
    failed = [str(one["failed"]) for one in measured if "failed" in one]
    if failed:
        return "failed", f"{failed[0]} ({len(failed)} of {len(measured)} rounds)"
    if not measured:
        return "failed", "no round was finished"
    if measured[-1]["ready"]["about"].get("emulated"):
        return "emulated", "imitated by a library over another facility: its speed is not its own"
    return "ok", ""


def _phase(phase: str, name: str) -> Value:
    return lambda one: one["phases"].get(phase, {}).get(name)


def _latency(phase: str, name: str) -> Value:
    return lambda one: one["phases"].get(phase, {}).get("latency", {}).get(name)


def _tree(name: str, scale: float = 1.0) -> Value:
    def value(one: Measurement) -> float:
        ready = one["ready"]
        grown = ready["after"][name] - ready["before"][name]
        return float(grown * scale * PER_FILES / one["cell"]["files"])

    return value


def _watches(one: Measurement) -> float | None:
    """Kernel objects for 10,000 files."""
    count = one["holds"].get("watches")
    return None if count is None else float(count * PER_FILES / one["cell"]["files"])


def _on_the_way(one: Measurement) -> float | None:
    """How many writes of the flood were not told yet, on the mean."""
    flood = one["phases"].get("flood")
    return flood and float(flood["told_per_second"] * flood["latency"]["mean"] / 1e6)


def _taken(one: Measurement) -> float | None:
    """Changes a second of the backlogs; None where one has no figure."""
    found = [
        phase["taken_per_second"]
        for name, phase in one["phases"].items()
        if name.startswith(BACKLOG)
    ]
    return None if None in found or not found else float(np.median(found))


def _journal_p50(one: Measurement) -> float | None:
    return _latency("journal", "p50")(one)


#: Name in the table -> how it is read.  Latencies in us, memory in KiB.
FIGURES: Final[dict[str, Value]] = {
    "taken": _taken,
    "fresh_taken": _phase(FRESH, "taken_per_second"),
    "sustained": _phase("flood", "told_per_second"),
    "cpu": _phase("flood", "cpu_us"),
    "user_cpu": _phase("flood", "user_cpu_us"),
    "p50": _latency("journal", "p50"),
    "p90": _latency("journal", "p90"),
    "p99": _latency("journal", "p99"),
    "max": _latency("journal", "max"),
    "held_p50": _latency("hold", "p50"),
    "held_p99": _latency("hold", "p99"),
    "held_rate": _phase("hold", "written_per_second"),
    "burst_rate": _phase("burst", "written_per_second"),
    "burst_seconds": _phase("burst", "seconds"),
    "setup_seconds": lambda one: one["ready"]["seconds"],
    "rss": _tree("rss", 1 / 1024),
    "fds": _tree("fds"),
    "watches": _watches,
}
#: What rows are compared by: more is better of the first three, less of the others.
RATIOS: Final[dict[str, Value]] = {
    "rate": FIGURES["taken"],
    "fresh": FIGURES["fresh_taken"],
    "sustaining": FIGURES["sustained"],
    "latency": FIGURES["p50"],
    "cost": FIGURES["cpu"],
}


def _sum(
    tables: Sequence[Mapping[str, Mapping[str, Any]]], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Tables of counts, added up."""
    total: dict[str, Counter[str]] = {}
    for table in tables:
        for key, counts in table.items():
            total.setdefault(key, Counter()).update({name: counts[name] for name in names})
    return {key: {name: counts[name] for name in names} for key, counts in total.items()}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _add_ratios(
    table: Sequence[dict[str, Any]], name: str, series: Mapping[str, list[float]]
) -> None:
    baseline = series.get(BASELINE)
    if baseline is None:
        return
    whole = {key: values for key, values in series.items() if len(values) == len(baseline)}
    noise = typical_noise(
        [np.divide(values, baseline).tolist() for key, values in whole.items() if key != BASELINE]
    )
    for one in table:
        if one["key"] in whole:
            spread = 0.0 if one["key"] == BASELINE else noise
            one[name] = compare(whole[one["key"]], baseline, spread).as_dict()
