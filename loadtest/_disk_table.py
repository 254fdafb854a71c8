"""The disk workload in words and figures, alike on the terminal and in the report.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loadtest import _disk_analyse, _verdict
from loadtest._table import Columns, against, milliseconds, number, standing

#: How often an io_submit may sleep before reading is called blocking (FACTS: 0.1 an operation).
BLOCKING: Final = 0.1


def headings(load: Mapping[str, Any]) -> list[str]:
    """What stands above `line`, in two lines where there is a newline."""
    return [
        "",
        f"{against(load)}\n[low, high]",
        "reads/s",
        "MB/s",
        "p50 / p99 / p99.9\nms",
        "max\nms",
        "CPU us/read\nuser + system",
        "loop lag ms\np50 / p99 / max",
        "sleeps\n/read",
        "in submit\nus/read",
        "bound",
    ]


def line(one: Mapping[str, Any], load: Mapping[str, Any]) -> list[str]:
    """One row's figures, as the terminal and the report print them."""
    lag = [one[name] for name in ("lag_p50", "lag_p99", "lag_max")]
    return [
        one["label"],
        standing(one, load),
        number(one["throughput"], 0),
        number(one["megabytes"], 1),
        " / ".join(milliseconds(one[name]) for name in ("p50", "p99", "p99.9")),
        milliseconds(one["max"]),
        f"{number(one['user_cpu'], 1)} + {number(one['system_cpu'], 1)}",
        "-" if lag[0] is None else " / ".join(map(milliseconds, lag)),
        number(one["switches"], 2),
        number(one["submit_us"], 1),
        one["bound"],
    ]


def sources(load: Mapping[str, Any]) -> str:
    """Where the table's figures come from."""
    rounds = max((one["rounds"] for one in load["rows"]), default=0)
    checked = sum(one["checked"] for one in load["rows"])
    text = f"medians of {rounds} rounds; {checked:,} reads brought the block that was asked for"
    if any(one["key"].startswith("fio") and one["rounds"] for one in load["rows"]):
        text += ", those of fio, which are not looked at, apart"
    stayed = [one["stayed"] for one in load["rows"] if one["stayed"] is not None]
    if stayed:
        text += f"; at least {1 - max(stayed):.1%} of the file was evicted before each measurement"
    return text


def besides(load: Mapping[str, Any]) -> list[str]:
    """Sentences that only this workload has."""
    return [*_rivals(load), *_ahead(load), *_lags(load), *_sleeps(load)]


def _rivals(load: Mapping[str, Any]) -> list[str]:
    """AIO against peers and threads: the ratios the other way round."""
    if load["basis"] is None:
        return []
    parts = [
        f"{_verdict.ratio(_disk_analyse.against(one['ratio']))} x {one['label']}"
        for one in _disk_analyse.rivals(load)
    ]
    label = _disk_analyse.baseline(load)["label"]
    return [f"The other way round, {label} made {', '.join(parts)}."] if parts else []


def _ahead(load: Mapping[str, Any]) -> list[str]:
    """One read at a time is not the same for every row."""
    if not str(load["key"]).endswith("-1"):
        return []
    label = _disk_analyse.baseline(load)["label"]
    return [
        f"With one read at a time, {label} sends the next one just before its caller has the "
        "last one's bytes, so that the disk need not wait for the caller; others send it after."
    ]


def _lags(load: Mapping[str, Any]) -> list[str]:
    """Which loop was held up least while the disk was busy, and which most."""
    rows = [one for one in load["rows"] if one["lag_p99"] is not None]
    if len(rows) < 2:
        return []
    rows.sort(key=lambda one: float(one["lag_p99"]))
    parts = [f"{one['label']} {milliseconds(one['lag_p99'])}" for one in rows]
    return [f"A timer of the loop was late (p99, ms): {', '.join(parts)}."]


def _sleeps(load: Mapping[str, Any]) -> list[str]:
    """Rows whose io_submit sleeps: there AIO is not asynchronous."""
    return [
        f"{one['label']} BLOCKS in io_submit: {one['submit_switches']:.1f} sleeps a read."
        for one in load["rows"]
        if (one["submit_switches"] or 0) >= BLOCKING
    ]


COLUMNS: Final = Columns(headings, line, sources, besides)
