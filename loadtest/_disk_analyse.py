"""What the disk workload's measurements come to: each row's status and figures.  Pure.

What may be said is _analyse.py's: ratios within a round, the A/A control.  Besides, AIO is set
against each peer and each pool of threads directly, because that is what people ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from loadtest._analyse import Measurement, Reading, analyse
from loadtest._disk_cells import Cell
from loadtest._rounds import Row
from loadtest._workload import DISK

#: The share of a core from which on the reader was limited by it, and not by the disk.
SATURATED: Final = 0.9


def cost(measurement: Measurement) -> float:
    """The reader's user and system CPU time of one read, in microseconds."""
    reader = measurement["reader"]
    return float(reader["user_cpu_us_per_read"] + reader["system_cpu_us_per_read"])


def disk(
    cells: Sequence[Cell],
    unavailable: Mapping[str, str],
    rounds: Sequence[Mapping[str, Measurement]],
) -> dict[str, Any]:
    """Everything that the terminal and the report say, from finished rounds."""
    return analyse(cells, unavailable, rounds, Reading(describe, cost))


def describe(row: Row, unavailable: str, measured: Sequence[Measurement]) -> dict[str, Any]:
    """A row's status, why it has that, and the medians of its figures over rounds."""
    status, reason = judge(unavailable, measured)
    good = [one for one in measured if "throughput" in one]
    figures = {name: _median([pick(one) for one in good]) for name, pick in FIGURES.items()}
    if status != "ok":
        figures = dict.fromkeys(figures)  # what is not whole is no number
    share = figures["share"]
    return {
        "key": row.key,
        "label": row.label,
        "status": status,
        "reason": reason,
        "rounds": len(good),
        "unsteady": sum(not one["warm_up"]["steady"] for one in good),
        "bound": "" if share is None else "cpu" if share >= SATURATED else "disk",
        "checked": sum(one["checked"]["numbers"] for one in good),
        "kernel_calls_source": None,
        "ratio": None,
        "cost": None,
        **figures,
    }


def judge(unavailable: str, measured: Sequence[Measurement]) -> tuple[str, str]:
    """(status, reason) of a row; a status is ok, failed or unavailable."""
    for one in measured:
        unavailable = unavailable or str(one.get("unavailable") or "")
    if unavailable:
        return "unavailable", unavailable
    failed = [str(one["failed"]) for one in measured if "failed" in one]
    if failed:
        return "failed", f"{failed[0]} ({len(failed)} of {len(measured)} rounds)"
    return ("ok", "") if measured else ("failed", "no round was finished")


def _latency(percentile: str) -> Callable[[Measurement], Any]:
    return lambda one: one["latency"][percentile]


def _lag(percentile: str) -> Callable[[Measurement], Any]:
    return lambda one: one["lag"] and one["lag"][percentile]


def _reader(name: str) -> Callable[[Measurement], Any]:
    return lambda one: one["reader"].get(name)


#: Name in the table -> how it is read from a measurement.  Times are in microseconds.
FIGURES: Final[dict[str, Callable[[Measurement], Any]]] = {
    "throughput": lambda one: one["throughput"],
    "megabytes": lambda one: one["bytes_per_second"] / 1e6,
    **{name: _latency(name) for name in ("p50", "p90", "p99", "p99.9", "max")},
    "lag_p50": _lag("p50"),
    "lag_p99": _lag("p99"),
    "lag_max": _lag("max"),
    "cpu": cost,
    "user_cpu": _reader("user_cpu_us_per_read"),
    "system_cpu": _reader("system_cpu_us_per_read"),
    "share": _reader("cpu_share"),
    "switches": _reader("switches_per_read"),
    "submit_us": _reader("submit_us_per_read"),
    "submit_switches": _reader("submit_switches_per_read"),
    "submits": _reader("submits_per_read"),
    "stayed": lambda one: one.get("stayed"),
}


def against(value: Mapping[str, Any]) -> dict[str, float]:
    """The baseline against a row, from the row's ratio against the baseline."""
    return {
        "median": 1 / value["median"],
        "low": 1 / value["high"],
        "high": 1 / value["low"],
        "rounds": value["rounds"],
    }


def rivals(load: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows that AIO is set against by name: peers and threads that have a ratio."""
    names = ("fio-", "threads-", "nowait-")
    return [one for one in load["rows"] if one["key"].startswith(names) and one["ratio"]]


def baseline(load: Mapping[str, Any]) -> Mapping[str, Any]:
    """The baseline's row."""
    found: Mapping[str, Any] = next(one for one in load["rows"] if one["key"] == DISK.baseline)
    return found


def _median(values: Sequence[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
