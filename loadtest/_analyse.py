"""From the measurements of finished rounds to a table of what may be said.  Pure.

What may be said
----------------
*   _statistics.py says how a ratio and its interval are made.
*   The A/A control is the baseline measured again.  If its interval does not contain 1, the
    machine did something that the rounds did not average out, and no other interval can be
    trusted: the run is unstable.
*   A throughput is the server's only where the server was the limit.  A client-bound row is not
    ranked by it.  Where the baseline itself is client-bound, no row of that load is, and the
    server's CPU time per message decides, which does not depend on who waited for whom.
*   What failed once, or holds another facility than it claims, is no slow row but none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from loadtest._rounds import AnyCell, Row
from loadtest._statistics import ENOUGH_FOR_BOOTSTRAP, compare, coverage, typical_noise
from loadtest._workload import ECHO, WORKLOADS, Workload

Measurement = Mapping[str, Any]

#: Above this share of messages a row with errors is not ranked.
ERROR_LIMIT: Final = 0.001


def cpu_per_message(measurement: Measurement) -> float | None:
    """The server's user and system CPU time of one message, in microseconds."""
    server = measurement["server"]
    user, system = server["user_cpu_us_per_message"], server["system_cpu_us_per_message"]
    return None if user is None or system is None else float(user + system)


@dataclass(frozen=True)
class Reading:
    """How a measurement of one workload is read."""

    #: A row's status, reason and figures, from why it is unavailable and what was measured of it.
    describe: Callable[[Row, str, Sequence[Measurement]], dict[str, Any]]
    #: The CPU time of one exchange.
    cost: Callable[[Measurement], float | None]


def analyse(
    cells: Sequence[AnyCell],
    unavailable: Mapping[str, str],
    rounds: Sequence[Mapping[str, Measurement]],
    reading: Reading | None = None,
) -> dict[str, Any]:
    """Everything that the terminal and the report say, from finished rounds.

    Each round maps the cell's key to its measurement; `reading` is for those that Locust did not
    write.
    """
    reading = reading or Reading(describe, cpu_per_message)
    loads = list(dict.fromkeys(cell.load for cell in cells))
    analysed = []
    for load in loads:
        of_load = [cell for cell in cells if cell.load == load]
        measured = {
            cell.row.key: [one[cell.key] for one in rounds if cell.key in one] for cell in of_load
        }
        reasons = {cell.row.key: unavailable.get(cell.key, "") for cell in of_load}
        said = {"key": load.key, "title": load.title, "workload": load.workload}
        words, rows = WORKLOADS[load.workload], [cell.row for cell in of_load]
        analysed.append({**said, **_one_load(words, rows, reasons, measured, reading)})
    return {
        "rounds": len(rounds),
        "coverage": coverage(len(rounds)) if rounds else None,
        "interval": "bootstrap" if len(rounds) >= ENOUGH_FOR_BOOTSTRAP else "range",
        "stable": all(one["stable"] is not False for one in analysed),
        "loads": analysed,
    }


def _one_load(
    words: Workload,
    rows: Sequence[Row],
    unavailable: Mapping[str, str],
    measured: Mapping[str, Sequence[Measurement]],
    reading: Reading,
) -> dict[str, Any]:
    """One load: each row's status and figures, its ratios, the control, and what may be ranked."""
    table = [reading.describe(row, unavailable[row.key], measured[row.key]) for row in rows]
    sound = {one["key"] for one in table if one["status"] in ("ok", "client-bound", "emulated")}
    for name, value in (("ratio", _throughput), ("cost", reading.cost)):
        series = {key: _series(value, measured[key]) for key in sound}
        _add_ratios(table, name, series, words.baseline)
    by_key = {one["key"]: one for one in table}
    notes = Counter(
        str(note)
        for of_row in measured.values()
        for one in of_row
        for note in one.get("notes", ())
    )
    baseline, control = by_key[words.baseline], by_key.get(words.control)
    basis = _basis(baseline)
    compared = control[basis] if control and basis else None
    return {
        "rows": table,
        "basis": basis,
        "stable": None if compared is None or compared["rounds"] < 2 else not compared["shown"],
        "control": compared,
        "ranking": _ranking(table, basis, words.control),
        "notes": dict(notes.most_common()),
    }


def describe(row: Row, unavailable: str, measured: Sequence[Measurement]) -> dict[str, Any]:
    """A row's status, why it has that, and the medians of its figures over rounds."""
    status, reason = judge(unavailable, measured)
    good = [one for one in measured if "throughput" in one]
    figures = {name: _median([pick(one) for one in good]) for name, pick in FIGURES.items()}
    if status in ("unavailable", "failed"):
        figures = dict.fromkeys(figures)  # what is not whole is no number
    last = good[-1] if good else {}
    return {
        "key": row.key,
        "label": row.label,
        "status": status,
        "reason": reason,
        "rounds": len(good),
        "unsteady": sum(not one["warm_up"]["steady"] for one in good),
        "bound": _majority([str(one["bound"]) for one in good]),
        "holds": last.get("attestation", {}).get("holds", ""),
        "attested": last.get("attestation", {}).get("agrees"),
        "kernel_calls_source": last.get("server", {}).get("kernel_calls_source"),
        "counted_by": last.get("server", {}).get("messages_counted_by"),
        "errors": sum(_errors(one) for one in good),
        "emulated": bool(last.get("ready", {}).get("emulated")),
        "ratio": None,
        "cost": None,
        **figures,
    }


def judge(unavailable: str, measured: Sequence[Measurement]) -> tuple[str, str]:
    """(status, reason) of a row.

    A status is ok, client-bound, emulated, errors, mismatch, failed or unavailable.
    """
    for one in measured:
        unavailable = unavailable or str(one.get("unavailable") or "")
    if unavailable:
        return "unavailable", unavailable
    failed = [str(one["failed"]) for one in measured if "failed" in one]
    if failed:
        return "failed", f"{failed[0]} ({len(failed)} of {len(measured)} rounds)"
    if not measured:
        return "failed", "no round was finished"
    for one in measured:
        if one["attestation"]["agrees"] is False:
            return "mismatch", str(one["attestation"]["why"])
    errors, messages = sum(map(_errors, measured)), sum(one["messages"] for one in measured)
    if errors > ERROR_LIMIT * messages:
        kinds = Counter[str]()
        for one in measured:
            kinds.update(one["errors"])
        worst = ", ".join(f"{kind}: {count:,}" for kind, count in kinds.most_common(2))
        units = WORKLOADS[measured[0]["cell"].get("workload", ECHO.name)].units
        return "errors", f"{errors:,} errors in {messages:,} {units} ({worst})"
    if any(one["ready"].get("emulated") for one in measured):
        return "emulated", "imitated by a library over another facility: its speed is not its own"
    if _majority([str(one["bound"]) for one in measured]) == "client":
        return "client-bound", "the load generator was the limit, so the server could do more"
    return "ok", ""


def _throughput(measurement: Measurement) -> float | None:
    return float(measurement["throughput"])


def _latency(percentile: str) -> Any:
    return lambda one: one["latency"]["service"][percentile]


def _server(name: str) -> Any:
    return lambda one: one["server"][name]


def _megabytes(measurement: Measurement) -> float | None:
    rate = measurement.get("bytes_per_second")
    return None if rate is None else float(rate) / 1e6


def _cold(measurement: Measurement) -> float | None:
    """The part of the evicted pages, as far as was looked, that were gone."""
    cold = measurement.get("cold")
    return cold["cold"] / cold["probed"] if cold and cold["probed"] else None


#: Name in the table -> how it is read from a measurement.  Latencies are in microseconds.
FIGURES: Final[dict[str, Any]] = {
    "throughput": _throughput,
    "megabytes": _megabytes,
    "p50": _latency("p50"),
    "p90": _latency("p90"),
    "p99": _latency("p99"),
    "p99.9": _latency("p99.9"),
    "max": _latency("max"),
    "cpu": cpu_per_message,
    "user_cpu": _server("user_cpu_us_per_message"),
    "system_cpu": _server("system_cpu_us_per_message"),
    "rss_per_connection": _server("rss_per_connection_bytes"),
    "kernel_calls": _server("kernel_calls_per_message"),
    "events_per_wakeup": _server("events_per_wakeup_mean"),
    "server_share": _server("cpu_share"),
    "client_share": lambda one: one["client"]["cpu_share"],
    "fairness": lambda one: one["fairness"]["jain"],
    "cold": _cold,
}


def _errors(measurement: Measurement) -> int:
    return sum(measurement.get("errors", {}).values())


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _majority(words: Sequence[str]) -> str:
    return Counter(words).most_common(1)[0][0] if words else ""


def _series(value: Any, measured: Sequence[Measurement]) -> list[float] | None:
    """One value a round; None where a round lacks it or it is not above 0."""
    values = [value(one) for one in measured]
    return values if values and all(one is not None and one > 0 for one in values) else None


def _add_ratios(
    table: Sequence[dict[str, Any]],
    name: str,
    series: Mapping[str, list[float] | None],
    base: str,
) -> None:
    baseline = series.get(base)
    if baseline is None:
        return
    whole = {
        key: values for key, values in series.items() if values and len(values) == len(baseline)
    }
    noise = typical_noise(
        [np.divide(values, baseline).tolist() for key, values in whole.items() if key != base]
    )
    for one in table:
        if one["key"] in whole:
            spread = 0.0 if one["key"] == base else noise
            one[name] = compare(whole[one["key"]], baseline, spread).as_dict()


def _basis(baseline: Mapping[str, Any]) -> str | None:
    """What a load is ranked by: "ratio" (of throughput), "cost" (of CPU), None for nothing."""
    if baseline["status"] == "ok" and baseline["ratio"]:
        return "ratio"
    if baseline["status"] == "client-bound" and baseline["cost"]:
        return "cost"
    return None


def _ranking(table: Sequence[Mapping[str, Any]], basis: str | None, control: str) -> list[str]:
    """The keys of the rows that may be ranked, best first; the control is not one of them."""
    if basis is None:
        return []
    fit = ("ok",) if basis == "ratio" else ("ok", "client-bound")
    ranked = [
        one for one in table if one["status"] in fit and one[basis] and one["key"] != control
    ]
    sign = -1.0 if basis == "ratio" else 1.0
    return [one["key"] for one in sorted(ranked, key=lambda one: sign * one[basis]["median"])]
